//! ReplicaSets: so many pods of one template.
//!
//! # Promise
//! - The pods with the set's reference number `spec.replicas`; missing ones are created in one batch, those that are
//!   too many deleted, the least useful first. A pod that has ended for good is deleted and replaced.
//! - Pods that the selector matches and nobody manages are adopted; own pods that it matches no more are released.
//! - A create holds only while the set is as it was seen and its namespace exists; a delete only while set and pod are
//!   as they were seen. So what was decided on an old snapshot fails in the store.
//! - While the set's document does not parse nothing is created or deleted. A pod whose document does not parse counts
//!   as it last was and is left alone.
//! - The status says what was seen; it is written only when it differs, and at most every 30 ms.

pub mod decide;
pub mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::apps::ReplicaSet;
use setpoint_apis::core::Namespace;
use setpoint_apis::{Kind, ObjectKey};
use setpoint_runtime::{Action, Leader, StateKey, Stored, View};

use crate::autoscale::Autoscalers;
use crate::documents::PodWriter;
use crate::door::Doors;
use crate::hash::{has_stem, stem};
use crate::index::{OwnerIndex, PodRow};
pub use crate::manager::Error;
use crate::manager::Manager;
use crate::memory::Memory;
use crate::overlaps::Overlaps;
use crate::owner::PodOwner;
use crate::pod::PodFacts;
use crate::seen::Seen;
use crate::standing::{self, Unusable};
use crate::{Shared, pass, writes};
use decide::decide;
use plan::{Plan, Setbacks, Snapshot};

/// Which changes make a ReplicaSet look again.
pub(crate) fn concerns(key: &StateKey) -> bool {
    match key {
        StateKey::Desired(plural, _) => {
            *plural == Namespace::PLURAL
                || OwnerIndex::concerns(key)
                || Autoscalers::concerns(key)
                || Overlaps::concerns(key)
                || Doors::concerns(key)
        }
        StateKey::Actual(plural, _) => *plural == ReplicaSet::PLURAL || Autoscalers::concerns(key),
        StateKey::Deletion(plural, _) => **plural == *ReplicaSet::PLURAL,
        _ => OwnerIndex::concerns(key),
    }
}

/// Which ReplicaSets a change concerns.
pub(crate) fn keys(shared: &Shared, change: &StateKey, view: &View<'_>) -> Vec<ObjectKey> {
    let mut index = shared.index.lock();
    index.catch_up(view);
    let mut keys = index.take_touched(PodOwner::ReplicaSet);
    keys.extend(shared.autoscaled::<ReplicaSet>(view));
    keys.extend(shared.overlapping::<ReplicaSet>(view));
    keys.extend(shared.doors.roused::<ReplicaSet>(change, view));
    match change {
        StateKey::Actual(plural, key) if *plural == ReplicaSet::PLURAL => keys.push(key.clone()),
        StateKey::Deletion(_, key) => keys.push(key.clone()),
        StateKey::Desired(plural, namespace) if *plural == Namespace::PLURAL => {
            keys.extend(
                view.desired::<ReplicaSet>()
                    .namespace(&namespace.name)
                    .map(|(k, _)| k.clone()),
            );
        }
        _ => {}
    }
    keys
}

/// One pass over one ReplicaSet.
pub(crate) async fn reconcile(
    shared: Arc<Shared>,
    leader: Leader,
    key: ObjectKey,
) -> Result<Action, Error> {
    let planned = pass::plan(
        &shared.sets,
        &shared.clock,
        &key,
        || observe(&shared, &leader.cache().view(), &key),
        |(s, _)| s.pods.len(),
        |(s, _), now| decide(s, now),
    );
    match planned {
        Ok(((snapshot, object), plan)) => {
            execute(&shared, &leader, &snapshot, object.as_deref(), plan).await
        }
        Err(action) => Ok(action),
    }
}

/// What there is to know about a ReplicaSet; `None` when it does not exist. Its document comes along when it parses.
fn observe(
    shared: &Shared,
    view: &View<'_>,
    key: &ObjectKey,
) -> Option<(Snapshot, Option<Arc<Stored<ReplicaSet>>>)> {
    let entry = view.desired::<ReplicaSet>().entry(key)?;
    let mut snapshot = Snapshot {
        key: key.clone(),
        uid: entry.last_good().map(|o| o.uid()).unwrap_or_default(),
        generation: 0,
        invalid: entry.invalid().map(|i| Unusable::document(&i.message)),
        fixed: None,
        overlap: None,
        decided: None,
        broken_scaler: None,
        terminating: false,
        namespace_exists: view
            .desired::<Namespace>()
            .contains(&ObjectKey::cluster(key.namespace.clone())),
        wanted: 0,
        min_ready: std::time::Duration::ZERO,
        pods: Vec::new(),
        fully_labeled: 0,
        adoptable: Vec::new(),
        releasable: Vec::new(),
        taken: BTreeSet::new(),
        load: BTreeMap::new(),
        setbacks: shared.sets.with(key, |memo| memo.notes.clone()),
        status: view
            .actual::<ReplicaSet>()
            .get(key)
            .map(|s| s.value.clone()),
        salt: shared.salt(),
    };
    let uid = snapshot.uid.as_str();
    snapshot.status = snapshot.status.filter(|s| standing::is_of(s, uid));
    let Some(object) = entry.valid() else {
        return Some((snapshot, None));
    };
    let set = &object.value;
    snapshot.generation = object.version;
    let recorded = snapshot.status.as_ref().and_then(|s| s.fixed.as_ref());
    match standing::take_up(object, &snapshot.uid, recorded) {
        Ok(fixed) => snapshot.fixed = Some(fixed),
        Err(unusable) => {
            snapshot.invalid = Some(unusable);
            return Some((snapshot, None));
        }
    }
    snapshot.overlap = shared.overlap::<ReplicaSet>(view, key);
    snapshot.terminating = writes::terminating::<ReplicaSet>(view, key, &snapshot.uid);
    let before = snapshot.status.as_ref().and_then(|s| s.desired_replicas);
    let size = shared.size::<ReplicaSet>(view, key, set.spec.replicas(), before);
    snapshot.wanted = size.wanted;
    snapshot.decided = size.decided;
    snapshot.broken_scaler = size.broken_scaler;
    let min_ready = set
        .spec
        .min_ready_seconds
        .and_then(|s| u64::try_from(s).ok())
        .unwrap_or(0);
    snapshot.min_ready = std::time::Duration::from_secs(min_ready);

    let mut index = shared.index.lock();
    index.catch_up(view);
    let labels = set.spec.template.as_ref().map(|t| &t.metadata.labels);
    let has_all = |row: &PodRow| {
        labels.is_none_or(|all| {
            all.iter()
                .all(|(k, v)| row.pod.value.metadata.labels.get(k) == Some(v))
        })
    };
    let selects = |row: &PodRow| set.spec.selector.matches(&row.pod.value.metadata.labels);
    for row in index.pods_of(&snapshot.uid) {
        if row.facts.frozen || selects(row) {
            snapshot.pods.push(row.facts.clone());
            snapshot.fully_labeled += i32::from(row.facts.is_active() && has_all(row));
        } else {
            snapshot.releasable.push(row.facts.seen());
        }
    }
    let loose = index.loose_pods(&key.namespace);
    for row in loose.filter(|_| snapshot.overlap.is_none()) {
        if row.facts.is_active() && !row.facts.frozen && selects(row) {
            snapshot.adoptable.push(row.facts.seen());
        }
    }
    let stem = stem(&key.name);
    // Nothing says whose these are but the name. To take them for absent might make one pod too many of them.
    for (pod, mod_revision) in index.unreadable_pods(&key.namespace, &stem) {
        if has_stem(&pod.name, &stem) {
            snapshot.pods.push(PodFacts::unreadable(pod, mod_revision));
        }
    }
    snapshot.pods.sort_by(|a, b| a.key.cmp(&b.key));
    snapshot.taken.extend(
        index
            .stopping(&key.namespace, &stem)
            .map(|k| k.name.clone()),
    );
    if snapshot.pods.len() > usize::try_from(snapshot.wanted).unwrap_or(0) {
        snapshot.load = load(&index, &snapshot, set);
    }
    Some((snapshot, Some(object.clone())))
}

/// How many pods of the set and of its siblings each node has.
fn load(index: &OwnerIndex, snapshot: &Snapshot, set: &ReplicaSet) -> BTreeMap<Arc<str>, u32> {
    let mut load = BTreeMap::new();
    let mut add = |facts: &PodFacts| {
        if let Some(node) = facts.node.as_ref().filter(|_| facts.is_active()) {
            *load.entry(node.clone()).or_insert(0) += 1;
        }
    };
    match set.metadata.controller() {
        Some(owner) => {
            for (_, sibling) in index.sets_of(&owner.uid) {
                index
                    .pods_of(&sibling.set.uid())
                    .for_each(|row| add(&row.facts));
            }
        }
        None => snapshot.pods.iter().for_each(add),
    }
    load
}

async fn execute(
    shared: &Shared,
    leader: &Leader,
    s: &Snapshot,
    object: Option<&Stored<ReplicaSet>>,
    plan: Plan,
) -> Result<Action, Error> {
    let action = Action {
        requeue_after: plan.look_again,
    };
    let mut tally = writes::Tally::default();
    if let Some(object) = object.filter(|_| plan.acts()) {
        let done = act(shared, leader, s, object, &plan, &mut tally).await?;
        if !done {
            // Deposed, or fenced off: whatever is due is decided afresh.
            return Ok(Action::requeue(writes::SOON));
        }
        if plan.create.is_empty() {
            shared.doors.forget((ReplicaSet::KIND, &s.key));
        }
    } else if object.is_some() {
        shared.doors.forget((ReplicaSet::KIND, &s.key));
    }
    let report = pass::Report::<ReplicaSet> {
        key: &s.key,
        uid: &s.uid,
        before: s.status.as_ref(),
        now: plan.status.as_ref(),
    };
    pass::finish(
        (leader, &shared.recorder),
        &shared.sets,
        &report,
        tally,
        action,
    )
    .await
}

/// Creates, deletes, adopts, releases. `false` when nothing more may be written on this snapshot.
async fn act(
    shared: &Shared,
    leader: &Leader,
    s: &Snapshot,
    object: &Stored<ReplicaSet>,
    plan: &Plan,
    tally: &mut writes::Tally,
) -> Result<bool, Error> {
    let manager = Manager::new(shared, leader, &s.key, object);
    for (pods, adopts) in [(&plan.adopt, true), (&plan.release, false)] {
        if !manager.change_owner(tally, pods, adopts).await? {
            return Ok(false);
        }
    }

    // Ended pods go first, so that a create that is refused does not keep them.
    let before = tally.committed;
    let ended: Vec<&Seen> = plan.delete.iter().map(|r| &r.pod).collect();
    let go_on = manager.delete(tally, &ended).await;
    if tally.committed > before {
        let finished = plan.delete.iter().filter(|r| r.finished).count();
        if finished > 0 {
            remember_finished(shared, &s.key, finished);
        }
    }
    if !go_on {
        return Ok(false);
    }

    let template = object.value.spec.template.as_ref();
    let Some(template) = template.filter(|_| !plan.create.is_empty()) else {
        return Ok(true);
    };
    let made = manager.furnished(template);
    let writer = PodWriter::new(&s.key.namespace, &made.template, manager.reference());
    let document = |name: &str| writer.document(name);
    let asked = made.asked();
    let created = manager.create(tally, &plan.create, &asked, document);
    let created = created.await;
    shared
        .sets
        .with(&s.key, |memo| memo.notes.failure = created.failure);
    Ok(created.go_on)
}

fn remember_finished(shared: &Shared, key: &ObjectKey, count: usize) {
    let now = shared.clock.now();
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    shared
        .sets
        .with(key, |memo| memo.notes.note_finished(count, now));
}

/// What is remembered about ReplicaSets.
pub(crate) type Sets = Memory<Setbacks>;

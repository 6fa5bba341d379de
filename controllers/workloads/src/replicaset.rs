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
use setpoint_apis::core::{Namespace, Pod};
use setpoint_apis::{Key, Kind, ObjectKey, document, owners};
use setpoint_runtime::events::EventRef;
use setpoint_runtime::{Action, Leader, StateKey, Stored, View, Write};
use setpoint_store::{Compare, StoreError, TxnOp};
use tracing::info;

use crate::documents::{PodWriter, controller_reference};
use crate::hash::{has_stem, stem};
use crate::index::{OwnerIndex, PodRow};
use crate::memory::Memory;
use crate::pod::{PodFacts, PodState};
use crate::{Shared, pass, writes};
use decide::{SETBACKS_FORGOTTEN, decide};
use plan::{Plan, Seen, Setbacks, Snapshot};

/// Pods that are created in one go. When the store refuses some of them the rest is not tried.
const BATCH: usize = 2_500;
/// Up to so many pods are named in events, each in its own.
const EVENTS: usize = 10;

/// Why a pass did not do all that it had planned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store refused a write. It is tried again with backoff, and the status says so.
    #[error("{refused} writes were refused")]
    Refused {
        /// How many.
        refused: usize,
        /// The first refusal.
        #[source]
        source: StoreError,
    },
    /// The raw document of a pod, to change its owners, could not be read.
    #[error("pod {pod} could not be read")]
    Read {
        /// The pod.
        pod: ObjectKey,
        /// Why.
        #[source]
        source: StoreError,
    },
}

/// Which changes make a ReplicaSet look again.
pub(crate) fn concerns(key: &StateKey) -> bool {
    match key {
        StateKey::Desired(plural, _) => *plural == Namespace::PLURAL || OwnerIndex::concerns(key),
        StateKey::Actual(plural, _) => *plural == ReplicaSet::PLURAL,
        StateKey::Deletion(plural, _) => **plural == *ReplicaSet::PLURAL,
        _ => OwnerIndex::concerns(key),
    }
}

/// Which ReplicaSets a change concerns.
pub(crate) fn keys(shared: &Shared, change: &StateKey, view: &View<'_>) -> Vec<ObjectKey> {
    let mut index = shared.index.lock();
    index.catch_up(view);
    let mut keys = index.take_touched_sets();
    match change {
        StateKey::Actual(_, key) | StateKey::Deletion(_, key) => keys.push(key.clone()),
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
        uid: String::new(),
        generation: 0,
        invalid: entry.invalid().map(|i| i.message.clone()),
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
    let Some(object) = entry.valid() else {
        return Some((snapshot, None));
    };
    let set = &object.value;
    snapshot.uid = object.uid();
    snapshot.generation = object.version;
    snapshot.terminating = writes::terminating::<ReplicaSet>(view, key, &snapshot.uid);
    snapshot.wanted = set.spec.replicas();
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
    let seen = |facts: &PodFacts| Seen {
        key: facts.key.clone(),
        mod_revision: facts.mod_revision,
    };
    for row in index.pods_of(&snapshot.uid) {
        if row.facts.frozen || selects(row) {
            snapshot.pods.push(row.facts.clone());
            snapshot.fully_labeled += i32::from(row.facts.is_active() && has_all(row));
        } else {
            snapshot.releasable.push(seen(&row.facts));
        }
    }
    for row in index.loose_pods(&key.namespace) {
        if row.facts.is_active() && !row.facts.frozen && selects(row) {
            snapshot.adoptable.push(seen(&row.facts));
        }
    }
    let stem = stem(&key.name);
    // Nothing says whose these are but the name. To take them for absent might make one pod too many of them.
    for (pod, mod_revision) in index.unreadable_pods(&key.namespace, &stem) {
        if has_stem(&pod.name, &stem) {
            snapshot.pods.push(unreadable(pod, mod_revision));
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

fn unreadable(key: &ObjectKey, mod_revision: i64) -> PodFacts {
    PodFacts {
        key: key.clone(),
        mod_revision,
        create_revision: mod_revision,
        frozen: true,
        node: None,
        state: PodState::Unbound,
        ready_since: None,
        deletion_cost: 0,
        restarts: 0,
    }
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
    let mut action = Action {
        requeue_after: plan.look_again,
    };
    let mut tally = writes::Tally::default();
    if let Some(object) = object.filter(|_| plan.acts()) {
        let about = EventRef::stored(object);
        let done = act(shared, leader, s, object, &plan, &mut tally, &about).await?;
        if !done {
            // Deposed, or fenced off: whatever is due is decided afresh.
            return Ok(Action::requeue(writes::SOON));
        }
    }
    let refused = tally.refused;
    let status = plan.status.as_ref();
    let status = pass::status::<ReplicaSet, _>(&shared.sets, leader, &s.key, status, &mut action);
    if let Some(write) = status
        && !tally.commit(leader, vec![write]).await
    {
        return Ok(Action::requeue(writes::SOON));
    }
    if tally.conflicts > 0 {
        action.requeue_after = Some(writes::SOON);
    }
    match tally.first_error {
        Some(source) => Err(Error::Refused {
            refused: refused.max(1),
            source,
        }),
        None => Ok(action),
    }
}

/// Creates, deletes, adopts, releases. `false` when nothing more may be written on this snapshot.
async fn act(
    shared: &Shared,
    leader: &Leader,
    s: &Snapshot,
    object: &Stored<ReplicaSet>,
    plan: &Plan,
    tally: &mut writes::Tally,
    about: &EventRef,
) -> Result<bool, Error> {
    let keyspace = leader.keyspace();
    let own = Compare::ModRevision(
        keyspace.build(&Key::Desired(ReplicaSet::PLURAL, s.key.clone())),
        object.mod_revision,
    );
    let pod_key = |key: &ObjectKey| keyspace.build(&Key::Desired(Pod::PLURAL, key.clone()));
    let reference = controller_reference::<ReplicaSet>(&s.key.name, &s.uid);

    for (pods, adopts) in [(&plan.adopt, true), (&plan.release, false)] {
        for pod in pods {
            let write = reown(leader, s, pod, adopts.then_some(&reference), own.clone()).await?;
            if !tally.commit(leader, write.into_iter().collect()).await {
                return Ok(false);
            }
        }
    }

    // Ended pods go first, so that a create that is refused does not keep them.
    let deletes = plan.delete.iter().map(|r| Write {
        guards: vec![
            Compare::ModRevision(pod_key(&r.pod.key), r.pod.mod_revision),
            own.clone(),
        ],
        ops: vec![TxnOp::Delete(pod_key(&r.pod.key))],
        context: format!("delete pod {}", r.pod.key),
    });
    let before = tally.committed;
    let go_on = tally.commit(leader, deletes.collect()).await;
    let deleted = tally.committed - before;
    if deleted > 0 {
        info!(object = %s.key, pods = deleted, "deleted pods");
        let names = plan.delete.iter().map(|r| &*r.pod.key.name);
        pod_events(
            shared,
            about,
            "SuccessfulDelete",
            "Deleted pod",
            deleted,
            names,
        );
        let finished = plan.delete.iter().filter(|r| r.finished).count();
        if finished > 0 {
            remember_finished(shared, &s.key, finished);
        }
    }
    if !go_on {
        return Ok(false);
    }

    if let Some(template) = object
        .value
        .spec
        .template
        .as_ref()
        .filter(|_| !plan.create.is_empty())
    {
        let namespace = Namespace::PLURAL;
        let namespace = Compare::Exists(keyspace.build(&Key::Desired(
            namespace,
            ObjectKey::cluster(s.key.namespace.clone()),
        )));
        let writer = PodWriter::new(&s.key.namespace, template, reference);
        for batch in plan.create.chunks(BATCH) {
            let creates = batch.iter().map(|name| {
                let pod = ObjectKey::namespaced(s.key.namespace.clone(), name.as_str());
                let key = pod_key(&pod);
                Write {
                    guards: vec![Compare::absent(key.clone()), own.clone(), namespace.clone()],
                    ops: vec![writes::put(key, writer.document(name))],
                    context: format!("create pod {pod}"),
                }
            });
            let before = (tally.committed, tally.refused);
            let go_on = tally.commit(leader, creates.collect()).await;
            let created = tally.committed - before.0;
            if created > 0 {
                info!(object = %s.key, pods = created, "created pods");
                let names = batch.iter().map(String::as_str);
                pod_events(
                    shared,
                    about,
                    "SuccessfulCreate",
                    "Created pod",
                    created,
                    names,
                );
            }
            let failed = tally.refused > before.1;
            remember_create(
                shared,
                &s.key,
                about,
                tally.first_error.as_ref().filter(|_| failed),
            );
            if !go_on {
                return Ok(false);
            }
            if failed || tally.conflicts > 0 {
                break;
            }
        }
    }
    Ok(true)
}

/// The write that puts a pod under the set, or takes it out. `None` when the pod is not as it was seen any more.
async fn reown(
    leader: &Leader,
    s: &Snapshot,
    pod: &Seen,
    reference: Option<&setpoint_apis::OwnerReference>,
    own: Compare,
) -> Result<Option<Write>, Error> {
    let key = leader
        .keyspace()
        .build(&Key::Desired(Pod::PLURAL, pod.key.clone()));
    let read = leader.store().get(&key).await;
    let (found, _) = read.map_err(|source| Error::Read {
        pod: pod.key.clone(),
        source,
    })?;
    let Some(found) = found.filter(|kv| kv.mod_revision == pod.mod_revision) else {
        return Ok(None);
    };
    let Ok(present) = document::decode_keyed::<Pod>(&pod.key, &found.value) else {
        return Ok(None);
    };
    let mut references = present.metadata.owner_references;
    match reference {
        Some(reference) => references.push(reference.clone()),
        None => references.retain(|r| r.uid != s.uid),
    }
    let Ok(text) = owners::with_owner_references::<Pod>(&pod.key, &found.value, &references) else {
        return Ok(None);
    };
    let verb = if reference.is_some() {
        "adopt"
    } else {
        "release"
    };
    info!(object = %s.key, pod = %pod.key, verb, "changing the owner of a pod");
    Ok(Some(Write {
        guards: vec![Compare::ModRevision(key.clone(), pod.mod_revision), own],
        ops: vec![writes::put(key, text)],
        context: format!("{verb} pod {}", pod.key),
    }))
}

fn pod_events<'a>(
    shared: &Shared,
    about: &EventRef,
    reason: &'static str,
    verb: &str,
    count: usize,
    names: impl ExactSizeIterator<Item = &'a str>,
) {
    if count <= EVENTS && names.len() == count {
        names.for_each(|name| {
            shared
                .recorder
                .normal(about.clone(), reason, format!("{verb}: {name}"))
        });
    } else {
        shared
            .recorder
            .normal(about.clone(), reason, format!("{verb}s: {count}"));
    }
}

fn remember_finished(shared: &Shared, key: &ObjectKey, count: usize) {
    let now = shared.clock.now();
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    shared.sets.with(key, |memo| {
        let s = &mut memo.notes;
        if s.last_finished
            .is_none_or(|t| now.duration_since(t) >= SETBACKS_FORGOTTEN)
        {
            s.finished = 0;
        }
        s.finished = s.finished.saturating_add(count);
        s.last_finished = Some(now);
    });
}

fn remember_create(shared: &Shared, key: &ObjectKey, about: &EventRef, error: Option<&StoreError>) {
    let failure = error.map(|e| ("FailedCreate".to_owned(), e.to_string()));
    if let Some((reason, message)) = &failure {
        shared
            .recorder
            .warning(about.clone(), reason.clone(), message.clone());
    }
    shared.sets.with(key, |memo| memo.notes.failure = failure);
}

/// What is remembered about ReplicaSets.
pub(crate) type Sets = Memory<Setbacks>;

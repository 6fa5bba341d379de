//! Deployments: so many pods of one template, and the way from one template to the next.
//!
//! # Promise
//! - Each template has a ReplicaSet, `<deployment>-<hash>`; pods belong to ReplicaSets. A template that was there before
//!   finds its ReplicaSet again. Revisions are numbered in its annotation.
//! - A rolling update keeps within maxSurge and maxUnavailable at every revision of the store; Recreate begins when the
//!   last old pod has stopped on its node.
//! - Every write holds only while Deployment and ReplicaSet are as they were seen.
//! - While the document of the Deployment or of one of its ReplicaSets does not parse, nothing is created, scaled or
//!   deleted; its pods stay, and the condition `Invalid` says why.
//! - A rollout without progress for `progressDeadlineSeconds` has failed, and the condition `Progressing` says so. A
//!   rollout that has failed so, or whose pods crash, is taken back: the last revision of which all pods were available
//!   runs instead, until another one is asked for. The condition `RolledBack` says so.
//! - A revision reads what was in its ConfigMaps and Secrets when it was made; a change of them is another revision.

pub mod decide;
pub mod numbers;
pub mod plan;
mod revision;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::apps::{Deployment, ReplicaSet};
use setpoint_apis::core::Namespace;
use setpoint_apis::{Key, Kind, ObjectKey, OwnerReference, document};
use setpoint_runtime::events::EventRef;
use setpoint_runtime::{Action, Leader, StateKey, Stored, View, Write};
use setpoint_store::{Compare, StoreError, TxnOp};
use tracing::info;

use crate::autoscale::Autoscalers;
use crate::conditions::{self, INVALID, REPLICA_FAILURE};
use crate::config::{Sources, copy_writes};
use crate::content::ContentIndex;
use crate::documents::{changed_replica_set, controller_reference, new_replica_set};
use crate::door::{Asked, Doors, Together};
use crate::hash::stem;
use crate::index::{OwnerIndex, SetRow};
use crate::memory::Memory;
use crate::overlaps::Overlaps;
use crate::rollback::{self, crashing};
use crate::standing::{self, Unusable};
use crate::{Shared, pass, writes};
use decide::decide;
use plan::{NewSet, Plan, Seen, SetFacts, Snapshot};

/// The store refused writes. They are tried again with backoff.
#[derive(Debug, thiserror::Error)]
#[error("{refused} writes were refused")]
pub struct Error {
    refused: usize,
    #[source]
    source: StoreError,
}

/// Which changes make a Deployment look again.
pub(crate) fn concerns(key: &StateKey) -> bool {
    match key {
        StateKey::Desired(plural, _) => {
            [Namespace::PLURAL, Deployment::PLURAL].contains(plural)
                || OwnerIndex::concerns(key)
                || ContentIndex::concerns(key)
                || Autoscalers::concerns(key)
                || Overlaps::concerns(key)
                || Doors::concerns(key)
        }
        StateKey::Actual(plural, _) => {
            [ReplicaSet::PLURAL, Deployment::PLURAL].contains(plural) || Autoscalers::concerns(key)
        }
        StateKey::Deletion(plural, _) => **plural == *Deployment::PLURAL,
        _ => OwnerIndex::concerns(key),
    }
}

/// Which Deployments a change concerns.
pub(crate) fn keys(shared: &Shared, change: &StateKey, view: &View<'_>) -> Vec<ObjectKey> {
    let mut index = shared.index.lock();
    index.catch_up(view);
    let mut keys = index.take_touched_deployments();
    keys.extend(shared.content.lock().keys::<Deployment>(view, change));
    keys.extend(shared.autoscaled::<Deployment>(view));
    keys.extend(shared.overlapping::<Deployment>(view));
    keys.extend(shared.doors.roused::<Deployment>(change, view));
    match change {
        StateKey::Actual(plural, key) if *plural == ReplicaSet::PLURAL => {
            keys.extend(index.deployment_of(key));
        }
        StateKey::Desired(plural, namespace) if *plural == Namespace::PLURAL => {
            keys.extend(
                view.desired::<Deployment>()
                    .namespace(&namespace.name)
                    .map(|(k, _)| k.clone()),
            );
        }
        StateKey::Desired(plural, key) if *plural == Deployment::PLURAL => keys.push(key.clone()),
        StateKey::Actual(plural, key) if *plural == Deployment::PLURAL => keys.push(key.clone()),
        StateKey::Deletion(_, key) => keys.push(key.clone()),
        _ => {}
    }
    keys
}

/// One pass over one Deployment.
pub(crate) async fn reconcile(
    shared: Arc<Shared>,
    leader: Leader,
    key: ObjectKey,
) -> Result<Action, Error> {
    let planned = pass::plan(
        &shared.deployments,
        &shared.clock,
        &key,
        || observe(&shared, &leader.cache().view(), &key),
        |(s, _)| {
            s.sets
                .iter()
                .map(|r| usize::try_from(r.pods).unwrap_or(0))
                .sum()
        },
        |(s, _), now| decide(s, now),
    );
    match planned {
        Ok(((snapshot, found), plan)) => execute(&shared, &leader, &snapshot, found, plan).await,
        Err(action) => Ok(action),
    }
}

/// The documents behind a snapshot, for writing them again with changes.
struct Found {
    deployment: Arc<Stored<Deployment>>,
    sets: Vec<Arc<Stored<ReplicaSet>>>,
    sources: Sources,
}

/// What there is to know about a Deployment; `None` when it does not exist. The documents come along when it parses.
fn observe(shared: &Shared, view: &View<'_>, key: &ObjectKey) -> Option<(Snapshot, Option<Found>)> {
    let Some(entry) = view.desired::<Deployment>().entry(key) else {
        shared.content.lock().forget::<Deployment>(key);
        return None;
    };
    let mut snapshot = Snapshot {
        key: key.clone(),
        generation: 0,
        uid: entry.last_good().map(|o| o.uid()).unwrap_or_default(),
        invalid: entry.invalid().map(|i| Unusable::document(&i.message)),
        fixed: None,
        overlap: None,
        config_seen: None,
        decided: None,
        broken_scaler: None,
        broken_sets: Vec::new(),
        terminating: false,
        namespace_exists: view
            .desired::<Namespace>()
            .contains(&ObjectKey::cluster(key.namespace.clone())),
        wanted: 0,
        paused: false,
        strategy: Default::default(),
        template: Default::default(),
        reads: Vec::new(),
        missing: None,
        copies: Vec::new(),
        rolls_back: false,
        annotations: Default::default(),
        min_ready_seconds: 0,
        progress_deadline: None,
        up_since: shared.up_since(view),
        history_limit: 0,
        sets: Vec::new(),
        adoptable: Vec::new(),
        releasable: Vec::new(),
        taken: BTreeSet::new(),
        failure: shared.deployments.with(key, |memo| memo.notes.clone()),
        status: view
            .actual::<Deployment>()
            .get(key)
            .map(|s| s.value.clone()),
    };
    let uid = snapshot.uid.as_str();
    snapshot.status = snapshot.status.filter(|s| standing::is_of(s, uid));
    let Some(object) = entry.valid() else {
        return Some((snapshot, None));
    };
    let spec = &object.value.spec;
    let uid = object.uid();
    snapshot.generation = object.version;
    let recorded = snapshot.status.as_ref().and_then(|s| s.fixed.as_ref());
    match standing::take_up(object, &uid, recorded) {
        Ok(fixed) => snapshot.fixed = Some(fixed),
        Err(unusable) => {
            snapshot.invalid = Some(unusable);
            return Some((snapshot, None));
        }
    }
    snapshot.overlap = shared.overlap::<Deployment>(view, key);
    snapshot.terminating = writes::terminating::<Deployment>(view, key, &uid);
    let before = snapshot.status.as_ref().and_then(|s| s.desired_replicas);
    let size = shared.size::<Deployment>(view, key, spec.replicas(), before);
    snapshot.wanted = size.wanted;
    snapshot.decided = size.decided;
    snapshot.broken_scaler = size.broken_scaler;
    snapshot.paused = spec.paused.unwrap_or(false);
    snapshot.strategy = spec.strategy.clone().unwrap_or_default();
    snapshot.template = spec.template.clone();
    snapshot
        .annotations
        .clone_from(&object.value.metadata.annotations);
    snapshot.min_ready_seconds = spec.min_ready_seconds.unwrap_or(0);
    snapshot.rolls_back = rollback::is_on(&object.value.metadata.annotations);
    snapshot.history_limit = spec.revision_history_limit.unwrap_or(10);
    let deadline = spec.progress_deadline_seconds.unwrap_or(600);
    // Kubernetes takes the greatest number for "never".
    snapshot.progress_deadline =
        (deadline != i32::MAX).then(|| Duration::from_secs(u64::try_from(deadline).unwrap_or(0)));

    let mut index = shared.index.lock();
    index.catch_up(view);
    let mut found = Found {
        deployment: object.clone(),
        sets: Vec::new(),
        sources: Sources::default(),
    };
    for (set, row) in index.sets_of(&uid) {
        if let Some(error) = &row.invalid {
            snapshot
                .broken_sets
                .push(format!("ReplicaSet {}: {error}", set.name));
        } else if spec.selector.matches(&row.set.value.metadata.labels) {
            snapshot.sets.push(facts(&index, view, set, row));
            found.sets.push(row.set.clone());
        } else {
            snapshot.releasable.push(seen(set, &row.set));
        }
    }
    let loose = index.loose_sets(&key.namespace);
    for (set, row) in loose.filter(|_| snapshot.overlap.is_none()) {
        if row.invalid.is_none() && spec.selector.matches(&row.set.value.metadata.labels) {
            snapshot.adoptable.push(seen(set, &row.set));
        }
    }
    let stem = format!("{}-", key.name);
    for (set, error) in index.unreadable_sets(&key.namespace, &stem) {
        // Of names, only those that this Deployment would have made: not those of `<name>-other`.
        if !set.name[stem.len()..].contains('-') {
            snapshot
                .broken_sets
                .push(format!("ReplicaSet {}: {error}", set.name));
        }
    }
    let others = index
        .sets_named(&key.namespace, &stem)
        .filter(|(_, owner)| *owner != Some(uid.as_str()));
    snapshot
        .taken
        .extend(others.map(|(set, _)| set.name.clone()));
    drop(index);
    snapshot.sets.sort_by_key(|s| s.create_revision);
    let annotations = &object.value.metadata.annotations;
    let reads = shared.pin::<Deployment>(view, (key, &uid), annotations, &mut snapshot.template);
    snapshot.reads = reads.wanted;
    snapshot.missing = reads.missing;
    snapshot.config_seen = reads.seen;
    snapshot.copies = reads.there;
    found.sources = reads.sources;
    Some((snapshot, Some(found)))
}

fn seen(key: &ObjectKey, set: &Stored<ReplicaSet>) -> Seen {
    Seen {
        key: key.clone(),
        mod_revision: set.mod_revision,
    }
}

fn facts(index: &OwnerIndex, view: &View<'_>, key: &ObjectKey, row: &SetRow) -> SetFacts {
    let set = &row.set.value;
    let (mut pods, mut frozen) = (0, 0);
    let (mut ready_since, mut frozen_ready_since) = (Vec::new(), Vec::new());
    for pod in index.pods_of(&row.set.uid()) {
        if pod.facts.is_active() || pod.facts.frozen {
            pods += 1;
            if pod.facts.frozen {
                frozen += 1;
                frozen_ready_since.extend(pod.facts.ready_since);
            }
            ready_since.extend(pod.facts.ready_since);
        }
    }
    let status = view.actual::<ReplicaSet>().get(key);
    let status = status.filter(|s| standing::is_of(&s.value, &row.set.uid()));
    let failure = status.and_then(|s| {
        let of = |type_| conditions::get(&s.value.conditions, type_);
        let failure = of(INVALID).or_else(|| of(REPLICA_FAILURE))?;
        Some((
            failure.reason.clone().unwrap_or_default(),
            failure.message.clone().unwrap_or_default(),
        ))
    });
    let stopping = index.stopping(&key.namespace, &stem(&key.name)).count();
    SetFacts {
        seen: seen(key, &row.set),
        create_revision: row.set.create_revision,
        replicas: set.spec.replicas(),
        min_ready_seconds: set.spec.min_ready_seconds.unwrap_or(0),
        template: set.spec.template.clone().unwrap_or_default(),
        annotations: set.metadata.annotations.clone().into(),
        crash: crashing(index.pods_of(&row.set.uid()).map(|pod| &pod.facts)),
        pods,
        frozen,
        frozen_ready_since,
        ready_since,
        stopping: i32::try_from(stopping).unwrap_or(i32::MAX),
        failure,
    }
}

async fn execute(
    shared: &Shared,
    leader: &Leader,
    s: &Snapshot,
    found: Option<Found>,
    plan: Plan,
) -> Result<Action, Error> {
    let mut action = Action {
        requeue_after: plan.look_again,
    };
    let mut tally = writes::Tally::default();
    let mut writes = Vec::new();
    // It counts what is let in until that is written.
    let mut door = None;
    if let Some(found) = &found {
        let by = (Deployment::KIND, &s.key);
        let [config_maps, secrets] = plan.copies.asked();
        let set = Asked::object::<ReplicaSet>();
        let asked = [
            config_maps,
            secrets,
            (set, usize::from(plan.create.is_some())),
        ];
        match shared.doors.enter_together(leader, by, &asked).await {
            Ok(together) => door = Some(together),
            Err(error) => tally.refuse(error),
        }
        let guards = door.as_ref().filter(|door| door.refused().is_none());
        let guards = guards.map(Together::guards);
        if !plan.copies.is_empty() && tally.first_error.is_none() {
            // A pod that reads a copy finds it: it is there before the ReplicaSet whose pods read it.
            let owner = controller_reference::<Deployment>(&s.key.name, &found.deployment.uid());
            let own = own_guard(leader, s, found);
            let namespace = &s.key.namespace;
            let (by, sources) = ((&owner, &own), &found.sources);
            let guards = guards.as_deref();
            let copies = copy_writes(leader, &plan.copies, namespace, by, sources, guards);
            if !tally.commit(leader, copies).await || tally.conflicts > 0 {
                tally.catch_up(leader).await;
                return Ok(Action::requeue(writes::SOON));
            }
        }
        if tally.first_error.is_none() {
            let create = plan.create.as_ref().zip(guards.as_deref());
            writes = set_writes(leader, s, found, &plan, create);
        }
    }
    let status = plan.status.as_ref();
    let write =
        pass::status::<Deployment, _>(&shared.deployments, leader, &s.key, status, &mut action);
    let says = write.is_some();
    writes.extend(write);
    if !tally.commit(leader, writes).await {
        return Ok(Action::requeue(writes::SOON));
    }
    if says && tally.last_committed {
        let before = s.status.as_ref();
        standing::tell::<Deployment>(&shared.recorder, &s.key, &s.uid, before, status);
    }
    if let Some(source) = tally.first_error {
        let reason = if !plan.copies.is_empty() {
            "ConfigCopyError"
        } else if plan.create.is_some() {
            "ReplicaSetCreateError"
        } else {
            "ReplicaSetUpdateError"
        };
        let message = source.to_string();
        if let Some(found) = &found {
            let about = EventRef::stored(&*found.deployment);
            shared.recorder.warning(about, reason, message.as_str());
        }
        let failure = Some((reason.to_owned(), message));
        shared.deployments.with(&s.key, |memo| memo.notes = failure);
        return Err(Error {
            refused: tally.refused,
            source,
        });
    }
    let refused = door.as_ref().and_then(Together::refused);
    if let Some((door, refusal)) = refused.and_then(|d| Some((d, d.refusal.clone()?))) {
        if door.is_contested {
            tally.contested = true;
            action.requeue_after = tally.comes_back(action.requeue_after);
            return Ok(action);
        }
        let reason = match plan.create {
            Some(_) => "ReplicaSetCreateError",
            None => "ConfigCopyError",
        };
        if let Some(found) = found.filter(|_| door.is_news) {
            let about = EventRef::stored(&*found.deployment);
            shared.recorder.warning(about, reason, refusal.as_str());
            action.requeue_after = Some(writes::SOON);
        }
        let failure = Some((reason.to_owned(), refusal));
        shared.deployments.with(&s.key, |memo| memo.notes = failure);
        return Ok(action);
    }
    shared.doors.forget((Deployment::KIND, &s.key));
    let recovered = shared
        .deployments
        .with(&s.key, |memo| memo.notes.take().is_some());
    tally.catch_up(leader).await;
    if tally.conflicts > 0 || recovered {
        action.requeue_after = Some(writes::SOON);
    }
    if let Some(found) = found.filter(|_| tally.conflicts == 0) {
        tell(shared, &found, &plan);
    }
    Ok(action)
}

/// What is remembered about Deployments: why the last write to a ReplicaSet did not succeed.
pub(crate) type Deployments = Memory<Option<(String, String)>>;

/// Holds while the Deployment is as it was seen.
fn own_guard(leader: &Leader, s: &Snapshot, found: &Found) -> Compare {
    let key = Key::Desired(Deployment::PLURAL, s.key.clone());
    Compare::ModRevision(leader.keyspace().build(&key), found.deployment.mod_revision)
}

/// The writes of a plan, each guarded on the Deployment and the ReplicaSet as they were seen.
/// `create`: the ReplicaSet that is let in, and what must hold for that.
fn set_writes(
    leader: &Leader,
    s: &Snapshot,
    found: &Found,
    plan: &Plan,
    create: Option<(&NewSet, &[Compare])>,
) -> Vec<Write> {
    let keyspace = leader.keyspace();
    let build = |plural: &str, key: &ObjectKey| keyspace.build(&Key::Desired(plural, key.clone()));
    let deployment = &found.deployment;
    let uid = deployment.uid();
    let own = own_guard(leader, s, found);
    let mut writes = Vec::new();
    let mut write = |verb: &str, set: &ObjectKey, guard: Compare, op: TxnOp, more: Vec<Compare>| {
        writes.push(Write {
            guards: [guard, own.clone()].into_iter().chain(more).collect(),
            ops: vec![op],
            context: format!("{verb} replicaset {set}"),
        });
    };
    if let Some((new, door)) = create {
        let set = ObjectKey::namespaced(s.key.namespace.clone(), new.name.as_str());
        let key = build(ReplicaSet::PLURAL, &set);
        let text = document::encode(&new_replica_set(
            &s.key,
            &uid,
            &deployment.value,
            &s.template,
            new,
        ));
        let namespace = build(
            Namespace::PLURAL,
            &ObjectKey::cluster(s.key.namespace.clone()),
        );
        let more = [Compare::Exists(namespace)].into_iter();
        let more = more.chain(door.iter().cloned()).collect();
        let absent = Compare::absent(key.clone());
        write("create", &set, absent, writes::put(key, text), more);
    }
    let mut rewrite = |verb: &str, seen: &Seen, edit: &dyn Fn(&ReplicaSet) -> ReplicaSet| {
        let stored = stored(leader, found, seen);
        let Some(stored) = stored else { return };
        let key = build(ReplicaSet::PLURAL, &seen.key);
        let text = document::encode(&edit(&stored.value));
        let guard = Compare::ModRevision(key.clone(), seen.mod_revision);
        write(verb, &seen.key, guard, writes::put(key, text), Vec::new());
    };
    for change in &plan.change {
        rewrite("scale", &change.set, &|set| {
            changed_replica_set(set, change)
        });
    }
    let reference = controller_reference::<Deployment>(&s.key.name, &uid);
    for set in &plan.adopt {
        rewrite("adopt", set, &|set| {
            with_owners(set, |owners| owners.push(reference.clone()))
        });
    }
    for set in &plan.release {
        rewrite("release", set, &|set| {
            with_owners(set, |owners| owners.retain(|o| o.uid != uid))
        });
    }
    for set in &plan.delete {
        let key = build(ReplicaSet::PLURAL, &set.key);
        let guard = Compare::ModRevision(key.clone(), set.mod_revision);
        write("delete", &set.key, guard, TxnOp::Delete(key), Vec::new());
    }
    writes
}

/// The document of a ReplicaSet as it was seen; `None` when it is another by now.
fn stored(leader: &Leader, found: &Found, seen: &Seen) -> Option<Arc<Stored<ReplicaSet>>> {
    let known = found
        .sets
        .iter()
        .find(|set| set.mod_revision == seen.mod_revision);
    let known = known
        .filter(|set| *set.value.metadata.name == *seen.key.name)
        .cloned();
    // What is adopted or released is not among the Deployment's own.
    known.or_else(|| {
        let view = leader.cache().view();
        let set = view.desired::<ReplicaSet>().get(&seen.key)?;
        (set.mod_revision == seen.mod_revision).then(|| set.clone())
    })
}

fn with_owners(set: &ReplicaSet, edit: impl Fn(&mut Vec<OwnerReference>)) -> ReplicaSet {
    let mut set = set.clone();
    edit(&mut set.metadata.owner_references);
    set
}

/// Tells people what was done.
fn tell(shared: &Shared, found: &Found, plan: &Plan) {
    let about = || EventRef::stored(&*found.deployment);
    let object = found.deployment.value.metadata.key();
    let scaled = |name: &str, from: i32, to: i32| {
        if from == to {
            return;
        }
        let way = if to > from { "up" } else { "down" };
        info!(%object, replica_set = name, from, to, "scaled");
        let message = format!("Scaled {way} replica set {name} from {from} to {to}");
        shared
            .recorder
            .normal(about(), "ScalingReplicaSet", message);
    };
    if let Some(new) = &plan.create {
        scaled(&new.name, 0, new.replicas);
    }
    for change in &plan.change {
        scaled(&change.set.key.name, change.from, change.replicas);
    }
    for set in &plan.delete {
        info!(%object, replica_set = %set.key.name, "deleted an old replica set");
    }
}

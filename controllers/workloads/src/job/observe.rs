//! What there is to know about a Job, out of one view of the cache.

use std::sync::Arc;

use setpoint_apis::batch::{Job, JobStatus, labels};
use setpoint_apis::core::{ContainerStatus, Namespace, PodSpec};
use setpoint_apis::records::{Binding, PodActual};
use setpoint_apis::{ObjectKey, Timestamp};
use setpoint_runtime::{Stored, View};

use super::names;
use super::plan::{Counts, Failure, GREATEST_NUMBER, JobPod, Outcome, Record, Snapshot};
use crate::index::{OwnerIndex, PodRow};
use crate::pod::{PodFacts, PodState};
use crate::standing::{self, Unusable};
use crate::{Shared, owner, writes};

/// What a snapshot was made from.
pub(super) struct Found {
    /// The document, when it parses.
    pub(super) object: Option<Arc<Stored<Job>>>,
    /// The revision of the document, whatever it says.
    pub(super) revision: i64,
    /// The revision of the status.
    pub(super) status_revision: Option<i64>,
}

/// `None` when the Job does not exist.
pub(super) fn observe(
    shared: &Shared,
    view: &View<'_>,
    key: &ObjectKey,
) -> Option<(Snapshot, Found)> {
    let entry = view.desired::<Job>().entry(key)?;
    let status = view.actual::<Job>().entry(key);
    let mut found = Found {
        object: entry.valid().cloned(),
        revision: entry.mod_revision(),
        status_revision: status.map(|s| s.mod_revision()),
    };
    let stored = status.and_then(|s| s.valid()).map(|s| s.value.clone());
    let unreadable = status.and_then(|s| s.invalid());
    let mut snapshot = Snapshot {
        key: key.clone(),
        uid: entry.last_good().map(|o| o.uid()).unwrap_or_default(),
        invalid: entry.invalid().map(|i| Unusable::document(&i.message)),
        fixed: None,
        overlap: None,
        lost_count: unreadable.map(|i| i.message.clone()),
        terminating: false,
        namespace_exists: view
            .desired::<Namespace>()
            .contains(&ObjectKey::cluster(key.namespace.clone())),
        spec: (entry.last_good()).map_or_else(Default::default, |o| o.value.spec.clone()),
        pods: Vec::new(),
        stopping: Vec::new(),
        loose_numbers: Vec::new(),
        adoptable: Vec::new(),
        releasable: Vec::new(),
        refused: shared.jobs.with(key, |memo| memo.notes.refused),
        stored: Counts::default(),
        status: stored,
        salt: shared.salt(),
    };
    let uid = &snapshot.uid;
    let own = |s: &JobStatus| s.counted.as_ref().is_some_and(|c| c.of == *uid);
    if snapshot.spec.other_manager().is_some() && !snapshot.status.as_ref().is_some_and(own) {
        // What that one writes is its own.
        (snapshot.status, snapshot.lost_count) = (None, None);
        return Some((snapshot, found));
    }
    let Some(object) = found.object.clone() else {
        return Some((snapshot, found));
    };
    // Of a former Job of this name.
    snapshot.status = snapshot.status.filter(own);
    if let Some(status) = &snapshot.status {
        match Counts::of(status) {
            Ok(counts) => snapshot.stored = counts,
            Err(error) => snapshot.lost_count = Some(error),
        }
    }
    // One that has ended stays as it is, whatever its document says.
    let going_on = snapshot.status.as_ref().filter(|s| !s.is_finished());
    let recorded = going_on.and_then(|s| s.fixed.as_ref());
    match standing::take_up(&object, uid, recorded) {
        Ok(fixed) => snapshot.fixed = Some(fixed),
        Err(unusable) => {
            snapshot.invalid = Some(unusable);
            found.object = None;
            return Some((snapshot, found));
        }
    }
    snapshot.overlap = shared.overlap::<Job>(view, key);
    snapshot.terminating = writes::terminating::<Job>(view, key, uid);
    let mut index = shared.index.lock();
    index.catch_up(view);
    pods(&mut snapshot, &index, view);
    Some((snapshot, found))
}

fn pods(s: &mut Snapshot, index: &OwnerIndex, view: &View<'_>) {
    let selects = |row: &PodRow| {
        let of = &row.pod.value.metadata.labels;
        owner::selects(&s.spec, of, |uid| *uid == *s.uid)
    };
    for row in index.pods_of(&s.uid) {
        if row.facts.frozen || selects(row) {
            s.pods.push(pod(row, view));
        } else {
            s.releasable.push(row.facts.seen());
        }
    }
    for row in index.loose_pods(&s.key.namespace) {
        let (number, selected) = (number(row), selects(row));
        let own_name = row.facts.key.name.starts_with(names::prefix(&s.key.name));
        s.loose_numbers
            .extend(number.filter(|_| own_name || selected));
        let fits = selected && s.overlap.is_none() && !row.facts.frozen;
        if fits && may_return(s, row, number) {
            s.adoptable.push(row.facts.seen());
        }
    }
    let (job, indexed) = (&s.key.name, s.spec.is_indexed());
    let prefix = names::prefix(job);
    // Nothing says whose these are but the name. To take them for absent might make one pod too many of them.
    for (key, revision) in index.unreadable_pods(&s.key.namespace, prefix) {
        if let Some(index) = names::index_of(&key.name, job, indexed) {
            s.pods.push(unreadable(key, revision, index));
        }
    }
    s.pods.sort_by(|a, b| a.facts.key.cmp(&b.facts.key));
    for (key, was) in index.stopping_with_owner(&s.key.namespace, prefix) {
        let index = names::index_of(&key.name, job, indexed);
        match was {
            Some(uid) if *uid == s.uid => s.stopping.push((key.name.clone(), index.flatten())),
            Some(_) => {}
            None => s
                .stopping
                .extend(index.map(|index| (key.name.clone(), index))),
        }
    }
}

/// Whether a pod that is nobody's may be taken on. Each number is counted once, so one whose number is counted, or another
/// pod's, as that of a copy is, stays where it is; so does one that has ended and has none, which may have been counted.
fn may_return(s: &Snapshot, row: &PodRow, number: Option<i32>) -> bool {
    let Some(number) = number else {
        return row.facts.is_active();
    };
    let others = s.loose_numbers.iter().filter(|n| **n == number).count();
    let there = s.pods.iter().any(|p| p.number == Some(number));
    others == 1 && !there && !s.stored.pods.contains(number)
}

/// The number that a pod of a Job has. One that was written by hand and leaves no room above it counts as none.
fn number(row: &PodRow) -> Option<i32> {
    let noted = &row.pod.value.metadata.annotations;
    natural(noted.get(labels::JOB_POD_NUMBER)?).filter(|n| *n <= GREATEST_NUMBER)
}

/// A number that is not negative.
fn natural(text: &str) -> Option<i32> {
    text.parse().ok().filter(|n| *n >= 0)
}

fn unreadable(key: &ObjectKey, revision: i64, index: Option<i32>) -> JobPod {
    JobPod {
        facts: PodFacts::unreadable(key, revision),
        number: None,
        uid: None,
        index,
        outcome: Outcome::None,
        restarts: 0,
        failures_before: 0,
        ignored_before: 0,
        record: Record::Unbound,
    }
}

fn pod(row: &PodRow, view: &View<'_>) -> JobPod {
    let key = &row.facts.key;
    let noted = &row.pod.value.metadata.annotations;
    let noted_number = |annotation: &str| natural(noted.get(annotation)?);
    let own_number = number(row);
    let binding = view.bindings().entry(key).and_then(|b| b.last_good());
    let record = match &row.facts.node {
        None => Record::Unbound,
        Some(node) => match view.pod_on(node, key) {
            None => Record::Absent(node.clone()),
            Some(record) => Record::At(node.clone(), record.mod_revision()),
        },
    };
    let actual = row.actual.as_ref().map(|a| &a.value);
    let outcome = match (actual, binding) {
        (Some(actual), Some(binding)) => {
            outcome(row.facts.state, actual, &binding.value, &row.pod.value.spec)
        }
        _ => Outcome::None,
    };
    JobPod {
        facts: row.facts.clone(),
        number: own_number,
        uid: own_number.is_none().then(|| row.pod.uid()),
        index: noted_number(labels::COMPLETION_INDEX),
        outcome,
        restarts: actual.map_or(0, restarts),
        failures_before: noted_number(labels::INDEX_FAILURES).unwrap_or(0),
        ignored_before: noted_number(labels::INDEX_IGNORED_FAILURES).unwrap_or(0),
        record,
    }
}

fn restarts(actual: &PodActual) -> i32 {
    let all = actual.init_container_statuses.iter();
    let all = all.chain(&actual.container_statuses);
    all.fold(0, |n, c| n.saturating_add(c.restart_count))
}

/// How a pod has ended where it is. One that is being taken back from there will run again: its success counts (and it
/// goes before it does), its failure does not.
fn outcome(state: PodState, actual: &PodActual, binding: &Binding, spec: &PodSpec) -> Outcome {
    match state {
        PodState::Succeeded => Outcome::Succeeded {
            at: ended_at(actual, binding, spec),
        },
        PodState::Failed if state.is_final(binding) => Outcome::Failed(Failure {
            at: ended_at(actual, binding, spec),
            exits: exits(actual),
            conditions: actual
                .conditions
                .iter()
                .map(|c| (c.type_.clone(), c.status.clone()))
                .collect(),
        }),
        _ => Outcome::None,
    }
}

fn exits(actual: &PodActual) -> Vec<(String, i32)> {
    let all = actual.container_statuses.iter();
    let all = all.chain(&actual.init_container_statuses);
    let ended = all.filter_map(|c| {
        let code = c.state.terminated.as_ref()?.exit_code;
        (code != 0).then(|| (c.name.clone(), code))
    });
    ended.collect()
}

/// When the last container ended; for want of that, since when the pod is not ready, was started, or was bound.
fn ended_at(actual: &PodActual, binding: &Binding, spec: &PodSpec) -> Timestamp {
    let end = |c: &ContainerStatus| c.state.terminated.as_ref()?.finished_at;
    let sidecar = |c: &&ContainerStatus| {
        let mut inits = spec.init_containers.iter();
        inits.any(|i| i.name == c.name && i.is_sidecar())
    };
    let all = actual.container_statuses.iter();
    let all = all.chain(actual.init_container_statuses.iter().filter(sidecar));
    let ends: Option<Vec<Timestamp>> = all.map(end).collect();
    let last = ends.and_then(|ends| ends.into_iter().max());
    let unready = || {
        let mut all = actual.conditions.iter();
        all.find(|c| c.type_ == "Ready" && c.status == "False")?
            .last_transition_time
    };
    last.or_else(unready)
        .or(actual.start_time)
        .unwrap_or(binding.bound_at)
}

#[cfg(test)]
mod tests {
    use setpoint_apis::core::{ContainerState, ContainerStateTerminated, PodCondition};
    use setpoint_apis::records::Withdrawal;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn binding(withdrawn: bool) -> Binding {
        Binding {
            node: "n1".into(),
            session: 1,
            placement: 1,
            pod_revision: 5,
            bound_at: at(1),
            withdrawn: withdrawn.then(|| Withdrawal {
                reason: "Evicted".into(),
                at: at(2),
                grace_seconds: None,
            }),
            ..Binding::default()
        }
    }

    fn container(name: &str, code: i32, end: Option<i64>) -> ContainerStatus {
        ContainerStatus {
            name: name.into(),
            state: ContainerState {
                terminated: Some(ContainerStateTerminated {
                    exit_code: code,
                    finished_at: end.map(at),
                    ..ContainerStateTerminated::default()
                }),
                ..ContainerState::default()
            },
            ..ContainerStatus::default()
        }
    }

    #[test]
    fn a_failure_while_a_pod_is_taken_back_is_none_and_a_success_is_one() {
        let actual = PodActual::default();
        let of =
            |state, withdrawn| outcome(state, &actual, &binding(withdrawn), &PodSpec::default());
        assert!(matches!(of(PodState::Failed, false), Outcome::Failed(_)));
        assert_eq!(of(PodState::Failed, true), Outcome::None);
        for withdrawn in [false, true] {
            let success = Outcome::Succeeded { at: at(1) };
            assert_eq!(of(PodState::Succeeded, withdrawn), success);
        }
        assert_eq!(of(PodState::Running, false), Outcome::None);
    }

    #[test]
    fn a_pod_has_ended_when_its_last_container_did() {
        let spec = PodSpec::default();
        let mut actual = PodActual {
            container_statuses: vec![container("a", 0, Some(7)), container("b", 3, Some(5))],
            init_container_statuses: vec![container("i", 0, Some(99))],
            start_time: Some(at(2)),
            ..PodActual::default()
        };
        assert_eq!(ended_at(&actual, &binding(false), &spec), at(7));
        assert_eq!(exits(&actual), [("b".to_owned(), 3)]);
        actual.container_statuses[0] = container("a", 0, None);
        assert_eq!(ended_at(&actual, &binding(false), &spec), at(2));
        actual.conditions = vec![PodCondition::new("Ready", false, at(6))];
        assert_eq!(ended_at(&actual, &binding(false), &spec), at(6));
        let nothing = PodActual::default();
        assert_eq!(ended_at(&nothing, &binding(false), &spec), at(1));
    }
}

//! Conditions of workloads: set, kept and removed as Kubernetes does.

use std::fmt;

use setpoint_apis::Timestamp;
use setpoint_apis::apps::WorkloadCondition;

/// The condition of an object whose document cannot be used: it is frozen until that is mended.
pub const INVALID: &str = "Invalid";
/// The condition of a workload whose pods cannot be made or removed.
pub const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The condition that says how a rollout goes on.
pub const PROGRESSING: &str = "Progressing";
/// Why [`PROGRESSING`] is `False`: the rollout stood still for too long.
pub const DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";

/// `True`, `False` or `Unknown`, one CamelCase word, a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The condition's type.
    pub type_: &'static str,
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// One CamelCase word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

impl Finding {
    /// Something that is so or not.
    pub fn new(
        type_: &'static str,
        holds: bool,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            type_,
            status: if holds { "True" } else { "False" },
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// Why pods cannot be made: there is no namespace for them.
pub fn no_namespace(namespace: &str) -> Finding {
    let message = format!("namespace {namespace:?} does not exist");
    Finding::new(REPLICA_FAILURE, true, "NamespaceNotFound", message)
}

/// Why pods cannot be made or removed: reason and sentence.
pub fn failed((reason, message): &(String, String)) -> Finding {
    Finding::new(REPLICA_FAILURE, true, reason.as_str(), message.as_str())
}

/// Conditions in the line of a plan: ` <type>=<status>/<reason>` each.
pub(crate) fn show(f: &mut fmt::Formatter<'_>, conditions: &[WorkloadCondition]) -> fmt::Result {
    for c in conditions {
        let reason = c.reason.as_deref().unwrap_or_default();
        write!(f, " {}={}/{reason}", c.type_, c.status)?;
    }
    Ok(())
}

/// Which side each condition is on. A status in which one has turned is not put off.
pub fn sides(conditions: &[WorkloadCondition]) -> Vec<(&str, &str)> {
    let sides = conditions.iter().map(|c| (&*c.type_, &*c.status));
    sides.collect()
}

/// The condition of a type.
pub fn get<'a>(conditions: &'a [WorkloadCondition], type_: &str) -> Option<&'a WorkloadCondition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Sets a condition. When status, reason and message are as they were it stays untouched, times included; the time of
/// transition stays while the status does.
pub fn set(conditions: &mut Vec<WorkloadCondition>, finding: Finding, now: Timestamp) {
    let same = |c: &WorkloadCondition| {
        c.status == finding.status
            && c.reason.as_deref() == Some(&finding.reason)
            && c.message.as_deref() == Some(&finding.message)
    };
    if get(conditions, finding.type_).is_some_and(same) {
        return;
    }
    touch(conditions, finding, now);
}

/// Sets a condition and its time of update, even when nothing else about it changes: the deadline of a rollout counts
/// from there.
pub fn touch(conditions: &mut Vec<WorkloadCondition>, finding: Finding, now: Timestamp) {
    let now = now.whole_seconds();
    let since = get(conditions, finding.type_)
        .filter(|c| c.status == finding.status)
        .and_then(|c| c.last_transition_time)
        .unwrap_or(now);
    let condition = WorkloadCondition {
        type_: finding.type_.into(),
        status: finding.status.into(),
        reason: Some(finding.reason),
        message: Some(finding.message),
        last_update_time: Some(now),
        last_transition_time: Some(since),
    };
    match conditions.iter_mut().find(|c| c.type_ == condition.type_) {
        Some(place) => *place = condition,
        None => conditions.push(condition),
    }
}

/// Removes a condition.
pub fn remove(conditions: &mut Vec<WorkloadCondition>, type_: &str) {
    conditions.retain(|c| c.type_ != type_);
}

/// Sets or removes a condition.
pub fn set_or_remove(
    conditions: &mut Vec<WorkloadCondition>,
    type_: &'static str,
    finding: Option<Finding>,
    now: Timestamp,
) {
    match finding {
        Some(finding) => set(conditions, finding, now),
        None => remove(conditions, type_),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[test]
    fn times_move_only_with_what_they_are_about() {
        let mut all = Vec::new();
        let finding = |holds, reason: &str| Finding::new("Available", holds, reason, "m");
        set(&mut all, finding(true, "A"), at(1));
        set(&mut all, finding(true, "A"), at(2));
        assert_eq!(
            (all[0].last_update_time, all[0].last_transition_time),
            (Some(at(1)), Some(at(1)))
        );
        set(&mut all, finding(true, "B"), at(3));
        assert_eq!(
            (all[0].last_update_time, all[0].last_transition_time),
            (Some(at(3)), Some(at(1)))
        );
        set(&mut all, finding(false, "B"), at(4));
        assert_eq!(
            (all[0].last_update_time, all[0].last_transition_time),
            (Some(at(4)), Some(at(4)))
        );
        touch(&mut all, finding(false, "B"), at(5));
        assert_eq!(
            (all[0].last_update_time, all[0].last_transition_time),
            (Some(at(5)), Some(at(4)))
        );
        set_or_remove(&mut all, "Available", None, at(6));
        assert!(all.is_empty());
    }
}

//! How far a rollout is, told from the status of its workload.

use anyhow::{Result, bail};
use serde_json::Value;
use setpoint_apis::fixed;

use crate::kinds::KindInfo;
use crate::object::Object;
use crate::printers::columns::replicas;

/// How far a rollout is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progressing {
    Done(String),
    Waiting(String),
}

impl Progressing {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Done(text) | Self::Waiting(text) => text,
        }
    }
}

/// How far a workload is; an error when it will not get further.
pub(super) fn progress(o: &Object) -> Result<Progressing> {
    let status = |field: &str| o.number_at(&["status", field]);
    let name = &o.key.name;
    let wanted = replicas(o);
    // Of others no status would ever say that they are observed.
    let known = ["deployments", "statefulsets", "daemonsets", "replicasets"];
    if !known.contains(&o.kind.plural) {
        bail!("{}", no_rollouts(o.kind));
    }
    refuse_invalid(o)?;
    if !is_observed(o) {
        return Ok(Progressing::Waiting(format!(
            "Waiting for {} spec update to be observed...",
            o.kind.singular()
        )));
    }
    if o.kind.plural == "replicasets" {
        let ready = status("readyReplicas");
        return Ok(if ready >= wanted && status("replicas") == wanted {
            Progressing::Done(format!("replicaset {name:?} has {wanted} ready replicas"))
        } else {
            Progressing::Waiting(format!(
                "Waiting for replicaset {name:?}: {ready} of {wanted} replicas are ready..."
            ))
        });
    }
    refuse_rolled_back(o)?;
    let missing = o.condition("ConfigMissing");
    if let Some(missing) = missing.filter(|c| c["status"] == "True") {
        return Ok(Progressing::Waiting(format!(
            "Waiting for {} {name:?} rollout to begin: {}",
            o.kind.singular(),
            missing["message"].as_str().unwrap_or_default()
        )));
    }
    refuse_without_revision(o)?;
    refuse_late(o)?;
    match o.kind.plural {
        "deployments" => deployment(o, wanted),
        "statefulsets" => stateful_set(o, wanted),
        _ => daemon_set(o),
    }
}

/// That a kind has no rollouts, and what tells of it.
pub(super) fn no_rollouts(kind: KindInfo) -> String {
    let hint = match kind.plural {
        "jobs" => "; `setpoint wait --for=condition=Complete` waits for the end of a Job",
        "pods" => "; `setpoint wait --for=condition=Ready` waits for a pod",
        _ => "",
    };
    format!("{} have no rollouts{hint}", kind.plural)
}

/// Whether the status is about the present document.
fn is_observed(o: &Object) -> bool {
    let observed = o
        .at(&["status", "observedGeneration"])
        .and_then(Value::as_i64);
    let generation = o.revisions.map_or(0, |r| r.version);
    observed.is_some_and(|observed| observed >= generation)
}

/// An error when the controller has taken the rollout back.
fn refuse_rolled_back(o: &Object) -> Result<()> {
    let Some(condition) = o.condition("RolledBack").filter(|c| c["status"] == "True") else {
        return Ok(());
    };
    bail!(
        "{} is rolled back: {} Apply another template, or try this one again with `setpoint rollout restart`",
        o.full_name(),
        condition["message"].as_str().unwrap_or_default()
    )
}

/// An error when what pods are made of is refused: a ControllerRevision, or the copies that it reads.
fn refuse_without_revision(o: &Object) -> Result<()> {
    let failure = o.condition("ReplicaFailure");
    match failure.filter(|c| c["status"] == "True" && c["reason"] == "RevisionCreateError") {
        Some(refused) => bail!(
            "{} gets no new revision: {}",
            o.full_name(),
            refused["message"].as_str().unwrap_or_default()
        ),
        None => Ok(()),
    }
}

/// An error when the rollout stands still for too long.
fn refuse_late(o: &Object) -> Result<()> {
    let progressing = o.condition("Progressing");
    if progressing.is_some_and(|c| c["reason"] == "ProgressDeadlineExceeded") {
        bail!(
            "{} {:?} exceeded its progress deadline",
            o.kind.singular(),
            &*o.key.name
        );
    }
    Ok(())
}

fn stateful_set(o: &Object, wanted: i64) -> Result<Progressing> {
    let (name, status) = (&o.key.name, |field: &str| o.number_at(&["status", field]));
    let strategy = o.text_at(&["spec", "updateStrategy", "type"]);
    if strategy == "OnDelete" {
        bail!(
            "statefulset {name:?} has the update strategy OnDelete: its pods are replaced when they are deleted"
        );
    }
    let partition = o.number_at(&["spec", "updateStrategy", "rollingUpdate", "partition"]);
    let (updated, ready) = (status("updatedReplicas"), status("readyReplicas"));
    let current = o.text_at(&["status", "currentRevision"]);
    let update = o.text_at(&["status", "updateRevision"]);
    let waiting = |what: String| {
        Progressing::Waiting(format!(
            "Waiting for statefulset {name:?} rollout to finish: {what}..."
        ))
    };
    Ok(if ready < wanted {
        waiting(format!("{} not ready", pods_are(wanted - ready)))
    } else if partition > 0 && updated < wanted - partition {
        waiting(format!(
            "{updated} out of {} new pods have been updated",
            wanted - partition
        ))
    } else if partition == 0 && (update != current || updated < wanted) {
        waiting(format!("{} at revision {update}", pods_are(updated)))
    } else if partition > 0 && updated < wanted {
        Progressing::Done(format!(
            "statefulset {name:?} partitioned rollout complete: {updated} of {wanted} pods have been updated, the \
             partition is {partition}"
        ))
    } else {
        Progressing::Done(format!("statefulset {name:?} successfully rolled out"))
    })
}

/// `1 pod is`, `2 pods are`.
fn pods_are(number: i64) -> String {
    match number {
        1 => "1 pod is".to_owned(),
        n => format!("{n} pods are"),
    }
}

fn daemon_set(o: &Object) -> Result<Progressing> {
    let (name, status) = (&o.key.name, |field: &str| o.number_at(&["status", field]));
    if o.text_at(&["spec", "updateStrategy", "type"]) == "OnDelete" {
        bail!(
            "daemonset {name:?} has the update strategy OnDelete: its pods are replaced when they are deleted"
        );
    }
    let wanted = status("desiredNumberScheduled");
    let (updated, available) = (status("updatedNumberScheduled"), status("numberAvailable"));
    let waiting = |what: String| {
        Progressing::Waiting(format!(
            "Waiting for daemonset {name:?} rollout to finish: {what}..."
        ))
    };
    Ok(if updated < wanted {
        waiting(format!(
            "{updated} out of {wanted} new pods have been updated"
        ))
    } else if available < wanted {
        waiting(format!(
            "{available} of {wanted} updated pods are available"
        ))
    } else {
        Progressing::Done(format!("daemonset {name:?} successfully rolled out"))
    })
}

fn deployment(o: &Object, wanted: i64) -> Result<Progressing> {
    let (name, status) = (&o.key.name, |field: &str| o.number_at(&["status", field]));
    let refused = o
        .condition("Progressing")
        .filter(|c| c["reason"] == "ReplicaSetCreateError");
    if let Some(refused) = refused {
        let why = refused["message"].as_str().unwrap_or_default();
        bail!("deployment {name:?} gets no new ReplicaSet: {why}");
    }
    let (updated, total, available) = (
        status("updatedReplicas"),
        status("replicas"),
        status("availableReplicas"),
    );
    let paused = o.at(&["spec", "paused"]) == Some(&Value::Bool(true));
    let waiting = |what: String| {
        let paused = match paused {
            true => format!(" It is paused: `setpoint rollout resume deployment/{name}`"),
            false => String::new(),
        };
        Progressing::Waiting(format!(
            "Waiting for deployment {name:?} rollout to finish: {what}...{paused}"
        ))
    };
    Ok(if updated < wanted {
        waiting(format!(
            "{updated} out of {wanted} new replicas have been updated"
        ))
    } else if total > updated {
        waiting(format!(
            "{} pending termination",
            match total - updated {
                1 => "1 old replica is".to_owned(),
                n => format!("{n} old replicas are"),
            }
        ))
    } else if available < updated {
        waiting(format!(
            "{available} of {updated} updated replicas are available"
        ))
    } else {
        Progressing::Done(format!("deployment {name:?} successfully rolled out"))
    })
}

/// An error when the controller has frozen the workload, because a document does not parse.
fn refuse_invalid(o: &Object) -> Result<()> {
    let name = o.full_name();
    if let Some(message) = &o.invalid {
        bail!("{name} is invalid, so nothing of it is rolled out: {message}");
    }
    let Some(condition) = o.condition("Invalid").filter(|c| c["status"] == "True") else {
        return Ok(());
    };
    let text = |field: &str| condition[field].as_str().unwrap_or_default();
    // Of its own document that was said before it was mended.
    let own = text("reason") == "DocumentInvalid"
        || (text("reason") == fixed::CHANGED && !is_observed(o));
    if own {
        return Ok(());
    }
    bail!(
        "{name} is not rolled out: {}: {}",
        text("reason"),
        text("message")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::Revisions;
    use crate::printers::tests::object;

    fn check(status: Value, expect: &str) {
        let mut o = object(
            "deployments",
            json!({"spec": {"replicas": 3}, "status": status}),
        );
        o.revisions = Some(Revisions {
            created: 1,
            modified: 2,
            version: 2,
        });
        let text = progress(&o).map_or_else(|e| e.to_string(), |p| p.text().to_owned());
        assert!(text.contains(expect), "{text}");
    }

    #[test]
    fn a_rollout_says_what_it_waits_for() {
        check(json!({}), "to be observed");
        check(json!({"observedGeneration": 1}), "to be observed");
        let at = |updated: i64, total: i64, available: i64| json!({"observedGeneration": 2, "updatedReplicas": updated, "replicas": total, "availableReplicas": available});
        check(at(1, 3, 3), "1 out of 3 new replicas");
        check(at(3, 4, 3), "1 old replica is pending");
        check(at(3, 3, 2), "2 of 3 updated replicas are available");
        check(at(3, 3, 3), "successfully rolled out");
        check(
            json!({"observedGeneration": 2, "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]}),
            "exceeded its progress deadline",
        );
        check(
            json!({"observedGeneration": 2, "conditions": [{"type": "Progressing", "status": "False", "reason": "ReplicaSetCreateError", "message": "exceeded quota: q"}]}),
            "gets no new ReplicaSet: exceeded quota: q",
        );
    }

    #[test]
    fn a_missed_deadline_ends_the_wait_whatever_the_kind() {
        for kind in ["deployments", "statefulsets", "daemonsets"] {
            let late = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
            let mut o = object(
                kind,
                json!({"spec": {"replicas": 3}, "status": {"observedGeneration": 2, "conditions": late}}),
            );
            o.revisions = Some(Revisions {
                created: 1,
                modified: 2,
                version: 2,
            });
            let error = progress(&o).unwrap_err().to_string();
            assert!(error.contains("exceeded its progress deadline"), "{error}");
        }
    }

    #[test]
    fn a_rollout_that_waits_because_it_is_paused_says_so() {
        let paused = |updated: i64| {
            let mut o = object(
                "deployments",
                json!({"spec": {"replicas": 3, "paused": true}, "status": {"observedGeneration": 2,
                    "updatedReplicas": updated, "replicas": 3, "availableReplicas": 3}}),
            );
            o.revisions = Some(Revisions {
                created: 1,
                modified: 2,
                version: 2,
            });
            progress(&o).unwrap()
        };
        let waits = paused(0);
        assert!(
            matches!(&waits, Progressing::Waiting(text) if text.contains("It is paused: `setpoint rollout resume deployment/")),
            "{waits:?}"
        );
        assert!(matches!(paused(3), Progressing::Done(_)));
    }

    #[test]
    fn what_has_no_rollouts_is_not_waited_for() {
        for plural in ["jobs", "pods", "services"] {
            let error = progress(&object(plural, json!({}))).unwrap_err();
            assert!(error.to_string().contains("have no rollouts"), "{error}");
        }
    }

    #[test]
    fn a_rollout_that_was_taken_back_has_failed() {
        let status = json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 3,
            "conditions": [{"type": "RolledBack", "status": "True", "message": "web-2 has failed, web-1 runs instead: no."}]});
        check(status, "is rolled back: web-2 has failed");
    }

    #[test]
    fn other_kinds_say_how_far_they_are_too() {
        let check = |plural: &'static str, value: Value, expect: &str| {
            let mut o = object(plural, value);
            o.revisions = Some(Revisions {
                created: 1,
                modified: 2,
                version: 2,
            });
            let text = progress(&o).map_or_else(|e| e.to_string(), |p| p.text().to_owned());
            assert!(text.contains(expect), "{text}");
        };
        let set = |strategy: Value, ready: i64, updated: i64, current: &str| {
            json!({"spec": {"replicas": 3, "updateStrategy": strategy},
                "status": {"observedGeneration": 2, "readyReplicas": ready, "updatedReplicas": updated,
                    "currentRevision": current, "updateRevision": "b"}})
        };
        let rolling = || json!({"type": "RollingUpdate"});
        check(
            "statefulsets",
            set(rolling(), 2, 3, "b"),
            "1 pod is not ready",
        );
        check(
            "statefulsets",
            set(rolling(), 3, 1, "a"),
            "1 pod is at revision b",
        );
        check(
            "statefulsets",
            set(rolling(), 3, 3, "b"),
            "successfully rolled out",
        );
        let partitioned = || json!({"rollingUpdate": {"partition": 2}});
        check(
            "statefulsets",
            set(partitioned(), 3, 0, "a"),
            "0 out of 1 new pods",
        );
        check(
            "statefulsets",
            set(partitioned(), 3, 1, "a"),
            "partitioned rollout complete: 1 of 3 pods have been updated, the partition is 2",
        );
        check(
            "statefulsets",
            set(json!({"rollingUpdate": {"partition": 7}}), 3, 0, "a"),
            "partitioned rollout complete: 0 of 3 pods have been updated, the partition is 7",
        );
        // Nothing is held back.
        check(
            "statefulsets",
            set(partitioned(), 3, 3, "b"),
            "successfully rolled out",
        );
        check(
            "statefulsets",
            set(json!({"type": "OnDelete"}), 3, 1, "a"),
            "OnDelete",
        );
        let daemons = |updated: i64, available: i64| {
            json!({"status": {"observedGeneration": 2, "desiredNumberScheduled": 3,
                "updatedNumberScheduled": updated, "numberAvailable": available}})
        };
        check("daemonsets", daemons(1, 3), "1 out of 3 new pods");
        check(
            "daemonsets",
            daemons(3, 2),
            "2 of 3 updated pods are available",
        );
        check("daemonsets", daemons(3, 3), "successfully rolled out");
        // What runs is rolled out, and not what is asked for.
        for plural in ["statefulsets", "daemonsets"] {
            let mut held = set(rolling(), 3, 3, "b");
            held["status"]["conditions"] = json!([{"type": "ReplicaFailure", "status": "True",
                "reason": "RevisionCreateError", "message": "exceeded quota: q"}]);
            check(plural, held, "gets no new revision: exceeded quota: q");
        }
    }

    #[test]
    fn a_rollout_that_is_frozen_fails_with_the_reason() {
        let invalid = |reason: &str| {
            json!({"observedGeneration": 1, "conditions": [
                {"type": "Invalid", "status": "True", "reason": reason, "message": "ReplicaSet web-1: no"}]})
        };
        check(
            invalid("ReplicaSetInvalid"),
            "ReplicaSetInvalid: ReplicaSet web-1: no",
        );
        // The document is readable by now, and the controller has not looked at it yet.
        check(invalid("DocumentInvalid"), "to be observed");
        check(invalid("ImmutableFieldChanged"), "to be observed");
        let mut seen = invalid("ImmutableFieldChanged");
        seen["observedGeneration"] = json!(2);
        check(seen, "is not rolled out: ImmutableFieldChanged");
        let mut broken = object("deployments", json!({"invalid": {"message": "no"}}));
        broken.invalid = Some("no".into());
        assert!(progress(&broken).is_err());
    }
}

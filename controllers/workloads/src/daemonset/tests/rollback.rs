//! Rollouts that fail and are taken back; revisions that are pinned to what they read.

use std::time::Duration;

use super::{World, at, running, template};
use crate::config::{ContentCopy, Missing};
use crate::good::PROBATION;
use crate::pod::{PodState, Trouble};
use crate::revisions::REVISION_REFUSED;

impl World {
    /// The pods of an image crash for good.
    fn crash(&mut self, image: &str) {
        let of: Vec<bool> = self
            .pods()
            .split(' ')
            .map(|p| p.trim_end_matches('?').ends_with(&format!(":{image}")))
            .collect();
        for (pod, _) in self.s.pods.iter_mut().zip(of).filter(|(_, of)| *of) {
            pod.facts.node.clone_from(&pod.node);
            pod.facts.state = PodState::Running;
            pod.facts.ready_since = None;
            pod.facts.trouble = Some(Trouble {
                container: "c".into(),
                reason: "CrashLoopBackOff".into(),
                restarts: Trouble::MANY,
            });
        }
    }

    fn good(&self) -> &str {
        self.status().last_available_revision.as_deref().unwrap()
    }
}

/// Three pods of `a`, and a rollout of `b` whose first pod crashes.
fn crashing_rollout() -> World {
    let mut w = running(3, "a");
    w.s.template = template("b");
    w.settle();
    w.stops();
    w.settle();
    assert_eq!(w.pods(), "n1:b? n2:a n3:a");
    w.crash("b");
    w
}

#[test]
fn a_rollout_whose_pods_crash_goes_back_and_says_so() {
    let mut w = crashing_rollout();
    let names: Vec<String> = w.s.revisions.iter().map(|r| r.name().to_owned()).collect();
    assert_eq!(w.good(), names[0]);
    let plans = w.settle();
    let first = plans[0].to_string();
    let expected = format!("roll back from {} to {}: PodsCrash\n", names[1], names[0]);
    assert!(first.starts_with(&expected), "{first}");
    assert_eq!(w.condition("RolledBack").as_deref(), Some("True/PodsCrash"));
    w.run();
    assert_eq!(w.pods(), "n1:a n2:a n3:a");
    assert_eq!(
        w.condition("Progressing").as_deref(),
        Some("True/NewRevisionAvailable"),
        "of the revision that runs"
    );
    assert_eq!(w.condition("RolledBack").as_deref(), Some("True/PodsCrash"));
    assert!(w.plan().is_empty());
    let status = w.status();
    assert_eq!(
        (
            status.updated_number_scheduled,
            status.reverted_number_scheduled
        ),
        (None, Some(3)),
        "none of what is asked for"
    );
}

#[test]
fn a_pod_that_does_not_parse_is_no_reason_to_take_a_rollout_back() {
    let mut w = running(3, "a");
    w.s.pods[1].facts.frozen = true;
    w.s.template = template("b");
    w.run();
    assert_eq!(w.pods(), "n1:b n2:a n3:b");
    w.now += 5_000;
    w.settle();
    assert_eq!(w.condition("RolledBack"), None);
    assert_eq!(
        w.condition("Progressing").as_deref(),
        Some("True/NewRevisionAvailable")
    );
}

/// A process that runs is available, be it for a moment.
#[test]
fn what_was_available_for_a_moment_and_crashes_is_taken_back_and_not_good() {
    let mut w = running(3, "a");
    w.s.history_limit = 0;
    w.s.template = template("b");
    w.run();
    assert_eq!(w.pods(), "n1:b n2:b n3:b");
    let names: Vec<String> = w.s.revisions.iter().map(|r| r.name().to_owned()).collect();
    assert_eq!((names.len(), w.good()), (2, &*names[1]));
    w.now += 100;
    w.crash("b");
    w.settle();
    assert_eq!(w.condition("RolledBack").as_deref(), Some("True/PodsCrash"));
    assert_eq!(w.good(), names[0]);
    w.run();
    assert_eq!(w.pods(), "n1:a n2:a n3:a");
}

/// b was good for a moment, c fails, and b crashes when it has come back.
#[test]
fn what_is_gone_back_to_and_crashes_too_is_taken_back_to_what_was_before_it() {
    let mut w = running(3, "a");
    w.s.history_limit = 0;
    let good = w.good().to_owned();
    w.s.template = template("b");
    w.run();
    w.now += 100;
    w.s.template = template("c");
    w.settle();
    w.stops();
    w.settle();
    w.crash("c");
    w.run();
    assert_eq!(w.pods(), "n1:b n2:b n3:b");
    w.now += 100;
    w.crash("b");
    w.run();
    assert_eq!((w.pods().as_str(), w.good()), ("n1:a n2:a n3:a", &*good));
    let record = w.status().rollback.as_ref().unwrap();
    assert_eq!(record.to_revision, good);
    assert!(w.settle().is_empty());
}

/// a is asked for again while b may still prove bad, fails, and b fails too: nothing else is known.
#[test]
fn what_is_asked_for_and_was_good_before_has_another_try_when_what_runs_instead_crashes() {
    let mut w = running(3, "a");
    w.s.template = template("b");
    w.run();
    w.now += 40;
    w.s.template = template("a");
    w.settle();
    w.stops();
    w.settle();
    w.crash("a");
    w.run();
    assert_eq!(w.pods(), "n1:b n2:b n3:b");
    w.now += 40;
    w.crash("b");
    w.run();
    assert_eq!(w.pods(), "n1:a n2:a n3:a");
    assert_eq!(w.condition("RolledBack"), None);
    // And then no other: it does not go back and forth.
    w.crash("a");
    assert!(w.settle().iter().all(|p| p.rolled_back.is_none()));
    assert_eq!(w.pods(), "n1:a? n2:a? n3:a?");
}

#[test]
fn a_missed_deadline_is_said_first_and_then_taken_back() {
    let mut w = running(3, "a");
    w.s.template = template("b");
    w.settle();
    w.stops();
    w.settle();
    w.now += 599;
    assert!(w.settle().is_empty());
    w.now += 1;
    let plans = w.settle();
    assert!(plans[0].to_string().contains("ProgressDeadlineExceeded"));
    assert!(plans[0].rolled_back.is_none() && plans[1].rolled_back.is_some());
    w.run();
    assert_eq!(w.pods(), "n1:a n2:a n3:a");
    assert_eq!(
        w.condition("RolledBack").as_deref(),
        Some("True/ProgressDeadlineExceeded")
    );
}

#[test]
fn time_in_which_nobody_led_or_no_node_was_there_does_not_count() {
    let mut w = running(3, "a");
    w.s.template = template("b");
    w.settle();
    w.stops();
    w.settle();
    w.now += 5_000;
    // As seen by a new leader, or while all nodes are lost.
    w.s.up_since = at(w.now);
    let plans = w.settle();
    assert!(plans.iter().all(|p| p.rolled_back.is_none()));
    assert_eq!(w.plan().look_again, Some(Duration::from_secs(600)));
    w.now += 600;
    let plans = w.settle();
    assert!(plans.iter().any(|p| p.rolled_back.is_some()));
}

#[test]
fn what_has_failed_is_not_tried_again_until_something_else_is_asked_for() {
    let mut w = crashing_rollout();
    w.run();
    // The same manifest again, and a node that comes.
    w.s.generation += 1;
    w.change_node("n4", |_| {});
    w.run();
    assert_eq!(w.pods(), "n1:a n2:a n3:a n4:a");
    w.s.template = template("c");
    w.run();
    assert_eq!(w.pods(), "n1:c n2:c n3:c n4:c");
    assert_eq!(w.condition("RolledBack"), None);
    // What failed once may be asked for again after that.
    w.s.template = template("b");
    w.run();
    assert_eq!(w.pods(), "n1:b n2:b n3:b n4:b");
}

#[test]
fn going_back_by_hand_ends_the_record() {
    let mut w = crashing_rollout();
    w.run();
    w.s.template = template("a");
    w.run();
    assert_eq!(w.pods(), "n1:a n2:a n3:a");
    assert_eq!(w.condition("RolledBack"), None);
    assert!(w.status().rollback.is_none());
}

#[test]
fn a_rollout_during_a_rollback_fails_and_goes_back_to_the_same_good_revision() {
    let mut w = crashing_rollout();
    let good = w.good().to_owned();
    w.settle();
    w.s.template = template("c");
    w.settle();
    w.stops();
    w.settle();
    w.crash("c");
    w.run();
    assert_eq!(w.pods(), "n1:a n2:a n3:a");
    assert_eq!(
        (w.good(), w.condition("RolledBack").as_deref()),
        (&*good, Some("True/PodsCrash"))
    );
    let record = w.status().rollback.as_ref().unwrap();
    assert_eq!(record.to_revision, good);
}

#[test]
fn nothing_is_taken_back_that_was_never_available_or_is_not_to_be() {
    let mut w = World::new(super::daemon_set(2, "a"));
    w.settle();
    w.crash("a");
    w.now += 700;
    w.settle();
    assert_eq!(w.condition("RolledBack"), None);
    assert_eq!(
        w.condition("Progressing").as_deref(),
        Some("False/ProgressDeadlineExceeded")
    );
    let mut w = crashing_rollout();
    w.s.rolls_back = false;
    w.now += 700;
    w.settle();
    assert_eq!(w.condition("RolledBack"), None);
}

#[test]
fn a_node_that_is_lost_in_the_middle_of_a_rollout_is_no_failure() {
    let mut w = crashing_rollout();
    w.lose("n1");
    w.settle();
    assert_eq!(
        w.condition("RolledBack"),
        None,
        "nobody knows how it is there"
    );
    w.run();
    assert_eq!(w.pods(), "n1:b? n2:b n3:b");
    // All of them: nobody can say anything.
    let mut w = running(2, "a");
    w.s.template = template("b");
    w.settle();
    w.stops();
    w.settle();
    w.lose("n1");
    w.lose("n2");
    w.now += 10_000;
    w.settle();
    let condition = w.condition("Progressing").unwrap();
    assert!(!condition.starts_with("False"), "{condition}");
    assert_ne!(condition, "True/NewRevisionAvailable");
    w.regain("n1");
    w.regain("n2");
    w.run();
    assert_eq!(w.pods(), "n1:b n2:b");
    assert_eq!(w.condition("RolledBack"), None);
}

#[test]
fn revisions_read_copies_that_stay_while_a_revision_reads_them() {
    let mut w = running(1, "a");
    let copy = ContentCopy {
        secret: false,
        of: "app".into(),
        name: "app-1".into(),
    };
    w.s.reads = vec![copy.clone()];
    let env = serde_yaml::from_str("[{configMapRef: {name: app-1}}]").unwrap();
    let spec = std::sync::Arc::make_mut(&mut w.s.template.spec);
    spec.containers[0].env_from = env;
    let plan = w.plan();
    let text = plan.to_string();
    assert!(
        text.starts_with("copy configmap app as app-1\ncreate revision ds-"),
        "{text}"
    );
    assert!(text.contains(" as 2\n"), "{text}");
    w.run();
    assert_eq!(w.s.copies.len(), 1);
    // While something is missing what runs goes on, and nothing is thrown away.
    w.s.missing = Some(Missing(vec!["ConfigMap \"app\"".into()]));
    w.s.template = template("c");
    w.s.reads = vec![];
    w.change_node("n2", |_| {});
    w.run();
    assert_eq!(w.pods(), "n1:a n2:a");
    assert_eq!(
        w.condition("ConfigMissing").as_deref(),
        Some("True/ConfigMissing")
    );
    w.s.missing = None;
    w.now += PROBATION.as_secs().cast_signed();
    w.s.history_limit = 1;
    w.run();
    assert_eq!(w.pods(), "n1:c n2:c");
    assert_eq!(
        w.s.copies.len(),
        1,
        "the revision before may be gone back to"
    );
    w.s.history_limit = 0;
    w.now += PROBATION.as_secs().cast_signed();
    w.run();
    assert!(w.s.copies.is_empty());
}

#[test]
fn what_has_failed_does_not_come_again_while_nobody_knows_what_is_to_come() {
    let mut w = crashing_rollout();
    w.run();
    assert_eq!(w.pods(), "n1:a n2:a n3:a");
    w.s.missing = Some(Missing(vec!["ConfigMap \"app\"".into()]));
    w.run();
    assert_eq!(w.pods(), "n1:a n2:a n3:a");
    assert_eq!(w.condition("RolledBack").as_deref(), Some("True/PodsCrash"));
}

#[test]
fn while_a_new_revision_is_refused_what_runs_goes_on_and_it_is_asked_for_again() {
    let mut w = running(2, "a");
    w.s.template = template("b");
    w.s.failure = Some((REVISION_REFUSED.into(), "exceeded quota".into()));
    w.s.pods.remove(0);
    let plan = w.plan();
    let text = plan.to_string();
    assert!(text.contains("create revision ds-"), "{text}");
    let first = w.s.revisions[0].name().to_owned();
    assert!(text.contains(&format!(" of {first} on n1\n")), "{text}");
    assert!(
        text.contains("ReplicaFailure=True/RevisionCreateError"),
        "{text}"
    );
    assert!(plan.delete.is_empty(), "{text}");
    // It is let in, and rolled out.
    w.s.failure = None;
    w.run();
    assert_eq!(w.pods(), "n1:b n2:b");
    // What has failed stays taken back while something else is refused.
    let mut w = crashing_rollout();
    w.run();
    w.s.template = template("c");
    w.s.failure = Some((REVISION_REFUSED.into(), "exceeded quota".into()));
    let plan = w.plan();
    assert!(plan.delete.is_empty() && plan.revision.is_some(), "{plan}");
    let status = plan.status.expect("the failure is said");
    assert!(status.rollback.is_some(), "{status:?}");
}

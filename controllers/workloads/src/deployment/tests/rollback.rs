//! Rollouts that fail and are taken back; revisions that are pinned to what they read.

use std::time::Duration;

use setpoint_apis::ObjectKey;

use super::{World, at, deployment, recreate, rolling, running, template};
use crate::config::{ContentCopy, Missing};
use crate::content::CopySeen;
use crate::deployment::decide::decide;
use crate::good::PROBATION;
use crate::rollback::Failure;
use crate::seen::Seen;

impl World {
    fn crash(&mut self, i: usize) {
        self.s.sets[i].crash = Some(Failure {
            reason: "PodsCrash",
            message: "container \"c\" of pod x crashes again and again".into(),
        });
    }

    fn good(&self) -> &str {
        let status = self.s.status.as_ref().unwrap();
        status.last_available_revision.as_deref().unwrap()
    }

    fn names(&self) -> Vec<String> {
        let names = self.s.sets.iter().map(|r| r.seen.key.name.to_string());
        names.collect()
    }

    /// Pods of the template that is asked for, and of the revision that runs instead.
    fn counts(&self) -> (Option<i32>, Option<i32>) {
        let status = self.s.status.as_ref().unwrap();
        (status.updated_replicas, status.reverted_replicas)
    }

    fn condition(&self, type_: &str) -> Option<String> {
        let conditions = &self.s.status.as_ref()?.conditions;
        let c = conditions.iter().find(|c| c.type_ == type_)?;
        Some(format!("{}/{}", c.status, c.reason.as_deref()?))
    }
}

/// Ten pods of `a`, and a rollout of `b` whose first three pods crash.
fn crashing_rollout() -> World {
    let mut w = running(10, "a");
    w.s.template = template("b");
    w.settle();
    w.replica_sets_act();
    assert_eq!(w.sizes(), [8, 3]);
    w.crash(1);
    w
}

#[test]
fn a_rollout_whose_pods_crash_goes_back_and_says_so() {
    let mut w = crashing_rollout();
    let names = w.names();
    let plans = w.settle();
    let first = plans[0].to_string();
    let expected = format!("roll back from {} to {}: PodsCrash\n", names[1], names[0]);
    assert!(first.starts_with(&expected), "{first}");
    assert_eq!(w.condition("RolledBack").as_deref(), Some("True/PodsCrash"));
    w.run();
    assert_eq!(w.sizes(), [10, 0]);
    assert_eq!(
        w.reason("Progressing"),
        "True/NewReplicaSetAvailable",
        "of the revision that runs"
    );
    assert_eq!(w.condition("RolledBack").as_deref(), Some("True/PodsCrash"));
    assert!(w.plan().is_empty(), "{}", w.plan());
    assert_eq!(w.counts(), (None, Some(10)), "none of what is asked for");
}

/// A process that runs is available, be it for a moment.
#[test]
fn what_was_available_for_a_moment_and_crashes_is_taken_back_and_not_good() {
    for strategy in [rolling("25%", "25%"), recreate()] {
        for (after, back) in [(100, true), (200, false)] {
            let mut w = running(1, "a");
            w.s.strategy = strategy.clone();
            // What is there to go back to is kept whatever the limit.
            w.s.history_limit = 0;
            w.s.template = template("b");
            w.run();
            assert_eq!(w.sizes(), [0, 1]);
            w.now += after;
            w.s.sets[1].ready_since.clear();
            w.crash(1);
            let plans = w.settle();
            assert_eq!(plans.iter().any(|p| p.rolled_back.is_some()), back);
            if !back {
                continue;
            }
            w.run();
            assert_eq!(w.sizes(), [1]);
            assert_eq!(w.condition("RolledBack").as_deref(), Some("True/PodsCrash"));
            let good = w.names();
            // Another one that fails goes back to the one before that, not to what has failed.
            w.s.template = template("c");
            w.settle();
            w.replica_sets_act();
            w.settle();
            w.crash(1);
            w.run();
            assert_eq!((w.sizes(), w.names()), (vec![1], good));
        }
    }
}

/// b was good for a moment, c fails, and b crashes when it has come back.
#[test]
fn what_is_gone_back_to_and_crashes_too_is_taken_back_to_what_was_before_it() {
    let mut w = running(2, "a");
    w.s.history_limit = 0;
    let good = w.good().to_owned();
    w.s.template = template("b");
    w.run();
    w.now += 100;
    w.s.template = template("c");
    w.settle();
    w.replica_sets_act();
    w.settle();
    w.crash(2);
    let [b, c] = [1, 2].map(|i| w.names()[i].clone());
    w.run();
    assert_eq!((w.sizes(), w.good()), (vec![0, 2], &*b));
    w.s.sets[1].ready_since.clear();
    w.crash(1);
    let plans = w.settle();
    assert!(plans.iter().any(|p| p.rolled_back.is_some()), "{plans:?}");
    w.run();
    assert_eq!((w.sizes(), w.good()), (vec![2], &*good));
    let record = w.s.status.as_ref().unwrap().rollback.clone().unwrap();
    assert_eq!((record.failed_revision, record.to_revision), (c, good));
    assert!(w.plan().is_empty());
}

/// a is asked for again while b may still prove bad, fails, and b fails too: nothing else is known.
#[test]
fn what_is_asked_for_and_was_good_before_has_another_try_when_what_runs_instead_crashes() {
    let mut w = running(2, "a");
    w.s.template = template("b");
    w.run();
    w.now += 40;
    w.s.template = template("a");
    w.settle();
    w.replica_sets_act();
    w.settle();
    w.crash(0);
    w.run();
    assert_eq!(w.sizes(), [0, 2]);
    w.now += 40;
    w.s.sets[1].ready_since.clear();
    w.crash(1);
    w.s.sets[0].crash = None;
    w.run();
    assert_eq!(w.sizes(), [2, 0]);
    assert_eq!(w.condition("RolledBack"), None);
    // And then no other: it does not go back and forth.
    w.s.sets[0].ready_since.clear();
    w.crash(0);
    assert!(w.settle().iter().all(|p| p.rolled_back.is_none()));
    assert_eq!(w.sizes(), [2, 0]);
}

#[test]
fn a_rollout_that_begins_with_no_pod_has_a_deadline_too() {
    let empties = |w: &mut World| {
        w.s.wanted = 0;
        w.run();
        w.s.wanted = 2;
    };
    let recreates = |w: &mut World| w.s.strategy = recreate();
    for begins in [&recreates as &dyn Fn(&mut World), &empties] {
        let mut w = running(2, "a");
        w.s.template = template("b");
        begins(&mut w);
        for _ in 0..3 {
            w.settle();
            w.replica_sets_act();
        }
        assert_eq!(w.sizes(), [0, 2]);
        assert!(
            w.reason("Progressing")
                .starts_with("True/ReplicaSetUpdated")
        );
        w.now += 601;
        let plans = w.settle();
        assert!(plans.iter().any(|p| p.rolled_back.is_some()));
    }
}

#[test]
fn a_missed_deadline_is_said_first_and_then_taken_back() {
    let mut w = running(10, "a");
    w.s.template = template("b");
    w.settle();
    w.replica_sets_act();
    w.settle();
    w.now += 601;
    let plans = w.settle();
    assert!(plans[0].to_string().contains("ProgressDeadlineExceeded"));
    assert!(plans[0].rolled_back.is_none() && plans[1].rolled_back.is_some());
    w.run();
    assert_eq!(w.sizes(), [10, 0]);
    assert_eq!(
        w.condition("RolledBack").as_deref(),
        Some("True/ProgressDeadlineExceeded")
    );
}

#[test]
fn a_pod_that_does_not_parse_is_no_reason_to_take_a_rollout_back() {
    let mut w = running(3, "a");
    w.s.sets[0].frozen = 1;
    w.s.sets[0].frozen_ready_since = vec![at(w.now)];
    w.s.template = template("b");
    w.run();
    assert_eq!((w.sizes(), w.pods()), (vec![0, 3], 4));
    assert_eq!(w.reason("Progressing"), "True/NewReplicaSetAvailable");
    w.now += 5_000;
    let plans = w.settle();
    assert!(plans.iter().all(|p| p.rolled_back.is_none()));
    assert_eq!(w.condition("RolledBack"), None);
    assert_eq!(w.good(), w.names()[1]);
}

/// One of the failed revision praises what does not run any more.
#[test]
fn what_is_gone_back_to_has_a_deadline_of_its_own() {
    let mut w = running(2, "a");
    w.s.strategy = recreate();
    w.s.template = template("b");
    w.run();
    w.s.sets[1].ready_since.clear();
    w.crash(1);
    // The failed pods go before the status of the pass that scales them down is written.
    let status = loop {
        let plan = w.plan();
        w.apply(&plan);
        if w.sizes()[1] == 0 {
            break w.s.status.clone();
        }
    };
    w.s.sets[1].pods = 0;
    w.s.status = status;
    w.settle();
    w.replica_sets_act();
    w.settle();
    assert_eq!(w.sizes(), [2, 0]);
    assert_eq!(w.reason("Progressing"), "True/ReplicaSetUpdated");
    w.now += 601;
    w.settle();
    assert_eq!(w.reason("Progressing"), "False/ProgressDeadlineExceeded");
}

#[test]
fn what_stood_in_the_way_of_a_missed_deadline_is_said() {
    let mut w = running(10, "a");
    w.s.template = template("b");
    w.settle();
    let full = ("FailedCreate", "exceeded quota: compute");
    w.s.sets[1].failure = Some((full.0.into(), full.1.into()));
    w.settle();
    w.now += 601;
    w.settle();
    let record = w.s.status.as_ref().unwrap().rollback.as_ref().unwrap();
    let message = "there was no progress for 600 s: exceeded quota: compute";
    assert_eq!(record.message, message);
}

#[test]
fn time_in_which_nobody_led_or_no_node_was_there_does_not_count() {
    let mut w = running(10, "a");
    w.s.template = template("b");
    w.settle();
    w.replica_sets_act();
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
    // The same manifest again.
    w.s.generation += 1;
    w.run();
    assert_eq!(w.sizes(), [10, 0]);
    w.s.template = template("c");
    w.run();
    assert_eq!(w.sizes(), [0, 0, 10]);
    assert_eq!(w.condition("RolledBack"), None);
    assert_eq!(w.counts(), (Some(10), None));
    // What failed once may be asked for again after that.
    w.s.sets[1].crash = None;
    w.s.template = template("b");
    w.run();
    assert_eq!(w.sizes(), [0, 10, 0]);
}

#[test]
fn going_back_by_hand_ends_the_record() {
    let mut w = crashing_rollout();
    w.run();
    w.s.template = template("a");
    w.run();
    assert_eq!(w.sizes(), [10, 0]);
    assert_eq!(w.condition("RolledBack"), None);
    assert!(w.s.status.as_ref().unwrap().rollback.is_none());
}

#[test]
fn a_rollout_during_a_rollback_fails_and_goes_back_to_the_same_good_revision() {
    let mut w = crashing_rollout();
    w.settle();
    w.s.template = template("c");
    w.settle();
    w.replica_sets_act();
    let c = w.s.sets.len() - 1;
    w.crash(c);
    w.run();
    assert_eq!(w.sizes(), [10, 0, 0]);
    let record = w.s.status.as_ref().unwrap().rollback.clone().unwrap();
    assert_eq!(
        [record.failed_revision, record.to_revision],
        [w.names()[2].clone(), w.names()[0].clone()]
    );
}

#[test]
fn a_rollback_that_fails_too_stays_where_it_is() {
    let mut w = crashing_rollout();
    w.settle();
    w.crash(0);
    w.s.sets[0].ready_since.clear();
    w.run();
    assert_eq!(w.sizes(), [10, 0]);
    assert!(w.plan().is_empty());
}

#[test]
fn nothing_is_taken_back_when_nothing_was_available_or_when_it_is_not_wanted() {
    let mut w = World::new(deployment(3, "a"));
    w.settle();
    w.replica_sets_act();
    w.crash(0);
    w.settle();
    assert_eq!((w.sizes(), w.condition("RolledBack")), (vec![3], None));

    let mut w = crashing_rollout();
    w.s.rolls_back = false;
    w.settle();
    assert_eq!(w.condition("RolledBack"), None);
    w.s.rolls_back = true;
    w.settle();
    assert!(w.condition("RolledBack").is_some());
    w.s.rolls_back = false;
    w.s.sets[1].crash = None;
    w.run();
    assert_eq!((w.sizes(), w.condition("RolledBack")), (vec![0, 10], None));
}

#[test]
fn a_paused_rollout_is_not_taken_back() {
    let mut w = crashing_rollout();
    w.s.paused = true;
    w.settle();
    assert_eq!(w.condition("RolledBack"), None);
}

#[test]
fn the_deadline_of_a_rollout_counts_anew_when_it_goes_on_after_a_pause() {
    let mut w = running(2, "a");
    w.s.template = template("broken");
    w.settle();
    w.replica_sets_act();
    w.settle();
    w.now += 500;
    w.s.paused = true;
    w.settle();
    w.now += 5_000;
    assert!(w.plan().is_empty());
    w.s.paused = false;
    w.settle();
    let plan = w.plan();
    assert_eq!(plan.look_again, Some(std::time::Duration::from_secs(600)));
    w.now += 599;
    w.settle();
    assert_eq!(w.condition("RolledBack"), None);
    w.now += 1;
    w.run();
    assert_eq!(
        w.condition("RolledBack").as_deref(),
        Some("True/ProgressDeadlineExceeded")
    );
}

#[test]
fn the_good_revision_is_kept_whatever_the_history_limit() {
    let mut w = running(10, "a");
    w.s.history_limit = 0;
    w.s.template = template("b");
    w.settle();
    // Paused, old ReplicaSets without pods would go.
    w.s.paused = true;
    w.s.sets[0].replicas = 0;
    w.s.sets[0].pods = 0;
    w.s.sets[0].ready_since.clear();
    assert!(decide(&w.s, at(w.now)).delete.is_empty());
}

fn copy(name: &str) -> ContentCopy {
    ContentCopy {
        secret: false,
        of: "app".into(),
        name: name.into(),
    }
}

fn seen(name: &str) -> CopySeen {
    CopySeen {
        own: true,
        frozen: false,
        secret: false,
        seen: Seen {
            key: ObjectKey::namespaced("default", name),
            mod_revision: 7,
        },
    }
}

/// A template that reads the copy of this name.
fn reading(name: &str) -> setpoint_apis::core::PodTemplateSpec {
    let text = format!(
        "metadata: {{labels: {{app: web}}}}\nspec: {{containers: [{{name: c, image: a, envFrom: [{{configMapRef: {{name: {name}}}}}]}}]}}\n"
    );
    serde_yaml::from_str(&text).unwrap()
}

#[test]
fn a_change_of_what_is_read_is_a_revision_and_its_copy_lives_as_long() {
    let mut w = World::new(deployment(2, "a"));
    w.s.template = reading("app-1");
    w.s.reads = vec![copy("app-1")];
    let plan = w.plan().to_string();
    assert!(
        plan.starts_with("copy configmap app as app-1\ncreate replicaset "),
        "{plan}"
    );
    w.s.copies = vec![seen("app-1")];
    w.run();
    w.s.template = reading("app-2");
    w.s.reads = vec![copy("app-2")];
    assert!(
        w.plan()
            .to_string()
            .starts_with("copy configmap app as app-2\n")
    );
    w.s.copies.push(seen("app-2"));
    w.run();
    assert_eq!(w.sizes(), [0, 2]);
    assert!(w.plan().is_empty(), "the old one may be gone back to");
    w.s.history_limit = 0;
    assert!(w.plan().is_empty(), "still");
    w.now += PROBATION.as_secs().cast_signed();
    let plan = w.plan();
    assert_eq!(
        plan.copies.to_string(),
        "delete copy configmap app-1 at 7\n"
    );
    assert_eq!(plan.delete.len(), 1);
}

#[test]
fn while_something_is_missing_what_runs_goes_on_and_nothing_new_begins() {
    let missing = || Some(Missing(vec!["ConfigMap \"app\"".into()]));
    let mut w = World::new(deployment(2, "a"));
    w.s.missing = missing();
    w.settle();
    assert!(w.s.sets.is_empty());
    assert_eq!(
        w.condition("ConfigMissing").as_deref(),
        Some("True/ConfigMissing")
    );
    w.s.missing = None;
    w.run();
    assert_eq!(w.condition("ConfigMissing"), None);
    w.s.missing = missing();
    w.s.wanted = 3;
    w.run();
    assert_eq!(w.sizes(), [3]);
}

#[test]
fn what_has_failed_does_not_come_again_while_nobody_knows_what_is_to_come() {
    let mut w = crashing_rollout();
    w.run();
    assert_eq!(w.sizes(), [10, 0]);
    w.s.missing = Some(Missing(vec!["ConfigMap \"app\"".into()]));
    w.run();
    assert_eq!(w.sizes(), [10, 0]);
    assert_eq!(w.condition("RolledBack").as_deref(), Some("True/PodsCrash"));
}

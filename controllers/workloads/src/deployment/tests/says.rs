//! What a status says: deadlines, what stands in the way, what cannot be used.

use super::*;

#[test]
fn a_rollout_that_stands_still_misses_its_deadline() {
    let mut w = running(2, "a");
    w.s.rolls_back = false;
    w.s.template = template("broken");
    w.settle();
    w.replica_sets_act();
    w.settle();
    assert_eq!(w.reason("Progressing"), "True/ReplicaSetUpdated");
    assert_eq!(w.plan().look_again, Some(Duration::from_secs(600)));
    w.now += 599;
    assert!(w.plan().is_empty());
    w.now += 1;
    w.settle();
    assert_eq!(w.reason("Progressing"), "False/ProgressDeadlineExceeded");
    assert_eq!(w.reason("Available"), "True/MinimumReplicasAvailable");
    assert_eq!(w.plan().look_again, None);
    w.s.template = template("a");
    w.run();
    assert_eq!(w.reason("Progressing"), "True/NewReplicaSetAvailable");
}

/// A Deployment of two pods whose second template has missed its deadline and is not taken back.
fn stuck() -> World {
    let mut w = running(2, "a");
    w.s.rolls_back = false;
    w.s.template = template("broken");
    w.s.generation = 2;
    w.settle();
    w.replica_sets_act();
    w.settle();
    w.now += 600;
    w.settle();
    assert_eq!(w.reason("Progressing"), "False/ProgressDeadlineExceeded");
    w
}

#[test]
fn the_missed_deadline_of_one_template_is_not_that_of_the_next() {
    type Next = (&'static str, fn(&mut World));
    let next: [Next; 6] = [
        ("another template", |_| ()),
        ("the first template again", |w| w.s.template = template("a")),
        ("more pods at the same time", |w| w.s.wanted = 9),
        ("what is there breaks", |w| {
            w.s.sets.iter_mut().for_each(|r| r.ready_since.clear());
        }),
        ("another strategy at the same time", |w| {
            w.s.strategy = recreate();
        }),
        ("its namespace goes", |w| w.s.namespace_exists = false),
    ];
    for (what, change) in next {
        let mut w = stuck();
        w.s.template = template("good");
        w.s.generation = 3;
        change(&mut w);
        let plans = w.settle();
        let statuses: Vec<_> = plans.iter().filter_map(|p| p.status.as_ref()).collect();
        assert!(!statuses.is_empty(), "{what}");
        for status in statuses {
            assert_eq!(status.observed_generation, Some(3), "{what}");
            let progressing = status.conditions.iter().find(|c| c.type_ == "Progressing");
            assert_eq!(progressing.unwrap().status, "True", "{what}: {status:?}");
        }
        if what == "another template" {
            // Its own deadline counts from the beginning of its own rollout.
            w.now += 599;
            assert!(w.plan().is_empty());
            w.now += 1;
            w.settle();
            assert_eq!(w.reason("Progressing"), "False/ProgressDeadlineExceeded");
        }
    }
}

#[test]
fn a_missed_deadline_stays_through_other_changes_until_there_is_progress() {
    let mut w = stuck();
    w.s.wanted = 4;
    w.s.generation = 3;
    w.settle();
    assert_eq!(w.s.status.as_ref().unwrap().observed_generation, Some(3));
    assert_eq!(w.reason("Progressing"), "False/ProgressDeadlineExceeded");
    // More pods of the template exist: that is progress.
    w.replica_sets_act();
    w.settle();
    assert_eq!(w.reason("Progressing"), "True/ReplicaSetUpdated");
}

#[test]
fn a_pod_that_breaks_after_the_rollout_does_not_start_a_deadline() {
    let mut w = running(2, "a");
    w.s.sets[0].ready_since.truncate(0);
    w.settle();
    assert_eq!(w.reason("Progressing"), "True/NewReplicaSetAvailable");
    assert_eq!(w.reason("Available"), "False/MinimumReplicasUnavailable");
}

#[test]
fn a_broken_document_freezes_everything_and_says_so() {
    let mut w = running(2, "a");
    let before = w.s.clone();
    w.s = Snapshot {
        invalid: Some(Unusable::document("line 7: no")),
        wanted: 0,
        sets: vec![],
        ..before.clone()
    };
    let plans = w.settle();
    assert!(plans.iter().all(|p| !p.acts()));
    assert_eq!(w.reason("Invalid"), "True/DocumentInvalid");
    assert_eq!(
        w.s.status.as_ref().unwrap().ready_replicas,
        Some(2),
        "what was last known stays"
    );
    w.s = Snapshot {
        status: w.s.status.clone(),
        ..before
    };
    w.settle();
    assert!(
        w.s.status
            .as_ref()
            .unwrap()
            .conditions
            .iter()
            .all(|c| c.type_ != "Invalid")
    );
}

#[test]
fn a_broken_replica_set_freezes_its_deployment() {
    let mut w = running(2, "a");
    w.s.template = template("b");
    w.s.broken_sets = vec!["ReplicaSet web-x: line 7: no".into()];
    assert!(w.settle().iter().all(|p| !p.acts()));
    assert_eq!(w.reason("Invalid"), "True/ReplicaSetInvalid");
}

#[test]
fn what_replica_sets_fail_at_is_shown() {
    let mut w = running(1, "a");
    w.s.sets[0].failure = Some(("FailedCreate".into(), "too large".into()));
    w.settle();
    assert_eq!(w.reason("ReplicaFailure"), "True/FailedCreate");
    w.s.sets[0].failure = None;
    w.settle();
    assert!(
        w.s.status
            .unwrap()
            .conditions
            .iter()
            .all(|c| c.type_ != "ReplicaFailure")
    );
}

#[test]
fn nothing_is_created_in_a_namespace_that_does_not_exist() {
    let mut w = World::new(deployment(1, "a"));
    w.s.namespace_exists = false;
    w.settle();
    assert!(w.s.sets.is_empty());
    assert_eq!(w.reason("ReplicaFailure"), "True/NamespaceNotFound");
}

#[test]
fn pods_must_be_ready_for_a_while() {
    let mut w = World::new(deployment(1, "a"));
    w.s.min_ready_seconds = 30;
    w.run();
    assert_eq!(w.reason("Available"), "False/MinimumReplicasUnavailable");
    assert_eq!(w.plan().look_again, Some(Duration::from_secs(30)));
    w.now += 30;
    w.settle();
    assert_eq!(w.reason("Available"), "True/MinimumReplicasAvailable");
}

#[test]
fn what_the_store_refuses_of_a_replica_set_is_shown() {
    let mut w = World::new(deployment(1, "a"));
    w.s.failure = Some(("ReplicaSetCreateError".into(), "too large".into()));
    let plan = w.plan();
    assert!(plan.create.is_some(), "it is tried again");
    w.s.status = plan.status;
    assert_eq!(w.reason("ReplicaFailure"), "True/ReplicaSetCreateError");
}

#[test]
fn a_rollout_that_cannot_begin_says_so_and_its_deadline_counts_from_its_beginning() {
    let mut w = World::new(deployment(2, "a"));
    w.run();
    w.s.template = template("b");
    w.s.failure = Some(("ReplicaSetCreateError".into(), "exceeded quota: q".into()));
    let refused = w.plan();
    assert!(refused.create.is_some(), "it is tried again");
    w.s.status = refused.status;
    assert_eq!(
        w.reason("Progressing"),
        "False/ReplicaSetCreateError",
        "{:?}",
        w.s.status
    );
    assert_eq!(w.plan().status, None, "it is said once");
    // Far beyond the deadline the namespace lets it in.
    w.now += 10_000;
    w.s.failure = None;
    w.settle();
    assert_eq!(w.reason("Progressing"), "True/ReplicaSetUpdated");
    w.run();
    assert_eq!(w.reason("Progressing"), "True/NewReplicaSetAvailable");
}

#[test]
fn an_autoscaler_that_cannot_be_read_is_told_of_once_while_it_lasts() {
    let mut w = running(2, "a");
    w.s.decided = Some(2);
    w.s.broken_scaler = Some(crate::conditions::Finding::new(
        crate::autoscale::AUTOSCALER_INVALID,
        true,
        "AutoscalerInvalid",
        "it does not parse",
    ));
    assert_eq!(w.settle().len(), 1);
    assert_eq!(w.reason("AutoscalerInvalid"), "True/AutoscalerInvalid");
    let status = w.s.status.as_ref().unwrap();
    assert_eq!(status.desired_replicas, Some(2));
    w.now += 60;
    assert!(w.plan().is_empty());
    (w.s.decided, w.s.broken_scaler) = (None, None);
    assert_eq!(w.settle().len(), 1);
    let conditions = &w.s.status.as_ref().unwrap().conditions;
    assert!(conditions.iter().all(|c| c.type_ != "AutoscalerInvalid"));
}

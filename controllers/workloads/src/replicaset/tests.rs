//! Decisions about ReplicaSets: values in, plans out.

use std::time::Duration;

use setpoint_apis::{ObjectKey, Timestamp};

use super::decide::decide;
use super::plan::{Plan, Seen, Setbacks, Snapshot};
use crate::pod::{PodFacts, PodState};
use crate::standing::Unusable;

const NOW: i64 = 1_000;

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(NOW)
}

fn set(wanted: i32, pods: Vec<PodFacts>) -> Snapshot {
    Snapshot {
        key: ObjectKey::namespaced("default", "web-5f7"),
        uid: "u".into(),
        generation: 1,
        invalid: None,
        fixed: None,
        overlap: None,
        decided: None,
        broken_scaler: None,
        terminating: false,
        namespace_exists: true,
        wanted,
        min_ready: Duration::ZERO,
        fully_labeled: i32::try_from(pods.len()).unwrap(),
        pods,
        adoptable: vec![],
        releasable: vec![],
        taken: [].into(),
        load: [].into(),
        setbacks: Setbacks::default(),
        status: None,
        salt: 1,
    }
}

fn pod(name: &str) -> PodFacts {
    PodFacts {
        key: ObjectKey::namespaced("default", name),
        mod_revision: 10,
        create_revision: 10,
        frozen: false,
        node: Some("n1".into()),
        state: PodState::Running,
        ready_since: Some(Timestamp::from_unix_seconds(NOW - 100)),
        deletion_cost: 0,
        restarts: 0,
        reported: true,
        trouble: None,
    }
}

/// Carries a plan out on the model, as the store and an instant agent would.
fn apply(s: &mut Snapshot, plan: &Plan) {
    for name in &plan.create {
        s.pods.push(pod(name));
    }
    let gone: Vec<_> = plan.delete.iter().map(|r| &r.pod.key).collect();
    s.pods.retain(|p| !gone.contains(&&p.key));
    s.pods.sort_by(|a, b| a.key.cmp(&b.key));
    for p in &plan.adopt {
        s.pods.push(pod(&p.key.name));
    }
    s.pods.sort_by(|a, b| a.key.cmp(&b.key));
    s.adoptable.clear();
    s.releasable.clear();
    s.fully_labeled = i32::try_from(s.pods.len()).unwrap();
    if let Some(status) = &plan.status {
        s.status = Some(status.clone());
    }
}

/// Plans until nothing is left to do, and shows that the pass after it plans nothing.
fn run(s: &mut Snapshot) -> Vec<Plan> {
    let mut plans = Vec::new();
    loop {
        let plan = decide(s, now());
        if plan.is_empty() {
            return plans;
        }
        apply(s, &plan);
        s.salt += 1;
        plans.push(plan);
        assert!(plans.len() < 10, "it does not settle: {plans:?}");
    }
}

#[test]
fn missing_pods_are_created_in_one_batch_and_then_reported() {
    let mut s = set(3, vec![]);
    let plans = run(&mut s);
    assert_eq!(plans.len(), 2);
    assert_eq!(
        plans[0].to_string(),
        "create pod web-5f7-f8p5h\ncreate pod web-5f7-xrnsr\ncreate pod web-5f7-nmswt\n"
    );
    assert_eq!(
        plans[1].to_string(),
        "status replicas=3 ready=3 available=3 generation=1\n"
    );
}

#[test]
fn twenty_million_pods_are_created_ten_thousand_at_a_time() {
    let mut s = set(20_000_000, vec![]);
    for there in [10_000, 20_000] {
        let plan = decide(&s, now());
        assert_eq!(plan.create.len(), 10_000);
        assert!(plan.acts(), "what is created brings the next pass");
        apply(&mut s, &plan);
        s.salt += 1;
        assert_eq!(s.pods.len(), there);
    }
    let names: std::collections::BTreeSet<_> = s.pods.iter().map(|p| &p.key.name).collect();
    assert_eq!(names.len(), 20_000);
}

#[test]
fn a_set_whose_names_are_used_up_stops_and_says_so() {
    let mut s = set(20_000_000, vec![]);
    s.taken = crate::hash::PodNames::new("web-5f7", "u", s.salt)
        .take(200_000)
        .map(Into::into)
        .collect();
    let plan = decide(&s, now());
    assert_eq!(plan.create.len(), 0);
    assert_eq!(
        plan.notes,
        ["20000000 pods are missing, but there are hardly any names left for them"]
    );
}

#[test]
fn ten_thousand_pods_are_one_plan() {
    let plan = decide(&set(10_000, vec![]), now());
    let mut names = plan.create.clone();
    names.sort();
    names.dedup();
    assert_eq!((plan.create.len(), names.len()), (10_000, 10_000));
}

#[test]
fn scaling_down_takes_the_least_useful_first() {
    let unready = PodFacts {
        ready_since: None,
        ..pod("b")
    };
    let doubled = PodFacts {
        node: Some("n2".into()),
        ..pod("d")
    };
    let mut s = set(2, vec![pod("a"), unready, pod("c"), doubled]);
    s.load = [("n1".into(), 1), ("n2".into(), 5)].into();
    assert_eq!(
        decide(&s, now()).to_string(),
        "delete pod b at 10\ndelete pod d at 10\n"
    );
    run(&mut s);
    assert_eq!(s.pods.len(), 2);
}

#[test]
fn a_broken_document_freezes_everything_and_says_so() {
    let mut s = set(0, vec![pod("a"), pod("b")]);
    s.invalid = Some(Unusable::document("line 3: no"));
    let plans = run(&mut s);
    assert_eq!(
        plans[0].to_string(),
        "status replicas=0 ready=0 available=0 generation=0 Invalid=True/DocumentInvalid\n\
         note: the document does not parse: frozen\n"
    );
    assert_eq!(s.pods.len(), 2);
    s.invalid = None;
    s.wanted = 2;
    let plans = run(&mut s);
    assert_eq!(
        plans[0].to_string(),
        "status replicas=2 ready=2 available=2 generation=1\n"
    );
}

#[test]
fn a_pod_that_does_not_parse_counts_and_is_never_chosen() {
    let frozen = PodFacts {
        frozen: true,
        state: PodState::Unbound,
        ready_since: None,
        ..pod("b")
    };
    let mut s = set(2, vec![pod("a"), frozen.clone()]);
    assert!(!decide(&s, now()).acts());
    s.wanted = 1;
    assert_eq!(decide(&s, now()).to_string(), "delete pod a at 10\n");
    let ended = PodFacts {
        state: PodState::Failed,
        ..frozen
    };
    let plan = decide(&set(0, vec![ended]), now());
    assert!(!plan.acts());
    assert_eq!(
        plan.notes,
        ["1 pods are too many but do not parse: left alone"]
    );
}

#[test]
fn pods_are_adopted_and_released_before_anything_is_counted() {
    let mut s = set(1, vec![]);
    s.adoptable = vec![Seen {
        key: ObjectKey::namespaced("default", "mine"),
        mod_revision: 7,
    }];
    s.releasable = vec![Seen {
        key: ObjectKey::namespaced("default", "theirs"),
        mod_revision: 8,
    }];
    let plans = run(&mut s);
    assert_eq!(
        plans[0].to_string(),
        "adopt pod mine at 7\nrelease pod theirs at 8\n"
    );
    assert_eq!(
        plans[1].to_string(),
        "status replicas=1 ready=1 available=1 generation=1\n"
    );
}

#[test]
fn an_ended_pod_is_replaced_at_once_and_a_row_of_them_more_and_more_slowly() {
    let ended = PodFacts {
        state: PodState::Failed,
        ready_since: None,
        ..pod("a")
    };
    let mut s = set(1, vec![ended]);
    let plan = decide(&s, now());
    assert_eq!(
        (
            plan.create.len(),
            plan.delete.len(),
            plan.delete[0].finished
        ),
        (1, 1, true)
    );
    for (finished, delay) in [(1, 10), (2, 20), (3, 40), (4, 60), (99, 60)] {
        s.setbacks = Setbacks {
            finished,
            last_finished: Some(now()),
            failure: None,
        };
        let plan = decide(&s, now());
        assert_eq!((plan.create.len(), plan.delete.len()), (0, 1), "{finished}");
        assert_eq!(
            plan.look_again,
            Some(Duration::from_secs(delay)),
            "{finished}"
        );
    }
    s.pods.clear();
    s.setbacks = Setbacks {
        finished: 2,
        last_finished: Some(Timestamp::from_unix_seconds(NOW - 10)),
        failure: None,
    };
    assert_eq!(decide(&s, now()).create.len(), 1, "the wait is over");
    s.setbacks.last_finished = Some(Timestamp::from_unix_seconds(NOW - 4));
    assert_eq!(decide(&s, now()).look_again, Some(Duration::from_secs(6)));
}

#[test]
fn many_that_end_together_are_one_setback() {
    let ended = |i: i32| PodFacts {
        state: PodState::Failed,
        ready_since: None,
        ..pod(&format!("p{i:03}"))
    };
    let plan = decide(&set(100, (0..30).map(ended).collect()), now());
    assert_eq!((plan.create.len(), plan.delete.len()), (100, 30));
}

#[test]
fn after_a_refused_create_one_is_tried_and_the_condition_says_why() {
    let mut s = set(50, vec![]);
    s.setbacks.failure = Some(("FailedCreate".into(), "too large".into()));
    let plan = decide(&s, now());
    assert_eq!(plan.create.len(), 1);
    assert_eq!(
        plan.status.unwrap().conditions[0].message.as_deref(),
        Some("too large")
    );
}

#[test]
fn pods_that_become_ready_while_others_are_refused_are_counted() {
    let mut s = set(2, vec![pod("a")]);
    s.setbacks.failure = Some(("FailedCreate".into(), "exceeded quota".into()));
    s.pods[0].ready_since = None;
    s.status = decide(&s, now()).status;
    assert_eq!(s.status.as_ref().unwrap().ready_replicas, None);
    s.pods[0].ready_since = Some(now());
    let plan = decide(&s, now());
    assert_eq!(plan.create.len(), 1);
    assert_eq!(plan.status.unwrap().ready_replicas, Some(1));
}

#[test]
fn nothing_is_created_in_a_namespace_that_does_not_exist() {
    let mut s = set(2, vec![]);
    s.namespace_exists = false;
    let plans = run(&mut s);
    assert_eq!(
        plans[0].to_string(),
        "status replicas=0 ready=0 available=0 generation=1 ReplicaFailure=True/NamespaceNotFound\n\
         note: 2 pods are missing, but the namespace does not exist\n"
    );
    s.namespace_exists = true;
    run(&mut s);
    assert!(s.status.unwrap().conditions.is_empty());
}

#[test]
fn readiness_becomes_availability_with_time() {
    let mut s = set(1, vec![pod("a")]);
    s.min_ready = Duration::from_secs(130);
    let plan = decide(&s, now());
    assert_eq!(
        plan.to_string(),
        "status replicas=1 ready=1 available=0 generation=1\nlook again in 30000 ms\n"
    );
    apply(&mut s, &plan);
    let later = Timestamp::from_unix_seconds(NOW + 30);
    assert_eq!(
        decide(&s, later).to_string(),
        "status replicas=1 ready=1 available=1 generation=1\n"
    );
}

#[test]
fn a_set_that_is_being_deleted_makes_no_new_pods() {
    let mut s = set(3, vec![pod("a")]);
    s.terminating = true;
    assert!(run(&mut s).iter().all(|p| !p.acts()));
}

#[test]
fn names_that_are_taken_are_passed_over() {
    let mut s = set(2, vec![]);
    let first = decide(&s, now()).create;
    s.taken = [first[0].as_str().into()].into();
    let second = decide(&s, now()).create;
    assert_eq!(second[0], first[1]);
    assert!(!second.contains(&first[0]));
}

#[test]
fn an_autoscaler_that_cannot_be_read_is_told_of_once_while_it_lasts() {
    let mut s = set(1, vec![pod("a")]);
    run(&mut s);
    s.broken_scaler = Some(crate::conditions::Finding::new(
        crate::autoscale::AUTOSCALER_INVALID,
        true,
        "AutoscalerInvalid",
        "it does not parse",
    ));
    assert_eq!(run(&mut s).len(), 1);
    let said = |s: &Snapshot| s.status.as_ref().unwrap().conditions.clone();
    assert_eq!(said(&s)[0].type_, "AutoscalerInvalid");
    s.broken_scaler = None;
    assert_eq!(run(&mut s).len(), 1);
    assert_eq!(said(&s), []);
}

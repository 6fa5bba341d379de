use setpoint_apis::document;

use super::*;

fn spec(yaml: &str) -> PodDisruptionBudgetSpec {
    document::decode_value(
        format!("{{selector: {{matchLabels: {{app: web}}}}, {yaml}}}").as_bytes(),
    )
    .unwrap()
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

fn labels(app: &str) -> StringMap {
    [("app".to_owned(), app.to_owned())].into_iter().collect()
}

/// A pod without a workload.
fn seen(labels: &StringMap, health: PodHealth) -> Seen<'_> {
    Seen {
        labels,
        health,
        owner: None,
    }
}

/// A budget over pods p0, p1, ... that are as given.
fn over(budget: &str, pods: &[PodHealth]) -> Budgets {
    let mut budgets = Budgets::default();
    assert!(budgets.set(&key("b"), Budget::Is(Box::new(spec(budget)))));
    for (i, health) in pods.iter().enumerate() {
        budgets.observe(&key(&format!("p{i}")), Some(seen(&labels("web"), *health)));
    }
    budgets
}

use PodHealth::{Idle as Down, Ready, Unready};

#[test]
fn numbers_and_percentages_are_rounded_as_in_kubernetes() {
    for (budget, pods, expected) in [
        ("minAvailable: 2", 3, (2, 1)),
        ("minAvailable: 5", 3, (5, 0)),
        ("minAvailable: 0", 3, (0, 3)),
        ("minAvailable: 50%", 3, (2, 1)),
        ("minAvailable: 100%", 3, (3, 0)),
        ("minAvailable: 34%", 10, (4, 6)),
        ("maxUnavailable: 1", 3, (2, 1)),
        ("maxUnavailable: 0", 3, (3, 0)),
        ("maxUnavailable: 7", 3, (0, 3)),
        ("maxUnavailable: 30%", 7, (4, 3)),
        ("maxUnavailable: 10%", 3, (2, 1)),
        ("maxUnavailable: 0%", 3, (3, 0)),
        ("minAvailable: 1", 0, (1, 0)),
    ] {
        let counts = over(budget, &vec![Ready; pods]).counts(&key("b")).unwrap();
        assert_eq!(
            (counts.desired, counts.allowed),
            expected,
            "{budget} of {pods}"
        );
        assert!(!counts.senseless);
    }
}

#[test]
fn a_budget_that_makes_no_sense_allows_nothing_and_disturbs_no_other() {
    for budget in [
        "maxUnavailable: abc",
        "minAvailable: -1",
        "minAvailable: 1, maxUnavailable: 1",
        "unhealthyPodEvictionPolicy: IfHealthyBudget",
    ] {
        let budgets = over(budget, &[Ready, Unready]);
        let counts = budgets.counts(&key("b")).unwrap();
        assert!(counts.senseless && counts.allowed == 0, "{budget}");
        assert!(budgets.may_disrupt(&key("p0")).is_err());
        assert!(budgets.may_disrupt(&key("p1")).is_err());
    }
    let mut budgets = over("maxUnavailable: abc", &[Ready]);
    budgets.observe(&key("db"), Some(seen(&labels("db"), Ready)));
    assert_eq!(budgets.may_disrupt(&key("db")), Ok(()));
    budgets.set(&key("broken"), Budget::Unknown);
    assert_eq!(
        &*budgets.may_disrupt(&key("db")).unwrap_err().budget,
        "broken"
    );
}

#[test]
fn what_is_decided_counts_at_once_so_two_cannot_overshoot() {
    let mut budgets = over("maxUnavailable: 1", &[Ready; 3]);
    assert_eq!(budgets.may_disrupt(&key("p0")), Ok(()));
    budgets.disrupt(&key("p0"));
    let blocked = budgets.may_disrupt(&key("p1")).unwrap_err();
    assert_eq!(
        blocked.message(),
        "the disruption budget b needs 2 healthy pods and has 2 currently"
    );
    budgets.wait(&key("p1"), &blocked);
    assert!(budgets.take_woken().is_empty());
    // The write failed after all.
    budgets.observe(&key("p0"), Some(seen(&labels("web"), Ready)));
    assert_eq!(budgets.take_woken(), [key("p1")].into());
    assert_eq!(budgets.may_disrupt(&key("p1")), Ok(()));
}

#[test]
fn pods_that_do_not_serve_may_go_by_their_policy() {
    let may = |budget: &str, pods: &[PodHealth]| over(budget, pods).may_disrupt(&key("p0")).is_ok();
    assert!(may("minAvailable: 2", &[Unready, Ready, Ready]));
    assert!(!may("minAvailable: 2", &[Unready, Ready, Unready]));
    assert!(!may(
        "minAvailable: 2, unhealthyPodEvictionPolicy: IfHealthyBudget",
        &[Unready, Ready]
    ));
    assert!(may(
        "minAvailable: 2, unhealthyPodEvictionPolicy: AlwaysAllow",
        &[Unready, Ready]
    ));
    assert!(
        may("minAvailable: 2", &[Down, Ready]),
        "nothing of it serves"
    );
    assert!(!may(
        "minAvailable: 2, unhealthyPodEvictionPolicy: AlwaysAllow",
        &[Ready, Ready]
    ));
}

#[test]
fn pods_count_for_the_budgets_that_select_them_and_all_have_to_agree() {
    let mut budgets = over("maxUnavailable: 1", &[Ready, Ready]);
    let all = PodDisruptionBudgetSpec {
        selector: Some(Default::default()),
        min_available: Some(2.into()),
        ..Default::default()
    };
    assert!(!budgets.set(&key("all"), Budget::Is(Box::new(all))));
    assert_eq!(&*budgets.may_disrupt(&key("p0")).unwrap_err().budget, "all");
    budgets.observe(&key("other"), Some(seen(&labels("db"), Ready)));
    assert_eq!(budgets.may_disrupt(&key("p0")), Ok(()));
    assert_eq!(budgets.of(&key("p0")).count(), 2);
    assert_eq!(budgets.of(&key("other")).count(), 1);
    // A changed label moves a pod to other budgets.
    budgets.observe(&key("other"), Some(seen(&labels("web"), Ready)));
    assert_eq!(budgets.counts(&key("b")).unwrap().expected, 3);
    budgets.observe(&key("other"), None);
    assert_eq!(budgets.counts(&key("b")).unwrap().expected, 2);
    let nobody = PodDisruptionBudgetSpec {
        max_unavailable: Some(0.into()),
        ..Default::default()
    };
    budgets.set(&key("all"), Budget::Is(Box::new(nobody)));
    assert_eq!(
        budgets.may_disrupt(&key("p0")),
        Ok(()),
        "no selector, no pods"
    );
}

#[test]
fn a_budget_that_changes_or_goes_wakes_who_waits_for_it() {
    let mut budgets = over("maxUnavailable: 0", &[Ready]);
    let blocked = budgets.may_disrupt(&key("p0")).unwrap_err();
    budgets.wait(&key("p0"), &blocked);
    budgets.set(&key("b"), Budget::Is(Box::new(spec("maxUnavailable: 1"))));
    assert_eq!(budgets.take_woken(), [key("p0")].into());
    assert_eq!(budgets.take_changed(), [key("b")]);
    budgets.set(&key("b"), Budget::Is(Box::new(spec("maxUnavailable: 0"))));
    let blocked = budgets.may_disrupt(&key("p0")).unwrap_err();
    budgets.wait(&key("p0"), &blocked);
    budgets.remove(&key("b"));
    assert_eq!(budgets.take_woken(), [key("p0")].into());
    assert!(budgets.is_empty());
}

#[test]
fn a_pod_that_is_gone_waits_for_nothing() {
    let mut budgets = over("maxUnavailable: 0", &[Ready]);
    let blocked = budgets.may_disrupt(&key("p0")).unwrap_err();
    budgets.wait(&key("p0"), &blocked);
    budgets.observe(&key("p0"), None);
    budgets.set(&key("b"), Budget::Is(Box::new(spec("maxUnavailable: 1"))));
    assert_eq!(budgets.take_woken(), [].into());
}

#[test]
fn who_is_chosen_to_make_room_is_down_for_the_next_preemptor_and_for_evictions() {
    let mut budgets = over("maxUnavailable: 1", &[Ready; 3]);
    let allowed = |budgets: &Budgets, name: &str| {
        let name = key(name);
        let of = budgets.of(&name);
        of.map(|(_, counts)| counts.allowed).collect::<Vec<_>>()
    };
    assert_eq!(allowed(&budgets, "p1"), [1]);
    budgets.disrupt(&key("p0"));
    assert_eq!(allowed(&budgets, "p1"), [0]);
    assert!(budgets.may_disrupt(&key("p1")).is_err());
    budgets.wait(&key("p1"), &budgets.may_disrupt(&key("p1")).unwrap_err());
    // Looked at before it is withdrawn, it stays down and wakes nobody.
    budgets.observe(&key("p0"), Some(seen(&labels("web"), Down)));
    assert!(budgets.take_woken().is_empty());
    // The promise is void: it serves after all.
    budgets.observe(&key("p0"), Some(seen(&labels("web"), Ready)));
    assert_eq!(budgets.take_woken(), [key("p1")].into());
    assert_eq!(allowed(&budgets, "p1"), [1]);
}

#[test]
fn what_a_workload_wants_counts_and_not_the_pods_that_there_are() {
    let namespace: Arc<str> = "default".into();
    let owner: Owner = "deployments/web".into();
    // Budget; wanted, pods, ready; expected, must be ready, may go.
    for (budget, (wanted, pods, ready), expected) in [
        ("maxUnavailable: 1", (4, 4, 4), (4, 3, 1)),
        // A pod that is missing is down.
        ("maxUnavailable: 1", (4, 3, 3), (4, 3, 0)),
        // One more than wanted, as in the middle of a rollout, lets one more go.
        ("maxUnavailable: 1", (4, 5, 5), (4, 3, 2)),
        ("maxUnavailable: 25%", (10, 8, 8), (10, 7, 1)),
        ("minAvailable: 50%", (10, 6, 6), (10, 5, 1)),
        // A number counts among the pods there are.
        ("minAvailable: 3", (10, 4, 4), (4, 3, 1)),
        // Of nothing that is wanted nothing is expected.
        ("maxUnavailable: 1", (0, 2, 2), (0, 0, 0)),
    ] {
        let mut budgets = over(budget, &[]);
        let labels = labels("web");
        for i in 0..pods {
            let now = Seen {
                labels: &labels,
                health: if i < ready { Ready } else { Unready },
                owner: Some(&owner),
            };
            budgets.observe(&key(&format!("p{i}")), Some(now));
            if i == 0 {
                budgets.set_scale(&namespace, &owner, Some(wanted));
            }
        }
        let counts = budgets.counts(&key("b")).unwrap();
        assert_eq!(
            (counts.expected, counts.desired, counts.allowed),
            expected,
            "{budget} {wanted} {pods} {ready}"
        );
        // Another budget that comes later counts the same.
        budgets.set(&key("later"), Budget::Is(Box::new(spec(budget))));
        assert_eq!(budgets.counts(&key("later")), Some(counts));
        // Nothing is left of workloads without pods.
        for i in 0..pods {
            budgets.observe(&key(&format!("p{i}")), None);
        }
        assert!(!budgets.has_owner("default", &owner) && budgets.owners().is_empty());
        assert_eq!(budgets.counts(&key("b")).unwrap().expected, 0);
    }
}

#[test]
fn a_workload_that_wants_less_lets_pods_go_that_wait() {
    let namespace: Arc<str> = "default".into();
    let owner: Owner = "replicasets/web".into();
    let mut budgets = over("maxUnavailable: 1", &[]);
    let labels = labels("web");
    let ready = Seen {
        labels: &labels,
        health: Ready,
        owner: Some(&owner),
    };
    for pod in ["p0", "p1", "p2"] {
        budgets.observe(&key(pod), Some(ready));
    }
    // Its scale is not known: its pods count.
    assert_eq!(budgets.counts(&key("b")).unwrap().expected, 3);
    budgets.set_scale(&namespace, &owner, Some(4));
    let blocked = budgets.may_disrupt(&key("p0")).unwrap_err();
    budgets.wait(&key("p0"), &blocked);
    budgets.set_scale(&namespace, &owner, Some(4));
    assert!(budgets.take_woken().is_empty());
    budgets.set_scale(&namespace, &owner, Some(3));
    assert_eq!(budgets.take_woken(), [key("p0")].into());
    assert_eq!(budgets.may_disrupt(&key("p0")), Ok(()));
    // It is gone: its pods count again, and those of no workload besides.
    budgets.set_scale(&namespace, &owner, None);
    budgets.observe(&key("alone"), Some(seen(&labels, Ready)));
    assert_eq!(budgets.counts(&key("b")).unwrap().expected, 4);
    // A pod that another workload takes over counts there.
    let other: Owner = "statefulsets/db".into();
    let taken = Seen {
        owner: Some(&other),
        ..ready
    };
    budgets.observe(&key("p0"), Some(taken));
    budgets.set_scale(&namespace, &other, Some(7));
    assert_eq!(budgets.counts(&key("b")).unwrap().expected, 3 + 7);
}

#[test]
fn workloads_may_want_more_together_than_a_number_can_say() {
    let namespace: Arc<str> = "default".into();
    let labels = labels("web");
    let owners: Vec<Owner> = (0..4).map(|i| format!("deployments/{i}").into()).collect();
    let wants = |budgets: &mut Budgets, i: usize| {
        let now = Seen {
            labels: &labels,
            health: Ready,
            owner: Some(&owners[i]),
        };
        budgets.observe(&key(&format!("p{i}")), Some(now));
        budgets.set_scale(&namespace, &owners[i], Some(2_000_000_000));
    };
    let mut budgets = over("maxUnavailable: 1", &[]);
    for i in 0..owners.len() {
        wants(&mut budgets, i);
    }
    let counts = budgets.counts(&key("b")).unwrap();
    assert_eq!((counts.expected, counts.allowed), (i32::MAX, 0));
    assert!(budgets.may_disrupt(&key("p0")).is_err());
    // Another budget counts the same, and one that is about percentages too.
    budgets.set(
        &key("half"),
        Budget::Is(Box::new(spec("minAvailable: 50%"))),
    );
    let half = budgets.counts(&key("half")).unwrap();
    assert_eq!((half.expected, half.allowed), (i32::MAX, 0));
    // Nothing is lost of the sum: what remains is right again, with a pod that goes and workloads that want less.
    budgets.observe(&key("p0"), None);
    for owner in &owners[1..3] {
        budgets.set_scale(&namespace, owner, None);
    }
    budgets.set_scale(&namespace, &owners[3], Some(1));
    for budget in ["b", "half"] {
        assert_eq!(budgets.counts(&key(budget)).unwrap().expected, 3);
    }
    assert_eq!(budgets.counts(&key("b")).unwrap().allowed, 1);
}

#[test]
fn evictions_are_allowed_as_kubernetes_own_tests_have_it() {
    let namespace: Arc<str> = "default".into();
    let owner: Owner = "replicasets/rs".into();
    // Budget; pods of nobody; what a ReplicaSet wants, how many of it run; whether one may go.
    for (budget, alone, (wanted, run), allowed) in [
        ("minAvailable: 2", 2, (0, 0), false),
        ("minAvailable: 2", 3, (0, 0), true),
        ("minAvailable: 3", 0, (3, 3), false),
        ("minAvailable: 90%", 0, (10, 10), true),
        // The rest finds no node.
        ("minAvailable: 90%", 0, (10, 6), false),
        ("maxUnavailable: 10%", 0, (10, 10), true),
        ("maxUnavailable: 1", 0, (10, 6), false),
        ("maxUnavailable: 0", 0, (3, 3), false),
    ] {
        let mut budgets = over(budget, &vec![Ready; alone]);
        let labels = labels("web");
        for i in 0..wanted {
            let now = Seen {
                labels: &labels,
                health: if i < run { Ready } else { Down },
                owner: Some(&owner),
            };
            budgets.observe(&key(&format!("p{i}")), Some(now));
        }
        budgets.set_scale(&namespace, &owner, Some(wanted));
        let may = budgets.may_disrupt(&key("p0")).is_ok();
        assert_eq!(may, allowed, "{budget}: {alone}, {run} of {wanted}");
    }
}

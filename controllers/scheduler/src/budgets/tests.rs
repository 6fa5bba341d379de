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

/// A budget over pods p0, p1, ... that are as given.
fn over(budget: &str, pods: &[PodHealth]) -> Budgets {
    let mut budgets = Budgets::default();
    assert!(budgets.set(&key("b"), Budget::Is(Box::new(spec(budget)))));
    for (i, health) in pods.iter().enumerate() {
        budgets.observe(&key(&format!("p{i}")), Some((&labels("web"), *health)));
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
    budgets.observe(&key("db"), Some((&labels("db"), Ready)));
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
    budgets.observe(&key("p0"), Some((&labels("web"), Ready)));
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
    budgets.observe(&key("other"), Some((&labels("db"), Ready)));
    assert_eq!(budgets.may_disrupt(&key("p0")), Ok(()));
    assert_eq!(budgets.of(&key("p0")).count(), 2);
    assert_eq!(budgets.of(&key("other")).count(), 1);
    // A changed label moves a pod to other budgets.
    budgets.observe(&key("other"), Some((&labels("web"), Ready)));
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
    budgets.observe(&key("p0"), Some((&labels("web"), Down)));
    assert!(budgets.take_woken().is_empty());
    // The promise is void: it serves after all.
    budgets.observe(&key("p0"), Some((&labels("web"), Ready)));
    assert_eq!(budgets.take_woken(), [key("p1")].into());
    assert_eq!(allowed(&budgets, "p1"), [1]);
}

//! Who gives way to whom: preemption, nomination, gangs, reservations, and what is told of it.

use std::collections::BTreeMap;

use setpoint_apis::core::PodSpec;
use setpoint_apis::{LabelSelector, ObjectKey};
use setpoint_scheduler_core::{
    BudgetState, Class, Cluster, Decision, NodeFacts, NodeImage, Part, PodAsk, PodRequest,
    Preemption, Profile, ReservationFacts, Strategy, Usage, Weights,
};

fn node(name: &str, cpu: &str) -> NodeFacts {
    NodeFacts {
        name: name.into(),
        labels: [("host".to_owned(), name.to_owned())].into(),
        drivers: vec!["hollow".into()],
        allocatable: [("cpu", cpu), ("memory", "64Gi"), ("pods", "110")]
            .map(|(k, v)| (k.to_owned(), v.parse().unwrap()))
            .into(),
        ..NodeFacts::default()
    }
}

fn cluster(nodes: &[(&str, &str)]) -> Cluster {
    let mut c = Cluster::new();
    for (name, cpu) in nodes {
        c.set_node(node(name, cpu));
    }
    c
}

fn class_with(
    c: &mut Cluster,
    cpu: &str,
    priority: i32,
    app: &str,
    more: &str,
    profile: Profile,
) -> Class {
    let yaml = format!(
        "containers: [{{name: a, image: host, resources: {{requests: {{cpu: {cpu}}}}}}}]\n{more}"
    );
    let spec: PodSpec = serde_yaml::from_str(&yaml).unwrap();
    c.class(&PodAsk {
        namespace: "default",
        labels: &BTreeMap::from([("app".to_owned(), app.to_owned())]),
        spec: &spec,
        priority,
        profile,
    })
}

fn class(c: &mut Cluster, cpu: &str, priority: i32) -> Class {
    class_with(c, cpu, priority, "x", "", Profile::default())
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

fn place(c: &mut Cluster, name: &str, node: &str, cpu: &str, priority: i32, since: i64) {
    let class = class(c, cpu, priority);
    c.place(&key(name), node, &class, since);
}

fn preempt(
    c: &mut Cluster,
    class: &Class,
    budgets: &dyn Fn(&ObjectKey) -> BudgetState,
) -> Option<Preemption> {
    c.preempt(
        &PodRequest {
            pod: key("preemptor"),
            class: class.clone(),
        },
        budgets,
    )
}

fn none(_: &ObjectKey) -> BudgetState {
    BudgetState::default()
}

fn schedule(c: &mut Cluster, name: &str, class: &Class) -> Option<String> {
    let request = PodRequest {
        pod: key(name),
        class: class.clone(),
    };
    match c.schedule(&[request], 0).remove(0) {
        Decision::Bind(b) => Some(b.node.to_string()),
        Decision::Unschedulable(_) => None,
    }
}

/// (what, the pods that are there as (name, node, cpu, priority, since), the node and the victims that are taken)
type Case<'a> = (
    &'a str,
    &'a [(&'a str, &'a str, &'a str, i32, i64)],
    Option<(&'a str, &'a [&'a str])>,
);

#[test]
fn victims_are_the_least_harm_and_none_too_many() {
    // Two nodes with 4 cores; the preemptor has priority 10 and wants 2.
    let cases: [Case<'_>; 10] = [
        (
            "equal priority stays",
            &[("p1", "a", "4", 10, 1), ("p2", "b", "4", 10, 1)],
            None,
        ),
        (
            "the lower highest victim",
            &[("p1", "a", "4", 5, 1), ("p2", "b", "4", 4, 1)],
            Some(("b", &["p2"])),
        ),
        (
            "the more important are kept first",
            &[
                ("p1", "a", "2", 5, 1),
                ("p2", "a", "2", 3, 1),
                ("p3", "b", "4", 9, 1),
            ],
            Some(("a", &["p2"])),
        ),
        (
            "of equal ones the older is kept",
            &[
                ("p1", "a", "2", 5, 1),
                ("p2", "a", "2", 5, 2),
                ("p3", "b", "4", 9, 1),
            ],
            Some(("a", &["p2"])),
        ),
        (
            "both when one is not enough",
            &[
                ("p1", "a", "1", 5, 1),
                ("p2", "a", "1", 3, 1),
                ("p3", "a", "2", 20, 1),
                ("p4", "b", "4", 20, 1),
            ],
            Some(("a", &["p1", "p2"])),
        ),
        (
            "a small one does not go when the big one must",
            &[
                ("p1", "a", "3", 5, 1),
                ("p2", "a", "1", 1, 1),
                ("p3", "b", "4", 20, 1),
            ],
            Some(("a", &["p1"])),
        ),
        (
            "fewer when the most important are alike",
            &[
                ("p1", "a", "1", 5, 1),
                ("p2", "a", "1", 5, 1),
                ("p3", "a", "2", 20, 1),
                ("p4", "b", "4", 5, 1),
            ],
            Some(("b", &["p4"])),
        ),
        (
            "then the newer",
            &[("p1", "a", "4", 5, 1), ("p2", "b", "4", 5, 2)],
            Some(("b", &["p2"])),
        ),
        (
            "a less important second one is better than an important one",
            &[
                ("p1", "a", "1", 5, 1),
                ("p2", "a", "1", 1, 1),
                ("p3", "a", "2", 20, 1),
                ("p4", "b", "4", 6, 1),
            ],
            Some(("a", &["p1", "p2"])),
        ),
        (
            "nothing fits even alone",
            &[("p1", "a", "3", 10, 1), ("p2", "b", "4", 10, 1)],
            None,
        ),
    ];
    for (what, there, want) in cases {
        let mut c = cluster(&[("a", "4"), ("b", "4")]);
        for (name, node, cpu, priority, since) in there {
            place(&mut c, name, node, cpu, *priority, *since);
        }
        let high = class(&mut c, "2", 10);
        assert_eq!(schedule(&mut c, "preemptor", &high), None, "{what}");
        let placed = c.placed_count();
        let found = preempt(&mut c, &high, &none);
        assert_eq!(c.placed_count(), placed, "nothing changes: {what}");
        let want = want.map(|(node, victims)| {
            (
                node.to_owned(),
                victims.iter().map(|v| key(v)).collect::<Vec<_>>(),
            )
        });
        assert_eq!(
            found
                .as_ref()
                .map(|f| (f.node.to_string(), f.victims.clone())),
            want,
            "{what}"
        );
        assert_eq!(c.explain(&high).preemption, Some(want.is_some()), "{what}");
        let never = class_with(
            &mut c,
            "2",
            10,
            "x",
            "preemptionPolicy: Never",
            Profile::default(),
        );
        assert_eq!(preempt(&mut c, &never, &none), None, "{what}");
    }
}

#[test]
fn budgets_are_kept_where_that_is_possible() {
    let guarded = |names: &'static [&'static str], allowed: u32| {
        move |pod: &ObjectKey| BudgetState {
            budgets: if names.contains(&&*pod.name) {
                vec![(key("budget"), allowed)]
            } else {
                Vec::new()
            },
        }
    };
    let mut c = cluster(&[("a", "4"), ("b", "4")]);
    place(&mut c, "p1", "a", "4", 1, 1);
    place(&mut c, "p2", "b", "4", 9, 1);
    let high = class(&mut c, "2", 10);
    let take = |c: &mut Cluster, budgets: &dyn Fn(&ObjectKey) -> BudgetState| {
        let found = preempt(c, &high, budgets).unwrap();
        let names: Vec<_> = found.victims.iter().map(|v| v.name.to_string()).collect();
        (names.join(" "), found.violations)
    };
    assert_eq!(take(&mut c, &none), ("p1".into(), 0));
    assert_eq!(
        take(&mut c, &guarded(&["p1"], 1)),
        ("p1".into(), 0),
        "one may go"
    );
    assert_eq!(
        take(&mut c, &guarded(&["p1"], 0)),
        ("p2".into(), 0),
        "rather a more important one"
    );
    assert_eq!(
        take(&mut c, &guarded(&["p1", "p2"], 0)),
        ("p1".into(), 1),
        "when it cannot be helped"
    );
    // On one node, the protected ones are kept first.
    let mut c = cluster(&[("a", "4")]);
    place(&mut c, "p1", "a", "2", 5, 1);
    place(&mut c, "p2", "a", "2", 3, 1);
    let high = class(&mut c, "2", 10);
    let found = preempt(&mut c, &high, &guarded(&["p2"], 0)).unwrap();
    assert_eq!((found.victims, found.violations), (vec![key("p1")], 0));
    // A budget that allows one is spent by the first.
    let high = class(&mut c, "4", 10);
    let found = preempt(&mut c, &high, &guarded(&["p1", "p2"], 1)).unwrap();
    assert_eq!(
        (found.victims, found.violations),
        (vec![key("p1"), key("p2")], 1)
    );
}

#[test]
fn victims_can_be_those_that_keep_a_pod_out_by_their_relations() {
    let away = "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {app: x}}, topologyKey: host}]}}";
    let near = away
        .replace("podAntiAffinity", "podAffinity")
        .replace("app: x", "app: y");
    let mut c = cluster(&[("a", "4")]);
    place(&mut c, "p1", "a", "1", 5, 1);
    let other = class_with(&mut c, "1", 5, "y", "", Profile::default());
    c.place(&key("p2"), "a", &other, 1);
    let lonely = class_with(&mut c, "1", 10, "z", away, Profile::default());
    assert_eq!(
        preempt(&mut c, &lonely, &none).unwrap().victims,
        [key("p1")],
        "p2 is not in the way"
    );
    // As in Kubernetes, pods that it must be near are no victims, and stand in the way of taking others beside them.
    let social = class_with(&mut c, "3", 10, "z", &near, Profile::default());
    assert_eq!(preempt(&mut c, &social, &none), None);
    // Nor does a pod with anti-affinity that is there stay in the way.
    let hermit = class_with(
        &mut c,
        "1",
        1,
        "y",
        &away.replace("app: x", "app: z"),
        Profile::default(),
    );
    c.place(&key("p3"), "a", &hermit, 1);
    let z = class_with(&mut c, "1", 10, "z", "", Profile::default());
    assert_eq!(preempt(&mut c, &z, &none).unwrap().victims, [key("p3")]);
    // Ports.
    let port = "hostNetwork: true";
    let mut c = cluster(&[("a", "4")]);
    let with_port = |c: &mut Cluster, priority| {
        let yaml = format!(
            "containers: [{{name: a, image: host, ports: [{{containerPort: 80}}]}}]\n{port}"
        );
        let spec: PodSpec = serde_yaml::from_str(&yaml).unwrap();
        c.class(&PodAsk {
            namespace: "default",
            labels: &BTreeMap::new(),
            spec: &spec,
            priority,
            profile: Profile::default(),
        })
    };
    let low = with_port(&mut c, 0);
    c.place(&key("p1"), "a", &low, 1);
    place(&mut c, "p2", "a", "1", 0, 1);
    let high = with_port(&mut c, 1);
    assert!(!c.has_room(&high));
    assert_eq!(preempt(&mut c, &high, &none).unwrap().victims, [key("p1")]);
}

#[test]
fn a_nominated_place_is_kept_from_all_but_the_more_important() {
    let mut c = cluster(&[("a", "4")]);
    place(&mut c, "low", "a", "4", 0, 1);
    let (high, mid, top) = (
        class(&mut c, "4", 10),
        class(&mut c, "2", 10),
        class(&mut c, "4", 20),
    );
    let found = preempt(&mut c, &high, &none).unwrap();
    c.nominate(&key("high"), &found.node, &high, &found.victims);
    assert_eq!(c.nominated(&key("high")).map(|n| &**n), Some("a"));
    assert!(!c.nominated_fits(&key("high")), "the victim is still there");
    assert_eq!(c.placed(&key("high")), None);
    c.forget(&key("low"));
    assert!(c.nominated_fits(&key("high")));
    assert!(!c.has_room(&mid), "equal priority may not");
    assert!(c.has_room(&top), "a higher one may");
    assert_eq!(schedule(&mut c, "top", &top).as_deref(), Some("a"));
    assert!(!c.nominated_fits(&key("high")), "the place was taken");
    c.forget(&key("top"));
    c.place(&key("high"), "a", &high, 5);
    assert_eq!(c.nominated(&key("high")), None);
    assert_eq!(c.placed_count(), 1);
    // Undone by forget.
    c.forget(&key("high"));
    c.nominate(&key("high"), "a", &high, &[]);
    assert!(!c.has_room(&mid));
    assert!(c.forget(&key("high")));
    assert!(c.has_room(&mid));
}

#[test]
fn victims_that_leave_already_are_not_taken_twice() {
    let mut c = cluster(&[("a", "4"), ("b", "4")]);
    place(&mut c, "p1", "a", "4", 0, 1);
    place(&mut c, "p2", "b", "4", 1, 1);
    let high = class(&mut c, "2", 10);
    let first = preempt(&mut c, &high, &none).unwrap();
    assert_eq!(first.victims, [key("p1")]);
    c.nominate(&key("h1"), &first.node, &high, &first.victims);
    let second = preempt(&mut c, &high, &none).unwrap();
    assert_eq!(
        (&*second.node, second.victims.len()),
        ("a", 0),
        "there is room beside the first when p1 is gone"
    );
    c.nominate(&key("h2"), &second.node, &high, &second.victims);
    let third = preempt(&mut c, &high, &none).unwrap();
    assert_eq!(third.victims, [key("p2")]);
}

#[test]
fn pods_that_leave_for_whatever_reason_cost_nothing_until_they_stay_after_all() {
    let mut c = cluster(&[("a", "4"), ("b", "4")]);
    place(&mut c, "p1", "a", "4", 9, 1);
    place(&mut c, "p2", "b", "4", 0, 1);
    let high = class(&mut c, "4", 10);
    c.set_leaving(&key("p1"), true);
    let found = preempt(&mut c, &high, &none).unwrap();
    assert_eq!((&*found.node, found.victims.len()), ("a", 0));
    // A nomination that comes and goes takes nothing of that away.
    c.nominate(&key("h"), "a", &high, &[key("p1")]);
    c.forget(&key("h"));
    let found = preempt(&mut c, &high, &none).unwrap();
    assert_eq!((&*found.node, found.victims.len()), ("a", 0));
    c.set_leaving(&key("p1"), false);
    let found = preempt(&mut c, &high, &none).unwrap();
    assert_eq!(found.victims, [key("p2")]);
    c.set_leaving(&key("nobody"), true);
}

#[test]
fn a_nominated_pod_counts_for_the_relations_of_others() {
    let away = "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {app: x}}, topologyKey: host}]}}";
    let mut c = cluster(&[("a", "4")]);
    let plain = class(&mut c, "1", 5);
    c.nominate(&key("n"), "a", &plain, &[]);
    let alone =
        |c: &mut Cluster, priority| class_with(c, "1", priority, "y", away, Profile::default());
    let (equal, higher) = (alone(&mut c, 5), alone(&mut c, 6));
    assert!(!c.has_room(&equal));
    assert!(c.has_room(&higher));
    c.forget(&key("n"));
    c.nominate(&key("n"), "a", &equal, &[]);
    assert!(!c.has_room(&plain), "its anti-affinity counts as well");
}

#[test]
fn gangs_run_together_or_not_at_all() {
    let mut c = cluster(&[("a", "4"), ("b", "2")]);
    let two = class(&mut c, "2", 0);
    let gang = |n: usize, class: &Class| -> Vec<PodRequest> {
        (0..n)
            .map(|i| PodRequest {
                pod: key(&format!("g{i}")),
                class: class.clone(),
            })
            .collect()
    };
    place(&mut c, "g0", "b", "1", 0, 3);
    let before = (c.placed(&key("g0")).map(|p| p.0.clone()), c.placed_count());
    let why = c.schedule_gang(&gang(4, &two), 4, 1).unwrap_err();
    assert_eq!(why.gang, Some((3, 4)));
    assert_eq!(
        (c.placed(&key("g0")).map(|p| p.0.clone()), c.placed_count()),
        before
    );
    let spec = PodSpec::default();
    assert!(
        why.message(&spec)
            .starts_with("3 of the 4 pods that must run together fit"),
        "{}",
        why.message(&spec)
    );
    c.forget(&key("g0"));
    let decisions = c.schedule_gang(&gang(4, &two), 3, 1).unwrap();
    let bound = decisions
        .iter()
        .filter(|d| matches!(d, Decision::Bind(_)))
        .count();
    assert_eq!(
        (decisions.len(), bound, c.placed_count()),
        (4, 3, 3),
        "as many as fit"
    );
    // Small ones first would leave no room for the big one.
    let mut c = cluster(&[("a", "4"), ("b", "2")]);
    let (small, big) = (class(&mut c, "2", 0), class(&mut c, "4", 0));
    let requests = [("s", &small), ("b", &big)].map(|(n, class)| PodRequest {
        pod: key(n),
        class: class.clone(),
    });
    assert!(c.schedule_gang(&requests, 2, 1).is_ok());
    assert!(c.schedule_gang(&[], 1, 1).is_err());
}

#[test]
fn reserved_room_is_for_its_owners_who_draw_it_down() {
    let mut c = cluster(&[("a", "4")]);
    let facts = ReservationFacts {
        key: key("r"),
        owner: LabelSelector::labels([("app".to_owned(), "owner".to_owned())].into()),
        namespaces: vec!["default".into()],
        resources: [("cpu".to_owned(), "3".parse().unwrap())].into(),
        node: Some("a".into()),
    };
    let owner = |c: &mut Cluster, cpu: &str| class_with(c, cpu, 0, "owner", "", Profile::default());
    let (other, more) = (class(&mut c, "1", 0), class(&mut c, "2", 0));
    let (owner2, owner4) = (owner(&mut c, "2"), owner(&mut c, "4"));
    assert!(c.set_reservation(facts.clone()) && !c.set_reservation(facts.clone()));
    assert!(c.has_room(&other) && !c.has_room(&more));
    assert!(c.explain(&more).helps().room);
    assert!(c.has_room(&owner4), "owners may use all of it");
    c.place(&key("o"), "a", &owner2, 0);
    assert!(
        c.has_room(&other) && !c.has_room(&more),
        "2 used, 1 still held"
    );
    c.place(&key("p"), "a", &other, 0);
    assert!(!c.has_room(&other));
    c.forget(&key("o"));
    assert!(!c.has_room(&other), "held again");
    assert!(c.set_reservation(ReservationFacts {
        node: None,
        ..facts
    }));
    assert!(c.has_room(&more), "it has no place");
    assert!(c.remove_reservation(&key("r")) && !c.remove_reservation(&key("r")));
}

#[test]
fn profiles_say_what_is_good_about_a_node() {
    let strategy = |strategy| Profile {
        strategy,
        ..Profile::default()
    };
    let mut c = cluster(&[("a", "8"), ("b", "8")]);
    place(&mut c, "p", "a", "2", 0, 0);
    let least = class_with(&mut c, "1", 0, "x", "", strategy(Strategy::LeastAllocated));
    let most = class_with(&mut c, "1", 0, "x", "", strategy(Strategy::MostAllocated));
    assert_ne!(least, most);
    assert_eq!(c.breakdown(&least, 1)[0].node, "b".into());
    assert_eq!(c.breakdown(&most, 1)[0].node, "a".into());
    // Memory and cpu used alike: 8 cores and 64Gi; 1 core goes with 8Gi.
    let mut c = cluster(&[("a", "8"), ("b", "8")]);
    let thirsty = class_with(
        &mut c,
        "1",
        0,
        "x",
        "overhead: {memory: 24Gi}",
        Profile::default(),
    );
    c.place(&key("m"), "a", &thirsty, 0);
    let balanced = class_with(&mut c, "2", 0, "x", "", strategy(Strategy::Balanced));
    assert_eq!(c.breakdown(&balanced, 1)[0].node, "a".into());
    // A weight of nothing takes the part away.
    let weights = Weights {
        resources: 0,
        ..Weights::default()
    };
    let blind = class_with(
        &mut c,
        "1",
        0,
        "x",
        "",
        Profile {
            weights,
            ..Profile::default()
        },
    );
    assert!(
        c.breakdown(&blind, 9)
            .iter()
            .all(|s| s.parts[&Part::Resources] == 0)
    );
}

#[test]
fn measured_use_counts_where_it_is_more_than_what_is_requested() {
    let mut c = cluster(&[("a", "8"), ("b", "8")]);
    let small = class(&mut c, "1", 0);
    let busy = Usage {
        cpu_milli: 6000,
        memory_bytes: 1 << 30,
    };
    assert!(
        !c.set_node(NodeFacts {
            usage: Some(busy),
            ..node("a", "8")
        }),
        "no pod is let in or kept off by it"
    );
    assert_eq!(c.breakdown(&small, 1)[0].node, "b".into());
    place(&mut c, "p", "b", "7", 0, 0);
    assert_eq!(
        c.breakdown(&small, 1)[0].node,
        "a".into(),
        "7 requested are more than 6 used"
    );
    let eight = class(&mut c, "8", 0);
    assert!(c.has_room(&eight), "what is used is no request");
    c.set_node(node("a", "8"));
    let scores = c.breakdown(&small, 2);
    assert_eq!(
        scores[0].parts[&Part::Resources],
        9359,
        "stale use does not count: {scores:?}"
    );
}

#[test]
fn images_that_are_there_count_by_size_and_by_how_many_nodes_have_them() {
    let image = |mib: u64| NodeImage {
        names: vec!["registry.example/app:latest".into()],
        bytes: mib << 20,
    };
    let mut c = cluster(&[("a", "8"), ("b", "8"), ("c", "8")]);
    c.set_node(NodeFacts {
        images: vec![image(900)],
        ..node("a", "8")
    });
    c.set_node(NodeFacts {
        images: vec![image(200)],
        ..node("b", "8")
    });
    let spec: PodSpec =
        serde_yaml::from_str("containers: [{name: a, image: registry.example/app}]").unwrap();
    let class = c.class(&PodAsk {
        namespace: "default",
        labels: &BTreeMap::new(),
        spec: &spec,
        priority: 0,
        profile: Profile::default(),
    });
    let parts = |c: &mut Cluster| {
        let all = c.breakdown(&class, 9);
        ["a", "b", "c"]
            .map(|n| all.iter().find(|s| *s.node == *n).unwrap().parts[&Part::ImageLocality])
    };
    let [a, b, none] = parts(&mut c);
    assert!(a > b && b > none && none == 0, "{a} {b} {none}");
    c.set_node(NodeFacts {
        images: vec![image(900)],
        ..node("c", "8")
    });
    let [more, _, same] = parts(&mut c);
    assert!(
        more > a && more == same,
        "the more nodes have it, the more it counts"
    );
}

#[test]
fn near_misses_are_told_with_what_is_missing() {
    let mut c = cluster(&[("n7", "2"), ("n8", "1")]);
    for n in ["t1", "t2", "t3"] {
        let taint =
            serde_yaml::from_str("{key: dedicated, value: gpu, effect: NoSchedule}").unwrap();
        c.set_node(NodeFacts {
            taints: vec![taint],
            ..node(n, "8")
        });
    }
    c.set_node(NodeFacts {
        unschedulable: true,
        ..node("cordoned", "1")
    });
    let class = class(&mut c, "2200m", 0);
    let why = c.explain(&class);
    let told = why.nearest(&PodSpec::default());
    let told: Vec<_> = told.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "3 nodes would fit without taint dedicated=gpu",
            "n7 would fit with 200m cpu less requested"
        ]
    );
    assert!(
        !why.helps().room,
        "no pod that leaves makes a node bigger: {why:?}"
    );
    assert_eq!(why.preemption, Some(false));
}

#[test]
fn the_same_calls_give_the_same_decisions() {
    let run = || {
        let mut c = cluster(&[("a", "40"), ("b", "40"), ("c", "40"), ("d", "40")]);
        let away = "affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 9, podAffinityTerm: {labelSelector: {}, topologyKey: host}}]}}";
        let classes = [
            class(&mut c, "1", 0),
            class_with(&mut c, "1", 3, "y", away, Profile::default()),
        ];
        let requests: Vec<_> = (0..100)
            .map(|p| PodRequest {
                pod: key(&format!("p{p}")),
                class: classes[p % 2].clone(),
            })
            .collect();
        format!("{:?}", c.schedule(&requests, 7))
    };
    assert_eq!(run(), run());
}

#[test]
fn absurd_input_costs_little_and_is_told() {
    let mut c = Cluster::new();
    let labels = (0..200_000)
        .map(|n| (format!("l{n}"), "v".to_owned()))
        .collect();
    c.set_node(NodeFacts {
        labels,
        ..node("wide", "4")
    });
    let spread = "topologySpreadConstraints: [{maxSkew: -3, minDomains: -1, topologyKey: l7, whenUnsatisfiable: DoNotSchedule, labelSelector: {}}, {maxSkew: 2147483647, topologyKey: nowhere, whenUnsatisfiable: ScheduleAnyway, labelSelector: {}}]";
    let class_spread = class_with(&mut c, "1", i32::MIN, "x", spread, Profile::default());
    assert!(c.has_room(&class_spread));
    let contradiction = "affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {app: x}}, topologyKey: l1}]}, podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {app: x}}, topologyKey: l1}]}}";
    let class = class_with(
        &mut c,
        "1",
        i32::MAX,
        "x",
        contradiction,
        Profile::default(),
    );
    assert_eq!(
        schedule(&mut c, "first", &class).as_deref(),
        Some("wide"),
        "the first has nobody to avoid"
    );
    assert_eq!(schedule(&mut c, "second", &class), None);
    let why = c.explain(&class);
    assert!(
        why.message(&PodSpec::default()).contains("anti-affinity"),
        "{why:?}"
    );
    let weights = Weights {
        resources: i32::MAX,
        spread: i32::MIN,
        ..Weights::default()
    };
    let heavy = class_with(
        &mut c,
        "1",
        0,
        "x",
        spread,
        Profile {
            weights,
            ..Profile::default()
        },
    );
    assert!(
        schedule(&mut c, "third", &heavy).is_none(),
        "it is kept away by the first"
    );
}

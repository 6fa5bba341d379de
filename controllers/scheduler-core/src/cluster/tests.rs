mod random;

use rustc_hash::FxHashSet;
use setpoint_apis::core::{PodSpec, Taint};

use super::*;
use crate::{Helps, NotReady, Pin, PodAsk, Profile, Reason};

fn class_of(c: &mut Cluster, spec: &PodSpec) -> Class {
    c.class(&PodAsk {
        namespace: "default",
        labels: &BTreeMap::new(),
        spec,
        priority: 0,
        profile: Profile::default(),
    })
}

fn node(name: &str, cpu: &str) -> NodeFacts {
    let amounts = [("cpu", cpu), ("memory", "8Gi"), ("pods", "10")];
    NodeFacts {
        name: name.into(),
        session: 7,
        allocatable: amounts
            .map(|(k, v)| (k.to_owned(), v.parse().unwrap()))
            .into(),
        drivers: vec!["process".into()],
        ..NodeFacts::default()
    }
}

fn spec(yaml: &str) -> PodSpec {
    serde_yaml::from_str(yaml).unwrap()
}

/// A spec of one host container that asks for `cpu`, with more fields.
fn asks(cpu: &str, more: &str) -> PodSpec {
    spec(&format!(
        "containers: [{{name: a, image: host, resources: {{requests: {{cpu: {cpu}}}}}}}]\n{more}"
    ))
}

fn pod(n: usize) -> ObjectKey {
    ObjectKey::namespaced("default", format!("p{n}"))
}

fn schedule(c: &mut Cluster, n: usize, spec: &PodSpec) -> Result<String, String> {
    let class = class_of(c, spec);
    match c
        .schedule(&[PodRequest { pod: pod(n), class }], 1)
        .remove(0)
    {
        Decision::Bind(p) => Ok(p.node.to_string()),
        Decision::Unschedulable(u) => Err(u.message(spec)),
    }
}

fn cluster(nodes: impl IntoIterator<Item = NodeFacts>) -> Cluster {
    let mut c = Cluster::new();
    for n in nodes {
        c.set_node(n);
    }
    c
}

#[test]
fn pods_are_spread_by_free_share_and_wait_when_nothing_is_left() {
    let mut c = cluster([node("a", "2"), node("b", "4")]);
    let s = asks("1", "");
    let nodes: Vec<_> = (0..6).map(|n| schedule(&mut c, n, &s).unwrap()).collect();
    assert_eq!(nodes.iter().filter(|n| *n == "a").count(), 2);
    assert_eq!(nodes[0], "b", "a quarter of it is used, not half");
    assert_eq!(
        schedule(&mut c, 6, &s).unwrap_err(),
        "0/2 nodes are available: 2 Insufficient cpu."
    );
    assert!(c.forget(&pod(0)));
    assert_eq!(schedule(&mut c, 6, &s).as_deref(), Ok("b"));
}

#[test]
fn the_message_counts_nodes_by_reason_in_kubernetes_words() {
    let mut tainted = node("a", "4");
    tainted.taints.push(Taint {
        key: "dedicated".into(),
        value: Some("gpu".into()),
        ..Taint::default()
    });
    let mut c = cluster([tainted, node("b", "1"), node("c", "1")]);
    assert_eq!(
        schedule(&mut c, 0, &asks("2", "")).unwrap_err(),
        "0/3 nodes are available: 1 node(s) had untolerated taint {dedicated: gpu}, 2 Insufficient cpu."
    );
    assert_eq!(
        schedule(&mut Cluster::new(), 0, &asks("1", "")).unwrap_err(),
        "no nodes available to schedule pods"
    );
}

#[test]
fn a_container_image_waits_for_a_node_that_runs_images_and_says_so() {
    let mut c = cluster(["a", "b", "c"].map(|n| node(n, "1")));
    let nginx = spec("containers: [{name: a, image: nginx}]");
    assert_eq!(
        schedule(&mut c, 0, &nginx).unwrap_err(),
        "0/3 nodes are available: 3 node(s) cannot run container images. \
         image \"nginx\" needs a node that runs container images; none of 3 does."
    );
    for (driver, runs_host) in [("cri", false), ("oci", false), ("hollow", true)] {
        let mut only = cluster([NodeFacts {
            drivers: vec![driver.into()],
            ..node("d", "4")
        }]);
        assert_eq!(
            schedule(&mut only, 0, &nginx).as_deref(),
            Ok("d"),
            "{driver}"
        );
        assert_eq!(
            schedule(&mut only, 1, &asks("1", "")).is_ok(),
            runs_host,
            "{driver}"
        );
    }
}

#[test]
fn each_filter_keeps_pods_away_and_lets_the_right_ones_in() {
    let labelled = |n: &str, zone: &str| NodeFacts {
        labels: [("zone".into(), zone.into())].into(),
        ..node(n, "4")
    };
    let tainted = |effect: &str| NodeFacts {
        taints: vec![
            serde_yaml::from_str(&format!("{{key: k, value: v, effect: {effect}}}")).unwrap(),
        ],
        ..node("t", "4")
    };
    let cordoned = NodeFacts {
        unschedulable: true,
        ..node("c", "4")
    };
    let lost = NodeFacts {
        not_ready: Some(NotReady::Lost),
        ..node("l", "4")
    };
    let gpu = NodeFacts {
        allocatable: [
            ("example.com/gpu", "1"),
            ("cpu", "4"),
            ("memory", "1Gi"),
            ("pods", "9"),
        ]
        .map(|(k, v)| (k.to_owned(), v.parse().unwrap()))
        .into(),
        ..node("g", "4")
    };
    let selector = "nodeSelector: {zone: x}";
    let affinity = "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: In, values: [x, y]}]}]}}}";
    let pinned = "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [c]}]}]}}}";
    let tolerate = "tolerations: [{key: k, operator: Exists}]";
    for (facts, more, fits) in [
        (labelled("n", "x"), selector, true),
        (labelled("n", "y"), selector, false),
        (node("n", "4"), selector, false),
        (labelled("n", "y"), affinity, true),
        (labelled("n", "z"), affinity, false),
        (tainted("NoSchedule"), "", false),
        (tainted("NoExecute"), "", false),
        (tainted("PreferNoSchedule"), "", true),
        (tainted("NoSchedule"), tolerate, true),
        (tainted("NoExecute"), tolerate, true),
        (tainted("NoSchedule"), "nodeName: t", true),
        (tainted("NoExecute"), "nodeName: t", false),
        (cordoned.clone(), "", false),
        (cordoned.clone(), "nodeName: c", true),
        (cordoned.clone(), pinned, false),
        (node("c", "4"), pinned, true),
        (node("d", "4"), pinned, false),
        (
            cordoned,
            "tolerations: [{key: node.kubernetes.io/unschedulable, operator: Exists}]",
            true,
        ),
        (lost.clone(), "", false),
        (lost, "nodeName: l", false),
        (node("n", "4"), "nodeName: other", false),
        (gpu.clone(), "overhead: {example.com/gpu: 1}", true),
        (gpu, "overhead: {example.com/gpu: 2}", false),
    ] {
        let mut c = cluster([facts.clone()]);
        assert_eq!(
            schedule(&mut c, 0, &asks("1", more)).is_ok(),
            fits,
            "{facts:?} {more}"
        );
    }
}

#[test]
fn a_pod_whose_claim_is_placed_goes_to_that_node_or_waits_and_says_so() {
    let mut c = cluster([node("a", "1"), node("b", "4")]);
    let s = asks("1", "");
    let pin = Pin {
        claim: "data".into(),
        node: "a".into(),
    };
    let place = |c: &mut Cluster, n: usize| {
        let ask = PodAsk {
            namespace: "default",
            labels: &BTreeMap::new(),
            spec: &s,
            priority: 0,
            profile: Profile::default(),
        };
        let class = c.class_pinned(&ask, Some(&pin));
        let pod = pod(n);
        match c.schedule(&[PodRequest { pod, class }], 1).remove(0) {
            Decision::Bind(p) => Ok(p.node.to_string()),
            Decision::Unschedulable(u) => Err((u.message(&s), u.helps())),
        }
    };
    assert_eq!(place(&mut c, 0), Ok("a".into()), "though b has more room");
    let (message, helps) = place(&mut c, 1).unwrap_err();
    assert_eq!(
        message,
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) refused: volume claim data is on node a."
    );
    assert!(helps.room, "the pod there may leave");
    c.remove_node("a");
    let (message, helps) = place(&mut c, 1).unwrap_err();
    assert_eq!(
        message,
        "0/1 nodes are available: 1 node(s) refused: volume claim data is on node a."
    );
    assert!(helps.nodes && !helps.room, "only the node can help");
}

#[test]
fn preferences_outweigh_free_room_and_avoided_nodes_come_last() {
    let avoided: Taint = serde_yaml::from_str("{key: k, effect: PreferNoSchedule}").unwrap();
    let mut c = cluster([
        NodeFacts {
            taints: vec![avoided],
            ..node("avoided", "100")
        },
        NodeFacts {
            labels: [("disk".into(), "ssd".into())].into(),
            ..node("preferred", "2")
        },
        node("roomy", "50"),
    ]);
    let s = asks(
        "1",
        "affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchExpressions: [{key: disk, operator: Exists}]}}]}}",
    );
    let first: Vec<_> = (0..3).map(|n| schedule(&mut c, n, &s).unwrap()).collect();
    assert_eq!(first, ["preferred", "preferred", "roomy"]);
    c.remove_node("roomy");
    assert_eq!(schedule(&mut c, 3, &s).as_deref(), Ok("avoided"));
}

#[test]
fn pods_that_ask_for_nothing_are_spread_even_where_they_over_fill() {
    let mut c = cluster(["a", "b", "c"].map(|n| {
        NodeFacts {
            allocatable: [("cpu", "200m"), ("memory", "500Mi"), ("pods", "110")]
                .map(|(k, v)| (k.to_owned(), v.parse().unwrap()))
                .into(),
            ..node(n, "0")
        }
    }));
    let s = spec("containers: [{name: a, image: host}]");
    let mut counts = std::collections::BTreeMap::new();
    for n in 0..90 {
        *counts.entry(schedule(&mut c, n, &s).unwrap()).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [30, 30, 30]);
}

#[test]
fn ties_are_broken_by_seed_and_pod_alone() {
    let place = |seed, n| {
        let mut c = cluster((0..50).map(|i| node(&format!("n{i}"), "4")));
        let class = class_of(&mut c, &asks("1", ""));
        c.schedule(&[PodRequest { pod: pod(n), class }], seed)
            .remove(0)
    };
    assert_eq!(place(1, 1), place(1, 1));
    let by_pod: FxHashSet<_> = (0..20).map(|n| format!("{:?}", place(1, n))).collect();
    let by_seed: FxHashSet<_> = (0..20).map(|s| format!("{:?}", place(s, 1))).collect();
    assert!(by_pod.len() > 5 && by_seed.len() > 5);
}

#[test]
fn a_placement_tells_what_it_was_chosen_from() {
    let mut c = cluster([
        node("a", "4"),
        node("b", "2"),
        NodeFacts {
            unschedulable: true,
            ..node("c", "9")
        },
    ]);
    let class = class_of(&mut c, &asks("1", "overhead: {memory: 4Gi}"));
    let Decision::Bind(p) = c
        .schedule(&[PodRequest { pod: pod(0), class }], 0)
        .remove(0)
    else {
        panic!()
    };
    assert_eq!(
        (&*p.node, p.session, p.nodes, p.feasible, p.score),
        ("a", 7, 3, 2, 6250)
    );
    assert_eq!(
        p.runner_up,
        Some(RunnerUp {
            node: "b".into(),
            score: 5000,
            lost: Some(Part::Resources)
        })
    );
}

#[test]
fn a_removed_node_keeps_its_pods_counted_until_they_are_forgotten() {
    let mut c = cluster([node("a", "1")]);
    let s = asks("1", "");
    assert!(schedule(&mut c, 0, &s).is_ok());
    assert!(c.remove_node("a") && !c.remove_node("a"));
    assert!(schedule(&mut c, 1, &s).is_err());
    assert!(c.set_node(node("a", "1")));
    assert!(schedule(&mut c, 1, &s).is_err(), "p0 is still there");
    assert!(c.forget(&pod(0)));
    assert!(schedule(&mut c, 1, &s).is_ok());
}

#[test]
fn what_can_help_follows_from_the_reasons() {
    let mut c = cluster([node("a", "2")]);
    assert!(schedule(&mut c, 0, &asks("1", "")).is_ok());
    let cases = [
        ("2", "", true, "the pod that is there can go"),
        ("3", "", false, "no pod that goes makes the node bigger"),
        ("1", "nodeSelector: {a: b}", false, "nor gives it a label"),
    ];
    for (cpu, more, room, why) in cases {
        let class = class_of(&mut c, &asks(cpu, more));
        assert!(!c.has_room(&class));
        let helps = Helps {
            nodes: true,
            room,
            ..Helps::default()
        };
        assert_eq!(c.explain(&class).helps(), helps, "{why}");
    }
    let class = class_of(&mut c, &asks("2", ""));
    c.set_node(node("b", "2"));
    assert!(c.has_room(&class));
}

#[test]
fn setting_the_same_facts_again_is_no_change_and_a_new_session_is_taken_over() {
    let mut c = cluster([node("a", "1")]);
    assert!(!c.set_node(node("a", "1")));
    assert!(!c.set_node(NodeFacts {
        session: 9,
        ..node("a", "1")
    }));
    let class = class_of(&mut c, &asks("1", ""));
    let Decision::Bind(p) = c
        .schedule(&[PodRequest { pod: pod(0), class }], 0)
        .remove(0)
    else {
        panic!()
    };
    assert_eq!(p.session, 9);
}

#[test]
fn classes_that_nobody_uses_are_forgotten() {
    let mut c = cluster([node("a", "1")]);
    let kept = class_of(&mut c, &asks("7m", ""));
    for n in 0..5000 {
        let class = class_of(&mut c, &asks(&format!("{n}m"), "nodeSelector: {x: y}"));
        assert!(!c.has_room(&class));
    }
    assert!(c.class_count() < 600, "{}", c.class_count());
    assert!(c.shapes.len() < 600);
    assert_eq!(class_of(&mut c, &asks("7m", "")), kept);
}

#[test]
fn absurd_amounts_neither_fit_nor_overflow() {
    let mut c = cluster([node("a", "4")]);
    for absurd in ["9223372036854775807", "1e30", "100E"] {
        assert!(schedule(&mut c, 0, &asks(absurd, "")).is_err(), "{absurd}");
        let class = class_of(&mut c, &asks(absurd, ""));
        for n in 0..3000 {
            c.place(&pod(n), "a", &class, 0);
        }
        for n in 0..3000 {
            c.forget(&pod(n));
        }
    }
    assert!(schedule(&mut c, 0, &asks("4", "")).is_ok());
    assert!(
        schedule(&mut c, 1, &asks("-4", "")).is_ok(),
        "less than nothing is nothing"
    );
}

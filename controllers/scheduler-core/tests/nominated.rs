//! What is promised to a nominated pod: how it counts for reservations and for spreading before it has come.

use std::collections::BTreeMap;

use setpoint_apis::core::PodSpec;
use setpoint_apis::{LabelSelector, ObjectKey};
use setpoint_scheduler_core::{
    BudgetState, Class, Cluster, Decision, NodeFacts, PodAsk, PodRequest, Profile, ReservationFacts,
};

fn cluster(nodes: &[(&str, &str)]) -> Cluster {
    let mut c = Cluster::new();
    for (name, cpu) in nodes {
        c.set_node(NodeFacts {
            name: (*name).into(),
            labels: [("host".to_owned(), (*name).to_owned())].into(),
            drivers: vec!["hollow".into()],
            allocatable: [("cpu", *cpu), ("pods", "110")]
                .map(|(k, v)| (k.to_owned(), v.parse().unwrap()))
                .into(),
            ..NodeFacts::default()
        });
    }
    c
}

/// (cpu, priority, app), and more of the spec.
fn class(c: &mut Cluster, (cpu, priority, app): (&str, i32, &str), more: &str) -> Class {
    let yaml = format!(
        "containers: [{{name: a, image: host, resources: {{requests: {{cpu: {cpu}}}}}}}]\n{more}"
    );
    let spec: PodSpec = serde_yaml::from_str(&yaml).unwrap();
    c.class(&PodAsk {
        namespace: "default",
        labels: &BTreeMap::from([("app".to_owned(), app.to_owned())]),
        spec: &spec,
        priority,
        profile: Profile::default(),
    })
}

/// To be spread evenly over hosts among pods `app=<app>`.
fn even(app: &str) -> String {
    format!(
        "topologySpreadConstraints: [{{maxSkew: 1, topologyKey: host, whenUnsatisfiable: DoNotSchedule, labelSelector: {{matchLabels: {{app: {app}}}}}}}]"
    )
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

fn request(name: &str, class: &Class) -> PodRequest {
    PodRequest {
        pod: key(name),
        class: class.clone(),
    }
}

fn schedule(c: &mut Cluster, name: &str, class: &Class) -> Option<String> {
    match c.schedule(&[request(name, class)], 1).remove(0) {
        Decision::Bind(placement) => Some(placement.node.to_string()),
        Decision::Unschedulable(_) => None,
    }
}

#[test]
fn a_nominated_owner_draws_on_what_is_reserved_for_it() {
    let mut c = cluster(&[("a", "4")]);
    c.set_reservation(ReservationFacts {
        key: key("r"),
        owner: LabelSelector::labels([("app".to_owned(), "owner".to_owned())].into()),
        namespaces: vec!["default".into()],
        resources: [("cpu".to_owned(), "3".parse().unwrap())].into(),
        node: Some("a".into()),
    });
    let (one, two) = (
        class(&mut c, ("1", 5, "x"), ""),
        class(&mut c, ("2", 5, "x"), ""),
    );
    let owner = |c: &mut Cluster, cpu| class(c, (cpu, 10, "owner"), "");
    let (within, beyond) = (owner(&mut c, "2"), owner(&mut c, "4"));
    c.nominate(&key("o"), "a", &within, &[]);
    assert!(c.has_room(&one), "2 are promised, 1 more is reserved");
    assert!(!c.has_room(&two));
    // Beside an owner that is there already.
    let used = owner(&mut c, "1");
    c.place(&key("p"), "a", &used, 0);
    assert!(
        c.has_room(&one),
        "1 is used, 2 are promised, nothing is left of 3"
    );
    c.forget(&key("p"));
    c.nominate(&key("o"), "a", &beyond, &[]);
    assert!(
        !c.has_room(&one),
        "it is promised more than what is reserved"
    );
    // Whoever comes before it does not count it, but what is reserved.
    let (higher, too_much) = (
        class(&mut c, ("1", 20, "x"), ""),
        class(&mut c, ("2", 20, "x"), ""),
    );
    assert!(c.has_room(&higher) && !c.has_room(&too_much));
}

/// The nodes that can run a pod, as one word.
fn open(c: &mut Cluster, class: &Class) -> String {
    let scores = c.breakdown(class, 99);
    let mut nodes: Vec<_> = scores.iter().map(|s| s.node.to_string()).collect();
    nodes.sort();
    nodes.concat()
}

#[test]
fn a_nominated_pod_counts_where_others_are_spread() {
    let spread = |c: &mut Cluster, priority| class(c, ("1", priority, "x"), &even("x"));
    let mut c = cluster(&[("a", "8"), ("b", "8")]);
    let (equal, higher) = (spread(&mut c, 5), spread(&mut c, 6));
    let coming = class(&mut c, ("1", 5, "x"), "");
    assert_eq!(open(&mut c, &equal), "ab");
    c.nominate(&key("n"), "a", &coming, &[]);
    assert_eq!(open(&mut c, &equal), "b", "two on a and none on b");
    assert!(c.has_room(&equal));
    assert_eq!(open(&mut c, &higher), "ab", "it does not count for it");
    assert_eq!(schedule(&mut c, "p1", &equal).as_deref(), Some("b"));
    assert_eq!(open(&mut c, &equal), "a", "it has to hold without it too");
    assert_eq!(schedule(&mut c, "p2", &equal).as_deref(), Some("a"));
    assert_eq!(open(&mut c, &equal), "b");
    c.forget(&key("n"));
    assert_eq!(open(&mut c, &equal), "ab");
    // Pods that the constraint does not count change nothing.
    let other = class(&mut c, ("1", 5, "y"), "");
    c.nominate(&key("n"), "a", &other, &[]);
    assert_eq!(open(&mut c, &equal), "ab");
    // Nor does one in whose place it comes.
    c.nominate(&key("n"), "a", &coming, &[key("p2")]);
    assert_eq!(open(&mut c, &equal), "ab");
    c.forget(&key("p2"));
    assert_eq!(open(&mut c, &equal), "a", "now none is there, then one");
}

#[test]
fn nobody_is_displaced_for_a_pod_that_a_nominated_one_would_unbalance() {
    let mut c = cluster(&[("a", "4"), ("b", "4")]);
    for (name, node, cpu, priority) in [("la", "a", "2", 0), ("lb", "b", "4", 1)] {
        let low = class(&mut c, (cpu, priority, "x"), "");
        c.place(&key(name), node, &low, 1);
    }
    let spread = class(&mut c, ("2", 5, "s"), &even("s"));
    let coming = class(&mut c, ("2", 5, "s"), "");
    assert_eq!(open(&mut c, &spread), "a");
    c.nominate(&key("n"), "a", &coming, &[]);
    assert_eq!(open(&mut c, &spread), "");
    let found = c
        .preempt(&request("p", &spread), &|_| BudgetState::default())
        .unwrap();
    assert_eq!(
        (&*found.node, &*found.victims),
        ("b", &[key("lb")][..]),
        "less harm on a would not do"
    );
}

//! Pods in relation to other pods, as Kubernetes documents it: tables of small clusters with the nodes on which a pod
//! can run.

use std::collections::BTreeMap;

use setpoint_apis::ObjectKey;
use setpoint_apis::core::PodSpec;
use setpoint_scheduler_core::{
    Class, Cluster, Decision, NodeFacts, PodAsk, PodRequest, Profile, Reason,
};

fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter(|p| !p.is_empty());
    pairs
        .map(|p| p.split_once('=').unwrap())
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

/// Four nodes: a and b in zone x, c in zone y, d without a zone. Every one but d has a host name.
fn cluster() -> Cluster {
    let mut c = Cluster::new();
    for (name, at) in [
        ("a", "zone=x,host=a"),
        ("b", "zone=x,host=b"),
        ("c", "zone=y,host=c"),
        ("d", ""),
    ] {
        c.set_node(NodeFacts {
            name: name.into(),
            labels: labels(at),
            drivers: vec!["process".into()],
            allocatable: [("cpu", "8"), ("memory", "8Gi"), ("pods", "20")]
                .map(|(k, v)| (k.to_owned(), v.parse().unwrap()))
                .into(),
            ..NodeFacts::default()
        });
    }
    c
}

fn class(c: &mut Cluster, namespace: &str, at: &str, more: &str) -> Class {
    let yaml = format!("containers: [{{name: a, image: host}}]\n{more}");
    let spec: PodSpec = serde_yaml::from_str(&yaml).unwrap();
    c.class(&PodAsk {
        namespace,
        labels: &labels(at),
        spec: &spec,
        priority: 0,
        profile: Profile::default(),
    })
}

fn place(c: &mut Cluster, n: usize, node: &str, namespace: &str, at: &str, more: &str) {
    let class = class(c, namespace, at, more);
    c.place(
        &ObjectKey::namespaced(namespace, format!("old{n}")),
        node,
        &class,
        n as i64,
    );
}

/// The nodes that can run a pod, as one word.
fn open(c: &mut Cluster, class: &Class) -> String {
    let mut nodes: Vec<_> = c
        .breakdown(class, 99)
        .iter()
        .map(|s| s.node.to_string())
        .collect();
    nodes.sort();
    nodes.concat()
}

fn near(key: &str, selector: &str) -> String {
    format!(
        "affinity: {{podAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: [{{labelSelector: {selector}, topologyKey: {key}}}]}}}}"
    )
}

fn away(key: &str, selector: &str) -> String {
    near(key, selector).replace("podAffinity", "podAntiAffinity")
}

fn spread(key: &str, rest: &str) -> String {
    format!(
        "topologySpreadConstraints: [{{maxSkew: 1, topologyKey: {key}, whenUnsatisfiable: DoNotSchedule, labelSelector: {{matchLabels: {{app: web}}}}{rest}}}]"
    )
}

const WEB: &str = "{matchLabels: {app: web}}";

/// (what, where pods are: node, namespace, labels; the pod: labels, spec; the nodes that can run it)
type Case<'a> = (
    &'a str,
    &'a [(&'a str, &'a str, &'a str)],
    &'a str,
    String,
    &'a str,
);

fn check(cases: &[Case<'_>]) {
    for (what, there, at, more, want) in cases {
        let mut c = cluster();
        // The terms come before the pods in one half of the runs, and after them in the other.
        for early in [true, false] {
            if early {
                class(&mut c, "default", at, more);
            }
            for (n, (node, namespace, at)) in there.iter().enumerate() {
                place(&mut c, n, node, namespace, at, "");
            }
            let class = class(&mut c, "default", at, more);
            assert_eq!(open(&mut c, &class), *want, "{what}");
            assert_eq!(c.has_room(&class), !want.is_empty(), "{what}");
            let why = c.explain(&class);
            let told = why.reasons.values().sum::<u32>() as usize;
            assert!(told >= 4 - want.len(), "{what}: {why:?}");
            c = cluster();
        }
    }
}

#[test]
fn required_affinity_needs_a_matching_pod_in_the_domain() {
    let web = [("a", "default", "app=web")];
    check(&[
        ("in the zone of one", &web, "", near("zone", WEB), "ab"),
        ("on the host of one", &web, "", near("host", WEB), "a"),
        ("none there", &[], "", near("zone", WEB), ""),
        (
            "another label",
            &[("a", "default", "app=db")],
            "",
            near("zone", WEB),
            "",
        ),
        (
            "another namespace",
            &[("a", "other", "app=web")],
            "",
            near("zone", WEB),
            "",
        ),
        (
            "on a node without the label",
            &[("d", "default", "app=web")],
            "",
            near("zone", WEB),
            "",
        ),
        (
            "a key that no node has",
            &web,
            "app=web",
            near("rack", WEB),
            "",
        ),
        (
            "no selector selects nothing",
            &web,
            "",
            near("zone", "null"),
            "",
        ),
        (
            "an empty one everything",
            &[("c", "default", "x=y")],
            "",
            near("zone", "{}"),
            "c",
        ),
        (
            "expressions",
            &web,
            "",
            near(
                "zone",
                "{matchExpressions: [{key: app, operator: In, values: [web, db]}]}",
            ),
            "ab",
        ),
        (
            "what does not exist",
            &[("a", "default", "app=web"), ("c", "default", "x=y")],
            "",
            near(
                "zone",
                "{matchExpressions: [{key: app, operator: DoesNotExist}]}",
            ),
            "c",
        ),
    ]);
}

#[test]
fn the_first_of_pods_that_want_to_be_together_may_start_anywhere_with_the_label() {
    check(&[
        (
            "it matches itself",
            &[],
            "app=web",
            near("zone", WEB),
            "abc",
        ),
        (
            "others are there already",
            &[("c", "default", "app=web")],
            "app=web",
            near("zone", WEB),
            "c",
        ),
        (
            "others are in another namespace",
            &[("c", "other", "app=web")],
            "app=web",
            near("zone", WEB),
            "abc",
        ),
        (
            "others have no domain",
            &[("d", "default", "app=web")],
            "app=web",
            near("zone", WEB),
            "abc",
        ),
    ]);
    // With two terms it must match both itself.
    let two = |second: &str| {
        near("zone", WEB).replace(
            "topologyKey: zone}",
            &format!("topologyKey: zone}}, {{labelSelector: {second}, topologyKey: host}}"),
        )
    };
    check(&[
        (
            "both",
            &[],
            "app=web,tier=front",
            two("{matchLabels: {tier: front}}"),
            "abc",
        ),
        (
            "only one",
            &[],
            "app=web",
            two("{matchLabels: {tier: front}}"),
            "",
        ),
    ]);
}

#[test]
fn affinity_counts_pods_that_match_all_of_its_terms() {
    let two = near("zone", WEB).replace(
        "topologyKey: zone}",
        "topologyKey: zone}, {labelSelector: {matchLabels: {tier: front}}, topologyKey: host}",
    );
    check(&[
        (
            "one pod matches both",
            &[("a", "default", "app=web,tier=front")],
            "",
            two.clone(),
            "a",
        ),
        (
            "two pods match one each",
            &[("a", "default", "app=web"), ("a", "default", "tier=front")],
            "",
            two.clone(),
            "",
        ),
        (
            "the terms are met by different pods that match both",
            &[
                ("b", "default", "app=web,tier=front"),
                ("c", "default", "app=web,tier=front"),
            ],
            "",
            two,
            "bc",
        ),
    ]);
}

#[test]
fn required_anti_affinity_keeps_out_of_domains_with_matching_pods() {
    let web = [("a", "default", "app=web")];
    check(&[
        ("out of the zone", &web, "", away("zone", WEB), "cd"),
        ("off the host", &web, "", away("host", WEB), "bcd"),
        ("none there", &[], "app=web", away("zone", WEB), "abcd"),
        (
            "another namespace",
            &[("a", "other", "app=web")],
            "",
            away("zone", WEB),
            "abcd",
        ),
        (
            "on a node without the label",
            &[("d", "default", "app=web")],
            "",
            away("zone", WEB),
            "abcd",
        ),
        (
            "a key that no node has",
            &web,
            "",
            away("rack", WEB),
            "abcd",
        ),
        (
            "no selector selects nothing",
            &web,
            "",
            away("zone", "null"),
            "abcd",
        ),
    ]);
    // Each of two terms counts by itself.
    let two = away("zone", WEB).replace(
        "topologyKey: zone}",
        "topologyKey: zone}, {labelSelector: {matchLabels: {app: db}}, topologyKey: host}",
    );
    check(&[(
        "either",
        &[("c", "default", "app=web"), ("a", "default", "app=db")],
        "",
        two,
        "bd",
    )]);
}

#[test]
fn anti_affinity_of_pods_that_are_there_keeps_others_out() {
    for (key, at, namespace, want) in [
        ("zone", "app=web", "default", "cd"),
        ("host", "app=web", "default", "bcd"),
        ("zone", "app=db", "default", "abcd"),
        ("zone", "app=web", "other", "abcd"),
    ] {
        let mut c = cluster();
        place(&mut c, 0, "a", "default", "app=any", &away(key, WEB));
        let plain = class(&mut c, namespace, at, "");
        assert_eq!(open(&mut c, &plain), want, "{key} {at} {namespace}");
        if want.len() < 4 {
            let why = c.explain(&plain);
            assert!(why.reasons.contains_key(&Reason::ExistingAntiAffinity));
            assert!(why.helps().room);
        }
        // What goes away does not count any more.
        c.forget(&ObjectKey::namespaced("default", "old0"));
        assert_eq!(open(&mut c, &plain), "abcd");
    }
}

#[test]
fn namespaces_are_named_or_selected_by_their_labels() {
    let there = |rest: &str| {
        near("zone", WEB).replace("topologyKey: zone", &format!("topologyKey: zone, {rest}"))
    };
    for (rest, want) in [
        ("namespaces: [dev]", "ab"),
        ("namespaces: [dev, prod]", "abc"),
        ("namespaceSelector: {matchLabels: {team: red}}", "c"),
        ("namespaceSelector: {}", "abc"),
        (
            "namespaces: [dev], namespaceSelector: {matchLabels: {team: red}}",
            "abc",
        ),
        ("namespaceSelector: {matchLabels: {team: blue}}", ""),
        (
            "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: dev}}",
            "ab",
        ),
    ] {
        let mut c = cluster();
        c.set_namespace("prod", &labels("team=red"));
        place(&mut c, 0, "a", "dev", "app=web", "");
        place(&mut c, 1, "c", "prod", "app=web", "");
        let class = class(&mut c, "default", "", &there(rest));
        assert_eq!(open(&mut c, &class), want, "{rest}");
    }
    // The labels change while the pods are there.
    let mut c = cluster();
    place(&mut c, 0, "a", "dev", "app=web", "");
    let class = class(
        &mut c,
        "default",
        "",
        &there("namespaceSelector: {matchLabels: {team: red}}"),
    );
    assert_eq!(open(&mut c, &class), "");
    assert!(c.explain(&class).helps().namespaces);
    assert!(c.set_namespace("dev", &labels("team=red")));
    assert_eq!(open(&mut c, &class), "ab");
    assert!(!c.set_namespace("dev", &labels("team=red")));
    assert!(c.remove_namespace("dev"));
    assert_eq!(open(&mut c, &class), "");
}

#[test]
fn the_pods_own_labels_narrow_its_selectors() {
    let keyed = |rest: &str| {
        away("zone", WEB).replace("topologyKey: zone", &format!("topologyKey: zone, {rest}"))
    };
    let there = [
        ("a", "default", "app=web,hash=1"),
        ("c", "default", "app=web,hash=2"),
    ];
    check(&[
        (
            "the same hash",
            &there,
            "app=web,hash=1",
            keyed("matchLabelKeys: [hash]"),
            "cd",
        ),
        (
            "a label that the pod lacks",
            &there,
            "app=web",
            keyed("matchLabelKeys: [hash]"),
            "d",
        ),
        (
            "another hash",
            &there,
            "app=web,hash=1",
            keyed("mismatchLabelKeys: [hash]"),
            "abd",
        ),
    ]);
    let spread_by_hash = spread("zone", ", matchLabelKeys: [hash]");
    let there = [
        ("a", "default", "app=web,hash=1"),
        ("b", "default", "app=web,hash=2"),
        ("a", "default", "app=web,hash=2"),
    ];
    check(&[
        (
            "only the first revision counts",
            &there,
            "app=web,hash=1",
            spread_by_hash.clone(),
            "c",
        ),
        (
            "a new revision begins afresh",
            &there,
            "app=web,hash=3",
            spread_by_hash,
            "abc",
        ),
    ]);
}

#[test]
fn hard_spreading_keeps_the_skew() {
    let x = ("a", "default", "app=web");
    let y = ("c", "default", "app=web");
    check(&[
        (
            "the first goes anywhere with the label",
            &[],
            "app=web",
            spread("zone", ""),
            "abc",
        ),
        (
            "then the other zone",
            &[x],
            "app=web",
            spread("zone", ""),
            "c",
        ),
        ("then either", &[x, y], "app=web", spread("zone", ""), "abc"),
        (
            "who is not counted itself may add to a zone that is one ahead",
            &[x],
            "app=db",
            spread("zone", ""),
            "abc",
        ),
        (
            "but not to one that is two ahead",
            &[x, x],
            "app=db",
            spread("zone", ""),
            "c",
        ),
        (
            "others' namespaces do not count",
            &[("a", "other", "app=web")],
            "app=web",
            spread("zone", ""),
            "abc",
        ),
        ("over hosts", &[x, y], "app=web", spread("host", ""), "b"),
        (
            "a key that no node has",
            &[],
            "app=web",
            spread("rack", ""),
            "",
        ),
        (
            "pods on nodes without the label do not count",
            &[("d", "default", "app=web")],
            "app=web",
            spread("zone", ""),
            "abc",
        ),
        (
            "more skew",
            &[x],
            "app=web",
            spread("zone", "").replace("maxSkew: 1", "maxSkew: 2"),
            "abc",
        ),
        (
            "too few domains: as if one were empty",
            &[x, y],
            "app=web",
            spread("zone", ", minDomains: 3"),
            "",
        ),
        (
            "enough domains",
            &[x, y],
            "app=web",
            spread("zone", ", minDomains: 2"),
            "abc",
        ),
    ]);
}

#[test]
fn all_spread_constraints_hold_and_count_nodes_that_have_all_keys() {
    let both = "topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}, {maxSkew: 1, topologyKey: host, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}]";
    let x = ("a", "default", "app=web");
    check(&[
        ("zone first", &[x], "app=web", both.into(), "c"),
        (
            "then host",
            &[x, ("c", "default", "app=web")],
            "app=web",
            both.into(),
            "b",
        ),
    ]);
}

#[test]
fn nodes_that_the_pod_cannot_use_are_left_out_of_the_spreading_as_its_policies_say() {
    // Zone y is ruled out by the selector; so what runs there is no yardstick, unless the policy says so.
    let only_x = |rest: &str| format!("{}\nnodeSelector: {{zone: x}}", spread("zone", rest));
    let there = [("a", "default", "app=web")];
    check(&[
        ("honoured by default", &there, "app=web", only_x(""), "ab"),
        (
            "ignored",
            &there,
            "app=web",
            only_x(", nodeAffinityPolicy: Ignore"),
            "",
        ),
    ]);
    for (rest, want) in [("", ""), (", nodeTaintsPolicy: Honor", "ab")] {
        let mut c = cluster();
        let mut tainted = c.node("c").unwrap().clone();
        tainted.taints = vec![serde_yaml::from_str("{key: k, effect: NoSchedule}").unwrap()];
        c.set_node(tainted);
        place(&mut c, 0, "a", "default", "app=web", "");
        let class = class(&mut c, "default", "app=web", &spread("zone", rest));
        assert_eq!(open(&mut c, &class), want, "{rest}");
    }
}

#[test]
fn preferences_for_and_against_pods_count_in_both_directions() {
    let prefer = |kind: &str, weight: i32| {
        format!(
            "affinity: {{{kind}: {{preferredDuringSchedulingIgnoredDuringExecution: [{{weight: {weight}, podAffinityTerm: {{labelSelector: {WEB}, topologyKey: zone}}}}]}}}}"
        )
    };
    let best = |c: &mut Cluster, class: &Class| {
        let all = c.breakdown(class, 99);
        let most = all
            .iter()
            .map(|s| s.parts[&setpoint_scheduler_core::Part::PodAffinity])
            .max();
        let mut best: Vec<_> = all
            .iter()
            .filter(|s| Some(s.parts[&setpoint_scheduler_core::Part::PodAffinity]) == most)
            .map(|s| s.node.to_string())
            .collect();
        best.sort();
        best.concat()
    };
    let mut c = cluster();
    place(&mut c, 0, "a", "default", "app=web", "");
    let like = class(&mut c, "default", "", &prefer("podAffinity", 10));
    assert_eq!(best(&mut c, &like), "ab");
    let dislike = class(&mut c, "default", "", &prefer("podAntiAffinity", 10));
    assert_eq!(best(&mut c, &dislike), "cd");
    for (more, want) in [
        (prefer("podAffinity", 10), "c"),
        (prefer("podAntiAffinity", 10), "abd"),
        (near("zone", WEB), "c"),
    ] {
        let mut c = cluster();
        place(&mut c, 0, "c", "default", "", &more);
        let web = class(&mut c, "default", "app=web", "");
        assert_eq!(best(&mut c, &web), want, "{more}");
        let other = class(&mut c, "default", "app=db", "");
        assert_eq!(best(&mut c, &other), "abcd", "it is not meant");
    }
}

#[test]
fn soft_spreading_prefers_the_emptier_domain_and_nodes_with_the_label() {
    let soft = spread("zone", "").replace("DoNotSchedule", "ScheduleAnyway");
    let mut c = cluster();
    place(&mut c, 0, "a", "default", "app=web", "");
    let class = class(&mut c, "default", "app=web", &soft);
    assert_eq!(open(&mut c, &class), "abcd", "every node is possible");
    let scores = c.breakdown(&class, 99);
    let part = |node: &str| {
        let of = scores.iter().find(|s| *s.node == *node).unwrap();
        of.parts[&setpoint_scheduler_core::Part::Spread]
    };
    assert!(part("c") > part("a"), "{scores:?}");
    assert_eq!(part("a"), part("b"));
    assert_eq!(part("d"), 0);
}

#[test]
fn a_pod_that_names_its_node_is_not_refused_for_other_pods() {
    let mut c = cluster();
    place(&mut c, 0, "a", "default", "app=web", &away("host", "{}"));
    for more in [
        away("host", WEB),
        near("zone", "{matchLabels: {x: y}}"),
        spread("rack", ""),
    ] {
        let class = class(
            &mut c,
            "default",
            "app=web",
            &format!("nodeName: a\n{more}"),
        );
        assert_eq!(open(&mut c, &class), "a", "{more}");
    }
}

#[test]
fn ports_of_the_node_are_taken_once() {
    let port = |rest: &str| {
        let yaml =
            format!("containers: [{{name: a, image: host, ports: [{{containerPort: 80{rest}}}]}}]");
        serde_yaml::from_str::<PodSpec>(&yaml).unwrap()
    };
    for (first, second, fits) in [
        (", hostPort: 80", ", hostPort: 80", false),
        (", hostPort: 80", ", hostPort: 81", true),
        (", hostPort: 80", "", true),
        ("", "", true),
        (", hostPort: 80", ", hostPort: 80, protocol: UDP", true),
        (
            ", hostPort: 80, hostIP: 10.0.0.1",
            ", hostPort: 80, hostIP: 10.0.0.2",
            true,
        ),
        (
            ", hostPort: 80, hostIP: 10.0.0.1",
            ", hostPort: 80, hostIP: 10.0.0.1",
            false,
        ),
        (
            ", hostPort: 80, hostIP: 10.0.0.1",
            ", hostPort: 80, hostIP: 0.0.0.0",
            false,
        ),
        (", hostPort: 80", ", hostPort: 80, hostIP: 10.0.0.1", false),
        (
            ", hostPort: 80, protocol: UDP",
            ", hostPort: 80, protocol: UDP",
            false,
        ),
    ] {
        let mut c = cluster();
        for gone in ["b", "c", "d"] {
            c.remove_node(gone);
        }
        let ask = |c: &mut Cluster, rest: &str| {
            c.class(&PodAsk {
                namespace: "default",
                labels: &BTreeMap::new(),
                spec: &port(rest),
                priority: 0,
                profile: Profile::default(),
            })
        };
        let (one, two) = (ask(&mut c, first), ask(&mut c, second));
        c.place(&ObjectKey::namespaced("default", "one"), "a", &one, 0);
        let pod = ObjectKey::namespaced("default", "two");
        let decision = c
            .schedule(
                &[PodRequest {
                    pod,
                    class: two.clone(),
                }],
                0,
            )
            .remove(0);
        assert_eq!(
            matches!(decision, Decision::Bind(_)),
            fits,
            "{first} {second}"
        );
        if let Decision::Unschedulable(why) = decision {
            assert!(why.reasons.contains_key(&Reason::Ports) && why.helps().room);
            c.forget(&ObjectKey::namespaced("default", "one"));
            assert!(c.has_room(&two));
        }
    }
}

#[test]
fn what_arrives_elsewhere_can_help() {
    let mut c = cluster();
    for n in ["b", "c", "d"] {
        c.remove_node(n);
    }
    let class_near = class(&mut c, "default", "", &near("zone", WEB));
    let why = c.explain(&class_near);
    assert!(why.helps().arrivals, "{why:?}");
    place(&mut c, 0, "a", "default", "app=web", "");
    assert!(c.has_room(&class_near));
}

//! Gangs whose members must be near each other: they go where all of them fit.

use std::collections::BTreeMap;
use std::sync::Arc;

use setpoint_apis::ObjectKey;
use setpoint_apis::core::PodSpec;
use setpoint_scheduler_core::{
    Cluster, Decision, NodeFacts, PodAsk, PodRequest, Profile, Unschedulable,
};

/// (name, zone, cpu, pods)
fn cluster(nodes: &[(&str, &str, u32, u32)]) -> Cluster {
    let mut c = Cluster::new();
    for (name, zone, cpu, pods) in nodes {
        c.set_node(NodeFacts {
            name: (*name).into(),
            labels: [("host", *name), ("zone", *zone)]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            drivers: vec!["hollow".into()],
            allocatable: [("cpu", cpu), ("pods", pods)]
                .map(|(k, v)| (k.to_owned(), v.to_string().parse().unwrap()))
                .into(),
            ..NodeFacts::default()
        });
    }
    c
}

fn request(c: &mut Cluster, name: &str, app: &str, cpu: &str, more: &str) -> PodRequest {
    let yaml = format!(
        "containers: [{{name: a, image: host, resources: {{requests: {{cpu: {cpu}}}}}}}]\n{more}"
    );
    let spec: PodSpec = serde_yaml::from_str(&yaml).unwrap();
    let class = c.class(&PodAsk {
        namespace: "default",
        labels: &BTreeMap::from([("app".to_owned(), app.to_owned())]),
        spec: &spec,
        priority: 0,
        profile: Profile::default(),
    });
    PodRequest {
        pod: ObjectKey::namespaced("default", name),
        class,
    }
}

/// To be near pods `app=<app>`, by a topology key.
fn near(key: &str, app: &str) -> String {
    format!(
        "affinity: {{podAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: [{{labelSelector: {{matchLabels: {{app: {app}}}}}, topologyKey: {key}}}]}}}}"
    )
}

fn gang(c: &mut Cluster, cpus: &[u32], more: &str) -> Vec<PodRequest> {
    let cpus = cpus.iter().enumerate();
    cpus.map(|(i, cpu)| request(c, &format!("g{i}"), "g", &cpu.to_string(), more))
        .collect()
}

/// Where the members are that have a place, sorted.
fn places(found: Result<Vec<Decision>, Arc<Unschedulable>>) -> Option<Vec<String>> {
    let of = |d: Decision| match d {
        Decision::Bind(placement) => Some(placement.node.to_string()),
        Decision::Unschedulable(_) => None,
    };
    let mut all: Vec<_> = found.ok()?.into_iter().filter_map(of).collect();
    all.sort();
    Some(all)
}

#[test]
fn a_gang_goes_where_all_of_it_fits_though_one_of_it_would_be_better_off_elsewhere() {
    let mut c = cluster(&[("a", "z", 4, 2), ("b", "z", 8, 1)]);
    let pods = gang(&mut c, &[1, 1], &near("host", "g"));
    let alone = c.breakdown(&pods[0].class, 1);
    assert_eq!(&*alone[0].node, "b", "where one of them would go");
    let found = c.schedule_gang(&pods, 2, 1);
    assert_eq!(places(found).unwrap(), ["a", "a"]);
    // By zones, on nodes that hold one each.
    let mut c = cluster(&[("a", "x", 8, 1), ("b", "y", 2, 1), ("c", "y", 2, 1)]);
    let pods = gang(&mut c, &[1, 1], &near("zone", "g"));
    let found = c.schedule_gang(&pods, 2, 1);
    assert_eq!(places(found).unwrap(), ["b", "c"]);
}

#[test]
fn as_many_more_than_needed_come_along_as_fit_in_the_same_place() {
    let mut c = cluster(&[("a", "z", 4, 3), ("b", "z", 8, 1)]);
    let pods = gang(&mut c, &[1; 5], &near("host", "g"));
    let found = c.schedule_gang(&pods, 2, 1);
    assert_eq!(places(found).unwrap(), ["a", "a", "a"]);
}

#[test]
fn members_may_differ_in_what_they_ask_for() {
    let mut c = cluster(&[("a", "z", 4, 3), ("b", "z", 8, 1), ("c", "z", 7, 2)]);
    let pods = gang(&mut c, &[1, 2, 1], &near("host", "g"));
    let found = c.schedule_gang(&pods, 3, 1);
    assert_eq!(places(found).unwrap(), ["a"; 3]);
}

#[test]
fn a_gang_that_fits_nowhere_as_a_whole_leaves_everything_as_it_was() {
    let mut c = cluster(&[("a", "z", 4, 2), ("b", "z", 8, 1)]);
    let pods = gang(&mut c, &[3, 3], &near("host", "g"));
    let why = c.schedule_gang(&pods, 2, 1).unwrap_err();
    assert_eq!(why.gang, Some((1, 2)));
    assert_eq!(c.placed_count(), 0);
    assert!(c.has_room(&pods[0].class), "one alone fits");
}

#[test]
fn whoever_is_there_already_says_where_the_gang_goes() {
    let mut c = cluster(&[("a", "z", 4, 3), ("b", "z", 8, 2)]);
    let friend = request(&mut c, "friend", "g", "1", "");
    c.place(&friend.pod, "b", &friend.class, 0);
    let pods = gang(&mut c, &[1, 1], &near("host", "g"));
    assert_eq!(places(c.schedule_gang(&pods, 2, 1)), None);
    // Though there is room for both elsewhere; alone they go where they like.
    c.forget(&friend.pod);
    assert_eq!(places(c.schedule_gang(&pods, 2, 1)).unwrap(), ["b", "b"]);
}

#[test]
fn places_without_the_room_are_not_tried_however_many_there_are() {
    let names: Vec<String> = (0..200).map(|i| format!("n{i}")).collect();
    let mut nodes: Vec<_> = names.iter().map(|n| (n.as_str(), "z", 8, 1)).collect();
    nodes.push(("small", "z", 2, 2));
    let mut c = cluster(&nodes);
    let pods = gang(&mut c, &[1, 1], &near("host", "g"));
    let found = c.schedule_gang(&pods, 2, 1);
    assert_eq!(places(found).unwrap(), ["small", "small"]);
}

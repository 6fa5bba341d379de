use std::collections::BTreeMap;

use setpoint_apis::core::PodSpec;

use super::*;
use crate::{Decision, NodeFacts, PodAsk, Profile};

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

fn cluster(nodes: &[(&str, u32)]) -> Cluster {
    let mut c = Cluster::new();
    for (name, cpu) in nodes {
        let allocatable = [("cpu", cpu.to_string()), ("pods", "110".into())];
        c.set_node(NodeFacts {
            name: (*name).into(),
            labels: [("host".to_owned(), (*name).to_owned())].into(),
            drivers: vec!["hollow".into()],
            allocatable: allocatable
                .map(|(k, v)| (k.to_owned(), v.parse().unwrap()))
                .into(),
            ..NodeFacts::default()
        });
    }
    c
}

fn request(c: &mut Cluster, name: &str, cpu: u32, priority: i32, more: &str) -> PodRequest {
    let yaml = format!(
        "containers: [{{name: a, image: host, resources: {{requests: {{cpu: {cpu}}}}}}}]\n{more}"
    );
    let spec: PodSpec = serde_yaml::from_str(&yaml).unwrap();
    let class = c.class(&PodAsk {
        namespace: "default",
        labels: &BTreeMap::from([("app".to_owned(), name[..1].to_owned())]),
        spec: &spec,
        priority,
        profile: Profile::default(),
    });
    PodRequest {
        pod: key(name),
        class,
    }
}

/// (name, node, cpu, priority), the older first.
fn fill(c: &mut Cluster, pods: &[(&str, &str, u32, i32)]) {
    for (since, (name, node, cpu, priority)) in pods.iter().enumerate() {
        let pod = request(c, name, *cpu, *priority, "");
        c.place(&pod.pod, node, &pod.class, since as i64);
    }
}

fn gang(c: &mut Cluster, cpus: &[u32], more: &str) -> Vec<PodRequest> {
    let pods = cpus.iter().enumerate();
    pods.map(|(n, cpu)| request(c, &format!("g{n}"), *cpu, 10, more))
        .collect()
}

fn free(_: &ObjectKey) -> BudgetState {
    BudgetState::default()
}

/// Who has to go, sorted; `None` when the gang does not fit whoever goes.
fn victims(found: &Option<Vec<Option<Preemption>>>) -> Option<Vec<String>> {
    let all = found.as_ref()?.iter().flatten().flat_map(|p| &p.victims);
    let mut all: Vec<String> = all.map(|v| v.name.to_string()).collect();
    all.sort();
    all.dedup();
    Some(all)
}

/// Where everybody is.
fn places(c: &Cluster) -> BTreeMap<ObjectKey, (String, bool, bool)> {
    let pods = c.state.pods.iter();
    pods.map(|(_, p)| {
        let node = &c.state.nodes[p.slot as usize].name;
        (p.key.clone(), (node.to_string(), p.leaving, p.stays))
    })
    .collect()
}

#[test]
fn nobody_has_to_go_for_a_gang_that_does_not_fit_all_the_same() {
    let mut c = cluster(&[("a", 4), ("b", 4), ("c", 4)]);
    fill(
        &mut c,
        &[("l1", "a", 4, 1), ("l2", "b", 4, 1), ("h", "c", 4, 10)],
    );
    c.set_leaving(&key("l1"), true);
    c.set_staying(&key("h"), true);
    let before = places(&c);
    let pods = gang(&mut c, &[4, 4, 4], "");
    assert_eq!(c.preempt_gang(&pods, 3, &[], &free), None);
    assert_eq!(places(&c), before);
    // Two of them do; `l1` leaves anyway.
    let found = c.preempt_gang(&pods, 2, &[], &free);
    assert_eq!(victims(&found).unwrap(), ["l2"]);
    assert_eq!(found.unwrap().iter().flatten().count(), 2);
    assert_eq!(places(&c), before);
}

const TOGETHER: &str = "affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {app: g}}, topologyKey: host}]}}";

#[test]
fn a_gang_that_must_be_near_itself_displaces_others_where_all_of_it_fits() {
    // The first alone does the least harm on a node that is too small for both.
    let mut c = cluster(&[("small", 3), ("big", 4), ("other", 4)]);
    fill(
        &mut c,
        &[
            ("l1", "small", 3, 0),
            ("l2", "big", 2, 2),
            ("l3", "big", 2, 2),
            ("l4", "other", 4, 1),
        ],
    );
    let before = places(&c);
    let pods = gang(&mut c, &[2, 2], TOGETHER);
    let found = c.preempt_gang(&pods, 2, &[], &free);
    assert_eq!(victims(&found).unwrap(), ["l4"], "the least of two places");
    assert_eq!(places(&c), before);
    // One that a budget protects is worse.
    let guarded = |pod: &ObjectKey| BudgetState {
        budgets: if *pod.name == *"l4" {
            vec![(key("budget"), 0)]
        } else {
            Vec::new()
        },
    };
    let found = c.preempt_gang(&pods, 2, &[], &guarded);
    assert_eq!(victims(&found).unwrap(), ["l2", "l3"]);
    c.set_staying(&key("l2"), true);
    c.set_staying(&key("l4"), true);
    let before = places(&c);
    assert_eq!(c.preempt_gang(&pods, 2, &[], &free), None);
    assert_eq!(places(&c), before);
}

#[test]
fn a_member_that_fits_displaces_nobody_and_has_a_place_all_the_same() {
    let mut c = cluster(&[("a", 4), ("b", 4)]);
    fill(&mut c, &[("l1", "a", 1, 1), ("l2", "b", 4, 1)]);
    let pods = gang(&mut c, &[3, 3], "");
    let found = c.preempt_gang(&pods, 2, &[], &free).unwrap();
    let [Some(first), Some(second)] = &found[..] else {
        panic!("both have a place: {found:?}");
    };
    assert_eq!((&*first.node, first.victims.len()), ("a", 0));
    assert_eq!((&*second.node, &*second.victims), ("b", &[key("l2")][..]));
}

#[test]
fn whoever_is_not_needed_once_all_have_their_places_stays() {
    // The first member takes the least, and the second the rest: then the first victim can stay.
    let mut c = cluster(&[("a", 6)]);
    fill(&mut c, &[("s", "a", 2, 1), ("t", "a", 4, 2)]);
    let pods = gang(&mut c, &[2, 2], "");
    let found = c.preempt_gang(&pods, 2, &[], &free);
    assert_eq!(victims(&found).unwrap(), ["t"]);
    let found = found.unwrap();
    assert!(
        found.iter().flatten().all(|p| p.victims == [key("t")]),
        "both wait for it"
    );
}

#[test]
fn nobody_of_the_gang_displaces_another_nor_those_who_are_spared() {
    let mut c = cluster(&[("a", 4), ("b", 4)]);
    fill(&mut c, &[("bound", "a", 4, 1), ("other", "b", 4, 1)]);
    let low = request(&mut c, "low", 4, 5, "");
    let high = request(&mut c, "high", 4, 10, "");
    let spared = [key("bound")];
    let pods = [low, high];
    assert_eq!(c.preempt_gang(&pods, 2, &spared, &free), None);
    let found = c.preempt_gang(&pods, 1, &spared, &free);
    assert_eq!(victims(&found).unwrap(), ["other"]);
    assert!(
        !places(&c)[&key("bound")].2,
        "it may be displaced by others"
    );
}

#[test]
fn members_that_must_not_preempt_get_what_the_others_leave() {
    let mut c = cluster(&[("a", 4), ("b", 4)]);
    fill(&mut c, &[("l1", "a", 4, 1), ("l2", "b", 4, 1)]);
    let meek = gang(&mut c, &[2, 2], "preemptionPolicy: Never");
    assert_eq!(c.preempt_gang(&meek, 2, &[], &free), None);
    let pods = [request(&mut c, "h", 2, 10, ""), meek[0].clone()];
    let found = c.preempt_gang(&pods, 2, &[], &free);
    assert_eq!(victims(&found).unwrap().len(), 1);
}

#[test]
fn what_one_member_takes_of_a_budget_the_others_do_not_have() {
    let mut c = cluster(&[("a", 4), ("b", 4), ("c", 4)]);
    fill(
        &mut c,
        &[("p1", "a", 4, 1), ("p2", "b", 4, 1), ("u", "c", 4, 5)],
    );
    let budget = |pod: &ObjectKey| BudgetState {
        budgets: match pod.name.starts_with('p') {
            true => vec![(key("budget"), 1)],
            false => Vec::new(),
        },
    };
    let pods = gang(&mut c, &[4, 4], "");
    let found = c.preempt_gang(&pods, 2, &[], &budget);
    let gone = victims(&found).unwrap();
    assert!(
        gone.len() == 2 && gone.contains(&"u".to_owned()),
        "{gone:?}"
    );
    let violations: u32 = found.unwrap().iter().flatten().map(|p| p.violations).sum();
    assert_eq!(violations, 0);
    // Where nothing else helps it is violated, and that is told.
    let pods = gang(&mut c, &[4, 4, 4], "");
    let found = c.preempt_gang(&pods, 3, &[], &budget).unwrap();
    let violations: u32 = found.iter().flatten().map(|p| p.violations).sum();
    assert_eq!(violations, 1);
}

#[test]
fn constraints_between_members_hold_where_they_are_said_to_go() {
    let away = "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {app: g}}, topologyKey: host}]}}";
    let mut c = cluster(&[("a", 8), ("b", 4)]);
    fill(&mut c, &[("l1", "a", 8, 1), ("l2", "b", 4, 2)]);
    let pods = gang(&mut c, &[2, 2], away);
    let found = c.preempt_gang(&pods, 2, &[], &free);
    assert_eq!(victims(&found).unwrap(), ["l1", "l2"]);
    let pods = gang(&mut c, &[2, 2, 2], away);
    assert_eq!(c.preempt_gang(&pods, 3, &[], &free), None);
}

#[test]
fn a_gang_gets_the_places_that_it_was_promised_once_they_are_empty_and_nobody_else_does() {
    let mut c = cluster(&[("a", 4), ("b", 4), ("c", 1)]);
    fill(&mut c, &[("l1", "a", 4, 1), ("l2", "b", 4, 1)]);
    // Spread by their scores, the small ones would leave no room for the large one.
    let pods = gang(&mut c, &[2, 2, 4], "");
    let found = c.preempt_gang(&pods, 3, &[], &free).unwrap();
    for (pod, place) in pods.iter().zip(&found) {
        let place = place.as_ref().unwrap();
        c.nominate(&pod.pod, &place.node, &pod.class, &place.victims);
    }
    c.forget(&key("l1"));
    assert!(c.schedule_gang(&pods, 3, 0).is_err());
    let small = request(&mut c, "small", 1, 9, "");
    let one = |c: &mut Cluster| c.schedule(std::slice::from_ref(&small), 0).remove(0);
    match one(&mut c) {
        Decision::Bind(placement) => assert_eq!(&*placement.node, "c"),
        Decision::Unschedulable(why) => panic!("there is room on c: {why:?}"),
    }
    c.forget(&key("l2"));
    let more = request(&mut c, "more", 1, 9, "");
    assert!(matches!(
        c.schedule(&[more], 0)[..],
        [Decision::Unschedulable(_)]
    ));
    let placed = c.schedule_gang(&pods, 3, 0).unwrap();
    for (decision, place) in placed.iter().zip(&found) {
        let Decision::Bind(placement) = decision else {
            panic!("all are placed: {placed:?}");
        };
        assert_eq!(placement.node, place.as_ref().unwrap().node);
    }
}

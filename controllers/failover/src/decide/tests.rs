//! Facts in, plan out. Every plan is also carried out on the facts, and must leave nothing to do.

mod outages;

use super::*;

fn pod(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

fn node(alive: bool, state: NodeState) -> NodeFacts {
    NodeFacts {
        alive,
        fenced: false,
        health: Some(Health {
            state,
            revision: 50,
        }),
    }
}

fn lost() -> NodeFacts {
    node(false, NodeState::Unreachable)
}

fn wanted(priority: i32, policy: PartitionPolicy) -> Desired {
    Desired::Wanted { priority, policy }
}

fn bound(node: &str) -> PodFacts {
    PodFacts {
        binding: Some(BindingFacts {
            node: node.into(),
            session: 5,
            revision: 40,
            withdrawn: false,
        }),
        desired: wanted(0, PartitionPolicy::Replace),
        stage: Stage::Unfinished,
        claimed_unfenced: false,
    }
}

fn snapshot<'a>(
    nodes: impl IntoIterator<Item = (&'a str, NodeFacts)>,
    pods: impl IntoIterator<Item = (&'a str, PodFacts)>,
) -> Snapshot {
    Snapshot {
        nodes: nodes.into_iter().map(|(n, f)| (n.into(), f)).collect(),
        pods: pods.into_iter().map(|(p, f)| (pod(p), f)).collect(),
        requested: BTreeMap::new(),
        unreadable_bindings: false,
    }
}

#[test]
fn bindings_are_watched_while_one_that_does_not_parse_may_be_of_a_lost_node() {
    let mut facts = snapshot([("n1", lost())], []);
    assert!(!super::decide(&facts, 10).losing);
    facts.unreadable_bindings = true;
    assert!(super::decide(&facts, 10).losing);
}

fn request(node: &str, session: i64) -> Request {
    Request {
        node: node.into(),
        session,
        health_revision: 50,
        read: false,
    }
}

/// The facts after the plan was carried out and before the scheduler has done anything.
fn apply(mut snapshot: Snapshot, plan: &Plan) -> Snapshot {
    plan.settled
        .iter()
        .for_each(|pod| drop(snapshot.requested.remove(pod)));
    for step in &plan.steps {
        match step {
            Step::Release {
                pod,
                binding,
                health_revision,
                ..
            } => {
                let request = Request {
                    health_revision: *health_revision,
                    ..request(&binding.node, binding.session)
                };
                snapshot.requested.insert(pod.clone(), request);
            }
            Step::Withdraw { pod, .. } => drop(snapshot.requested.remove(pod)),
        }
    }
    snapshot
}

fn summary(plan: &Plan) -> Vec<String> {
    let lines = plan.steps.iter().map(|step| match step {
        Step::Release { pod, binding, .. } => format!("release {} from {}", pod.name, binding.node),
        Step::Withdraw { pod, node } => format!("withdraw {} from {node}", pod.name),
    });
    lines.collect()
}

#[track_caller]
fn check(snapshot: Snapshot, expected: &[&str]) -> (Snapshot, Plan) {
    let plan = decide(&snapshot, 100);
    assert_eq!(summary(&plan), expected, "{:?}", plan.held);
    let after = apply(snapshot, &plan);
    let again = decide(&after, 100);
    assert_eq!(
        (again.steps, again.settled),
        (vec![], vec![]),
        "a second decision changes nothing"
    );
    (after, plan)
}

#[test]
fn the_pods_of_an_unreachable_node_are_released() {
    let (_, plan) = check(
        snapshot(
            [("n1", lost()), ("n2", node(true, NodeState::Ready))],
            [("a", bound("n1")), ("b", bound("n2"))],
        ),
        &["release a from n1"],
    );
    assert_eq!(
        plan.steps[0],
        Step::Release {
            pod: pod("a"),
            binding: BindingFacts {
                node: "n1".into(),
                session: 5,
                revision: 40,
                withdrawn: false
            },
            health_revision: 50,
            unfenced: false
        }
    );
    assert!(plan.losing && !plan.more);
}

#[test]
fn an_older_session_of_the_lost_node_makes_no_difference() {
    // The agent of a newer session had adopted it; all sessions are over now.
    let adopted = PodFacts {
        binding: Some(BindingFacts {
            node: "n1".into(),
            session: 1,
            revision: 9,
            withdrawn: false,
        }),
        ..bound("n1")
    };
    check(
        snapshot([("n1", lost())], [("a", adopted)]),
        &["release a from n1"],
    );
}

#[test]
fn a_binding_of_an_older_session_stays_on_a_node_that_is_back() {
    check(
        snapshot(
            [("n1", node(true, NodeState::Unreachable))],
            [("a", bound("n1"))],
        ),
        &[],
    );
}

#[test]
fn high_priorities_go_first_and_what_nobody_wants_goes_last() {
    let with = |desired| PodFacts {
        desired,
        ..bound("n1")
    };
    check(
        snapshot(
            [("n1", lost())],
            [
                ("a", with(Desired::Absent)),
                ("b", with(wanted(0, PartitionPolicy::Replace))),
                ("c", with(wanted(-5, PartitionPolicy::Replace))),
                ("d", with(wanted(2_000_000_000, PartitionPolicy::Replace))),
                ("e", with(wanted(0, PartitionPolicy::Replace))),
            ],
        ),
        &[
            "release d from n1",
            "release b from n1",
            "release e from n1",
            "release c from n1",
            "release a from n1",
        ],
    );
}

#[test]
fn releases_come_in_batches() {
    let names: Vec<String> = (0..10).map(|i| format!("p{i}")).collect();
    let mut facts = snapshot(
        [("n1", lost())],
        names.iter().map(|n| (n.as_str(), bound("n1"))),
    );
    for expected in [(4, true), (4, true), (2, false), (0, false)] {
        let plan = decide(&facts, 4);
        assert_eq!((plan.releases(), plan.more), expected);
        facts = apply(facts, &plan);
    }
}

#[test]
fn nothing_is_released_from_suspended_or_undecided_nodes() {
    for (state, held) in [
        (NodeState::Suspended, Held::Suspended),
        (NodeState::Ready, Held::Undecided),
        (NodeState::Removed, Held::Undecided),
    ] {
        let (_, plan) = check(
            snapshot([("n1", node(false, state))], [("a", bound("n1"))]),
            &[],
        );
        assert_eq!(plan.held, [(pod("a"), held)]);
    }
    let unknown = NodeFacts::default();
    let (_, plan) = check(snapshot([("n1", unknown)], [("a", bound("n1"))]), &[]);
    assert_eq!(plan.held, [(pod("a"), Held::Undecided)]);
}

#[test]
fn while_another_silence_is_undecided_nothing_is_released() {
    let (_, plan) = check(
        snapshot(
            [("n1", lost()), ("n2", node(false, NodeState::Ready))],
            [("a", bound("n1"))],
        ),
        &[],
    );
    assert_eq!(plan.held, [(pod("a"), Held::Unsettled)]);
}

#[test]
fn partition_policies_are_kept() {
    let with = |policy| PodFacts {
        desired: wanted(0, policy),
        ..bound("n1")
    };
    let pods = || {
        [
            ("keep", with(PartitionPolicy::Keep)),
            ("stop", with(PartitionPolicy::Stop)),
            ("replace", with(PartitionPolicy::Replace)),
        ]
    };
    let fenced = NodeFacts {
        fenced: true,
        ..lost()
    };
    let (mut after, plan) = check(
        snapshot([("n1", fenced)], pods()),
        &["release replace from n1"],
    );
    assert_eq!(
        plan.held,
        [(pod("keep"), Held::Kept), (pod("stop"), Held::Fenced)]
    );
    after.nodes.get_mut("n1").unwrap().fenced = false;
    let (_, plan) = check(after, &["release stop from n1"]);
    assert!(matches!(
        plan.steps[0],
        Step::Release { unfenced: true, .. }
    ));
}

#[test]
fn a_stop_pod_that_was_claimed_without_a_fence_is_never_released() {
    let stop = PodFacts {
        desired: wanted(0, PartitionPolicy::Stop),
        claimed_unfenced: true,
        ..bound("n1")
    };
    let mut withdrawn = stop.clone();
    withdrawn.binding.as_mut().unwrap().withdrawn = true;
    for pod_now in [stop, withdrawn] {
        let mut facts = snapshot([("n1", lost())], [("a", pod_now)]);
        let (_, plan) = check(facts.clone(), &[]);
        assert_eq!(plan.held, [(pod("a"), Held::Unfenceable)]);
        // One that was asked for (before its document said so) is taken back.
        facts.requested.insert(pod("a"), request("n1", 5));
        check(facts, &["withdraw a from n1"]);
    }
}

#[test]
fn a_policy_that_is_none_keeps_the_pod() {
    for (annotation, policy) in [
        (None, PartitionPolicy::Replace),
        (Some("replace"), PartitionPolicy::Replace),
        (Some("stop"), PartitionPolicy::Stop),
        (Some("keep"), PartitionPolicy::Keep),
        (Some("Stop"), PartitionPolicy::Keep),
        (Some(""), PartitionPolicy::Keep),
    ] {
        assert_eq!(PartitionPolicy::parse(annotation), policy, "{annotation:?}");
    }
}

#[test]
fn what_has_finished_stays_a_record_until_nobody_wants_it() {
    let finished = PodFacts {
        stage: Stage::Finished,
        ..bound("n1")
    };
    let deleted = PodFacts {
        desired: Desired::Absent,
        ..finished.clone()
    };
    let (_, plan) = check(
        snapshot([("n1", lost())], [("job", finished), ("old", deleted)]),
        &["release old from n1"],
    );
    assert_eq!(plan.held, [(pod("job"), Held::Finished)]);
}

#[test]
fn what_was_to_run_elsewhere_anyway_is_released_though_it_has_finished() {
    let mut evicted = PodFacts {
        stage: Stage::Finished,
        ..bound("n1")
    };
    evicted.binding.as_mut().unwrap().withdrawn = true;
    check(
        snapshot([("n1", lost())], [("a", evicted)]),
        &["release a from n1"],
    );
}

#[test]
fn what_cannot_be_read_is_left_alone() {
    let document = PodFacts {
        desired: Desired::Unreadable,
        ..bound("n1")
    };
    let status = PodFacts {
        stage: Stage::Unreadable,
        ..bound("n1")
    };
    let (_, plan) = check(
        snapshot([("n1", lost())], [("a", document), ("b", status)]),
        &[],
    );
    assert_eq!(
        plan.held,
        [(pod("a"), Held::Frozen), (pod("b"), Held::Frozen)]
    );
}

#[test]
fn requests_are_taken_back_when_the_node_comes_back_or_the_brake_engages() {
    for back in [
        node(true, NodeState::Unreachable),
        node(true, NodeState::Ready),
        node(false, NodeState::Suspended),
    ] {
        let mut facts = snapshot([("n1", back)], [("a", bound("n1"))]);
        facts.requested.insert(pod("a"), request("n1", 5));
        check(facts, &["withdraw a from n1"]);
    }
}

#[test]
fn a_request_is_made_again_when_the_node_is_lost_anew() {
    // Between the two losses the scheduler has dropped it, and nobody has seen the node come back.
    for read in [false, true] {
        let mut facts = snapshot([("n1", lost())], [("a", bound("n1"))]);
        let made = Request {
            read,
            ..request("n1", 5)
        };
        facts.requested.insert(pod("a"), made);
        check(facts.clone(), &[]);
        let health = facts.nodes.get_mut("n1").unwrap().health.as_mut().unwrap();
        health.revision = 70;
        let (after, plan) = check(facts, &["release a from n1"]);
        let Step::Release {
            health_revision, ..
        } = plan.steps[0]
        else {
            panic!("{:?}", plan.steps)
        };
        assert_eq!(health_revision, 70);
        assert_eq!(after.requested[&pod("a")].health_revision, 70);
    }
}

#[test]
fn a_request_stands_while_a_conclusion_about_another_node_is_awaited() {
    let mut facts = snapshot(
        [("n1", lost()), ("n2", node(false, NodeState::Ready))],
        [("a", bound("n1"))],
    );
    facts.requested.insert(pod("a"), request("n1", 5));
    check(facts, &[]);
}

#[test]
fn a_request_that_was_carried_out_is_forgotten_and_what_was_left_over_is_removed() {
    let moved = PodFacts {
        binding: Some(BindingFacts {
            node: "n2".into(),
            session: 8,
            revision: 60,
            withdrawn: false,
        }),
        ..bound("n2")
    };
    for pod_now in [PodFacts::default(), moved] {
        for (read, steps, settled) in [(false, 0, 1), (true, 1, 0)] {
            let mut facts = snapshot(
                [("n2", node(true, NodeState::Ready))],
                [("a", pod_now.clone())],
            );
            facts.requested.insert(
                pod("a"),
                Request {
                    read,
                    ..request("n1", 5)
                },
            );
            let plan = decide(&facts, 100);
            assert_eq!((plan.steps.len(), plan.settled.len()), (steps, settled));
            let again = decide(&apply(facts, &plan), 100);
            assert_eq!(
                (again.steps, again.settled, again.losing),
                (vec![], vec![], false)
            );
        }
    }
}

//! The brake: stories, and the property that it is there for.

use proptest::prelude::*;

use super::*;

const NOTHING: &[&str] = &[];

fn states(snapshot: &Snapshot) -> Vec<NodeState> {
    snapshot
        .nodes
        .values()
        .map(|n| n.health.as_ref().unwrap().state)
        .collect()
}

#[test]
fn when_more_than_half_are_silent_nothing_is_moved_and_the_health_says_why() {
    let nodes = (1..=7).map(gone).chain((8..=10).map(up));
    let plan = decide(&cluster(nodes), at(0));
    assert!(plan.brake.engaged() && !plan.gives_up_nodes());
    assert_eq!(plan.steps.len(), 7);
    for step in &plan.steps {
        let Step::Conclude {
            health, because, ..
        } = step
        else {
            panic!("{step:?}")
        };
        assert_eq!(
            (health.state, *because),
            (NodeState::Suspended, Because::Silent)
        );
        assert_eq!(health.message, "7 of 10 nodes are silent: nothing is moved");
        assert!(
            health
                .taints
                .iter()
                .all(|t| t.effect == TaintEffect::NoSchedule),
            "nobody evicts for it"
        );
    }
}

#[test]
fn half_is_not_more_than_half() {
    let (after, _) = check(
        cluster([up(1), gone(2)]),
        &["n2 Unreachable session 2 because Silent \
           [node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute]"],
    );
    assert_eq!(states(&after), [NodeState::Ready, NodeState::Unreachable]);
}

#[test]
fn the_only_node_is_suspended() {
    let plan = decide(&cluster([gone(1)]), at(0));
    let Step::Conclude { health, .. } = &plan.steps[0] else {
        panic!()
    };
    assert_eq!(health.message, "the only node is silent: nothing is moved");
}

#[test]
fn the_first_of_many_to_expire_is_not_given_up_when_the_others_are_late() {
    let late = |session| NodeFacts {
        late: true,
        ..up(session)
    };
    let (mut after, plan) = check(
        cluster([gone(1), late(2), up(3)]),
        &["n1 Suspended session 1 because Silent [node.kubernetes.io/unreachable:NoSchedule]"],
    );
    assert_eq!(
        (plan.brake.silent, plan.brake.late, plan.brake.members),
        (1, 1, 3)
    );
    // It was only slow: the other one is given up without further ado.
    after.nodes.get_mut("n2").unwrap().late = false;
    check_at(
        after,
        1,
        &["n1 Unreachable session 1 because Silent \
           [node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute]"],
    );
}

#[test]
fn nobody_is_given_up_while_those_of_whom_there_is_no_answer_could_engage_the_brake() {
    let in_doubt = |session| NodeFacts {
        in_doubt: true,
        ..up(session)
    };
    let (waiting, plan) = check(cluster([gone(1), in_doubt(2), up(3)]), NOTHING);
    assert_eq!(
        plan.waiting,
        [(
            Arc::from("n1"),
            "it is not known who else is late".to_owned()
        )]
    );
    assert_eq!(
        (plan.brake.silent, plan.brake.in_doubt, plan.brake.members),
        (1, 1, 3)
    );
    // Then there is an answer, or it is decided without one.
    let heard = |is_late| {
        let mut snapshot = waiting.clone();
        let facts = snapshot.nodes.get_mut("n2").unwrap();
        (facts.late, facts.in_doubt) = (is_late, false);
        snapshot
    };
    check(
        heard(true),
        &["n1 Suspended session 1 because Silent [node.kubernetes.io/unreachable:NoSchedule]"],
    );
    let given_up = &["n1 Unreachable session 1 because Silent \
           [node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute]"];
    let (after, _) = check(heard(false), given_up);
    // What was given up stays so, and is not waited for.
    let mut again = after;
    again.nodes.get_mut("n2").unwrap().in_doubt = true;
    let (_, plan) = check(again, NOTHING);
    assert_eq!(plan.waiting, []);
    // With too few in doubt nothing depends on them.
    check(cluster([gone(1), in_doubt(2), up(3), up(4)]), given_up);
    // Nor when enough are known to be late.
    let late = NodeFacts {
        late: true,
        ..up(2)
    };
    check(
        cluster([gone(1), late, in_doubt(3)]),
        &["n1 Suspended session 1 because Silent [node.kubernetes.io/unreachable:NoSchedule]"],
    );
    // And what its user has deleted is gone, whoever is in doubt.
    let deleted = NodeFacts {
        desired: false,
        bindings: 1,
        ..gone(1)
    };
    check(cluster([deleted, in_doubt(2)]), given_up);
}

#[test]
fn a_growing_outage_takes_back_what_was_concluded_a_moment_ago() {
    let snapshot = cluster([concluded(NodeState::Unreachable, 1, -20), gone(2), up(3)]);
    let (after, _) = check(
        snapshot,
        &[
            "n1 Suspended session 1 because Silent [node.kubernetes.io/unreachable:NoSchedule]",
            "n2 Suspended session 2 because Silent [node.kubernetes.io/unreachable:NoSchedule]",
        ],
    );
    assert_eq!(
        after.nodes["n1"].health.as_ref().unwrap().since,
        at(-20),
        "the silence began then"
    );
}

#[test]
fn nodes_that_were_given_up_long_ago_do_not_count() {
    let old = |session| concluded(NodeState::Unreachable, session, -3_600);
    let (after, plan) = check(
        cluster([old(1), old(2), old(3), gone(4), up(5), up(6)]),
        &["n4 Unreachable session 4 because Silent \
           [node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute]"],
    );
    assert_eq!(plan.brake.members, 3);
    // And when the brake engages they stay what they are.
    let mut worse = after;
    worse.nodes.get_mut("n5").unwrap().session = Session::Absent;
    check_at(
        worse,
        1,
        &[
            "n4 Suspended session 4 because Silent [node.kubernetes.io/unreachable:NoSchedule]",
            "n5 Suspended session 5 because Silent [node.kubernetes.io/unreachable:NoSchedule]",
        ],
    );
}

#[test]
fn when_the_outage_ends_the_rest_has_a_grace_to_come_back() {
    let suspended = |session| concluded(NodeState::Suspended, session, -60);
    let back = NodeFacts {
        session: Session::Alive(20),
        ..suspended(1)
    };
    let (after, _) = check(
        cluster([back, suspended(2), up(3), up(4)]),
        &["n1 Ready session 20 because Alive(20) []"],
    );
    // n2 was one of two silent out of four; now it is one out of four, and has ten seconds.
    let plan = decide(&after, at(9));
    assert_eq!(plan.steps, []);
    assert_eq!(plan.next_look, Some(at(10)));
    assert_eq!(plan.waiting.len(), 1);
    check_at(
        after,
        10,
        &["n2 Unreachable session 2 because Silent \
           [node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute]"],
    );
}

#[test]
fn a_clock_that_was_set_back_does_not_prolong_the_grace() {
    let suspended = concluded(NodeState::Suspended, 2, -60);
    let back = NodeFacts {
        health: Some(health(NodeState::Ready, 20, 3_600)),
        ..up(20)
    };
    let plan = decide(&cluster([back, suspended, up(3), up(4)]), at(0));
    assert!(plan.gives_up_nodes() && plan.next_look.is_none());
}

#[test]
fn an_outage_that_lasts_moves_nothing_however_long_it_lasts() {
    let suspended = |session| concluded(NodeState::Suspended, session, -60);
    let snapshot = cluster([suspended(1), suspended(2), up(3)]);
    for now in [0, 100, 100_000] {
        check_at(snapshot.clone(), now, NOTHING);
    }
}

#[test]
fn deleting_a_silent_node_gives_it_up_under_the_brake() {
    let suspended = |session| concluded(NodeState::Suspended, session, -60);
    let deleted = NodeFacts {
        desired: false,
        bindings: 3,
        ..suspended(1)
    };
    check(
        cluster([deleted, suspended(2), suspended(3), up(4)]),
        &["n1 Unreachable session 1 because Silent \
           [node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute]"],
    );
}

/// One node of a cluster that is cut off at a moment: when its lease was renewed last before that, and how late etcd
/// notices. Both in milliseconds.
#[derive(Clone, Debug)]
struct Phase {
    since_renewal: i64,
    notice: i64,
}

const TTL: i64 = 6_000;

fn phases(n: usize) -> impl Strategy<Value = Vec<Phase>> {
    // Agents renew every third of the time to live; etcd expires leases in steps of half a second.
    let phase = (0..TTL / 3, 0..500_i64).prop_map(|(since_renewal, notice)| Phase {
        since_renewal,
        notice,
    });
    proptest::collection::vec(phase, n)
}

fn cut_off() -> impl Strategy<Value = (Vec<Phase>, usize)> {
    (1_usize..24).prop_flat_map(|n| (phases(n), 0..=n))
}

/// The first `cut` nodes are cut off at time 0; the others go on renewing. Decides whenever a lease expires, with the
/// lateness that etcd would report, and returns every conclusion ever drawn.
fn outage(nodes: &[Phase], cut: usize) -> Vec<NodeState> {
    let millis = |ms: i64| at(0) + Duration::from_millis(u64::try_from(ms).unwrap());
    let expiry = |p: &Phase| TTL - p.since_renewal + p.notice;
    let mut snapshot = cluster((1..=nodes.len()).map(|i| up(i64::try_from(i).unwrap())));
    let mut moments: Vec<i64> = nodes[..cut].iter().map(expiry).collect();
    moments.sort_unstable();
    let mut drawn = Vec::new();
    for now in moments {
        for (i, phase) in nodes.iter().enumerate() {
            let facts = snapshot
                .nodes
                .get_mut(format!("n{}", i + 1).as_str())
                .unwrap();
            let renewed = if i < cut {
                -phase.since_renewal
            } else {
                now - (now + phase.since_renewal) % (TTL / 3)
            };
            let left_secs = (TTL - (now - renewed)).max(0) / 1_000;
            facts.late = left_secs * 1_000 * 2 < TTL;
            if i < cut && expiry(phase) <= now {
                facts.session = Session::Absent;
            }
        }
        let plan = decide(&snapshot, millis(now));
        drawn.extend(plan.steps.iter().filter_map(|s| match s {
            Step::Conclude { health, .. } => Some(health.state),
            _ => None,
        }));
        snapshot = apply(snapshot, &plan);
        assert_eq!(decide(&snapshot, millis(now)).steps, []);
    }
    drawn
}

proptest! {
    /// Whatever the phases of their leases, in whatever order they expire.
    #[test]
    fn of_nodes_cut_off_together_none_is_given_up_if_they_are_more_than_half((nodes, cut) in cut_off()) {
        let drawn = outage(&nodes, cut);
        let expected = if cut * 2 > nodes.len() { NodeState::Suspended } else { NodeState::Unreachable };
        prop_assert!(drawn.iter().all(|s| *s == expected), "{cut} of {}: {drawn:?}", nodes.len());
        prop_assert!(drawn.len() == cut, "each is concluded about once: {drawn:?}");
    }

    /// For any facts whatever: no plan gives up more than half of the members at once, and no plan is followed by
    /// another.
    #[test]
    fn any_plan_is_bounded_and_settles(nodes in proptest::collection::vec(any_node(), 0..12), unreadable in any::<bool>(), now in 0..200_i64) {
        let snapshot = Snapshot { unreadable_bindings: unreadable, ..cluster(nodes) };
        let plan = decide(&snapshot, at(now));
        let given_up = plan.steps.iter().filter(|s| matches!(s,
            Step::Conclude { node, health, before, .. } if health.state == NodeState::Unreachable
                && before.is_none_or(|(state, _)| state != NodeState::Unreachable) && snapshot.nodes[node].desired)).count();
        prop_assert!(given_up * 2 <= plan.brake.members, "{given_up} of {}", plan.brake.members);
        prop_assert!(given_up == 0 || !plan.brake.could_engage(), "{given_up}: {:?}", plan.brake);
        let after = apply(snapshot, &plan);
        prop_assert_eq!(decide(&after, at(now)).steps, vec![]);
    }
}

fn any_node() -> impl Strategy<Value = NodeFacts> {
    let session = prop_oneof![
        Just(Session::Absent),
        Just(Session::Unreadable),
        (1..4_i64).prop_map(Session::Alive)
    ];
    let state = prop_oneof![
        Just(NodeState::Ready),
        Just(NodeState::Unreachable),
        Just(NodeState::Suspended),
        Just(NodeState::Removed)
    ];
    let health = proptest::option::of(
        (state, 1..4_i64, 0..150_i64).prop_map(|(s, session, since)| health(s, session, since)),
    );
    (
        session,
        any::<bool>(),
        health,
        any::<bool>(),
        0..3_usize,
        0..4_i64,
        any::<bool>(),
        (any::<bool>(), any::<bool>()),
    )
        .prop_map(
            |(
                session,
                desired,
                health,
                health_unreadable,
                bindings,
                bound_session,
                recorded,
                (late, in_doubt),
            )| NodeFacts {
                session,
                agent_since: matches!(session, Session::Alive(_)).then(|| at(bound_session)),
                desired,
                health,
                health_unreadable,
                bindings,
                bound_session: if bindings == 0 { 0 } else { bound_session },
                recorded,
                late,
                in_doubt,
            },
        )
}

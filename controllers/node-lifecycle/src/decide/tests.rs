//! Facts in, plan out. Every plan is also applied to the facts, and must leave nothing to do.

mod outages;

use std::time::Duration;

use super::*;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_unix_seconds(1_700_000_000 + secs)
}

fn health(state: NodeState, session: i64, since: i64) -> NodeHealth {
    let facts = NodeFacts {
        health: Some(NodeHealth {
            state,
            session,
            since: at(since),
            ..NodeHealth::default()
        }),
        ..NodeFacts::default()
    };
    match state {
        NodeState::Ready => ready(session, &facts, at(since)),
        NodeState::Removed => removed(session, &facts, at(since)),
        NodeState::Unreachable => unreachable(&facts, "its lease expired", at(since)),
        NodeState::Suspended => suspended(&facts, &BrakeFacts::default(), at(since)),
    }
}

/// A member that is there.
fn up(session: i64) -> NodeFacts {
    NodeFacts {
        session: Session::Alive(session),
        desired: true,
        health: Some(health(NodeState::Ready, session, -1_000)),
        recorded: true,
        ..NodeFacts::default()
    }
}

/// A member whose lease has just expired.
fn gone(session: i64) -> NodeFacts {
    NodeFacts {
        session: Session::Absent,
        ..up(session)
    }
}

fn concluded(state: NodeState, session: i64, since: i64) -> NodeFacts {
    NodeFacts {
        health: Some(health(state, session, since)),
        ..gone(session)
    }
}

fn cluster(nodes: impl IntoIterator<Item = NodeFacts>) -> Snapshot {
    let nodes = nodes
        .into_iter()
        .enumerate()
        .map(|(i, n)| (Arc::from(format!("n{}", i + 1)), n))
        .collect();
    Snapshot {
        nodes,
        unreadable_bindings: false,
    }
}

/// The facts after the plan was carried out.
fn apply(mut snapshot: Snapshot, plan: &Plan) -> Snapshot {
    for step in &plan.steps {
        match step {
            Step::Register { node, health } => {
                let facts = snapshot.nodes.get_mut(node).unwrap();
                assert!(!facts.desired, "guarded");
                facts.desired = true;
                facts.health = Some(health.clone());
                facts.health_unreadable = false;
            }
            Step::Conclude { node, health, .. } => {
                let facts = snapshot.nodes.get_mut(node).unwrap();
                facts.health = Some(health.clone());
                facts.health_unreadable = false;
            }
            Step::Forget { node } => {
                snapshot.nodes.remove(node);
            }
        }
    }
    snapshot
}

/// One line per step.
fn summary(plan: &Plan) -> Vec<String> {
    let lines = plan.steps.iter().map(|step| match step {
        Step::Register { node, health } => format!("register {node} session {}", health.session),
        Step::Conclude {
            node,
            health,
            because,
            ..
        } => {
            let taints: Vec<_> = health.taints.iter().map(ToString::to_string).collect();
            format!(
                "{node} {:?} session {} because {because:?} [{}]",
                health.state,
                health.session,
                taints.join(" ")
            )
        }
        Step::Forget { node } => format!("forget {node}"),
    });
    lines.collect()
}

/// Decides at second 0, and checks that a second decision changes nothing.
#[track_caller]
fn check(snapshot: Snapshot, expected: &[&str]) -> (Snapshot, Plan) {
    check_at(snapshot, 0, expected)
}

#[track_caller]
fn check_at(snapshot: Snapshot, now: i64, expected: &[&str]) -> (Snapshot, Plan) {
    let plan = decide(&snapshot, at(now));
    assert_eq!(summary(&plan), expected, "{:?}", plan.waiting);
    let after = apply(snapshot, &plan);
    assert_eq!(
        decide(&after, at(now)).steps,
        [],
        "a second decision changes nothing"
    );
    (after, plan)
}

#[test]
fn a_node_nobody_declared_is_registered_once() {
    let new = NodeFacts {
        session: Session::Alive(7),
        ..NodeFacts::default()
    };
    let (after, _) = check(cluster([new]), &["register n1 session 7"]);
    let health = after.nodes["n1"].health.clone().unwrap();
    assert_eq!((health.state, health.since), (NodeState::Ready, at(0)));
}

#[test]
fn a_declared_node_becomes_ready_when_its_session_begins() {
    let declared = NodeFacts {
        desired: true,
        ..NodeFacts::default()
    };
    check(cluster([declared.clone()]), &[]);
    let begun = NodeFacts {
        session: Session::Alive(7),
        ..declared
    };
    check(
        cluster([begun]),
        &["n1 Ready session 7 because Alive(7) []"],
    );
}

#[test]
fn a_lost_lease_makes_a_node_unreachable_at_once() {
    let (after, plan) = check(
        cluster([up(1), gone(2), up(3)]),
        &["n2 Unreachable session 2 because Silent \
           [node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute]"],
    );
    let health = after.nodes["n2"].health.clone().unwrap();
    assert_eq!(
        (health.since, health.message.as_str()),
        (at(0), "its lease expired")
    );
    assert_eq!(health.taints[1].time_added, Some(at(0)));
    assert!(plan.gives_up_nodes());
}

#[test]
fn a_node_that_comes_back_is_ready_in_its_new_session() {
    let back = NodeFacts {
        session: Session::Alive(9),
        ..concluded(NodeState::Unreachable, 2, -30)
    };
    let (after, _) = check(
        cluster([up(1), back]),
        &["n2 Ready session 9 because Alive(9) []"],
    );
    assert_eq!(after.nodes["n2"].health.as_ref().unwrap().since, at(0));
}

#[test]
fn a_session_that_was_replaced_between_two_looks_is_noted_without_a_gap() {
    let quick = NodeFacts {
        session: Session::Alive(9),
        ..up(2)
    };
    let (after, _) = check(
        cluster([quick]),
        &["n1 Ready session 9 because Alive(9) []"],
    );
    assert_eq!(
        after.nodes["n1"].health.as_ref().unwrap().since,
        at(-1_000),
        "it has been ready all the time"
    );
}

#[test]
fn a_quiet_cluster_has_nothing_to_do_at_any_time() {
    let cluster = cluster([
        up(1),
        up(2),
        concluded(NodeState::Unreachable, 3, -9),
        concluded(NodeState::Unreachable, 4, -99_999),
    ]);
    for now in [0, 10, 100, 100_000] {
        let plan = decide(&cluster, at(now));
        assert_eq!((plan.steps, plan.next_look), (vec![], None));
    }
}

#[test]
fn deleting_a_node_whose_agent_runs_keeps_pods_away_and_a_restart_registers_it_anew() {
    let deleted = NodeFacts {
        desired: false,
        ..up(2)
    };
    let (after, _) = check(
        cluster([up(1), deleted]),
        &["n2 Removed session 2 because AliveUnwanted(2) [setpoint.dev/removed:NoSchedule]"],
    );
    let mut restarted = after.clone();
    restarted.nodes.get_mut("n2").unwrap().session = Session::Alive(8);
    check(restarted, &["register n2 session 8"]);
    let mut declared = after;
    declared.nodes.get_mut("n2").unwrap().desired = true;
    check(declared, &["n2 Ready session 2 because Alive(2) []"]);
}

#[test]
fn an_agent_that_takes_the_session_over_registers_a_deleted_node_anew() {
    let first = NodeFacts {
        agent_since: Some(at(-1_000)),
        ..up(2)
    };
    // What was concluded before agents were told apart is about the present one, whichever that is.
    let (known, _) = check(
        cluster([up(1), first]),
        &["n2 Ready session 2 because Alive(2) []"],
    );
    let mut deleted = known.clone();
    deleted.nodes.get_mut("n2").unwrap().desired = false;
    let (removed, _) = check(
        deleted.clone(),
        &["n2 Removed session 2 because AliveUnwanted(2) [setpoint.dev/removed:NoSchedule]"],
    );
    // Whether or not the deletion was noted before the restart.
    for mut restarted in [deleted, removed] {
        restarted.nodes.get_mut("n2").unwrap().agent_since = Some(at(-1));
        check(restarted, &["register n2 session 2"]);
    }
    let mut restarted = known;
    restarted.nodes.get_mut("n2").unwrap().agent_since = Some(at(-1));
    let (mut after, _) = check(restarted, &["n2 Ready session 2 because Alive(2) []"]);
    after.nodes.get_mut("n2").unwrap().desired = false;
    check(
        after,
        &["n2 Removed session 2 because AliveUnwanted(2) [setpoint.dev/removed:NoSchedule]"],
    );
}

#[test]
fn an_agent_that_only_lost_its_session_does_not_register_a_deleted_node_anew() {
    let removed = NodeFacts {
        desired: false,
        agent_since: Some(at(-1_000)),
        health: Some(NodeHealth {
            agent_since: Some(at(-1_000)),
            ..health(NodeState::Removed, 2, -500)
        }),
        ..up(2)
    };
    let (removed, _) = check(cluster([up(1), removed]), &[]);
    let back = |mut snapshot: Snapshot, since: i64| {
        let facts = snapshot.nodes.get_mut("n2").unwrap();
        (facts.session, facts.agent_since) = (Session::Alive(9), Some(at(since)));
        snapshot
    };
    let still = "n2 Removed session 9 because AliveUnwanted(9) [setpoint.dev/removed:NoSchedule]";
    // The session was replaced between two looks.
    check(back(removed.clone(), -1_000), &[still]);
    check(back(removed.clone(), -1), &["register n2 session 9"]);

    // It was seen to be gone, and there is nothing to wait for but the agent.
    let mut lost = removed;
    let facts = lost.nodes.get_mut("n2").unwrap();
    (facts.session, facts.agent_since) = (Session::Absent, None);
    let (lost, plan) = check(
        lost,
        &["n2 Unreachable session 2 because Silent \
           [node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute]"],
    );
    assert_eq!(plan.next_look, Some(at(30)));
    check_at(back(lost.clone(), -1_000), 29, &[still]);
    check_at(back(lost.clone(), 28), 29, &["register n2 session 9"]);
    check_at(lost.clone(), 29, &[]);
    check_at(lost.clone(), 30, &["forget n2"]);
    check_at(lost, -1, &["forget n2"]);
}

#[test]
fn a_deleted_node_is_forgotten_when_its_session_is_over_and_its_pods_are_released() {
    let dead = NodeFacts {
        desired: false,
        bindings: 2,
        bound_session: 2,
        ..concluded(NodeState::Removed, 2, -30)
    };
    let (mut after, plan) = check(
        cluster([up(1), dead]),
        &["n2 Unreachable session 2 because Silent \
           [node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute]"],
    );
    assert_eq!(
        plan.waiting,
        [(Arc::from("n2"), "2 pods are not yet released".to_owned())]
    );
    after.nodes.get_mut("n2").unwrap().bindings = 0;
    let (after, _) = check(after, &["forget n2"]);
    assert!(!after.nodes.contains_key("n2"));
}

#[test]
fn records_that_belong_to_no_node_are_removed() {
    let leftover = NodeFacts {
        recorded: true,
        ..NodeFacts::default()
    };
    let stale = NodeFacts {
        desired: false,
        recorded: false,
        ..concluded(NodeState::Ready, 5, -5)
    };
    check(cluster([leftover, stale]), &["forget n1", "forget n2"]);
}

#[test]
fn a_binding_that_cannot_be_read_keeps_what_is_recorded_of_dead_nodes() {
    let leftover = NodeFacts {
        recorded: true,
        health: Some(health(NodeState::Ready, 1, 0)),
        ..NodeFacts::default()
    };
    let snapshot = Snapshot {
        unreadable_bindings: true,
        ..cluster([leftover])
    };
    let (_, plan) = check(
        snapshot,
        &["n1 Unreachable session 1 because Silent \
           [node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute]"],
    );
    assert_eq!(plan.waiting.len(), 1);
}

#[test]
fn pods_on_a_node_that_nothing_is_known_of_are_given_up() {
    let unknown = NodeFacts {
        bindings: 1,
        bound_session: 4,
        ..NodeFacts::default()
    };
    check(
        cluster([up(1), unknown]),
        &["n2 Unreachable session 4 because Silent \
           [node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute]"],
    );
}

#[test]
fn a_session_that_cannot_be_read_freezes_the_node() {
    let odd = NodeFacts {
        session: Session::Unreadable,
        desired: false,
        ..up(2)
    };
    let (_, plan) = check(cluster([up(1), odd]), &[]);
    assert_eq!(plan.waiting.len(), 1);
}

#[test]
fn a_health_record_that_somebody_broke_is_written_again() {
    let broken = NodeFacts {
        health_unreadable: true,
        ..up(2)
    };
    check(
        cluster([up(1), broken]),
        &["n2 Ready session 2 because Alive(2) []"],
    );
    let never_read = NodeFacts {
        health: None,
        health_unreadable: true,
        ..up(2)
    };
    check(
        cluster([up(1), never_read]),
        &["n2 Ready session 2 because Alive(2) []"],
    );
}

#[test]
fn a_name_that_no_node_can_have_is_not_registered() {
    let mut snapshot = Snapshot::default();
    snapshot.nodes.insert(
        "Not_A_Name".into(),
        NodeFacts {
            session: Session::Alive(1),
            ..NodeFacts::default()
        },
    );
    let plan = decide(&snapshot, at(0));
    assert_eq!(plan.steps, []);
    assert!(
        plan.waiting[0]
            .1
            .starts_with("cannot be registered: its name must be"),
        "{:?}",
        plan.waiting
    );
}

#[test]
fn a_health_record_is_readable_yaml() {
    let facts = gone(2);
    let text = setpoint_apis::document::encode(&unreachable(&facts, "its lease expired", at(0)));
    assert_eq!(
        text,
        "state: Unreachable\nsession: 2\nsince: 2023-11-14T22:13:20Z\nmessage: its lease expired\ntaints:\n\
         - key: node.kubernetes.io/unreachable\n  effect: NoSchedule\n\
         - key: node.kubernetes.io/unreachable\n  effect: NoExecute\n  timeAdded: 2023-11-14T22:13:20Z\n"
    );
}

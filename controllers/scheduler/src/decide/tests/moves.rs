//! Moves, by value.

use setpoint_apis::core::{ContainerStatus, PodCondition, RestartPolicy};
use setpoint_apis::meta::OwnerReference;
use setpoint_apis::records::Moving;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

/// A pod that runs on n1 and has been started on n2, from 100 until 160.
fn moving() -> State {
    State::bound().with(|s| {
        let binding = s.binding.as_mut().unwrap();
        binding.mod_revision = 40;
        binding.value.work_revision = Some(20);
        binding.value.moving = Some(Box::new(Moving {
            to: "n2".into(),
            session: 6,
            placement: 2,
            since: at(100),
            deadline: at(160),
            ..Moving::default()
        }));
        s.work = vec![work("n1", 20), work("n2", 40)];
        s.other = Some((there(PodStage::Starting), Session::Alive(6)));
        s.now = at(110);
    })
}

/// What n2 reports.
fn there(stage: PodStage) -> Option<Stored<PodActual>> {
    let actual = PodActual {
        placement: 2,
        stage,
        ..PodActual::default()
    };
    Some(stored(actual, 41, 45))
}

fn ready(since: i64) -> Option<Stored<PodActual>> {
    let mut actual = there(PodStage::Running).unwrap();
    actual.value.conditions = vec![PodCondition::new("Ready", true, at(since))];
    Some(actual)
}

fn ask(to: Option<&str>) -> IntentFacts {
    let mut asked = intent(Verb::Move, None, None);
    asked.intent.as_mut().unwrap().to = to.map(Into::into);
    asked
}

const WAITS: Step = Step::Wait("it to be ready on the node that it moves to");

#[test]
fn a_pod_that_is_to_be_moved_wants_a_node_and_is_started_there_first() {
    let asked = || State::bound().with(|s| s.intents = vec![ask(None)]);
    let step = |stop_first| Step::Move {
        which: 0,
        stop_first,
    };
    assert_eq!(asked().decide(), step(false));
    assert_eq!(
        asked().with(|s| s.may_evict = false).decide(),
        step(false),
        "it serves all the time, so budgets have no say"
    );
    assert_eq!(
        asked().with(|s| s.actual = None).decide(),
        step(true),
        "nothing of it runs yet"
    );
    let older = IntentFacts {
        revision: 9,
        ..ask(Some("n3"))
    };
    let two = asked().with(|s| s.intents.push(older));
    assert_eq!(
        two.decide(),
        Step::Move {
            which: 1,
            stop_first: false
        }
    );
    let changed = asked().with(|s| s.desired.as_mut().unwrap().mod_revision = 99);
    assert_eq!(changed.decide(), Step::Refresh, "its copy first");
    let ended = asked().with(|s| s.actual = actual(PodStage::Succeeded));
    assert!(matches!(
        ended.decide(),
        Step::DropIntents {
            why: Stale::Ended(22),
            ..
        }
    ));
    let unreadable = asked().with(|s| s.frozen = &["actual"]);
    assert_eq!(unreadable.decide(), Step::Frozen("status"));
}

#[test]
fn a_pod_that_must_never_run_twice_is_stopped_first_and_within_its_budget() {
    let asked = || {
        State::bound().with(|s| {
            s.desired = Some(stored(stop_pod(), 10, 10));
            s.intents = vec![ask(None)];
        })
    };
    let step = Step::Move {
        which: 0,
        stop_first: true,
    };
    assert_eq!(asked().decide(), step);
    let blocked = asked().with(|s| s.may_evict = false);
    assert_eq!(blocked.decide(), Step::Wait(BUDGET));
    let forced = asked().with(|s| {
        s.may_evict = false;
        s.intents[0].intent.as_mut().unwrap().ignore_budgets = true;
    });
    assert_eq!(forced.decide(), step);
}

#[test]
fn a_member_of_a_stateful_set_and_what_runs_to_an_end_is_stopped_first_and_within_its_budget() {
    type Change = fn(&mut Pod);
    let asked = |change: Change| {
        State::bound().with(|s| {
            change(&mut s.desired.as_mut().unwrap().value);
            s.intents = vec![ask(None)];
        })
    };
    fn owned(pod: &mut Pod, kind: &str) {
        pod.metadata.owner_references = vec![OwnerReference {
            kind: kind.into(),
            controller: Some(true),
            ..OwnerReference::default()
        }];
    }
    let stop_first = |stop_first| Step::Move {
        which: 0,
        stop_first,
    };
    let cases: [(Change, bool); 4] = [
        (|pod| owned(pod, "StatefulSet"), true),
        (|pod| owned(pod, "ReplicaSet"), false),
        (
            |pod| Arc::make_mut(&mut pod.spec).restart_policy = Some(RestartPolicy::OnFailure),
            true,
        ),
        (
            |pod| Arc::make_mut(&mut pod.spec).restart_policy = Some(RestartPolicy::Never),
            true,
        ),
    ];
    for (change, first) in cases {
        assert_eq!(asked(change).decide(), stop_first(first));
        let blocked = asked(change).with(|s| s.may_evict = false).decide();
        let waits = matches!(blocked, Step::Wait(BUDGET));
        assert_eq!(waits, first, "{blocked:?}");
    }
}

#[test]
fn a_pod_that_was_stopped_to_be_moved_is_started_there_when_it_has_stopped() {
    let stopping = || {
        moving().withdrawn().with(|s| {
            s.desired = Some(stored(stop_pod(), 10, 10));
            s.binding.as_mut().unwrap().value.work_revision = None;
            s.other = Some((None, Session::Alive(6)));
        })
    };
    assert_eq!(stopping().decide(), Step::Wait("its agent to stop it"));
    let stopped = || stopping().with(|s| s.actual = None);
    let switch = Step::Switch {
        consume: vec![],
        how: Switch::Stopped,
    };
    assert_eq!(stopped().decide(), switch);
    let lost = stopped().with(|s| s.other = Some((None, Session::Absent)));
    assert_eq!(lost.decide(), Step::Finish, "it is placed anywhere");
    let deleted = stopped().with(|s| s.desired = None);
    assert_eq!(deleted.decide(), Step::Finish);
}

#[test]
fn a_pod_is_moved_when_it_is_ready_there_and_not_before() {
    assert_eq!(moving().decide(), WAITS);
    let unclaimed = moving().with(|s| s.other = Some((None, Session::Alive(6))));
    assert_eq!(unclaimed.decide(), WAITS);
    let running = moving().with(|s| s.other.as_mut().unwrap().0 = there(PodStage::Running));
    assert_eq!(running.decide(), WAITS, "it runs and is not ready");
    let done = || moving().with(|s| s.other.as_mut().unwrap().0 = ready(109));
    let switch = Step::Switch {
        consume: vec![],
        how: Switch::Ready(45),
    };
    assert_eq!(done().decide(), switch);
    assert_eq!(
        done().with(|s| s.session = Session::Absent).decide(),
        switch,
        "its own node is lost meanwhile"
    );
    let unreadable = done().with(|s| s.frozen = &["actual"]);
    assert_eq!(unreadable.decide(), WAITS, "it may have ended here");
    let former = done().with(|s| {
        let (actual, _) = s.other.as_mut().unwrap();
        actual.as_mut().unwrap().value.placement = 1;
    });
    assert_eq!(former.decide(), WAITS, "a former placement says nothing");
    let short = |now| {
        done().with(|s| {
            let binding = s.binding.as_mut().unwrap();
            binding.value.moving.as_mut().unwrap().min_ready_seconds = Some(10);
            // Its node's clock is far behind.
            s.other.as_mut().unwrap().0 = ready(3);
            s.ready_seen = Some(at(109));
            s.now = at(now);
        })
    };
    assert_eq!(short(118).decide(), WAITS);
    assert_eq!(short(119).decide(), switch);
    let unnoted = short(119).with(|s| s.ready_seen = None);
    assert_eq!(unnoted.decide(), WAITS);
}

#[test]
fn a_move_that_comes_to_nothing_is_undone() {
    let undone = |state: State, why| assert_eq!(state.decide(), Step::Undo(why));
    undone(moving().with(|s| s.now = at(160)), Undo::NotReady);
    let other = |actual, session| moving().with(|s| s.other = Some((actual, session)));
    undone(other(ready(109), Session::Absent), Undo::TargetLost);
    for stage in [PodStage::Failed, PodStage::Succeeded] {
        undone(other(there(stage), Session::Alive(6)), Undo::EndedThere);
    }
    let mut crashed = ready(109).unwrap();
    crashed.value.container_statuses = vec![ContainerStatus {
        name: "web".into(),
        restart_count: 1,
        ..ContainerStatus::default()
    }];
    let container = "web".to_owned();
    undone(
        other(Some(crashed), Session::Alive(6)),
        Undo::Crashed { container },
    );
    undone(
        moving().with(|s| s.actual = actual(PodStage::Succeeded)),
        Undo::EndedHere,
    );
    undone(
        moving().with(|s| s.desired = Some(stored(stop_pod(), 10, 10))),
        Undo::NeverTwice,
    );
}

#[test]
fn a_pod_that_leaves_another_node_is_waited_for_and_then_forgotten_there() {
    let leaving = |actual, session| {
        State::bound().with(|s| {
            s.binding.as_mut().unwrap().value.leaving = Some("n0".into());
            s.other = Some((actual, session));
            s.intents = vec![ask(None)];
        })
    };
    let stays = || there(PodStage::Running);
    assert_eq!(
        leaving(stays(), Session::Alive(6)).decide(),
        Step::Wait("the other node's agent to stop it"),
        "it is not moved again before"
    );
    assert_eq!(
        leaving(stays(), Session::Absent).decide(),
        Step::Left { lost: true }
    );
    assert_eq!(
        leaving(None, Session::Alive(6)).decide(),
        Step::Left { lost: false }
    );
    // The binding outlives what it speaks of.
    let withdrawn = |actual, session| {
        leaving(actual, session).withdrawn().with(|s| {
            s.intents.clear();
            s.actual = None;
        })
    };
    assert_eq!(
        withdrawn(stays(), Session::Alive(6)).decide(),
        Step::Wait("the other node's agent to stop it")
    );
    assert_eq!(withdrawn(None, Session::Alive(6)).decide(), Step::Finish);
    let never_twice = withdrawn(stays(), Session::Absent)
        .with(|s| s.binding.as_mut().unwrap().value.never_twice = true);
    assert_eq!(
        never_twice.decide(),
        Step::Wait("the other node's agent to stop it"),
        "nothing proves that it has stopped"
    );
}

#[test]
fn a_pod_that_is_being_moved_and_is_to_go_is_withdrawn_from_both_nodes() {
    let withdraw = |why, consume| Step::Withdraw {
        why,
        claimed: true,
        consume,
    };
    let deleted = moving().with(|s| {
        s.desired = None;
        s.actual = None;
    });
    assert_eq!(
        deleted.decide(),
        withdraw(Why::Deleted, vec![]),
        "it may run on the other node"
    );
    let evicted = moving().with(|s| s.intents = vec![intent(Verb::Evict, None, None)]);
    assert_eq!(evicted.decide(), withdraw(Why::Evicted, vec![0]));
}

#[test]
fn a_pod_whose_node_is_lost_while_it_moves_is_released_to_the_other_node() {
    let lost = || {
        moving().with(|s| {
            s.session = Session::Absent;
            s.intents = vec![intent(Verb::Release, Some("n1"), Some(5))];
        })
    };
    assert_eq!(
        lost().decide(),
        Step::Switch {
            consume: vec![0],
            how: Switch::Lost
        }
    );
    // What is not wanted is not forgotten while it may run on the other node.
    let deleted = lost().with(|s| s.desired = None);
    assert_eq!(
        deleted.decide(),
        Step::Withdraw {
            why: Why::Deleted,
            claimed: true,
            consume: vec![]
        }
    );
}

#[test]
fn requests_for_a_move_that_is_under_way_are_dropped_and_others_wait() {
    let asked = |to| moving().with(|s| s.intents = vec![ask(to)]);
    for to in [None, Some("n2")] {
        assert_eq!(
            asked(to).decide(),
            Step::DropIntents {
                which: vec![0],
                why: Stale::Moving
            }
        );
    }
    assert_eq!(asked(Some("n3")).decide(), WAITS);
}

#[test]
fn both_copies_are_kept_current_and_others_removed() {
    let changed = moving().with(|s| s.desired.as_mut().unwrap().mod_revision = 99);
    assert_eq!(changed.decide(), Step::Refresh);
    let missing = moving().with(|s| s.work.truncate(1));
    assert_eq!(missing.decide(), Step::Refresh);
    let stray = moving().with(|s| s.work.push(work("n3", 7)));
    assert_eq!(
        stray.decide(),
        Step::DropWork {
            nodes: vec!["n3".into()]
        }
    );
}

#[test]
fn a_pod_that_moves_is_looked_at_again_when_its_time_is_over() {
    let due = |state: &State| {
        let binding = state.binding.as_ref().unwrap();
        let other = state.other.as_ref().map(|(actual, session)| Other {
            actual: actual.as_ref().map_or(Seen::Absent, Seen::Valid),
            session: *session,
            ready_seen: state.ready_seen,
        });
        look_again(&Facts {
            desired: Seen::Absent,
            binding: Seen::Valid(binding),
            broken: None,
            actual: Seen::Absent,
            session: state.session,
            fenced: false,
            other,
            now: state.now,
            work: &[],
            recorded: None,
            intents: &[],
            leave: None,
            may_evict: true,
        })
    };
    assert_eq!(due(&State::bound()), None);
    assert_eq!(due(&moving()), Some(at(160)));
    let ready = moving().with(|s| {
        let binding = s.binding.as_mut().unwrap();
        binding.value.moving.as_mut().unwrap().min_ready_seconds = Some(10);
        s.other.as_mut().unwrap().0 = ready(3);
        s.ready_seen = Some(at(109));
    });
    assert_eq!(due(&ready), Some(at(119)));
    assert_eq!(due(&moving().withdrawn()), None);
}

mod moves;

use std::sync::Arc;

use setpoint_apis::core::PodSpec;
use setpoint_apis::records::{ClaimFence, Withdrawal};
use setpoint_apis::time::Timestamp;

use super::*;

/// The state of one pod, bound to n1 and running, to be changed by each test.
struct State {
    desired: Option<Stored<Pod>>,
    frozen: &'static [&'static str],
    binding: Option<Stored<Binding>>,
    actual: Option<Stored<PodActual>>,
    session: Session,
    fenced: bool,
    /// What the other node of a move reports, and its session.
    other: Option<(Option<Stored<PodActual>>, Session)>,
    ready_seen: Option<Timestamp>,
    now: Timestamp,
    work: Vec<WorkCopy>,
    recorded: Option<u32>,
    intents: Vec<IntentFacts>,
    leave: Option<Why>,
    may_evict: bool,
}

fn stored<T>(value: T, create_revision: i64, mod_revision: i64) -> Stored<T> {
    Stored {
        value,
        create_revision,
        mod_revision,
        version: 1,
    }
}

fn binding() -> Binding {
    Binding {
        node: "n1".into(),
        session: 5,
        placement: 1,
        pod_revision: 10,
        bound_at: Timestamp::EPOCH,
        never_twice: false,
        requests: Default::default(),
        withdrawn: None,
        decision: None,
        ..Binding::default()
    }
}

fn actual(stage: PodStage) -> Option<Stored<PodActual>> {
    Some(stored(
        PodActual {
            placement: 1,
            stage,
            ..PodActual::default()
        },
        21,
        22,
    ))
}

fn work(node: &str, revision: i64) -> WorkCopy {
    WorkCopy {
        node: node.into(),
        revision,
    }
}

fn intent(verb: Verb, node: Option<&str>, session: Option<i64>) -> IntentFacts {
    let intent = Intent {
        node: node.map(Into::into),
        session,
        ..Intent::default()
    };
    IntentFacts {
        verb,
        by: "x".into(),
        revision: 30,
        intent: Some(intent),
    }
}

impl State {
    fn bound() -> Self {
        Self {
            desired: Some(stored(Pod::default(), 10, 10)),
            frozen: &[],
            binding: Some(stored(binding(), 20, 20)),
            actual: actual(PodStage::Running),
            session: Session::Alive(5),
            fenced: false,
            other: None,
            ready_seen: None,
            now: Timestamp::EPOCH,
            work: vec![work("n1", 20)],
            recorded: None,
            intents: Vec::new(),
            leave: None,
            may_evict: true,
        }
    }

    fn unbound() -> Self {
        Self {
            binding: None,
            actual: None,
            session: Session::Absent,
            work: Vec::new(),
            ..Self::bound()
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn withdrawn(self) -> Self {
        self.with(|s| {
            let withdrawn = Withdrawal {
                reason: "Evicted".into(),
                at: Timestamp::EPOCH,
                grace_seconds: None,
            };
            s.binding.as_mut().unwrap().value.withdrawn = Some(withdrawn);
            s.work.clear();
        })
    }

    fn decide(&self) -> Step {
        fn seen<'a, T>(frozen: bool, value: Option<&'a Stored<T>>) -> Seen<'a, T> {
            if frozen {
                Seen::Frozen
            } else {
                value.map_or(Seen::Absent, Seen::Valid)
            }
        }
        decide(&Facts {
            desired: seen(self.frozen.contains(&"desired"), self.desired.as_ref()),
            binding: seen(self.frozen.contains(&"binding"), self.binding.as_ref()),
            broken: None,
            actual: seen(self.frozen.contains(&"actual"), self.actual.as_ref()),
            session: self.session,
            fenced: self.fenced,
            other: self.other.as_ref().map(|(actual, session)| Other {
                actual: seen(self.frozen.contains(&"other"), actual.as_ref()),
                session: *session,
                ready_seen: self.ready_seen,
            }),
            now: self.now,
            work: &self.work,
            recorded: self.recorded,
            intents: &self.intents,
            leave: self.leave,
            may_evict: self.may_evict,
        })
    }
}

fn named(node: &str) -> Pod {
    Pod {
        spec: Arc::new(PodSpec {
            node_name: Some(node.into()),
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}

const FENCE: ClaimFence = ClaimFence {
    revision: 19,
    lease_ttl_seconds: 30,
};

fn stop_pod() -> Pod {
    let mut pod = Pod::default();
    pod.metadata
        .annotations
        .insert(PARTITION_POLICY.into(), "stop".into());
    pod
}

#[test]
fn a_bound_pod_that_is_as_wanted_is_left_alone() {
    assert_eq!(State::bound().decide(), Step::Rest);
    assert_eq!(
        State::bound().with(|s| s.actual = None).decide(),
        Step::Rest
    );
    assert_eq!(
        State::bound()
            .with(|s| s.session = Session::Absent)
            .decide(),
        Step::Rest,
        "nobody asked for a release"
    );
    assert_eq!(
        State::bound()
            .with(|s| s.desired = Some(stored(named("n1"), 10, 10)))
            .decide(),
        Step::Rest
    );
    assert_eq!(
        State::bound()
            .with(|s| s.actual = actual(PodStage::Succeeded))
            .decide(),
        Step::Rest
    );
}

#[test]
fn a_pod_without_a_binding_is_placed_and_one_without_a_document_is_nothing() {
    assert_eq!(State::unbound().decide(), Step::Place);
    assert_eq!(
        State::unbound().with(|s| s.recorded = Some(0)).decide(),
        Step::Place
    );
    assert_eq!(
        State::unbound().with(|s| s.desired = None).decide(),
        Step::Rest
    );
    let record = State::unbound().with(|s| (s.desired, s.recorded) = (None, Some(0)));
    assert_eq!(record.decide(), Step::DropRecord);
}

#[test]
fn a_deleted_pod_is_withdrawn_at_once_or_stopped_first_when_it_was_claimed() {
    let withdraw = |claimed| Step::Withdraw {
        why: Why::Deleted,
        claimed,
        consume: vec![],
    };
    let deleted = || State::bound().with(|s| s.desired = None);
    assert_eq!(deleted().decide(), withdraw(true));
    assert_eq!(
        deleted().with(|s| s.actual = None).decide(),
        withdraw(false)
    );
    assert_eq!(
        deleted().with(|s| s.frozen = &["actual"]).decide(),
        withdraw(true),
        "what cannot be read is there"
    );
    assert_eq!(
        deleted()
            .with(|s| s.actual = actual(PodStage::Failed))
            .decide(),
        withdraw(true)
    );
}

#[test]
fn a_new_incarnation_waits_for_the_end_of_the_former() {
    let recreated = || State::bound().with(|s| s.desired = Some(stored(Pod::default(), 25, 26)));
    assert_eq!(
        recreated().decide(),
        Step::Withdraw {
            why: Why::Deleted,
            claimed: true,
            consume: vec![]
        }
    );
    assert_eq!(
        recreated().withdrawn().decide(),
        Step::Wait("its agent to stop it")
    );
    assert_eq!(
        recreated().withdrawn().with(|s| s.actual = None).decide(),
        Step::Finish
    );
}

#[test]
fn a_withdrawn_pod_is_finished_when_its_agent_has_removed_its_record() {
    assert_eq!(
        State::bound().withdrawn().decide(),
        Step::Wait("its agent to stop it")
    );
    assert_eq!(
        State::bound()
            .withdrawn()
            .with(|s| s.frozen = &["actual"])
            .decide(),
        Step::Frozen("status")
    );
    assert_eq!(
        State::bound()
            .withdrawn()
            .with(|s| s.actual = None)
            .decide(),
        Step::Finish
    );
    let left_over = State::bound()
        .withdrawn()
        .with(|s| s.work = vec![work("n1", 20)]);
    assert_eq!(
        left_over.decide(),
        Step::DropWork {
            nodes: vec!["n1".into()]
        }
    );
}

#[test]
fn a_changed_document_or_a_work_copy_that_is_not_the_bindings_is_written_again() {
    assert_eq!(
        State::bound()
            .with(|s| s.desired = Some(stored(Pod::default(), 10, 25)))
            .decide(),
        Step::Refresh
    );
    assert_eq!(
        State::bound().with(|s| s.work = vec![]).decide(),
        Step::Refresh
    );
    assert_eq!(
        State::bound()
            .with(|s| s.work = vec![work("n1", 21)])
            .decide(),
        Step::Refresh
    );
    let moved = State::bound().with(|s| s.desired = Some(stored(named("n2"), 10, 25)));
    assert_eq!(
        moved.decide(),
        Step::Withdraw {
            why: Why::NodeNameChanged,
            claimed: true,
            consume: vec![]
        }
    );
}

#[test]
fn work_that_no_binding_stands_behind_is_removed() {
    let stray = State::bound().with(|s| s.work.push(work("n2", 3)));
    assert_eq!(
        stray.decide(),
        Step::DropWork {
            nodes: vec!["n2".into()]
        }
    );
    let stray = State::unbound().with(|s| s.work = vec![work("n2", 3)]);
    assert_eq!(
        stray.decide(),
        Step::DropWork {
            nodes: vec!["n2".into()]
        }
    );
    assert_eq!(
        State::bound().with(|s| s.recorded = Some(1)).decide(),
        Step::DropRecord
    );
}

#[test]
fn what_does_not_parse_is_frozen_whatever_else_is_so() {
    for gone in [true, false] {
        let state = || {
            State::bound().with(|s| {
                if gone {
                    s.desired = None
                }
            })
        };
        assert_eq!(
            state().with(|s| s.frozen = &["binding"]).decide(),
            Step::Frozen("binding")
        );
        assert_eq!(
            state().with(|s| s.frozen = &["desired"]).decide(),
            Step::Frozen("desired document")
        );
    }
    assert_eq!(
        State::unbound().with(|s| s.frozen = &["desired"]).decide(),
        Step::Invalid
    );
    let lost = || {
        State::bound().with(|s| {
            s.session = Session::Absent;
            s.intents = vec![intent(Verb::Release, Some("n1"), Some(5))];
        })
    };
    assert_eq!(
        lost().with(|s| s.frozen = &["desired"]).decide(),
        Step::Frozen("desired document")
    );
    assert_eq!(
        lost().with(|s| s.frozen = &["actual"]).decide(),
        Step::Frozen("status")
    );
    assert_eq!(
        lost().with(|s| s.session = Session::Unreadable).decide(),
        Step::Frozen("node session")
    );
}

#[test]
fn a_pod_of_a_lost_node_is_released_on_request() {
    let asked = || {
        State::bound().with(|s| {
            s.session = Session::Absent;
            s.intents = vec![intent(Verb::Release, Some("n1"), Some(5))];
        })
    };
    let release = |fence| Step::Release {
        consume: vec![0],
        fence,
    };
    assert_eq!(asked().decide(), release(false));
    assert_eq!(
        asked().with(|s| s.actual = None).decide(),
        release(false),
        "claimed or not"
    );
    assert_eq!(
        asked().withdrawn().decide(),
        release(false),
        "withdrawn or not"
    );
    assert_eq!(asked().with(|s| s.desired = None).decide(), release(true));
    let stop = || {
        asked().with(|s| {
            s.desired = Some(stored(stop_pod(), 10, 10));
            s.actual.as_mut().unwrap().value.fence = Some(FENCE);
        })
    };
    assert_eq!(stop().decide(), release(true));
    assert_eq!(stop().with(|s| s.actual = None).decide(), release(true));
    assert_eq!(
        stop().with(|s| s.fenced = true).decide(),
        Step::Wait("the fence lease of its node to end")
    );
    assert_eq!(asked().with(|s| s.fenced = true).decide(), release(false));
}

#[test]
fn no_request_releases_a_stop_pod_that_was_claimed_without_a_fence() {
    let asked = || {
        State::bound().with(|s| {
            s.session = Session::Absent;
            s.desired = Some(stored(stop_pod(), 10, 10));
            s.intents = vec![intent(Verb::Release, None, None)];
        })
    };
    let because = |document| Step::DropIntents {
        which: vec![0],
        why: Stale::NeverTwice(document),
    };
    let refused = |revision| because(Some(revision));
    for fenced in [false, true] {
        assert_eq!(asked().with(|s| s.fenced = fenced).decide(), refused(10));
    }
    assert_eq!(asked().withdrawn().decide(), refused(10));
    let new = asked().with(|s| s.desired = Some(stored(stop_pod(), 25, 26)));
    assert_eq!(
        new.decide(),
        refused(26),
        "it must not run beside its predecessor"
    );
    let deleted = |never_twice| {
        asked().withdrawn().with(|s| {
            s.desired = None;
            s.binding.as_mut().unwrap().value.never_twice = never_twice;
        })
    };
    assert_eq!(deleted(true).decide(), because(None));
    assert!(matches!(deleted(false).decide(), Step::Release { .. }));
    let other = asked().with(|s| s.desired = Some(stored(Pod::default(), 10, 10)));
    assert!(matches!(other.decide(), Step::Release { .. }));
    let back = asked().with(|s| (s.session, s.desired) = (Session::Alive(9), None));
    assert_eq!(
        back.decide(),
        Step::DropIntents {
            which: vec![0],
            why: Stale::NodeAlive(9)
        },
        "on a node that is there nothing changes"
    );
}

#[test]
fn a_node_that_came_back_keeps_its_pods() {
    for session in [5, 9] {
        let back = State::bound().with(|s| {
            s.session = Session::Alive(session);
            s.intents = vec![intent(Verb::Release, Some("n1"), Some(5))];
        });
        assert_eq!(
            back.decide(),
            Step::DropIntents {
                which: vec![0],
                why: Stale::NodeAlive(session)
            }
        );
    }
}

#[test]
fn a_late_request_cannot_hit_a_newer_placement() {
    let lost = |i| State::bound().with(|s| (s.session, s.intents) = (Session::Absent, vec![i]));
    let moot = Step::DropIntents {
        which: vec![0],
        why: Stale::Elsewhere,
    };
    assert_eq!(
        lost(intent(Verb::Release, Some("n2"), Some(5))).decide(),
        moot,
        "another node"
    );
    assert_eq!(
        lost(intent(Verb::Release, Some("n1"), Some(4))).decide(),
        moot,
        "bound under a later session"
    );
    assert!(
        matches!(
            lost(intent(Verb::Release, Some("n1"), Some(7))).decide(),
            Step::Release { .. }
        ),
        "adopted since"
    );
    assert!(
        matches!(
            lost(intent(Verb::Release, None, None)).decide(),
            Step::Release { .. }
        ),
        "by hand"
    );
    assert_eq!(lost(intent(Verb::Evict, Some("n2"), None)).decide(), moot);
    let unbound = State::unbound().with(|s| s.intents = vec![intent(Verb::Evict, None, None)]);
    assert_eq!(unbound.decide(), moot);
}

#[test]
fn an_evicted_pod_is_withdrawn_and_a_finished_one_is_not_run_again() {
    let asked = || State::bound().with(|s| s.intents = vec![intent(Verb::Evict, None, None)]);
    assert_eq!(
        asked().decide(),
        Step::Withdraw {
            why: Why::Evicted,
            claimed: true,
            consume: vec![0]
        }
    );
    let unclaimed = asked().with(|s| s.actual = None);
    assert_eq!(
        unclaimed.decide(),
        Step::Withdraw {
            why: Why::Evicted,
            claimed: false,
            consume: vec![0]
        }
    );
    let moot = |why| Step::DropIntents {
        which: vec![0],
        why,
    };
    assert_eq!(asked().withdrawn().decide(), moot(Stale::Elsewhere));
    assert_eq!(
        asked()
            .with(|s| s.actual = actual(PodStage::Succeeded))
            .decide(),
        moot(Stale::Ended(22))
    );
    let release = State::bound().with(|s| {
        s.session = Session::Absent;
        s.actual = actual(PodStage::Failed);
        s.intents = vec![intent(Verb::Release, Some("n1"), Some(5))];
    });
    assert_eq!(release.decide(), moot(Stale::Ended(22)));
    let deleted = asked().with(|s| s.desired = None);
    assert_eq!(
        deleted.decide(),
        Step::Withdraw {
            why: Why::Deleted,
            claimed: true,
            consume: vec![0]
        }
    );
}

#[test]
fn requests_that_cannot_be_read_are_left_alone() {
    let unreadable = IntentFacts {
        intent: None,
        ..intent(Verb::Evict, None, None)
    };
    assert_eq!(
        State::bound()
            .with(|s| s.intents = vec![unreadable])
            .decide(),
        Step::Rest
    );
    let both = vec![
        intent(Verb::Move, None, None),
        intent(Verb::Evict, None, None),
    ];
    let step = Step::Withdraw {
        why: Why::Evicted,
        claimed: true,
        consume: vec![1, 0],
    };
    assert_eq!(State::bound().with(|s| s.intents = both).decide(), step);
}

#[test]
fn an_eviction_waits_for_its_budget_and_holds_up_nothing_else() {
    let asked = || {
        State::bound().with(|s| {
            s.intents = vec![intent(Verb::Evict, None, None)];
            s.may_evict = false;
        })
    };
    assert_eq!(asked().decide(), Step::Wait(BUDGET));
    let changed = asked().with(|s| s.desired.as_mut().unwrap().mod_revision = 99);
    assert_eq!(changed.decide(), Step::Refresh);
    let allowed = asked().with(|s| s.may_evict = true);
    assert!(matches!(
        allowed.decide(),
        Step::Withdraw {
            why: Why::Evicted,
            ..
        }
    ));
    let forced = asked().with(|s| {
        let mut second = intent(Verb::Evict, None, None);
        second.intent.as_mut().unwrap().ignore_budgets = true;
        s.intents.push(second);
    });
    assert!(matches!(
        forced.decide(),
        Step::Withdraw { why: Why::Evicted, consume, .. } if consume == [0, 1]
    ));
}

#[test]
fn a_pod_that_is_to_leave_is_withdrawn_and_takes_its_requests_along() {
    for why in [Why::Preempted, Why::GroupIncomplete] {
        let state = State::bound().with(|s| {
            s.leave = Some(why);
            s.intents = vec![intent(Verb::Evict, None, None)];
            s.may_evict = false;
        });
        let step = state.decide();
        assert_eq!(
            step,
            Step::Withdraw {
                why,
                claimed: true,
                consume: vec![0]
            }
        );
    }
    let ended = State::bound().with(|s| {
        s.leave = Some(Why::Preempted);
        s.actual = actual(PodStage::Succeeded);
    });
    assert_eq!(ended.decide(), Step::Rest, "it takes no room");
}

#[test]
fn an_eviction_of_another_pod_of_the_name_is_dropped() {
    let state = State::bound().with(|s| {
        let mut late = intent(Verb::Evict, None, None);
        late.intent.as_mut().unwrap().uid = Some("another".into());
        s.intents = vec![late];
    });
    assert_eq!(
        state.decide(),
        Step::DropIntents {
            which: vec![0],
            why: Stale::Elsewhere
        }
    );
}

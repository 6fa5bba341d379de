//! What moves write, and on what they guard.

use setpoint_apis::records::{MoveOutcome, Moving};

use super::*;
use crate::decide::{Other, Switch, Undo};

const THERE: &str = "/setpoint/work/n2/pods/default/a";
const ACTUAL_THERE: &str = "/setpoint/actual/nodes/n2/pods/default/a";
const ALIVE_THERE: &str = "/setpoint/actual/nodes/n2/alive";
const MOVE: &str = "/setpoint/intents/move/default/a/x";

fn moving() -> Moving {
    Moving {
        to: "n2".into(),
        session: 6,
        placement: 4,
        request: 40,
        ..Moving::default()
    }
}

/// What a write makes of a binding that is changed before by `change`.
fn make(
    change: impl FnOnce(&mut Binding),
    write: impl FnOnce(&Writer<'_>, &Facts<'_>, &Stored<Pod>) -> Option<(Write, Effects)>,
) -> (Write, Effects, Binding) {
    let keyspace = Keyspace::default();
    let key = ObjectKey::namespaced("default", "a");
    let (pod, mut binding, actual) = (
        stored(Pod::default(), 10, 12),
        binding(),
        stored(PodActual::default(), 30, 31),
    );
    change(&mut binding.value);
    let there = stored(PodActual::default(), 34, 35);
    let intents = [IntentFacts {
        verb: Verb::Move,
        by: "x".into(),
        revision: 40,
        intent: Some(Intent {
            timeout_seconds: Some(30),
            ..Intent::default()
        }),
    }];
    let copy = |node: &str, revision| WorkCopy {
        node: node.into(),
        revision,
    };
    let facts = Facts {
        desired: Seen::Valid(&pod),
        binding: Seen::Valid(&binding),
        broken: None,
        actual: Seen::Valid(&actual),
        session: Session::Alive(5),
        fenced: false,
        other: Some(Other {
            actual: Seen::Valid(&there),
            session: Session::Alive(8),
            ready_seen: None,
        }),
        now: Timestamp::from_unix_seconds(9),
        work: &[copy("n1", 21), copy("n2", 22)],
        recorded: None,
        intents: &intents,
        leave: None,
        may_evict: true,
    };
    let writer = Writer {
        keyspace: &keyspace,
        key: &key,
        now: Timestamp::from_unix_seconds(9),
    };
    let (write, effects) = write(&writer, &facts, &pod).expect("a write");
    let put = write.ops.iter().find_map(|op| match op {
        TxnOp::Put(put) if put.key == BINDING => Some(put.value.clone()),
        _ => None,
    });
    let next = document::decode_value(&put.expect("a binding")).expect("it parses");
    (write, effects, next)
}

fn step(change: impl FnOnce(&mut Binding), step: &Step) -> (Write, Effects, Binding) {
    make(change, |writer, facts, _| {
        writer.step(facts, step, |_| "  containers: []\n".into())
    })
}

fn begin(stop_first: bool) -> (Write, Effects, Binding) {
    let placement = Placement {
        node: "n2".into(),
        session: 8,
        nodes: 2,
        feasible: 1,
        score: 7,
        runner_up: None,
    };
    let change = |b: &mut Binding| b.placements = Some(5);
    make(change, |writer, facts, pod| {
        let new = NewMove {
            which: 0,
            consume: &[0],
            placement: &placement,
            extras: Extras::default(),
            revision: 99,
            stop_first,
            spec: "  containers: []\n",
        };
        writer.begin_move(facts, pod, new)
    })
}

#[test]
fn a_move_begins_with_a_copy_on_the_other_node_and_a_number_never_given_before() {
    let (write, effects, next) = begin(false);
    let session = Compare::CreateRevision(ALIVE_THERE.into(), 8);
    let guards = [
        at(BINDING, 21),
        at(POD, 12),
        session,
        at(MOVE, 40),
        at(ACTUAL, 31),
    ];
    assert_eq!(write.guards, guards, "what has ended here is not run again");
    assert_ops(&write, &[BINDING, THERE], &[MOVE]);
    let moving = next.moving.as_deref().expect("it moves");
    assert_eq!(
        (moving.to.as_str(), moving.session, moving.placement),
        ("n2", 8, 6)
    );
    assert_eq!(moving.deadline, Timestamp::from_unix_seconds(39));
    assert_eq!((moving.request, moving.by.as_str()), (40, "x"));
    assert_eq!(
        (next.node.as_str(), next.placement, next.work_revision),
        ("n1", 3, Some(21)),
        "here nothing changes"
    );
    assert_eq!(effects.work_put, ["n2".into()]);
    assert!(effects.work_gone.is_empty());
}

#[test]
fn a_move_that_stops_first_guards_on_the_status_and_starts_nothing() {
    let (write, effects, next) = begin(true);
    let session = Compare::CreateRevision(ALIVE_THERE.into(), 8);
    let guards = [
        at(BINDING, 21),
        at(POD, 12),
        session,
        at(MOVE, 40),
        at(ACTUAL, 31),
    ];
    assert_eq!(write.guards, guards);
    assert_ops(&write, &[BINDING], &[MOVE, WORK]);
    assert_eq!(next.withdrawn.map(|w| w.reason).as_deref(), Some("Moved"));
    assert!(next.moving.is_some());
    assert_eq!(effects.work_gone, ["n1".into()]);
}

#[test]
fn a_move_ends_in_one_transaction() {
    let moves = |b: &mut Binding| {
        b.moving = Some(Box::new(moving()));
        b.work_revision = Some(21);
    };
    let switch = |how| Step::Switch {
        consume: vec![],
        how,
    };
    let (write, effects, next) = step(moves, &switch(Switch::Ready(35)));
    assert_eq!(
        write.guards,
        [at(BINDING, 21), at(ACTUAL_THERE, 35), at(ACTUAL, 31)],
        "it is ready there, and has not ended here"
    );
    assert_ops(&write, &[BINDING], &[WORK]);
    assert_eq!(
        (next.node.as_str(), next.session, next.placement),
        ("n2", 6, 4)
    );
    assert_eq!(
        (next.work_revision, next.leaving.as_deref(), next.moving),
        (Some(22), Some("n1"), None)
    );
    assert_eq!(effects.work_gone, ["n1".into()]);
    let last = next.last_move.expect("it says so");
    assert_eq!((last.outcome, last.request), (MoveOutcome::Moved, 40));

    let (write, _, next) = step(moves, &switch(Switch::Lost));
    assert_eq!(write.guards, [at(BINDING, 21), absent(ALIVE)]);
    assert_ops(&write, &[BINDING], &[WORK, ACTUAL]);
    assert_eq!((next.node.as_str(), next.leaving), ("n2", None));

    let stopped = |b: &mut Binding| {
        b.moving = Some(Box::new(moving()));
        b.withdrawn = Some(Withdrawal {
            reason: "Moved".into(),
            at: Timestamp::EPOCH,
            grace_seconds: None,
        });
    };
    let (write, effects, next) = step(stopped, &switch(Switch::Stopped));
    let session = Compare::CreateRevision(ALIVE_THERE.into(), 8);
    assert_eq!(
        write.guards,
        [at(BINDING, 21), absent(ACTUAL), session, at(POD, 12)]
    );
    assert_ops(&write, &[BINDING, THERE], &[]);
    assert_eq!(
        (
            next.session,
            next.pod_revision,
            next.withdrawn,
            next.leaving
        ),
        (8, 12, None, None)
    );
    assert_eq!(effects.work_put, ["n2".into()]);
}

#[test]
fn an_undone_move_leaves_the_copy_here_as_it_is_and_the_number_is_spent() {
    let moves = |b: &mut Binding| b.moving = Some(Box::new(moving()));
    let (write, effects, next) = step(moves, &Step::Undo(Undo::TargetLost));
    assert_eq!(write.guards, [at(BINDING, 21)]);
    assert_ops(&write, &[BINDING], &[THERE]);
    assert_eq!(
        (next.node.as_str(), next.placement, next.placements),
        ("n1", 3, Some(4))
    );
    assert_eq!(
        (next.work_revision, next.leaving.as_deref()),
        (Some(21), Some("n2"))
    );
    let last = next.last_move.expect("it says so");
    assert_eq!(last.outcome, MoveOutcome::Undone);
    assert_eq!(last.message, "n2 is lost");
    assert_eq!(effects.work_gone, ["n2".into()]);
}

#[test]
fn a_binding_forgets_the_other_node_when_nothing_is_on_record_there() {
    let leaves = |b: &mut Binding| b.leaving = Some("n2".into());
    let (write, _, next) = step(leaves, &Step::Left { lost: false });
    assert_eq!(write.guards, [at(BINDING, 21), absent(ACTUAL_THERE)]);
    assert_ops(&write, &[BINDING], &[]);
    assert_eq!((next.leaving, next.work_revision), (None, Some(21)));
    let (write, ..) = step(leaves, &Step::Left { lost: true });
    assert_eq!(write.guards, [at(BINDING, 21), absent(ALIVE_THERE)]);
    assert_ops(&write, &[BINDING], &[ACTUAL_THERE]);
}

#[test]
fn a_pod_that_moves_is_withdrawn_from_both_nodes() {
    let moves = |b: &mut Binding| b.moving = Some(Box::new(moving()));
    let withdraw = Step::Withdraw {
        why: Why::Deleted,
        claimed: true,
        consume: vec![],
    };
    let (write, _, next) = step(moves, &withdraw);
    assert_eq!(write.guards, [at(BINDING, 21)]);
    assert_ops(&write, &[BINDING], &[WORK, THERE]);
    assert_eq!(
        (next.moving, next.leaving.as_deref(), next.placements),
        (None, Some("n2"), Some(4))
    );
}

#[test]
fn a_refused_request_is_answered_in_the_binding() {
    let refusal = Refusal {
        which: 0,
        to: Some("n9"),
        message: "there is no node n9",
    };
    let refused = make(
        |_| {},
        |writer, facts, _| writer.refuse_move(facts, &refusal),
    );
    let (write, _, next) = refused;
    assert_eq!(write.guards, [at(BINDING, 21), at(MOVE, 40)]);
    assert_ops(&write, &[BINDING], &[MOVE]);
    let last = next.last_move.expect("it says so");
    assert_eq!(last.outcome, MoveOutcome::Refused);
    assert_eq!(last.message, "there is no node n9");
    assert_eq!(next.work_revision, Some(21));
}

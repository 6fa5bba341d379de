use setpoint_apis::records::{Intent, PodActual};

use super::*;
use crate::decide::{IntentFacts, Session, WorkCopy};

const POD: &str = "/setpoint/desired/pods/default/a";
const BINDING: &str = "/setpoint/bindings/default/a";
const WORK: &str = "/setpoint/work/n1/pods/default/a";
const ACTUAL: &str = "/setpoint/actual/nodes/n1/pods/default/a";
const ALIVE: &str = "/setpoint/actual/nodes/n1/alive";
const FENCE: &str = "/setpoint/actual/nodes/n1/fence";
const RECORD: &str = "/setpoint/actual/pods/default/a";
const INTENT: &str = "/setpoint/intents/release/default/a/x";

fn stored<T>(value: T, create_revision: i64, mod_revision: i64) -> Stored<T> {
    Stored {
        value,
        create_revision,
        mod_revision,
        version: 1,
    }
}

fn binding() -> Stored<Binding> {
    let binding = Binding {
        node: "n1".into(),
        session: 5,
        placement: 3,
        pod_revision: 10,
        bound_at: Timestamp::EPOCH,
        never_twice: false,
        requests: Default::default(),
        withdrawn: None,
        decision: None,
        ..Binding::default()
    };
    stored(binding, 20, 21)
}

/// Checks guards and writes of a step for a pod that is bound to n1: `(guards, puts, deletes)`.
fn check(
    wanted: bool,
    step: &Step,
    guards: &[Compare],
    puts: &[&str],
    deletes: &[&str],
) -> Effects {
    check_with(Session::Alive(5), wanted, step, guards, puts, deletes)
}

/// The same, while the node has this session.
fn check_with(
    session: Session,
    wanted: bool,
    step: &Step,
    guards: &[Compare],
    puts: &[&str],
    deletes: &[&str],
) -> Effects {
    let keyspace = Keyspace::default();
    let key = ObjectKey::namespaced("default", "a");
    let (pod, binding, actual) = (
        stored(Pod::default(), 10, 12),
        binding(),
        stored(PodActual::default(), 30, 31),
    );
    let intent = Intent {
        reason: "it is lost".into(),
        ..Intent::default()
    };
    let intents = [IntentFacts {
        verb: Verb::Release,
        by: "x".into(),
        revision: 40,
        intent: Some(intent),
    }];
    let facts = Facts {
        desired: if wanted {
            Seen::Valid(&pod)
        } else {
            Seen::Absent
        },
        binding: Seen::Valid(&binding),
        broken: None,
        actual: Seen::Valid(&actual),
        session,
        fenced: false,
        other: None,
        now: Timestamp::EPOCH,
        work: &[WorkCopy {
            node: "n1".into(),
            revision: 21,
        }],
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
    let (write, effects) = writer
        .step(&facts, step, |_| String::new())
        .expect("a write");
    assert_eq!(write.guards, guards, "{step:?}");
    assert_ops(&write, puts, deletes);
    effects
}

fn assert_ops(write: &Write, puts: &[&str], deletes: &[&str]) {
    let (mut put, mut deleted) = (Vec::new(), Vec::new());
    for op in &write.ops {
        match op {
            TxnOp::Put(p) => put.push(p.key.as_str()),
            TxnOp::Delete(key) => deleted.push(key.as_str()),
            other => panic!("{other:?}"),
        }
    }
    put.sort_unstable();
    deleted.sort_unstable();
    let sorted = |keys: &[&str]| {
        let mut keys: Vec<String> = keys.iter().map(|k| (*k).to_owned()).collect();
        keys.sort_unstable();
        keys
    };
    assert_eq!(
        (put, deleted),
        (
            sorted(puts).iter().map(String::as_str).collect(),
            sorted(deletes).iter().map(String::as_str).collect()
        )
    );
}

fn at(key: &str, revision: i64) -> Compare {
    Compare::ModRevision(key.into(), revision)
}

fn absent(key: &str) -> Compare {
    Compare::absent(key)
}

#[test]
fn every_write_guards_on_all_that_it_was_decided_from() {
    let none = Vec::new;
    let bound = || at(BINDING, 21);
    let unclaimed = Step::Withdraw {
        why: Why::Deleted,
        claimed: false,
        consume: none(),
    };
    check(
        false,
        &unclaimed,
        &[bound(), absent(ACTUAL)],
        &[],
        &[WORK, BINDING],
    );
    check(
        true,
        &unclaimed,
        &[bound(), absent(ACTUAL)],
        &[RECORD],
        &[WORK, BINDING],
    );
    let claimed = Step::Withdraw {
        why: Why::Deleted,
        claimed: true,
        consume: none(),
    };
    check(false, &claimed, &[bound()], &[BINDING], &[WORK]);
    // What has ended meanwhile would run again.
    let evicted = Step::Withdraw {
        why: Why::Evicted,
        claimed: true,
        consume: none(),
    };
    check(
        true,
        &evicted,
        &[bound(), at(ACTUAL, 31)],
        &[BINDING],
        &[WORK],
    );
    // A budget may have let it go because its node does not answer.
    check_with(
        Session::Absent,
        true,
        &evicted,
        &[bound(), at(ACTUAL, 31), absent(ALIVE)],
        &[BINDING],
        &[WORK],
    );
    check(
        false,
        &Step::Finish,
        &[bound(), absent(ACTUAL)],
        &[],
        &[BINDING],
    );
    check(
        true,
        &Step::Finish,
        &[bound(), absent(ACTUAL)],
        &[RECORD],
        &[BINDING],
    );
    let release = |fence| Step::Release {
        consume: vec![0],
        fence,
    };
    let gone = [ACTUAL, WORK, BINDING, INTENT];
    check(
        false,
        &release(false),
        &[bound(), absent(ALIVE), at(INTENT, 40)],
        &[],
        &gone,
    );
    check(
        false,
        &release(true),
        &[
            bound(),
            absent(ALIVE),
            absent(FENCE),
            at(ACTUAL, 31),
            at(INTENT, 40),
        ],
        &[],
        &gone,
    );
    let effects = check(
        true,
        &release(false),
        &[bound(), absent(ALIVE), at(INTENT, 40)],
        &[RECORD],
        &gone,
    );
    assert_eq!(effects.recorded.flatten().map(|r| r.placements), Some(3));
    assert_eq!(effects.work_gone, ["n1".into()]);
    assert!(effects.binding);
    check(
        true,
        &Step::Refresh,
        &[bound(), at(POD, 12)],
        &[BINDING, WORK],
        &[],
    );
    let moot = |why| Step::DropIntents {
        which: vec![0],
        why,
    };
    check(
        false,
        &moot(Stale::NeverTwice(None)),
        &[bound(), at(INTENT, 40)],
        &[],
        &[INTENT],
    );
    check(
        true,
        &moot(Stale::NeverTwice(Some(12))),
        &[bound(), at(INTENT, 40), at(POD, 12)],
        &[],
        &[INTENT],
    );
    check(
        true,
        &moot(Stale::Elsewhere),
        &[bound(), at(INTENT, 40)],
        &[],
        &[INTENT],
    );
    let back = [
        bound(),
        at(INTENT, 40),
        Compare::CreateRevision(ALIVE.into(), 7),
    ];
    check(true, &moot(Stale::NodeAlive(7)), &back, &[], &[INTENT]);
    check(
        true,
        &moot(Stale::Ended(31)),
        &[bound(), at(INTENT, 40), at(ACTUAL, 31)],
        &[],
        &[INTENT],
    );
    check(
        true,
        &Step::DropWork {
            nodes: vec!["n1".into()],
        },
        &[bound()],
        &[],
        &[WORK],
    );
    check(true, &Step::DropRecord, &[bound()], &[], &[RECORD]);
    check(
        false,
        &Step::DropRecord,
        &[bound(), absent(POD)],
        &[],
        &[RECORD],
    );
}

#[test]
fn a_bind_guards_on_document_binding_and_session() {
    let keyspace = Keyspace::default();
    let key = ObjectKey::namespaced("default", "a");
    let writer = Writer {
        keyspace: &keyspace,
        key: &key,
        now: Timestamp::from_unix_seconds(9),
    };
    let placement = Placement {
        node: "n1".into(),
        session: 5,
        nodes: 2,
        feasible: 1,
        score: 7,
        runner_up: Some(setpoint_scheduler_core::RunnerUp {
            node: "n2".into(),
            score: 6,
            lost: None,
        }),
    };
    let pod = stored(Pod::default(), 10, 12);
    let recorded = Recorded {
        placements: 3,
        ..Recorded::default()
    };
    for (recorded, number, deletes) in [(None, 1, &[][..]), (Some(&recorded), 4, &[RECORD][..])] {
        let (write, effects) = writer.bind(
            &pod,
            "  containers: []\n",
            &placement,
            Extras::default(),
            recorded,
            99,
        );
        let session = Compare::CreateRevision(ALIVE.into(), 5);
        assert_eq!(write.guards, [at(POD, 12), absent(BINDING), session]);
        assert_ops(&write, &[BINDING, WORK], deletes);
        let TxnOp::Put(put) = &write.ops[0] else {
            panic!()
        };
        let binding: Binding = document::decode_value(&put.value).unwrap();
        assert_eq!(
            (
                binding.placement,
                binding.pod_revision,
                binding.decision.unwrap().revision
            ),
            (number, 12, 99)
        );
        assert_eq!(
            (effects.recorded, effects.work_put),
            (Some(None), vec!["n1".into()])
        );
    }
    let (write, _) = writer.record(&pod, Some(&recorded), says("no"));
    assert_eq!(
        write.guards,
        [Compare::CreateRevision(POD.into(), 10), absent(BINDING)]
    );
    assert_ops(&write, &[RECORD], &[]);
    // What is wrong with a document is said of that document alone.
    let (write, _) = writer.record_invalid(12, Some(&recorded), says("torn"));
    assert_eq!(write.guards, [at(POD, 12), absent(BINDING)]);
    assert_ops(&write, &[RECORD], &[]);
}

#[test]
fn a_record_keeps_its_count_and_since_when_the_pod_waits() {
    let keyspace = Keyspace::default();
    let key = ObjectKey::namespaced("default", "a");
    let pod = stored(Pod::default(), 10, 12);
    let write = |secs, before: Option<&Recorded>, message| {
        let writer = Writer {
            keyspace: &keyspace,
            key: &key,
            now: Timestamp::from_unix_seconds(secs),
        };
        writer
            .record(&pod, before, says(message))
            .1
            .recorded
            .unwrap()
            .unwrap()
    };
    let first = write(
        5,
        Some(&Recorded {
            placements: 2,
            ..Recorded::default()
        }),
        "one",
    );
    let second = write(9, Some(&first), "two");
    assert_eq!(
        (second.placements, second.since),
        (2, Some(Timestamp::from_unix_seconds(5)))
    );
    assert_ne!(first.message, second.message);
    assert!(second.unschedulable);
}

fn says(message: &str) -> Says {
    Says {
        reason: UNSCHEDULABLE,
        message: message.into(),
        nominated: Some("n7".into()),
        ..Says::default()
    }
}

#[test]
fn a_record_says_for_which_node_a_pod_is_nominated_and_a_new_leader_reads_it() {
    let record = PodScheduling {
        nominated_node: Some("n7".into()),
        conditions: vec![
            PodCondition::new(SCHEDULED, false, Timestamp::EPOCH).because(UNSCHEDULABLE, "no"),
        ],
        ..PodScheduling::default()
    };
    let recorded = Recorded::of(&record);
    assert!(says("no").is_said_by(Some(&recorded)));
    assert!(!says("yes").is_said_by(Some(&recorded)));
    let elsewhere = Says {
        nominated: None,
        ..says("no")
    };
    assert!(!elsewhere.is_said_by(Some(&recorded)));
}

mod moves;

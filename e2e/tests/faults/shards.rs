//! gc led in shards by two processes, of which one dies or freezes.

use setpoint_e2e::faults::rig::CONTROLLERS;
use setpoint_e2e::faults::tap::{Item, Transaction};
use setpoint_e2e::faults::{Mode, Rig};

/// Whether a part of a transaction collects something under the epoch of a shard: an object, or the status of one that is
/// gone. Which of them a process has to collect first hangs on the names of the processes.
fn collects(item: &Item) -> bool {
    let mut guards = item.guards.iter();
    let mut effects = item.effects.iter();
    let object = |key: &str| {
        // Who leads a shard is told under the same guard.
        key.starts_with("/setpoint/desired/")
            || key.starts_with("/setpoint/actual/") && !key.starts_with("/setpoint/actual/leaders/")
    };
    guards.any(|g| g.key.starts_with("/setpoint/leaders/gc/")) && effects.any(|e| object(&e.key))
}

#[test]
fn shards_of_processes_that_die_or_freeze_are_taken_over_and_fenced() {
    let mut rig = Rig::start_sharded("shards");
    let [a, b] = CONTROLLERS;
    rig.shared_by(&[a, b]);
    rig.block(rig.user().deploy("web", 3));
    rig.converge();

    // Killed while there is something to collect, one after the other: what was theirs goes on, and only that moves.
    for (round, (victim, other)) in [(a, b), (b, a)].into_iter().enumerate() {
        rig.block(rig.user().deploy("gone", 4));
        rig.converge();
        rig.block(rig.user().delete("gone"));
        rig.kill(victim);
        rig.shared_by(&[other]);
        rig.converge();
        rig.caches_are_complete(&format!("death {round} of a process that leads shards"));
        rig.start_process(victim);
        rig.shared_by(&[a, b]);
    }

    // Writes of one of them are on their way when it freezes. It has until its lease is over for that.
    let collected = |t: &Transaction| t.answered.is_some() && t.items.iter().any(collects);
    assert!(
        rig.sent(0, collected).is_some(),
        "something has been collected before"
    );
    loop {
        rig.block(rig.user().deploy("gone", 12));
        rig.converge();
        let held = rig.hold_requests(a);
        rig.block(rig.user().delete("gone"));
        let under_way = |t: &Transaction| *t.sender.name == *a && t.items.iter().any(collects);
        let in_time =
            rig.eventually(
                "something that is to be collected is under way",
                |rig| match rig.sent(held, under_way) {
                    Some(_) => Ok(true),
                    None if rig.share(a) == Ok(0) => Ok(false),
                    None => Err(rig.log(a)),
                },
            );
        if in_time {
            break;
        }
        rig.set(a, Mode::Pass);
        rig.converge();
        rig.shared_by(&[a, b]);
    }
    rig.freeze(a);
    rig.shared_by(&[b]);
    rig.converge();

    // They arrive when its shards are another's.
    rig.arrives_late(a, |f| {
        f.fence.starts_with("/setpoint/leaders/gc/") && f.held > f.epoch
    });
    rig.thaw(a);
    rig.shared_by(&[a, b]);
    rig.block(rig.user().deploy("gone", 2));
    rig.converge();
    rig.block(rig.user().delete("gone"));
    rig.finish();
}

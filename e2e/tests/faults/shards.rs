//! gc led in shards by two processes, of which one dies or freezes.

use setpoint_e2e::faults::rig::CONTROLLERS;
use setpoint_e2e::faults::tap::{Item, Transaction};
use setpoint_e2e::faults::{Mode, Rig};

/// Whether a part of a transaction collects something under the epoch of a shard: an object, or the status of one that is
/// gone. Which of them a process has to collect first hangs on the names of the processes.
fn collects(item: &Item) -> bool {
    let mut guards = item.guards.iter();
    let mut effects = item.effects.iter();
    guards.any(|g| g.key.starts_with("/setpoint/leaders/gc/"))
        && effects.any(|e| {
            e.key.starts_with("/setpoint/desired/") || e.key.starts_with("/setpoint/actual/")
        })
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

    // Writes of one of them are on their way when it freezes.
    rig.block(rig.user().deploy("gone", 12));
    rig.converge();
    let written = |t: &Transaction| {
        *t.sender.name == *a && t.answered.is_some() && t.items.iter().any(collects)
    };
    assert!(
        rig.sent(written).is_some(),
        "{a} has collected something before"
    );
    rig.set(a, Mode::HoldRequests);
    rig.block(rig.user().delete("gone"));
    let under_way = |t: &Transaction| {
        *t.sender.name == *a && t.answered.is_none() && t.items.iter().any(collects)
    };
    rig.eventually("something that is to be collected is under way", |rig| {
        rig.sent(under_way).map(drop).ok_or_else(|| rig.log(a))
    });
    rig.freeze(a);
    rig.shared_by(&[b]);
    rig.converge();

    // They arrive when its shards are another's.
    rig.set(a, Mode::Pass);
    let late = rig.eventually("a late write is rejected", |rig| {
        let mut fenced = rig.fenced().into_iter();
        let late =
            fenced.find(|f| *f.sender.name == *a && f.fence.starts_with("/setpoint/leaders/gc/"));
        late.ok_or_else(|| "nothing was fenced off".to_owned())
    });
    assert!(late.held > late.epoch, "{late:?}");
    rig.note(format!("{late:?}"));
    rig.thaw(a);
    rig.shared_by(&[a, b]);
    rig.block(rig.user().deploy("gone", 2));
    rig.converge();
    rig.block(rig.user().delete("gone"));
    rig.finish();
}

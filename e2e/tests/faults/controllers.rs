//! Controllers that lead, and die or freeze.

use setpoint_e2e::faults::tap::Transaction;
use setpoint_e2e::faults::{Mode, Rig};

#[test]
fn controllers_that_lead_and_are_killed_are_followed() {
    let mut rig = Rig::start("killed-controllers");
    rig.block(rig.user().deploy("web", 4));
    rig.converge();
    let load = rig.load("web", 3, 6);
    for round in 0..3 {
        let leader = rig.leading(None);
        rig.moves_on(20);
        rig.kill(leader);
        rig.leading(Some(leader));
        rig.caches_are_complete(&format!("death {round} of a leader"));
        rig.start_process(leader);
    }
    rig.end_load(load, "web", 5);
    rig.finish();
}

#[test]
fn a_leader_that_was_frozen_past_its_lease_writes_nothing_any_more() {
    let mut rig = Rig::start("frozen-controllers");
    let mut replicas = 3;
    // A write of the leader is on its way when it freezes. It has until its lease is over for that.
    let leader = loop {
        rig.block(rig.user().deploy("web", replicas));
        rig.converge();
        // The write that is waited for is one of workloads, which another process may lead than the scheduler.
        let leader = rig.eventually("workloads is led", |rig| rig.leader("workloads"));
        let held = rig.hold_requests(leader);
        replicas += 3;
        rig.block(rig.user().deploy("web", replicas));
        let writes = |t: &Transaction| {
            let mut effects = t.items.iter().flat_map(|i| &i.effects);
            *t.sender.name == *leader && effects.any(|e| e.key.starts_with("/setpoint/desired/"))
        };
        let in_time = rig.eventually("a write of the leader is under way", |rig| {
            match (rig.sent(held, writes), rig.leader("workloads")) {
                (Some(_), _) => Ok(true),
                (None, Ok(now)) if now != leader => Ok(false),
                (None, _) => Err(rig.log(leader)),
            }
        });
        if in_time {
            break leader;
        }
        rig.set(leader, Mode::Pass);
    };
    rig.freeze(leader);
    let said_before = rig.log(leader).len();
    let next = rig.leading(Some(leader));
    rig.converge();

    // It arrives when another process leads and has done the work.
    rig.arrives_late(leader, |f| f.fence.contains("/leaders/") && f.held != 0);
    rig.thaw(leader);
    rig.eventually("it notices that it leads no more", |rig| {
        let log = rig.log(leader);
        let since = log.get(said_before..).unwrap_or_default();
        let noticed = since.contains("no longer leading");
        if noticed {
            Ok(())
        } else {
            Err(since.to_owned())
        }
    });
    // It counts the write: as fenced off, or, when it was frozen for too long to wait for the answer, as unknown.
    let counted = rig.eventually("the late write is counted", |rig| {
        let fenced = rig.counter(leader, "setpoint_fenced_writes_total")?;
        let unknown = rig.counter(leader, "setpoint_unknown_outcomes_total")?;
        let counted = fenced + unknown;
        if counted > 0 {
            Ok((fenced, unknown))
        } else {
            Err("0".to_owned())
        }
    });
    rig.note(format!(
        "{leader} counts (fenced off, unknown): {counted:?}"
    ));
    rig.converge();

    // As a standby it is as good as any.
    rig.kill(next);
    assert_eq!(rig.leading(Some(next)), leader);
    rig.start_process(next);
    rig.block(rig.user().deploy("web", 4));
    rig.converge();

    // The same in the middle of work, with nothing held back.
    let load = rig.load("web", 3, 6);
    for round in 0..2 {
        let leader = rig.leading(None);
        rig.moves_on(20);
        rig.freeze(leader);
        rig.leading(Some(leader));
        rig.thaw(leader);
        rig.caches_are_complete(&format!("freeze {round} of a leader"));
    }
    rig.end_load(load, "web", 5);
    rig.finish();
}

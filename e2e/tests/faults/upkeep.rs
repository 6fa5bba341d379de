//! Compaction and defragmentation while there is much to do.

use setpoint_e2e::faults::{Mode, Rig};

#[test]
fn compaction_and_defragmentation_under_load_lose_nothing() {
    let mut rig = Rig::start("upkeep");
    rig.block(rig.user().deploy("web", 4));
    rig.converge();
    let leader = rig.leading(None);
    let standby = other(leader);
    let load = rig.load("web", 3, 6);
    for member in 0..3 {
        // Those who are away meanwhile cannot go on from where they were: they must list anew.
        for name in ["probe-a", standby] {
            rig.cut_off(name);
        }
        let listed = |rig: &Rig| rig.log(standby).matches("cache listed").count();
        let before = listed(&rig);
        rig.reset(leader);
        let seen = rig.block(rig.user().note("meanwhile", &format!("round {member}")));
        rig.eventually("the rest has moved on", |rig| {
            let at = rig.probes()[1].revision().0;
            if at > seen {
                Ok(())
            } else {
                Err(format!("at r{at}"))
            }
        });
        let compacted = rig.eventually("history is discarded", |rig| rig.compact(0));
        rig.eventually("no member has it", |rig| rig.is_discarded(compacted));
        rig.eventually("a member is defragmented", |rig| rig.defragment(member));
        for name in ["probe-a", standby] {
            rig.set(name, Mode::Pass);
        }
        rig.caches_are_complete(&format!("compaction {member}"));
        rig.eventually("the standby lists anew", |rig| {
            let times = listed(rig);
            if times > before {
                Ok(())
            } else {
                Err(format!("{times} times"))
            }
        });
    }
    // What the standby has listed is good enough to lead by.
    rig.kill(leader);
    rig.leading(Some(leader));
    rig.start_process(leader);
    rig.end_load(load, "web", 5);
    rig.finish();
}

fn other(name: &str) -> &'static str {
    let [a, b] = setpoint_e2e::faults::rig::CONTROLLERS;
    if name == a { b } else { a }
}

//! Connections that stay open and say nothing.

use std::time::{Duration, Instant};

use setpoint_e2e::faults::etcd::MEMBERS;
use setpoint_e2e::faults::rig::{AGENTS, CONTROLLERS, PROBES};
use setpoint_e2e::faults::{Mode, Rig};

/// Sooner nobody notices: a watch is asked for progress when it has been quiet for a while, and then waited for.
const NOTICED: Duration = Duration::from_secs(6);

#[test]
fn silent_watches_are_noticed_and_left() {
    let mut rig = Rig::start("silent-streams");
    rig.block(rig.user().deploy("web", 3));
    rig.converge();

    // Everybody is where it began, unless the machine stood still meanwhile; the probe is led back there. The other one
    // hears everything, to compare with.
    let [probe, _] = PROBES;
    let first = rig.first_member(probe);
    let others: Vec<usize> = (0..MEMBERS).filter(|member| *member != first).collect();
    for member in &others {
        rig.set_member(probe, *member, Mode::Cut);
    }
    rig.caches_are_complete("the probe is where it began");
    for member in &others {
        rig.set_member(probe, *member, Mode::Pass);
    }
    let begun = Instant::now();
    let deaf = CONTROLLERS.iter().chain(&AGENTS[..1]).chain(&PROBES[..1]);
    for name in deaf {
        rig.set_member(name, rig.first_member(name), Mode::HoldAnswers);
    }
    let revision = rig.block(rig.user().note("silence", "begins"));
    let seen_by = |probe: usize| {
        move |rig: &mut Rig| {
            let at = rig.probes()[probe].revision().0;
            if at >= revision {
                Ok(())
            } else {
                Err(format!("at r{at}"))
            }
        }
    };
    rig.eventually("those who hear have seen it", seen_by(1));
    let deaf = rig.probes()[0].revision().0 < revision;
    assert!(
        deaf || begun.elapsed() > NOTICED,
        "the silence is one: otherwise there is nothing to notice"
    );
    rig.block(rig.user().deploy("web", 6));
    rig.eventually("the silence is noticed", seen_by(0));
    rig.note("the silent probe has seen it");
    // The silence goes on, and everybody has found another member.
    rig.converge();
    rig.caches_are_complete("silence");
    rig.heal();

    // What was held back comes late and is of no use any more.
    rig.caches_are_complete("the end of the silence");
    for name in CONTROLLERS.iter().chain(&AGENTS).chain(&PROBES) {
        rig.set(name, Mode::Delay(Duration::from_millis(150)));
    }
    rig.block(rig.user().deploy("web", 4));
    rig.converge();
    for name in CONTROLLERS.iter().chain(&PROBES) {
        rig.reset(name);
    }
    rig.caches_are_complete("delays and broken connections");
    rig.finish();
}

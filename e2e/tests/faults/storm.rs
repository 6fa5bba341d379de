//! Everything at once, from a seed.

use std::time::{Duration, Instant};

use setpoint_e2e::faults::rig::{AGENTS, CONTROLLERS, PROBES};
use setpoint_e2e::faults::{Mode, Rig};

/// How long faults go on.
const STORM: Duration = Duration::from_secs(25);

/// `SETPOINT_FAULTS_SEED` repeats the choice of faults. What they hit is up to the machine.
#[test]
fn after_a_storm_of_faults_everything_holds() {
    let seed = std::env::var("SETPOINT_FAULTS_SEED").ok();
    let seed = seed.map_or_else(
        || u64::from(std::process::id()),
        |text| text.parse().expect("SETPOINT_FAULTS_SEED is a number"),
    );
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut rig = Rig::start("storm");
    rig.note(format!("SETPOINT_FAULTS_SEED={seed}"));
    rig.block(rig.user().deploy("web", 4));
    rig.converge();
    let load = rig.load("web", 3, 6);
    let mut away = Away::default();
    let begun = Instant::now();
    while begun.elapsed() < STORM {
        fault(&mut rig, &mut rng, &mut away);
        let calm = Duration::from_millis(rng.u64(100..900));
        rig.block(async { tokio::time::sleep(calm).await });
    }
    away.end(&mut rig);
    rig.heal();
    rig.end_load(load, "web", 5);
    rig.finish();
}

/// Who is dead or frozen.
#[derive(Default)]
struct Away {
    member: Option<usize>,
    dead: Option<&'static str>,
    frozen: Option<&'static str>,
}

impl Away {
    fn end(&mut self, rig: &mut Rig) {
        if let Some(member) = self.member.take() {
            rig.etcd.restart(member);
            rig.note(format!("m{member} is back"));
        }
        if let Some(name) = self.dead.take() {
            rig.start_process(name);
        }
        if let Some(name) = self.frozen.take() {
            rig.thaw(name);
        }
    }
}

fn fault(rig: &mut Rig, rng: &mut fastrand::Rng, away: &mut Away) {
    let everybody: Vec<&'static str> = CONTROLLERS
        .into_iter()
        .chain(AGENTS)
        .chain(PROBES)
        .collect();
    let name = everybody[rng.usize(..everybody.len())];
    let member = rng.usize(..3);
    let mode = match rng.u8(..6) {
        0 => Mode::Cut,
        1 => Mode::Delay(Duration::from_millis(rng.u64(10..400))),
        2 => Mode::HoldAnswers,
        3 => Mode::HoldRequests,
        4 => Mode::Swallow,
        _ => Mode::Pass,
    };
    match rng.u8(..12) {
        0..=3 => rig.set_member(name, member, mode),
        4 => rig.set(name, mode),
        5 => rig.heal(),
        6 => rig.reset(name),
        7 if away.member.is_none() => {
            rig.etcd.kill(member);
            rig.note(format!("m{member} is killed"));
            away.member = Some(member);
        }
        8 if away.dead.is_none() && away.frozen.is_none() => {
            let name = CONTROLLERS[rng.usize(..2)];
            rig.kill(name);
            away.dead = Some(name);
        }
        9 if away.dead.is_none() && away.frozen.is_none() => {
            let name = CONTROLLERS[rng.usize(..2)];
            rig.freeze(name);
            away.frozen = Some(name);
        }
        10 => drop(rig.compact(rng.i64(0..50))),
        11 if away.member.is_none() => drop(rig.defragment(member)),
        _ => away.end(rig),
    }
}

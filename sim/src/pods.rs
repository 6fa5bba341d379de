//! What the pods of a simulation come to: it is said in annotations of theirs.

use std::time::Duration;

use fastrand::Rng;
use setpoint_agent::hollow::Play;
use setpoint_agent::workload::PodWork;

use crate::fnv::Fnv;
use crate::scenario::Time;

/// The pod ends by itself, half of this time at the earliest and all of it at the latest after its start, as
/// [`Time`] is written. Without it a pod runs until it is stopped.
pub const ENDS_AFTER: &str = "simulate.setpoint.dev/ends-after";
/// The share of such pods, from 0 to 1, that end with the exit code 1. The same pod on another node may end otherwise.
pub const FAILS: &str = "simulate.setpoint.dev/fails";
/// The pod `crashes` again and again and is never ready; or it `falters`: it is ready for at most a second and a half after
/// each start, and crashes then; or it is `unready` for ever.
pub const BROKEN: &str = "simulate.setpoint.dev/broken";

/// What a pod comes to in the run of a seed.
pub(crate) fn play(work: &PodWork, seed: u64) -> Play {
    let noted = &work.pod.metadata.annotations;
    let placement = work.header.placement.unwrap_or_default();
    let id = format!("{} {} {placement}", work.key, work.header.uid);
    let mut rng = Rng::with_seed(Fnv::seed(seed, &id));
    match noted.get(BROKEN).map(String::as_str) {
        Some("crashes") => {
            return Play::Crash {
                serves: Duration::ZERO,
            };
        }
        Some("falters") => {
            return Play::Crash {
                serves: Duration::from_millis(rng.u64(100..=1_500)),
            };
        }
        Some(_) => return Play::Unready,
        None => {}
    }
    let Some(ends) = noted.get(ENDS_AFTER).and_then(|t| t.parse::<Time>().ok()) else {
        return Play::Run;
    };
    let most = u64::try_from(ends.get().as_millis()).unwrap_or(u64::MAX);
    let after = Duration::from_millis(rng.u64(most / 2..=most));
    let share = noted.get(FAILS).and_then(|f| f.parse().ok());
    let code = i32::from(rng.f64() < share.unwrap_or(0.0));
    Play::End { after, code }
}

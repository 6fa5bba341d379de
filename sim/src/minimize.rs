//! Makes a scenario smaller while it still breaks the same invariant: what is left is what matters.

use crate::run::{Options, run};
use crate::scenario::{Event, Network, Scenario, Time};

/// What was left of a scenario.
#[derive(Clone, Debug)]
pub struct Minimized {
    /// The smaller scenario, with the seed in it.
    pub scenario: Scenario,
    /// The invariant that it breaks.
    pub invariant: &'static str,
    /// How many runs that took.
    pub runs: u64,
}

/// Drops events, then processes and details of events, as long as the first violation stays one of the same invariant;
/// `None` when nothing is broken to begin with. `tell` hears of every step forward: what is left and the runs so far.
pub fn minimize(
    scenario: &Scenario,
    seed: u64,
    tell: impl FnMut(&Scenario, u64),
) -> Option<Minimized> {
    let invariant = broken(scenario, seed)?;
    let mut search = Search {
        best: scenario.clone(),
        seed,
        invariant,
        runs: 1,
        tell,
    };
    search.best.spec.seed = Some(seed);
    loop {
        let before = search.best.clone();
        search.events();
        search.details();
        search.surroundings();
        if search.best == before {
            break;
        }
    }
    Some(Minimized {
        scenario: search.best,
        invariant,
        runs: search.runs,
    })
}

/// The invariant that a run breaks first. A scenario that cannot be run breaks none.
fn broken(scenario: &Scenario, seed: u64) -> Option<&'static str> {
    let report = run(scenario, seed, Options::default()).ok()?;
    report.violations.first().map(|v| v.invariant)
}

struct Search<F> {
    best: Scenario,
    seed: u64,
    invariant: &'static str,
    runs: u64,
    tell: F,
}

impl<F: FnMut(&Scenario, u64)> Search<F> {
    /// Takes a change when the violation stays.
    fn attempt(&mut self, change: impl FnOnce(&mut Scenario)) -> bool {
        let mut candidate = self.best.clone();
        change(&mut candidate);
        if candidate == self.best {
            return false;
        }
        self.runs += 1;
        let stays = broken(&candidate, self.seed) == Some(self.invariant);
        if stays {
            self.best = candidate;
            (self.tell)(&self.best, self.runs);
        }
        stays
    }

    /// Drops events: halves first, then smaller and smaller parts, then single ones.
    fn events(&mut self) {
        let mut size = self.best.spec.timeline.len().div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < self.best.spec.timeline.len() {
                let to = (from + size).min(self.best.spec.timeline.len());
                if !self.attempt(|s| drop(s.spec.timeline.drain(from..to))) {
                    from = to;
                }
            }
            size /= 2;
        }
    }

    /// Drops names from the lists of events.
    fn details(&mut self) {
        for i in 0..self.best.spec.timeline.len() {
            for list in LISTS {
                let mut at = 0;
                while at < list(&mut self.best.spec.timeline[i].clone()).len() {
                    let dropped = self.attempt(|s| drop(list(&mut s.spec.timeline[i]).remove(at)));
                    at += usize::from(!dropped);
                }
            }
            for count in COUNTS {
                while *count(&mut self.best.spec.timeline[i]) > 0
                    && self.attempt(|s| *count(&mut s.spec.timeline[i]) -= 1)
                {}
            }
        }
    }

    /// Makes the cluster smaller and the network better.
    fn surroundings(&mut self) {
        let default = Network::default();
        self.attempt(|s| s.spec.network = Network::default());
        self.attempt(|s| s.spec.clock_error = Time::default());
        self.attempt(|s| s.spec.network.lost_requests = 0.0);
        self.attempt(|s| s.spec.network.lost_answers = 0.0);
        self.attempt(|s| s.spec.network.late_writes = 0.0);
        self.attempt(|s| s.spec.network.broken_watches = 0.0);
        self.attempt(|s| s.spec.network.max_delay = default.max_delay);
        self.attempt(|s| s.spec.network.watch_delay = None);
        let mut at = 0;
        while at < self.best.spec.at_writes.len() {
            let dropped = self.attempt(|s| drop(s.spec.at_writes.remove(at)));
            at += usize::from(!dropped);
        }
        self.attempt(|s| s.spec.begins = None);
        while self.best.spec.controllers.replicas > 1
            && self.attempt(|s| s.spec.controllers.replicas -= 1)
        {}
        for i in 0..self.best.spec.nodes.len() {
            while self.best.spec.nodes[i].count > 1
                && (self.attempt(|s| s.spec.nodes[i].count = s.spec.nodes[i].count.div_ceil(2))
                    || self.attempt(|s| s.spec.nodes[i].count -= 1))
            {}
        }
    }
}

/// A list of an event.
type List = fn(&mut Event) -> &mut Vec<String>;

const LISTS: [List; 8] = [
    |e| &mut e.cut,
    |e| &mut e.crash,
    |e| &mut e.power_off,
    |e| &mut e.freeze,
    |e| &mut e.restart,
    |e| &mut e.cordon,
    |e| &mut e.delete,
    |e| &mut e.corrupt,
];

/// How many pods an event befalls.
type Count = fn(&mut Event) -> &mut u32;

const COUNTS: [Count; 2] = [|e| &mut e.moves, |e| &mut e.evict];

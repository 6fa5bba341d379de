//! What befalls the cluster of a standard scenario.

use fastrand::Rng;
use setpoint_apis::{Key, Keyspace, ObjectKey};

use super::{FAULTS_UNTIL, LONGEST_FAULT, Size, share};
use crate::scenario::{Event, Network, ScenarioSpec, Time};

/// Adds up to eight faults.
pub(super) fn add(rng: &mut Rng, spec: &mut ScenarioSpec, size: Size, deployments: &[String]) {
    let mut draw = Draw {
        rng,
        size,
        sharded: spec.controllers.shard.clone(),
        deployments,
    };
    for _ in 0..draw.rng.u32(0..=8) {
        let at = draw.rng.u64(2_000..=FAULTS_UNTIL);
        let lasts = draw.rng.u64(200..=LONGEST_FAULT);
        let events = draw.fault(at, lasts);
        spec.timeline.extend(events);
    }
}

struct Draw<'a> {
    rng: &'a mut Rng,
    size: Size,
    /// The controllers that are led in shards.
    sharded: Vec<String>,
    deployments: &'a [String],
}

impl Draw<'_> {
    fn node(&mut self) -> String {
        format!("node-{}", self.rng.u32(0..self.size.nodes))
    }

    /// So many nodes, whichever.
    fn nodes(&mut self, count: u32) -> Vec<String> {
        let mut all: Vec<u32> = (0..self.size.nodes).collect();
        self.rng.shuffle(&mut all);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        all.into_iter()
            .take(count)
            .map(|i| format!("node-{i}"))
            .collect()
    }

    fn controllers(&self) -> Vec<String> {
        (0..self.size.controllers)
            .map(|i| format!("controllers-{i}"))
            .collect()
    }

    fn any(&mut self) -> String {
        match self.rng.bool() {
            true => self.node(),
            false => format!("controllers-{}", self.rng.u32(0..self.size.controllers)),
        }
    }

    fn fault(&mut self, at: u64, lasts: u64) -> Vec<Event> {
        let mut event = Event {
            at: Time::milliseconds(at),
            lasts: Some(Time::milliseconds(lasts)),
            ..Event::default()
        };
        match self.rng.u32(0..18) {
            0 => event.cut = vec![self.any()],
            1 => {
                let count = self.rng.u32(1..=self.size.nodes);
                event.cut = self.nodes(count);
            }
            2 => {
                // Nobody reaches the store any more.
                event.cut = self.nodes(self.size.nodes);
                event.cut.extend(self.controllers());
            }
            3 => event.crash = vec![self.any()],
            4 => event.power_off = vec![self.node()],
            5 => {
                // Up to all of them together: from half on, nothing is to be moved.
                let count = self.rng.u32(1..=self.size.nodes);
                event.power_off = self.nodes(count);
            }
            6 => event.freeze = vec![self.any()],
            7 => {
                event.freeze = vec![self.any()];
                return vec![self.compaction(at + lasts / 2), event];
            }
            8 => event.restart = vec![self.any()],
            9 => {
                // As an upgrade does, one after the other.
                event.lasts = None;
                event.restart = self.controllers();
                event.restart.extend(self.nodes(self.size.nodes));
            }
            10 => return vec![self.compaction(at)],
            11 => match self.rng.choice(self.deployments) {
                Some(name) => event.corrupt = vec![format!("deployments/default/{name}")],
                None => return Vec::new(),
            },
            12 => event.corrupt = vec![self.document()],
            13 => {
                event.lasts = None;
                event.delete = vec![self.leader()];
            }
            14 => event.cordon = vec![self.node()],
            15 => return self.node_goes_and_returns(at, lasts),
            _ => event.network = Some(self.bad_network()),
        }
        vec![event]
    }

    fn compaction(&self, at: u64) -> Event {
        Event {
            at: Time::milliseconds(at),
            compact: true,
            ..Event::default()
        }
    }

    /// The key of a document that somebody else than users writes.
    fn document(&mut self) -> String {
        let any = || ObjectKey::namespaced("default", "*");
        let node = self.node();
        let key = match self.rng.u32(0..5) {
            0 => Key::Binding(any()),
            1 => Key::Health(&node),
            2 => Key::NodePod(&node, any()),
            3 => Key::WorkPod(&node, any()),
            _ => Key::Actual("deployments", any()),
        };
        Keyspace::default().build(&key)
    }

    fn leader(&mut self) -> String {
        let names = setpoint_controllers::Name::ALL;
        let name = names[self.rng.usize(..names.len())];
        let name = name.as_str();
        let shard = self.sharded.iter().any(|s| s == name).then_some("*");
        Keyspace::default().build(&Key::Leader(name, shard))
    }

    /// A node is deleted, while it runs or not, and registers again when it starts.
    fn node_goes_and_returns(&mut self, at: u64, lasts: u64) -> Vec<Event> {
        let node = self.node();
        let deleted = Event {
            at: Time::milliseconds(at),
            delete: vec![format!("nodes/{node}")],
            ..Event::default()
        };
        let mut down = Event {
            lasts: Some(Time::milliseconds(lasts)),
            ..Event::default()
        };
        let after = self.rng.bool();
        let names = if self.rng.bool() {
            &mut down.power_off
        } else {
            &mut down.restart
        };
        names.push(node);
        // Before or after: a machine that is switched off first is not there to object.
        let distance = self.rng.u64(1..=5_000);
        down.at = Time::milliseconds(match after {
            true => at + distance,
            false => at.saturating_sub(distance.min(lasts - 1)),
        });
        vec![deleted, down]
    }

    fn bad_network(&mut self) -> Network {
        Network {
            lost_requests: share(self.rng, 0.2),
            lost_answers: share(self.rng, 0.2),
            late_writes: share(self.rng, 0.2),
            broken_watches: share(self.rng, 0.1),
            min_delay: Time::milliseconds(1),
            max_delay: Time::milliseconds(self.rng.u64(5..=300)),
            ..Network::default()
        }
    }
}

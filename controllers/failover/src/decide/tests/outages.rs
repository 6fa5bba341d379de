//! node-lifecycle's decision and this one together, in every order: what is given up while nodes fall silent.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use setpoint_apis::time::Timestamp;
use setpoint_node_lifecycle::decide as lifecycle;

use super::*;

/// One node of a cluster: when its lease was renewed last before the cut, how late etcd notices, both in milliseconds;
/// and how often failover looks before node-lifecycle does.
#[derive(Clone, Debug)]
struct Phase {
    since_renewal: i64,
    notice: i64,
    failover_first: bool,
}

const TTL: i64 = 6_000;

fn cut_off() -> impl Strategy<Value = (Vec<Phase>, usize)> {
    let phase = || {
        (0..TTL / 3, 0..500_i64, any::<bool>()).prop_map(
            |(since_renewal, notice, failover_first)| Phase {
                since_renewal,
                notice,
                failover_first,
            },
        )
    };
    (1_usize..16).prop_flat_map(move |n| (proptest::collection::vec(phase(), n), 0..=n))
}

struct Cluster {
    lifecycle: lifecycle::Snapshot,
    requested: BTreeMap<ObjectKey, Request>,
    /// Nodes whose pods were ever asked to be released.
    given_up: BTreeSet<Arc<str>>,
}

impl Cluster {
    fn failover(&mut self) {
        let mut facts = Snapshot {
            requested: self.requested.clone(),
            ..Snapshot::default()
        };
        for (i, (name, node)) in self.lifecycle.nodes.iter().enumerate() {
            let alive = node.session != lifecycle::Session::Absent;
            let health = node.health.as_ref().map(|h| Health {
                state: h.state,
                revision: 1,
            });
            facts.nodes.insert(
                name.clone(),
                NodeFacts {
                    alive,
                    fenced: false,
                    health,
                },
            );
            facts.pods.insert(pod(&format!("p{i}")), bound(name));
        }
        let plan = decide(&facts, 500);
        for step in &plan.steps {
            if let Step::Release { binding, .. } = step {
                self.given_up.insert(binding.node.clone());
            }
        }
        self.requested = apply(facts, &plan).requested;
    }

    fn lifecycle(&mut self, now: Timestamp) {
        for step in lifecycle::decide(&self.lifecycle, now).steps {
            if let lifecycle::Step::Conclude { node, health, .. } = step {
                self.lifecycle.nodes.get_mut(&node).unwrap().health = Some(health);
            }
        }
    }
}

fn outage(phases: &[Phase], cut: usize) -> Cluster {
    let base = Timestamp::from_unix_seconds(1_700_000_000);
    let name = |i: usize| Arc::<str>::from(format!("n{i}"));
    let mut cluster = Cluster {
        lifecycle: lifecycle::Snapshot::default(),
        requested: BTreeMap::new(),
        given_up: BTreeSet::new(),
    };
    for i in 0..phases.len() {
        let facts = lifecycle::NodeFacts {
            session: lifecycle::Session::Alive(1),
            desired: true,
            bindings: 1,
            bound_session: 1,
            ..lifecycle::NodeFacts::default()
        };
        cluster.lifecycle.nodes.insert(name(i), facts);
    }
    cluster.lifecycle(base.saturating_sub(Duration::from_secs(1_000)));
    let expiry = |p: &Phase| TTL - p.since_renewal + p.notice;
    let mut moments: Vec<(i64, bool)> = phases[..cut]
        .iter()
        .map(|p| (expiry(p), p.failover_first))
        .collect();
    moments.sort_unstable();
    for (now, failover_first) in moments {
        for (i, phase) in phases.iter().enumerate() {
            let facts = cluster.lifecycle.nodes.get_mut(&name(i)).unwrap();
            let renewed = if i < cut {
                -phase.since_renewal
            } else {
                now - (now + phase.since_renewal) % (TTL / 3)
            };
            facts.late = (TTL - (now - renewed)).max(0) / 1_000 * 1_000 * 2 < TTL;
            if i < cut && expiry(phase) <= now {
                facts.session = lifecycle::Session::Absent;
            }
        }
        if failover_first {
            cluster.failover();
        }
        cluster.lifecycle(base + Duration::from_millis(u64::try_from(now).unwrap()));
        cluster.failover();
    }
    cluster
}

proptest! {
    #[test]
    fn of_nodes_that_fall_silent_together_never_more_than_half_are_given_up((phases, cut) in cut_off()) {
        let cluster = outage(&phases, cut);
        if cut * 2 > phases.len() {
            prop_assert!(cluster.given_up.is_empty(), "{cut} of {}: {:?}", phases.len(), cluster.given_up);
        } else {
            prop_assert_eq!(cluster.given_up.len(), cut, "each of few is given up");
        }
    }
}

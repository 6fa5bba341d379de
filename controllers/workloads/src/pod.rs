//! A pod as a workload controller sees it: the few facts that decide whether it counts, and which one goes first.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::core::Pod;
use setpoint_apis::records::{Binding, PodActual, PodStage};
use setpoint_apis::{ObjectKey, Timestamp};

use crate::seen::Seen;

pub use setpoint_apis::core::DELETION_COST;

/// How far a pod has come. The order is the order in which pods are given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodState {
    /// No node yet.
    #[default]
    Unbound,
    /// On a node, and not running there: not claimed, starting, or stopping.
    Pending,
    /// Running, ready or not.
    Running,
    /// Ended for good, with success. It does not count any more.
    Succeeded,
    /// Ended for good, without success. It does not count any more.
    Failed,
}

impl PodState {
    /// Whether a pod of this binding has ended for good. One that fails while it is taken back from where it is runs again.
    pub fn is_final(self, binding: &Binding) -> bool {
        match self {
            Self::Succeeded => true,
            Self::Failed => binding.withdrawn.is_none(),
            _ => false,
        }
    }
}

/// The facts about one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodFacts {
    /// Its name.
    pub key: ObjectKey,
    /// The revision of its desired document as seen: guards its deletion.
    pub mod_revision: i64,
    /// Its age.
    pub create_revision: i64,
    /// Its document does not parse: it counts as it last was, and is left alone.
    pub frozen: bool,
    /// Where it is bound.
    pub node: Option<Arc<str>>,
    /// Whether its node has reported anything about its present placement.
    pub reported: bool,
    /// How far it has come.
    pub state: PodState,
    /// Since when it is ready; `None` when it is not.
    pub ready_since: Option<Timestamp>,
    /// See [`DELETION_COST`].
    pub deletion_cost: i32,
    /// How often its containers were restarted.
    pub restarts: i32,
    /// What keeps a container that is not ready from starting: `CrashLoopBackOff`, `ErrImagePull`, ...
    pub trouble: Option<Trouble>,
}

/// What keeps a container of a pod from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The container.
    pub container: Arc<str>,
    /// One CamelCase word, as its status has it.
    pub reason: Arc<str>,
    /// How often it was restarted, [`Trouble::MANY`] at most: beyond that it makes no difference.
    pub restarts: i32,
}

impl Trouble {
    /// So many restarts count as crashing for good.
    pub const MANY: i32 = 3;

    fn of(actual: &PodActual) -> Option<Self> {
        let all = actual.init_container_statuses.iter();
        let mut waiting = all.chain(&actual.container_statuses).filter_map(|c| {
            let reason = c.state.waiting.as_ref()?.reason.as_deref()?;
            // On its way.
            let starts = ["ContainerCreating", "PodInitializing"].contains(&reason);
            (!starts).then(|| Self {
                container: c.name.as_str().into(),
                reason: reason.into(),
                restarts: c.restart_count.min(Self::MANY),
            })
        });
        waiting.next()
    }
}

impl PodFacts {
    /// Merges what is wanted, where it is and what is reported of it there.
    pub fn new(
        key: &ObjectKey,
        uid: &str,
        (create_revision, mod_revision): (i64, i64),
        pod: &Pod,
        binding: Option<&Binding>,
        actual: Option<&PodActual>,
    ) -> Self {
        // What is left of a former placement or of a former pod of the same name says nothing about this one.
        let actual = binding.and_then(|b| {
            actual.filter(|a| a.placement == b.placement && (a.uid.is_empty() || a.uid == uid))
        });
        let state = match (binding, actual.map(|a| a.stage)) {
            (None, _) => PodState::Unbound,
            (_, Some(PodStage::Running)) => PodState::Running,
            (_, Some(PodStage::Succeeded)) => PodState::Succeeded,
            (_, Some(PodStage::Failed)) => PodState::Failed,
            (_, None | Some(PodStage::Starting | PodStage::Stopping)) => PodState::Pending,
        };
        let ready_since = actual.filter(|a| a.is_ready()).map(|a| {
            let ready = a.conditions.iter().find(|c| c.type_ == "Ready");
            ready
                .and_then(|c| c.last_transition_time)
                .or(a.start_time)
                .unwrap_or(Timestamp::EPOCH)
        });
        let cost = pod
            .metadata
            .annotations
            .get(DELETION_COST)
            .and_then(|c| c.parse().ok());
        Self {
            key: key.clone(),
            mod_revision,
            create_revision,
            frozen: false,
            node: binding.map(|b| Arc::from(b.node.as_str())),
            reported: actual.is_some(),
            state,
            ready_since,
            deletion_cost: cost.unwrap_or(0),
            restarts: actual.map_or(0, |a| {
                a.container_statuses.iter().map(|c| c.restart_count).sum()
            }),
            trouble: actual
                .filter(|_| ready_since.is_none())
                .and_then(Trouble::of),
        }
    }

    /// A pod that never parsed since this process looks: it is there, and that is all that is known.
    pub fn unreadable(key: &ObjectKey, mod_revision: i64) -> Self {
        Self {
            key: key.clone(),
            mod_revision,
            create_revision: mod_revision,
            frozen: true,
            node: None,
            reported: false,
            state: PodState::Unbound,
            ready_since: None,
            deletion_cost: 0,
            restarts: 0,
            trouble: None,
        }
    }

    /// It, as seen.
    pub fn seen(&self) -> Seen {
        Seen {
            key: self.key.clone(),
            mod_revision: self.mod_revision,
        }
    }

    /// Whether it counts towards the wanted number.
    pub fn is_active(&self) -> bool {
        self.state < PodState::Succeeded
    }

    /// Whether something that counts differs: not how often a container was restarted.
    pub fn differs_from(&self, other: &Self) -> bool {
        Self {
            restarts: 0,
            ..self.clone()
        } != Self {
            restarts: 0,
            ..other.clone()
        }
    }
}

/// When a pod that is ready since `ready_since` is available; ready for `min_ready` is available.
pub fn available_at(ready_since: Timestamp, min_ready: Duration) -> Timestamp {
    if min_ready.is_zero() {
        Timestamp::EPOCH
    } else {
        ready_since.saturating_add(min_ready)
    }
}

/// Sorts the pods that are to go first to the front, as Kubernetes does: without a node, not running, not ready, of low
/// deletion cost, on a node with many siblings (`load`), ready for the shortest time, restarted most often, newest.
pub fn sort_for_deletion(pods: &mut [&PodFacts], load: impl Fn(&str) -> u32) {
    pods.sort_by_cached_key(|p| {
        (
            p.state,
            p.ready_since.is_some(),
            p.deletion_cost,
            Reverse(p.node.as_deref().map_or(0, &load)),
            Reverse(p.ready_since),
            Reverse(p.restarts),
            Reverse(p.create_revision),
            p.key.clone(),
        )
    });
}

#[cfg(test)]
pub(crate) mod tests {
    use setpoint_apis::core::PodCondition;

    use super::*;

    pub(crate) fn facts(name: &str) -> PodFacts {
        PodFacts {
            key: ObjectKey::namespaced("default", name),
            mod_revision: 10,
            create_revision: 10,
            frozen: false,
            node: Some("n1".into()),
            state: PodState::Running,
            ready_since: Some(Timestamp::from_unix_seconds(100)),
            deletion_cost: 0,
            restarts: 0,
            reported: true,
            trouble: None,
        }
    }

    fn names(pods: &[&PodFacts]) -> String {
        pods.iter()
            .map(|p| &*p.key.name)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn pods_are_given_up_in_kubernetes_order() {
        let unbound = PodFacts {
            state: PodState::Unbound,
            node: None,
            ready_since: None,
            ..facts("unbound")
        };
        let pending = PodFacts {
            state: PodState::Pending,
            ready_since: None,
            ..facts("pending")
        };
        let unready = PodFacts {
            ready_since: None,
            deletion_cost: 9,
            ..facts("unready")
        };
        let cheap = PodFacts {
            deletion_cost: -1,
            ..facts("cheap")
        };
        let doubled = PodFacts {
            node: Some("n2".into()),
            ..facts("doubled")
        };
        let fresh = PodFacts {
            ready_since: Some(Timestamp::from_unix_seconds(200)),
            ..facts("fresh")
        };
        let restarted = PodFacts {
            restarts: 1,
            ..facts("restarted")
        };
        let newer = PodFacts {
            create_revision: 11,
            ..facts("newer")
        };
        let oldest = facts("oldest");
        let mut all = [
            &oldest, &newer, &restarted, &fresh, &doubled, &cheap, &unready, &pending, &unbound,
        ];
        sort_for_deletion(&mut all, |node| if node == "n2" { 2 } else { 1 });
        assert_eq!(
            names(&all),
            "unbound pending unready cheap doubled fresh restarted newer oldest"
        );
    }

    #[test]
    fn what_a_former_placement_reports_says_nothing() {
        let key = ObjectKey::namespaced("default", "p");
        let binding = Binding {
            node: "n1".into(),
            session: 1,
            placement: 2,
            pod_revision: 5,
            bound_at: Timestamp::EPOCH,
            never_twice: false,
            requests: Default::default(),
            withdrawn: None,
            decision: None,
            ..Binding::default()
        };
        let ready = PodCondition::new("Ready", true, Timestamp::from_unix_seconds(7));
        let actual = |placement, uid: &str| PodActual {
            placement,
            uid: uid.into(),
            stage: PodStage::Running,
            conditions: vec![ready.clone()],
            ..PodActual::default()
        };
        let see = |a: Option<&PodActual>| {
            PodFacts::new(&key, "u", (3, 5), &Pod::default(), Some(&binding), a)
        };
        assert_eq!(see(None).state, PodState::Pending);
        assert_eq!(see(Some(&actual(1, "u"))).state, PodState::Pending);
        assert_eq!(see(Some(&actual(2, "other"))).state, PodState::Pending);
        let now = see(Some(&actual(2, "u")));
        assert_eq!(
            (now.state, now.ready_since),
            (PodState::Running, Some(Timestamp::from_unix_seconds(7)))
        );
        let failed = PodActual {
            stage: PodStage::Failed,
            ..actual(2, "u")
        };
        assert!(!see(Some(&failed)).is_active());
    }

    #[test]
    fn readiness_must_last_to_be_availability() {
        let since = Timestamp::from_unix_seconds(100);
        assert_eq!(available_at(since, Duration::ZERO), Timestamp::EPOCH);
        assert_eq!(
            available_at(since, Duration::from_secs(5)),
            Timestamp::from_unix_seconds(105)
        );
    }
}

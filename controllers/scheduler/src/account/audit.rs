//! The slow full pass: compares the account with the store and the view, repairs, and says how often it had to. Each
//! repair is a bug somewhere.

use setpoint_apis::ObjectKey;
use setpoint_apis::core::Pod;

use super::{Account, Turn, nodes};
use crate::decide::{Step, decide, is_terminal};
use crate::listing::Listing;
use crate::observe;

/// What a full pass found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    /// Pods that were looked at.
    pub(crate) pods: usize,
    /// Work copies, records and projections that the account had wrong.
    pub(crate) store: usize,
    /// Nodes that the core had wrong.
    pub(crate) nodes: usize,
    /// Pods that something was to be done about and nobody had noticed, or that were counted wrongly.
    pub(crate) missed: usize,
}

impl Audit {
    /// How many repairs that makes.
    pub(crate) fn repairs(&self) -> usize {
        self.store + self.nodes + self.missed
    }
}

impl Account {
    /// Compares. To be called when no change is left to be taken note of. What is wrong is corrected, or decided again
    /// in the next turns.
    pub(crate) fn audit(&mut self, listing: &Listing, turn: &Turn<'_>) -> Audit {
        let (revision, stones) = (listing.revision, &listing.tombstones);
        let store = self.contents.audit(&listing.content, revision)
            + self.tombstones.audit(stones, revision);
        let mut audit = Audit {
            store,
            missed: self.audit_claims(turn),
            ..Audit::default()
        };
        for node in nodes(turn.view) {
            let before = self.nodes_changed;
            self.nodes_changed = false;
            self.set_node(turn.view, &node);
            audit.nodes += usize::from(self.nodes_changed);
            self.nodes_changed |= before;
        }
        self.set_scales(turn.view, self.budgets.owners());
        let known: Vec<_> = self.pods.keys().cloned().collect();
        let unknown = listing
            .work
            .keys()
            .chain(listing.records.keys())
            .filter(|k| !self.pods.contains_key(*k));
        let unknown: Vec<_> = unknown.cloned().collect();
        for key in known.into_iter().chain(unknown) {
            audit.store += usize::from(self.audit_store(&key, listing));
        }
        let pods = turn.view.desired::<Pod>().entries().map(|(k, _)| k);
        let all: Vec<_> = pods
            .chain(turn.view.bindings().entries().map(|(k, _)| k))
            .cloned()
            .collect();
        for key in all {
            audit.pods += 1;
            audit.missed += usize::from(self.audit_pod(&key, turn));
        }
        audit
    }

    /// Whether the account of a pod's keys in the store was wrong.
    fn audit_store(&mut self, key: &ObjectKey, listing: &Listing) -> bool {
        let state = self.pods.entry(key.clone()).or_default();
        if state.busy || state.changed_at > listing.revision {
            return false;
        }
        let work = listing.work.get(key).map_or(&[][..], Vec::as_slice);
        let recorded = listing.records.get(key);
        let same_work =
            work.len() == state.work.len() && work.iter().all(|w| state.work.contains(w));
        if same_work && recorded == state.recorded.as_ref() {
            return false;
        }
        state.work = work.to_vec();
        state.recorded = recorded.cloned();
        self.touch(key.clone());
        true
    }

    /// Whether there is something to be done about a pod that nobody has noticed.
    fn audit_pod(&mut self, key: &ObjectKey, turn: &Turn<'_>) -> bool {
        let Some(state) = self.pods.get(key) else {
            self.touch(key.clone());
            return true;
        };
        let unsettled = state.busy || state.not_before > turn.revision() || state.failures > 0;
        if unsettled || self.is_dirty.contains(key) {
            return false;
        }
        let recorded = state.recorded.as_ref().map(|r| r.placements);
        let broken = observe::broken(turn.view, key);
        let mut facts = observe::facts(
            turn.view,
            key,
            broken.as_ref(),
            &state.work,
            recorded,
            self.intents.about(key),
            turn.now,
        );
        facts.may_evict = self.budgets.may_disrupt(key).is_ok();
        let missed = match decide(&facts) {
            Step::Rest | Step::Wait(_) | Step::Frozen(_) | Step::Stuck { .. } => {
                self.miscounted(key, turn)
            }
            Step::Invalid => !self.is_said_invalid(turn, key) || self.miscounted(key, turn),
            Step::Place => {
                let held = turn.view.desired::<Pod>().get(key).is_some_and(|p| {
                    let spec = &p.value.spec;
                    let asks = &self.asks;
                    !spec.scheduling_gates.is_empty()
                        || asks.of_waiting(turn.view, &key.namespace, spec).is_err()
                });
                !held && !self.pending.contains(key) && self.gangs.of(key).is_none()
            }
            Step::Move { .. } => {
                let put_off = state.in_vain.is_some_and(|v| v.is_put_off(turn.tick));
                !self.later_moves.contains(key) && !put_off
            }
            _ => true,
        };
        if missed {
            self.touch(key.clone());
        }
        missed
    }

    fn miscounted(&self, key: &ObjectKey, turn: &Turn<'_>) -> bool {
        let counted = self.cluster.placed(key).map(|(node, _)| &**node);
        let Some(binding) = turn.view.bindings().get(key) else {
            return counted.is_some() && !turn.view.bindings().contains(key);
        };
        if self.aside_is_wrong(key, &binding.value, turn.view) {
            return true;
        }
        let node = binding.value.node.as_str();
        let ended = turn
            .view
            .pod_on(node, key)
            .and_then(|e| e.valid())
            .is_some_and(|a| is_terminal(&a.value));
        counted != (!ended).then_some(node)
    }
}

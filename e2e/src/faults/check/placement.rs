//! `single placement`: no pod is on record at two nodes at once, and a node claims only what is bound to it.
//!
//! A pod that is moved may be on record at two: those that its binding speaks of.
//!
//! A binding keeps the session under which it was made: a node that was away so shortly that nothing was released claims
//! under its next one. Under a former one nothing is claimed.

use std::collections::BTreeMap;

use setpoint_apis::records::{Binding, PodActual};
use setpoint_apis::{Key, Keyspace, ObjectKey, document};

use super::Finding;
use crate::faults::history::{Change, History};

#[derive(Default)]
struct State {
    /// Where pods are on record.
    records: BTreeMap<ObjectKey, Vec<String>>,
    bindings: BTreeMap<ObjectKey, Binding>,
    /// By node.
    sessions: BTreeMap<String, i64>,
}

pub(super) fn check(history: &History, keyspace: &Keyspace) -> Vec<Finding> {
    let mut state = State::default();
    let mut found = Vec::new();
    for revision in history.revisions() {
        // A record that goes away makes room for another one at the same revision.
        let (gone, put): (Vec<&Change>, Vec<&Change>) =
            revision.iter().partition(|c| c.value.is_none());
        for change in gone.into_iter().chain(put) {
            if let Ok(key) = keyspace.split(&change.key)
                && let Err(message) = state.take(&key, change)
            {
                found.push(Finding {
                    check: "single placement",
                    revision: change.revision,
                    message,
                });
            }
        }
    }
    found
}

impl State {
    fn take(&mut self, key: &Key<'_>, change: &Change) -> Result<(), String> {
        match (key, change.value.as_deref()) {
            (Key::Binding(pod), Some(value)) => {
                let binding: Binding = document::decode_value(value)
                    .map_err(|e| format!("the binding of {pod} does not parse: {e}"))?;
                self.bindings.insert(pod.clone(), binding);
            }
            (Key::Binding(pod), None) => drop(self.bindings.remove(pod)),
            (Key::NodeAlive(node), Some(_)) => {
                let session = change.create_revision;
                self.sessions.insert((*node).to_owned(), session);
            }
            (Key::NodeAlive(node), None) => drop(self.sessions.remove(*node)),
            (Key::NodePod(node, pod), Some(value)) => return self.record(node, pod, value),
            (Key::NodePod(node, pod), None) => {
                let records = self.records.entry(pod.clone()).or_default();
                records.retain(|at| at != node);
            }
            _ => {}
        }
        Ok(())
    }

    fn record(&mut self, node: &str, pod: &ObjectKey, value: &[u8]) -> Result<(), String> {
        let record: PodActual = document::decode_value(value)
            .map_err(|e| format!("the record of {pod} on {node} does not parse: {e}"))?;
        let records = self.records.entry(pod.clone()).or_default();
        if records.iter().any(|at| at == node) {
            return Ok(());
        }
        records.push(node.to_owned());
        let binding = self.bindings.get(pod);
        let known =
            |at: &String| binding.is_some_and(|b| b.node == *at || b.other_node() == Some(at));
        if records.len() > 1 && !records.iter().all(known) {
            return Err(format!(
                "{pod} is on record at {}",
                records.join(" and at ")
            ));
        }
        let session = self.sessions.get(node);
        if let Some(moving) = binding.and_then(|b| b.moving.as_deref())
            && moving.to == node
            && moving.placement == record.placement
            && session.is_some_and(|now| *now >= moving.session)
        {
            return Ok(());
        }
        match binding {
            Some(b)
                if b.node == node
                    && session.is_some_and(|now| *now >= b.session)
                    && b.placement == record.placement =>
            {
                Ok(())
            }
            Some(b) => Err(format!(
                "{node} in session {session:?} claims placement {} of {pod}, which is bound to {} in session {}, placement {}",
                record.placement, b.node, b.session, b.placement
            )),
            None => Err(format!("{node} claims {pod}, which is not bound")),
        }
    }
}

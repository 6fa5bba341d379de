//! From the cache to the facts that are decided on.

use std::sync::Arc;

use setpoint_apis::core::Node;
use setpoint_runtime::cache::{Entry, View};

use crate::decide::{NodeFacts, Session, Snapshot};
use crate::probe::Heard;

/// Everything about nodes, with what was heard of those that are there.
pub(crate) fn snapshot(view: &View<'_>, heard: &Heard) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let nodes = &mut snapshot.nodes;
    for (key, entry) in view.node_alive().entries() {
        let facts = nodes.entry(key.name.clone()).or_default();
        facts.session = entry
            .last_good()
            .map_or(Session::Unreadable, |s| Session::Alive(s.create_revision));
        facts.agent_since = entry.last_good().map(|s| s.value.since);
        facts.late = heard.late.contains(&key.name);
        facts.in_doubt = heard.in_doubt.contains(&key.name);
    }
    for (key, _) in view.desired::<Node>().entries() {
        nodes.entry(key.name.clone()).or_default().desired = true;
    }
    for (key, entry) in view.health().entries() {
        let facts = nodes.entry(key.name.clone()).or_default();
        facts.health = entry.last_good().map(|s| s.value.clone());
        facts.health_unreadable = entry.invalid().is_some();
    }
    for (key, _) in view.node_status().entries() {
        nodes.entry(key.name.clone()).or_default().recorded = true;
    }
    for name in view.nodes_with_pods() {
        nodes.entry(name.clone()).or_default().recorded = true;
    }
    for (_, entry) in view.bindings().entries() {
        match Entry::last_good(entry) {
            Some(binding) => {
                let node = &*binding.value.node;
                if !nodes.contains_key(node) {
                    nodes.insert(node.into(), NodeFacts::default());
                }
                if let Some(facts) = nodes.get_mut(node) {
                    facts.bindings += 1;
                    facts.bound_session = facts.bound_session.max(binding.value.session);
                }
            }
            None => snapshot.unreadable_bindings = true,
        }
    }
    snapshot
}

/// The nodes that have a session.
pub(crate) fn present(view: &View<'_>) -> Vec<Arc<str>> {
    view.node_alive()
        .entries()
        .map(|(key, _)| key.name.clone())
        .collect()
}

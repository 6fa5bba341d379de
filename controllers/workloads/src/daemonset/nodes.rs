//! What DaemonSets look at of nodes: a few facts per node, kept from the cache's changes.
//!
//! Agents report usage and conditions all the time. Nothing of that is a fact here, so it wakes nobody; and a fact that
//! changes wakes only those DaemonSets to which the node is another one than before ([`NodeIndex::take_touched`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use setpoint_apis::core::{Node, Taint};
use setpoint_apis::records::NodeState;
use setpoint_apis::view::NodeView;
use setpoint_apis::{Kind, ObjectKey, Timestamp};
use setpoint_runtime::{Cache, Entry, StateKey, Stored, Subscription, View};

use super::fit::{Fit, Placement};

/// The facts about one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Labels of users and agent, merged.
    pub labels: BTreeMap<String, String>,
    /// Taints that keep pods away, those that follow from its health and from being unschedulable among them. Without
    /// the times at which they were added.
    pub taints: Vec<Taint>,
    /// Something about it never parsed. It might say anything, so its pods are left as they are.
    pub unreadable: bool,
    /// Its session is gone, or it is only being taken in again: nobody knows how its pods are.
    pub lost: bool,
    /// Its document was deleted while its agent runs: nothing new is placed there.
    pub removed: bool,
}

impl NodeFacts {
    /// `None` when nothing says that there is such a node.
    fn of(view: &View<'_>, name: &Arc<str>) -> Option<Self> {
        let key = ObjectKey::cluster(name.clone());
        let desired = view.desired::<Node>().entry(&key);
        let status = view.node_status().entry(&key);
        let health = view.health().entry(&key);
        let alive = view.node_alive().entry(&key);
        if desired.is_none() && status.is_none() && health.is_none() && alive.is_none() {
            return None;
        }
        let unreadable =
            never_good(desired) || never_good(status) || never_good(health) || never_good(alive);
        let session = good(alive).map(|a| a.create_revision);
        let merged = NodeView::new(
            name,
            good(desired).map(|s| &s.value),
            good(status).map(|s| &s.value),
            good(health).map(|s| &s.value),
            session,
        );
        let taints = merged.repelling_taints().map(|t| Taint {
            time_added: None,
            ..t.clone()
        });
        let silent = [NodeState::Unreachable, NodeState::Suspended].contains(&merged.state);
        Some(Self {
            taints: taints.collect(),
            unreadable,
            lost: session.is_none() || silent,
            removed: merged.state == NodeState::Removed,
            labels: merged.labels,
        })
    }
}

fn good<T>(entry: Option<&Entry<T>>) -> Option<&Arc<Stored<T>>> {
    entry.and_then(Entry::last_good)
}

fn never_good<T>(entry: Option<&Entry<T>>) -> bool {
    entry.is_some_and(|e| e.last_good().is_none())
}

/// All nodes, by name.
pub type Nodes = BTreeMap<Arc<str>, Arc<NodeFacts>>;

/// See the module.
pub struct NodeIndex {
    subscription: Subscription,
    nodes: Arc<Nodes>,
    /// Nodes whose facts have changed, and what they were before.
    changed: FxHashMap<Arc<str>, Option<Arc<NodeFacts>>>,
    /// Since when there has been a node that is not lost.
    up_since: Option<Timestamp>,
}

impl NodeIndex {
    /// An empty index of what `cache` holds.
    pub fn new(cache: &Cache) -> Self {
        Self {
            subscription: cache.subscribe(Self::concerns),
            nodes: Arc::default(),
            changed: FxHashMap::default(),
            up_since: None,
        }
    }

    /// What the index is made of.
    pub fn concerns(key: &StateKey) -> bool {
        match key {
            StateKey::Desired(plural, _) => *plural == Node::PLURAL,
            StateKey::NodeAlive(_) | StateKey::NodeStatus(_) | StateKey::Health(_) => true,
            _ => false,
        }
    }

    /// Brings the index level with `view`.
    pub fn catch_up(&mut self, view: &View<'_>) {
        let Some(changes) = self.subscription.try_next() else {
            return;
        };
        if changes.resync {
            let desired = view.desired::<Node>().entries().map(|(key, _)| key);
            let status = view.node_status().entries().map(|(key, _)| key);
            let health = view.health().entries().map(|(key, _)| key);
            let alive = view.node_alive().entries().map(|(key, _)| key);
            let all = desired.chain(status).chain(health).chain(alive);
            let mut all: Vec<Arc<str>> = all.map(|key| key.name.clone()).collect();
            all.extend(self.nodes.keys().cloned());
            all.sort_unstable();
            all.dedup();
            all.iter().for_each(|name| self.refresh(view, name));
        }
        for key in &changes.keys {
            match key {
                StateKey::Desired(plural, key) if *plural == Node::PLURAL => {
                    self.refresh(view, &key.name);
                }
                StateKey::NodeAlive(node) | StateKey::NodeStatus(node) | StateKey::Health(node) => {
                    self.refresh(view, node)
                }
                _ => {}
            }
        }
    }

    fn refresh(&mut self, view: &View<'_>, name: &Arc<str>) {
        let new = NodeFacts::of(view, name);
        let old = self.nodes.get(name);
        if old.map(|facts| &**facts) == new.as_ref() {
            return;
        }
        // What counts is what it was when somebody last asked.
        self.changed
            .entry(name.clone())
            .or_insert_with(|| old.cloned());
        let nodes = Arc::make_mut(&mut self.nodes);
        match new {
            Some(facts) => drop(nodes.insert(name.clone(), Arc::new(facts))),
            None => drop(nodes.remove(name)),
        }
    }

    /// Since when the rollouts of this leadership could have got on: since it began, and since there has been a node that is
    /// not lost. `now` while all are.
    pub fn up_since(&mut self, view: &View<'_>, now: Timestamp) -> Timestamp {
        self.catch_up(view);
        // Where there are no nodes at all, none is lost.
        let is_up = self.nodes.is_empty() || self.nodes.values().any(|node| !node.lost);
        self.up_since = is_up.then(|| self.up_since.unwrap_or(now));
        self.up_since.unwrap_or(now)
    }

    /// All nodes as they are.
    pub fn nodes(&self) -> Arc<Nodes> {
        self.nodes.clone()
    }

    /// Those of `all` to which a node that has changed since the last call is another one than before: it is to have a
    /// pod or not, or its pods count or not. `placements` gives what is known of where one's pods are to be; one of
    /// which nothing is known is named in any case.
    pub fn take_touched(
        &mut self,
        all: impl Iterator<Item = ObjectKey>,
        placements: impl Fn(&ObjectKey) -> Arc<[Placement]>,
    ) -> Vec<ObjectKey> {
        let changed = std::mem::take(&mut self.changed);
        if changed.is_empty() {
            return Vec::new();
        }
        let changed: Vec<_> = changed
            .iter()
            .map(|(name, old)| (name, old.as_deref(), self.nodes.get(name).map(|n| &**n)))
            .filter(|(_, old, new)| old != new)
            .collect();
        let matters = |placements: &[Placement]| {
            placements.is_empty()
                || placements.iter().any(|p| {
                    let seen = |name: &str, facts: Option<&NodeFacts>| {
                        facts.map_or((Fit::Leaves, false), |f| (p.fit(name, f), f.lost))
                    };
                    changed.iter().any(|(name, old, new)| {
                        let (old, new) = (seen(name, *old), seen(name, *new));
                        old.0 != new.0 || (old.1 != new.1 && new.0 != Fit::Leaves)
                    })
                })
        };
        all.filter(|key| matters(&placements(key))).collect()
    }
}

//! A consistent snapshot: all trees at one revision.

use parking_lot::RwLockReadGuard;
use setpoint_apis::records::{
    Binding, Deletion, NodeAlive, NodeHealth, NodeStatusRecord, PodActual,
};
use setpoint_apis::stored::{Entry, Invalid, Stored};
use setpoint_apis::{Kind, ObjectKey};
use setpoint_store::Revision;

use super::state::{State, TableId};
use super::table::{AnyTable, Table};
use std::sync::Arc;

/// All trees at one revision.
///
/// It holds the cache's lock, so it must be short-lived; it cannot be held across an `.await` of a spawned task, which
/// is what keeps decisions synchronous.
pub struct View<'a> {
    pub(super) state: RwLockReadGuard<'a, State>,
}

impl View<'_> {
    /// The revision of everything seen here.
    pub fn revision(&self) -> Revision {
        Revision(self.state.revision)
    }

    /// The desired documents of a kind.
    ///
    /// # Panics
    /// When the kind was not registered with the [`CacheBuilder`](super::CacheBuilder): a mistake in the program.
    pub fn desired<K: Kind>(&self) -> &Table<K> {
        self.typed(TableId::Desired(K::PLURAL))
    }

    /// The statuses of a kind.
    ///
    /// # Panics
    /// As [`View::desired`].
    pub fn actual<K: Kind>(&self) -> &Table<K::Status> {
        self.typed(TableId::Actual(K::PLURAL))
    }

    /// The sessions of nodes, keyed by node ([`ObjectKey::cluster`]). The session is `create_revision`.
    pub fn node_alive(&self) -> &Table<NodeAlive> {
        self.typed(TableId::NodeAlive)
    }

    /// The session of a node: the create revision of its `alive` key, whatever that holds.
    pub fn session(&self, node: &str) -> Option<i64> {
        let entry = self.node_alive().entry(&ObjectKey::cluster(node))?;
        entry.last_good().map(|s| s.create_revision)
    }

    /// Whether a node's fence lease stands.
    pub fn fence_stands(&self, node: &str) -> bool {
        self.typed::<()>(TableId::NodeFence)
            .contains(&ObjectKey::cluster(node))
    }

    /// What agents report of their nodes, keyed by node.
    pub fn node_status(&self) -> &Table<NodeStatusRecord> {
        self.typed(TableId::NodeStatus)
    }

    /// What is concluded about nodes, keyed by node.
    pub fn health(&self) -> &Table<NodeHealth> {
        self.typed(TableId::Health)
    }

    /// Where pods are, keyed by pod.
    pub fn bindings(&self) -> &Table<Binding> {
        self.typed(TableId::Binding)
    }

    /// What runs of the pods of one node, keyed by pod. `None` when the node reports none.
    pub fn pods_on(&self, node: &str) -> Option<&Table<PodActual>> {
        self.state.node_pods.get(node).map(|t| downcast(&**t))
    }

    /// What runs of one pod on one node.
    pub fn pod_on(&self, node: &str, pod: &ObjectKey) -> Option<&Entry<PodActual>> {
        self.pods_on(node)?.entry(pod)
    }

    /// What runs of a pod where it is bound.
    pub fn pod_actual(&self, pod: &ObjectKey) -> Option<&Arc<Stored<PodActual>>> {
        let binding = self.bindings().get(pod)?;
        self.pod_on(&binding.value.node, pod)?.valid()
    }

    /// The nodes that report pods.
    pub fn nodes_with_pods(&self) -> impl Iterator<Item = &Arc<str>> {
        self.state.node_pods.keys()
    }

    /// The deletion records of a kind.
    pub fn deletions(&self, plural: &str) -> Option<&Table<Deletion>> {
        self.state.deletions.get(plural).map(|t| downcast(&**t))
    }

    /// Every document that does not parse: the tree it is in, its key, what is wrong.
    pub fn invalid(&self) -> Vec<(String, ObjectKey, Arc<Invalid>)> {
        let mut all = Vec::new();
        for (id, table) in &self.state.tables {
            let tree = match id {
                TableId::Desired(plural) => format!("desired {plural}"),
                TableId::Actual(plural) => format!("actual {plural}"),
                TableId::NodeAlive | TableId::NodeFence | TableId::NodeStatus => {
                    "actual nodes".to_owned()
                }
                TableId::Health => "health".to_owned(),
                TableId::Binding => "bindings".to_owned(),
            };
            all.extend(
                table
                    .invalid()
                    .into_iter()
                    .map(|(k, i)| (tree.clone(), k, i)),
            );
        }
        for (node, table) in &self.state.node_pods {
            all.extend(
                table
                    .invalid()
                    .into_iter()
                    .map(|(k, i)| (format!("pods on node {node}"), k, i)),
            );
        }
        all.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        all
    }

    /// How many documents the cache holds.
    pub fn len(&self) -> usize {
        self.state.tables.values().map(|t| t.len()).sum::<usize>()
            + self
                .state
                .node_pods
                .values()
                .map(|t| t.len())
                .sum::<usize>()
    }

    /// Whether the cache holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn typed<T: 'static>(&self, id: TableId) -> &Table<T> {
        let table = self
            .state
            .tables
            .get(&id)
            .unwrap_or_else(|| panic!("{id:?} was not registered with the cache"));
        downcast(&**table)
    }
}

fn downcast<T: 'static>(table: &dyn AnyTable) -> &Table<T> {
    table
        .as_any()
        .downcast_ref()
        .expect("a plural names one kind only")
}

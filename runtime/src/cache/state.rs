//! The state behind the cache's lock: all tables at one revision.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use setpoint_apis::document::{self, Reader};
use setpoint_apis::records::{
    Binding, Deletion, NodeAlive, NodeHealth, NodeStatusRecord, PodActual,
};
use setpoint_apis::{Key, Kind, ObjectKey};

use super::table::{AnyTable, Decode, Decoder, TypedTable};

/// A key of the state trees, as subscribers get it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateKey {
    /// A desired document of a registered kind.
    Desired(&'static str, ObjectKey),
    /// The status of an object of a registered kind.
    Actual(&'static str, ObjectKey),
    /// A node's session.
    NodeAlive(Arc<str>),
    /// A node's fence lease.
    NodeFence(Arc<str>),
    /// A node's report.
    NodeStatus(Arc<str>),
    /// What runs of a pod on a node.
    NodePod(Arc<str>, ObjectKey),
    /// The conclusion about a node.
    Health(Arc<str>),
    /// Where a pod is.
    Binding(ObjectKey),
    /// How an object is to be deleted; any kind.
    Deletion(Arc<str>, ObjectKey),
}

/// Names one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum TableId {
    Desired(&'static str),
    Actual(&'static str),
    NodeAlive,
    NodeFence,
    NodeStatus,
    /// Rows are named by pod; the node is in the row, see [`State::node_pods`].
    Health,
    Binding,
}

pub(super) struct State {
    pub(super) revision: i64,
    pub(super) tables: FxHashMap<TableId, Box<dyn AnyTable>>,
    /// What runs on each node: a table per node, keyed by pod.
    pub(super) node_pods: FxHashMap<Arc<str>, Box<dyn AnyTable>>,
    /// Deletion records, a table per plural.
    pub(super) deletions: FxHashMap<Arc<str>, Box<dyn AnyTable>>,
    plurals: FxHashMap<String, &'static str>,
    node_pod_decoder: Arc<dyn Decoder>,
    deletion_decoder: Arc<dyn Decoder>,
}

fn decode_record<T: serde::de::DeserializeOwned>() -> Decode<T> {
    Box::new(|_, bytes| document::decode_value(bytes).map_err(|e| e.to_string()))
}

fn decode_kind<K: Kind>() -> Decode<K> {
    let reader = Reader::<K>::default();
    Box::new(move |row, bytes| reader.decode_keyed(row, bytes).map_err(|e| e.to_string()))
}

fn decode_status<K: Kind>() -> Decode<K::Status> {
    Box::new(|_, bytes| K::status_from_document(bytes).map_err(|e| e.to_string()))
}

/// The fence key's value carries nothing that a controller reads.
fn decode_unit() -> Decode<()> {
    Box::new(|_, _| Ok(()))
}

fn boxed<T: Send + Sync + 'static>(decode: Decode<T>) -> Box<dyn AnyTable> {
    Box::new(TypedTable::new(decode))
}

fn node_pods_table() -> Box<dyn AnyTable> {
    boxed::<PodActual>(decode_record())
}

fn deletions_table() -> Box<dyn AnyTable> {
    boxed::<Deletion>(decode_record())
}

impl State {
    pub(super) fn new() -> Self {
        let mut tables = FxHashMap::default();
        tables.insert(TableId::NodeAlive, boxed::<NodeAlive>(decode_record()));
        tables.insert(TableId::NodeFence, boxed::<()>(decode_unit()));
        tables.insert(
            TableId::NodeStatus,
            boxed::<NodeStatusRecord>(decode_record()),
        );
        tables.insert(TableId::Health, boxed::<NodeHealth>(decode_record()));
        tables.insert(TableId::Binding, boxed::<Binding>(decode_record()));
        Self {
            revision: 0,
            tables,
            node_pods: FxHashMap::default(),
            deletions: FxHashMap::default(),
            plurals: FxHashMap::default(),
            node_pod_decoder: node_pods_table().decoder(),
            deletion_decoder: deletions_table().decoder(),
        }
    }

    pub(super) fn register<K: Kind>(&mut self) {
        self.plurals.insert(K::PLURAL.to_owned(), K::PLURAL);
        self.tables
            .insert(TableId::Desired(K::PLURAL), boxed::<K>(decode_kind()));
        self.tables.insert(
            TableId::Actual(K::PLURAL),
            boxed::<K::Status>(decode_status::<K>()),
        );
    }

    /// Which table a key belongs to, and its row. `None` for kinds that nobody registered.
    pub(super) fn locate(&self, key: &Key<'_>) -> Option<Place> {
        let table = |id, row| Some(Place::Table(id, row));
        let node = |n: &str| ObjectKey::cluster(n);
        match key {
            Key::Desired(plural, k) => {
                table(TableId::Desired(self.plurals.get(*plural)?), k.clone())
            }
            Key::Actual(plural, k) => table(TableId::Actual(self.plurals.get(*plural)?), k.clone()),
            Key::NodeAlive(n) => table(TableId::NodeAlive, node(n)),
            Key::NodeFence(n) => table(TableId::NodeFence, node(n)),
            Key::NodeStatus(n) => table(TableId::NodeStatus, node(n)),
            Key::Health(n) => table(TableId::Health, node(n)),
            Key::Binding(k) => table(TableId::Binding, k.clone()),
            Key::NodePod(n, k) => Some(Place::NodePod(Arc::from(*n), k.clone())),
            Key::Deletion(plural, k) => Some(Place::Deletion(Arc::from(*plural), k.clone())),
            _ => None,
        }
    }

    /// How the documents of a place are read.
    pub(super) fn decoder(&self, place: &Place) -> Arc<dyn Decoder> {
        match place {
            Place::Table(id, _) => self
                .tables
                .get(id)
                .expect("`locate` names only tables that exist")
                .decoder(),
            Place::NodePod(..) => self.node_pod_decoder.clone(),
            Place::Deletion(..) => self.deletion_decoder.clone(),
        }
    }

    pub(super) fn table(&self, place: &Place) -> Option<&dyn AnyTable> {
        match place {
            Place::Table(id, _) => self.tables.get(id).map(|t| &**t),
            Place::NodePod(node, _) => self.node_pods.get(node).map(|t| &**t),
            Place::Deletion(plural, _) => self.deletions.get(plural).map(|t| &**t),
        }
    }

    pub(super) fn table_mut(&mut self, place: &Place) -> &mut dyn AnyTable {
        match place {
            Place::Table(id, _) => &mut **self
                .tables
                .get_mut(id)
                .expect("`locate` names only tables that exist"),
            Place::NodePod(node, _) => &mut **self
                .node_pods
                .entry(node.clone())
                .or_insert_with(node_pods_table),
            Place::Deletion(plural, _) => &mut **self
                .deletions
                .entry(plural.clone())
                .or_insert_with(deletions_table),
        }
    }

    /// Deletes a row, and the table of a node or plural that has become empty.
    pub(super) fn delete(&mut self, place: &Place) -> bool {
        let changed = match self.table(place) {
            Some(_) => self.table_mut(place).delete(place.row()),
            None => false,
        };
        match place {
            Place::NodePod(node, _) if self.node_pods.get(node).is_some_and(|t| t.len() == 0) => {
                self.node_pods.remove(node);
            }
            Place::Deletion(plural, _)
                if self.deletions.get(plural).is_some_and(|t| t.len() == 0) =>
            {
                self.deletions.remove(plural);
            }
            _ => {}
        }
        changed
    }

    /// Every row there is, to find those that a fresh listing did not name.
    pub(super) fn places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for (id, table) in &self.tables {
            places.extend(table.keys().into_iter().map(|k| Place::Table(*id, k)));
        }
        for (node, table) in &self.node_pods {
            places.extend(
                table
                    .keys()
                    .into_iter()
                    .map(|k| Place::NodePod(node.clone(), k)),
            );
        }
        for (plural, table) in &self.deletions {
            places.extend(
                table
                    .keys()
                    .into_iter()
                    .map(|k| Place::Deletion(plural.clone(), k)),
            );
        }
        places
    }
}

/// A row of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Table(TableId, ObjectKey),
    NodePod(Arc<str>, ObjectKey),
    Deletion(Arc<str>, ObjectKey),
}

impl Place {
    pub(super) fn row(&self) -> &ObjectKey {
        match self {
            Self::Table(_, k) | Self::NodePod(_, k) | Self::Deletion(_, k) => k,
        }
    }

    /// Lets this row hold the same text for its namespace as the one before it, when that is equal.
    pub(super) fn share_namespace(&mut self, before: &Self) {
        let (Self::Table(_, k) | Self::NodePod(_, k) | Self::Deletion(_, k)) = self;
        let before = &before.row().namespace;
        if k.namespace == *before {
            k.namespace = Arc::clone(before);
        }
    }

    pub(super) fn state_key(&self) -> StateKey {
        match self {
            Self::Table(TableId::Desired(plural), k) => StateKey::Desired(plural, k.clone()),
            Self::Table(TableId::Actual(plural), k) => StateKey::Actual(plural, k.clone()),
            Self::Table(TableId::NodeAlive, k) => StateKey::NodeAlive(k.name.clone()),
            Self::Table(TableId::NodeFence, k) => StateKey::NodeFence(k.name.clone()),
            Self::Table(TableId::NodeStatus, k) => StateKey::NodeStatus(k.name.clone()),
            Self::Table(TableId::Health, k) => StateKey::Health(k.name.clone()),
            Self::Table(TableId::Binding, k) => StateKey::Binding(k.clone()),
            Self::NodePod(node, k) => StateKey::NodePod(node.clone(), k.clone()),
            Self::Deletion(plural, k) => StateKey::Deletion(plural.clone(), k.clone()),
        }
    }
}

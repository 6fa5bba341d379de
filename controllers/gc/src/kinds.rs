//! The kinds that are looked after, with their types erased: what there is of an object, whatever it is.

use setpoint_apis::apps::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use setpoint_apis::autoscaling::HorizontalPodAutoscaler;
use setpoint_apis::batch::{CronJob, Job};
use setpoint_apis::core::{
    ConfigMap, LimitRange, Namespace, Node, PersistentVolumeClaim, Pod, ResourceQuota, Secret,
    Service, ServiceAccount,
};
use setpoint_apis::document::DecodeError;
use setpoint_apis::networking::Ingress;
use setpoint_apis::placement::{PodGroup, Reservation, SchedulerProfile};
use setpoint_apis::policy::PodDisruptionBudget;
use setpoint_apis::scheduling::PriorityClass;
use setpoint_apis::{Kind, ObjectKey, OwnerReference, owners};
use setpoint_runtime::{CacheBuilder, View};

use crate::plan::ObjectId;

/// An object as the cache holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    /// Its uid, of the last version that parsed; `None` when none did.
    pub(crate) uid: Option<String>,
    /// The revision of its creation; `None` as with the uid.
    pub(crate) created: Option<i64>,
    /// The revision of its document, whether that parses or not.
    pub(crate) mod_revision: i64,
    /// Whether its document parses.
    pub(crate) valid: bool,
    /// Its owners, of the last version that parsed.
    pub(crate) owners: Vec<OwnerReference>,
}

/// Writes a document again with other owners.
type Reown = fn(&ObjectKey, &[u8], &[OwnerReference]) -> Result<String, DecodeError>;

/// One kind.
#[derive(Clone, Copy)]
pub(crate) struct KindEntry {
    /// `apps/v1`.
    pub(crate) api_version: &'static str,
    /// `Deployment`.
    pub(crate) kind: &'static str,
    /// `deployments`.
    pub(crate) plural: &'static str,
    /// Whether objects live in a namespace.
    pub(crate) namespaced: bool,
    register: fn(CacheBuilder) -> CacheBuilder,
    exists: fn(&View<'_>, &ObjectKey) -> bool,
    object: fn(&View<'_>, &ObjectKey) -> Option<Object>,
    keys: fn(&View<'_>) -> Vec<ObjectKey>,
    keys_in: fn(&View<'_>, &str) -> Vec<ObjectKey>,
    has_status: fn(&View<'_>, &ObjectKey) -> bool,
    status_keys: fn(&View<'_>) -> Vec<ObjectKey>,
    reown: Reown,
}

impl std::fmt::Debug for KindEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.api_version, self.kind)
    }
}

impl KindEntry {
    /// The entry of kind `K`.
    pub(crate) fn of<K: Kind>() -> Self {
        Self {
            api_version: K::API_VERSION,
            kind: K::KIND,
            plural: K::PLURAL,
            namespaced: K::NAMESPACED,
            register: CacheBuilder::kind::<K>,
            exists: |view, key| view.desired::<K>().contains(key),
            object: |view, key| {
                let entry = view.desired::<K>().entry(key)?;
                let good = entry.last_good();
                Some(Object {
                    uid: good.map(|g| g.uid()),
                    created: good.map(|g| g.create_revision),
                    mod_revision: entry.mod_revision(),
                    valid: entry.valid().is_some(),
                    owners: good
                        .map(|g| g.value.metadata().owner_references.clone())
                        .unwrap_or_default(),
                })
            },
            keys: |view| {
                view.desired::<K>()
                    .entries()
                    .map(|(k, _)| k.clone())
                    .collect()
            },
            keys_in: |view, ns| {
                view.desired::<K>()
                    .namespace(ns)
                    .map(|(k, _)| k.clone())
                    .collect()
            },
            has_status: |view, key| view.actual::<K>().contains(key),
            status_keys: |view| {
                view.actual::<K>()
                    .entries()
                    .map(|(k, _)| k.clone())
                    .collect()
            },
            reown: owners::with_owner_references::<K>,
        }
    }

    /// Whether there is an object of a name, whatever its document looks like.
    pub(crate) fn exists(&self, view: &View<'_>, key: &ObjectKey) -> bool {
        (self.exists)(view, key)
    }

    /// The object of a name.
    pub(crate) fn object(&self, view: &View<'_>, key: &ObjectKey) -> Option<Object> {
        (self.object)(view, key)
    }

    /// All names.
    pub(crate) fn keys(&self, view: &View<'_>) -> Vec<ObjectKey> {
        (self.keys)(view)
    }

    /// The names of a namespace; none for kinds that do not live in one.
    pub(crate) fn keys_in(&self, view: &View<'_>, namespace: &str) -> Vec<ObjectKey> {
        if self.namespaced {
            (self.keys_in)(view, namespace)
        } else {
            Vec::new()
        }
    }

    /// Whether there is a status of that name, which this controller removes when the object is gone. Those of pods and
    /// volume claims are the scheduler's, those of nodes node-lifecycle's.
    pub(crate) fn has_status(&self, view: &View<'_>, key: &ObjectKey) -> bool {
        self.owns_statuses() && (self.has_status)(view, key)
    }

    /// The names of all statuses that this controller removes.
    pub(crate) fn status_keys(&self, view: &View<'_>) -> Vec<ObjectKey> {
        if self.owns_statuses() {
            (self.status_keys)(view)
        } else {
            Vec::new()
        }
    }

    fn owns_statuses(&self) -> bool {
        ![Pod::PLURAL, PersistentVolumeClaim::PLURAL, Node::PLURAL].contains(&self.plural)
    }

    /// The document with other owners.
    ///
    /// # Errors
    /// When the bytes are no valid object of the kind.
    pub(crate) fn reown(
        &self,
        key: &ObjectKey,
        bytes: &[u8],
        owners: &[OwnerReference],
    ) -> Result<String, DecodeError> {
        (self.reown)(key, bytes, owners)
    }
}

/// The kinds that are looked after. Owners of other kinds are taken to exist.
#[derive(Clone, Debug)]
pub struct Kinds(Vec<KindEntry>);

impl Kinds {
    /// Setpoint's own kinds.
    pub fn builtin() -> Self {
        Self(vec![
            KindEntry::of::<Namespace>(),
            KindEntry::of::<Node>(),
            KindEntry::of::<Pod>(),
            KindEntry::of::<ReplicaSet>(),
            KindEntry::of::<Deployment>(),
            KindEntry::of::<ControllerRevision>(),
            KindEntry::of::<StatefulSet>(),
            KindEntry::of::<DaemonSet>(),
            KindEntry::of::<Job>(),
            KindEntry::of::<CronJob>(),
            KindEntry::of::<HorizontalPodAutoscaler>(),
            KindEntry::of::<ConfigMap>(),
            KindEntry::of::<Secret>(),
            KindEntry::of::<Service>(),
            KindEntry::of::<Ingress>(),
            KindEntry::of::<PersistentVolumeClaim>(),
            KindEntry::of::<ServiceAccount>(),
            KindEntry::of::<PriorityClass>(),
            KindEntry::of::<SchedulerProfile>(),
            KindEntry::of::<ResourceQuota>(),
            KindEntry::of::<LimitRange>(),
            KindEntry::of::<PodDisruptionBudget>(),
            KindEntry::of::<Reservation>(),
            KindEntry::of::<PodGroup>(),
        ])
    }

    /// The same with one more.
    #[must_use]
    pub fn with<K: Kind>(mut self) -> Self {
        self.0.retain(|e| e.plural != K::PLURAL);
        self.0.push(KindEntry::of::<K>());
        self
    }

    /// Names the kinds to a cache.
    #[must_use]
    pub fn register(&self, builder: CacheBuilder) -> CacheBuilder {
        self.0.iter().fold(builder, |b, e| (e.register)(b))
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &KindEntry> {
        self.0.iter()
    }

    /// The kind whose keys have this segment.
    pub(crate) fn by_plural(&self, plural: &str) -> Option<&KindEntry> {
        self.0.iter().find(|e| e.plural == plural)
    }

    /// The owner that a reference means: its kind and its name. `None` when nobody here can say whether it exists.
    pub(crate) fn owner(
        &self,
        dependent: &KindEntry,
        key: &ObjectKey,
        reference: &OwnerReference,
    ) -> Option<(&KindEntry, ObjectId)> {
        let kind = self
            .iter()
            .find(|e| e.kind == reference.kind && e.api_version == reference.api_version)?;
        let name = reference.name.as_str();
        let key = match (kind.namespaced, dependent.namespaced) {
            (false, _) => ObjectKey::cluster(name),
            (true, true) => ObjectKey::namespaced(key.namespace.clone(), name),
            // In which namespace?
            (true, false) => return None,
        };
        Some((kind, ObjectId::new(kind.plural, key)))
    }
}

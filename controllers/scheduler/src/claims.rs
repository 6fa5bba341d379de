//! Volume claims: each is a directory of the node that the first pod which uses it was placed on, so all others go there.
//!
//! Where a claim is stands in its status (`actual/persistentvolumeclaims/`), which is written in the transaction that binds
//! the first of its pods, and never changed after that. It is about the claim of one uid: another one of the same name is
//! placed anew, as soon as the node of the former one knows that its directory is to go (`tombstones`). Whoever wants a
//! claim to be placed anew deletes it, and its data with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::core::{PersistentVolumeClaim, PersistentVolumeClaimStatus, PodSpec};
use setpoint_apis::records::ConstraintKind;
use setpoint_apis::{Key, Keyspace, Kind, ObjectKey, document};
use setpoint_runtime::{Entry, Stored, View};
use setpoint_scheduler_core::Pin;
use setpoint_scheduler_core::claims as core;
use setpoint_store::{Compare, TxnOp};

use crate::asks::Hold;
use crate::tombstones::no_tombstone;
use crate::writes::put;

/// A claim as it is.
struct Claim {
    claim: Arc<Stored<PersistentVolumeClaim>>,
    key: ObjectKey,
    status: Option<Arc<Stored<PersistentVolumeClaimStatus>>>,
}

impl Claim {
    /// The node that has its directory.
    fn node(&self) -> Option<&str> {
        self.status.as_ref()?.value.node_of(&self.claim.uid())
    }

    /// # Errors
    /// What is known of it instead.
    fn find(view: &View<'_>, key: ObjectKey) -> Result<Self, core::Claim> {
        let Some(entry) = view.desired::<PersistentVolumeClaim>().entry(&key) else {
            return Err(core::Claim::Missing);
        };
        let claim = entry.last_good().ok_or(core::Claim::Unreadable)?.clone();
        let status = view.actual::<PersistentVolumeClaim>().entry(&key);
        if status.is_some_and(|s| s.valid().is_none()) {
            return Err(core::Claim::Nowhere);
        }
        let status = status.and_then(Entry::valid).cloned();
        let uid = claim.uid();
        let place = core::Claim::of(status.as_ref().map(|s| &s.value), &uid);
        if matches!(place, core::Claim::Former(_)) {
            return Err(place);
        }
        Ok(Self { claim, key, status })
    }
}

fn all(view: &View<'_>, namespace: &Arc<str>, spec: &PodSpec) -> Result<Vec<Claim>, core::Claim> {
    let keys = spec.claim_names().into_iter();
    let keys = keys.map(|name| ObjectKey::namespaced(namespace.clone(), name));
    keys.map(|key| Claim::find(view, key)).collect()
}

/// The one node that pods with this spec can run on, when a claim of theirs is placed.
///
/// # Errors
/// Why they have to wait: a claim that does not exist or cannot be read, or claims on two nodes.
pub(crate) fn pin(
    view: &View<'_>,
    namespace: &Arc<str>,
    spec: &PodSpec,
) -> Result<Option<Pin>, Hold> {
    let find = |name: &str| {
        let key = ObjectKey::namespaced(namespace.clone(), name);
        match Claim::find(view, key) {
            Ok(claim) => claim
                .node()
                .map_or(core::Claim::Free, |node| core::Claim::On(node.into())),
            Err(instead) => instead,
        }
    };
    core::pin(spec, find)
        .map_err(|why| Hold::new(ConstraintKind::VolumeClaim, &why.claim, why.to_string()))
}

/// What binding a pod to a node adds to the transaction: that its claims are as they were seen, and where those are from
/// now on that were nowhere.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub(crate) guards: Vec<Compare>,
    pub(crate) ops: Vec<TxnOp>,
}

/// See [`Placed`]. Claims that cannot be read by now are left out: [`pin`] has held back pods that use them.
pub(crate) fn place(
    view: &View<'_>,
    keyspace: &Keyspace,
    namespace: &Arc<str>,
    spec: &PodSpec,
    node: &str,
) -> Placed {
    let mut placed = Placed::default();
    for claim in all(view, namespace, spec).unwrap_or_default() {
        let desired = Key::Desired(PersistentVolumeClaim::PLURAL, claim.key.clone());
        let guard = Compare::CreateRevision(keyspace.build(&desired), claim.claim.create_revision);
        placed.guards.push(guard);
        let actual = Key::Actual(PersistentVolumeClaim::PLURAL, claim.key.clone());
        let actual = keyspace.build(&actual);
        let seen = claim.status.as_ref().map_or(0, |s| s.mod_revision);
        placed
            .guards
            .push(Compare::ModRevision(actual.clone(), seen));
        if claim.node().is_none() {
            let uid = claim.claim.uid();
            placed.guards.push(no_tombstone(keyspace, node, &uid));
            let status = bound(&claim.claim, node);
            placed.ops.push(put(actual, document::encode(&status)));
        }
    }
    placed
}

/// The status of a claim whose directory is on a node.
pub(crate) fn bound(
    claim: &Stored<PersistentVolumeClaim>,
    node: &str,
) -> PersistentVolumeClaimStatus {
    let spec = &claim.value.spec;
    let requests = spec.resources.as_ref().map(|r| r.requests.clone());
    PersistentVolumeClaimStatus {
        phase: Some("Bound".into()),
        access_modes: spec.access_modes.clone(),
        capacity: requests.unwrap_or_default(),
        node: Some(node.into()),
        uid: Some(claim.uid()),
    }
}

/// Whether the directory of the claim that is there now is on a node; `None` when where it is cannot be read.
pub(crate) fn is_on(
    view: &View<'_>,
    key: &ObjectKey,
    claim: &Stored<PersistentVolumeClaim>,
    node: &str,
) -> Option<bool> {
    let Some(entry) = view.actual::<PersistentVolumeClaim>().entry(key) else {
        return Some(false);
    };
    let status = &entry.last_good()?.value;
    Some(status.node_of(&claim.uid()) == Some(node))
}

/// Pods without a node that look at claims: a change of the claim is one for them.
#[derive(Debug, Default)]
pub(crate) struct Watchers(BTreeMap<ObjectKey, BTreeSet<ObjectKey>>);

impl Watchers {
    /// A pod has looked at its claims.
    pub(crate) fn note(&mut self, pod: &ObjectKey, spec: &PodSpec) {
        for name in spec.claim_names() {
            let claim = ObjectKey::namespaced(pod.namespace.clone(), name);
            self.0.entry(claim).or_default().insert(pod.clone());
        }
    }

    /// A claim or its status has changed: the pods to look at again, which note themselves again when they still wait.
    pub(crate) fn take(&mut self, claim: &ObjectKey) -> BTreeSet<ObjectKey> {
        self.0.remove(claim).unwrap_or_default()
    }
}

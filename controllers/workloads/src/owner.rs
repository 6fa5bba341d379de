//! The kinds whose objects manage pods.

use setpoint_apis::apps::{DaemonSet, ReplicaSet, StatefulSet};
use setpoint_apis::batch::{Job, JobSpec, labels};
use setpoint_apis::{Kind, LabelSelector, ObjectKey, OwnerReference, StringMap};
use setpoint_runtime::{Stored, View};

/// A kind whose objects manage pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PodOwner {
    /// `apps/v1` ReplicaSet.
    ReplicaSet,
    /// `apps/v1` StatefulSet.
    StatefulSet,
    /// `apps/v1` DaemonSet.
    DaemonSet,
    /// `batch/v1` Job.
    Job,
}

impl PodOwner {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::ReplicaSet,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::Job,
    ];

    /// apiVersion and kind.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::ReplicaSet => (ReplicaSet::API_VERSION, ReplicaSet::KIND),
            Self::StatefulSet => (StatefulSet::API_VERSION, StatefulSet::KIND),
            Self::DaemonSet => (DaemonSet::API_VERSION, DaemonSet::KIND),
            Self::Job => (Job::API_VERSION, Job::KIND),
        }
    }

    /// The kind that a reference names, when it is one of these.
    pub fn of(owner: &OwnerReference) -> Option<Self> {
        let names = (&*owner.api_version, &*owner.kind);
        Self::ALL.into_iter().find(|kind| kind.names() == names)
    }
}

/// A kind that finds its pods by a selector.
pub trait Selects: Kind {
    /// The kind, as an owner of pods.
    const OWNER: PodOwner;

    /// Which pods are its own; `None` for an object whose pods are known by its uid.
    fn selector(&self) -> Option<&LabelSelector>;

    /// Whether it would take a pod with these labels on, that is nobody's.
    fn takes(object: &Stored<Self>, labels: &StringMap) -> bool {
        let selector = object.value.selector();
        selector.is_some_and(|s| s.matches(labels))
    }
}

impl Selects for ReplicaSet {
    const OWNER: PodOwner = PodOwner::ReplicaSet;

    fn selector(&self) -> Option<&LabelSelector> {
        Some(&self.spec.selector)
    }
}

impl Selects for DaemonSet {
    const OWNER: PodOwner = PodOwner::DaemonSet;

    fn selector(&self) -> Option<&LabelSelector> {
        Some(&self.spec.selector)
    }
}

impl Selects for StatefulSet {
    const OWNER: PodOwner = PodOwner::StatefulSet;

    fn selector(&self) -> Option<&LabelSelector> {
        Some(&self.spec.selector)
    }
}

impl Selects for Job {
    const OWNER: PodOwner = PodOwner::Job;

    fn selector(&self) -> Option<&LabelSelector> {
        self.spec.own_selector()
    }

    /// Without a selector of its own: the Job's own pods, which have lost no more than the reference to it.
    fn takes(object: &Stored<Self>, pod: &StringMap) -> bool {
        selects(&object.value.spec, pod, |uid| *uid == object.uid())
    }
}

/// Whether a pod with these labels is one that a Job selects; `is_own`: whether a uid is the Job's.
pub fn selects(job: &JobSpec, pod: &StringMap, is_own: impl FnOnce(&str) -> bool) -> bool {
    match job.own_selector() {
        Some(selector) => selector.matches(pod),
        None => pod
            .get(labels::CONTROLLER_UID)
            .is_some_and(|uid| is_own(uid)),
    }
}

/// Names the objects of a kind that would take a pod with these labels on.
pub type Takers = fn(&View<'_>, &str, &StringMap) -> Vec<ObjectKey>;

/// [`Takers`] of `K`.
pub fn takers<K: Selects>(view: &View<'_>, namespace: &str, labels: &StringMap) -> Vec<ObjectKey> {
    let mut found = Vec::new();
    for (key, entry) in view.desired::<K>().namespace(namespace) {
        if entry.valid().is_some_and(|o| K::takes(o, labels)) {
            found.push(key.clone());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_its_kind_by_version_and_word() {
        let reference = |api_version: &str, kind: &str| OwnerReference {
            api_version: api_version.into(),
            kind: kind.into(),
            ..OwnerReference::default()
        };
        assert_eq!(
            PodOwner::of(&reference("batch/v1", "Job")),
            Some(PodOwner::Job)
        );
        assert_eq!(PodOwner::of(&reference("apps/v1", "Job")), None);
        assert_eq!(PodOwner::of(&reference("apps/v1", "Deployment")), None);
    }
}

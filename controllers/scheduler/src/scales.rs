//! How many pods the workloads want that pods belong to: what disruption budgets count among.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use setpoint_apis::apps::{Deployment, ReplicaSet, StatefulSet, WorkloadCondition};
use setpoint_apis::autoscaling::HorizontalPodAutoscaler;
use setpoint_apis::core::Pod;
use setpoint_apis::meta::OwnerReference;
use setpoint_apis::{Kind, ObjectKey, fixed};
use setpoint_runtime::{Stored, View};

use crate::budgets::Owner;
use crate::observe::last_good;

/// The workload that a pod belongs to and that has a number: of the pods of a ReplicaSet the Deployment behind it, when
/// there is one. `None` for pods of nobody, and of those that have none, as DaemonSets.
pub(crate) fn owner(view: &View<'_>, key: &ObjectKey, pod: &Stored<Pod>) -> Option<Owner> {
    let controller = pod.value.metadata.controller()?;
    let namespace = &key.namespace;
    match controller.kind.as_str() {
        StatefulSet::KIND => is_there::<StatefulSet>(view, namespace, controller)
            .map(|_| name(StatefulSet::PLURAL, &controller.name)),
        ReplicaSet::KIND => {
            let set = is_there::<ReplicaSet>(view, namespace, controller)?;
            let above = set.value.metadata.controller();
            let above = above.filter(|c| c.kind == Deployment::KIND);
            match above.filter(|c| is_there::<Deployment>(view, namespace, c).is_some()) {
                Some(deployment) => Some(name(Deployment::PLURAL, &deployment.name)),
                None => Some(name(ReplicaSet::PLURAL, &controller.name)),
            }
        }
        _ => None,
    }
}

/// What a workload is called among those of its namespace.
pub(crate) fn name(plural: &str, name: &str) -> Owner {
    format!("{plural}/{name}").into()
}

/// How many pods a workload wants; `None` when it does not exist, or never parsed, or its controller does not follow its
/// document. `scalers` are those of its namespace.
pub(crate) fn wanted(
    view: &View<'_>,
    namespace: &Arc<str>,
    owner: &Owner,
    scalers: &Scalers<'_>,
) -> Option<i32> {
    let (plural, name) = owner.split_once('/')?;
    let key = ObjectKey::namespaced(namespace.clone(), name);
    match plural {
        Deployment::PLURAL => {
            let replicas = of::<Deployment>(view, &key, |d| d.spec.replicas, |s| &s.conditions)?;
            Some(scalers.decided::<Deployment>(view, &key, replicas))
        }
        ReplicaSet::PLURAL => {
            let replicas = of::<ReplicaSet>(view, &key, |r| r.spec.replicas, |s| &s.conditions)?;
            Some(scalers.decided::<ReplicaSet>(view, &key, replicas))
        }
        StatefulSet::PLURAL => {
            let replicas = of::<StatefulSet>(view, &key, |s| s.spec.replicas, |s| &s.conditions)?;
            Some(scalers.decided::<StatefulSet>(view, &key, replicas))
        }
        _ => None,
    }
}

/// What a document asks for. `None` when its controller has frozen it because of a change that may not be: what it says of
/// replicas is not followed either.
fn of<K: Kind>(
    view: &View<'_>,
    key: &ObjectKey,
    replicas: fn(&K) -> Option<i32>,
    conditions: fn(&K::Status) -> &[WorkloadCondition],
) -> Option<i32> {
    let workload = last_good(view.desired::<K>().entry(key))?;
    let status = last_good(view.actual::<K>().entry(key));
    let mut conditions = status.into_iter().flat_map(|s| conditions(&s.value));
    let frozen = conditions.any(|c| {
        let reason = c.reason.as_deref();
        c.type_ == "Invalid" && c.status == "True" && reason == Some(fixed::CHANGED)
    });
    (!frozen).then(|| replicas(&workload.value).unwrap_or(1))
}

/// The workload that an autoscaler is about, by its last good document.
pub(crate) fn target(view: &View<'_>, key: &ObjectKey) -> Option<Owner> {
    let scaler = last_good(view.desired::<HorizontalPodAutoscaler>().entry(key))?;
    let target = &scaler.value.spec.scale_target_ref;
    let plural = match target.kind.as_str() {
        Deployment::KIND => Deployment::PLURAL,
        ReplicaSet::KIND => ReplicaSet::PLURAL,
        StatefulSet::KIND => StatefulSet::PLURAL,
        _ => return None,
    };
    Some(name(plural, &target.name))
}

/// The autoscalers of a namespace, by the kind and name of what they are about: of several the first by name.
pub(crate) struct Scalers<'a> {
    about: FxHashMap<(&'a str, &'a str), (&'a ObjectKey, &'a HorizontalPodAutoscaler)>,
}

impl<'a> Scalers<'a> {
    /// Looks through all of them. To be kept for all workloads that are asked about at a time.
    pub(crate) fn of(view: &'a View<'_>, namespace: &'a str) -> Self {
        let mut about = FxHashMap::default();
        // By name.
        for (name, entry) in view
            .desired::<HorizontalPodAutoscaler>()
            .namespace(namespace)
        {
            if let Some(scaler) = entry.last_good() {
                let target = &scaler.value.spec.scale_target_ref;
                about
                    .entry((&*target.kind, &*target.name))
                    .or_insert((name, &scaler.value));
            }
        }
        Self { about }
    }

    /// What an autoscaler makes of what a document asks for, as the workload's controller takes it up.
    fn decided<K: Kind>(&self, view: &View<'_>, key: &ObjectKey, asked: i32) -> i32 {
        let scaler = self.about.get(&(K::KIND, &*key.name));
        let wanted = scaler.map_or(asked, |(name, scaler)| {
            let record = view.actual::<HorizontalPodAutoscaler>().get(name);
            scaler.spec.wanted(asked, record.map(|r| &r.value))
        });
        wanted.max(0)
    }
}

/// The object that a reference is to, not another of its name.
fn is_there<'a, K: Kind>(
    view: &'a View<'_>,
    namespace: &Arc<str>,
    reference: &OwnerReference,
) -> Option<&'a Arc<Stored<K>>> {
    let key = ObjectKey::namespaced(namespace.clone(), reference.name.as_str());
    last_good(view.desired::<K>().entry(&key)).filter(|object| object.uid() == reference.uid)
}

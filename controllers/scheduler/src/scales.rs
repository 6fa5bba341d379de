//! How many pods the workloads want that pods belong to: what disruption budgets count among, as the cache has it.

use std::sync::Arc;

use setpoint_apis::apps::{Deployment, ReplicaSet, StatefulSet};
use setpoint_apis::autoscaling::HorizontalPodAutoscaler;
use setpoint_apis::core::Pod;
use setpoint_apis::resolve::{self, Recorded, Said, Scaled, Scalers};
use setpoint_apis::{Kind, ObjectKey};
use setpoint_runtime::{Stored, View};
use setpoint_scheduler_core::budgets::Owner;

use crate::observe::last_good;

/// The workload that a pod belongs to and that has a number.
pub(crate) fn owner(view: &View<'_>, key: &ObjectKey, pod: &Stored<Pod>) -> Option<Owner> {
    let find = |plural: &str, name: &str| find(view, &key.namespace, plural, name);
    let (plural, name) = resolve::scaled_owner(pod.value.metadata.controller(), find)?;
    Some(self::name(plural, name))
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
    let workload = find(view, namespace, plural, name)?;
    scalers.wanted((plural, name), &workload, |scaler| {
        match view.actual::<HorizontalPodAutoscaler>().entry(scaler) {
            None => Recorded::Nothing,
            Some(record) => record
                .last_good()
                .map_or(Recorded::Unreadable, |r| Recorded::Is(&r.value)),
        }
    })
}

/// The autoscalers of a namespace. To be kept for all workloads that are asked about at a time.
pub(crate) fn scalers<'a>(view: &'a View<'_>, namespace: &'a str) -> Scalers<'a> {
    let all = view.desired::<HorizontalPodAutoscaler>();
    // By name.
    let here = all.namespace(namespace);
    Scalers::of(here.map(|(key, entry)| (key, entry.last_good().map(|s| &s.value))))
}

/// The workload that an autoscaler is about, by its last good document.
pub(crate) fn target(view: &View<'_>, key: &ObjectKey) -> Option<Owner> {
    let scaler = last_good(view.desired::<HorizontalPodAutoscaler>().entry(key))?;
    let (plural, name) = resolve::scale_target(&scaler.value)?;
    Some(self::name(plural, name))
}

fn find<'a>(
    view: &'a View<'_>,
    namespace: &Arc<str>,
    plural: &str,
    name: &str,
) -> Option<Scaled<'a>> {
    let key = ObjectKey::namespaced(namespace.clone(), name);
    match plural {
        Deployment::PLURAL => of::<Deployment>(view, &key, |d| d.spec.replicas),
        ReplicaSet::PLURAL => of::<ReplicaSet>(view, &key, |r| r.spec.replicas),
        StatefulSet::PLURAL => of::<StatefulSet>(view, &key, |s| s.spec.replicas),
        _ => None,
    }
}

fn of<'a, K: Kind>(
    view: &'a View<'_>,
    key: &ObjectKey,
    replicas: fn(&K) -> Option<i32>,
) -> Option<Scaled<'a>>
where
    for<'s> Said: From<&'s K::Status>,
{
    let workload = last_good(view.desired::<K>().entry(key))?;
    let status = last_good(view.actual::<K>().entry(key));
    let said = status.map(|s| Said::from(&s.value));
    Some(Scaled::of(workload, replicas(&workload.value), said))
}

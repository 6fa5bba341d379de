//! A controller with a kind of its own: a `Website` owns pods.
//!
//! It promises that there are as many pods as `spec.replicas` says, that they go when the website goes, and that
//! `status` tells how many there are and how many are ready.

mod website;

use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::core::{Container, Pod, PodSpec};
use setpoint_apis::{Key, Kind, ObjectKey, ObjectMeta, OwnerReference, document};
use setpoint_runtime::{
    Action, CacheBuilder, Controller, Leader, LeaderError, StateKey, Stored, View, Write,
    WriteOutcome,
};
use setpoint_store::Compare;

pub use website::{Website, WebsiteSpec, WebsiteStatus};

/// A pod of a website, as far as it matters here.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnPod {
    /// Its key.
    pub key: ObjectKey,
    /// The uid of the website that owns it.
    pub owner: String,
    /// Whether it serves.
    pub ready: bool,
}

/// What to do for one website.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Pods to create.
    pub create: Vec<Pod>,
    /// Pods to delete.
    pub delete: Vec<ObjectKey>,
    /// What the status becomes; `None` with the website.
    pub status: Option<WebsiteStatus>,
}

/// Decides: no clock, no store. Pods have names with fixed numbers, so that deciding twice creates nothing twice.
pub fn decide(site: Option<&Stored<Website>>, pods: &[OwnPod]) -> Plan {
    let Some(site) = site else {
        return Plan {
            delete: pods.iter().map(|p| p.key.clone()).collect(),
            ..Plan::default()
        };
    };
    let (uid, meta) = (site.uid(), &site.value.metadata);
    let wanted: Vec<String> = (0..site.value.spec.replicas)
        .map(|i| format!("{}-{i}", meta.name))
        .collect();
    let keeps =
        |pod: &&OwnPod| pod.owner == uid && wanted.iter().any(|name| **name == *pod.key.name);
    let missing = wanted
        .iter()
        .filter(|name| !pods.iter().any(|p| *p.key.name == ***name));
    Plan {
        create: missing.map(|name| pod(&site.value, name, &uid)).collect(),
        delete: pods
            .iter()
            .filter(|p| !keeps(p))
            .map(|p| p.key.clone())
            .collect(),
        status: Some(WebsiteStatus {
            replicas: pods.iter().filter(keeps).count() as u32,
            ready: pods.iter().filter(keeps).filter(|p| p.ready).count() as u32,
        }),
    }
}

fn pod(site: &Website, name: &str, uid: &str) -> Pod {
    let owner = OwnerReference {
        api_version: Website::API_VERSION.into(),
        kind: Website::KIND.into(),
        name: site.metadata.name.clone(),
        uid: uid.into(),
        controller: Some(true),
        ..OwnerReference::default()
    };
    let main = Container {
        name: "main".into(),
        image: "host".into(),
        command: site.spec.command.clone(),
        ..Container::default()
    };
    Pod {
        metadata: ObjectMeta {
            name: name.into(),
            namespace: site.metadata.namespace.clone(),
            owner_references: vec![owner],
            ..ObjectMeta::default()
        },
        spec: Arc::new(PodSpec {
            containers: vec![main],
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}

/// Names the kinds that the cache is to hold.
pub fn register(cache: CacheBuilder) -> CacheBuilder {
    cache.kind::<Website>().kind::<Pod>()
}

/// Reconciles websites until the leadership is lost.
pub async fn run(leader: Leader) {
    let all = |view: &View<'_>| -> Vec<ObjectKey> {
        let owners = view
            .desired::<Pod>()
            .iter()
            .filter_map(|(key, pod)| owner(key, &pod.value));
        view.desired::<Website>()
            .entries()
            .map(|(key, _)| key.clone())
            .chain(owners)
            .collect()
    };
    let interest = |key: &StateKey| {
        matches!(key, StateKey::Desired(plural, _) if [Website::PLURAL, Pod::PLURAL].contains(plural))
            || matches!(key, StateKey::NodePod(..))
    };
    let controller = Controller::new("websites", interest, concerned, all);
    controller
        .run(leader.clone(), |key| reconcile(leader.clone(), key))
        .await;
}

/// The websites that a change concerns. A pod that is gone no longer names its owner; its name does.
fn concerned(change: &StateKey, view: &View<'_>) -> Vec<ObjectKey> {
    match change {
        StateKey::Desired(Website::PLURAL, key) => vec![key.clone()],
        StateKey::Desired(_, key) | StateKey::NodePod(_, key) => {
            let owned = view
                .desired::<Pod>()
                .get(key)
                .and_then(|pod| owner(key, &pod.value));
            let named = || {
                Some(ObjectKey::namespaced(
                    key.namespace.clone(),
                    key.name.rsplit_once('-')?.0,
                ))
            };
            let known = |key: &ObjectKey| view.desired::<Website>().contains(key);
            owned
                .or_else(|| named().filter(known))
                .into_iter()
                .collect()
        }
        _ => Vec::new(),
    }
}

fn owner(key: &ObjectKey, pod: &Pod) -> Option<ObjectKey> {
    let owner = pod
        .metadata
        .controller()
        .filter(|o| o.api_version == Website::API_VERSION && o.kind == Website::KIND)?;
    Some(ObjectKey::namespaced(
        key.namespace.clone(),
        owner.name.as_str(),
    ))
}

async fn reconcile(leader: Leader, key: ObjectKey) -> Result<Action, LeaderError> {
    let (plan, before) = {
        let view = leader.cache().view();
        let site = view.desired::<Website>().entry(&key);
        if site.is_some_and(|entry| entry.valid().is_none()) {
            // It cannot be read: present and frozen. Nothing of it is touched.
            return Ok(Action::await_change());
        }
        let pods: Vec<OwnPod> = view
            .desired::<Pod>()
            .namespace(&key.namespace)
            .filter_map(|(pod, entry)| {
                let stored = entry
                    .last_good()
                    .filter(|s| owner(pod, &s.value).as_ref() == Some(&key))?;
                let owner = stored.value.metadata.controller()?.uid.clone();
                let ready = view
                    .pod_actual(pod)
                    .is_some_and(|actual| actual.value.is_ready());
                Some(OwnPod {
                    key: pod.clone(),
                    owner,
                    ready,
                })
            })
            .collect();
        let before = view.actual::<Website>().get(&key).map(|s| s.value.clone());
        (
            decide(site.and_then(|e| e.valid()).map(|s| &**s), &pods),
            before,
        )
    };
    let outcomes = leader.commit(writes(&leader, &key, plan, before)).await?;
    // A guard that did not hold means that something changed, which brings us here again; this is for the rest.
    let all = outcomes
        .iter()
        .all(|o| matches!(o, WriteOutcome::Committed(_)));
    Ok(if all {
        Action::await_change()
    } else {
        Action::requeue(Duration::from_secs(1))
    })
}

fn writes(
    leader: &Leader,
    key: &ObjectKey,
    plan: Plan,
    before: Option<WebsiteStatus>,
) -> Vec<Write> {
    let path = |pod: ObjectKey| leader.keyspace().build(&Key::Desired(Pod::PLURAL, pod));
    let mut writes = Vec::new();
    for pod in plan.create {
        let path = path(pod.metadata.key());
        let absent = Compare::absent(path.clone());
        writes.push(
            Write::put(
                format!("pod of website {key}"),
                path,
                document::encode(&pod),
            )
            .when(absent),
        );
    }
    for pod in plan.delete {
        writes.push(Write::delete(
            format!("surplus pod of website {key}"),
            path(pod),
        ));
    }
    let (context, status) = (
        format!("status of website {key}"),
        Key::Actual(Website::PLURAL, key.clone()),
    );
    let path = leader.keyspace().build(&status);
    match plan.status {
        Some(status) if before.as_ref() != Some(&status) => {
            writes.push(Write::put(context, path, document::encode(&status)));
        }
        None if before.is_some() => writes.push(Write::delete(context, path)),
        _ => {}
    }
    writes
}

//! What is on the nodes that are drained, as it is now.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use setpoint_apis::apps::DaemonSet;
use setpoint_apis::core::{Node, PersistentVolumeClaim, PersistentVolumeClaimStatus, Pod};
use setpoint_apis::records::{Intent, PodActual};
use setpoint_apis::stored::Stored;
use setpoint_apis::{Key, Kind, LabelSelector, ObjectKey, document};
use setpoint_store::{Compare, KeyValue};

use super::super::requests::Standing;
use super::decide::{Part, Resident, of_daemon_set};
use crate::client::Client;

/// A node as it is now.
#[derive(Debug)]
pub(super) struct Seen {
    /// Whether it takes no new pods. `None` when its document is gone or cannot be read.
    pub(super) cordoned: Option<bool>,
    /// That its document is as it was read.
    pub(super) guard: Compare,
    /// Whether its agent has a session.
    pub(super) answers: bool,
    /// The pods that it has work for, or reports.
    pub(super) residents: Vec<Resident>,
}

/// Looks at a node. `standing` are the requests of drains, read before.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn look(
    client: &Client,
    node: &str,
    only: &LabelSelector,
    standing: &[Standing],
) -> Result<Seen> {
    let mut asked: BTreeMap<&ObjectKey, &Intent> = standing
        .iter()
        .filter(|s| s.intent.node.as_deref() == Some(node))
        .map(|s| (&s.pod, &s.intent))
        .collect();
    let keyspace = client.keyspace();
    let (work, _) = client.keys(&keyspace.work_range(Some(node)), None).await?;
    let (actual, _) = client
        .range(&keyspace.node_actual_range(Some(node)), None)
        .await?;
    let mut answers = false;
    let mut pods: BTreeSet<ObjectKey> = work
        .iter()
        .filter_map(|key| match keyspace.split(key) {
            Ok(Key::WorkPod(_, pod)) => Some(pod),
            _ => None,
        })
        .collect();
    let mut reports: BTreeMap<ObjectKey, Part<PodActual>> = BTreeMap::new();
    for kv in &actual {
        match keyspace.split(&kv.key) {
            Ok(Key::NodePod(_, pod)) => {
                pods.insert(pod.clone());
                reports.insert(pod, part(document::decode_value(&kv.value)));
            }
            Ok(Key::NodeAlive(_)) => answers = true,
            _ => {}
        }
    }
    let place = Key::Desired(Node::PLURAL, ObjectKey::cluster(node));
    let mut keys = vec![place.clone()];
    for pod in &pods {
        keys.push(Key::Desired(Pod::PLURAL, pod.clone()));
        keys.push(Key::Binding(pod.clone()));
    }
    let mut read = client.get_many(&keys).await?.into_iter();
    let document = read.next().flatten();
    let guard = Compare::ModRevision(
        client.key(&place),
        document.as_ref().map_or(0, |kv| kv.mod_revision),
    );
    let cordoned = document
        .and_then(|kv| document::decode_keyed::<Node>(&ObjectKey::cluster(node), &kv.value).ok())
        .map(|node| node.spec.unschedulable.unwrap_or_default());
    let mut residents = Vec::with_capacity(pods.len());
    for key in pods {
        let (pod, binding) = (read.next().flatten(), read.next().flatten());
        let pod = stored::<Pod>(&key, pod);
        if !is_meant(&pod, only) {
            continue;
        }
        residents.push(Resident {
            node: node.to_owned(),
            binding: binding.map_or(Part::Absent, |kv| part(document::decode_value(&kv.value))),
            report: reports.remove(&key).unwrap_or(Part::Absent),
            has_daemon_set: false,
            claims: Vec::new(),
            asked: asked.remove(&key).cloned(),
            pod,
            key,
        });
    }
    read_owners(client, &mut residents).await?;
    read_claims(client, node, &mut residents).await?;
    Ok(Seen {
        cordoned,
        guard,
        answers,
        residents,
    })
}

/// Whether labels choose a pod. All of them when nothing is chosen; none whose labels are not known.
fn is_meant(pod: &Part<Stored<Pod>>, only: &LabelSelector) -> bool {
    *only == LabelSelector::default()
        || pod
            .get()
            .is_some_and(|pod| only.matches(&pod.value.metadata.labels))
}

async fn read_owners(client: &Client, residents: &mut [Resident]) -> Result<()> {
    let owner = |resident: &Resident| {
        let name = of_daemon_set(&resident.pod.get()?.value)?;
        Some(ObjectKey::namespaced(resident.key.namespace.clone(), name))
    };
    let named: BTreeSet<ObjectKey> = residents.iter().filter_map(owner).collect();
    let named: Vec<_> = named.into_iter().collect();
    let keys: Vec<_> = named
        .iter()
        .map(|key| Key::Desired(DaemonSet::PLURAL, key.clone()))
        .collect();
    let read = client.get_many(&keys).await?;
    let there: BTreeSet<_> = named
        .into_iter()
        .zip(read)
        .filter_map(|(key, kv)| kv.map(|_| key))
        .collect();
    for resident in residents {
        resident.has_daemon_set = owner(resident).is_some_and(|key| there.contains(&key));
    }
    Ok(())
}

/// Which claims are on the node.
async fn read_claims(client: &Client, node: &str, residents: &mut [Resident]) -> Result<()> {
    let claims_of = |resident: &Resident| -> Vec<ObjectKey> {
        let Some(pod) = resident.pod.get() else {
            return Vec::new();
        };
        let names = pod.value.spec.claim_names().into_iter();
        names
            .map(|name| ObjectKey::namespaced(resident.key.namespace.clone(), name))
            .collect()
    };
    let named: BTreeSet<ObjectKey> = residents.iter().flat_map(claims_of).collect();
    let named: Vec<_> = named.into_iter().collect();
    let plural = PersistentVolumeClaim::PLURAL;
    let keys: Vec<_> = named
        .iter()
        .flat_map(|key| {
            [
                Key::Desired(plural, key.clone()),
                Key::Actual(plural, key.clone()),
            ]
        })
        .collect();
    let mut read = client.get_many(&keys).await?.into_iter();
    let mut here = BTreeSet::new();
    for key in named {
        let (claim, status) = (read.next().flatten(), read.next().flatten());
        if is_on(node, &key, claim, status) {
            here.insert(key);
        }
    }
    for resident in residents {
        let mut claims = claims_of(resident);
        claims.retain(|key| here.contains(key));
        resident.claims = claims.iter().map(|key| key.name.to_string()).collect();
    }
    Ok(())
}

/// Whether the directory of a claim is on a node. What cannot be read may say so.
fn is_on(node: &str, key: &ObjectKey, claim: Option<KeyValue>, status: Option<KeyValue>) -> bool {
    let Some(status) = status else {
        return false;
    };
    let status: PersistentVolumeClaimStatus = match document::decode_value(&status.value) {
        Ok(status) => status,
        Err(_) => return true,
    };
    match stored::<PersistentVolumeClaim>(key, claim) {
        Part::Is(claim) => status.node_of(&claim.uid()) == Some(node),
        Part::Absent => false,
        Part::Unreadable => status.node.as_deref() == Some(node),
    }
}

fn stored<K: Kind>(key: &ObjectKey, kv: Option<KeyValue>) -> Part<Stored<K>> {
    let Some(kv) = kv else {
        return Part::Absent;
    };
    let read = document::decode_keyed::<K>(key, &kv.value);
    part(read.map(|value| Stored {
        value,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
    }))
}

fn part<T, E>(read: Result<T, E>) -> Part<T> {
    read.map_or(Part::Unreadable, Part::Is)
}

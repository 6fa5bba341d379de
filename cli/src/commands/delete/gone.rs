//! Waits until deleted objects are gone: not only their documents, also what runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, bail};
use setpoint_apis::{Key, ObjectKey};
use tokio::time::Instant;

use crate::client::Client;
use crate::commands::wait::names;
use crate::kinds::{self, KindInfo};
use crate::object::Object;
use crate::term::Progress;

/// The uids of objects and of all that they own, directly or not.
#[derive(Default)]
pub(super) struct Family(BTreeSet<String>);

impl Family {
    /// The objects by themselves.
    pub(super) fn new(objects: &[Object]) -> Self {
        let uids = objects.iter().map(|o| o.uid().to_owned());
        Self(uids.filter(|uid| !uid.is_empty()).collect())
    }

    /// Adds what is owned by a member now. Members whose documents have gone meanwhile stay members.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(super) async fn grow(&mut self, client: &Client) -> Result<()> {
        let mut objects = Vec::new();
        for plural in client.plurals().await? {
            let known = kinds::all().find(|k| k.plural == plural);
            let kind = match known {
                Some(kind) => Some(kind),
                None => client.foreign_kind(&plural).await?,
            };
            if let Some(kind) = kind {
                objects.extend(client.list(kind, None).await?.objects);
            }
        }
        loop {
            let before = self.0.len();
            for o in &objects {
                if self.owns(o) {
                    self.0.insert(o.uid().to_owned());
                }
            }
            if self.0.len() == before {
                return Ok(());
            }
        }
    }

    fn owns(&self, object: &Object) -> bool {
        let owners = object.list_at(&["metadata", "ownerReferences"]).iter();
        let mut uids = owners.filter_map(|r| r["uid"].as_str());
        uids.any(|uid| self.0.contains(uid))
    }

    /// Its pods that are deleted and have not stopped yet. One that another owner keeps is none of them.
    async fn stopping(&self, client: &Client) -> Result<BTreeMap<ObjectKey, String>> {
        let pods = client.list(kinds::builtin("pods"), None).await?.objects;
        let stopping = pods
            .iter()
            .filter(|p| p.revisions.is_none() && self.owns(p));
        Ok(stopping
            .map(|p| (p.key.clone(), p.uid().to_owned()))
            .collect())
    }
}

/// Waits until none of the objects is there any more, and then until no pod of the family runs. Zero waits for ever.
pub(super) async fn wait(
    client: &Client,
    objects: &[Object],
    family: &Family,
    timeout: Duration,
) -> Result<()> {
    let timeout = if timeout.is_zero() {
        Duration::from_secs(u64::from(u32::MAX))
    } else {
        timeout
    };
    let deadline = Instant::now() + timeout;
    let mut by_kind: BTreeMap<&str, (KindInfo, BTreeMap<ObjectKey, String>)> = BTreeMap::new();
    for o in objects {
        let entry = by_kind
            .entry(o.kind.plural)
            .or_insert_with(|| (o.kind, BTreeMap::new()));
        entry.1.insert(o.key.clone(), o.uid().to_owned());
        if o.kind.plural == "namespaces" {
            // A namespace is gone when nothing runs in it.
            let pods = client
                .list(kinds::builtin("pods"), Some(&o.key.name))
                .await?
                .objects;
            let entry = by_kind
                .entry("pods")
                .or_insert_with(|| (kinds::builtin("pods"), BTreeMap::new()));
            entry.1.extend(
                pods.into_iter()
                    .map(|p| (p.key.clone(), p.uid().to_owned())),
            );
        }
    }
    for (kind, keys) in by_kind.into_values() {
        until_gone(client, kind, keys, deadline).await?;
    }
    if family.0.is_empty() {
        return Ok(());
    }
    let stopping = family.stopping(client).await?;
    until_gone(client, kinds::builtin("pods"), stopping, deadline).await
}

async fn until_gone(
    client: &Client,
    kind: KindInfo,
    mut uids: BTreeMap<ObjectKey, String>,
    deadline: Instant,
) -> Result<()> {
    let progress = Progress::new(String::new());
    let (_, revision) = client.get(&Key::Meta("schema")).await?;
    let mut changes = client.changes(kind, revision).await?;
    let mut look_at: Vec<ObjectKey> = uids.keys().cloned().collect();
    loop {
        for (key, found) in client.find_many(kind, look_at).await? {
            // Another of the same name is not the one that was deleted.
            let same = |o: &Object| {
                uids.get(&key)
                    .is_some_and(|uid| o.uid().is_empty() || o.uid() == uid)
            };
            // Pods are there until they have stopped; a node may stay, as a machine that nobody wants.
            let there = |o: &Object| o.revisions.is_some() || kind.plural == "pods";
            let still = found.is_some_and(|o| same(&o) && there(&o));
            if !still {
                uids.remove(&key);
            }
        }
        if uids.is_empty() {
            return Ok(());
        }
        let left: Vec<ObjectKey> = uids.keys().cloned().collect();
        progress.say(format!("waiting for {} to stop", names(&kind, &left)));
        look_at = loop {
            let Ok(change) = tokio::time::timeout_at(deadline, changes.next()).await else {
                bail!("timed out waiting for {} to be gone", names(&kind, &left))
            };
            let change = change?;
            let touched: Vec<ObjectKey> = change
                .keys
                .into_iter()
                .filter(|k| uids.contains_key(k))
                .collect();
            if !touched.is_empty() {
                break touched;
            }
        };
    }
}

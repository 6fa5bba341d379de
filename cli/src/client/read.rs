//! Listings and single reads of merged objects.

use std::collections::BTreeMap;

use anyhow::Result;
use futures::stream::{self, StreamExt, TryStreamExt};
use setpoint_apis::records::{Binding, NodeHealth};
use setpoint_apis::{Key, ObjectKey, document};
use setpoint_store::{KeyValue, RangeRequest, Revision, StoreError};

use super::Client;
use super::merge::{self, NodeParts, PodParts};
use super::timeline::Dates;
use crate::kinds::KindInfo;
use crate::object::Object;

/// Objects of one kind as of one revision.
pub(crate) struct Listing {
    /// The objects, by namespace and name.
    pub(crate) objects: Vec<Object>,
    /// The revision.
    pub(crate) revision: Revision,
}

impl Client {
    /// Lists a kind, in one namespace or in all of them.
    ///
    /// # Errors
    /// When the store does not answer. A document that cannot be read is listed as invalid.
    pub(crate) async fn list(&self, kind: KindInfo, namespace: Option<&str>) -> Result<Listing> {
        let namespace = namespace.filter(|_| kind.namespaced);
        let listing = async {
            match kind.plural {
                "pods" => self.list_pods(kind, namespace).await,
                "nodes" => self.list_nodes(kind).await,
                "events" => self.list_events(kind, namespace).await,
                _ => self.list_plain(kind, namespace).await,
            }
        };
        let (listing, dates) = tokio::join!(listing, self.dates());
        let mut listing = listing?;
        self.count_for_quotas(&mut listing.objects).await?;
        for object in &mut listing.objects {
            merge::date(object, &dates);
        }
        Ok(listing)
    }

    /// Reads one object. `None` when there is none.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn find(&self, kind: KindInfo, key: &ObjectKey) -> Result<Option<Object>> {
        let (found, dates) = tokio::join!(self.find_undated(kind, key), self.dates());
        let mut found = found?;
        if let Some(object) = &mut found {
            self.count_for_quotas(std::slice::from_mut(object)).await?;
            merge::date(object, &dates);
        }
        Ok(found)
    }

    async fn find_undated(&self, kind: KindInfo, key: &ObjectKey) -> Result<Option<Object>> {
        Ok(match kind.plural {
            "pods" => self.find_pod(kind, key).await?,
            "nodes" => self.find_node(kind, key).await?,
            "events" => {
                let all = self.list_events(kind, Some(&key.namespace)).await?;
                all.objects.into_iter().find(|o| o.key == *key)
            }
            _ => {
                let (wanted, actual) = (
                    Key::Desired(kind.plural, key.clone()),
                    Key::Actual(kind.plural, key.clone()),
                );
                let (desired, status) = tokio::try_join!(self.get(&wanted), self.get(&actual))?;
                desired
                    .0
                    .map(|d| plain(kind, key.clone(), &d, status.0.as_ref()))
            }
        })
    }

    /// Reads several objects of a kind, in the order of their keys. What does not exist is `None`.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn find_many(
        &self,
        kind: KindInfo,
        keys: Vec<ObjectKey>,
    ) -> Result<Vec<(ObjectKey, Option<Object>)>> {
        if kind.plural == "events" && !keys.is_empty() {
            // The key of an event names its writer too, which is not known here.
            let mut all = self.list_events(kind, None).await?.objects;
            all.iter_mut()
                .for_each(|o| merge::date(o, &Dates::default()));
            let mut all: BTreeMap<ObjectKey, Object> =
                all.into_iter().map(|o| (o.key.clone(), o)).collect();
            return Ok(keys
                .into_iter()
                .map(|k| (k.clone(), all.remove(&k)))
                .collect());
        }
        let all = stream::iter(keys)
            .map(|key| async move {
                let found = self.find_undated(kind, &key).await?;
                Ok::<_, anyhow::Error>((key, found))
            })
            .buffered(16)
            .try_collect();
        let (all, dates) = tokio::join!(all, self.dates());
        let mut all: Vec<(ObjectKey, Option<Object>)> = all?;
        for object in all.iter_mut().filter_map(|(_, o)| o.as_mut()) {
            self.count_for_quotas(std::slice::from_mut(object)).await?;
            merge::date(object, &dates);
        }
        Ok(all)
    }

    async fn list_plain(&self, kind: KindInfo, namespace: Option<&str>) -> Result<Listing> {
        let (desired, revision) = self
            .range(&self.keyspace.desired_range(kind.plural, namespace), None)
            .await?;
        let (actual, _) = self
            .range(
                &self.keyspace.actual_range(kind.plural, namespace),
                Some(revision),
            )
            .await?;
        let statuses: BTreeMap<ObjectKey, KeyValue> = actual
            .into_iter()
            .filter_map(|kv| match self.keyspace.split(&kv.key) {
                Ok(Key::Actual(_, key)) => Some((key, kv)),
                _ => None,
            })
            .collect();
        let objects = desired
            .iter()
            .filter_map(|kv| match self.keyspace.split(&kv.key) {
                Ok(Key::Desired(_, key)) => Some(plain(kind, key.clone(), kv, statuses.get(&key))),
                _ => None,
            })
            .collect();
        Ok(Listing { objects, revision })
    }

    async fn list_pods(&self, kind: KindInfo, namespace: Option<&str>) -> Result<Listing> {
        let ks = &self.keyspace;
        let (desired, revision) = self
            .range(&ks.desired_range(kind.plural, namespace), None)
            .await?;
        let at = Some(revision);
        let ranges = [
            ks.binding_range(namespace),
            ks.actual_range(kind.plural, namespace),
            ks.node_actual_range(None),
            ks.health_range(),
        ];
        let [bindings, schedulings, reports, healths] = &ranges;
        let ((bindings, _), (schedulings, _), (reports, _), (healths, _)) = tokio::try_join!(
            self.range(bindings, at),
            self.range(schedulings, at),
            self.range(reports, at),
            self.range(healths, at)
        )?;
        let nodes = self.healths(&healths);
        let mut parts: BTreeMap<ObjectKey, PodParts<'_>> = BTreeMap::new();
        for kv in desired
            .iter()
            .chain(&bindings)
            .chain(&schedulings)
            .chain(&reports)
        {
            match ks.split(&kv.key) {
                Ok(Key::Desired(_, key)) => parts.entry(key).or_default().desired = Some(kv),
                Ok(Key::Binding(key)) => parts.entry(key).or_default().binding = Some(kv),
                Ok(Key::Actual(_, key)) => parts.entry(key).or_default().scheduling = Some(kv),
                Ok(Key::NodePod(node, key)) if namespace.is_none_or(|ns| *key.namespace == *ns) => {
                    parts.entry(key).or_default().actual.push((node, kv));
                }
                _ => {}
            }
        }
        for parts in parts.values_mut() {
            parts.nodes = Some(&nodes);
        }
        let (mut objects, lacking): (Vec<Object>, Vec<_>) = parts
            .iter()
            .filter_map(|(key, parts)| Some((merge::pod(kind, key.clone(), parts)?, (key, parts))))
            .unzip();
        let lacking = lacking.into_iter().enumerate();
        let lacking = lacking.filter(|(i, _)| objects.get(*i).is_some_and(merge::lacks_document));
        let copies: Vec<(usize, Option<Object>)> = stream::iter(lacking)
            .map(|(i, (key, parts))| async move {
                let node = parts.actual.first().map(|(node, _)| *node);
                let copy = self.work_copy(key, parts.binding, node, revision).await?;
                let with_copy = PodParts {
                    work: copy.as_ref(),
                    ..parts.clone()
                };
                Ok::<_, anyhow::Error>((i, merge::pod(kind, key.clone(), &with_copy)))
            })
            .buffered(16)
            .try_collect()
            .await?;
        for (i, object) in copies {
            if let (Some(place), Some(object)) = (objects.get_mut(i), object) {
                *place = object;
            }
        }
        Ok(Listing { objects, revision })
    }

    /// What is concluded about nodes, by their names.
    fn healths(&self, kvs: &[KeyValue]) -> BTreeMap<String, NodeHealth> {
        let read = |kv: &KeyValue| match self.keyspace.split(&kv.key) {
            Ok(Key::Health(node)) => {
                Some((node.to_owned(), document::decode_value(&kv.value).ok()?))
            }
            _ => None,
        };
        kvs.iter().filter_map(read).collect()
    }

    /// The copy of a pod that its node was given. Withdrawing the pod has removed it, so it is read as of the revision
    /// before; `None` when etcd does not keep that any more.
    async fn work_copy(
        &self,
        key: &ObjectKey,
        binding: Option<&KeyValue>,
        reported_by: Option<&str>,
        now: Revision,
    ) -> Result<Option<KeyValue>> {
        let bound: Option<Binding> = binding.and_then(|kv| document::decode_value(&kv.value).ok());
        let node = bound.as_ref().map(|b| b.node.as_str()).or(reported_by);
        let Some(node) = node else {
            return Ok(None);
        };
        let withdrawn_at = bound
            .as_ref()
            .and_then(|b| b.withdrawn.as_ref())
            .and(binding)
            .map(|kv| Revision(kv.mod_revision - 1));
        let start = self.key(&Key::WorkPod(node, key.clone()));
        let request = RangeRequest {
            end: format!("{start}\0"),
            start,
            limit: 1,
            revision: Some(withdrawn_at.unwrap_or(now)),
            ..RangeRequest::default()
        };
        match self.store.range(request).await {
            Ok(page) => Ok(page.kvs.into_iter().next()),
            Err(StoreError::Compacted { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn find_pod(&self, kind: KindInfo, key: &ObjectKey) -> Result<Option<Object>> {
        let keys = [
            Key::Desired(kind.plural, key.clone()),
            Key::Binding(key.clone()),
            Key::Actual(kind.plural, key.clone()),
        ];
        let [desired, binding, scheduling] = &keys;
        let ((desired, _), (binding, seen), (scheduling, _)) =
            tokio::try_join!(self.get(desired), self.get(binding), self.get(scheduling))?;
        let bound: Option<Binding> = binding
            .as_ref()
            .and_then(|kv| document::decode_value(&kv.value).ok());
        let (actual, health) = match &bound {
            Some(binding) => {
                let reported = Key::NodePod(&binding.node, key.clone());
                let concluded = Key::Health(&binding.node);
                let (actual, health) = tokio::try_join!(self.get(&reported), self.get(&concluded))?;
                (actual.0, health.0)
            }
            None => (None, None),
        };
        let nodes = self.healths(health.as_slice());
        let reports = bound
            .iter()
            .zip(&actual)
            .map(|(b, kv)| (b.node.as_str(), kv))
            .collect();
        let parts = PodParts {
            desired: desired.as_ref(),
            binding: binding.as_ref(),
            scheduling: scheduling.as_ref(),
            actual: reports,
            work: None,
            nodes: Some(&nodes),
        };
        let merged = merge::pod(kind, key.clone(), &parts);
        if !merged.as_ref().is_some_and(merge::lacks_document) {
            return Ok(merged);
        }
        let work = self.work_copy(key, binding.as_ref(), None, seen).await?;
        let parts = PodParts {
            work: work.as_ref(),
            ..parts
        };
        Ok(merge::pod(kind, key.clone(), &parts))
    }

    async fn list_nodes(&self, kind: KindInfo) -> Result<Listing> {
        let ks = &self.keyspace;
        let (desired, revision) = self
            .range(&ks.desired_range(kind.plural, None), None)
            .await?;
        let at = Some(revision);
        let ranges = [ks.health_range(), ks.node_actual_range(None)];
        // The values of the reports would bring all pods of all nodes along.
        let ((health, _), (reported, _)) =
            tokio::try_join!(self.range(&ranges[0], at), self.keys(&ranges[1], at))?;
        let wanted: Vec<Key<'_>> = reported
            .iter()
            .filter_map(|k| ks.split(k).ok())
            .filter(|k| matches!(k, Key::NodeAlive(_) | Key::NodeStatus(_)))
            .collect();
        let reports: Vec<Option<KeyValue>> = stream::iter(&wanted)
            .map(|k| async move { Ok::<_, anyhow::Error>(self.get(k).await?.0) })
            .buffered(16)
            .try_collect()
            .await?;
        let mut parts: BTreeMap<&str, NodeParts<'_>> = BTreeMap::new();
        let mut names = BTreeMap::new();
        for kv in desired.iter().chain(&health) {
            match ks.split(&kv.key) {
                Ok(Key::Desired(_, key)) => {
                    names.insert(key.name.to_string(), ());
                }
                Ok(Key::Health(node)) => {
                    names.insert(node.to_owned(), ());
                }
                _ => {}
            }
        }
        for kv in reports.iter().flatten() {
            if let Ok(Key::NodeAlive(node) | Key::NodeStatus(node)) = ks.split(&kv.key) {
                names.insert(node.to_owned(), ());
            }
        }
        for name in names.keys() {
            parts.insert(name, NodeParts::default());
        }
        for kv in desired
            .iter()
            .chain(&health)
            .chain(reports.iter().flatten())
        {
            match ks.split(&kv.key) {
                Ok(Key::Desired(_, key)) => set(&mut parts, &key.name, |p| p.desired = Some(kv)),
                Ok(Key::Health(node)) => set(&mut parts, node, |p| p.health = Some(kv)),
                Ok(Key::NodeAlive(node)) => set(&mut parts, node, |p| p.alive = Some(kv)),
                Ok(Key::NodeStatus(node)) => set(&mut parts, node, |p| p.status = Some(kv)),
                _ => {}
            }
        }
        let objects = parts
            .into_iter()
            .filter_map(|(name, parts)| merge::node(kind, ObjectKey::cluster(name), &parts))
            .collect();
        Ok(Listing { objects, revision })
    }

    async fn find_node(&self, kind: KindInfo, key: &ObjectKey) -> Result<Option<Object>> {
        let keys = [
            Key::Desired(kind.plural, key.clone()),
            Key::NodeAlive(&key.name),
            Key::NodeStatus(&key.name),
            Key::Health(&key.name),
        ];
        let [desired, alive, status, health] = &keys;
        let ((desired, _), (alive, _), (status, _), (health, _)) = tokio::try_join!(
            self.get(desired),
            self.get(alive),
            self.get(status),
            self.get(health)
        )?;
        let parts = NodeParts {
            desired: desired.as_ref(),
            alive: alive.as_ref(),
            status: status.as_ref(),
            health: health.as_ref(),
        };
        Ok(merge::node(kind, key.clone(), &parts))
    }

    async fn list_events(&self, kind: KindInfo, namespace: Option<&str>) -> Result<Listing> {
        let (all, revision) = self.range(&self.keyspace.all_events(), None).await?;
        let objects = all
            .iter()
            .filter_map(|kv| match self.keyspace.split(&kv.key) {
                Ok(Key::Event {
                    namespace: ns, id, ..
                }) if namespace.is_none_or(|n| n == ns) => {
                    Some(merge::desired_part(kind, ObjectKey::namespaced(ns, id), kv))
                }
                _ => None,
            })
            .collect();
        Ok(Listing { objects, revision })
    }
}

fn set<'a>(
    parts: &mut BTreeMap<&str, NodeParts<'a>>,
    node: &str,
    f: impl FnOnce(&mut NodeParts<'a>),
) {
    if let Some(parts) = parts.get_mut(node) {
        f(parts);
    }
}

fn plain(kind: KindInfo, key: ObjectKey, desired: &KeyValue, status: Option<&KeyValue>) -> Object {
    let mut object = merge::plain(kind, key, desired, status);
    if kind.plural == "namespaces" {
        merge::namespace(&mut object);
    }
    object
}

//! The door: what the LimitRanges and the object counts of the ResourceQuotas of a namespace say to what is about to be
//! written there.
//!
//! What was looked at is guarded on in the transaction that writes: no LimitRange and no quota of the namespace has changed
//! since, and nothing has been created that was counted. A mark goes with it that the controllers guard on, so that they
//! and the commands of users exceed no quota together.
//!
//! A pod gets what LimitRanges give to its containers here, in its text, with Kubernetes' annotation: what runs can be read
//! where it is wanted, and a later change of a LimitRange is none of the pod. Other documents stay as they are; the pods
//! that controllers make of them get theirs when they are made.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;
use setpoint_apis::core::{
    LimitRange, PersistentVolumeClaim, Pod, PodSpec, ResourceQuota, ResourceQuotaSpec, Service,
};
use setpoint_apis::kind::FieldError;
use setpoint_apis::quantity::ResourceList;
use setpoint_apis::resolve::limits::{self, Given};
use setpoint_apis::resolve::{
    claim_usage, counts_objects, exceeded, excess, pod_object_usage, quota_covers, service_usage,
    usage_of,
};
use setpoint_apis::strict::Document;
use setpoint_apis::{Key, Kind, document, keyspace};
use setpoint_store::{Compare, KeyValue, Put, Revision, TxnOp};

use super::plan::Verdict;
use crate::client::Client;
use crate::client::counts::Count;
use crate::kinds::KindInfo;
use crate::yaml_edit::{self, Change};

/// The rules of one namespace, and as of when.
struct Rules {
    ranges: Vec<LimitRange>,
    ranges_at: Revision,
    quotas: Vec<(String, ResourceQuotaSpec)>,
    quotas_at: Revision,
    /// The first of each sort that cannot be read: it could say anything.
    unreadable_range: Option<String>,
    unreadable_quota: Option<String>,
}

/// The rules of the namespaces that documents are in.
pub(super) struct Doors(BTreeMap<String, Rules>);

/// What must hold for what was let in, and what is written with it, by namespace.
#[derive(Debug, Default)]
pub(super) struct Guards(pub(super) BTreeMap<String, Guard>);

/// The same for one namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard {
    /// All of it must hold in each transaction that writes in the namespace.
    pub(super) compares: Vec<Compare>,
    /// Goes with each of these transactions.
    pub(super) puts: Vec<TxnOp>,
}

impl Doors {
    /// Reads the rules of the namespaces that `documents` are in. Those among the documents count too: all becomes true at
    /// one revision.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(super) async fn open(client: &Client, documents: &[Document]) -> Result<Self> {
        let namespaces: BTreeSet<&str> = documents
            .iter()
            .filter(|d| d.kind.namespaced)
            .map(|d| &*d.key.namespace)
            .collect();
        let mut doors = BTreeMap::new();
        for namespace in namespaces {
            let keyspace = client.keyspace();
            let ranges = keyspace.desired_range(LimitRange::PLURAL, Some(namespace));
            let quotas = keyspace.desired_range(ResourceQuota::PLURAL, Some(namespace));
            let ((ranges, ranges_at), (quotas, quotas_at)) =
                tokio::try_join!(client.range(&ranges, None), client.range(&quotas, None))?;
            let mut rules = Rules {
                ranges: Vec::new(),
                ranges_at,
                quotas: Vec::new(),
                quotas_at,
                unreadable_range: None,
                unreadable_quota: None,
            };
            for range in read::<LimitRange>(client, documents, namespace, &ranges) {
                match range {
                    Ok((_, range)) => rules.ranges.push(range),
                    Err(name) => {
                        rules
                            .unreadable_range
                            .get_or_insert(format!("limitrange/{name}"));
                    }
                }
            }
            for quota in read::<ResourceQuota>(client, documents, namespace, &quotas) {
                match quota {
                    Ok((name, quota)) => rules.quotas.push((name, quota.spec)),
                    Err(name) => {
                        rules
                            .unreadable_quota
                            .get_or_insert(format!("resourcequota/{name}"));
                    }
                }
            }
            doors.insert(namespace.to_owned(), rules);
        }
        Ok(Self(doors))
    }

    /// Gives the containers of new pods what they do not say, in the text of the pods, and says so.
    ///
    /// # Errors
    /// When a pod would not be valid with it.
    pub(super) fn furnish(
        &self,
        documents: &mut [Document],
        stored: &[Option<KeyValue>],
    ) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for (document, stored) in documents.iter_mut().zip(stored) {
            let rules = self.0.get(&*document.key.namespace);
            let Some(rules) = rules.filter(|r| stored.is_none() && !r.ranges.is_empty()) else {
                continue;
            };
            if document.kind.plural != Pod::PLURAL {
                continue;
            }
            let ranges: Vec<&LimitRange> = rules.ranges.iter().collect();
            let pod: Pod = document::decode_keyed(&document.key, document.text.as_bytes())?;
            let mut spec = (*pod.spec).clone();
            let given = limits::apply(&ranges, &mut spec);
            refuse(document, limits::contradictions(&given, &spec))?;
            if let Some(said) = give(document, &given)? {
                let name = KindInfo::from(&document.kind).full_name(&document.key.name);
                notes.push(format!("{name}: {said}"));
            }
        }
        Ok(notes)
    }

    /// Whether all that is created or changed is let in, and what must hold for that.
    ///
    /// # Errors
    /// Names everything that is not let in, why, and what can be done.
    pub(super) async fn admit(
        &self,
        client: &Client,
        documents: &[Document],
        stored: &[Option<KeyValue>],
        verdicts: &[Verdict],
    ) -> Result<Guards> {
        let mut guards = Guards::default();
        for (namespace, rules) in &self.0 {
            let mut guard = Guard::default();
            let written: Vec<(&Document, Option<&KeyValue>)> = documents
                .iter()
                .zip(stored)
                .zip(verdicts)
                .filter(|((d, _), v)| *d.key.namespace == **namespace && **v != Verdict::Unchanged)
                .map(|((d, s), _)| (d, s.as_ref()))
                .collect();
            let asks = rules.asks(&written)?;
            let range = rules.unreadable_range.as_ref().filter(|_| asks.is_limited);
            let quota = rules.unreadable_quota.as_ref().filter(|_| asks.counts);
            if let Some(broken) = range.or(quota) {
                bail!(
                    "{broken} in namespace {namespace:?} cannot be read, and could forbid what is to be written; mend or \
                     delete it"
                );
            }
            if asks.is_limited {
                guard.unchanged(client, LimitRange::PLURAL, namespace, rules.ranges_at);
            }
            if asks.counts {
                guard.unchanged(client, ResourceQuota::PLURAL, namespace, rules.quotas_at);
            }
            for (name, quota) in &rules.quotas {
                rules
                    .count(client, (namespace, name, quota), &asks, &mut guard)
                    .await?;
            }
            guard.settle();
            guards.0.insert(namespace.clone(), guard);
        }
        Ok(guards)
    }
}

/// What one document counts for: its plural, its pod spec when it is a pod, and how much.
struct Ask {
    plural: &'static str,
    pod: Option<PodSpec>,
    usage: ResourceList,
}

/// What the documents of a namespace ask for.
struct Asks {
    all: Vec<Ask>,
    /// A LimitRange has a say in it.
    is_limited: bool,
    /// A quota could have.
    counts: bool,
}

impl Rules {
    /// What is asked for, as far as LimitRanges let it in.
    fn asks(&self, written: &[(&Document, Option<&KeyValue>)]) -> Result<Asks> {
        let mut asks = Asks {
            all: Vec::new(),
            is_limited: false,
            counts: false,
        };
        let ranges: Vec<&LimitRange> = self.ranges.iter().collect();
        let mut refused = Vec::new();
        for (document, stored) in written {
            let text = document.text.as_bytes();
            let mut pod = None;
            let usage = match document.kind.plural {
                Pod::PLURAL => {
                    let read: Pod = document::decode_keyed(&document.key, text)?;
                    if stored.is_none() {
                        asks.is_limited = true;
                        let found = limits::check(&ranges, &read.spec);
                        refused.extend(refuse(document, found).err());
                    }
                    pod = Some((*read.spec).clone());
                    pod_object_usage(false)
                }
                PersistentVolumeClaim::PLURAL => {
                    let read: PersistentVolumeClaim = document::decode_keyed(&document.key, text)?;
                    asks.is_limited = true;
                    let found = limits::check_claim(&ranges, &read.spec);
                    refused.extend(refuse(document, found).err());
                    claim_usage(&read.spec)
                }
                Service::PLURAL => {
                    let read: Service = document::decode_keyed(&document.key, text)?;
                    service_usage(&read.spec)
                }
                plural => usage_of(document.kind.api_version, plural),
            };
            let usage = match stored {
                Some(stored) => more(usage, &usage_before(document, stored)),
                None => usage,
            };
            if !usage.is_empty() {
                asks.counts = true;
                asks.all.push(Ask {
                    plural: document.kind.plural,
                    pod,
                    usage,
                });
            }
        }
        if refused.is_empty() {
            return Ok(asks);
        }
        let refused: Vec<String> = refused.iter().map(ToString::to_string).collect();
        bail!("{}", refused.join("\nerror: "))
    }

    /// Whether a quota has room for what is asked for.
    async fn count(
        &self,
        client: &Client,
        (namespace, name, quota): (&str, &str, &ResourceQuotaSpec),
        asks: &Asks,
        guard: &mut Guard,
    ) -> Result<()> {
        let mut wanted: BTreeMap<&str, ResourceList> = BTreeMap::new();
        for ask in &asks.all {
            let covers = match &ask.pod {
                Some(spec) => quota_covers(quota, spec),
                None => counts_objects(quota),
            };
            for (resource, amount) in ask.usage.iter().filter(|_| covers) {
                if quota.hard.contains_key(resource) {
                    let sum = wanted.entry(ask.plural).or_default();
                    *sum.entry(resource.clone()).or_default() += *amount;
                }
            }
        }
        for (plural, more) in wanted {
            for how in [Count::AtMost, Count::Exact] {
                let (used, at) = client.counted(namespace, quota, plural, how).await?;
                let over = excess(&quota.hard, &used, &more);
                if over.is_empty() {
                    guard.unchanged(client, plural, namespace, at);
                    guard.mark(client, namespace);
                    break;
                }
                if how == Count::Exact {
                    bail!(
                        "{plural} are forbidden in namespace {namespace:?}: {}; delete what is not needed, or let more in with \
                         `setpoint edit resourcequota {name} -n {namespace}`",
                        exceeded(name, &over)
                    );
                }
            }
        }
        Ok(())
    }
}

impl Guards {
    /// Those of a namespace.
    pub(super) fn of(&self, namespace: &str) -> Option<&Guard> {
        self.0.get(namespace)
    }

    /// Those of these namespaces in which something is created that is counted.
    pub(super) fn counted_in<'n>(&self, namespaces: &BTreeSet<&'n str>) -> Vec<&'n str> {
        let counted = |n: &&&str| self.of(n).is_some_and(|guard| !guard.puts.is_empty());
        namespaces.iter().filter(counted).copied().collect()
    }

    /// The same for transactions that follow one in these namespaces, at `revision`: what that wrote is no change. It held to
    /// the guards of no others.
    pub(super) fn after(&mut self, namespaces: &BTreeSet<&str>, revision: Revision) {
        for namespace in namespaces {
            let guard = self.0.get_mut(*namespace);
            for compare in guard.into_iter().flat_map(|g| &mut g.compares) {
                if let Compare::RangeUnchangedSince { revision: at, .. } = compare {
                    *at = revision.0;
                }
            }
        }
    }
}

impl Guard {
    /// Nothing of a kind has been created or changed in a namespace since.
    fn unchanged(&mut self, client: &Client, plural: &str, namespace: &str, since: Revision) {
        let range = client.keyspace().desired_range(plural, Some(namespace));
        self.compares.push(Compare::RangeUnchangedSince {
            start: range.start,
            end: range.end,
            revision: since.0,
        });
    }

    /// Something counted is created in a namespace.
    fn mark(&mut self, client: &Client, namespace: &str) {
        let key = client.key(&Key::Meta(&keyspace::admissions(namespace)));
        let value = format!("admittedAt: {}\n", client.now().whole_seconds());
        self.puts.push(TxnOp::Put(Put {
            key,
            value: value.into(),
            lease: None,
        }));
    }

    /// Each once: of several that say the same the oldest.
    fn settle(&mut self) {
        let order = |compare: &Compare| match compare {
            Compare::RangeUnchangedSince {
                start, revision, ..
            } => (start.clone(), *revision),
            _ => (String::new(), 0),
        };
        self.compares.sort_by_key(order);
        self.compares.dedup_by_key(|c| order(c).0);
        let key = |op: &TxnOp| match op {
            TxnOp::Put(put) => put.key.clone(),
            _ => String::new(),
        };
        self.puts.sort_by_key(key);
        self.puts.dedup_by_key(|op| key(op));
    }
}

/// What a LimitRange gave to a pod that is there is no change when its manifest is applied again, which does not say it:
/// the text gets it again. `None` when there is nothing of that.
///
/// # Errors
/// When the text cannot be edited.
pub(super) fn given_before(
    document: &Document,
    stored: Option<&KeyValue>,
) -> Result<Option<Document>> {
    let Some(stored) = stored.filter(|_| document.kind.plural == Pod::PLURAL) else {
        return Ok(None);
    };
    let read = |bytes: &[u8]| document::decode_keyed::<Pod>(&document.key, bytes);
    let (Ok(old), Ok(new)) = (read(&stored.value), read(document.text.as_bytes())) else {
        return Ok(None);
    };
    let said = old.metadata.annotations.get(limits::ANNOTATION);
    let Some(said) = said.filter(|_| !new.metadata.annotations.contains_key(limits::ANNOTATION))
    else {
        return Ok(None);
    };
    let mut all = Vec::new();
    for (list, before, now) in [
        ("containers", &old.spec.containers, &new.spec.containers),
        (
            "initContainers",
            &old.spec.init_containers,
            &new.spec.init_containers,
        ),
    ] {
        for (index, (before, now)) in before.iter().zip(now).enumerate() {
            let of = |c: &setpoint_apis::core::Container| c.resources.clone().unwrap_or_default();
            let (before_has, now_has) = (of(before), of(now));
            all.push(Given {
                container: now.name.clone(),
                list,
                index,
                requests: without(before_has.requests, &now_has.requests),
                limits: without(before_has.limits, &now_has.limits),
            });
        }
    }
    if limits::annotation(&all).as_ref() != Some(said) {
        return Ok(None);
    }
    let mut document = document.clone();
    give(&mut document, &all)?;
    Ok(Some(document))
}

fn without(mut list: ResourceList, other: &ResourceList) -> ResourceList {
    list.retain(|name, _| !other.contains_key(name));
    list
}

/// Writes what was given into the text of a pod. What the annotation says, when that is anything.
fn give(document: &mut Document, given: &[Given]) -> Result<Option<String>> {
    let Some(said) = limits::annotation(given) else {
        return Ok(None);
    };
    let mut changes = Vec::new();
    for g in given {
        for (list, amounts) in [("limits", &g.limits), ("requests", &g.requests)] {
            for (name, amount) in amounts {
                let index = g.index.to_string();
                let path = [
                    "spec",
                    g.list,
                    index.as_str(),
                    "resources",
                    list,
                    name.as_str(),
                ];
                changes.push(Change::set(&path, amount.to_string()));
            }
        }
    }
    let place = ["metadata", "annotations", limits::ANNOTATION];
    changes.push(Change::set(&place, said.clone()));
    let name = KindInfo::from(&document.kind).full_name(&document.key.name);
    let edited = yaml_edit::edit(&document.text, &changes)
        .with_context(|| format!("putting what a LimitRange gives into {name}"))?;
    document.value = serde_yaml::from_str::<Value>(&edited.text)?;
    document.text = edited.text;
    Ok(Some(said))
}

/// The rules of a kind that will stand in a namespace, by name: those that are stored, and those that are being written.
fn read<K: Kind>(
    client: &Client,
    documents: &[Document],
    namespace: &str,
    stored: &[KeyValue],
) -> Vec<Result<(String, K), String>> {
    let mut texts: BTreeMap<String, &[u8]> = BTreeMap::new();
    for kv in stored {
        if let Ok(Key::Desired(_, key)) = client.keyspace().split(&kv.key) {
            texts.insert(key.name.to_string(), &kv.value[..]);
        }
    }
    let own = documents.iter().filter(|d| d.kind.plural == K::PLURAL);
    for document in own.filter(|d| *d.key.namespace == *namespace) {
        texts.insert(document.key.name.to_string(), document.text.as_bytes());
    }
    let read = texts.into_iter().map(|(name, text)| {
        let key = setpoint_apis::ObjectKey::namespaced(namespace, name.as_str());
        match document::decode_keyed::<K>(&key, text) {
            Ok(object) => Ok((name, object)),
            Err(_) => Err(name),
        }
    });
    read.collect()
}

/// # Errors
/// When anything was found.
fn refuse(document: &Document, found: Vec<FieldError>) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = found.iter().map(ToString::to_string).collect();
    Err(anyhow!(
        "{}:{}: {} is forbidden in namespace {:?}: {}; change it, or the LimitRange (`setpoint edit limitrange -n {}`)",
        document.source,
        document.line,
        KindInfo::from(&document.kind).full_name(&document.key.name),
        &*document.key.namespace,
        all.join("; "),
        document.key.namespace
    ))
}

/// What a stored object counts for; nothing but its being there when it cannot be read.
fn usage_before(document: &Document, stored: &KeyValue) -> ResourceList {
    let key = &document.key;
    match document.kind.plural {
        PersistentVolumeClaim::PLURAL => {
            document::decode_keyed::<PersistentVolumeClaim>(key, &stored.value).map_or_else(
                |_| usage_of("v1", document.kind.plural),
                |c| claim_usage(&c.spec),
            )
        }
        Service::PLURAL => document::decode_keyed::<Service>(key, &stored.value).map_or_else(
            |_| usage_of("v1", document.kind.plural),
            |s| service_usage(&s.spec),
        ),
        Pod::PLURAL => pod_object_usage(false),
        plural => usage_of(document.kind.api_version, plural),
    }
}

/// What a usage has more than another one.
fn more(usage: ResourceList, before: &ResourceList) -> ResourceList {
    let more = usage.into_iter().filter_map(|(name, amount)| {
        let before = before.get(&name).copied().unwrap_or_default();
        (amount > before).then(|| (name, amount - before))
    });
    more.collect()
}

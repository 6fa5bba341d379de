//! Quotas and LimitRanges at every write: no controller creates more objects than a quota lets in, no pod is bound beyond
//! what the bound ones may be and request together, and pods are made with what a LimitRange gives.
//!
//! A user who lowers a quota takes nothing away, and controllers learn of it late: what it was counts for
//! [`STALE`](super::known::STALE) more. One that is there before anything else is in its namespace holds at once: whoever
//! sees what it is about sees the quota too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::core::{LimitRange, LimitType, Pod, ResourceQuota};
use setpoint_apis::resolve::counted_plural;
use setpoint_apis::view::pod_requests;
use setpoint_apis::{Key, Kind, ObjectKey, document};

use super::known::{Held, Known};
use super::pods::{Amounts, amounts};
use super::{Change, Finding};

#[derive(Debug, Default)]
pub(super) struct QuotaCheck {
    /// What quotas say, and what LimitRanges give to containers that request nothing.
    quotas: BTreeMap<ObjectKey, Said>,
    given: BTreeMap<ObjectKey, Said>,
    /// The names of what is there, by namespace and plural.
    objects: BTreeMap<Place, BTreeSet<Arc<str>>>,
    /// What pods request that are there or bound.
    requests: BTreeMap<ObjectKey, Amounts>,
    bound: BTreeSet<ObjectKey>,
}

/// A namespace and a plural.
type Place = (Arc<str>, Box<str>);

/// What a document said of amounts; `None`: there was none.
type Said = Held<Option<Amounts>>;

/// The most that was said of a resource to whoever may not know what is said now; `None`: nothing.
fn most(said: &Said, resource: &str, now: u64) -> Option<i64> {
    let said = said
        .at(now)
        .map(|said| said.as_ref()?.get(resource).copied());
    said.reduce(|a, b| Some(a?.max(b?))).flatten()
}

/// The resources that are spoken of.
fn resources(said: &Said) -> impl Iterator<Item = &String> {
    said.last().into_iter().flatten().flat_map(Amounts::keys)
}

/// What a quota says of the number of pods: it holds for those that are made, and for those that are bound.
const PODS: [&str; 2] = ["pods", "count/pods"];

/// What a LimitRange gives to each container.
fn defaults(range: &LimitRange) -> Amounts {
    let items = range.spec.limits.iter();
    let of_containers = items.filter(|item| item.type_ == LimitType::Container);
    of_containers
        .flat_map(|item| amounts(&item.default_request))
        .collect()
}

/// A document says something else from now on. `holds`: nobody can know anything older.
fn says(
    all: &mut BTreeMap<ObjectKey, Said>,
    key: &ObjectKey,
    said: Option<Amounts>,
    now: u64,
    holds: bool,
) {
    let first = || {
        if holds {
            Held::default()
        } else {
            Held::nothing()
        }
    };
    all.entry(key.clone()).or_insert_with(first).set(now, said);
}

impl QuotaCheck {
    /// Takes note of a change, after [`Known`] has.
    pub(super) fn enter(&mut self, change: &Change<'_>, known: &Known, found: &mut Vec<Finding>) {
        let (entry, now) = (change.entry, change.entry.millis);
        match (&change.key, entry.value) {
            (Key::Desired(ResourceQuota::PLURAL, key), value) => {
                // One that does not parse is frozen.
                let said = value.map(|v| document::decode_keyed::<ResourceQuota>(key, v));
                if let Ok(said) = said.transpose() {
                    let holds = self.is_empty(&key.namespace);
                    let said = said.map(|quota| amounts(&quota.spec.hard));
                    says(&mut self.quotas, key, said, now, holds);
                }
            }
            (Key::Desired(LimitRange::PLURAL, key), value) => {
                let said = value.map(|v| document::decode_keyed::<LimitRange>(key, v));
                if let Ok(said) = said.transpose() {
                    let holds = self.is_empty(&key.namespace);
                    let said = said.map(|range| defaults(&range));
                    says(&mut self.given, key, said, now, holds);
                }
            }
            (Key::Desired(plural, key), Some(_)) if !key.namespace.is_empty() => {
                let place = (key.namespace.clone(), Box::from(*plural));
                let is_new = self
                    .objects
                    .entry(place)
                    .or_default()
                    .insert(key.name.clone());
                if let Some(pod) = &change.pod {
                    self.requests
                        .insert(key.clone(), amounts(&pod_requests(&pod.spec)));
                }
                if is_new && change.by_controllers() {
                    self.created(change, (plural, key), known, found);
                }
            }
            (Key::Desired(plural, key), None) => {
                let place = (key.namespace.clone(), Box::from(*plural));
                if let Some(names) = self.objects.get_mut(&place) {
                    names.remove(&key.name);
                }
                self.forget(key);
            }
            (Key::Binding(pod), Some(_)) if self.bound.insert(pod.clone()) => {
                self.bound(pod, now, known, found);
            }
            (Key::Binding(pod), None) => {
                self.bound.remove(pod);
                self.forget(pod);
            }
            _ => {}
        }
    }

    /// Whether nothing is in a namespace but what is said about it.
    fn is_empty(&self, namespace: &str) -> bool {
        let mut all = self.objects.iter();
        !all.any(|((of, _), names)| **of == *namespace && !names.is_empty())
    }

    fn is_there(&self, plural: &str, key: &ObjectKey) -> bool {
        let names = self.objects.get(&(key.namespace.clone(), plural.into()));
        names.is_some_and(|names| names.contains(&key.name))
    }

    /// What a pod requests matters until it is neither wanted nor bound.
    fn forget(&mut self, pod: &ObjectKey) {
        if !self.bound.contains(pod) && !self.is_there(Pod::PLURAL, pod) {
            self.requests.remove(pod);
        }
    }

    /// A controller has created something.
    fn created(
        &self,
        change: &Change<'_>,
        (plural, key): (&str, &ObjectKey),
        known: &Known,
        found: &mut Vec<Finding>,
    ) {
        let (now, namespace) = (change.entry.millis, &key.namespace);
        let of_namespace = |all: &ObjectKey| all.namespace == *namespace;
        let place = (namespace.clone(), Box::from(plural));
        let names = self.objects.get(&place).into_iter().flatten();
        let ended = |name: &Arc<str>| {
            let pod = ObjectKey::namespaced(namespace.clone(), name.clone());
            known.pod(&pod).is_some_and(|p| p.ever.ended())
        };
        for (quota, says) in self.quotas.iter().filter(|(quota, _)| of_namespace(quota)) {
            for resource in resources(says) {
                let (Some(of), Some(most)) = (counted_plural(resource), most(says, resource, now))
                else {
                    continue;
                };
                // `pods` is about those that have not ended, `count/pods` about all.
                let all = resource != Pod::PLURAL;
                let names = names.clone().filter(|name| all || !ended(name));
                let there = i64::try_from(names.count()).unwrap_or(i64::MAX);
                if of == plural && there.saturating_mul(1000) > most {
                    let message = format!(
                        "{plural}/{key} makes {there} of them, quota {quota} lets in {} {resource}",
                        most / 1000
                    );
                    found.push(("quota", message));
                }
            }
        }
        let Some(pod) = &change.pod else {
            return;
        };
        for (range, gives) in self.given.iter().filter(|(range, _)| of_namespace(range)) {
            for resource in resources(gives) {
                let gives = most(gives, resource, now).is_some();
                let requests = |c: &setpoint_apis::core::Container| {
                    let resources = c.resources.as_ref();
                    resources.is_some_and(|r| r.requests.contains_key(resource))
                };
                let mut all = pod.spec.containers.iter().chain(&pod.spec.init_containers);
                if gives && !all.all(requests) {
                    let message = format!("pod {key} was made without the {resource} of {range}");
                    found.push(("limit range", message));
                }
            }
        }
    }

    /// A pod has been bound that was not.
    fn bound(&self, pod: &ObjectKey, now: u64, known: &Known, found: &mut Vec<Finding>) {
        for (quota, says) in &self.quotas {
            if quota.namespace != pod.namespace {
                continue;
            }
            for resource in resources(says) {
                let Some(most) = most(says, resource, now) else {
                    continue;
                };
                let takes = |pod: &ObjectKey| match resource.strip_prefix("requests.") {
                    Some(name) => {
                        let amounts = self.requests.get(pod);
                        amounts.and_then(|a| a.get(name).copied()).unwrap_or(0)
                    }
                    None if PODS.contains(&resource.as_str()) => 1_000,
                    None => 0,
                };
                let others = self.bound.iter().filter(|p| p.namespace == pod.namespace);
                let sum: i64 = others.filter(|p| !known.is_done(p)).map(takes).sum();
                if takes(pod) > 0 && sum > most {
                    let message = format!(
                        "{pod} was bound, so that {sum}m of {resource} are taken, quota {quota} lets in {most}m"
                    );
                    found.push(("quota", message));
                }
            }
        }
    }
}

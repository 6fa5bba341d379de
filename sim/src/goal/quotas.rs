//! Whether what waits for a quota does so rightly: nothing may wait where the quotas have room for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use setpoint_apis::core::{Pod, ResourceQuota, ResourceQuotaStatus};
use setpoint_apis::resolve::counted_plural;
use setpoint_apis::view::pod_requests;
use setpoint_apis::{Key, Kind, ObjectKey, ResourceList, document};

/// Held where pods are made, and where they are bound.
const PODS: [&str; 2] = ["pods", "count/pods"];

#[derive(Default)]
pub(super) struct Quotas {
    quotas: BTreeMap<ObjectKey, ResourceList>,
    /// What the scheduler says that is used of them.
    said: BTreeMap<ObjectKey, ResourceList>,
    requests: BTreeMap<ObjectKey, ResourceList>,
    /// How many objects there are, by namespace and plural.
    counts: BTreeMap<(Arc<str>, Box<str>), i64>,
}

impl Quotas {
    /// Takes note of what matters here, and says what cannot be read.
    pub(super) fn take(&mut self, key: &Key<'_>, value: &[u8]) -> Option<String> {
        if let Key::Desired(plural, object) = key {
            let place = (object.namespace.clone(), Box::from(*plural));
            *self.counts.entry(place).or_default() += 1;
        }
        match key {
            Key::Desired(ResourceQuota::PLURAL, object) => {
                match document::decode_keyed::<ResourceQuota>(object, value) {
                    Ok(quota) => drop(self.quotas.insert(object.clone(), quota.spec.hard)),
                    Err(_) => return Some(format!("quota {object} cannot be read")),
                }
            }
            Key::Actual(ResourceQuota::PLURAL, object) => {
                match document::decode_value::<ResourceQuotaStatus>(value) {
                    Ok(status) => drop(self.said.insert(object.clone(), status.used)),
                    Err(_) => return Some(format!("status of quota {object} cannot be read")),
                }
            }
            Key::Desired(Pod::PLURAL, object) => {
                if let Ok(pod) = document::decode_keyed::<Pod>(object, value) {
                    let requests = pod_requests(&pod.spec);
                    self.requests.insert(object.clone(), requests);
                }
            }
            _ => {}
        }
        None
    }

    fn of<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a String, i64)> {
        let own = self.quotas.iter();
        let own = own.filter(move |(quota, _)| *quota.namespace == *namespace);
        own.flat_map(|(_, hard)| hard.iter().map(|(name, q)| (name, q.milli_value())))
    }

    /// What a pod takes where it is bound of something that a quota limits, in thousandths; `None`: that is nothing of pods
    /// that are bound.
    fn taken(&self, pod: &ObjectKey, resource: &str) -> Option<i64> {
        match resource.strip_prefix("requests.") {
            Some(resource) => Some(self.request(pod, resource)),
            None => PODS.contains(&resource).then_some(1_000),
        }
    }

    /// In thousandths.
    fn request(&self, pod: &ObjectKey, resource: &str) -> i64 {
        let requests = self.requests.get(pod);
        let asked = requests.and_then(|r| r.get(resource));
        asked.map_or(0, |quantity| quantity.milli_value())
    }

    fn used<'a>(
        &self,
        namespace: &str,
        resource: &str,
        bound: impl Iterator<Item = &'a ObjectKey>,
    ) -> i64 {
        let bound = bound.filter(|pod| *pod.namespace == *namespace);
        bound.filter_map(|pod| self.taken(pod, resource)).sum()
    }

    /// Whether a pod that is not bound exceeds a quota beside those that are.
    pub(super) fn hold_back<'a>(
        &self,
        pod: &ObjectKey,
        bound: impl Iterator<Item = &'a ObjectKey> + Clone,
    ) -> bool {
        self.of(&pod.namespace).any(|(resource, hard)| {
            let asked = self.taken(pod, resource).unwrap_or(0);
            asked > 0 && self.used(&pod.namespace, resource, bound.clone()) + asked > hard
        })
    }

    /// Whether a namespace has as many objects of one of some kinds, given by their plurals, as a quota lets in: then who
    /// wants more of them may wait. `ended`: how many of its pods have.
    pub(super) fn is_full(&self, namespace: &Arc<str>, of: &[&str], ended: i64) -> bool {
        self.of(namespace).any(|(resource, hard)| {
            let Some(plural) = counted_plural(resource).filter(|plural| of.contains(plural)) else {
                return false;
            };
            // `pods` is about those that have not ended, `count/pods` about all.
            let ended = if resource == Pod::PLURAL { ended } else { 0 };
            let count = self.counts.get(&(namespace.clone(), plural.into()));
            (count.copied().unwrap_or(0) - ended) * 1000 >= hard
        })
    }

    /// Quotas of which something else is said to be used than what bound pods request.
    pub(super) fn unmet<'a>(
        &self,
        bound: impl Iterator<Item = &'a ObjectKey> + Clone,
    ) -> Vec<String> {
        let mut unmet = Vec::new();
        for (quota, hard) in &self.quotas {
            let said = self.said.get(quota);
            for name in hard.keys() {
                if !name.starts_with("requests.") && !PODS.contains(&name.as_str()) {
                    continue;
                }
                let said = said
                    .and_then(|used| used.get(name))
                    .map(|q| q.milli_value());
                let used = self.used(&quota.namespace, name, bound.clone());
                if said != Some(used) {
                    unmet.push(format!(
                        "quota {quota} says {said:?}m of {name}, not {used}m"
                    ));
                }
            }
        }
        unmet
    }
}

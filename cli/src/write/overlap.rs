//! Workloads that select each other's pods: nothing keeps them from being there, and nobody means it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use setpoint_apis::overlap::{Choice, Index};
use setpoint_apis::{Key, LabelSelector, ObjectKey};
use setpoint_store::KeyValue;

use super::plan::{Outcome, Verdict};
use crate::client::Client;
use crate::kinds::{self, KindInfo};
use crate::object::pairs;

/// Those that are always looked at. ReplicaSets and Jobs, of which most belong to somebody, only when one is written.
const USUAL: [&str; 3] = ["deployments", "statefulsets", "daemonsets"];
const ALL: [&str; 5] = [
    "deployments",
    "replicasets",
    "statefulsets",
    "daemonsets",
    "jobs",
];

/// Of more values than this no text is searched for them.
const MOST_WORDS: usize = 40;

/// A workload as it is stored.
struct Workload {
    kind: KindInfo,
    selector: LabelSelector,
    labels: BTreeMap<String, String>,
    own_labels: BTreeMap<String, String>,
    created: i64,
}

impl Workload {
    fn choice(&self) -> Choice<'_> {
        Choice {
            selector: &self.selector,
            labels: &self.labels,
        }
    }

    /// Whether it is a Deployment that takes the other one, a ReplicaSet, on.
    fn takes_on(&self, other: &Self) -> bool {
        self.kind.plural == "deployments"
            && other.kind.plural == "replicasets"
            && self.selector.matches(&other.own_labels)
    }
}

/// What is to be said of workloads that were written just now, and of others of their namespaces.
///
/// # Errors
/// When the store does not answer.
pub(crate) async fn warnings(client: &Client, outcomes: &[Outcome]) -> Result<Vec<String>> {
    let mut written: BTreeMap<&str, BTreeSet<(&str, &ObjectKey)>> = BTreeMap::new();
    for o in outcomes {
        if o.verdict != Verdict::Unchanged && ALL.contains(&o.kind.plural) {
            let of_namespace = written.entry(&o.key.namespace).or_default();
            of_namespace.insert((o.kind.plural, &o.key));
        }
    }
    let mut warnings = Vec::new();
    for (namespace, written) in written {
        let own = written.iter().map(|(plural, _)| *plural);
        let plurals: BTreeSet<&str> = own.chain(USUAL).collect();
        let mut stored = Vec::new();
        for plural in plurals {
            let range = client.keyspace().desired_range(plural, Some(namespace));
            for kv in client.range(&range, None).await?.0 {
                if let Ok(Key::Desired(_, key)) = client.keyspace().split(&kv.key) {
                    stored.push((kinds::builtin(plural), key, kv));
                }
            }
        }
        let is_written = |(kind, key, _): &(KindInfo, ObjectKey, KeyValue)| {
            written.contains(&(kind.plural, key))
        };
        let (new, others) = stored.into_iter().partition::<Vec<_>, _>(is_written);
        let new: BTreeMap<Id, Workload> = new.iter().filter_map(read).collect();
        let words = words(new.values());
        let may = |kv: &KeyValue| words.as_ref().is_none_or(|words| mentions(kv, words));
        let others = others.iter().filter(|(_, _, kv)| may(kv));
        let mut all: BTreeMap<Id, Workload> = others.filter_map(read).collect();
        all.extend(new);
        warnings.extend(compare(namespace, &all, &written));
    }
    Ok(warnings)
}

type Id = (&'static str, ObjectKey);

/// `None` for what cannot be read, which is told elsewhere, and for what has no selector of its own: most Jobs select by
/// their uid, and what is owned selects as its owner does.
fn read((kind, key, kv): &(KindInfo, ObjectKey, KeyValue)) -> Option<(Id, Workload)> {
    let value = kind.read(key, &kv.value).ok()?;
    let owners = value["metadata"]["ownerReferences"].as_array();
    let owned = owners.is_some_and(|o| o.iter().any(|o| o["controller"] == true));
    let spec = &value["spec"];
    let by_uid = kind.plural == "jobs" && spec["manualSelector"] != true;
    if owned || by_uid {
        return None;
    }
    let workload = Workload {
        kind: *kind,
        selector: serde_json::from_value(spec["selector"].clone()).ok()?,
        labels: pairs(spec["template"]["metadata"].get("labels")),
        own_labels: pairs(value["metadata"].get("labels")),
        created: kv.create_revision,
    };
    Some(((kind.plural, key.clone()), workload))
}

/// The values of labels of which what overlaps with these workloads mentions one; `None`: of any others.
fn words<'a>(workloads: impl Iterator<Item = &'a Workload>) -> Option<BTreeSet<&'a str>> {
    let mut words = BTreeSet::new();
    for w in workloads {
        if w.selector.match_labels.is_empty() {
            return None;
        }
        words.extend(w.labels.values().map(String::as_str));
        words.extend(w.selector.match_labels.values().map(String::as_str));
    }
    (words.len() <= MOST_WORDS).then_some(words)
}

/// Whether a document may be of interest: parsing all of a big namespace takes its time.
fn mentions(kv: &KeyValue, words: &BTreeSet<&str>) -> bool {
    let text = String::from_utf8_lossy(&kv.value);
    text.contains("matchExpressions") || words.iter().any(|word| text.contains(word))
}

fn compare(
    namespace: &str,
    all: &BTreeMap<Id, Workload>,
    written: &BTreeSet<(&str, &ObjectKey)>,
) -> Vec<String> {
    let mut index = Index::default();
    for (id, workload) in all {
        index.insert(id, namespace, &workload.choice());
    }
    let mut warnings = Vec::new();
    for (id, workload) in all {
        if !written.contains(&(id.0, &id.1)) {
            continue;
        }
        let candidates = index.candidates(namespace, &workload.choice());
        let others = candidates.into_iter().filter(|other| *other != id);
        let overlaps = |other: &&Workload| {
            workload.choice().overlaps(&other.choice())
                && !(workload.takes_on(other) || other.takes_on(workload))
        };
        let others = others.filter_map(|id| Some((id, all.get(id)?)));
        let others = others.filter(|(_, other)| overlaps(other));
        // Of many the oldest is the one to know of.
        let Some((other_id, other)) = others.min_by_key(|(id, o)| (o.created, *id)) else {
            continue;
        };
        let name = |id: &Id, workload: &Workload| workload.kind.full_name(&id.1.name);
        warnings.push(format!(
            "{} and {} in namespace {namespace:?} select each other's pods ({}; {}): each keeps those that it has made, but a \
             selector and labels of its own are what you want",
            name(id, workload),
            name(other_id, other),
            workload.selector,
            other.selector,
        ));
    }
    warnings
}

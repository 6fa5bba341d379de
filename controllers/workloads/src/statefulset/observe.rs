//! What there is to know about a StatefulSet, out of one view.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::apps::{ClaimRetention, ControllerRevision, StatefulSet};
use setpoint_apis::core::{Namespace, PersistentVolumeClaim, Pod};
use setpoint_apis::{ObjectKey, Timestamp};
use setpoint_runtime::{Stored, View};

use super::documents::{CLAIM_OF, ordinal};
use super::plan::{ClaimSeen, Member, Snapshot};
use crate::config::Sources;
use crate::index::OwnerIndex;
use crate::pod::PodFacts;
use crate::replicaset::decide::MOST_CREATED;
use crate::revisions::{self, REVISION_LABEL};
use crate::rollback::{self, progress_deadline};
use crate::seen::Seen;
use crate::standing::{self, Unusable};
use crate::{Shared, writes};

/// The documents behind a snapshot.
pub(super) struct Found {
    pub(super) set: Arc<Stored<StatefulSet>>,
    pub(super) sources: Sources,
}

/// `None` when it does not exist. The documents come along when it parses.
pub(super) fn observe(
    shared: &Shared,
    view: &View<'_>,
    key: &ObjectKey,
) -> Option<(Snapshot, Option<Found>)> {
    let Some(entry) = view.desired::<StatefulSet>().entry(key) else {
        shared.content.lock().forget::<StatefulSet>(key);
        return None;
    };
    let mut s = empty(key);
    s.invalid = entry.invalid().map(|i| Unusable::document(&i.message));
    s.uid = entry.last_good().map(|o| o.uid()).unwrap_or_default();
    let namespace = ObjectKey::cluster(key.namespace.clone());
    s.namespace_exists = view.desired::<Namespace>().contains(&namespace);
    s.setbacks = shared.stateful_sets.with(key, |memo| memo.notes.clone());
    let status = view.actual::<StatefulSet>().get(key);
    let status = status.filter(|status| standing::is_of(&status.value, &s.uid));
    s.status = status.map(|s| s.value.clone());
    let Some(set) = entry.valid() else {
        return Some((s, None));
    };
    let uid = set.uid();
    s.generation = set.version;
    let recorded = s.status.as_ref().and_then(|s| s.fixed.as_ref());
    match standing::take_up(set, &uid, recorded) {
        Ok(fixed) => s.fixed = Some(fixed),
        Err(unusable) => {
            s.invalid = Some(unusable);
            return Some((s, None));
        }
    }
    s.overlap = shared.overlap::<StatefulSet>(view, key);
    s.terminating = writes::terminating::<StatefulSet>(view, key, &uid);
    let before = s.status.as_ref().and_then(|s| s.desired_replicas);
    let size = shared.size::<StatefulSet>(view, key, set.value.spec.replicas(), before);
    s.wanted = size.wanted.max(0);
    s.decided = size.decided;
    s.broken_scaler = size.broken_scaler;
    spec(&mut s, &set.value);
    s.up_since = shared.up_since(view);
    {
        let mut index = shared.index.lock();
        index.catch_up(view);
        pods(&mut s, &index, view, set, &uid);
    }
    claims(&mut s, view, &set.value, &uid);
    let annotations = &set.value.metadata.annotations;
    let reads = shared.pin::<StatefulSet>(view, (key, &uid), annotations, &mut s.template);
    s.reads = reads.wanted;
    s.missing = reads.missing;
    s.config_seen = reads.seen;
    s.copies = reads.there;
    {
        let mut all = shared.revisions.lock();
        all.catch_up(view);
        s.revisions = revisions::of(&all, &uid);
        s.broken_revisions = revisions::broken(&all, key, &s.revisions);
    }
    strays(&mut s, view, &set.value);
    let found = Found {
        set: set.clone(),
        sources: reads.sources,
    };
    Some((s, Some(found)))
}

fn empty(key: &ObjectKey) -> Snapshot {
    Snapshot {
        key: key.clone(),
        generation: 0,
        uid: String::new(),
        invalid: None,
        fixed: None,
        overlap: None,
        config_seen: None,
        decided: None,
        broken_scaler: None,
        broken_revisions: Vec::new(),
        terminating: false,
        namespace_exists: false,
        wanted: 0,
        first: 0,
        ordered: true,
        rolling: true,
        partition: 0,
        max_unavailable: 1,
        min_ready: Duration::ZERO,
        template: Default::default(),
        reads: Vec::new(),
        missing: None,
        copies: Vec::new(),
        rolls_back: false,
        progress_deadline: None,
        up_since: Timestamp::EPOCH,
        history_limit: 0,
        revisions: Vec::new(),
        adoptable_revisions: Vec::new(),
        taken: BTreeSet::new(),
        members: Vec::new(),
        stopping: BTreeSet::new(),
        foreign: BTreeSet::new(),
        adoptable: Vec::new(),
        releasable: Vec::new(),
        absent_claims: BTreeSet::new(),
        claims: Vec::new(),
        claims_go_with_pods: false,
        claims_go_with_set: false,
        setbacks: Default::default(),
        status: None,
    }
}

fn spec(s: &mut Snapshot, set: &StatefulSet) {
    let spec = &set.spec;
    s.first = spec.first_ordinal();
    s.ordered = spec.is_ordered();
    s.rolling = spec.is_rolling();
    s.partition = spec.partition();
    s.max_unavailable = max_unavailable(set, s.wanted);
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    s.min_ready = Duration::from_secs(u64::try_from(min_ready).unwrap_or(0));
    s.template = spec.template.clone();
    let annotations = &set.metadata.annotations;
    s.rolls_back = rollback::is_on(annotations);
    s.progress_deadline = progress_deadline(annotations);
    s.history_limit = spec.revision_history_limit.unwrap_or(10);
    let retention = spec.persistent_volume_claim_retention_policy.as_ref();
    let deletes = |r: Option<ClaimRetention>| r == Some(ClaimRetention::Delete);
    s.claims_go_with_pods = retention.is_some_and(|r| deletes(r.when_scaled));
    s.claims_go_with_set = retention.is_some_and(|r| deletes(r.when_deleted));
}

/// Kubernetes' rounding: down, and one at least, or nothing could ever move.
pub(super) fn max_unavailable(set: &StatefulSet, wanted: i32) -> i32 {
    let strategy = set.spec.update_strategy.as_ref();
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let value = rolling.and_then(|r| r.max_unavailable.as_ref());
    // Validation lets no other text through than percentages.
    let scaled = value.and_then(|v| v.scaled(wanted, false).ok());
    scaled.unwrap_or(1).max(1)
}

fn pods(
    s: &mut Snapshot,
    index: &OwnerIndex,
    view: &View<'_>,
    set: &Stored<StatefulSet>,
    uid: &str,
) {
    let name = s.key.name.clone();
    let selector = &set.value.spec.selector;
    for row in index.pods_of(uid) {
        let labels = &row.pod.value.metadata.labels;
        match ordinal(&name, &row.facts.key.name) {
            Some(ordinal) if row.facts.frozen || selector.matches(labels) => {
                s.members.push(Member {
                    ordinal,
                    revision: labels.get(REVISION_LABEL).cloned(),
                    facts: row.facts.clone(),
                });
            }
            _ if row.facts.frozen => {}
            _ => s.releasable.push(row.facts.seen()),
        }
    }
    let loose = index.loose_pods(&s.key.namespace);
    for row in loose.filter(|_| s.overlap.is_none()) {
        let fits = ordinal(&name, &row.facts.key.name).is_some();
        let labels = &row.pod.value.metadata.labels;
        // One that has ended as well: it has the name that its successor is to have.
        if fits && !row.facts.frozen && selector.matches(labels) {
            s.adoptable.push(row.facts.seen());
        }
    }
    let stem = format!("{name}-");
    // Nothing says whose these are but the name, and that is all that counts here.
    for (pod, mod_revision) in index.unreadable_pods(&s.key.namespace, &stem) {
        if let Some(ordinal) = ordinal(&name, &pod.name) {
            s.members.push(Member {
                ordinal,
                revision: None,
                facts: PodFacts::unreadable(pod, mod_revision),
            });
        }
    }
    s.members.sort_by_key(|m| m.ordinal);
    let stopping = index.stopping(&s.key.namespace, &stem);
    s.stopping
        .extend(stopping.filter_map(|pod| ordinal(&name, &pod.name)));
    let adoptable: BTreeSet<&ObjectKey> = s.adoptable.iter().map(|p| &p.key).collect();
    let foreign = missing(s).into_iter().filter(|ordinal| {
        let pod = ObjectKey::namespaced(s.key.namespace.clone(), s.pod_name(*ordinal));
        view.desired::<Pod>().contains(&pod) && !adoptable.contains(&pod)
    });
    s.foreign = foreign.collect();
}

/// The numbers that are wanted and have no pod; as many of the lowest as one pass creates.
fn missing(s: &Snapshot) -> Vec<i32> {
    let mut members = s.wanted_members().map(|m| m.ordinal).peekable();
    let numbers = (0..s.wanted).map(|offset| s.first.saturating_add(offset));
    let absent = numbers.filter(|n| {
        let there = members.next_if(|m| m == n).is_some();
        !there && !s.stopping.contains(n)
    });
    absent
        .take(if s.ordered { 1 } else { MOST_CREATED })
        .collect()
}

/// Which claims there are and which are missing, of pods that are there and of those that come next.
fn claims(s: &mut Snapshot, view: &View<'_>, set: &StatefulSet, uid: &str) {
    let templates = &set.spec.volume_claim_templates;
    if templates.is_empty() {
        return;
    }
    let mut ordinals: BTreeSet<i32> = s.members.iter().map(|m| m.ordinal).collect();
    ordinals.extend(missing(s));
    let table = view.desired::<PersistentVolumeClaim>();
    for ordinal in ordinals {
        for (i, template) in templates.iter().enumerate() {
            let name = template.claim_name(&s.pod_name(ordinal));
            let key = ObjectKey::namespaced(s.key.namespace.clone(), name);
            let Some(entry) = table.entry(&key) else {
                s.absent_claims.insert((ordinal, i));
                continue;
            };
            // What does not parse is used as it is and left alone.
            if let Some(claim) = entry.valid() {
                let meta = &claim.value.metadata;
                s.claims.push(ClaimSeen {
                    ordinal,
                    seen: Seen::of(&key, claim),
                    made_here: meta.annotations.get(CLAIM_OF) == Some(&set.metadata.name),
                    taken_over: meta.controller().is_some_and(|o| o.uid != uid),
                    owned: meta.owner_references.iter().any(|o| o.uid == uid),
                });
            }
        }
    }
}

/// Revisions that are not its own: those that a StatefulSet of its name has left behind are taken on, before its pods or
/// with them, which would be of a revision that is not known otherwise; none is while it overlaps with an older
/// workload. The names of others are not used.
fn strays(s: &mut Snapshot, view: &View<'_>, set: &StatefulSet) {
    let table = view.desired::<ControllerRevision>();
    let looks = s.revisions.is_empty() || !s.adoptable.is_empty();
    if looks && s.overlap.is_none() {
        for (key, entry) in table.namespace(&s.key.namespace) {
            let named = revisions::is_named(&s.key.name, &key.name);
            let Some(revision) = entry.valid().filter(|_| named) else {
                continue;
            };
            let meta = &revision.value.metadata;
            let readable = revisions::template(&revision.value).is_some();
            let selected = set.spec.selector.matches(&meta.labels);
            if meta.controller().is_none() && selected && readable {
                s.adoptable_revisions.push(Seen::of(key, revision));
            }
        }
    }
    if s.missing.is_some() {
        return;
    }
    loop {
        let wanted = revisions::wanted(&s.key.name, &s.template, &s.revisions, 0, &s.taken);
        let key = ObjectKey::namespaced(s.key.namespace.clone(), wanted.name.as_str());
        if wanted.there.is_some() || !table.contains(&key) {
            return;
        }
        s.taken.insert(wanted.name);
    }
}

#[cfg(test)]
mod tests {
    use setpoint_apis::document;

    use super::*;

    #[test]
    fn a_percentage_is_rounded_down_and_never_none() {
        let room = |replicas: i32, strategy: &str| {
            let text = format!(
                "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: db, namespace: default}}\nspec:\n  replicas: {replicas}\n  \
                 selector: {{matchLabels: {{app: db}}}}\n  updateStrategy: {strategy}\n  template:\n    \
                 metadata: {{labels: {{app: db}}}}\n    spec: {{containers: [{{name: c, image: host}}]}}\n"
            );
            max_unavailable(&document::decode(text.as_bytes()).unwrap(), replicas)
        };
        assert_eq!(room(10, "{}"), 1);
        assert_eq!(room(10, "{rollingUpdate: {maxUnavailable: 3}}"), 3);
        assert_eq!(room(10, "{rollingUpdate: {maxUnavailable: 25%}}"), 2);
        assert_eq!(room(3, "{rollingUpdate: {maxUnavailable: 25%}}"), 1);
        assert_eq!(room(0, "{rollingUpdate: {maxUnavailable: 100%}}"), 1);
    }
}

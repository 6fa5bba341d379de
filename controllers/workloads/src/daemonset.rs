//! DaemonSets: one pod of a template on every node that takes it.
//!
//! # Promise
//! - Every node that the template's selector, affinity and tolerations admit gets one pod, pinned to it by a required
//!   affinity to its name; the scheduler binds it there. A node that does not admit it any more loses it; one that only
//!   keeps new pods away (`NoSchedule`) keeps what it has.
//! - The pod of a lost node waits for the node: it is not available, and no second one is made.
//! - Each template has a ControllerRevision, and pods carry its hash. RollingUpdate keeps within maxUnavailable or
//!   maxSurge at every revision of the store; without maxSurge a node never has two pods, not even one that still stops.
//! - A rollout that stands still for too long (`setpoint.dev/progress-deadline-seconds`, 600 by default) or whose pods
//!   crash is taken back: the last revision of which all pods were available runs instead, until another one is asked
//!   for. The condition `RolledBack` says so.
//! - A revision reads what was in its ConfigMaps and Secrets when it was made; a change of them is another revision. While
//!   that is refused by a quota, or something is missing for it, what runs goes on.
//! - A create holds only while the DaemonSet is as it was seen and its namespace exists; a delete only while DaemonSet
//!   and pod are as they were seen.
//! - While the document does not parse nothing is created or deleted, nor on a node whose document does not parse.
//! - What agents report of their nodes wakes a DaemonSet only when it changes whether a node takes its pod.

pub mod decide;
pub mod fit;
mod ground;
pub mod nodes;
pub mod plan;
mod revision;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::apps::{ControllerRevision, DaemonSet};
use setpoint_apis::core::{Namespace, PodTemplateSpec};
use setpoint_apis::{Kind, ObjectKey, Timestamp};
use setpoint_runtime::{Action, Leader, StateKey, Stored, View, Write};
use setpoint_store::Compare;

use crate::children::Children;
use crate::config::{Sources, copy_writes};
use crate::content::ContentIndex;
use crate::documents::PinnedPodWriter;
use crate::door::{Doors, Together};
use crate::hash::{cut_stem, has_stem, stem};
use crate::index::{OwnerIndex, PodRow};
pub use crate::manager::Error;
use crate::manager::Manager;
use crate::memory::Memory;
use crate::overlaps::Overlaps;
use crate::owner::PodOwner;
use crate::revisions::{self, Entry, REVISION_LABEL, REVISION_REFUSED};
use crate::rollback::{self, progress_deadline};
use crate::seen::Seen;
use crate::standing::{self, Unusable};
use crate::{Shared, pass, writes};
use decide::{FIRST_DELAY, LONGEST_DELAY, decide};
use fit::{Placement, pinned_to, tolerations};
use nodes::NodeIndex;
use plan::{DaemonPod, Plan, Setback, Snapshot, Why, hash_of};

/// What is remembered about a DaemonSet.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    setbacks: BTreeMap<Arc<str>, Setback>,
    /// Why the last create did not succeed: reason and sentence.
    failure: Option<(String, String)>,
    /// Where its pods may have to be, whichever of its revisions runs.
    placements: Option<Arc<[Placement]>>,
}

/// What is remembered about DaemonSets.
pub(crate) type Daemons = Memory<Notes>;

/// Which changes make a DaemonSet look again.
pub(crate) fn concerns(key: &StateKey) -> bool {
    let indexed = OwnerIndex::concerns(key)
        || NodeIndex::concerns(key)
        || ContentIndex::concerns(key)
        || Children::<ControllerRevision>::concerns(key)
        || Overlaps::concerns(key)
        || Doors::concerns(key);
    indexed
        || match key {
            StateKey::Desired(plural, _) => [Namespace::PLURAL, DaemonSet::PLURAL].contains(plural),
            StateKey::Actual(plural, _) => *plural == DaemonSet::PLURAL,
            StateKey::Deletion(plural, _) => **plural == *DaemonSet::PLURAL,
            _ => false,
        }
}

/// Which DaemonSets a change concerns.
pub(crate) fn keys(shared: &Shared, change: &StateKey, view: &View<'_>) -> Vec<ObjectKey> {
    let mut index = shared.index.lock();
    index.catch_up(view);
    let mut keys = index.take_touched(PodOwner::DaemonSet);
    keys.extend(shared.content.lock().keys::<DaemonSet>(view, change));
    keys.extend(shared.overlapping::<DaemonSet>(view));
    keys.extend(shared.doors.roused::<DaemonSet>(change, view));
    let mut revisions = shared.revisions.lock();
    revisions.catch_up(view);
    keys.extend(revisions.take_touched::<DaemonSet>());
    let mut nodes = shared.nodes.lock();
    nodes.catch_up(view);
    let all = view.desired::<DaemonSet>().entries();
    let placements = |key: &ObjectKey| {
        let known = shared
            .daemons
            .with(key, |memo| memo.notes.placements.clone());
        known.unwrap_or_default()
    };
    keys.extend(nodes.take_touched(all.map(|(key, _)| key.clone()), placements));
    match change {
        StateKey::Actual(plural, key) if *plural == DaemonSet::PLURAL => keys.push(key.clone()),
        StateKey::Deletion(_, key) => keys.push(key.clone()),
        // A node may have been waited for until this pod had stopped. The index finds whose it was by its name.
        StateKey::Binding(pod) => {
            if let Some(cut) = cut_stem(&pod.name) {
                let all = view.desired::<DaemonSet>().namespace(&pod.namespace);
                let all = all.map(|(key, _)| key).filter(|k| stem(&k.name) == cut);
                keys.extend(all.cloned());
            }
        }
        StateKey::Desired(plural, key) if *plural == DaemonSet::PLURAL => keys.push(key.clone()),
        // One that never parsed is found by its name, and so it is when it goes.
        StateKey::Desired(plural, key) if *plural == ControllerRevision::PLURAL => {
            keys.extend(revisions::named_after::<DaemonSet>(view, key));
        }
        StateKey::Desired(plural, namespace) if *plural == Namespace::PLURAL => {
            let all = view.desired::<DaemonSet>().namespace(&namespace.name);
            keys.extend(all.map(|(key, _)| key.clone()));
        }
        _ => {}
    }
    keys
}

/// One pass over one DaemonSet.
pub(crate) async fn reconcile(
    shared: Arc<Shared>,
    leader: Leader,
    key: ObjectKey,
) -> Result<Action, Error> {
    let planned = pass::plan(
        &shared.daemons,
        &shared.clock,
        &key,
        || observe(&shared, &leader.cache().view(), &key),
        |(s, _)| s.pods.len().max(s.nodes.len()),
        |(s, _), now| decide(s, now),
    );
    match planned {
        Ok(((snapshot, found), plan)) => execute(&shared, &leader, &snapshot, found, plan).await,
        Err(action) => Ok(action),
    }
}

/// The documents behind a snapshot.
struct Found {
    object: Arc<Stored<DaemonSet>>,
    sources: Sources,
}

/// What there is to know about a DaemonSet; `None` when it does not exist. The documents come along when it parses.
fn observe(shared: &Shared, view: &View<'_>, key: &ObjectKey) -> Option<(Snapshot, Option<Found>)> {
    let Some(entry) = view.desired::<DaemonSet>().entry(key) else {
        shared.content.lock().forget::<DaemonSet>(key);
        return None;
    };
    let namespace = ObjectKey::cluster(key.namespace.clone());
    let notes = |notes: &Notes| (notes.setbacks.clone(), notes.failure.clone());
    let (setbacks, failure) = shared.daemons.with(key, |memo| notes(&memo.notes));
    let mut s = Snapshot {
        key: key.clone(),
        uid: entry.last_good().map(|o| o.uid()).unwrap_or_default(),
        generation: 0,
        invalid: entry.invalid().map(|i| Unusable::document(&i.message)),
        fixed: None,
        overlap: None,
        config_seen: None,
        terminating: false,
        namespace_exists: view.desired::<Namespace>().contains(&namespace),
        strategy: Default::default(),
        template: Default::default(),
        reads: Vec::new(),
        missing: None,
        copies: Vec::new(),
        rolls_back: false,
        min_ready: Duration::ZERO,
        progress_deadline: None,
        up_since: shared.up_since(view),
        history_limit: 0,
        nodes: Arc::default(),
        pods: Vec::new(),
        stopping: BTreeSet::new(),
        revisions: Vec::new(),
        taken_revisions: BTreeSet::new(),
        adoptable: Vec::new(),
        adoptable_revisions: Vec::new(),
        releasable: Vec::new(),
        unreadable: 0,
        taken: BTreeSet::new(),
        setbacks,
        failure,
        status: view.actual::<DaemonSet>().get(key).map(|s| s.value.clone()),
        salt: shared.salt(),
    };
    let uid = s.uid.as_str();
    s.status = s.status.filter(|status| standing::is_of(status, uid));
    let Some(object) = entry.valid() else {
        return Some((s, None));
    };
    let spec = &object.value.spec;
    let annotations = &object.value.metadata.annotations;
    s.generation = object.version;
    let recorded = s.status.as_ref().and_then(|s| s.fixed.as_ref());
    match standing::take_up(object, &s.uid, recorded) {
        Ok(fixed) => s.fixed = Some(fixed),
        Err(unusable) => {
            s.invalid = Some(unusable);
            return Some((s, None));
        }
    }
    s.overlap = shared.overlap::<DaemonSet>(view, key);
    s.terminating = writes::terminating::<DaemonSet>(view, key, &s.uid);
    s.strategy = spec.update_strategy.clone().unwrap_or_default();
    s.template = spec.template.clone();
    s.rolls_back = rollback::is_on(annotations);
    let min_ready = spec.min_ready_seconds.and_then(|s| u64::try_from(s).ok());
    s.min_ready = Duration::from_secs(min_ready.unwrap_or(0));
    s.progress_deadline = progress_deadline(annotations);
    s.history_limit = spec.revision_history_limit.unwrap_or(10);
    see_pods(shared, view, &mut s, &object.value);
    let reads = shared.pin::<DaemonSet>(view, (key, &s.uid), annotations, &mut s.template);
    s.reads = reads.wanted;
    s.missing = reads.missing;
    s.config_seen = reads.seen;
    s.copies = reads.there;
    see_revisions(shared, view, &mut s, &object.value);
    {
        let mut nodes = shared.nodes.lock();
        nodes.catch_up(view);
        s.nodes = nodes.nodes();
    }
    // Kept while the view is held: a change of a node that this pass does not see is compared with what it leaves here.
    let placements = placements(&s);
    shared
        .daemons
        .with(key, |memo| memo.notes.placements = Some(placements));
    let object = object.clone();
    let sources = reads.sources;
    Some((s, Some(Found { object, sources })))
}

fn see_pods(shared: &Shared, view: &View<'_>, s: &mut Snapshot, object: &DaemonSet) {
    let selector = &object.spec.selector;
    let mut index = shared.index.lock();
    index.catch_up(view);
    let mut hashes: Vec<Arc<str>> = Vec::new();
    let mut hash = |row: &PodRow| -> Option<Arc<str>> {
        let text = row.pod.value.metadata.labels.get(REVISION_LABEL)?;
        if let Some(known) = hashes.iter().find(|h| ***h == **text) {
            return Some(known.clone());
        }
        hashes.push(text.as_str().into());
        hashes.last().cloned()
    };
    for row in index.pods_of(&s.uid) {
        if row.facts.frozen || selector.matches(&row.pod.value.metadata.labels) {
            let pinned = || pinned_to(&row.pod.value.spec).map(Arc::from);
            s.pods.push(DaemonPod {
                node: row.facts.node.clone().or_else(pinned),
                hash: hash(row),
                facts: row.facts.clone(),
            });
        } else {
            s.releasable.push(row.facts.seen());
        }
    }
    let loose = index.loose_pods(&s.key.namespace);
    for row in loose.filter(|_| s.overlap.is_none()) {
        let takes = row.facts.is_active() && !row.facts.frozen;
        if takes && selector.matches(&row.pod.value.metadata.labels) {
            s.adoptable.push(row.facts.seen());
        }
    }
    let stem = stem(&s.key.name);
    let bound_to = |pod: &ObjectKey| -> Option<Arc<str>> {
        let binding = view.bindings().entry(pod)?.last_good()?;
        Some(binding.value.node.as_str().into())
    };
    for (pod, revision) in index.unreadable_pods(&s.key.namespace, &stem) {
        if !has_stem(&pod.name, &stem) {
            continue;
        }
        // Nothing says whose these are but the name. To take them for absent might make one pod too many.
        match bound_to(pod) {
            Some(node) => s.pods.push(DaemonPod {
                facts: crate::pod::PodFacts::unreadable(pod, revision),
                node: Some(node),
                hash: None,
            }),
            None => {
                s.unreadable += 1;
                s.taken.insert(pod.name.clone());
            }
        }
    }
    for pod in index.stopping(&s.key.namespace, &stem) {
        s.taken.insert(pod.name.clone());
        if has_stem(&pod.name, &stem) {
            s.stopping.extend(bound_to(pod));
        }
    }
    drop(index);
    let order = |pod: &DaemonPod| (pod.facts.node.is_none(), pod.facts.create_revision);
    s.pods.sort_by(|a, b| {
        let ages = order(a).cmp(&order(b));
        let names = || a.facts.key.cmp(&b.facts.key);
        a.node.cmp(&b.node).then(ages).then_with(names)
    });
}

fn see_revisions(shared: &Shared, view: &View<'_>, s: &mut Snapshot, object: &DaemonSet) {
    {
        let mut index = shared.revisions.lock();
        index.catch_up(view);
        s.revisions = revisions::of(&index, &s.uid);
        let broken = revisions::broken(&index, &s.key, &s.revisions);
        if !broken.is_empty() {
            s.invalid = Some(Unusable::revisions(&broken));
            return;
        }
    }
    let known = |r: &revisions::Revision| r.template.as_ref() == Some(&s.template);
    if s.revisions.iter().any(known) && s.adoptable.is_empty() {
        return;
    }
    // Only who makes a revision need know which names are taken, and who takes on pods that are of one.
    let all = view.desired::<ControllerRevision>();
    for (key, entry) in all.namespace(&s.key.namespace) {
        if !revisions::is_named(&s.key.name, &key.name) {
            continue;
        }
        s.taken_revisions.insert(key.name.to_string());
        // What a DaemonSet leaves behind that is deleted without its pods: with it they are not outdated.
        let free = entry.valid().filter(|_| s.overlap.is_none());
        let free = free.filter(|r| {
            let metadata = &r.value.metadata;
            metadata.controller().is_none() && object.spec.selector.matches(&metadata.labels)
        });
        let free = free.filter(|r| revisions::template(&r.value).is_some());
        s.adoptable_revisions.extend(free.map(|r| Seen::of(key, r)));
    }
    for own in &s.revisions {
        s.taken_revisions.remove(own.name());
    }
}

/// Where the pods may have to be: of the present template, and of the revisions that may run instead of it.
fn placements(s: &Snapshot) -> Arc<[Placement]> {
    let record = s.status.as_ref().and_then(|s| s.rollback.as_ref());
    let instead = |r: &&revisions::Revision| record.is_some_and(|b| b.to_revision == r.name());
    let held = s.missing.is_some() || s.is_refused();
    let others = s.revisions.iter().filter(|r| held || instead(r));
    let others = others.filter_map(|r| r.template.as_ref());
    let mut all: Vec<Placement> = Vec::new();
    for template in others.chain([&s.template]) {
        let placement = Placement::of(&template.spec);
        if !all.contains(&placement) {
            all.push(placement);
        }
    }
    all.into()
}

async fn execute(
    shared: &Shared,
    leader: &Leader,
    s: &Snapshot,
    found: Option<Found>,
    plan: Plan,
) -> Result<Action, Error> {
    let action = Action {
        requeue_after: plan.look_again,
    };
    let mut tally = writes::Tally::default();
    let is_read = found.is_some();
    if let Some(found) = found.filter(|_| plan.acts()) {
        let manager = Manager::new(shared, leader, &s.key, &found.object);
        if !act(shared, leader, s, (&found, &manager), &plan, &mut tally).await? {
            // Deposed, fenced off, or another document: whatever is due is decided afresh.
            tally.catch_up(leader).await;
            return Ok(Action::requeue(writes::SOON));
        }
    }
    let report = pass::Report::<DaemonSet> {
        key: &s.key,
        uid: &s.uid,
        before: s.status.as_ref(),
        now: plan.status.as_ref(),
    };
    let recorder = &shared.recorder;
    let mut action =
        pass::finish((leader, recorder), &shared.daemons, &report, tally, action).await?;
    let asks_for_nothing = plan.asks_for_nothing();
    if is_read && asks_for_nothing {
        shared.doors.forget((DaemonSet::KIND, &s.key));
    }
    if s.failure.is_some() && asks_for_nothing {
        // Nothing is left of what could not be written: the status says so no more.
        shared
            .daemons
            .with(&s.key, |memo| memo.notes.failure = None);
        action.requeue_after = Some(writes::SOON);
    }
    Ok(action)
}

/// Writes what a plan has but for the status. `false` when nothing more may be written on this snapshot.
async fn act(
    shared: &Shared,
    leader: &Leader,
    s: &Snapshot,
    (found, manager): (&Found, &Manager<'_>),
    plan: &Plan,
    tally: &mut writes::Tally,
) -> Result<bool, Error> {
    for (pods, adopts) in [(&plan.adopt, true), (&plan.release, false)] {
        if !manager.change_owner(tally, pods, adopts).await? {
            return Ok(false);
        }
    }
    // What a revision reads is there before it, and it is there before its pods.
    let (owner, own) = (manager.reference(), manager.guard());
    let remember = |failure: Option<(String, String)>| {
        let memory = &shared.daemons;
        memory.with(&s.key, |memo| memo.notes.failure = failure);
    };
    let is_made = plan.revision.as_ref().is_some_and(|w| w.there.is_none());
    let entry = revisions::enter(manager, tally, &plan.copies, is_made).await;
    let (together, refused) = match entry {
        Ok(Entry::LetIn(together)) => (Some(together), None),
        Ok(Entry::Refused(failure)) => (None, Some(failure)),
        Ok(Entry::Contested) => return Ok(true),
        Err(error) => {
            remember(Some((REVISION_REFUSED.to_owned(), error.to_string())));
            tally.refuse(error);
            return Ok(true);
        }
    };
    if let Some(failure) = &refused {
        remember(Some(failure.clone()));
        if plan.revision.is_some() && !s.is_refused() {
            // The next plan knows it, and goes on with what there is.
            tally.turned_away = true;
            return Ok(true);
        }
    }
    let door = together.as_ref().map(Together::guards);
    let (by, door) = ((&owner, &own), door.as_deref());
    let sources = &found.sources;
    let copies = copy_writes(leader, &plan.copies, &s.key.namespace, by, sources, door);
    for writes in [copies, revision_writes(leader, s, manager, plan, door)] {
        let go_on = writes.is_empty() || tally.commit(leader, writes).await;
        if !go_on || tally.conflicts > 0 {
            return Ok(false);
        }
        if let Some(error) = &tally.first_error {
            remember(Some((REVISION_REFUSED.to_owned(), error.to_string())));
            return Ok(true);
        }
    }
    drop(together);
    if plan.revision.is_some() && refused.is_none() {
        // The pass that this change brings goes on.
        remember(None);
        return Ok(true);
    }
    tell(shared, manager, plan);

    let before = tally.committed;
    let deletes: Vec<&Seen> = plan.delete.iter().map(|r| &r.pod).collect();
    let go_on = manager.delete(tally, &deletes).await;
    if tally.committed > before {
        remember_ended(shared, s, plan, shared.clock.now());
    }
    if !go_on {
        return Ok(false);
    }
    let Some((name, template)) = run(s, plan).filter(|_| !plan.create.is_empty()) else {
        return Ok(true);
    };
    let template = pod_template(template, hash_of(&s.key, name));
    let made = manager.furnished(&template);
    let writer = PinnedPodWriter::new(&s.key.namespace, &made.template, manager.reference());
    let nodes: BTreeMap<&str, &str> = plan
        .create
        .iter()
        .map(|p| (p.name.as_str(), &*p.node))
        .collect();
    let names: Vec<String> = plan.create.iter().map(|p| p.name.clone()).collect();
    let document = |name: &str| writer.document(name, nodes[name]);
    let created = manager.create(tally, &names, &made.asked(), document).await;
    if let Some((_, why)) = &refused {
        // Who has its pods waits for nothing; this one still waits for its revision.
        manager.still_waits(why);
        tally.turned_away = true;
    }
    remember(refused.or(created.failure));
    Ok(created.go_on)
}

/// The revision that pods are created of.
fn run<'a>(s: &'a Snapshot, plan: &'a Plan) -> Option<(&'a str, &'a PodTemplateSpec)> {
    let name = plan.run.as_deref()?;
    let revision = s.revisions.iter().find(|r| r.name() == name)?;
    Some((name, revision.template.as_ref()?))
}

/// What the pods of a revision are made from, but for the node.
pub fn pod_template(template: &PodTemplateSpec, hash: &str) -> PodTemplateSpec {
    let mut template = template.clone();
    let labels = &mut template.metadata.labels;
    labels.insert(REVISION_LABEL.into(), hash.into());
    let tolerations = tolerations(&template.spec);
    Arc::make_mut(&mut template.spec).tolerations = tolerations;
    template
}

/// The revision of the present template, when `door` lets it in, those that are taken on, and those that go.
fn revision_writes(
    leader: &Leader,
    s: &Snapshot,
    manager: &Manager<'_>,
    plan: &Plan,
    door: Option<&[Compare]>,
) -> Vec<Write> {
    let view = leader.cache().view();
    let adopted = revisions::adopted(&view, manager, &plan.adopt_revisions);
    let made = plan.revision.iter().filter(|_| door.is_some());
    let made = made.map(|wanted| {
        let mut made = revisions::made(&s.key.namespace, manager.reference(), &s.template, wanted);
        let hash = hash_of(&s.key, &wanted.name);
        made.metadata
            .labels
            .insert(REVISION_LABEL.into(), hash.into());
        (made, wanted.there.map(|i| s.revisions[i].seen.mod_revision))
    });
    let put = adopted.chain(made).collect();
    revisions::writes(manager, put, &plan.forget, door.unwrap_or_default())
}

/// Tells people what happens.
fn tell(shared: &Shared, manager: &Manager<'_>, plan: &Plan) {
    for r in plan.delete.iter().filter(|r| r.why == Why::Ended) {
        let node = r.node.as_deref().unwrap_or_default();
        let message = format!(
            "Pod {} on node {node} has ended: deleting it",
            r.pod.key.name
        );
        let recorder = &shared.recorder;
        recorder.warning(manager.about(), "FailedDaemonPod", message);
    }
}

/// The next pod that ends on the same node stays longer.
fn remember_ended(shared: &Shared, s: &Snapshot, plan: &Plan, now: Timestamp) {
    let ended = plan.delete.iter().filter(|r| r.why == Why::Ended);
    let nodes: Vec<&Arc<str>> = ended.filter_map(|r| r.node.as_ref()).collect();
    if nodes.is_empty() {
        return;
    }
    shared.daemons.with(&s.key, |memo| {
        let setbacks = &mut memo.notes.setbacks;
        setbacks.retain(|_, b| b.counts(s.generation, now));
        for node in nodes {
            let before = setbacks.get(node).map(|b| b.delay * 2);
            let setback = Setback {
                generation: s.generation,
                at: now,
                delay: before.unwrap_or(FIRST_DELAY).min(LONGEST_DELAY),
            };
            setbacks.insert(node.clone(), setback);
        }
    });
}

impl Setback {
    /// Whether it is still remembered.
    fn counts(&self, generation: i64, now: Timestamp) -> bool {
        self.generation == generation && now.duration_since(self.at) <= LONGEST_DELAY * 2
    }
}

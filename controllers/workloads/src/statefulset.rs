//! StatefulSets: pods with numbers, names that stay and volumes that stay.
//!
//! # Promise
//! - The pods are called `<set>-<number>`, numbers from `spec.ordinals.start` on. There is never more than one of a name:
//!   the next one is created when the former has stopped on its node. A pod that moves is the same pod.
//! - OrderedReady: a pod comes when all of lower numbers are available, and goes when all of higher numbers have stopped.
//!   Parallel: all at once.
//! - A rollout goes from the highest number down to the partition, so many at a time as `maxUnavailable` says, each when
//!   the one before is available. A pod that cannot become ready blocks neither another template nor a rollback.
//! - Each template is kept as a ControllerRevision, whose name the pods carry in the label `controller-revision-hash`.
//! - While a revision is refused by a quota, or what it reads is missing, the newest that is there goes on: pods of it
//!   come and go as the numbers say.
//! - A pod's claims are made before it and outlive it, unless the retention policy says otherwise.
//! - Every write holds only while the StatefulSet and what is written are as they were seen. While its document or that
//!   of one of its revisions does not parse, nothing is created or deleted.
//! - A rollout that stands still for the annotation `setpoint.dev/progress-deadline-seconds` (600 s), or whose pods
//!   crash, is taken back, as that of a Deployment is.

pub mod decide;
pub mod documents;
mod observe;
pub mod plan;
mod revision;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::apps::{ControllerRevision, StatefulSet};
use setpoint_apis::core::{Namespace, PersistentVolumeClaim, Pod, PodTemplateSpec};
use setpoint_apis::{Kind, ObjectKey, OwnerReference, document};
use setpoint_runtime::{Action, Leader, StateKey, View, Write};
use setpoint_store::{Compare, StoreError};

use crate::autoscale::Autoscalers;
use crate::children::Children;
use crate::config::copy_writes;
use crate::content::ContentIndex;
use crate::door::{Admission, Asked, Doors};
use crate::index::OwnerIndex;
use crate::manager::Manager;
use crate::memory::Memory;
use crate::overlaps::Overlaps;
use crate::owner::PodOwner;
use crate::reown::{self, ReadRaw};
use crate::revisions::{self, Entry, Wanted};
use crate::{Shared, manager, pass, writes};
use decide::decide;
use observe::{Found, observe};
use plan::{NewPod, Plan, Seen, Setbacks, Snapshot, Why};

/// Why a pass did not do all that it had planned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A write was refused, or a pod could not be read.
    #[error(transparent)]
    Pods(#[from] manager::Error),
    /// The raw document of a pod or claim, to change its owners, could not be read.
    #[error(transparent)]
    Read(#[from] ReadRaw),
}

/// What is remembered about StatefulSets.
pub(crate) type StatefulSets = Memory<Setbacks>;

/// Which changes make a StatefulSet look again.
pub(crate) fn concerns(key: &StateKey) -> bool {
    match key {
        StateKey::Desired(plural, _) => {
            let own = [
                Namespace::PLURAL,
                StatefulSet::PLURAL,
                PersistentVolumeClaim::PLURAL,
            ];
            own.contains(plural)
                || OwnerIndex::concerns(key)
                || ContentIndex::concerns(key)
                || Children::<ControllerRevision>::concerns(key)
                || Autoscalers::concerns(key)
                || Overlaps::concerns(key)
                || Doors::concerns(key)
        }
        StateKey::Actual(plural, _) => *plural == StatefulSet::PLURAL || Autoscalers::concerns(key),
        StateKey::Deletion(plural, _) => **plural == *StatefulSet::PLURAL,
        _ => OwnerIndex::concerns(key),
    }
}

/// Which StatefulSets a change concerns.
pub(crate) fn keys(shared: &Shared, change: &StateKey, view: &View<'_>) -> Vec<ObjectKey> {
    let mut keys = {
        let mut index = shared.index.lock();
        index.catch_up(view);
        index.take_touched(PodOwner::StatefulSet)
    };
    keys.extend(shared.content.lock().keys::<StatefulSet>(view, change));
    keys.extend(shared.autoscaled::<StatefulSet>(view));
    keys.extend(shared.overlapping::<StatefulSet>(view));
    keys.extend(shared.doors.roused::<StatefulSet>(change, view));
    {
        let mut revisions = shared.revisions.lock();
        revisions.catch_up(view);
        keys.extend(revisions.take_touched::<StatefulSet>());
    }
    match change {
        StateKey::Desired(plural, key) => match *plural {
            StatefulSet::PLURAL => keys.push(key.clone()),
            Namespace::PLURAL => {
                let sets = view.desired::<StatefulSet>().namespace(&key.name);
                keys.extend(sets.map(|(k, _)| k.clone()));
            }
            // Whoever has a name that a pod or a claim of a StatefulSet would have stands in its way.
            Pod::PLURAL | PersistentVolumeClaim::PLURAL => keys.extend(by_name(view, key)),
            ControllerRevision::PLURAL => {
                keys.extend(revisions::named_after::<StatefulSet>(view, key));
            }
            _ => {}
        },
        StateKey::Actual(plural, key) if *plural == StatefulSet::PLURAL => keys.push(key.clone()),
        StateKey::Deletion(_, key) => keys.push(key.clone()),
        _ => {}
    }
    keys
}

/// The StatefulSets that would give an object such a name: `<set>-<end>`, or `<template>-<set>-<end>` for claims.
fn by_name<'a>(view: &'a View<'_>, key: &'a ObjectKey) -> impl Iterator<Item = ObjectKey> + 'a {
    let stem = key.name.rsplit_once('-').map_or("", |(stem, _)| stem);
    let dashes = stem.match_indices('-').map(|(i, _)| &stem[i + 1..]);
    let names = [stem].into_iter().chain(dashes);
    let keys = names.map(|name| ObjectKey::namespaced(key.namespace.clone(), name));
    keys.filter(|key| view.desired::<StatefulSet>().contains(key))
}

/// One pass over one StatefulSet.
pub(crate) async fn reconcile(
    shared: Arc<Shared>,
    leader: Leader,
    key: ObjectKey,
) -> Result<Action, Error> {
    let planned = pass::plan(
        &shared.stateful_sets,
        &shared.clock,
        &key,
        || observe(&shared, &leader.cache().view(), &key),
        |(s, _)| s.members.len(),
        |(s, _), now| decide(s, now),
    );
    match planned {
        Ok(((snapshot, found), plan)) => execute(&shared, &leader, &snapshot, found, plan).await,
        Err(action) => Ok(action),
    }
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
    if let Some(found) = found.as_ref().filter(|_| plan.acts()) {
        let pass = Pass {
            shared,
            leader,
            s,
            found,
            plan: &plan,
            manager: Manager::new(shared, leader, &s.key, &found.set),
        };
        if !pass.act(&mut tally).await? {
            // Deposed, fenced off, or another document: whatever is due is decided afresh.
            tally.catch_up(leader).await;
            return Ok(Action::requeue(writes::SOON));
        }
    }
    let report = pass::Report::<StatefulSet> {
        key: &s.key,
        uid: &s.uid,
        before: s.status.as_ref(),
        now: plan.status.as_ref(),
    };
    let recorder = &shared.recorder;
    let memory = &shared.stateful_sets;
    let mut action = pass::finish((leader, recorder), memory, &report, tally, action).await?;
    if found.is_some() && plan.asks_for_nothing() {
        shared.doors.forget((StatefulSet::KIND, &s.key));
        if s.setbacks.failure.is_some() {
            // Nothing is left of what could not be written: the status says so no more.
            memory.with(&s.key, |memo| memo.notes.failure = None);
            action.requeue_after = Some(writes::SOON);
        }
    }
    Ok(action)
}

/// What carrying out a plan needs.
struct Pass<'a> {
    shared: &'a Shared,
    leader: &'a Leader,
    s: &'a Snapshot,
    found: &'a Found,
    plan: &'a Plan,
    manager: Manager<'a>,
}

/// What the namespace says to the claims of a plan.
#[derive(Default)]
struct ClaimsEntry<'a> {
    /// Those that are let in count here until they are written.
    doors: Vec<Admission<'a>>,
    /// Pods that have to wait for their claims.
    shut_out: BTreeSet<String>,
    /// Why.
    failure: Option<(String, String)>,
}

impl Pass<'_> {
    /// Does all but the status. `false` when nothing more may be written on this snapshot.
    async fn act(&self, tally: &mut writes::Tally) -> Result<bool, Error> {
        let plan = self.plan;
        for (pods, adopts) in [(&plan.adopt, true), (&plan.release, false)] {
            if !self.manager.change_owner(tally, pods, adopts).await? {
                return Ok(false);
            }
        }
        let refused = match self.enter_revision(tally).await {
            Some(Entry::LetIn(together)) => {
                let door = together.guards();
                let mut parts = self.copies(Some(&door));
                parts.extend(self.revisions(Some(&door)));
                if !self.commit(tally, parts).await {
                    return Ok(false);
                }
                if tally.first_error.is_some() {
                    return Ok(true);
                }
                if plan.revision.is_some() {
                    // The pass that this change brings goes on.
                    self.remember(|notes| notes.failure = None);
                    return Ok(true);
                }
                None
            }
            Some(Entry::Refused(failure)) => {
                self.remember(|notes| notes.failure = Some(failure.clone()));
                if plan.revision.is_some() && !revision::is_held(self.s) {
                    tally.turned_away = true;
                    return Ok(true);
                }
                let mut parts = self.copies(None);
                parts.extend(self.revisions(None));
                if !self.commit(tally, parts).await {
                    return Ok(false);
                }
                Some(failure)
            }
            Some(Entry::Contested) | None => return Ok(true),
        };
        // What pods mount is there before them. What fails of it fails the rest.
        let Some(entry) = self.enter_claims(tally).await else {
            return Ok(true);
        };
        let failure = refused.or(entry.failure);
        let mut before = Vec::new();
        let guard = entry.doors.iter().find_map(|door| door.guard.clone());
        before.extend(self.new_claims(&entry.shut_out, guard.as_ref()));
        before.extend(self.owned_claims().await?);
        if !self.commit(tally, before).await {
            return Ok(false);
        }
        drop(entry.doors);
        if !self.delete_pods(tally).await {
            return Ok(false);
        }
        if tally.first_error.is_some() {
            return Ok(true);
        }
        let create = plan
            .create
            .iter()
            .filter(|p| !entry.shut_out.contains(&p.name));
        let create: Vec<&NewPod> = create.collect();
        if !create.is_empty() {
            if !self.create_pods(tally, &create).await {
                return Ok(false);
            }
            if let Some((_, refusal)) = &failure {
                // Who has its pods waits for nothing; this one still waits for claims or for its revision. The next pass
                // asks again, for what may have come in between.
                self.manager.still_waits(refusal);
                tally.turned_away = true;
            }
        }
        if create.is_empty() || failure.is_some() {
            self.remember(|notes| notes.failure = failure);
        }
        Ok(true)
    }

    /// Creates pods in their order, those of one revision at a time. `false` when nothing more may be written on this
    /// snapshot.
    async fn create_pods(&self, tally: &mut writes::Tally, create: &[&NewPod]) -> bool {
        for group in create.chunk_by(|a, b| a.revision == b.revision) {
            let kept = self.s.revisions.iter();
            let mut kept = kept.filter(|r| r.name() == group[0].revision);
            let template = kept.find_map(|r| r.template.as_ref());
            let made = self.manager.furnished(template.unwrap_or(&self.s.template));
            let names: Vec<String> = group.iter().map(|p| p.name.clone()).collect();
            let document = |name: &str| self.pod(name, &made.template);
            let asked = made.asked();
            let created = self.manager.create(tally, &names, &asked, document).await;
            let failed = created.failure.is_some();
            self.remember(|notes| notes.failure = created.failure);
            if !created.go_on {
                return false;
            }
            if failed || tally.conflicts > 0 {
                break;
            }
        }
        true
    }

    /// Asks the namespace for the parts of a revision. `None` when the store does not say what it has.
    async fn enter_revision(&self, tally: &mut writes::Tally) -> Option<Entry<'_>> {
        let made = self.plan.revision.as_ref();
        let is_made = made.is_some_and(|new| new.there.is_none());
        let copies = &self.plan.copies;
        match revisions::enter(&self.manager, tally, copies, is_made).await {
            Ok(entry) => Some(entry),
            Err(error) => {
                self.store_failed(tally, error);
                None
            }
        }
    }

    fn store_failed(&self, tally: &mut writes::Tally, error: StoreError) {
        let failure = ("FailedCreate".to_owned(), error.to_string());
        tally.refuse(error);
        self.remember(|notes| notes.failure = Some(failure));
    }

    /// Asks the namespace for the claims that are to be made, those of one template at a time. `None` when the store does
    /// not say what it has.
    async fn enter_claims(&self, tally: &mut writes::Tally) -> Option<ClaimsEntry<'_>> {
        let mut entry = ClaimsEntry::default();
        let mut let_in = BTreeMap::new();
        let templates = self.found.set.value.spec.volume_claim_templates.iter();
        for (i, template) in templates.enumerate() {
            let count = self.plan.claims.iter().filter(|c| c.template == i).count();
            if count == 0 {
                continue;
            }
            match self
                .manager
                .enter(&Asked::Claim(&template.spec), count)
                .await
            {
                Ok(door) => {
                    let failure = self.manager.turned_away(tally, &door);
                    entry.failure = entry.failure.or(failure);
                    let_in.insert(i, door.allowed);
                    entry.doors.push(door);
                }
                Err(error) => {
                    self.store_failed(tally, error);
                    return None;
                }
            }
        }
        entry.shut_out = self.plan.shut_out(&let_in);
        Some(entry)
    }

    /// `false` when one of the writes found something else than was seen, or all is to be decided afresh.
    async fn commit(&self, tally: &mut writes::Tally, writes: Vec<Write>) -> bool {
        if writes.is_empty() {
            return true;
        }
        if !tally.commit(self.leader, writes).await || tally.conflicts > 0 {
            return false;
        }
        if let Some(error) = &tally.first_error {
            let failure = ("FailedCreate".to_owned(), error.to_string());
            let (about, recorder) = (self.manager.about(), &self.shared.recorder);
            recorder.warning(about, failure.0.clone(), failure.1.clone());
            self.remember(|notes| notes.failure = Some(failure));
        }
        true
    }

    fn remember(&self, change: impl FnOnce(&mut Setbacks)) {
        let memory = &self.shared.stateful_sets;
        memory.with(&self.s.key, |memo| change(&mut memo.notes));
    }

    /// Copies that are made, when `door` lets them in, and those that go.
    fn copies(&self, door: Option<&[Compare]>) -> Vec<Write> {
        let (owner, own) = (self.manager.reference(), self.manager.guard());
        let sources = &self.found.sources;
        let namespace = &self.s.key.namespace;
        copy_writes(
            self.leader,
            &self.plan.copies,
            namespace,
            (&owner, &own),
            sources,
            door,
        )
    }

    /// Revisions that are made or renumbered, when `door` lets them in, taken on or deleted.
    fn revisions(&self, door: Option<&[Compare]>) -> Vec<Write> {
        let mut put = Vec::new();
        if let Some(new) = self.plan.revision.as_ref().filter(|_| door.is_some()) {
            let wanted = Wanted {
                name: new.name.clone(),
                there: None,
                number: new.number,
                collisions: 0,
            };
            let (owner, namespace) = (self.manager.reference(), &self.s.key.namespace);
            let made = revisions::made(namespace, owner, &self.s.template, &wanted);
            put.push((made, new.there.as_ref().map(|seen| seen.mod_revision)));
        }
        let view = self.leader.cache().view();
        let adopted = revisions::adopted(&view, &self.manager, &self.plan.adopt_revisions);
        put.extend(adopted);
        let gone = &self.plan.delete_revisions;
        revisions::writes(&self.manager, put, gone, door.unwrap_or_default())
    }

    fn claim_owner(&self) -> OwnerReference {
        documents::claim_owner(&self.s.key.name, &self.found.set.uid())
    }

    fn new_claims(&self, shut_out: &BTreeSet<String>, door: Option<&Compare>) -> Vec<Write> {
        let set = &self.found.set.value;
        let owner = self.s.claims_go_with_set.then(|| self.claim_owner());
        let claims = self.plan.claims.iter();
        let claims = claims.filter(|new| !shut_out.contains(&new.pod));
        let writes = claims.filter_map(|new| {
            let key = documents::claim_key(set, new)?;
            let claim = documents::claim(set, new, owner.clone())?;
            let name = self.manager.desired::<PersistentVolumeClaim>(&key);
            let guards = [
                Compare::absent(name.clone()),
                self.manager.guard(),
                self.manager.namespace(),
            ];
            Some(Write {
                guards: guards.into_iter().chain(door.cloned()).collect(),
                ops: vec![writes::put(name, document::encode(&claim))],
                context: format!("create claim {key}"),
            })
        });
        writes.collect()
    }

    /// Claims that are put under the StatefulSet, or taken out.
    async fn owned_claims(&self) -> Result<Vec<Write>, Error> {
        let (owner, own) = (self.claim_owner(), self.manager.guard());
        let mut writes = Vec::new();
        for (verb, claims, owned) in [
            ("own", &self.plan.own_claims, true),
            ("disown", &self.plan.disown_claims, false),
        ] {
            let change = |owners: &mut Vec<OwnerReference>| {
                owners.retain(|r| r.uid != owner.uid);
                owners.extend(owned.then(|| owner.clone()));
            };
            let changed =
                reown::writes::<PersistentVolumeClaim>(self.leader, claims, &own, verb, change);
            writes.extend(changed.await?);
        }
        Ok(writes)
    }

    async fn delete_pods(&self, tally: &mut writes::Tally) -> bool {
        let before = tally.committed;
        let pods: Vec<(&Seen, &[Seen])> = self
            .plan
            .delete
            .iter()
            .map(|r| (&r.pod, &r.claims[..]))
            .collect();
        let go_on = self.manager.delete_with_claims(tally, &pods).await;
        let ended = self.plan.delete.iter().filter(|r| r.why == Why::Ended);
        let ended = u32::try_from(ended.count()).unwrap_or(u32::MAX);
        if tally.committed > before && ended > 0 {
            let now = self.shared.clock.now();
            self.remember(|notes| notes.note_finished(ended, now));
        }
        go_on
    }

    /// The document of a pod of the plan, made of the template of its revision.
    fn pod(&self, name: &str, template: &PodTemplateSpec) -> String {
        let (set, plan) = (&self.found.set.value, self.plan);
        let made = plan.create.iter().find(|p| p.name == name);
        let made = made.map(|new| documents::pod(set, template, self.manager.reference(), new));
        made.map_or_else(String::new, |pod| document::encode(&pod))
    }
}

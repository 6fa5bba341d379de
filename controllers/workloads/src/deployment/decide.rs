//! What to do for a Deployment: a pure function of what is, and of the time.

mod resize;

use std::collections::BTreeMap;

use setpoint_apis::Timestamp;
use setpoint_apis::apps::DeploymentStrategyType;
use setpoint_apis::core::PodTemplateSpec;
use setpoint_apis::meta::SET_BY_COMMAND;

use super::numbers::{Room, Stay, room};
use super::plan::{
    Change, DESIRED_REPLICAS, HASH_LABEL, LAST_APPLIED, MAX_REPLICAS, NewSet, Plan, REVISION,
    REVISION_HISTORY, SetFacts, Snapshot, number,
};
use super::revision::{self, Target};
use super::status;
use crate::config::CopyPlan;
use crate::good;
use crate::pod::available_at;
use crate::standing::Unusable;

/// Decides.
///
/// # Guarantees
/// - Nothing is created, scaled or deleted while the document, or that of one of its ReplicaSets, does not parse.
/// - RollingUpdate: the pods that exist never exceed wanted + maxSurge, counting those that are yet to be deleted; of
///   those that are available at least wanted - maxUnavailable stay, also when another number is wanted meanwhile.
/// - Recreate: no pod of the new template is wanted before the last one of the old has stopped on its node.
pub fn decide(s: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if s.invalid.is_some() || !s.broken_sets.is_empty() {
        let note = s.invalid.as_ref().map(Unusable::note);
        plan.notes
            .push(note.unwrap_or("a document does not parse: frozen").into());
        return status::frozen(plan, s, now);
    }
    let target = revision::target(s);
    let new = target.set;
    if s.terminating {
        plan.notes
            .push("it is being deleted, dependents first".into());
        return status::settle(plan, s, &target, false, now);
    }
    if !s.adoptable.is_empty() || !s.releasable.is_empty() {
        plan.adopt.clone_from(&s.adoptable);
        plan.release.clone_from(&s.releasable);
        return plan;
    }
    if let Some(missing) = &s.missing {
        plan.notes
            .push(format!("there is no new revision while {missing}"));
    }
    let mut rollout = Rollout::new(s, &target, now);
    let resized = s.sets.iter().any(|r| {
        r.replicas > 0
            && number(&r.annotations, DESIRED_REPLICAS).is_some_and(|n| n != i64::from(s.wanted))
    });
    let rolls = !s.paused && !resized;
    if !rolls {
        rollout.resize();
    } else if s.strategy.type_ == Some(DeploymentStrategyType::Recreate) {
        rollout.recreate(&mut plan);
    } else {
        rollout.roll(&mut plan);
    }
    if s.paused || status::is_complete(s, new, now) {
        rollout.forget_history(&mut plan, now);
    }
    plan.change = rollout.changes(&plan);
    plan.copies = copies(s, &plan);
    if !s.namespace_exists {
        if plan.create.take().is_some() {
            plan.notes.push("the namespace does not exist".into());
        }
        plan.copies.create.clear();
    }
    status::settle(plan, s, &target, rolls, now)
}

/// Copies that the present template reads are made before its ReplicaSet; those that no ReplicaSet reads any more go.
fn copies(s: &Snapshot, plan: &Plan) -> CopyPlan {
    let kept = s.sets.iter().filter(|r| !plan.delete.contains(&r.seen));
    // While something is missing nobody knows what the present template will read.
    let mut copies = CopyPlan::new(&s.reads, &s.copies, kept.map(|r| &r.template));
    if s.missing.is_some() {
        copies.delete.clear();
    }
    copies
}

/// A sum that stops at the largest number: wanted numbers may be anything.
pub(super) fn sum(numbers: impl Iterator<Item = i32>) -> i32 {
    numbers.fold(0, i32::saturating_add)
}

/// A template without the label that tells it from others.
pub(super) fn plain(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    template.metadata.labels.remove(HASH_LABEL);
    template
}

/// What a ReplicaSet is to be.
#[derive(Clone, PartialEq)]
struct Size {
    replicas: i32,
    min_ready_seconds: i32,
    annotations: BTreeMap<String, String>,
}

/// Sizes in the making.
struct Rollout<'a> {
    s: &'a Snapshot,
    new: Option<usize>,
    /// Whether the ReplicaSet of the present template is to be made when there is none.
    creates: bool,
    room: Room,
    targets: Vec<Size>,
    /// How many pods of each ReplicaSet are available now and stay so.
    stay: Vec<Stay>,
}

/// How many pods of a ReplicaSet are available now and stay so. What a former step has taken from it is gone, whatever
/// still exists of it, even where the set is to grow again; which ones go it may have decided before it knew that they are
/// available.
///
/// When it deletes those first that are not available, what is beyond the most can go and takes no available pod. One
/// whose document does not parse does not go, so it counts there although it is not available.
fn stay(r: &SetFacts, s: &Snapshot, now: Timestamp) -> Stay {
    let available = available(r, s, now);
    let stuck = r.frozen - count_available(&r.frozen_ready_since, s, now);
    let too_many = r.pods.saturating_sub(r.replicas).max(0);
    let goes = too_many.min(r.pods.saturating_sub(r.frozen));
    Stay {
        least: available.saturating_sub(goes).max(0),
        most: available.saturating_add(stuck).min(r.replicas),
    }
}

impl<'a> Rollout<'a> {
    fn new(s: &'a Snapshot, target: &Target, now: Timestamp) -> Self {
        let targets = s.sets.iter().map(|r| Size {
            replicas: r.replicas,
            min_ready_seconds: r.min_ready_seconds,
            annotations: r.annotations.clone(),
        });
        Self {
            s,
            new: target.set,
            creates: target.creates,
            room: room(&s.strategy, s.wanted),
            targets: targets.collect(),
            stay: s.sets.iter().map(|r| stay(r, s, now)).collect(),
        }
    }

    /// Indices of the ReplicaSets of other templates, oldest first.
    fn old(&self) -> impl Iterator<Item = usize> + use<> {
        let new = self.new;
        (0..self.s.sets.len()).filter(move |i| Some(*i) != new)
    }

    /// How many pods there may be at most.
    fn most(&self) -> i32 {
        self.s.wanted.saturating_add(self.room.surge)
    }

    /// How many pods may be added now. Those that are to go and still exist take room as well.
    fn free(&self) -> i32 {
        self.most().saturating_sub(self.there(|_| true)).max(0)
    }

    /// How many pods there are or are to be of some of the ReplicaSets.
    fn there(&self, of: impl Fn(usize) -> bool) -> i32 {
        let sets = self.s.sets.iter().enumerate();
        sum(sets
            .filter(|(i, _)| of(*i))
            .map(|(_, r)| r.replicas.max(r.pods)))
    }

    fn scale(&mut self, i: usize, replicas: i32) {
        self.targets[i].replicas = replicas.max(0);
    }

    /// A rolling update's next step, up and down at once: one only adds, the other only removes what may be missing.
    fn roll(&mut self, plan: &mut Plan) {
        let wanted = self.s.wanted;
        let free = self.free();
        match self.new {
            None if self.creates => plan.create = Some(self.new_set(free.min(wanted))),
            None => {}
            Some(i) => {
                self.describe_new(i);
                let present = self.targets[i].replicas;
                let replicas = if present > wanted {
                    wanted
                } else {
                    present + free.min(wanted - present)
                };
                self.scale(i, replicas);
                self.shrink_old(i);
            }
        }
    }

    /// Scales the other ReplicaSets down as far as availability allows: first what is not available anyway.
    fn shrink_old(&mut self, new: usize) {
        let least = self.s.wanted - self.room.unavailable;
        let total = sum(self.targets.iter().map(|t| t.replicas));
        let missing = (self.targets[new].replicas - self.stay[new].least).max(0);
        let mut may_go = total.saturating_sub(least).saturating_sub(missing);
        if may_go <= 0 {
            return;
        }
        for i in self.old() {
            let replicas = self.targets[i].replicas;
            let unhealthy = (replicas - self.stay[i].most).max(0).min(may_go);
            self.scale(i, replicas - unhealthy);
            may_go -= unhealthy;
            if may_go == 0 {
                break;
            }
        }
        let available = |r: &Self, i: usize| r.stay[i].least.min(r.targets[i].replicas);
        let all = sum((0..self.targets.len()).map(|i| available(self, i)));
        let mut spare = all - least;
        for i in self.old() {
            if spare <= 0 {
                break;
            }
            let step = self.targets[i].replicas.min(spare);
            self.scale(i, self.targets[i].replicas - step);
            spare -= step;
        }
    }

    /// Recreate's next step.
    fn recreate(&mut self, plan: &mut Plan) {
        let (mut waits, mut may_come) = (0_i32, false);
        for i in self.old() {
            self.scale(i, 0);
            let set = &self.s.sets[i];
            waits = waits.saturating_add(set.pods).saturating_add(set.stopping);
            may_come |= set.replicas > 0;
        }
        if waits > 0 {
            plan.notes
                .push(format!("{waits} pods of the old template have not stopped"));
            return;
        }
        if may_come {
            let note = "a ReplicaSet of the old template may still make pods";
            plan.notes.push(note.into());
            return;
        }
        match self.new {
            None if self.creates => plan.create = Some(self.new_set(self.s.wanted)),
            None => {}
            Some(i) => {
                self.describe_new(i);
                self.scale(i, self.s.wanted);
            }
        }
    }

    /// The ReplicaSet of the present template, as it is to be created.
    fn new_set(&self, replicas: i32) -> NewSet {
        let s = self.s;
        let (name, hash, collisions) = revision::new_name(s);
        let mut annotations = copied(&s.annotations);
        let revision = s.sets.iter().map(SetFacts::revision).max().unwrap_or(0) + 1;
        annotations.insert(REVISION.into(), revision.to_string());
        set_sizes(&mut annotations, s.wanted, self.room);
        NewSet {
            name,
            hash,
            collisions,
            replicas,
            annotations,
        }
    }

    /// Annotations of the ReplicaSet of the present template: the Deployment's, and the revision when the Deployment
    /// has come back to an older template.
    fn describe_new(&mut self, i: usize) {
        let newest_other = self
            .old()
            .map(|o| self.s.sets[o].revision())
            .max()
            .unwrap_or(0);
        let own = self.s.sets[i].revision();
        let (wanted, room) = (self.s.wanted, self.room);
        let target = &mut self.targets[i];
        target.min_ready_seconds = self.s.min_ready_seconds;
        target.annotations.extend(copied(&self.s.annotations));
        set_sizes(&mut target.annotations, wanted, room);
        if own <= newest_other {
            if own > 0 {
                let history = target
                    .annotations
                    .entry(REVISION_HISTORY.into())
                    .or_default();
                if !history.is_empty() {
                    history.push(',');
                }
                history.push_str(&own.to_string());
            }
            target
                .annotations
                .insert(REVISION.into(), (newest_other + 1).to_string());
        }
    }

    /// Deletes old ReplicaSets without pods beyond the history, the oldest revisions first.
    fn forget_history(&mut self, plan: &mut Plan, now: Timestamp) {
        let empty = |i: &usize| {
            let r = &self.s.sets[*i];
            r.replicas == 0 && r.pods == 0 && r.stopping == 0 && self.targets[*i].replicas == 0
        };
        let mut old: Vec<usize> = self.old().filter(empty).collect();
        old.sort_by_key(|i| (self.s.sets[*i].revision(), self.s.sets[*i].create_revision));
        // What a rollout that fails would go back to is no history yet.
        let is = |i: usize, name| name == Some(&*self.s.sets[i].seen.key.name);
        old.retain(|i| !is(*i, revision::last_available(self.s)));
        let keep = usize::try_from(self.s.history_limit).unwrap_or(0);
        let excess = old.len().saturating_sub(keep);
        // It is history, and may be gone back to for a while all the same.
        let former = good::in_force(revision::former_available(self.s), now);
        old.retain(|i| !is(*i, former));
        plan.delete.extend(
            old.into_iter()
                .take(excess)
                .map(|i| self.s.sets[i].seen.clone()),
        );
    }

    fn changes(&self, plan: &Plan) -> Vec<Change> {
        let changed = |(r, t): (&SetFacts, &Size)| {
            let same = r.replicas == t.replicas
                && r.min_ready_seconds == t.min_ready_seconds
                && r.annotations == t.annotations;
            (!same && !plan.delete.contains(&r.seen)).then(|| {
                let mut annotations = t.annotations.clone();
                if r.replicas != t.replicas {
                    set_sizes(&mut annotations, self.s.wanted, self.room);
                }
                Change {
                    set: r.seen.clone(),
                    from: r.replicas,
                    replicas: t.replicas,
                    min_ready_seconds: t.min_ready_seconds,
                    annotations,
                }
            })
        };
        self.s
            .sets
            .iter()
            .zip(&self.targets)
            .filter_map(changed)
            .collect()
    }
}

/// How many of a set's pods are available.
pub(super) fn available(r: &SetFacts, s: &Snapshot, now: Timestamp) -> i32 {
    count_available(&r.ready_since, s, now)
}

/// How many of pods that are ready since these times are available.
pub(super) fn count_available(ready_since: &[Timestamp], s: &Snapshot, now: Timestamp) -> i32 {
    let ready = ready_since.iter();
    let count = ready.filter(|since| available_at(**since, s.min_ready()) <= now);
    i32::try_from(count.count()).unwrap_or(i32::MAX)
}

/// The Deployment's annotations that its ReplicaSets get too.
fn copied(annotations: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    const OWN: [&str; 6] = [
        LAST_APPLIED,
        SET_BY_COMMAND,
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
    ];
    let not_ours = |(k, _): &(&String, &String)| !OWN.contains(&k.as_str());
    annotations
        .iter()
        .filter(not_ours)
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

fn set_sizes(annotations: &mut BTreeMap<String, String>, wanted: i32, room: Room) {
    annotations.insert(DESIRED_REPLICAS.into(), wanted.to_string());
    annotations.insert(
        MAX_REPLICAS.into(),
        wanted.saturating_add(room.surge).to_string(),
    );
}

//! Groups of pods that are placed together or not at all: who belongs to which, how they are, and what is to be done.
//!
//! Pure bookkeeping. A group is placed when at least `minMember` of its pods are. Until it has been, no part of it stays:
//! a group of which some pods are bound (their bindings travel in several transactions, some of which can fail, or the
//! leader ends half-way) is completed before anything else is placed, or taken apart when it cannot be, so that no two
//! halves wait for one another. A group that has been placed once is left running when it loses pods: those are placed
//! again as soon as they fit, and further pods are placed one by one.

mod gang;

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;
use setpoint_apis::ObjectKey;

use crate::asks::Hold;
use crate::pending::{Order, Wish};

pub(crate) use gang::Counts;
use gang::Gang;

/// How a member is.
#[derive(Clone, Debug)]
pub(crate) enum Member {
    /// It wants a node.
    Wants(Wish),
    /// Its binding is under way.
    Binding,
    /// It is bound, or was and has ended.
    Bound,
    /// It leaves a node, or something about it is under way: it will want a node in a while.
    Soon,
    /// Its own document keeps it from being placed.
    Held,
}

/// What a group says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// There is none of this name.
    Missing,
    /// Its document never parsed.
    Unknown,
    /// So many pods at least.
    Of(u32),
}

/// What is to be done about a group.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing until something changes.
    Rest,
    /// Its members wait for this.
    Hold(Hold),
    /// Place at least `need` of these, or none.
    Place { wishes: Vec<Wish>, need: usize },
    /// It is placed: these are placed one by one.
    Singly(Vec<Wish>),
    /// It cannot become complete: take these back.
    TakeApart(Vec<ObjectKey>),
}

/// All groups that have members or a document.
#[derive(Debug, Default)]
pub(crate) struct Gangs {
    gangs: FxHashMap<ObjectKey, Gang>,
    of: FxHashMap<ObjectKey, ObjectKey>,
    /// Those to be looked at: half-bound ones first (`false` sorts first), then in the order of their first pod.
    awake: BTreeSet<(bool, Order, ObjectKey)>,
    changed: BTreeSet<ObjectKey>,
    /// How many rest.
    resting: usize,
    /// The group that is being taken apart. One at a time, so that what it frees can complete another.
    parting: Option<Parting>,
    /// How many attempts to place a group there have been.
    attempts: u64,
    /// Attempts that were found under way, and have no deadline yet.
    found: Vec<(ObjectKey, u64)>,
}

/// A group that is being taken apart.
#[derive(Debug)]
struct Parting {
    group: ObjectKey,
    /// Those of its pods that were asked to leave and have not left yet.
    leaving: BTreeSet<ObjectKey>,
}

impl Gangs {
    /// The group of a pod that is a member of one.
    pub(crate) fn of(&self, pod: &ObjectKey) -> Option<&ObjectKey> {
        self.of.get(pod)
    }

    /// What a group says. `placed`: its status says that it has been placed before, which holds while any of its pods is
    /// bound; so whoever begins tells of the pods first.
    pub(crate) fn set_group(&mut self, key: &ObjectKey, group: Group, placed: bool) {
        if group == Group::Missing && !self.gangs.contains_key(key) {
            return;
        }
        let gang = self.gang(key);
        gang.placed |= placed && gang.counts.bound > 0;
        if gang.group != group {
            gang.group = group;
            gang.failed = false;
        }
        self.settle(key);
    }

    /// How a pod of a group is.
    pub(crate) fn set_member(&mut self, pod: &ObjectKey, group: &ObjectKey, member: Member) {
        if self.of.get(pod).is_some_and(|former| former != group) {
            self.remove_member(pod);
        }
        if !self.of.contains_key(pod) {
            self.of.insert(pod.clone(), group.clone());
        }
        let gang = self.gang(group);
        if let (Some(Member::Wants(known)), Member::Wants(wish)) = (gang.member(pod), &member)
            && known.revision == wish.revision
            && known.class == wish.class
            && known.order == wish.order
        {
            return;
        }
        let same = matches!(
            (gang.member(pod), &member),
            (Some(Member::Binding), Member::Binding)
                | (Some(Member::Bound), Member::Bound)
                | (Some(Member::Soon), Member::Soon)
                | (Some(Member::Held), Member::Held)
        );
        if same {
            return;
        }
        let leaves = matches!(member, Member::Bound | Member::Soon);
        gang.take(pod);
        gang.put(pod, member);
        gang.failed = false;
        if !leaves {
            self.has_left(pod);
        }
        self.settle(group);
    }

    /// Whether a member can be taken back from its node if that is asked: one that has ended cannot, nor one about which
    /// nothing can be decided.
    pub(crate) fn set_fixed(&mut self, pod: &ObjectKey, fixed: bool) {
        let Some(group) = self.of.get(pod).cloned() else {
            return;
        };
        let gang = self.gang(&group);
        let changed = if fixed {
            gang.fixed.insert(pod.clone())
        } else {
            gang.fixed.remove(pod)
        };
        if changed {
            gang.failed = false;
            if fixed {
                self.has_left(pod);
            }
            self.settle(&group);
        }
    }

    /// The binding of a pod is under way, which may be a member.
    pub(crate) fn is_binding(&mut self, pod: &ObjectKey) {
        if self.of.is_empty() {
            return;
        }
        if let Some(group) = self.of.get(pod).cloned() {
            self.set_member(pod, &group, Member::Binding);
        }
    }

    /// A pod is no member any more.
    pub(crate) fn remove_member(&mut self, pod: &ObjectKey) {
        if self.of.is_empty() {
            return;
        }
        let Some(group) = self.of.remove(pod) else {
            return;
        };
        if let Some(gang) = self.gangs.get_mut(&group) {
            gang.take(pod);
            gang.fixed.remove(pod);
            gang.failed = false;
            self.has_left(pod);
            self.settle(&group);
        }
    }

    /// The cluster changed in a way that can help: every group that did not fit is tried again for which `helps` holds of
    /// one of its pods. `arrivals`: nothing changed but that pods were placed.
    pub(crate) fn wake(&mut self, arrivals: bool, mut helps: impl FnMut(&Wish) -> bool) {
        let mut waiting = Vec::new();
        for (key, gang) in &mut self.gangs {
            if !gang.failed || gang.awake.is_some() || (arrivals && !gang.social) {
                continue;
            }
            gang.stale |= gang.resting;
            if !gang.resting && gang.wishes().any(&mut helps) {
                waiting.push(key.clone());
            }
        }
        for key in waiting {
            if let Some(gang) = self.gangs.get_mut(&key) {
                gang.failed = false;
            }
            self.touch(&key);
        }
    }

    /// A group that does not fit rests. Returns how many do.
    pub(crate) fn rest(&mut self, key: &ObjectKey) -> usize {
        if let Some(gang) = self.gangs.get_mut(key)
            && !std::mem::replace(&mut gang.resting, true)
        {
            gang.stale = false;
            self.resting += 1;
        }
        self.resting
    }

    /// Whether a group rests.
    pub(crate) fn is_resting(&self, key: &ObjectKey) -> bool {
        self.gangs.get(key).is_some_and(|gang| gang.resting)
    }

    /// It has rested: it is tried again if the cluster changed meanwhile.
    pub(crate) fn rest_is_over(&mut self, key: &ObjectKey) {
        self.resting = self.resting.saturating_sub(1);
        if let Some(gang) = self.gangs.get_mut(key) {
            gang.resting = false;
            if std::mem::take(&mut gang.stale) {
                self.retry(key);
            }
        }
    }

    /// Something that a group waits for outside the cluster changed: it is looked at again.
    pub(crate) fn retry(&mut self, group: &ObjectKey) {
        if let Some(gang) = self.gangs.get_mut(group) {
            gang.failed = false;
            self.touch(group);
        }
    }

    /// The first group to be looked at, and whether it is half-bound, so that it goes before all other pods.
    pub(crate) fn first(&self) -> Option<(bool, &Order)> {
        self.awake.first().map(|(whole, order, _)| (!whole, order))
    }

    /// Takes the first group to be looked at, and what is to be done about it.
    pub(crate) fn next(&mut self) -> Option<(ObjectKey, Step)> {
        let (_, _, key) = self.awake.pop_first()?;
        let parting = self.parting.is_some();
        let gang = self.gangs.get_mut(&key)?;
        gang.awake = None;
        let step = gang.step();
        let step = match step {
            // Another one is being taken apart: what it frees may complete this one.
            Step::TakeApart(_) if parting => {
                gang.failed = true;
                Step::Rest
            }
            Step::TakeApart(pods) => {
                self.parting = Some(Parting::of(&key, &pods));
                Step::TakeApart(pods)
            }
            step => step,
        };
        Some((key, step))
    }

    /// A group does not fit. `social`: other pods that are placed can help. Returns the pods to be taken back when it is
    /// half-bound.
    pub(crate) fn failed(&mut self, key: &ObjectKey, social: bool) -> Vec<ObjectKey> {
        let parting = self.parting.is_some();
        let Some(gang) = self.gangs.get_mut(key) else {
            return Vec::new();
        };
        gang.failed = true;
        gang.social = social;
        self.changed.insert(key.clone());
        if parting || !gang.is_half_bound() || gang.counts.binding > 0 {
            return Vec::new();
        }
        let pods = gang.movable();
        if !pods.is_empty() {
            self.parting = Some(Parting::of(key, &pods));
        }
        pods
    }

    /// A group does not fit, and others leave to make room for it. `social`: other pods that are placed can help as well.
    pub(crate) fn waits(&mut self, key: &ObjectKey, social: bool) {
        if let Some(gang) = self.gangs.get_mut(key) {
            gang.failed = true;
            gang.social = social;
            self.changed.insert(key.clone());
        }
    }

    /// All members of a group, sorted.
    pub(crate) fn members(&self, key: &ObjectKey) -> Vec<ObjectKey> {
        let members = self.gangs.get(key).into_iter();
        let mut members: Vec<_> = members.flat_map(Gang::members).cloned().collect();
        members.sort_unstable();
        members
    }

    /// Bindings of a group are about to be made. Returns the number of the attempt when that is its first step, for
    /// [`Gangs::overdue`].
    pub(crate) fn begin(&mut self, key: &ObjectKey) -> Option<u64> {
        let gang = self.gangs.get_mut(key)?;
        if gang.placed || gang.attempt.is_some() {
            return None;
        }
        self.attempts += 1;
        gang.attempt = Some(self.attempts);
        gang.attempt
    }

    /// The time of an attempt is over in which all bindings of a group were to stand. Returns the pods to be taken back when
    /// they do not; `None` when that attempt is over anyway.
    ///
    /// An attempt that is late stays one until nothing of it is bound: some pods may not be able to leave now, and some
    /// bindings may be under way. So its deadline is to be set anew.
    pub(crate) fn overdue(&mut self, key: &ObjectKey, attempt: u64) -> Option<Vec<ObjectKey>> {
        // What is there by now may not be what that attempt made.
        let gang = self.gangs.get_mut(key);
        let gang = gang.filter(|gang| gang.attempt == Some(attempt))?;
        let late = match gang.group {
            Group::Of(min) => !gang.placed && gang.counts.bound < min as usize,
            Group::Missing | Group::Unknown => false,
        };
        if !late {
            gang.attempt = None;
            return None;
        }
        let pods = gang.movable();
        if !pods.is_empty() {
            self.parting.get_or_insert_with(|| Parting::of(key, &pods));
        }
        Some(pods)
    }

    /// The attempts that were found under way since the last call: those of a former leader, and what is half bound for
    /// any other reason. They get a deadline like those that were begun here.
    pub(crate) fn take_found(&mut self) -> Vec<(ObjectKey, u64)> {
        std::mem::take(&mut self.found)
    }

    /// The groups of which anything changed since the last call.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.changed)
    }

    /// How the members of a group are.
    pub(crate) fn counts(&self, key: &ObjectKey) -> Option<(Counts, bool)> {
        let gang = self.gangs.get(key)?;
        Some((gang.counts, gang.placed))
    }

    /// The members of a group that want a node.
    pub(crate) fn wishes(&self, key: &ObjectKey) -> impl Iterator<Item = &Wish> {
        self.gangs.get(key).into_iter().flat_map(Gang::wishes)
    }

    /// Whether something is to be looked at.
    pub(crate) fn is_runnable(&self) -> bool {
        !self.awake.is_empty()
    }

    fn gang(&mut self, key: &ObjectKey) -> &mut Gang {
        self.gangs.entry(key.clone()).or_insert_with(Gang::new)
    }

    /// Takes note of what a change of a member, or of the document, makes of a group.
    fn settle(&mut self, key: &ObjectKey) {
        let Some(gang) = self.gangs.get_mut(key) else {
            return;
        };
        let counts = gang.counts;
        if let Group::Of(min) = gang.group
            && counts.bound >= min as usize
        {
            gang.placed = true;
            gang.attempt = None;
        }
        if counts.bound + counts.binding == 0 {
            gang.placed = false;
            gang.attempt = None;
        }
        if gang.attempt.is_none() && gang.is_half_bound() {
            self.attempts += 1;
            gang.attempt = Some(self.attempts);
            self.found.push((key.clone(), self.attempts));
        }
        // What it held is free by now, or it needs not be taken apart any more: the others that are half-bound can be
        // completed, or are next.
        let whole = match gang.group {
            Group::Of(min) => gang.placed || counts.bound + counts.binding >= min as usize,
            Group::Missing | Group::Unknown => true,
        };
        let over =
            |parting: &mut Parting| parting.group == *key && (whole || parting.leaving.is_empty());
        if self.parting.take_if(over).is_some() {
            let halves: Vec<_> = self
                .gangs
                .iter()
                .filter(|(_, gang)| gang.is_half_bound())
                .map(|(key, _)| key.clone())
                .collect();
            for half in halves {
                self.retry(&half);
            }
        }
        self.touch(key);
    }

    /// A pod that may have been asked to leave has left, or cannot.
    fn has_left(&mut self, pod: &ObjectKey) {
        if let Some(parting) = &mut self.parting {
            parting.leaving.remove(pod);
        }
    }

    fn touch(&mut self, key: &ObjectKey) {
        self.changed.insert(key.clone());
        let Some(gang) = self.gangs.get_mut(key) else {
            return;
        };
        if let Some((whole, order)) = gang.awake.take() {
            self.awake.remove(&(whole, order, key.clone()));
        }
        if gang.counts.members == 0 && gang.group == Group::Missing {
            self.gangs.remove(key);
            return;
        }
        if let Some(order) = gang.queue.first()
            && !gang.failed
        {
            let whole = !gang.is_half_bound();
            gang.awake = Some((whole, order.clone()));
            self.awake.insert((whole, order.clone(), key.clone()));
        }
    }
}

impl Parting {
    fn of(group: &ObjectKey, pods: &[ObjectKey]) -> Self {
        Self {
            group: group.clone(),
            leaving: pods.iter().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests;

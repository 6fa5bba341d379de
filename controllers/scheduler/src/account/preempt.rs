//! Preemption: a pod that fits nowhere makes others of lower priority leave, and is promised their room; a group of pods
//! does when all of it fits then, and not otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;

use setpoint_apis::ObjectKey;
use setpoint_apis::core::Pod;
use setpoint_runtime::{Stored, View};
use setpoint_scheduler_core::{BudgetState, Class, PodRequest};

use super::place::Candidate;
use super::{Account, Tell};
use crate::decide::Why;
use crate::nominations::Nomination;
use crate::observe;
use crate::pending::Wish;
use crate::specs::SpecInfo;

impl Account {
    /// A pod does not fit. Keeps the promise that was made to it, or finds others who are to leave for it.
    pub(super) fn preempt(&mut self, wish: &Wish, pod: &Stored<Pod>, info: &SpecInfo) {
        let key = &wish.order.pod;
        if let Some(nomination) = self.nominations.get(key)
            && !nomination.there.is_empty()
        {
            // To be decided on it had to give up the room that is kept for it.
            let there: Vec<_> = nomination.there.iter().cloned().collect();
            if self.cluster.admits(&wish.class, &nomination.node) {
                self.cluster
                    .nominate(key, &nomination.node, &wish.class, &there);
                return;
            }
            // Whatever becomes free there is of no use to it.
        }
        self.void_nomination(key);
        if !self.may_preempt(info) || self.no_victims.contains(&wish.class) {
            return;
        }
        let budgets = &self.budgets;
        let state = |victim: &ObjectKey| budgets.state(victim);
        let request = PodRequest {
            pod: key.clone(),
            class: wish.class.clone(),
        };
        let Some(found) = self.cluster.preempt(&request, &state) else {
            // The others of its class find none either, until something changes.
            self.no_victims.insert(wish.class.clone());
            return;
        };
        let asked = found.victims;
        self.nominations.set(key, found.node.clone(), asked.clone());
        let there = self.nominations.get(key).map(|n| &n.there);
        let there: Vec<_> = there.into_iter().flatten().cloned().collect();
        if there.is_empty() {
            // Whoever was to leave stays after all, which is about to be looked at.
            self.nominations.remove(key);
            return;
        }
        self.cluster.nominate(key, &found.node, &wish.class, &there);
        self.ask_to_make_room(&found.node, &asked);
        if !asked.is_empty() {
            let names: Vec<_> = asked.iter().map(ToString::to_string).collect();
            let tell = Tell {
                uid: pod.uid(),
                warning: false,
                reason: "Preempting",
                message: format!(
                    "makes room on {}: {} gives way",
                    found.node,
                    names.join(", ")
                ),
            };
            self.notices.push((key.clone(), tell));
        }
        // What is possible for one may be possible for the next of its class.
        self.rouse_next(&wish.class);
    }

    /// A group does not fit. Keeps the promises that were made to its members, or finds others who are to leave so that
    /// all of it fits. Returns whether somebody leaves for it.
    pub(super) fn preempt_together(
        &mut self,
        group: &ObjectKey,
        need: usize,
        candidates: &[Candidate<'_>],
    ) -> bool {
        if self.is_promised(need, candidates) {
            return true;
        }
        let pods = candidates.iter().map(|c| c.wish.order.pod.clone());
        self.void_together(pods);
        if !candidates.iter().any(|c| self.may_preempt(&c.info)) {
            return false;
        }
        let requests: Vec<_> = candidates.iter().map(Candidate::request).collect();
        let spared = self.gangs.members(group);
        let budgets = &self.budgets;
        let state = |victim: &ObjectKey| budgets.state(victim);
        let found = self.cluster.preempt_gang(&requests, need, &spared, &state);
        let Some(found) = found else {
            return false;
        };
        let places = candidates.iter().zip(found);
        let places: Vec<_> = places.filter_map(|(c, place)| Some((c, place?))).collect();
        for (candidate, place) in &places {
            let pod = &candidate.wish.order.pod;
            self.nominations
                .set(pod, place.node.clone(), place.victims.clone());
        }
        let there = |a: &Self, c: &Candidate<'_>| -> Vec<ObjectKey> {
            let nomination = a.nominations.get(&c.wish.order.pod);
            nomination.map_or_else(Vec::new, |n| n.there.iter().cloned().collect())
        };
        if places.iter().all(|(c, _)| there(self, c).is_empty()) {
            // Whoever was to leave stays after all, which is about to be looked at.
            for (candidate, _) in &places {
                self.nominations.remove(&candidate.wish.order.pod);
            }
            return false;
        }
        for (candidate, place) in &places {
            let (wish, there) = (&candidate.wish, there(self, candidate));
            self.cluster
                .nominate(&wish.order.pod, &place.node, &wish.class, &there);
        }
        // Members on one node have the same victims.
        let by_node: BTreeMap<_, _> = places.iter().map(|(_, p)| (&p.node, &p.victims)).collect();
        for (node, victims) in &by_node {
            self.ask_to_make_room(node, victims);
        }
        let victims = by_node.values().copied().flatten();
        let victims: Vec<_> = victims.map(ToString::to_string).collect();
        if let (Some((first, _)), false) = (places.first(), victims.is_empty()) {
            let nodes: Vec<_> = by_node.iter().filter(|(_, v)| !v.is_empty()).collect();
            let nodes: Vec<&str> = nodes.into_iter().map(|(node, _)| &***node).collect();
            let tell = Tell {
                uid: first.pod.uid(),
                warning: false,
                reason: "Preempting",
                message: format!(
                    "makes room for pod group {} on {}: {} gives way",
                    group.name,
                    nodes.join(", "),
                    victims.join(", ")
                ),
            };
            self.notices.push((first.wish.order.pod.clone(), tell));
        }
        true
    }

    /// Whether enough members of a group have been promised nodes that they can still use, and somebody is to leave there.
    fn is_promised(&mut self, need: usize, candidates: &[Candidate<'_>]) -> bool {
        let Self {
            nominations,
            cluster,
            ..
        } = self;
        let (mut promised, mut waits) = (0, false);
        for wish in candidates.iter().map(|c| &c.wish) {
            let Some(nomination) = nominations.get(&wish.order.pod) else {
                continue;
            };
            if !cluster.admits(&wish.class, &nomination.node) {
                return false;
            }
            promised += 1;
            waits |= !nomination.there.is_empty();
        }
        promised >= need && waits
    }

    /// The promises to pods of a group are void: it cannot use them.
    pub(super) fn void_together(&mut self, pods: impl Iterator<Item = ObjectKey>) {
        for pod in pods {
            if self.void_nomination(&pod).is_some() && self.cluster.placed(&pod).is_none() {
                self.room_freed |= self.cluster.forget(&pod);
            }
        }
    }

    /// The group of a pod, some of whose victims are gone, is tried again once none of them is left.
    pub(super) fn rouse_group_of(&mut self, pod: &ObjectKey) {
        let Some(group) = self.gangs.of(pod).cloned() else {
            return;
        };
        let nominations = &self.nominations;
        let wishes: Vec<_> = self.gangs.wishes(&group).map(|w| &w.order.pod).collect();
        let mut promises = wishes.into_iter().filter_map(|pod| nominations.get(pod));
        if promises.all(|promise| promise.there.is_empty()) {
            self.gangs.retry(&group);
        }
    }

    fn ask_to_make_room(&mut self, node: &str, victims: &[ObjectKey]) {
        for victim in victims {
            self.nominations.set_leaving(victim, Some(node));
            // Down from now on, and not only when that is written: others ask the same budgets before.
            self.budgets.disrupt(victim);
            self.touch(victim.clone());
        }
    }

    /// The promise to a pod is void. Those who have not begun to leave stay: they are looked at again, and budgets count
    /// them then as they are.
    pub(super) fn void_nomination(&mut self, key: &ObjectKey) -> Option<Nomination> {
        let nomination = self.nominations.remove(key)?;
        for victim in &nomination.there {
            self.touch(victim.clone());
        }
        // Others may have counted on them.
        self.room_freed |= !nomination.there.is_empty();
        Some(nomination)
    }

    /// Nodes changed: who was promised room on one that does not admit it any more looks elsewhere.
    pub(super) fn rouse_stranded(&mut self) {
        let Self {
            nominations,
            pending,
            cluster,
            gangs,
            ..
        } = self;
        for (pod, nomination) in nominations.all() {
            let class = pending.class_of(pod).cloned();
            if class.is_some_and(|class| !cluster.admits(&class, &nomination.node)) {
                pending.rouse(pod);
                if let Some(group) = gangs.of(pod).cloned() {
                    gangs.retry(&group);
                }
            }
        }
    }

    /// Whether a pod may displace others, and there can be any.
    fn may_preempt(&self, info: &SpecInfo) -> bool {
        info.asked.preempts && info.asked.priority > self.lowest
    }

    /// Something left: a waiting pod of the class may find somebody to displace who was not enough before.
    pub(super) fn rouse_preemptor(&mut self, class: &Class) {
        let nominations = &self.nominations;
        let first = self
            .pending
            .first_of(class, |pod| nominations.get(pod).is_none());
        let Some(pod) = first.cloned() else {
            return;
        };
        let request = PodRequest {
            pod,
            class: class.clone(),
        };
        let found = self.cluster.preempt(&request, &|_| BudgetState::default());
        if found.is_some() {
            self.pending.rouse(&request.pod);
        }
    }

    fn rouse_next(&mut self, class: &Class) {
        let nominations = &self.nominations;
        let next = self
            .pending
            .first_of(class, |pod| nominations.get(pod).is_none());
        if let Some(pod) = next.cloned() {
            self.pending.rouse(&pod);
        }
    }

    /// Takes over the promises of a former leader: those on whose nodes somebody still stops for them.
    pub(super) fn restore_nominations(&mut self, view: &View<'_>) {
        let promised: Vec<_> = self
            .pods
            .iter()
            .filter_map(|(key, state)| {
                let node = state.recorded.as_ref()?.nominated.clone()?;
                Some((key.clone(), node))
            })
            .filter(|(key, _)| !view.bindings().contains(key))
            .collect();
        if promised.is_empty() {
            return;
        }
        let leaving: Vec<(Arc<str>, ObjectKey)> = view
            .bindings()
            .iter()
            .filter(|(_, binding)| {
                let withdrawn = binding.value.withdrawn.as_ref();
                withdrawn.is_some_and(|w| w.reason == Why::Preempted.as_str())
            })
            .map(|(key, binding)| (binding.value.node.as_str().into(), key.clone()))
            .collect();
        for (key, node) in promised {
            let there = leaving.iter().filter(|(at, _)| *at == node);
            let there: Vec<_> = there.map(|(_, victim)| victim.clone()).collect();
            let pod = observe::last_good(view.desired::<Pod>().entry(&key));
            let Some(pod) = pod.filter(|_| !there.is_empty()) else {
                continue;
            };
            let asked = self.asks.of_placed(&pod.value.spec);
            let specs = &mut self.specs;
            let info = specs.get(&pod.value, &key.namespace, &asked, &mut self.cluster);
            self.cluster.nominate(&key, &node, &info.class, &there);
            self.nominations.set(&key, node, there);
        }
    }
}

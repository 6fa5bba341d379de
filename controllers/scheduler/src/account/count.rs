//! What pods take where they are: room on nodes, content of nodes, quotas, disruption budgets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::ObjectKey;
use setpoint_apis::core::{Pod, PodSpec};
use setpoint_apis::records::Binding;
use setpoint_apis::resolve::PodHealth;
use setpoint_runtime::{Stored, View};
use setpoint_scheduler_core::{Class, PodAsk, Profile};

use super::moves::Aside;
use super::{Account, PodState};
use crate::content::{Contents, Somewhere, Uses};
use crate::decide::{belongs, is_terminal};
use crate::observe;
use crate::quota::PodUse;
use crate::scales;
use crate::specs::SpecInfo;
use setpoint_scheduler_core::budgets::{Owner, Seen};

impl Account {
    /// Counts what a pod takes where it is bound: its resources until it has ended, its content until it is gone. What
    /// does not parse counts as it did when it last parsed; if it never did (before this process began), or the document
    /// is gone and the binding is not yet, the pod takes what its binding says, and may use any content of its node.
    pub(super) fn count(
        &mut self,
        key: &ObjectKey,
        state: &mut PodState,
        view: &View<'_>,
    ) -> Option<Arc<SpecInfo>> {
        self.count_budgets(key, state, view);
        let desired = observe::last_good(view.desired::<Pod>().entry(key));
        let Some(binding) = observe::binding(view, key) else {
            self.count_aside(key, state, None, view);
            if view.bindings().contains(key) {
                uses_unknown(&mut self.contents, state, Some(Somewhere::Anywhere));
            } else {
                self.uncount(key);
                uses_content(&mut self.contents, key, state, None);
                uses_unknown(&mut self.contents, state, None);
            }
            return desired.and_then(|pod| self.info(key, &pod.value, view));
        };
        let info = desired
            .filter(|pod| belongs(pod, &binding.value))
            .map(|pod| {
                let asked = self.asks.of_placed(&pod.value.spec);
                self.specs
                    .get(&pod.value, &key.namespace, &asked, &mut self.cluster)
            });
        let node = &binding.value.node;
        self.mark_reserved(node);
        if self.quotas.covers(&key.namespace) {
            match is_charged(view, key, &binding.value) {
                true => self.charge(key, &binding.value, info.as_deref()),
                false => self.quotas.discharge(key),
            }
        }
        let actual = view.pod_on(node, key).and_then(|e| e.valid());
        if actual.is_some_and(|a| is_terminal(&a.value)) {
            self.vacate(key);
        } else {
            self.lowest = self
                .lowest
                .min(info.as_ref().map_or(0, |i| i.asked.priority));
            let class = self.class_there(key, binding, info.as_deref(), view);
            if self
                .cluster
                .placed(key)
                .is_some_and(|(at, _)| **at != *node.as_str())
            {
                self.moved_away(key);
            }
            self.cluster
                .place(key, node, &class, binding.create_revision);
            // Nothing is decided about it while one of them does not parse.
            let frozen = view
                .desired::<Pod>()
                .entry(key)
                .is_some_and(|e| e.valid().is_none())
                || view
                    .bindings()
                    .entry(key)
                    .is_some_and(|e| e.valid().is_none());
            self.cluster.set_staying(key, frozen);
            // Its room costs nobody anything any more.
            let leaves = binding.value.withdrawn.is_some()
                || info.is_none()
                || self.is_asked_to_leave(key, Some(&binding.value));
            let from = leaves.then_some(node.as_str());
            if self.nominations.set_leaving(key, from) || leaves {
                self.cluster.set_leaving(key, leaves);
            }
        }
        let moves = state.aside.is_some() || state.other_node.is_some();
        if moves || binding.value.other_node().is_some() {
            let there = Some((binding, info.as_deref()));
            self.count_aside(key, state, there, view);
        }
        let contents = &mut self.contents;
        if let Some(info) = &info {
            uses_content(contents, key, state, Some((node, &info.uses)));
            uses_unknown(contents, state, None);
        } else if state
            .content
            .as_ref()
            .is_none_or(|(at, _)| **at != *node.as_str())
        {
            uses_unknown(contents, state, Some(Somewhere::On(node.as_str().into())));
        }
        info
    }

    /// Quotas count a pod that is bound.
    fn charge(&mut self, key: &ObjectKey, binding: &Binding, info: Option<&SpecInfo>) {
        let usage = match info {
            Some(info) => info.usage().clone(),
            None => Arc::new(PodUse::of_requests(&binding.requests)),
        };
        self.quotas.charge(key, &usage);
    }

    /// A pod takes nothing any more.
    pub(super) fn uncount(&mut self, key: &ObjectKey) {
        self.vacate(key);
        self.quotas.discharge(key);
    }

    /// A pod takes no room any more where it is.
    fn vacate(&mut self, key: &ObjectKey) {
        if !self.reservations.are_nowhere()
            && let Some((node, _)) = self.cluster.placed(key)
        {
            let node = node.clone();
            self.mark_reserved(&node);
        }
        // What it has been promised is kept.
        if self.nominations.get(key).is_none() || self.cluster.placed(key).is_some() {
            self.room_freed |= self.cluster.forget(key);
        }
        self.rouse_who_waited(key);
    }

    /// A pod is on another node than it was counted on: whoever waited for its room there is tried again. What is left of
    /// it there counts under another name, and is waited for as that.
    fn moved_away(&mut self, key: &ObjectKey) {
        if !self.reservations.are_nowhere()
            && let Some((node, _)) = self.cluster.placed(key)
        {
            let node = node.clone();
            self.mark_reserved(&node);
        }
        self.room_freed = true;
        self.rouse_who_waited(key);
    }

    /// Those who were promised the room of a pod, which is gone from where it was.
    fn rouse_who_waited(&mut self, key: &ObjectKey) {
        for waited in self.nominations.gone(key) {
            let ready = self
                .nominations
                .get(&waited)
                .is_some_and(|n| n.there.is_empty());
            if ready || self.cluster.nominated_fits(&waited) {
                self.pending.rouse(&waited);
            }
            self.rouse_group_of(&waited);
        }
    }

    /// What follows from a document; `None` while what it refers to does not exist.
    fn info(&mut self, key: &ObjectKey, pod: &Pod, view: &View<'_>) -> Option<Arc<SpecInfo>> {
        let asked = self.asks.of_waiting(view, &key.namespace, &pod.spec);
        let asked = asked.ok()?;
        let specs = &mut self.specs;
        Some(specs.get(pod, &key.namespace, &asked, &mut self.cluster))
    }

    /// The class of a pod that is bound.
    pub(super) fn class_there(
        &mut self,
        key: &ObjectKey,
        binding: &Stored<Binding>,
        info: Option<&SpecInfo>,
        view: &View<'_>,
    ) -> Class {
        if let Some(info) = info {
            return info.class.clone();
        }
        let node = &binding.value.node;
        let counted = self
            .cluster
            .placed(key)
            .filter(|(at, _)| ***at == *node.as_str());
        if let Some((_, class)) = counted {
            return class.clone();
        }
        // Of a pod that is being stopped its agent keeps the labels.
        let kept = view.pod_on(node, key).and_then(|e| e.last_good());
        let kept = kept.and_then(|actual| actual.value.metadata.as_deref());
        let labels = kept.map(|m| m.labels.clone()).unwrap_or_default();
        self.cluster.class(&PodAsk {
            namespace: &key.namespace,
            labels: &labels,
            spec: &PodSpec {
                overhead: (*binding.value.requests).clone(),
                ..PodSpec::default()
            },
            priority: 0,
            profile: Profile::default(),
        })
    }

    /// What budgets see of a pod. While a write about it is under way it stays as it was decided. One that is to make room
    /// counts as down though nothing says so yet.
    pub(super) fn count_budgets(&mut self, key: &ObjectKey, state: &PodState, view: &View<'_>) {
        let new = self.count_alone(key, state, view);
        self.set_scales(view, new.map(|owner| (key.namespace.clone(), owner)));
    }

    /// As [`Account::count_budgets`], without taking note of what its workload wants. Returns the workload when it is new
    /// here.
    pub(super) fn count_alone(
        &mut self,
        key: &ObjectKey,
        state: &PodState,
        view: &View<'_>,
    ) -> Option<Owner> {
        let settled = !state.busy && state.not_before <= view.revision().0;
        if !self.budgets.covers(&key.namespace) || !settled {
            return None;
        }
        let pod = observe::last_good(view.desired::<Pod>().entry(key));
        let asked = self.is_asked_to_leave(key, observe::binding(view, key).map(|b| &b.value));
        let now = pod.and_then(|pod| {
            let health = observe::health(view, key, pod)?;
            let health = if asked { PodHealth::Idle } else { health };
            Some((
                &pod.value.metadata.labels,
                health,
                scales::owner(view, key, pod),
            ))
        });
        let now = now.as_ref().map(|(labels, health, owner)| Seen {
            labels,
            health: *health,
            owner: owner.as_ref(),
        });
        let new = now
            .and_then(|now| now.owner)
            .filter(|owner| !self.budgets.has_owner(&key.namespace, owner));
        let new = new.cloned();
        self.budgets.observe(key, now);
        new
    }

    /// Takes note of how many pods these workloads want. The autoscalers of a namespace are looked through once for all.
    pub(super) fn set_scales(
        &mut self,
        view: &View<'_>,
        owners: impl IntoIterator<Item = (Arc<str>, Owner)>,
    ) {
        let mut by_namespace: BTreeMap<Arc<str>, BTreeSet<Owner>> = BTreeMap::new();
        for (namespace, owner) in owners {
            if self.budgets.has_owner(&namespace, &owner) {
                by_namespace.entry(namespace).or_default().insert(owner);
            }
        }
        for (namespace, owners) in &by_namespace {
            let scalers = scales::scalers(view, namespace);
            for owner in owners {
                let wanted = scales::wanted(view, namespace, owner, &scalers);
                self.budgets.set_scale(namespace, owner, wanted);
            }
        }
    }

    /// Whether a pod is to make room where it is bound.
    pub(super) fn is_asked_to_leave(&self, key: &ObjectKey, binding: Option<&Binding>) -> bool {
        let wanted = self.nominations.wants_room_of(key);
        wanted.is_some_and(|(_, n)| binding.is_some_and(|b| *n.node == *b.node))
    }

    pub(super) fn set_node(&mut self, view: &View<'_>, name: &Arc<str>) {
        self.nodes_changed |= match observe::node_facts(view, name) {
            Some(facts) => self.cluster.set_node(facts),
            None => {
                // What was kept there is kept elsewhere.
                self.dirty_reservations
                    .extend(self.reservations.on(name).cloned());
                self.cluster.remove_node(name)
            }
        };
    }
}

/// Whether quotas count a pod that is bound: until it has ended, or has been taken back and has stopped. One that was
/// stopped to be moved, and is still wanted, counts all the time: it starts elsewhere under the same binding, and nobody
/// asks quotas again.
pub(super) fn is_charged(view: &View<'_>, key: &ObjectKey, binding: &Binding) -> bool {
    let record = view.pod_on(&binding.node, key);
    let ended = record
        .and_then(|e| e.valid())
        .is_some_and(|a| is_terminal(&a.value));
    let withdrawn = binding.withdrawn.is_some();
    let elsewhere = binding.other_node();
    let elsewhere = elsewhere.is_some_and(|node| view.pod_on(node, key).is_some());
    let stopped = ended || (withdrawn && record.is_none() && !elsewhere);
    let wanted = || {
        let pod = observe::last_good(view.desired::<Pod>().entry(key));
        pod.is_some_and(|pod| belongs(pod, binding))
    };
    !stopped || (withdrawn && binding.moving.is_some() && wanted())
}

/// Counts a pod as a user of content on the node where it is.
pub(super) fn uses_content(
    contents: &mut Contents,
    key: &ObjectKey,
    state: &mut PodState,
    now: Option<(&str, &Uses)>,
) {
    let now = now.filter(|(_, uses)| !uses.is_empty());
    let same = match (&state.content, now) {
        (None, None) => true,
        (Some((node, uses)), Some((at, now))) => **node == *at && uses == now,
        _ => false,
    };
    if same {
        return;
    }
    let now = now.map(|(node, uses)| (Arc::<str>::from(node), uses.clone()));
    // First in, then out, so that what stays is not taken away in between.
    if let Some((node, uses)) = &now {
        contents.add(node, &key.namespace, uses);
    }
    if let Some((node, uses)) = std::mem::replace(&mut state.content, now) {
        contents.remove(&node, &key.namespace, &uses);
    }
}

/// Counts a pod as a user of content on a node beside its own.
pub(super) fn uses_content_aside(
    contents: &mut Contents,
    key: &ObjectKey,
    before: Option<&Aside>,
    now: Option<&Aside>,
) {
    // First in, then out, so that what stays is not taken away in between.
    if let Some(now) = now.filter(|a| !a.uses.is_empty()) {
        contents.add(&now.node, &key.namespace, &now.uses);
    }
    if let Some(before) = before.filter(|a| !a.uses.is_empty()) {
        contents.remove(&before.node, &key.namespace, &before.uses);
    }
}

/// Counts a pod of which it is not known what it uses.
fn uses_unknown(contents: &mut Contents, state: &mut PodState, now: Option<Somewhere>) {
    if state.unknown == now {
        return;
    }
    if let Some(now) = &now {
        contents.add_unknown(now);
    }
    if let Some(before) = std::mem::replace(&mut state.unknown, now) {
        contents.remove_unknown(&before);
    }
}

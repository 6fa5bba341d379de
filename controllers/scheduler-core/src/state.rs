//! What there is: nodes, pods on them, reservations, and the counts of who matches what.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use setpoint_apis::ObjectKey;

use crate::class::{Class, ClassInner};
use crate::intern::Interner;
use crate::log::ChangeLog;
use crate::node::{Glance, Images, Node};
use crate::resources::Resources;
use crate::slab::Slab;
use crate::terms::Registry;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) nodes: Vec<Node>,
    /// By slot, what is read of nodes most.
    pub(crate) glances: Vec<Glance>,
    pub(crate) slots: FxHashMap<Arc<str>, u32>,
    free_slots: Vec<u32>,
    /// How many nodes there are; slots that only count pods of an absent node are left out.
    pub(crate) known: u32,
    pub(crate) pods: Slab<Pod>,
    pub(crate) pods_by_key: FxHashMap<ObjectKey, u32>,
    pub(crate) nominated: u32,
    pub(crate) reservations: Slab<Reservation>,
    pub(crate) reservations_by_key: FxHashMap<ObjectKey, u32>,
    pub(crate) interner: Interner,
    pub(crate) images: Images,
    pub(crate) registry: Registry,
    pub(crate) log: ChangeLog,
    /// The greatest `since` of any pod.
    pub(crate) latest: i64,
}

/// A pod that is counted on a node, or nominated for it.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) key: ObjectKey,
    pub(crate) slot: u32,
    pub(crate) class: Class,
    pub(crate) since: i64,
    /// Whether it is on its way out, or a pod that is nominated for the node waits for it to leave.
    pub(crate) leaving: bool,
    /// Whether it cannot be made to leave.
    pub(crate) stays: bool,
    /// Whether it is on its way out as far as was told.
    going: bool,
    /// For a nominated pod, whom it waits for.
    pub(crate) nominated: Option<Box<[ObjectKey]>>,
    /// Where it is in the node's list.
    at: u32,
}

/// Capacity that is held for owners.
#[derive(Clone, Debug)]
pub(crate) struct Reservation {
    pub(crate) matcher: u32,
    pub(crate) resources: Resources,
    pub(crate) slot: Option<u32>,
    pub(crate) facts: crate::reserve::ReservationFacts,
}

impl State {
    /// Counts a pod on a node, or nominates it there. It must not be known yet.
    pub(crate) fn add(
        &mut self,
        key: &ObjectKey,
        slot: u32,
        class: Class,
        since: i64,
        nominated: Option<Box<[ObjectKey]>>,
    ) {
        self.latest = self.latest.max(since);
        let is_nominated = nominated.is_some();
        let id = self.pods.insert(Pod {
            key: key.clone(),
            slot,
            class: class.clone(),
            since,
            leaving: false,
            stays: false,
            going: false,
            nominated,
            at: 0,
        });
        self.pods_by_key.insert(key.clone(), id);
        let node = &mut self.nodes[slot as usize];
        let (kind, identity) = (&class.0.kind, class.0.identity);
        if is_nominated {
            self.nominated += 1;
            node.nominated.push(id);
            self.registry.count_nominated(
                slot,
                identity,
                &kind.own,
                kind.priority,
                true,
                &mut self.log,
            );
        } else {
            self.pods[id].at = node.pods.len() as u32;
            node.pods.push(id);
            node.add(&kind.requests, kind.weighed);
            node.ports.add(&kind.ports);
            self.registry
                .count(slot, identity, &kind.own, true, &mut self.log);
        }
        if !self.nodes[slot as usize].nominated.is_empty() {
            self.mark_leaving(slot);
        }
        self.touch(slot);
    }

    /// A node changed.
    pub(crate) fn touch(&mut self, slot: u32) {
        self.glances[slot as usize] = self.nodes[slot as usize].glance();
        self.log.push(slot);
    }

    /// Counts a pod out. Returns what was known of it.
    pub(crate) fn remove(&mut self, key: &ObjectKey) -> Option<Pod> {
        let id = self.pods_by_key.remove(key)?;
        let pod = self.pods.remove(id)?;
        let slot = pod.slot;
        let node = &mut self.nodes[slot as usize];
        let (kind, identity) = (&pod.class.0.kind, pod.class.0.identity);
        if pod.nominated.is_some() {
            self.nominated -= 1;
            node.nominated.retain(|p| *p != id);
            self.registry.count_nominated(
                slot,
                identity,
                &kind.own,
                kind.priority,
                false,
                &mut self.log,
            );
        } else {
            node.pods.swap_remove(pod.at as usize);
            if let Some(moved) = node.pods.get(pod.at as usize) {
                self.pods[*moved].at = pod.at;
            }
            node.remove(&kind.requests, kind.weighed);
            node.ports.remove(&kind.ports);
            self.registry
                .count(slot, identity, &kind.own, false, &mut self.log);
        }
        if pod.nominated.is_some() {
            self.mark_leaving(slot);
        }
        self.touch(slot);
        self.release_slot(slot);
        Some(pod)
    }

    /// Counts a pod again that was counted out, as it was.
    pub(crate) fn put_back(&mut self, pod: Pod) {
        // The slot may have been given up with the pod, when the node does not exist; nobody took it since.
        let node = self.nodes[pod.slot as usize].name.clone();
        let slot = self.slot_of(&node);
        self.add(&pod.key, slot, pod.class, pod.since, pod.nominated);
        self.set_leaving(&pod.key, pod.going);
        self.set_staying(&pod.key, pod.stays);
    }

    /// Says whether a pod is on its way out, whyever.
    pub(crate) fn set_leaving(&mut self, key: &ObjectKey, going: bool) {
        let Some(id) = self.pods_by_key.get(key).copied() else {
            return;
        };
        let pod = &mut self.pods[id];
        if std::mem::replace(&mut pod.going, going) != going {
            let slot = pod.slot;
            self.mark_leaving(slot);
            self.touch(slot);
        }
    }

    /// Says whether a pod cannot be made to leave.
    pub(crate) fn set_staying(&mut self, key: &ObjectKey, stays: bool) {
        let Some(id) = self.pods_by_key.get(key).copied() else {
            return;
        };
        let pod = &mut self.pods[id];
        if std::mem::replace(&mut pod.stays, stays) != stays {
            let slot = pod.slot;
            self.touch(slot);
        }
    }

    /// Works out who leaves a node: who was said to, and the victims of the pods that are nominated for it.
    fn mark_leaving(&mut self, slot: u32) {
        let Self { nodes, pods, .. } = self;
        let node = &nodes[slot as usize];
        for id in &node.pods {
            let key = &pods[*id].key;
            let mut waiting = node
                .nominated
                .iter()
                .filter_map(|n| pods[*n].nominated.as_ref());
            let leaving = waiting.any(|victims| victims.contains(key));
            let pod = &mut pods[*id];
            pod.leaving = leaving || pod.going;
        }
    }

    /// A pod that is counted or nominated.
    pub(crate) fn pod(&self, key: &ObjectKey) -> Option<&Pod> {
        Some(&self.pods[*self.pods_by_key.get(key)?])
    }

    /// Puts a node into the domains that its labels say, with everything that is counted on it.
    pub(crate) fn relabel(&mut self, slot: u32) {
        let facts = self.nodes[slot as usize].facts.clone();
        let labels = facts.as_deref().map(|f| &f.labels);
        if !self.registry.moves(slot, labels) {
            return;
        }
        self.count_all_on(slot, false);
        self.registry.move_to(slot, labels, self.known);
        self.count_all_on(slot, true);
    }

    fn count_all_on(&mut self, slot: u32, more: bool) {
        let Self {
            nodes,
            pods,
            registry,
            log,
            ..
        } = self;
        let node = &nodes[slot as usize];
        for pod in &node.pods {
            let class = &pods[*pod].class.0;
            registry.count(slot, class.identity, &class.kind.own, more, log);
        }
        for pod in &node.nominated {
            let class = &pods[*pod].class.0;
            registry.count_nominated(
                slot,
                class.identity,
                &class.kind.own,
                class.kind.priority,
                more,
                log,
            );
        }
    }

    /// Counts all nominated pods in or out of the terms.
    pub(crate) fn count_nominated(&mut self, more: bool) {
        if self.nominated == 0 {
            return;
        }
        let Self {
            pods,
            registry,
            log,
            ..
        } = self;
        for (_, pod) in pods.iter().filter(|(_, p)| p.nominated.is_some()) {
            let class = &pod.class.0;
            registry.count_nominated(
                pod.slot,
                class.identity,
                &class.kind.own,
                class.kind.priority,
                more,
                log,
            );
        }
    }

    /// What a reservation still holds on its node beside pods of these classes there.
    pub(crate) fn held<'a>(
        &self,
        reservation: &Reservation,
        there: impl Iterator<Item = &'a ClassInner>,
    ) -> Resources {
        let mut held = reservation.resources.clone();
        let owns = |class: &&ClassInner| self.registry.selects(reservation.matcher, class.identity);
        for class in there.filter(owns) {
            let used = &class.kind.requests;
            for (left, used) in held.fixed.iter_mut().zip(used.fixed) {
                *left = (*left - used).max(0);
            }
            for (name, left) in &mut held.extended {
                let used = used.extended.iter().find(|e| e.0 == *name);
                *left = (*left - used.map_or(0, |e| e.1)).max(0);
            }
        }
        held
    }

    /// The slot of a node, which need not exist.
    pub(crate) fn slot_of(&mut self, name: &str) -> u32 {
        if let Some(slot) = self.slots.get(name) {
            return *slot;
        }
        let name: Arc<str> = Arc::from(name);
        let mut node = Node::new(name.clone());
        let slot = match self.free_slots.pop() {
            Some(slot) => {
                let old = &mut self.nodes[slot as usize];
                // What is remembered of the slot's former node must not be taken for this one's.
                node.facts_version = old.facts_version.wrapping_add(1);
                *old = node;
                slot
            }
            None => {
                self.glances.push(Glance::default());
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("fewer than 2^32 nodes fit into memory")
            }
        };
        self.slots.insert(name, slot);
        self.touch(slot);
        slot
    }

    /// Frees the slot of a node that does not exist and that no pod is counted on.
    pub(crate) fn release_slot(&mut self, slot: u32) {
        let node = &self.nodes[slot as usize];
        if node.is_unused() && self.slots.remove(&node.name).is_some() {
            self.free_slots.push(slot);
        }
    }
}

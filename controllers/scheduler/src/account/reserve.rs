//! Reservations get places, keep them for their owners, and end.

use setpoint_apis::ObjectKey;
use setpoint_apis::core::{Namespace, Pod};
use setpoint_apis::placement::{Reservation, ReservationSpec, ReservationStatus, ReservedNode};
use setpoint_apis::quantity::ResourceList;
use setpoint_apis::time::Timestamp;
use setpoint_apis::view::pod_requests;
use setpoint_runtime::{Stored, View};
use setpoint_scheduler_core::{Decision, PodRequest, ReservationFacts, share, stand_in};

use super::statuses::{StatusOf, condition};
use super::{Account, Retry, Turn};
use crate::decide::is_terminal;
use crate::reservations::Held;

/// Reservations that are looked at in one turn.
const MOST: usize = 100;

impl Account {
    /// Looks at the reservations that changed, or that what changed can help.
    pub(super) fn place_reservations(&mut self, turn: &Turn<'_>) {
        for _ in 0..MOST {
            let unread = self.unread_reservations.pop_first();
            let Some(key) = unread.or_else(|| self.dirty_reservations.pop_first()) else {
                return;
            };
            self.reserve(&key, turn);
            self.statuses.mark(StatusOf::Reservation, &key);
        }
    }

    /// A pod came or went: what owners use of reservations there changes.
    pub(super) fn mark_reserved(&mut self, node: &str) {
        let Self {
            reservations,
            statuses,
            ..
        } = self;
        for key in reservations.on(node) {
            statuses.mark(StatusOf::Reservation, key);
        }
    }

    fn reserve(&mut self, key: &ObjectKey, turn: &Turn<'_>) {
        let entry = turn.view.desired::<Reservation>().entry(key);
        let Some(reservation) = entry.and_then(|e| e.last_good()) else {
            self.give_back(key, 0);
            self.reservations.remove(key);
            return;
        };
        let spec = &reservation.value.spec;
        let mut held = match self.reservations.get(key) {
            Some(held) => {
                let mut held = held.clone();
                held.change(spec);
                held
            }
            None => {
                let before = turn.view.actual::<Reservation>().get(key);
                Held::new(spec, before.map(|b| &b.value), turn.now)
            }
        };
        let ends = held.ends();
        held.expired = ends.is_some_and(|end| end <= turn.now);
        held.message.clear();
        if held.expired {
            held.shares.iter_mut().for_each(|s| *s = None);
            self.give_back(key, 0);
            self.reservations.set(key, held);
            return;
        }
        if let Some(end) = ends
            && held.timer != ends
        {
            held.timer = ends;
            self.retry(
                turn.tick + end.duration_since(turn.now),
                Retry::Reservation(key.clone()),
            );
        }
        self.give_back(key, held.shares.len());
        let namespaces = namespaces(key, spec, turn.view);
        let class = self.cluster.stand_in_class(spec);
        for index in 0..held.shares.len() {
            // A node that is gone keeps nothing.
            let node = held.shares[index].take();
            let node = node.filter(|node| self.cluster.node(node).is_some());
            let name = share(key, index);
            held.shares[index] = match node {
                Some(node) => Some(node),
                None if !held.message.is_empty() => None,
                None => {
                    self.cluster.remove_reservation(&name);
                    let request = PodRequest {
                        pod: name.clone(),
                        class: class.clone(),
                    };
                    match self.cluster.schedule(&[request], self.seed).pop() {
                        Some(Decision::Bind(placement)) => {
                            self.cluster.forget(&name);
                            Some(placement.node)
                        }
                        Some(Decision::Unschedulable(verdict)) => {
                            held.message = verdict.message(&stand_in(spec));
                            None
                        }
                        None => None,
                    }
                }
            };
            let Some(node) = held.shares[index].clone() else {
                self.cluster.remove_reservation(&name);
                continue;
            };
            let changed = self.cluster.set_reservation(ReservationFacts {
                key: name,
                owner: spec.owners.selector.clone(),
                namespaces: namespaces.clone(),
                resources: spec.resources.clone(),
                node: Some(node),
            });
            // Its owners may have waited for it.
            self.room_freed |= changed;
        }
        self.reservations.set(key, held);
    }

    /// Shares from `from` on are kept no longer.
    fn give_back(&mut self, key: &ObjectKey, from: usize) {
        let known = self.reservations.get(key).map_or(0, |h| h.shares.len());
        for index in from..known {
            self.room_freed |= self.cluster.remove_reservation(&share(key, index));
        }
    }

    pub(super) fn reservation_says(
        &self,
        key: &ObjectKey,
        reservation: &Stored<Reservation>,
        before: Option<&ReservationStatus>,
        now: Timestamp,
        view: &View<'_>,
    ) -> Option<ReservationStatus> {
        let held = self.reservations.get(key)?;
        let mut used = ResourceList::new();
        let mut nodes = Vec::new();
        for (node, count) in held.by_node() {
            let here = used_there(key, held, &node, count, view);
            for (name, amount) in &here {
                *used.entry(name.clone()).or_default() += *amount;
            }
            nodes.push(ReservedNode {
                name: (*node).into(),
                count,
                used: here,
            });
        }
        let missing = held.shares.iter().filter(|s| s.is_none()).count();
        let (reason, message) = match missing {
            _ if held.expired => ("Expired", "its time is over".to_owned()),
            0 => ("Reserved", String::new()),
            n => (
                "Unschedulable",
                format!(
                    "{n} of {} have no place: {}",
                    held.shares.len(),
                    held.message
                ),
            ),
        };
        let old = before.map_or(&[][..], |b| &b.conditions);
        let reserved = !held.expired && missing == 0;
        let mut conditions = vec![condition(old, "Reserved", reserved, reason, &message, now)];
        if held.expired {
            conditions.push(condition(old, "Expired", true, "Expired", &message, now));
        }
        Some(ReservationStatus {
            observed_generation: Some(reservation.version),
            nodes,
            used,
            expires_at: held.ends(),
            conditions,
        })
    }
}

/// What owners take of what is kept for them on a node.
fn used_there(
    key: &ObjectKey,
    held: &Held,
    node: &str,
    count: i32,
    view: &View<'_>,
) -> ResourceList {
    let mut used = ResourceList::new();
    let there = view.pods_on(node).into_iter().flat_map(|t| t.iter());
    for (pod, actual) in there {
        let Some(document) = view.desired::<Pod>().get(pod) else {
            continue;
        };
        let namespace = ObjectKey::cluster(pod.namespace.clone());
        let namespace = view.desired::<Namespace>().get(&namespace);
        let labels = namespace.map(|n| n.value.metadata.labels.clone());
        let owns = held.spec.owners.owns(
            &key.namespace,
            &document.value.metadata,
            &labels.unwrap_or_default(),
        );
        if is_terminal(&actual.value) || !owns {
            continue;
        }
        for (name, amount) in pod_requests(&document.value.spec) {
            if held.spec.resources.contains_key(&name) {
                *used.entry(name).or_default() += amount;
            }
        }
    }
    for (name, amount) in &mut used {
        let share = held.spec.resources.get(name).copied().unwrap_or_default();
        let most = (0..count).map(|_| share).sum();
        *amount = (*amount).min(most);
    }
    used
}

/// The namespaces of the owners.
fn namespaces(key: &ObjectKey, spec: &ReservationSpec, view: &View<'_>) -> Vec<String> {
    let all: Vec<_> = view
        .desired::<Namespace>()
        .entries()
        .filter_map(|(name, entry)| Some((name, entry.last_good()?)))
        .collect();
    let all = all
        .iter()
        .map(|(name, stored)| (&*name.name, &*stored.value.metadata.labels));
    spec.owners.namespaces_of(&key.namespace, all)
}

//! Reservations: where room is kept for whom, and until when.
//!
//! Pure bookkeeping. A reservation of `count` keeps that many shares, each on one node; what is placed stays where it is
//! while the node exists and the document asks for the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::ObjectKey;
use setpoint_apis::placement::{ReservationSpec, ReservationStatus};
use setpoint_apis::time::Timestamp;
use setpoint_scheduler_core::MOST_SHARES;

/// A reservation that is known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Held {
    pub(crate) spec: ReservationSpec,
    /// When it was first seen, by whichever leader.
    pub(crate) since: Timestamp,
    /// The node of each share; `None` while it has no place.
    pub(crate) shares: Vec<Option<Arc<str>>>,
    pub(crate) expired: bool,
    /// The end for which a timer runs.
    pub(crate) timer: Option<Timestamp>,
    /// Why a share has no place.
    pub(crate) message: String,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    held: BTreeMap<ObjectKey, Held>,
    /// How many shares each node has.
    on_node: BTreeMap<Arc<str>, BTreeMap<ObjectKey, i32>>,
}

impl Held {
    /// A reservation that is seen for the first time, with what a former leader wrote of it.
    pub(crate) fn new(
        spec: &ReservationSpec,
        before: Option<&ReservationStatus>,
        now: Timestamp,
    ) -> Self {
        // Its end was written when it began.
        let ttl = std::time::Duration::from_secs(
            spec.ttl_seconds
                .and_then(|s| u64::try_from(s).ok())
                .unwrap_or(0),
        );
        let since = before
            .and_then(|b| b.expires_at)
            .map_or(now, |end| end.saturating_sub(ttl));
        let mut shares = Vec::new();
        for node in before.into_iter().flat_map(|b| &b.nodes) {
            let count = usize::try_from(node.count).unwrap_or(0).min(MOST_SHARES);
            shares.extend((0..count).map(|_| Some(Arc::from(node.name.as_str()))));
        }
        let mut held = Self {
            spec: spec.clone(),
            since,
            shares,
            expired: false,
            timer: None,
            message: String::new(),
        };
        held.fit();
        held
    }

    /// The document is this now. What is placed stays, unless it would be placed by other rules.
    pub(crate) fn change(&mut self, spec: &ReservationSpec) {
        let rules = |s: &ReservationSpec| {
            (
                s.resources.clone(),
                s.node_name.clone(),
                s.node_selector.clone(),
                s.affinity.clone(),
                s.tolerations.clone(),
            )
        };
        if rules(&self.spec) != rules(spec) {
            self.shares.iter_mut().for_each(|s| *s = None);
        }
        self.spec = spec.clone();
        self.fit();
    }

    fn fit(&mut self) {
        let count = usize::try_from(self.spec.count())
            .unwrap_or(0)
            .min(MOST_SHARES);
        // Those without a place go first.
        self.shares.sort_by_key(Option::is_none);
        self.shares.resize(count, None);
    }

    /// When it ends; `None`: never.
    pub(crate) fn ends(&self) -> Option<Timestamp> {
        self.spec.expires_at(self.since)
    }

    /// How many shares there are on each node.
    pub(crate) fn by_node(&self) -> BTreeMap<Arc<str>, i32> {
        let mut counts = BTreeMap::new();
        for node in self.shares.iter().flatten() {
            *counts.entry(node.clone()).or_insert(0) += 1;
        }
        counts
    }
}

impl Reservations {
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&Held> {
        self.held.get(key)
    }

    pub(crate) fn set(&mut self, key: &ObjectKey, held: Held) {
        self.remove(key);
        for (node, count) in held.by_node() {
            self.on_node
                .entry(node)
                .or_default()
                .insert(key.clone(), count);
        }
        self.held.insert(key.clone(), held);
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) -> Option<Held> {
        let held = self.held.remove(key)?;
        for node in held.by_node().into_keys() {
            if let Some(there) = self.on_node.get_mut(&node) {
                there.remove(key);
                if there.is_empty() {
                    self.on_node.remove(&node);
                }
            }
        }
        Some(held)
    }

    /// The timer of a reservation is over. Should the end not have come, another one is set.
    pub(crate) fn timer_is_over(&mut self, key: &ObjectKey) {
        if let Some(held) = self.held.get_mut(key) {
            held.timer = None;
        }
    }

    /// Whether none has a share anywhere.
    pub(crate) fn are_nowhere(&self) -> bool {
        self.on_node.is_empty()
    }

    /// Those that have a share on a node.
    pub(crate) fn on(&self, node: &str) -> impl Iterator<Item = &ObjectKey> {
        self.on_node.get(node).into_iter().flat_map(BTreeMap::keys)
    }

    /// Those with a share that has no place.
    pub(crate) fn waiting(&self) -> BTreeSet<ObjectKey> {
        let waiting = self.held.iter();
        let waiting = waiting.filter(|(_, h)| !h.expired && h.shares.contains(&None));
        waiting.map(|(key, _)| key.clone()).collect()
    }

    /// Those for owners in namespaces that are selected by their labels.
    pub(crate) fn across_namespaces(&self) -> BTreeSet<ObjectKey> {
        let across = self.held.iter();
        let across = across.filter(|(_, h)| h.spec.owners.namespace_selector.is_some());
        across.map(|(key, _)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use setpoint_apis::placement::ReservedNode;

    use super::*;

    fn spec(count: i32, ttl: Option<i64>) -> ReservationSpec {
        ReservationSpec {
            count: Some(count),
            ttl_seconds: ttl,
            ..ReservationSpec::default()
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[test]
    fn a_new_leader_takes_over_where_room_is_kept_and_until_when() {
        let first = Held::new(&spec(3, Some(60)), None, at(100));
        assert_eq!((first.ends(), first.shares.len()), (Some(at(160)), 3));
        let status = ReservationStatus {
            expires_at: first.ends(),
            nodes: vec![ReservedNode {
                name: "n1".into(),
                count: 2,
                ..ReservedNode::default()
            }],
            ..ReservationStatus::default()
        };
        let next = Held::new(&spec(3, Some(60)), Some(&status), at(130));
        assert_eq!(next.ends(), Some(at(160)));
        assert_eq!(next.shares, [Some("n1".into()), Some("n1".into()), None]);
        assert_eq!(
            Held::new(&spec(1, None), Some(&status), at(1)).shares.len(),
            1
        );
    }

    #[test]
    fn what_is_placed_stays_unless_it_would_be_placed_by_other_rules() {
        let mut held = Held::new(&spec(2, None), None, at(0));
        held.shares = vec![None, Some("n1".into())];
        held.change(&spec(1, None));
        assert_eq!(held.shares, [Some("n1".into())]);
        held.change(&spec(-5, None));
        assert_eq!(held.shares, []);
        held.change(&spec(i32::MAX, None));
        assert_eq!(held.shares.len(), MOST_SHARES);
        held.shares[0] = Some("n1".into());
        held.change(&ReservationSpec {
            node_name: Some("n2".into()),
            ..spec(1, None)
        });
        assert_eq!(held.shares, [None]);
    }

    #[test]
    fn reservations_are_found_by_node_and_by_what_they_lack() {
        let key = |n: &str| ObjectKey::namespaced("default", n);
        let mut all = Reservations::default();
        let mut held = Held::new(&spec(2, None), None, at(0));
        held.shares[0] = Some("n1".into());
        all.set(&key("a"), held.clone());
        assert_eq!(all.on("n1").collect::<Vec<_>>(), [&key("a")]);
        assert_eq!(all.waiting(), [key("a")].into());
        held.shares[1] = Some("n1".into());
        all.set(&key("a"), held);
        assert!(all.waiting().is_empty());
        all.remove(&key("a"));
        assert_eq!(all.on("n1").count(), 0);
    }
}

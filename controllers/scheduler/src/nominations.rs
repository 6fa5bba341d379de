//! Who has been promised a node on which others still stop, and whom each of these makes room for.
//!
//! A promise stands while somebody stops for it. The pod is placed by the ordinary way: here when its room is real, or
//! elsewhere when that is faster; then the promise is void. Those who were asked to leave and have not begun to are left
//! alone when the pod that wanted their room is gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use setpoint_apis::ObjectKey;

/// A promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nomination {
    pub(crate) node: Arc<str>,
    /// Everybody who was asked to leave.
    pub(crate) victims: Vec<ObjectKey>,
    /// Those of them who are still there.
    pub(crate) there: BTreeSet<ObjectKey>,
}

/// All promises.
#[derive(Debug, Default)]
pub(crate) struct Nominations {
    of: FxHashMap<ObjectKey, Nomination>,
    /// Who waits for each that is still there; it leaves for the first.
    by_victim: FxHashMap<ObjectKey, Vec<ObjectKey>>,
    by_node: FxHashMap<Arc<str>, Vec<ObjectKey>>,
}

impl Nominations {
    /// A pod is promised the room of these.
    pub(crate) fn set(&mut self, pod: &ObjectKey, node: Arc<str>, victims: Vec<ObjectKey>) {
        self.remove(pod);
        for victim in &victims {
            let waiting = self.by_victim.entry(victim.clone()).or_default();
            waiting.push(pod.clone());
        }
        self.by_node
            .entry(node.clone())
            .or_default()
            .push(pod.clone());
        let there = victims.iter().cloned().collect();
        let nomination = Nomination {
            node,
            victims,
            there,
        };
        self.of.insert(pod.clone(), nomination);
    }

    /// The promise to a pod is void. Returns what it was.
    pub(crate) fn remove(&mut self, pod: &ObjectKey) -> Option<Nomination> {
        if self.of.is_empty() {
            return None;
        }
        let nomination = self.of.remove(pod)?;
        for victim in &nomination.there {
            drop_from(&mut self.by_victim, victim, pod);
        }
        drop_from(&mut self.by_node, &nomination.node, pod);
        Some(nomination)
    }

    /// What a pod was promised.
    pub(crate) fn get(&self, pod: &ObjectKey) -> Option<&Nomination> {
        self.of.get(pod)
    }

    /// For whom a pod is to leave, and where.
    pub(crate) fn wants_room_of(&self, victim: &ObjectKey) -> Option<(&ObjectKey, &Nomination)> {
        if self.by_victim.is_empty() {
            return None;
        }
        let pod = self.by_victim.get(victim)?.first()?;
        Some((pod, self.of.get(pod)?))
    }

    /// Those who leave a node for others.
    pub(crate) fn leaving(&self, node: &str) -> BTreeSet<ObjectKey> {
        let promised = self.by_node.get(node).into_iter().flatten();
        promised
            .filter_map(|pod| self.of.get(pod))
            .flat_map(|n| n.there.iter().cloned())
            .collect()
    }

    /// A pod is gone from where it was. Returns those who waited for it.
    pub(crate) fn gone(&mut self, victim: &ObjectKey) -> Vec<ObjectKey> {
        if self.by_victim.is_empty() {
            return Vec::new();
        }
        let waited = self.by_victim.remove(victim).unwrap_or_default();
        for pod in &waited {
            if let Some(nomination) = self.of.get_mut(pod) {
                nomination.there.remove(victim);
            }
        }
        waited
    }
}

fn drop_from<K: std::hash::Hash + Eq>(
    lists: &mut FxHashMap<K, Vec<ObjectKey>>,
    key: &K,
    pod: &ObjectKey,
) {
    if let Some(list) = lists.get_mut(key) {
        list.retain(|other| other != pod);
        if list.is_empty() {
            lists.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::namespaced("default", name)
    }

    #[test]
    fn a_promise_knows_who_is_still_there_and_who_leaves_for_whom() {
        let mut n = Nominations::default();
        n.set(&key("p"), "n1".into(), vec![key("a"), key("b")]);
        assert_eq!(n.wants_room_of(&key("a")).unwrap().0, &key("p"));
        assert_eq!(n.gone(&key("a")), [key("p")]);
        assert_eq!(n.gone(&key("a")), []);
        assert!(n.wants_room_of(&key("a")).is_none());
        assert_eq!(n.get(&key("p")).unwrap().there, [key("b")].into());
        let was = n.remove(&key("p")).unwrap();
        assert_eq!(was.victims, [key("a"), key("b")]);
        assert!(n.wants_room_of(&key("b")).is_none(), "it is left as it is");
        assert!(n.of.is_empty() && n.by_victim.is_empty() && n.by_node.is_empty());
    }

    #[test]
    fn one_can_leave_for_two_and_both_learn_that_it_is_gone() {
        let mut n = Nominations::default();
        n.set(&key("p"), "n1".into(), vec![key("a")]);
        n.set(&key("q"), "n1".into(), vec![key("a")]);
        n.remove(&key("q"));
        assert_eq!(n.wants_room_of(&key("a")).unwrap().0, &key("p"));
        n.set(&key("q"), "n1".into(), vec![key("a")]);
        assert_eq!(n.leaving("n1"), [key("a")].into());
        assert!(n.leaving("n2").is_empty());
        assert_eq!(n.gone(&key("a")), [key("p"), key("q")]);
    }
}

//! Who has been promised a node on which others still stop, and whom each of these makes room for.
//!
//! A promise to a pod stands while somebody stops for it, and one to a member of a group while somebody stops for any of
//! its members: a member that needs nobody's room, or whose victims are gone, keeps what it was promised. The pod is
//! placed by the ordinary way: here when its room is real, or elsewhere when that is faster; then the promise is void.
//! Those who were asked to leave and have not begun to are left alone when the pod that wanted their room is gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use setpoint_apis::ObjectKey;

/// A promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nomination {
    pub(crate) node: Arc<str>,
    /// Those who were asked to leave for it.
    pub(crate) victims: Vec<ObjectKey>,
    /// Those of them, and of those who leave anyway, who are still there.
    pub(crate) there: BTreeSet<ObjectKey>,
}

/// All promises.
#[derive(Debug, Default)]
pub(crate) struct Nominations {
    of: FxHashMap<ObjectKey, Nomination>,
    /// Who waits for each that is still there; it leaves for the first.
    by_victim: FxHashMap<ObjectKey, Vec<ObjectKey>>,
    /// Everybody who is on the way out, for whatever reason, and from where.
    leaving: FxHashMap<ObjectKey, Arc<str>>,
    leaving_from: FxHashMap<Arc<str>, BTreeSet<ObjectKey>>,
}

impl Nominations {
    /// A pod is promised the room of `victims`, and of those who leave that node already.
    pub(crate) fn set(&mut self, pod: &ObjectKey, node: Arc<str>, victims: Vec<ObjectKey>) {
        self.remove(pod);
        let mut there = self.leaving(&node);
        there.extend(victims.iter().cloned());
        for victim in &there {
            let waiting = self.by_victim.entry(victim.clone()).or_default();
            waiting.push(pod.clone());
        }
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
            if let Some(waiting) = self.by_victim.get_mut(victim) {
                waiting.retain(|other| other != pod);
                if waiting.is_empty() {
                    self.by_victim.remove(victim);
                }
            }
        }
        Some(nomination)
    }

    /// What a pod was promised.
    pub(crate) fn get(&self, pod: &ObjectKey) -> Option<&Nomination> {
        self.of.get(pod)
    }

    /// All of them, in no particular order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&ObjectKey, &Nomination)> {
        self.of.iter()
    }

    /// For whom a pod is to leave, and where.
    pub(crate) fn wants_room_of(&self, victim: &ObjectKey) -> Option<(&ObjectKey, &Nomination)> {
        if self.by_victim.is_empty() {
            return None;
        }
        let pod = self.by_victim.get(victim)?.first()?;
        Some((pod, self.of.get(pod)?))
    }

    /// A pod is on its way out from a node, or (`None`) is not. Returns whether that is new.
    pub(crate) fn set_leaving(&mut self, pod: &ObjectKey, from: Option<&str>) -> bool {
        let known = self.leaving.get(pod);
        if known.map(|node| &**node) == from {
            return false;
        }
        if let Some(node) = self.leaving.remove(pod)
            && let Some(pods) = self.leaving_from.get_mut(&node)
        {
            pods.remove(pod);
            if pods.is_empty() {
                self.leaving_from.remove(&node);
            }
        }
        if let Some(from) = from {
            let node = Arc::<str>::from(from);
            self.leaving.insert(pod.clone(), node.clone());
            self.leaving_from
                .entry(node)
                .or_default()
                .insert(pod.clone());
        }
        true
    }

    /// Those who are on their way out from a node.
    pub(crate) fn leaving(&self, node: &str) -> BTreeSet<ObjectKey> {
        self.leaving_from.get(node).cloned().unwrap_or_default()
    }

    /// A pod is gone from where it was. Returns those who waited for it.
    pub(crate) fn gone(&mut self, victim: &ObjectKey) -> Vec<ObjectKey> {
        if !self.leaving.is_empty() {
            self.set_leaving(victim, None);
        }
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
        assert!(n.of.is_empty() && n.by_victim.is_empty());
    }

    #[test]
    fn one_can_leave_for_two_and_both_learn_that_it_is_gone() {
        let mut n = Nominations::default();
        n.set(&key("p"), "n1".into(), vec![key("a")]);
        n.set(&key("q"), "n1".into(), vec![key("a")]);
        n.remove(&key("q"));
        assert_eq!(n.wants_room_of(&key("a")).unwrap().0, &key("p"));
        n.set(&key("q"), "n1".into(), vec![key("a")]);
        assert_eq!(n.gone(&key("a")), [key("p"), key("q")]);
    }

    #[test]
    fn who_leaves_anyway_is_waited_for_as_well_and_is_no_victim() {
        let mut n = Nominations::default();
        assert!(n.set_leaving(&key("old"), Some("n1")));
        assert!(!n.set_leaving(&key("old"), Some("n1")));
        n.set_leaving(&key("other"), Some("n2"));
        n.set(&key("p"), "n1".into(), vec![key("a")]);
        let promised = n.get(&key("p")).unwrap();
        assert_eq!(promised.victims, [key("a")]);
        assert_eq!(promised.there, [key("a"), key("old")].into());
        assert_eq!(n.gone(&key("old")), [key("p")]);
        assert!(n.leaving("n1").is_empty());
        assert!(n.set_leaving(&key("other"), None));
        assert!(n.leaving.is_empty() && n.leaving_from.is_empty());
    }
}

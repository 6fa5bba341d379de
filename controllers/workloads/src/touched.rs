//! Objects that changes concern, until their controllers ask for them.

use rustc_hash::FxHashSet;
use setpoint_apis::{Kind, ObjectKey};

/// Objects of some kinds. Those of other kinds are left out: nobody would ask for them, and they would stay for ever.
#[derive(Debug)]
pub struct Touched(Vec<(&'static str, FxHashSet<ObjectKey>)>);

impl Touched {
    /// None, of these kinds.
    pub fn new(kinds: &[&'static str]) -> Self {
        let none = |kind: &&'static str| (*kind, FxHashSet::default());
        Self(kinds.iter().map(none).collect())
    }

    /// An object is concerned.
    pub fn insert(&mut self, kind: &str, key: ObjectKey) {
        if let Some((_, keys)) = self.0.iter_mut().find(|(k, _)| *k == kind) {
            keys.insert(key);
        }
    }

    /// The objects of kind `K` since the last call.
    pub fn take<K: Kind>(&mut self) -> Vec<ObjectKey> {
        let own = self.0.iter_mut().find(|(kind, _)| *kind == K::KIND);
        let own = own.map(|(_, keys)| std::mem::take(keys));
        own.into_iter().flatten().collect()
    }

    /// How many objects nobody has asked for yet.
    pub fn len(&self) -> usize {
        self.0.iter().map(|(_, keys)| keys.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use setpoint_apis::apps::{DaemonSet, StatefulSet};
    use setpoint_apis::batch::Job;

    use super::*;

    #[test]
    fn what_nobody_asks_for_is_not_kept_and_the_rest_is_taken_once_per_kind() {
        let key = |name: &str| ObjectKey::namespaced("default", name);
        let mut touched = Touched::new(&[StatefulSet::KIND, DaemonSet::KIND]);
        for name in ["a", "b", "a"] {
            touched.insert(StatefulSet::KIND, key(name));
        }
        touched.insert(DaemonSet::KIND, key("a"));
        for n in 0..100 {
            touched.insert(Job::KIND, key(&n.to_string()));
            touched.insert("Robot", key(&n.to_string()));
        }
        assert_eq!(touched.len(), 3);
        let mut sets = touched.take::<StatefulSet>();
        sets.sort();
        assert_eq!(sets, [key("a"), key("b")]);
        assert!(touched.take::<StatefulSet>().is_empty());
        assert!(touched.take::<Job>().is_empty());
        assert_eq!(touched.take::<DaemonSet>(), [key("a")]);
        assert!(touched.is_empty());
    }
}

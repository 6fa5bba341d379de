//! Namespaces that are not there: which went lately, and since when objects are in one that is missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use setpoint_apis::Timestamp;

use crate::plan::{Home, ObjectId};

/// What is in a namespace within this time after that went is what it left behind, or was created by somebody who did not
/// know yet that it goes. Whatever comes later is new: somebody writes keys by hand, or restores them.
pub(crate) const LEFT_BEHIND: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Homes {
    there: FxHashSet<Arc<str>>,
    /// When those went that went lately.
    went: BTreeMap<Arc<str>, Timestamp>,
    waiting: FxHashMap<ObjectId, Waiting>,
}

/// An object that waits for its namespace.
#[derive(Debug)]
struct Waiting {
    /// The revision of its creation: another object of its name waits anew.
    created: Option<i64>,
    since: Timestamp,
}

impl Homes {
    pub(crate) fn came(&mut self, namespace: &Arc<str>) {
        if self.there.insert(namespace.clone()) {
            self.went.remove(namespace);
            self.waiting.retain(|id, _| id.key.namespace != *namespace);
        }
    }

    /// `false` when it was not known to be there.
    pub(crate) fn went(&mut self, namespace: &Arc<str>, now: Timestamp) -> bool {
        let was = self.there.remove(namespace);
        if was {
            self.went.retain(|_, at| lately(*at, now));
            self.went.insert(namespace.clone(), now);
        }
        was
    }

    /// The namespaces that are there.
    pub(crate) fn there(&self) -> impl Iterator<Item = &Arc<str>> {
        self.there.iter()
    }

    /// The objects that wait for their namespace.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &ObjectId> {
        self.waiting.keys()
    }

    /// An object is gone, and waits for nothing any more.
    pub(crate) fn forget(&mut self, id: &ObjectId) {
        self.waiting.remove(id);
    }

    /// What is to be thought of the namespace of an object, which is not there. Its time begins at the first look.
    pub(crate) fn missing(&mut self, id: &ObjectId, created: Option<i64>, now: Timestamp) -> Home {
        let went = self.went.get(&id.key.namespace);
        if went.is_some_and(|at| lately(*at, now)) {
            return Home::Deleted;
        }
        let since = Waiting {
            created,
            since: now,
        };
        let waiting = self.waiting.entry(id.clone()).or_insert(since);
        if waiting.created != created {
            *waiting = Waiting {
                created,
                since: now,
            };
        }
        Home::Missing(waiting.since)
    }
}

fn lately(at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(at) < LEFT_BEHIND
}

#[cfg(test)]
mod tests {
    use setpoint_apis::ObjectKey;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn map(namespace: &str, name: &str) -> ObjectId {
        ObjectId::new("configmaps", ObjectKey::namespaced(namespace, name))
    }

    #[test]
    fn each_object_has_a_time_of_its_own_to_wait_for_its_namespace() {
        let mut homes = Homes::default();
        let (a, b) = (map("ghost", "a"), map("ghost", "b"));
        assert_eq!(homes.missing(&a, Some(5), at(0)), Home::Missing(at(0)));
        assert_eq!(homes.missing(&a, Some(5), at(500)), Home::Missing(at(0)));
        assert_eq!(homes.missing(&b, Some(9), at(900)), Home::Missing(at(900)));
        // Another object of the name, and one that comes after it was seen to go.
        assert_eq!(homes.missing(&a, Some(9), at(900)), Home::Missing(at(900)));
        homes.forget(&a);
        assert_eq!(homes.missing(&a, Some(9), at(950)), Home::Missing(at(950)));
        // Whose namespace came waits anew when it goes again.
        homes.came(&Arc::from("ghost"));
        assert_eq!(homes.waiting().count(), 0);
    }

    #[test]
    fn what_comes_long_after_its_namespace_went_is_not_what_that_left_behind() {
        let mut homes = Homes::default();
        let shop: Arc<str> = Arc::from("shop");
        let c = map("shop", "c");
        homes.came(&shop);
        assert!(homes.went(&shop, at(0)));
        assert!(!homes.went(&shop, at(1)));
        assert_eq!(homes.missing(&c, Some(5), at(59)), Home::Deleted);
        assert_eq!(homes.missing(&c, Some(7), at(60)), Home::Missing(at(60)));
        assert_eq!(homes.missing(&c, Some(7), at(660)), Home::Missing(at(60)));
    }

    #[test]
    fn namespaces_that_went_are_forgotten() {
        let mut homes = Homes::default();
        for i in 0..1_000 {
            let namespace = Arc::from(format!("ci-{i}"));
            homes.came(&namespace);
            homes.went(&namespace, at(i));
        }
        assert_eq!(homes.went.len(), 60);
        assert!(homes.there.is_empty() && homes.waiting.is_empty());
    }
}

//! Who waits for room in a namespace, and who of them is to look again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use setpoint_apis::{Kind, ObjectKey};
use setpoint_runtime::View;

/// Objects that wait, by the word for their kind.
#[derive(Default)]
pub(super) struct Waiters {
    groups: Mutex<FxHashMap<(Arc<str>, &'static str), Group>>,
    /// How many there are, for whoever need not look.
    count: AtomicUsize,
}

/// Those of one kind in one namespace.
#[derive(Default)]
struct Group {
    /// Why each of them waits.
    why: FxHashMap<ObjectKey, String>,
    /// The view's revision at which they were roused last.
    roused_at: Option<i64>,
}

impl Waiters {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Somebody waits. Whether nobody knew that, or for what.
    pub(super) fn add(&self, kind: &'static str, key: &ObjectKey, why: &str) -> bool {
        let mut groups = self.groups.lock();
        let group = groups.entry((key.namespace.clone(), kind)).or_default();
        let before = group.why.insert(key.clone(), why.to_owned());
        if before.is_none() {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        before.as_deref() != Some(why)
    }

    /// Somebody waits no more.
    pub(super) fn remove(&self, kind: &'static str, key: &ObjectKey) {
        if self.is_empty() {
            return;
        }
        let mut groups = self.groups.lock();
        let id = (key.namespace.clone(), kind);
        let Some(group) = groups.get_mut(&id) else {
            return;
        };
        if group.why.remove(key).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        if group.why.is_empty() {
            groups.remove(&id);
        }
    }

    /// Those of kind `K` in a namespace who are to look again, once per revision of the view: whoever has looked at that
    /// has seen all changes up to it, however many there were. Those that exist no more are forgotten.
    pub(super) fn rouse<K: Kind>(&self, namespace: &Arc<str>, view: &View<'_>) -> Vec<ObjectKey> {
        let mut groups = self.groups.lock();
        let id = (namespace.clone(), K::KIND);
        let Some(group) = groups.get_mut(&id) else {
            return Vec::new();
        };
        let now = Some(view.revision().0);
        if std::mem::replace(&mut group.roused_at, now) == now {
            return Vec::new();
        }
        let before = group.why.len();
        group.why.retain(|key, _| view.desired::<K>().contains(key));
        let gone = before - group.why.len();
        self.count.fetch_sub(gone, Ordering::Relaxed);
        if group.why.is_empty() {
            groups.remove(&id);
            return Vec::new();
        }
        group.why.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use setpoint_apis::apps::ReplicaSet;
    use setpoint_apis::batch::Job;

    use super::*;
    use crate::led::Led;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::namespaced("x", name)
    }

    #[test]
    fn when_nobody_waits_any_more_nothing_is_left_of_a_namespace() {
        let waiters = Waiters::default();
        for name in ["a", "b"] {
            assert!(waiters.add(Job::KIND, &key(name), "no"));
        }
        assert!(!waiters.add(Job::KIND, &key("a"), "no"), "known");
        assert!(waiters.add(Job::KIND, &key("a"), "not so many"), "news");
        for name in ["a", "c", "b"] {
            assert!(!waiters.is_empty());
            waiters.remove(Job::KIND, &key(name));
        }
        assert!(waiters.is_empty() && waiters.groups.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_are_roused_once_per_revision_whatever_has_changed_by_then() {
        let led = Led::start().await;
        let text =
            "apiVersion: apps/v1\nkind: ReplicaSet\nspec: {selector: {matchLabels: {a: b}}}\n";
        let waiters = Waiters::default();
        for name in ["a", "b"] {
            led.put_desired::<ReplicaSet>(&key(name), text).await;
            waiters.add(ReplicaSet::KIND, &key(name), "no");
        }
        let namespace: Arc<str> = "x".into();
        let roused = || {
            let view = led.leader.cache().view();
            let mut keys = waiters.rouse::<ReplicaSet>(&namespace, &view);
            keys.sort();
            keys
        };
        assert_eq!(roused(), [key("a"), key("b")]);
        assert!(roused().is_empty(), "they have been, by this revision");
        let other = waiters.rouse::<Job>(&namespace, &led.leader.cache().view());
        assert!(other.is_empty(), "of another kind nobody waits");
        for (gone, left) in [("a", vec![key("b")]), ("b", vec![])] {
            led.delete_desired::<ReplicaSet>(&key(gone)).await;
            assert_eq!(roused(), left);
        }
        assert!(waiters.is_empty() && waiters.groups.lock().is_empty());
    }
}

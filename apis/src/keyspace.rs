//! The keyspace: the only place that builds or splits etcd keys.
//!
//! Names follow Kubernetes' rules, so they never hold a `/` and keys split without escaping. The four state trees
//! (`actual`, `bindings`, `deletions`, `desired`) are neighbours in etcd's byte order, so one watch follows all of them.

use std::fmt;

use crate::meta::ObjectKey;

/// Builds and splits keys under one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyspace {
    prefix: String,
}

/// A half-open range of keys, `[start, end)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first key.
    pub start: String,
    /// The first key past the range.
    pub end: String,
}

impl KeyRange {
    /// All keys that begin with `prefix`. `prefix` must end in an ASCII byte, which every tree does.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        let start = prefix.into();
        let mut end = start.clone();
        let last = end.pop().expect("a key prefix is never empty");
        end.push((last as u8 + 1) as char);
        Self { start, end }
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &str) -> bool {
        self.start.as_str() <= key && key < self.end.as_str()
    }
}

/// The name under `meta/` of the mark that commands leave in a namespace when they create something that its quotas
/// count: controllers that create there guard on it, and neither exceeds what the other has used up.
pub fn admissions(namespace: &str) -> String {
    format!("admissions.{namespace}")
}

/// A uid as a part of a key, and as the name of a file: one that would not do as it is, is spelt in hexadecimal.
pub fn uid_name(uid: &str) -> String {
    let plain = !uid.is_empty()
        && uid.len() <= 64
        && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if plain {
        uid.to_owned()
    } else {
        let hex: String = uid.bytes().take(60).map(|b| format!("{b:02x}")).collect();
        format!("x{hex}")
    }
}

/// What a key names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key<'a> {
    /// What is wanted of one object.
    Desired(&'a str, ObjectKey),
    /// The status of one object of any kind but Node, written by the controller of the kind (for pods: the scheduler).
    Actual(&'a str, ObjectKey),
    /// A node's detection lease; its create revision is the node's session.
    NodeAlive(&'a str),
    /// A node's fence lease.
    NodeFence(&'a str),
    /// A node's capacity, conditions and usage, written by its agent.
    NodeStatus(&'a str),
    /// The claim and status of a pod on a node.
    NodePod(&'a str, ObjectKey),
    /// What the control plane concludes about a node.
    Health(&'a str),
    /// Where a pod is.
    Binding(ObjectKey),
    /// How an object is to be deleted.
    Deletion(&'a str, ObjectKey),
    /// An event: the namespace and the id. The writer is the node for events of agents.
    Event {
        /// The node whose agent wrote it; `None` for controllers.
        node: Option<&'a str>,
        /// The namespace of the object it is about; `default` for cluster-scoped objects, as in Kubernetes.
        namespace: &'a str,
        /// Unique within its writer.
        id: &'a str,
    },
    /// What every agent may read.
    Fleet(&'a str),
    /// A request to the scheduler: verb, pod, who asks.
    Intent {
        /// `evict`, `move` or `release`.
        verb: &'a str,
        /// The pod.
        pod: ObjectKey,
        /// Who asks.
        by: &'a str,
    },
    /// An election key: controller and shard.
    Leader(&'a str, Option<&'a str>),
    /// A member of a controller's replica set.
    Member(&'a str, &'a str),
    /// Schema version, cluster id, the record of times.
    Meta(&'a str),
    /// The pod as its node must run it.
    WorkPod(&'a str, ObjectKey),
    /// In how many seconds its node is to stop a pod that is withdrawn.
    WorkStop(&'a str, ObjectKey),
    /// A ConfigMap, Secret or volume claim that pods of the node use: node, plural, object.
    WorkContent(&'a str, &'a str, ObjectKey),
    /// That a volume claim is gone whose directory the node has: node, [`uid_name`] of the claim's uid.
    WorkTombstone(&'a str, &'a str),
}

/// A key that is not one of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key {key:?} is not part of the keyspace under {prefix:?}")]
pub struct UnknownKey {
    /// The key.
    pub key: String,
    /// The prefix it was split under.
    pub prefix: String,
}

/// A prefix that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "prefix {0:?} must begin with '/', must not end with one, and has only letters, digits, '-', '_', '.' and '/'"
)]
pub struct BadPrefix(pub String);

impl Default for Keyspace {
    fn default() -> Self {
        Self {
            prefix: "/setpoint".into(),
        }
    }
}

impl Keyspace {
    /// Keys under `prefix`, which begins with `/` and does not end with one.
    ///
    /// # Errors
    /// [`BadPrefix`] when it has another form.
    pub fn new(prefix: &str) -> Result<Self, BadPrefix> {
        let ok = prefix.len() > 1
            && prefix.starts_with('/')
            && !prefix.ends_with('/')
            && !prefix.contains("//")
            && prefix
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
        if ok {
            Ok(Self {
                prefix: prefix.into(),
            })
        } else {
            Err(BadPrefix(prefix.into()))
        }
    }

    /// The prefix.
    pub fn as_str(&self) -> &str {
        &self.prefix
    }

    /// Everything under the prefix.
    pub fn all(&self) -> KeyRange {
        self.tree("")
    }

    /// The four state trees: `actual`, `bindings`, `deletions`, `desired`.
    pub fn state(&self) -> KeyRange {
        KeyRange {
            start: self.tree("actual/").start,
            end: self.tree("desired/").end,
        }
    }

    /// The desired documents of all kinds.
    pub fn all_desired(&self) -> KeyRange {
        self.tree("desired/")
    }

    /// The desired documents of one kind, in one namespace when one is given.
    pub fn desired_range(&self, plural: &str, namespace: Option<&str>) -> KeyRange {
        self.kind_range("desired", plural, namespace)
    }

    /// The statuses of one kind, in one namespace when one is given.
    pub fn actual_range(&self, plural: &str, namespace: Option<&str>) -> KeyRange {
        self.kind_range("actual", plural, namespace)
    }

    /// The bindings, in one namespace when one is given.
    pub fn binding_range(&self, namespace: Option<&str>) -> KeyRange {
        match namespace {
            Some(ns) => self.tree(&format!("bindings/{ns}/")),
            None => self.tree("bindings/"),
        }
    }

    /// The deletion records.
    pub fn deletion_range(&self) -> KeyRange {
        self.tree("deletions/")
    }

    /// All that agents report, of one node when one is given.
    pub fn node_actual_range(&self, node: Option<&str>) -> KeyRange {
        match node {
            Some(n) => self.tree(&format!("actual/nodes/{n}/")),
            None => self.tree("actual/nodes/"),
        }
    }

    /// What the control plane concludes about nodes.
    pub fn health_range(&self) -> KeyRange {
        self.tree("actual/health/")
    }

    /// The work of one node, or of all.
    pub fn work_range(&self, node: Option<&str>) -> KeyRange {
        match node {
            Some(n) => self.tree(&format!("work/{n}/")),
            None => self.tree("work/"),
        }
    }

    /// What every agent may read.
    pub fn fleet_range(&self) -> KeyRange {
        self.tree("fleet/")
    }

    /// The requests to the scheduler, of one verb when one is given.
    pub fn intent_range(&self, verb: Option<&str>) -> KeyRange {
        match verb {
            Some(v) => self.tree(&format!("intents/{v}/")),
            None => self.tree("intents/"),
        }
    }

    /// All events.
    pub fn all_events(&self) -> KeyRange {
        self.tree("events/")
    }

    /// The events that controllers wrote about objects of one namespace. Agents' are under [`Keyspace::node_events`].
    pub fn event_range(&self, namespace: &str) -> KeyRange {
        self.tree(&format!("events/{namespace}/"))
    }

    /// The events that agents wrote, of one node when one is given.
    pub fn node_events(&self, node: Option<&str>) -> KeyRange {
        match node {
            Some(n) => self.tree(&format!("events/{NODE_EVENTS}/{n}/")),
            None => self.tree(&format!("events/{NODE_EVENTS}/")),
        }
    }

    /// The election keys.
    pub fn leader_range(&self) -> KeyRange {
        self.tree("leaders/")
    }

    fn kind_range(&self, tree: &str, plural: &str, namespace: Option<&str>) -> KeyRange {
        match namespace {
            Some(ns) => self.tree(&format!("{tree}/{plural}/{ns}/")),
            None => self.tree(&format!("{tree}/{plural}/")),
        }
    }

    fn tree(&self, tree: &str) -> KeyRange {
        KeyRange::prefix(format!("{}/{tree}", self.prefix))
    }

    /// Builds the key that `key` names.
    pub fn build(&self, key: &Key<'_>) -> String {
        let p = &self.prefix;
        match key {
            Key::Desired(plural, k) => format!("{p}/desired/{plural}/{k}"),
            Key::Actual(plural, k) => format!("{p}/actual/{plural}/{k}"),
            Key::NodeAlive(n) => format!("{p}/actual/nodes/{n}/alive"),
            Key::NodeFence(n) => format!("{p}/actual/nodes/{n}/fence"),
            Key::NodeStatus(n) => format!("{p}/actual/nodes/{n}/status"),
            Key::NodePod(n, k) => format!("{p}/actual/nodes/{n}/pods/{k}"),
            Key::Health(n) => format!("{p}/actual/health/{n}"),
            Key::Binding(k) => format!("{p}/bindings/{k}"),
            Key::Deletion(plural, k) => format!("{p}/deletions/{plural}/{k}"),
            Key::Event {
                node: Some(n),
                namespace,
                id,
            } => format!("{p}/events/{NODE_EVENTS}/{n}/{namespace}/{id}"),
            Key::Event {
                node: None,
                namespace,
                id,
            } => format!("{p}/events/{namespace}/{id}"),
            Key::Fleet(rest) => format!("{p}/fleet/{rest}"),
            Key::Intent { verb, pod, by } => format!("{p}/intents/{verb}/{pod}/{by}"),
            Key::Leader(c, None) => format!("{p}/leaders/{c}"),
            Key::Leader(c, Some(shard)) => format!("{p}/leaders/{c}/{shard}"),
            Key::Member(c, instance) => format!("{p}/members/{c}/{instance}"),
            Key::Meta(name) => format!("{p}/meta/{name}"),
            Key::WorkPod(n, k) => format!("{p}/work/{n}/pods/{k}"),
            Key::WorkStop(n, k) => format!("{p}/work/{n}/stops/{k}"),
            Key::WorkContent(n, plural, k) => format!("{p}/work/{n}/content/{plural}/{k}"),
            Key::WorkTombstone(n, uid) => format!("{p}/work/{n}/tombstones/{uid}"),
        }
    }

    /// Splits a key.
    ///
    /// # Errors
    /// [`UnknownKey`] when it is not one of ours: anybody may write anything into etcd.
    pub fn split<'a>(&self, key: &'a str) -> Result<Key<'a>, UnknownKey> {
        key.strip_prefix(self.prefix.as_str())
            .and_then(|rest| rest.strip_prefix('/'))
            .and_then(split)
            .ok_or_else(|| UnknownKey {
                key: key.into(),
                prefix: self.prefix.clone(),
            })
    }
}

/// No namespace has this name, because names do not hold an underscore.
const NODE_EVENTS: &str = "_nodes";

fn split(rest: &str) -> Option<Key<'_>> {
    let mut parts = rest.split('/');
    let mut segments = [""; 6];
    let mut n = 0;
    for part in parts.by_ref() {
        if part.is_empty() || n == segments.len() {
            return None;
        }
        segments[n] = part;
        n += 1;
    }
    let object = |s: &[&str]| match s {
        [name] => Some(ObjectKey::cluster(*name)),
        [ns, name] => Some(ObjectKey::namespaced(*ns, *name)),
        _ => None,
    };
    let s = &segments[..n];
    Some(match s {
        ["actual", "nodes", node, "alive"] => Key::NodeAlive(node),
        ["actual", "nodes", node, "fence"] => Key::NodeFence(node),
        ["actual", "nodes", node, "status"] => Key::NodeStatus(node),
        ["actual", "nodes", node, "pods", ns, name] => {
            Key::NodePod(node, ObjectKey::namespaced(*ns, *name))
        }
        ["actual", "nodes", ..] => return None,
        ["actual", "health", node] => Key::Health(node),
        ["actual", "health", ..] => return None,
        ["actual", plural, k @ ..] => Key::Actual(plural, object(k)?),
        ["bindings", ns, name] => Key::Binding(ObjectKey::namespaced(*ns, *name)),
        ["deletions", plural, k @ ..] => Key::Deletion(plural, object(k)?),
        ["desired", plural, k @ ..] => Key::Desired(plural, object(k)?),
        ["events", NODE_EVENTS, node, namespace, id] => Key::Event {
            node: Some(node),
            namespace,
            id,
        },
        ["events", NODE_EVENTS, ..] => return None,
        ["events", namespace, id] => Key::Event {
            node: None,
            namespace,
            id,
        },
        ["fleet", ..] => Key::Fleet(&rest["fleet/".len()..]),
        ["intents", verb, ns, name, by] => Key::Intent {
            verb,
            pod: ObjectKey::namespaced(*ns, *name),
            by,
        },
        ["leaders", c] => Key::Leader(c, None),
        ["leaders", c, shard] => Key::Leader(c, Some(shard)),
        ["members", c, instance] => Key::Member(c, instance),
        ["meta", name] => Key::Meta(name),
        ["work", node, "pods", ns, name] => Key::WorkPod(node, ObjectKey::namespaced(*ns, *name)),
        ["work", node, "stops", ns, name] => Key::WorkStop(node, ObjectKey::namespaced(*ns, *name)),
        ["work", node, "content", plural, ns, name] => {
            Key::WorkContent(node, plural, ObjectKey::namespaced(*ns, *name))
        }
        ["work", node, "tombstones", uid] => Key::WorkTombstone(node, uid),
        _ => return None,
    })
}

impl fmt::Display for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> ObjectKey {
        ObjectKey::namespaced("default", "web-0")
    }

    #[test]
    fn every_key_splits_into_what_built_it() {
        let ks = Keyspace::new("/team/a").unwrap();
        for key in [
            Key::Desired("pods", pod()),
            Key::Desired("nodes", ObjectKey::cluster("n1")),
            Key::Actual("deployments", pod()),
            Key::Actual("namespaces", ObjectKey::cluster("default")),
            Key::NodeAlive("n1"),
            Key::NodeFence("n1"),
            Key::NodeStatus("n1"),
            Key::NodePod("n1", pod()),
            Key::Health("n1"),
            Key::Binding(pod()),
            Key::Deletion("deployments", pod()),
            Key::Event {
                node: None,
                namespace: "default",
                id: "x.1",
            },
            Key::Event {
                node: Some("n1"),
                namespace: "default",
                id: "x.1",
            },
            Key::Fleet("routes/n1"),
            Key::Intent {
                verb: "release",
                pod: pod(),
                by: "failover",
            },
            Key::Leader("scheduler", None),
            Key::Leader("services", Some("3")),
            Key::Member("services", "a"),
            Key::Meta("schema"),
            Key::Meta("admissions.team"),
            Key::WorkPod("n1", pod()),
            Key::WorkStop("n1", pod()),
            Key::WorkContent("n1", "secrets", pod()),
            Key::WorkTombstone("n1", &uid_name("../5e79")),
        ] {
            let built = ks.build(&key);
            assert_eq!(ks.split(&built), Ok(key), "{built}");
            assert!(ks.all().contains(&built));
        }
    }

    #[test]
    fn state_trees_are_one_range_and_the_others_lie_outside() {
        let ks = Keyspace::default();
        let state = ks.state();
        for inside in [
            Key::Actual("pods", pod()),
            Key::Binding(pod()),
            Key::Deletion("pods", pod()),
            Key::Desired("pods", pod()),
        ] {
            assert!(state.contains(&ks.build(&inside)));
        }
        for outside in [
            Key::Event {
                node: None,
                namespace: "a",
                id: "b",
            },
            Key::Fleet("x"),
            Key::Intent {
                verb: "evict",
                pod: pod(),
                by: "x",
            },
            Key::Leader("x", None),
            Key::WorkPod("n", pod()),
        ] {
            assert!(!state.contains(&ks.build(&outside)));
        }
    }

    #[test]
    fn foreign_keys_are_refused_without_a_panic() {
        let ks = Keyspace::default();
        for key in [
            "",
            "/",
            "/setpoint",
            "/setpoint/",
            "/setpointx/desired/pods/a/b",
            "/setpoint/desired/pods",
            "/setpoint/desired//a/b",
            "/setpoint/desired/pods/a/b/c",
            "/setpoint/actual/nodes/n1",
            "/setpoint/work/n1/pods/a",
            "/setpoint/a/b/c/d/e/f/g/h",
        ] {
            assert!(ks.split(key).is_err(), "{key}");
        }
    }

    #[test]
    fn prefixes_are_checked() {
        for bad in ["", "/", "setpoint", "/a/", "/a//b", "/a b"] {
            assert!(Keyspace::new(bad).is_err(), "{bad}");
        }
    }
}

//! From the cache's view to what the decisions look at.

use std::sync::Arc;

use setpoint_apis::apps::{Deployment, ReplicaSet, StatefulSet};
use setpoint_apis::autoscaling::HorizontalPodAutoscaler;
use setpoint_apis::core::{Namespace, Node, PersistentVolumeClaim, Pod, ResourceQuota};
use setpoint_apis::placement::{PodGroup, Reservation, SchedulerProfile};
use setpoint_apis::policy::PodDisruptionBudget;
use setpoint_apis::records::Binding;
use setpoint_apis::resolve::PodHealth;
use setpoint_apis::scheduling::PriorityClass;
use setpoint_apis::time::Timestamp;
use setpoint_apis::{Kind, ObjectKey};
use setpoint_runtime::{Entry, StateKey, Stored, View};
use setpoint_scheduler_core::NodeFacts;

use crate::decide::{Broken, Facts, IntentFacts, Other, Report, Seen, Session, WorkCopy, belongs};

/// What a change is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Pod(ObjectKey),
    Node(Arc<str>),
    /// The session of a node, which is also about the node.
    Session(Arc<str>),
    /// The fence lease of a node: pods wait for it to end.
    Fence(Arc<str>),
    Source(crate::content::Source),
    Namespace(Arc<str>),
    PriorityClass(Arc<str>),
    Profile(Arc<str>),
    Quota(ObjectKey),
    Budget(ObjectKey),
    Group(ObjectKey),
    Reservation(ObjectKey),
    /// A volume claim, or where it is.
    Claim(ObjectKey),
    /// A workload that says how many pods it wants, or whether that is followed: plural and key.
    Workload(&'static str, ObjectKey),
    /// Which workload an autoscaler is about.
    Autoscaler(ObjectKey),
    /// What an autoscaler has decided.
    Autoscaled(ObjectKey),
}

/// Whether a change matters here, and to what.
pub(crate) fn subject(key: &StateKey) -> Option<Subject> {
    Some(match key {
        StateKey::Desired(Pod::PLURAL, key)
        | StateKey::Binding(key)
        | StateKey::NodePod(_, key) => Subject::Pod(key.clone()),
        StateKey::Desired(Node::PLURAL, key) => Subject::Node(key.name.clone()),
        StateKey::NodeAlive(node) => Subject::Session(node.clone()),
        StateKey::NodeStatus(node) | StateKey::Health(node) => Subject::Node(node.clone()),
        StateKey::NodeFence(node) => Subject::Fence(node.clone()),
        StateKey::Desired(Namespace::PLURAL, key) => Subject::Namespace(key.name.clone()),
        StateKey::Desired(PriorityClass::PLURAL, key) => Subject::PriorityClass(key.name.clone()),
        StateKey::Desired(SchedulerProfile::PLURAL, key) => Subject::Profile(key.name.clone()),
        StateKey::Desired(ResourceQuota::PLURAL, key) => Subject::Quota(key.clone()),
        StateKey::Desired(PodDisruptionBudget::PLURAL, key) => Subject::Budget(key.clone()),
        StateKey::Desired(PodGroup::PLURAL, key) => Subject::Group(key.clone()),
        StateKey::Desired(Reservation::PLURAL, key) => Subject::Reservation(key.clone()),
        StateKey::Desired(PersistentVolumeClaim::PLURAL, key)
        | StateKey::Actual(PersistentVolumeClaim::PLURAL, key) => Subject::Claim(key.clone()),
        StateKey::Desired(Deployment::PLURAL, key) | StateKey::Actual(Deployment::PLURAL, key) => {
            Subject::Workload(Deployment::PLURAL, key.clone())
        }
        StateKey::Desired(ReplicaSet::PLURAL, key) | StateKey::Actual(ReplicaSet::PLURAL, key) => {
            Subject::Workload(ReplicaSet::PLURAL, key.clone())
        }
        StateKey::Desired(StatefulSet::PLURAL, key)
        | StateKey::Actual(StatefulSet::PLURAL, key) => {
            Subject::Workload(StatefulSet::PLURAL, key.clone())
        }
        StateKey::Desired(HorizontalPodAutoscaler::PLURAL, key) => Subject::Autoscaler(key.clone()),
        StateKey::Actual(HorizontalPodAutoscaler::PLURAL, key) => Subject::Autoscaled(key.clone()),
        StateKey::Desired(plural, key) => Subject::Source(crate::content::Source::of(plural, key)?),
        StateKey::Actual(..) | StateKey::Deletion(..) => return None,
    })
}

/// Everything that the cache and the account know of a pod.
pub(crate) fn facts<'a>(
    view: &'a View<'_>,
    key: &ObjectKey,
    broken: Option<&'a Broken<'a>>,
    work: &'a [WorkCopy],
    recorded: Option<u32>,
    intents: &'a [IntentFacts],
    now: Timestamp,
) -> Facts<'a> {
    let binding = Seen::from(view.bindings().entry(key));
    let (mut actual, mut session, mut fenced) = (Seen::Absent, Session::Absent, false);
    let mut other = None;
    if let Seen::Valid(bound) = binding {
        let node = &bound.value.node;
        actual = Seen::from(view.pod_on(node, key));
        session = node_session(view, node);
        fenced = view.fence_stands(node);
        other = bound.value.other_node().map(|node| Other {
            actual: Seen::from(view.pod_on(node, key)),
            session: node_session(view, node),
            ready_seen: None,
        });
    }
    Facts {
        desired: Seen::from(view.desired::<Pod>().entry(key)),
        binding,
        broken,
        actual,
        session,
        fenced,
        other,
        now,
        work,
        recorded,
        intents,
        leave: None,
        may_evict: true,
    }
}

/// What there is to know of a pod whose binding does not parse; `None` when it does.
pub(crate) fn broken<'a>(view: &'a View<'_>, key: &ObjectKey) -> Option<Broken<'a>> {
    let entry = view.bindings().entry(key)?;
    let invalid = entry.invalid()?;
    let session = |node: &Arc<str>| match node_session(view, node) {
        Session::Alive(session) => session,
        _ => last_good(view.health().entry(&ObjectKey::cluster(node.clone())))
            .map_or(0, |health| health.value.session),
    };
    let mut reports: Vec<_> = view
        .nodes_with_pods()
        .filter_map(|node| {
            Some(Report {
                node: node.clone(),
                session: session(node),
                actual: Seen::from(Some(view.pod_on(node, key)?)),
            })
        })
        .collect();
    reports.sort_by(|a, b| a.node.cmp(&b.node));
    Some(Broken {
        mod_revision: invalid.mod_revision,
        message: &invalid.message,
        last_good: entry.last_good().map(|b| &b.value),
        reports,
    })
}

pub(crate) fn node_session(view: &View<'_>, node: &str) -> Session {
    match view.node_alive().entry(&ObjectKey::cluster(node)) {
        None => Session::Absent,
        Some(entry) => entry
            .last_good()
            .map_or(Session::Unreadable, |s| Session::Alive(s.create_revision)),
    }
}

/// Whether anything says that a node exists.
pub(crate) fn node_exists(view: &View<'_>, name: &str) -> bool {
    let key = ObjectKey::cluster(name);
    view.desired::<Node>().contains(&key)
        || view.node_status().contains(&key)
        || view.health().contains(&key)
        || view.node_alive().contains(&key)
}

/// What the core is told of a node; `None` when nothing says that it exists.
pub(crate) fn node_facts(view: &View<'_>, name: &Arc<str>) -> Option<NodeFacts> {
    let key = ObjectKey::cluster(name.clone());
    let desired = view.desired::<Node>().entry(&key);
    let status = view.node_status().entry(&key);
    let health = view.health().entry(&key);
    let session = node_session(view, name);
    if !node_exists(view, name) {
        return None;
    }
    let unreadable = never_good(desired)
        || never_good(status)
        || never_good(health)
        || session == Session::Unreadable;
    Some(NodeFacts::stored(
        name,
        last_good(desired).map(|s| &s.value),
        last_good(status).map(|s| &s.value),
        last_good(health).map(|s| &s.value),
        match session {
            Session::Alive(session) => Some(session),
            _ => None,
        },
        unreadable,
    ))
}

/// How a pod that is wanted is, as disruption budgets see it; `None` when it has ended.
pub(crate) fn health(view: &View<'_>, key: &ObjectKey, pod: &Stored<Pod>) -> Option<PodHealth> {
    let binding = binding(view, key)
        .map(|b| &b.value)
        .filter(|b| b.withdrawn.is_none() && belongs(pod, b));
    let Some(binding) = binding else {
        return Some(PodHealth::Idle);
    };
    let Some(entry) = view.pod_on(&binding.node, key) else {
        return Some(PodHealth::Idle);
    };
    let Some(actual) = entry.last_good() else {
        return Some(PodHealth::Unready);
    };
    let alive = matches!(node_session(view, &binding.node), Session::Alive(_));
    PodHealth::reported(Some(&actual.value), alive)
}

/// The binding and the document that count for the use of resources: the last good ones.
pub(crate) fn last_good<T>(entry: Option<&Entry<T>>) -> Option<&Arc<Stored<T>>> {
    entry.and_then(Entry::last_good)
}

fn never_good<T>(entry: Option<&Entry<T>>) -> bool {
    entry.is_some_and(|e| e.last_good().is_none())
}

/// The binding of a pod, the last good one.
pub(crate) fn binding<'a>(view: &'a View<'_>, key: &ObjectKey) -> Option<&'a Arc<Stored<Binding>>> {
    last_good(view.bindings().entry(key))
}

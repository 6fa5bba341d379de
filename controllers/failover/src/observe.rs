//! From the cache and the account to the facts that are decided on.

use std::sync::Arc;

use setpoint_apis::ObjectKey;
use setpoint_apis::core::Pod;
use setpoint_apis::records::{Binding, PodActual, PodStage};
use setpoint_runtime::cache::{Entry, Stored, View};
use setpoint_runtime::{Changes, StateKey};

use crate::account::Account;
use crate::decide::{
    BindingFacts, Desired, Health, NodeFacts, PARTITION_POLICY, PartitionPolicy, PodFacts,
    Snapshot, Stage,
};

/// What matters: nodes without a session, their pods, and what own requests are about. While all nodes are there and
/// nothing is requested, it is empty, and no binding is looked at.
pub(crate) fn snapshot(view: &View<'_>, account: &Account) -> Snapshot {
    let mut snapshot = Snapshot {
        requested: account.requests().clone(),
        ..Snapshot::default()
    };
    let silent = view
        .health()
        .entries()
        .any(|(node, _)| !view.node_alive().contains(node));
    if !silent && snapshot.requested.is_empty() {
        return snapshot;
    }
    // All of them: a node that is silent and not yet concluded about holds the others back, with or without pods.
    for (node, entry) in view.health().entries() {
        let alive = view.node_alive().contains(node);
        if !alive {
            snapshot
                .nodes
                .insert(node.name.clone(), node_facts(view, node, Some(entry)));
        }
    }
    for (pod, entry) in view.bindings().entries() {
        let requested = snapshot.requested.contains_key(pod);
        let Some(binding) = entry.valid() else {
            snapshot.unreadable_bindings |= silent;
            if requested {
                // Frozen: neither carried out nor to be taken back.
                snapshot.requested.remove(pod);
            }
            continue;
        };
        let node = ObjectKey::cluster(binding.value.node.as_str());
        if !snapshot.nodes.contains_key(&node.name) {
            if view.node_alive().contains(&node) && !requested {
                continue;
            }
            snapshot.nodes.insert(
                node.name.clone(),
                node_facts(view, &node, view.health().entry(&node)),
            );
        }
        snapshot
            .pods
            .insert(pod.clone(), pod_facts(view, pod, binding));
    }
    let gone: Vec<_> = snapshot
        .requested
        .keys()
        .filter(|pod| !snapshot.pods.contains_key(*pod))
        .cloned()
        .collect();
    snapshot
        .pods
        .extend(gone.into_iter().map(|pod| (pod, PodFacts::default())));
    snapshot
}

/// Whether what has changed concerns no node that is silent.
pub(crate) fn is_quiet(view: &View<'_>, changes: &Changes) -> bool {
    let silent = |node: &Arc<str>| {
        let node = ObjectKey::cluster(node.clone());
        view.health().contains(&node) && !view.node_alive().contains(&node)
    };
    !changes.resync
        && changes.keys.iter().all(|key| match key {
            StateKey::NodeAlive(node) | StateKey::Health(node) => !silent(node),
            _ => false,
        })
}

fn node_facts(
    view: &View<'_>,
    node: &ObjectKey,
    health: Option<&Entry<setpoint_apis::records::NodeHealth>>,
) -> NodeFacts {
    NodeFacts {
        alive: view.node_alive().contains(node),
        fenced: view.fence_stands(&node.name),
        health: health.and_then(Entry::valid).map(|stored| Health {
            state: stored.value.state,
            revision: stored.mod_revision,
        }),
    }
}

fn pod_facts(view: &View<'_>, pod: &ObjectKey, binding: &Stored<Binding>) -> PodFacts {
    let actual = view.pod_on(&binding.value.node, pod);
    PodFacts {
        binding: Some(BindingFacts {
            node: binding.value.node.as_str().into(),
            session: binding.value.session,
            revision: binding.mod_revision,
            withdrawn: binding.value.withdrawn.is_some(),
        }),
        desired: match view.desired::<Pod>().entry(pod) {
            None => former(&binding.value),
            Some(entry) => match entry.valid() {
                None => Desired::Unreadable,
                Some(stored) => match wanted(&stored.value) {
                    // The binding is that of a former pod of the same name, which is to go; unless the new one must not
                    // run beside it.
                    Desired::Wanted { policy, .. }
                        if policy != PartitionPolicy::Stop
                            && stored.create_revision > binding.value.pod_revision =>
                    {
                        former(&binding.value)
                    }
                    wanted => wanted,
                },
            },
        },
        stage: match actual {
            None => Stage::Unfinished,
            Some(entry) => entry
                .valid()
                .map_or(Stage::Unreadable, |stored| stage(&stored.value)),
        },
        claimed_unfenced: actual
            .and_then(Entry::valid)
            .is_some_and(|stored| stored.value.fence.is_none()),
    }
}

/// What is known of a pod whose document is gone.
fn former(binding: &Binding) -> Desired {
    if binding.never_twice {
        Desired::Wanted {
            priority: 0,
            policy: PartitionPolicy::Stop,
        }
    } else {
        Desired::Absent
    }
}

fn wanted(pod: &Pod) -> Desired {
    let policy = PartitionPolicy::parse(
        pod.metadata
            .annotations
            .get(PARTITION_POLICY)
            .map(String::as_str),
    );
    Desired::Wanted {
        priority: pod.spec.priority.unwrap_or(0),
        policy,
    }
}

fn stage(actual: &PodActual) -> Stage {
    match actual.stage {
        PodStage::Succeeded | PodStage::Failed => Stage::Finished,
        PodStage::Starting | PodStage::Running | PodStage::Stopping => Stage::Unfinished,
    }
}

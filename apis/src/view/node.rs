//! A Node as users, the scheduler and controllers see it.

use std::collections::BTreeMap;

use crate::core::{
    Node, NodeAddress, NodeCondition, NodeImage, NodeStatus, NodeSystemInfo, ResourceList, Taint,
    TaintEffect,
};
use crate::records::{NodeHealth, NodeState, NodeStatusRecord};

/// The taint that `spec.unschedulable` stands for.
pub const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

/// The merge of what users want of a node, what its agent reports, and what the control plane concludes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeView {
    /// The node's name.
    pub name: String,
    /// Labels: the agent's, and over them the users'.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the users.
    pub annotations: BTreeMap<String, String>,
    /// Taints of users, agent and control plane, and the one that stands for `unschedulable`.
    pub taints: Vec<Taint>,
    /// Whether users keep new pods away.
    pub unschedulable: bool,
    /// What the machine has.
    pub capacity: ResourceList,
    /// What pods may request.
    pub allocatable: ResourceList,
    /// What is used, coarsely.
    pub usage: ResourceList,
    /// Whether pods may be placed and run: the session is alive, the control plane agrees, the agent does not object.
    pub ready: bool,
    /// What the control plane concludes; `Ready` until it has concluded anything.
    pub state: NodeState,
    /// The session, while it is alive: the create revision of the node's `alive` key.
    pub session: Option<i64>,
    /// The drivers that run containers there, in order of preference.
    pub drivers: Vec<String>,
    /// `Ready` first, then what the agent reports.
    pub conditions: Vec<NodeCondition>,
    /// Addresses.
    pub addresses: Vec<NodeAddress>,
    /// Versions and identity of the machine.
    pub node_info: NodeSystemInfo,
    /// The images that are there.
    pub images: Vec<NodeImage>,
    /// Where the agent serves logs.
    pub endpoint: Option<String>,
    /// The agent's data directory.
    pub data_dir: Option<String>,
}

impl NodeView {
    /// Merges what there is. `session` is the create revision of the node's `alive` key while that key exists.
    pub fn new(
        name: &str,
        desired: Option<&Node>,
        status: Option<&NodeStatusRecord>,
        health: Option<&NodeHealth>,
        session: Option<i64>,
    ) -> Self {
        let mut view = Self {
            name: name.into(),
            session,
            ..Self::default()
        };
        if let Some(s) = status {
            view.labels.clone_from(&s.labels);
            view.taints.clone_from(&s.taints);
            view.capacity.clone_from(&s.capacity);
            view.allocatable.clone_from(&s.allocatable);
            view.usage.clone_from(&s.usage);
            view.drivers.clone_from(&s.drivers);
            view.addresses.clone_from(&s.addresses);
            view.node_info.clone_from(&s.node_info);
            view.images.clone_from(&s.images);
            view.endpoint.clone_from(&s.endpoint);
            view.data_dir.clone_from(&s.data_dir);
        }
        view.labels
            .entry("kubernetes.io/hostname".into())
            .or_insert_with(|| name.into());
        if let Some(d) = desired {
            view.labels.extend(
                d.metadata
                    .labels
                    .iter()
                    .map(|(k, v)| (k.clone(), v.clone())),
            );
            view.annotations.clone_from(&d.metadata.annotations);
            view.unschedulable = d.spec.unschedulable == Some(true);
            add_taints(&mut view.taints, &d.spec.taints);
        }
        if view.unschedulable {
            let taint = Taint {
                key: UNSCHEDULABLE_TAINT.into(),
                value: None,
                effect: TaintEffect::NoSchedule,
                time_added: None,
            };
            add_taints(&mut view.taints, &[taint]);
        }
        if let Some(h) = health {
            view.state = h.state;
            add_taints(&mut view.taints, &h.taints);
        }
        let ready = ready_condition(status, health, session);
        view.ready = ready.status == "True";
        view.conditions.push(ready);
        let reported = status.iter().flat_map(|s| &s.conditions);
        view.conditions
            .extend(reported.filter(|c| c.type_ != "Ready").cloned());
        view
    }

    /// The taints that keep away pods that do not tolerate them: all but `PreferNoSchedule`.
    pub fn repelling_taints(&self) -> impl Iterator<Item = &Taint> {
        self.taints
            .iter()
            .filter(|t| t.effect != TaintEffect::PreferNoSchedule)
    }

    /// The status as Kubernetes shows it.
    pub fn status(&self) -> NodeStatus {
        NodeStatus {
            capacity: self.capacity.clone(),
            allocatable: self.allocatable.clone(),
            conditions: self.conditions.clone(),
            addresses: self.addresses.clone(),
            node_info: Some(self.node_info.clone()),
            images: self.images.clone(),
        }
    }
}

/// Adds taints that are not there yet; key and effect make a taint.
fn add_taints(taints: &mut Vec<Taint>, more: &[Taint]) {
    for t in more {
        if !taints
            .iter()
            .any(|o| o.key == t.key && o.effect == t.effect)
        {
            taints.push(t.clone());
        }
    }
}

fn ready_condition(
    status: Option<&NodeStatusRecord>,
    health: Option<&NodeHealth>,
    session: Option<i64>,
) -> NodeCondition {
    let own = status.and_then(|s| s.conditions.iter().find(|c| c.type_ == "Ready"));
    let condition = |status: &str, reason: &str, message: &str| NodeCondition {
        type_: "Ready".into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: health.map(|h| h.since),
        last_heartbeat_time: None,
    };
    let concluded = health.map(|h| (h.state, h.message.as_str()));
    match (session, concluded) {
        (None, Some((NodeState::Ready, _)) | None) => {
            condition("Unknown", "SessionLost", "the agent's lease is gone")
        }
        (None, Some((_, message))) => condition(
            "Unknown",
            "SessionLost",
            or(message, "the agent's lease is gone"),
        ),
        (Some(_), Some((NodeState::Unreachable | NodeState::Suspended, message))) => condition(
            "Unknown",
            "Returning",
            or(message, "the agent is back, and is being taken in again"),
        ),
        (Some(_), Some((NodeState::Removed, message))) => condition(
            "False",
            "Removed",
            or(message, "the node's document was deleted"),
        ),
        (Some(_), Some((NodeState::Ready, _)) | None) => match (status, own) {
            (None, _) => condition("False", "NoReport", "the agent has not reported yet"),
            (Some(_), Some(own)) => NodeCondition {
                last_heartbeat_time: None,
                ..own.clone()
            },
            (Some(_), None) => condition("True", "AgentReady", "the agent is alive"),
        },
    }
}

fn or<'a>(message: &'a str, otherwise: &'a str) -> &'a str {
    if message.is_empty() {
        otherwise
    } else {
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> NodeStatusRecord {
        NodeStatusRecord {
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            drivers: vec!["process".into()],
            ..NodeStatusRecord::default()
        }
    }

    fn health(state: NodeState) -> NodeHealth {
        NodeHealth {
            state,
            session: 7,
            message: "because".into(),
            ..NodeHealth::default()
        }
    }

    #[test]
    fn a_node_is_ready_only_when_everybody_says_so() {
        let s = status();
        let ready = |status, health: Option<NodeHealth>, session| {
            NodeView::new("n1", None, status, health.as_ref(), session).ready
        };
        assert!(ready(Some(&s), None, Some(7)));
        assert!(ready(Some(&s), Some(health(NodeState::Ready)), Some(7)));
        assert!(!ready(Some(&s), Some(health(NodeState::Ready)), None));
        assert!(!ready(None, Some(health(NodeState::Ready)), Some(7)));
        for state in [
            NodeState::Unreachable,
            NodeState::Suspended,
            NodeState::Removed,
        ] {
            assert!(!ready(Some(&s), Some(health(state)), Some(7)), "{state:?}");
        }
        let mut sick = s.clone();
        sick.conditions.push(NodeCondition {
            type_: "Ready".into(),
            status: "False".into(),
            ..Default::default()
        });
        assert!(!ready(Some(&sick), None, Some(7)));
    }

    #[test]
    fn a_lost_node_is_unknown_and_says_why() {
        let h = health(NodeState::Unreachable);
        let v = NodeView::new("n1", None, Some(&status()), Some(&h), None);
        assert_eq!(
            (
                v.conditions[0].type_.as_str(),
                v.conditions[0].status.as_str()
            ),
            ("Ready", "Unknown")
        );
        assert_eq!(v.conditions[0].message.as_deref(), Some("because"));
    }

    #[test]
    fn users_labels_win_and_taints_add_up() {
        let mut node = Node::named("n1");
        node.metadata.labels.insert("zone".into(), "b".into());
        node.spec.unschedulable = Some(true);
        let taint = |key: &str| Taint {
            key: key.into(),
            effect: TaintEffect::NoExecute,
            ..Taint::default()
        };
        node.spec.taints = vec![taint("x")];
        let mut h = health(NodeState::Unreachable);
        h.taints = vec![taint("x"), taint("y")];
        let v = NodeView::new("n1", Some(&node), Some(&status()), Some(&h), None);
        assert_eq!(v.labels["zone"], "b");
        assert_eq!(v.labels["kubernetes.io/hostname"], "n1");
        let keys: Vec<&str> = v.taints.iter().map(|t| t.key.as_str()).collect();
        assert_eq!(keys, ["x", UNSCHEDULABLE_TAINT, "y"]);
    }
}

//! Nodes: from what is stored about one to what the core is told of it.

use setpoint_apis::core::{Node, NodeStatus};
use setpoint_apis::records::{NodeHealth, NodeStatusRecord};
use setpoint_apis::{Quantity, ResourceList};
use setpoint_scheduler_core::NodeFacts;

/// How many pods a node from a file takes that does not say.
const USUAL_PODS: i64 = 110;

/// What is stored about a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeParts {
    /// What users want of it.
    pub desired: Option<Node>,
    /// What its agent reports.
    pub status: Option<NodeStatusRecord>,
    /// What node-lifecycle concludes.
    pub health: Option<NodeHealth>,
    /// Its session, while that is alive.
    pub session: Option<i64>,
    /// Whether something of it cannot be read: then nothing is placed there, for it could forbid that.
    pub unreadable: bool,
}

impl NodeParts {
    /// A node as a file has it: alive, and able to run everything. It is not ready if its conditions say so.
    ///
    /// What pods may request is `allocatable`, or `capacity` where that is absent; of pods it is 110 when neither says.
    pub fn from_file(node: Node, status: NodeStatus) -> Self {
        let mut allocatable = if status.allocatable.is_empty() {
            status.capacity.clone()
        } else {
            status.allocatable
        };
        allocatable
            .entry("pods".into())
            .or_insert(Quantity::from_whole(USUAL_PODS));
        Self {
            desired: Some(node),
            status: Some(NodeStatusRecord {
                capacity: status.capacity,
                allocatable,
                conditions: status.conditions,
                images: status.images,
                drivers: vec!["process".into(), "cri".into()],
                ..NodeStatusRecord::default()
            }),
            session: Some(0),
            ..Self::default()
        }
    }

    /// What pods may request there.
    pub fn allocatable(&self) -> Option<&ResourceList> {
        self.status.as_ref().map(|s| &s.allocatable)
    }

    pub(crate) fn facts(&self, name: &str) -> NodeFacts {
        NodeFacts::stored(
            name,
            self.desired.as_ref(),
            self.status.as_ref(),
            self.health.as_ref(),
            self.session,
            self.unreadable,
        )
    }
}

//! What the core says of nodes, as the record of a pod that waits keeps it.

use std::sync::Arc;

use setpoint_apis::core::PodSpec;
use setpoint_scheduler_core::Unschedulable;

use crate::asks::UNSCHEDULABLE;
use crate::writes::Says;

/// Why no node can run a pod with this spec.
pub(crate) fn says(verdict: &Unschedulable, spec: &PodSpec, nominated: Option<Arc<str>>) -> Says {
    let says = Says {
        reason: UNSCHEDULABLE,
        message: verdict.message(spec),
        nominated: None,
        nodes: Some(verdict.nodes),
        reasons: verdict.wait_reasons(spec),
        nearest: verdict.nearest(spec),
    };
    match nominated {
        Some(node) => while_others_leave(says, node),
        None => says,
    }
}

/// The same of a pod that is promised room on a node.
pub(crate) fn while_others_leave(mut says: Says, node: Arc<str>) -> Says {
    says.message
        .push_str(&format!(" Others make room on {node}."));
    says.nominated = Some(node);
    says
}

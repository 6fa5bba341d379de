//! What the core says of nodes, as the record of a pod that waits keeps it.

use std::sync::Arc;

use setpoint_apis::core::PodSpec;
use setpoint_scheduler_core::Unschedulable;

use crate::asks::UNSCHEDULABLE;
use crate::writes::Says;

/// Why no node can run a pod with this spec.
pub(crate) fn says(verdict: &Unschedulable, spec: &PodSpec, nominated: Option<Arc<str>>) -> Says {
    let mut message = verdict.message(spec);
    if let Some(node) = &nominated {
        message.push_str(&format!(" Others make room on {node}."));
    }
    Says {
        reason: UNSCHEDULABLE,
        message,
        nominated,
        nodes: Some(verdict.nodes),
        reasons: verdict.wait_reasons(spec),
        nearest: verdict.nearest(spec),
    }
}

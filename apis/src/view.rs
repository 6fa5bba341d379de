//! Objects as users see them: pure merges of what is wanted, what is decided and what is reported.
//!
//! No component stores the result. Whoever shows or decides merges afresh from one consistent snapshot.

mod node;
mod pod;
mod resources;

pub use node::{NodeView, UNSCHEDULABLE_TAINT};
pub use pod::{pod_status, stopping_pod};
pub use resources::{container_requests, pod_limits, pod_requests, qos_class};

//! What follows from documents together: the priority of a pod, what a budget lets go, what a quota counts.
//!
//! Pure functions with Kubernetes' semantics, for the scheduler and for whoever explains it. They look nothing up
//! themselves.

mod budget;
mod priority;
mod quota;

pub use budget::{Allowance, Disruption, PodHealth, allowance, disruption, selects};
pub use priority::{Priority, PriorityProblem, global_default, priority};
pub use quota::{Excess, excess, quota_covers, quota_usage, unspecified};

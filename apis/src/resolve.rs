//! What follows from documents together: the priority of a pod, what a budget lets go, and how many pods it counts among,
//! what a quota counts, what a LimitRange gives and allows.
//!
//! Pure functions with Kubernetes' semantics, for the scheduler and for whoever explains it. They look nothing up
//! themselves.

mod budget;
pub mod limits;
mod objects;
mod priority;
mod quota;
mod scale;

pub use budget::{Allowance, Disruption, PodHealth, allowance, disruption, selects};
pub use objects::{
    claim_usage, counted_plural, counts_objects, object_usage, pod_object_usage, service_usage,
    usage_of,
};
pub use priority::{Priority, PriorityProblem, global_default, priority};
pub use quota::{Excess, exceeded, excess, quota_covers, quota_usage, unspecified};
pub use scale::{
    Decider, Recorded, Said, Scaled, Scalers, scale_target, scaled_owner, scaled_plural,
};

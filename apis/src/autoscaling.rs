//! Kinds of the group `autoscaling` (`autoscaling/v2`): HorizontalPodAutoscaler.

pub mod autoscaler;
pub mod behavior;
pub mod metric;
pub mod metric_status;

pub use autoscaler::*;
pub use behavior::*;
pub use metric::*;
pub use metric_status::*;

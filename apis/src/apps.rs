//! Kinds of the group `apps`: Deployment, ReplicaSet, StatefulSet, DaemonSet, ControllerRevision.

pub mod condition;
pub mod controller_revision;
pub mod daemon_set;
pub mod deployment;
pub mod replica_set;
pub mod stateful_set;

pub use condition::*;
pub use controller_revision::*;
pub use daemon_set::*;
pub use deployment::*;
pub use replica_set::*;
pub use stateful_set::*;

/// The annotation of a Deployment, StatefulSet or DaemonSet that says whether a rollout that fails is rolled back:
/// `"true"` or `"false"`. Without it, it is when the workload was available before.
pub const ROLLBACK_ON_FAILURE: &str = "setpoint.dev/rollback-on-failure";

/// The annotation of a Deployment, StatefulSet or DaemonSet that says whether a change of a ConfigMap or Secret that its
/// pods refer to is a new revision: `"true"`, which is the default, or `"false"`.
pub const CONFIG_ROLLOUT: &str = "setpoint.dev/config-rollout";

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

/// The annotation of a StatefulSet or DaemonSet that says how many seconds its rollout may stand still before it has failed;
/// 600 without it, and 2147483647 for ever. It must be more than `minReadySeconds`. A Deployment has a field for that.
pub const PROGRESS_DEADLINE: &str = "setpoint.dev/progress-deadline-seconds";

//! The labels and annotations of the pods of Jobs and of the Jobs of CronJobs.

/// Label of a pod: the uid of its Job.
pub const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// The same, as it was called before Kubernetes 1.27.
pub const LEGACY_CONTROLLER_UID: &str = "controller-uid";
/// Label of a pod: the name of its Job.
pub const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The same, as it was called before Kubernetes 1.27.
pub const LEGACY_JOB_NAME: &str = "job-name";
/// Label and annotation of a pod of an Indexed Job: its number among the completions.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Annotation of a pod of a Job with `backoffLimitPerIndex`: how many failures of its index counted before it.
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// The same for failures that a podFailurePolicy ignored.
pub const INDEX_IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// Annotation of a pod: its number among all pods that were made for its Job. See
/// [`CountedPods`](super::CountedPods).
pub const JOB_POD_NUMBER: &str = "setpoint.dev/job-pod-number";
/// Annotation of a Job: the time for which its CronJob made it.
pub const SCHEDULED_TIMESTAMP: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Annotation of a Job that somebody made from a CronJob's template: `manual`.
pub const INSTANTIATE: &str = "cronjob.kubernetes.io/instantiate";
/// The variable that tells the containers of an Indexed Job their index.
pub const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// `spec.managedBy` of a Job that is looked after here; so is one without it.
pub const MANAGED_BY: &str = "kubernetes.io/job-controller";

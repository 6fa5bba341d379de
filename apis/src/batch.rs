//! Kinds of the group `batch`: Job and CronJob.

pub mod cron_job;
pub mod indexes;
pub mod job;
pub mod job_policy;
pub mod labels;

pub use cron_job::*;
pub use job::*;
pub use job_policy::*;

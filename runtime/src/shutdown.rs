//! Stopping: one token for the whole process, and tasks that are waited for.

pub use tokio_util::sync::CancellationToken;
pub use tokio_util::task::TaskTracker;

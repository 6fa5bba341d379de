//! The limit on open files: the agent needs a descriptor or two per container and raises its own, and containers get
//! back what the agent was started with.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

static ORIGINAL: OnceLock<Option<u64>> = OnceLock::new();

/// Raises this process's limit as far as it may.
pub(crate) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    if ORIGINAL.set(limit.current).is_err() {
        return; // Another agent of this process has.
    }
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "the limit on open files could not be raised");
    }
}

/// The limit before it was raised; `None` when it was not, or when there was none.
pub(crate) fn original() -> Option<u64> {
    ORIGINAL.get().copied().flatten()
}

/// Lowers the limit of a program that is about to be executed.
pub(crate) fn restore(current: u64) {
    let limit = getrlimit(Resource::Nofile);
    // It was as high before, so it is allowed; a program with more descriptors than it expects does no harm.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(current),
            ..limit
        },
    );
}

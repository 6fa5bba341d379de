//! The log on disk: changes as they were made, each batch synced before anybody is told of it.
//!
//! A directory holds one log, `log-<n>`. It begins with a snapshot, and changes follow. When it has grown enough, a new
//! one that begins with a newer snapshot is written beside it and takes its place. Room is reserved ahead: a full disk is
//! noticed before a change is made, and the change is refused; what has been made can always be written.

mod directory;
mod frame;
mod recover;
mod snapshot;
mod writer;

pub use directory::OpenError;
pub use recover::{Dropped, LogDamage};

pub(super) use directory::{fresh_id, open};
pub(super) use snapshot::Image;
pub use snapshot::RestoreError;
pub(super) use writer::{Log, LogError, reserve_room};

//! One object as a pass saw it.

use setpoint_apis::{Kind, ObjectKey};
use setpoint_runtime::Stored;

/// One object as it was seen: its writes are guarded on that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub key: ObjectKey,
    /// Its revision.
    pub mod_revision: i64,
}

impl Seen {
    /// An object as the cache has it.
    pub fn of<K: Kind>(key: &ObjectKey, object: &Stored<K>) -> Self {
        Self {
            key: key.clone(),
            mod_revision: object.mod_revision,
        }
    }
}

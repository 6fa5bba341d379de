//! What of an object may change without anybody wanting to know.
//!
//! A predicate gives a number for a version of an object; versions with the same number count as the same. They are
//! plain functions: combine two by hashing both numbers.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;
use setpoint_apis::{Kind, document};

use super::Object;

/// Changes with every write.
pub fn revision<T>(object: &Object<T>) -> u64 {
    object.mod_revision.unsigned_abs()
}

/// Changes with the incarnation: an object that was deleted and created again is another one.
pub fn incarnation<T>(object: &Object<T>) -> u64 {
    object.create_revision.unsigned_abs()
}

/// Changes with the labels.
pub fn labels<K: Kind>(object: &Object<K>) -> u64 {
    hash(&object.value.metadata().labels)
}

/// Changes with the annotations.
pub fn annotations<K: Kind>(object: &Object<K>) -> u64 {
    hash(&object.value.metadata().annotations)
}

/// Changes with what the document says, and not with how it is written.
pub fn content<T: Serialize>(object: &Object<T>) -> u64 {
    hash(&document::encode(&object.value))
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

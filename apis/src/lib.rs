//! Setpoint's resource types, their validation and schemas, and the keyspace: everything that says what a document
//! means, and nothing that talks to a network.
//!
//! This crate sits at the bottom of the workspace: it depends neither on tokio nor on etcd, so a decision core, a
//! schema generator or an editor plug-in can use it alone.

pub mod keyspace;
pub mod kind;
pub mod meta;
pub mod records;

pub use keyspace::{Key, KeyRange, Keyspace};
pub use kind::{ApiVersion, Kind, KindName};
pub use meta::{ObjectKey, ObjectMeta, OwnerReference};

//! Setpoint's resource types, their validation and schemas, and the keyspace: everything that says what a document
//! means, and nothing that talks to a network.
//!
//! This crate sits at the bottom of the workspace: it depends neither on tokio nor on etcd, so a decision core, a
//! schema generator or an editor plug-in can use it alone.

pub mod apps;
pub mod autoscaling;
pub mod base64;
pub mod batch;
pub mod content_seen;
pub mod core;
pub mod cron;
pub mod defaults;
pub mod document;
pub mod fields;
pub mod fixed;
pub mod fnv;
pub mod int_or_string;
pub mod keyspace;
pub mod kind;
pub mod meta;
pub mod names;
pub mod networking;
pub mod overlap;
pub mod owners;
pub mod placement;
pub mod policy;
pub mod quantity;
pub mod records;
pub mod registry;
pub mod resolve;
pub mod scheduling;
pub mod schema;
pub mod selector;
pub mod stored;
pub mod strict;
pub mod string_map;
pub mod time;
pub mod timeline;
pub mod validation;
pub mod view;

pub use int_or_string::IntOrString;
pub use keyspace::{Key, KeyRange, Keyspace};
pub use kind::{ApiVersion, Kind, KindName};
pub use meta::{Condition, ObjectKey, ObjectMeta, OwnerReference};
pub use quantity::{Quantity, ResourceList};
pub use selector::LabelSelector;
pub use string_map::StringMap;
pub use time::Timestamp;

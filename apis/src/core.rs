//! Kinds of the core group (`v1`): Pod, Node, Namespace, ConfigMap, Secret, Event, Service, ServiceAccount,
//! PersistentVolumeClaim, ResourceQuota, LimitRange.
//!
//! Names are Kubernetes', in snake case; `type` is `type_`. A list or map that a document leaves out is empty, a
//! scalar that it leaves out is `None` until [`crate::Kind::apply_defaults`] fills in what Kubernetes would.

pub mod account;
pub mod affinity;
pub mod claim;
pub mod config;
pub mod container;
pub mod dns;
pub mod env;
pub mod event;
pub mod limit_range;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod pod_status;
pub mod probe;
pub mod quota;
mod references;
pub mod security;
pub mod service;
pub mod volume;

pub use account::*;
pub use affinity::*;
pub use claim::*;
pub use config::*;
pub use container::*;
pub use dns::*;
pub use env::*;
pub use event::*;
pub use limit_range::*;
pub use namespace::*;
pub use node::*;
pub use pod::*;
pub use pod_status::*;
pub use probe::*;
pub use quota::*;
pub use security::*;
pub use service::*;
pub use volume::*;

pub use crate::quantity::ResourceList;

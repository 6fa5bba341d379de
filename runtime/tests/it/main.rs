//! The runtime against a real etcd.

mod cache;
mod election;
mod proxy;
mod support;

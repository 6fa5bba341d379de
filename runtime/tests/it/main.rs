//! The runtime against a real etcd.

mod cache;
mod election;
mod events;
mod proxy;
mod shards;
mod streams;
mod support;

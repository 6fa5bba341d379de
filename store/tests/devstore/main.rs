//! The development store, as its clients and its directory see it.

mod api;
mod durability;
mod etcdctl;
mod server;
mod watches;

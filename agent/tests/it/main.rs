//! The agent with real processes and, where a test says so, a real etcd. One binary, so that it is linked once.

mod driver;
mod late;
mod node;
mod pods;
mod server;
mod support;
mod trust;

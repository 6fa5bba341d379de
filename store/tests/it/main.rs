//! Claims of the store, shown on a real etcd, and the model of etcd held against it. One binary: linking takes longer than
//! most of the tests.

mod basics;
mod commit;
mod commit_random;
mod conformance;
mod connections;
mod differential;
mod faults;
mod leases;
mod listing;
mod scripts;
mod security;
mod servers;
mod support;
mod watches;

//! Claims of the store, shown on a real etcd. One binary: linking takes longer than most of the tests.

mod basics;
mod commit;
mod commit_random;
mod faults;
mod leases;
mod listing;
mod security;
mod support;
mod watches;

//! Claims of the store, shown on a real etcd. One binary: linking takes longer than most of the tests.

mod basics;
mod support;

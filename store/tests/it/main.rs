//! Claims of the store, shown on a real etcd.

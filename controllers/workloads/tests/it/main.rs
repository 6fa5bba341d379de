//! Workload controllers against a real etcd.

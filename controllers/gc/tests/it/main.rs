//! Garbage collection against a real etcd.

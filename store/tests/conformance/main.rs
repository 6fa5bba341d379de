//! The model of etcd held against etcd: the same cases for every store, and random operations compared field by field.
//! One binary: linking takes longer than most of the tests.

mod differential;
mod servers;

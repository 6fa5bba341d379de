//! The real binary against a real etcd.
fn main() {}

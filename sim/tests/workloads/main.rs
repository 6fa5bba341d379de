//! Workloads of every kind while controllers lose and die, caches are stale, nodes are lost, and users change their minds.

mod common;
mod daemonset;
mod jobs;
mod namespaces;
mod quotas;
mod rollouts;
mod writes;

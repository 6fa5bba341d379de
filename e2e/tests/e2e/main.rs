//! Whole clusters out of built binaries: what the README promises, and what happens when parts of it die.
//!
//! Each test has a cluster of its own with addresses of its own. What a smaller test can show does not belong here.

mod agents;
mod bad_input;
mod builtin;
mod claims;
mod drain;
mod failover;
mod hollow;
mod jobs;
mod manifests;
mod moves;
mod outages;
mod workloads;

//! Real faults: members of etcd and processes that die, freeze, or are cut off; and what must hold all the same.
//!
//! Each test has a cluster of its own: three etcd members, two processes of controllers, three agents, each process
//! behind proxies of its own. Every write is on record, and each test ends with the checks of
//! [`setpoint_e2e::faults::check`].

mod controllers;
mod impostors;
mod members;
mod nodes;
mod shards;
mod storm;
mod streams;
mod upkeep;

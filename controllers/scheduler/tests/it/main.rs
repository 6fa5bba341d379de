//! The scheduler against a real etcd, with agents whose behaviour is written out here: every row of the table of
//! protocols, races, broken documents, faults, many pods, and what pods share: priorities, quotas, budgets, groups, room.

mod bad_input;
mod bindings;
mod budgets;
mod claims;
mod content;
mod faults;
mod groups;
mod moves;
mod placing;
mod preemption;
mod protocols;
mod quotas;
mod races;
mod reservations;
mod rig;

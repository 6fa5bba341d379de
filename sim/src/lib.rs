//! The whole control plane in one thread, on virtual time, from one seed: the store's model, the runtime, all
//! controllers, and agents that only pretend; with a network that loses messages, processes that die or stand still,
//! and checks of every write.
//!
//! The same scenario with the same seed is the same run, bit for bit: [`Report::digest`] tells. What runs is what
//! `setpoint controllers` and `setpoint agent` run; only the store, the pods and time are pretended.
//!
//! | Module | Holds |
//! |---|---|
//! | [`scenario`] | what happens: nodes, workloads, faults over time |
//! | [`generate`] | the standard scenarios, one per seed |
//! | `world` | the processes, and how they are started, killed, frozen |
//! | [`network`], `link` | what lies between a process and the store |
//! | `ledger`, [`check`] | every write with its sender, and the invariants it is held against |
//! | `named`, `strike` | the guards that a write carried; faults that strike at one write |
//! | [`pods`] | what pretended pods come to |
//! | `goal` | whether actual matches desired |
//! | [`run`](mod@run) | a run from beginning to end, and its report |
//! | [`minimize()`] | what of a scenario matters for a violation |

pub mod check;
mod fnv;
pub mod generate;
mod goal;
mod ledger;
mod link;
mod minimize;
mod named;
pub mod network;
pub mod pods;
pub mod run;
pub mod scenario;
mod strike;
mod world;

pub use check::Violation;
pub use ledger::Write;
pub use minimize::{Minimized, minimize};
pub use run::{Options, Report, run};
pub use scenario::Scenario;

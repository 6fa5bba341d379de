//! What the scheduler would do, and why: its core asked about documents, without a cluster and without a scheduler.
//!
//! A [`World`] is what is stored at one revision, or what files say. A [`Proposal`] lays manifests over it, and
//! [`Proposal::plan`] tells where the pods would go. [`why()`] tells of one pod why it is where it is, or why it waits.
//!
//! Everything here is a pure function of its input: nothing is read or written, no clock is looked at. That is what
//! `setpoint why`, `setpoint simulate schedule` and `setpoint apply --dry-run=schedule` print.
//!
//! | Module | Holds |
//! |---|---|
//! | `world`, `node` | what is known, from keys of the store |
//! | `model` | the core's cluster, filled from a world; quotas, and what has to hold before a node is looked for |
//! | `budgets` | what disruption budgets allow |
//! | `door` | what LimitRanges and the object counts of quotas make of what comes |
//! | `proposal` | manifests laid over a world |
//! | `plan`, `report` | where many pods go |
//! | `why` | one pod |
//! | `text` | the core's reasons as the records have them |

mod budgets;
mod door;
mod model;
mod node;
mod plan;
mod proposal;
mod report;
mod text;
mod why;
mod world;

pub use node::NodeParts;
pub use proposal::{Proposal, ProposalError};
pub use report::{Displaced, NodeUse, Placed, Plan, ResourceUse, Waiting};
pub use text::{Nearest, describe};
pub use why::{Decided, Gang, Nominated, State, Victims, Waits, Why, why};
pub use world::{KnownClaim, KnownPod, Record, Reserved, World};

#[cfg(test)]
mod tests;

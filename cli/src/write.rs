//! Writes to desired documents: many at one revision, or one changed in place.

mod chunks;
mod door;
mod immutable;
mod modify;
mod overlap;
mod patience;
mod plan;

pub(crate) use modify::{Modified, check, modify};
pub(crate) use overlap::warnings as overlaps;
pub(crate) use plan::{Mode, Outcome, WriteOptions, change, preview, write};

//! Writes to desired documents: many at one revision, or one changed in place.

mod chunks;
mod door;
mod frozen;
mod immutable;
mod modify;
mod noted;
mod overlap;
mod patience;
mod plan;

pub(crate) use frozen::warning as frozen;
pub(crate) use modify::{Modified, check, modify};
pub(crate) use noted::edit;
pub(crate) use overlap::warnings as overlaps;
pub(crate) use plan::{Mode, Outcome, Verdict, WriteOptions, change, preview, write};

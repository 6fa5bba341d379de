//! Strict reading, for the door: what users hand in.

pub(crate) mod scalar;
pub(crate) mod yaml;

//! The one integration-test binary of this crate.

mod budgets;
mod checker;
mod differential;
mod regressions;
mod search;
mod tables;
mod twin;

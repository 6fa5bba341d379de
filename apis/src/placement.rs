//! Kinds of our own about placing (`setpoint.dev/v1`): PodGroup, Reservation, SchedulerProfile.

mod pod_group;
mod profile;
mod reservation;

pub use pod_group::*;
pub use profile::*;
pub use reservation::*;

//! The node agent: takes the work of one node, runs it, and reports what became of it.

mod asyncfd;
pub mod cgroup;
pub mod driver;
pub mod logs;
pub mod process;
mod procfs;
pub mod shim;
pub mod spec;

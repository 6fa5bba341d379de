//! The scheduler against a real etcd, with agents whose behaviour is written out here: every row of the table of
//! protocols, races, broken documents, faults, and many pods.

mod bindings;
mod content;
mod faults;
mod placing;
mod protocols;
mod races;
mod rig;

//! What a controller is written with: a cache fed by one ordered watch, a queue, leader election whose epoch fences
//! every write, an event recorder, and streams for those who want only a part.
//!
//! A controller observes (reads a [`cache::View`]), decides (a pure function of its own), and executes (hands writes
//! to its [`leader::Leader`]). See `examples/custom-controller`.

pub mod backoff;
pub mod cache;
pub mod clock;
pub mod controller;
pub mod election;
pub mod events;
pub mod leader;
pub mod metrics;
pub mod queue;
pub mod shards;
pub mod shutdown;
pub mod streams;
pub mod watcher;

pub use cache::{Cache, CacheBuilder, Changes, Entry, StateKey, Stored, Subscription, View};
pub use clock::Clock;
pub use controller::{Action, Controller};
pub use election::Elector;
pub use leader::{Leader, LeaderError, Write, WriteOutcome};
pub use metrics::Metrics;
pub use shards::{Shard, Shards};

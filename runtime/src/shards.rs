//! The work of a controller, split by key: shards, who owns which, and the loop that claims and hands over.
//!
//! Members register under `members/<controller>/`. Rendezvous hashing names the owner of each shard among them, so that
//! a member that comes takes its share from all others, and one that goes leaves its share to all others, and nothing
//! else moves. The owner claims the shard's key `leaders/<controller>/<shard>`; its mod revision is the epoch that every
//! write for the shard carries as a guard. See `docs/adr/0011-shards.md`.
//!
//! | Module | Holds |
//! |---|---|
//! | `hash` | which shard a key is in, which member a shard prefers |
//! | `decide` | what to claim, to hand over, to give up: a pure function |
//! | `mirror`, `world` | what a range of etcd holds; what is known of the others |
//! | `requests` | the guarded writes |
//! | `run` | carries the plan out |

mod decide;
mod hash;
mod mirror;
mod requests;
mod run;
mod world;

use std::fmt;
use std::num::NonZeroU16;

/// One of the parts that the keys of a controller fall into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u16);

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many shards a controller has. All its processes must agree: members with another number than others claim
/// nothing until those are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shards(NonZeroU16);

impl Shards {
    /// A good number for up to a dozen members or so: more shards spread the load more evenly, and each costs two keys
    /// in etcd and a task in its owner.
    pub const DEFAULT: Self = Self(NonZeroU16::new(64).expect("64 is not 0"));

    /// So many shards.
    pub const fn new(count: NonZeroU16) -> Self {
        Self(count)
    }

    /// How many there are.
    pub const fn count(self) -> u16 {
        self.0.get()
    }

    /// The shard that a key is in.
    pub fn of_key(self, key: &str) -> Shard {
        let within = hash::of(&[key.as_bytes()]) % u64::from(self.count());
        Shard(u16::try_from(within).expect("a remainder is below what was divided by"))
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = Shard> {
        (0..self.count()).map(Shard)
    }

    /// The shard whose key in etcd ends in `name`; `None` when it is none of ours.
    fn named(self, name: &str) -> Option<Shard> {
        let shard = Shard(name.parse().ok()?);
        (shard.0 < self.count() && shard.to_string() == name).then_some(shard)
    }
}

//! What a pass sees and what it decides, as data.

use std::fmt;
use std::time::Duration;

use setpoint_apis::{ObjectKey, OwnerReference, Timestamp};

/// An object of any kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Its kind.
    pub plural: &'static str,
    /// Its name.
    pub key: ObjectKey,
}

impl ObjectId {
    /// An object of a kind.
    pub fn new(plural: &'static str, key: ObjectKey) -> Self {
        Self { plural, key }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.plural, self.key)
    }
}

/// How an owner is gone, and what shows it in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Its key does not exist.
    Absent(ObjectId),
    /// Its key is that of another object by now, which was seen at this revision.
    Replaced(ObjectId, i64),
}

/// An owner of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It exists, or its document does not parse and it is taken to exist.
    Present,
    /// Its kind is not known here: it is taken to exist.
    Unknown,
    /// It is being deleted, dependents first; seen at this revision.
    Leaving(ObjectId, i64),
    /// It is gone, and its dependents go too.
    Gone(Gone),
    /// It is gone, and its dependents are to stay.
    Orphaned(Gone),
}

/// The namespace of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// It exists, or the object needs none.
    Exists,
    /// It was there and has been deleted.
    Deleted,
    /// It is not there, and nobody here has ever seen it; noticed at this time.
    NeverSeen(Timestamp),
}

/// An object to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub id: ObjectId,
    /// The revision of its document.
    pub mod_revision: i64,
    /// Whether its document parses.
    pub valid: bool,
    /// Its namespace.
    pub home: Home,
    /// Its owners, each with what became of it.
    pub owners: Vec<(OwnerReference, Owner)>,
    /// How many objects it owns itself.
    pub dependents: usize,
    /// Whether an owner that waits for its dependents depends on it in turn, so that neither could go first.
    pub circular: bool,
    /// Whether a deletion record about it stands.
    pub recorded: bool,
}

/// A deletion record to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The object that it is about.
    pub id: ObjectId,
    /// The record's revision.
    pub mod_revision: i64,
    /// `Orphan`, `Foreground`.
    pub policy: String,
    /// The revision of the object's document, when the object exists with the uid that the record names.
    pub object: Option<i64>,
    /// How many objects name that uid as their owner.
    pub dependents: usize,
    /// How many of these hold it back while it is deleted in the foreground.
    pub blocking: usize,
}

/// Everything that a pass looks at, at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Objects.
    pub candidates: Vec<Candidate>,
    /// Statuses whose object is gone.
    pub statuses: Vec<ObjectId>,
    /// Deletion records.
    pub records: Vec<Record>,
}

/// An object that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Which.
    pub id: ObjectId,
    /// As seen.
    pub mod_revision: i64,
    /// Owners that must still be gone.
    pub gone: Vec<Gone>,
    /// Owners that must still be as they were seen.
    pub unchanged: Vec<(ObjectId, i64)>,
    /// Because its namespace is gone, and must still be.
    pub homeless: bool,
}

/// An object that loses owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Which.
    pub id: ObjectId,
    /// As seen.
    pub mod_revision: i64,
    /// The owners that it keeps.
    pub keep: Vec<OwnerReference>,
}

/// What to do with a deletion record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordStep {
    /// It has been carried out, or is about an object that does not exist any more.
    Remove(ObjectId, i64),
    /// Delete its object as seen, and the record with it.
    Finish(ObjectId, i64),
    /// Delete its object as seen; the record stays until no dependent is left.
    DeleteObject(ObjectId, i64),
    /// An object that has dependents of its own is to go dependents first, too.
    Pass(ObjectId),
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Objects to delete.
    pub delete: Vec<Removal>,
    /// Objects to take owners from.
    pub release: Vec<Release>,
    /// Statuses to delete.
    pub statuses: Vec<ObjectId>,
    /// Deletion records to move on.
    pub records: Vec<RecordStep>,
    /// Objects to look at again when this time has passed.
    pub later: Vec<(ObjectId, Duration)>,
    /// Why something was not done.
    pub notes: Vec<String>,
}

impl Plan {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.delete.is_empty()
            && self.release.is_empty()
            && self.statuses.is_empty()
            && self.records.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for r in &self.delete {
            write!(f, "delete {} at {}", r.id, r.mod_revision)?;
            for gone in &r.gone {
                match gone {
                    Gone::Absent(id) => write!(f, ", {id} is gone")?,
                    Gone::Replaced(id, at) => write!(f, ", {id} is another at {at}")?,
                }
            }
            for (id, at) in &r.unchanged {
                write!(f, ", {id} waits at {at}")?;
            }
            writeln!(
                f,
                "{}",
                if r.homeless {
                    ", its namespace is gone"
                } else {
                    ""
                }
            )?;
        }
        for r in &self.release {
            writeln!(
                f,
                "release {} at {}, it keeps {} owners",
                r.id,
                r.mod_revision,
                r.keep.len()
            )?;
        }
        for id in &self.statuses {
            writeln!(f, "delete status of {id}")?;
        }
        for step in &self.records {
            match step {
                RecordStep::Remove(id, at) => writeln!(f, "delete record of {id} at {at}")?,
                RecordStep::Finish(id, at) => writeln!(f, "delete {id} at {at} and its record")?,
                RecordStep::DeleteObject(id, at) => {
                    writeln!(f, "delete {id} at {at} and keep its record")?
                }
                RecordStep::Pass(id) => writeln!(f, "record {id} as leaving")?,
            }
        }
        for (id, wait) in &self.later {
            writeln!(f, "look at {id} again in {} s", wait.as_secs())?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

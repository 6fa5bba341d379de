//! What a pass sees and what it decides, as data.

use std::fmt;
use std::time::Duration;

use setpoint_apis::{ObjectKey, OwnerReference, Timestamp};

/// An object of any kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectId {
    /// Its kind.
    pub(crate) plural: &'static str,
    /// Its name.
    pub(crate) key: ObjectKey,
}

impl ObjectId {
    /// An object of a kind.
    pub(crate) fn new(plural: &'static str, key: ObjectKey) -> Self {
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
pub(crate) enum Gone {
    /// Its key does not exist.
    Absent(ObjectId),
    /// Its key is that of another object by now, which was seen at this revision.
    Replaced(ObjectId, i64),
}

impl Gone {
    fn reason(&self) -> Reason {
        match self {
            Self::Absent(id) => Reason::Absent(id.clone()),
            Self::Replaced(id, at) => Reason::Replaced(id.clone(), *at),
        }
    }
}

/// An owner that is being deleted, its dependents first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leaving {
    /// Which.
    pub(crate) id: ObjectId,
    /// The revision of its document.
    pub(crate) at: i64,
    /// The revision of the record that says so.
    pub(crate) record: i64,
}

/// An owner of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It exists, or its document does not parse and it is taken to exist.
    Present,
    /// Its kind is not known here: it is taken to exist.
    Unknown,
    /// It waits for its dependents.
    Leaving(Leaving),
    /// It is gone, and its dependents go too.
    Gone(Gone),
    /// It is gone, and its dependents are to stay: so says its record of this revision.
    Orphaned(Gone, i64),
}

impl Owner {
    /// What must still be so in the store when something is done because this owner is gone or leaves.
    pub(crate) fn reasons(&self) -> Vec<Reason> {
        match self {
            Self::Present | Self::Unknown => Vec::new(),
            Self::Leaving(owner) => vec![
                Reason::Waits(owner.id.clone(), owner.at),
                Reason::Record(owner.id.clone(), owner.record),
            ],
            Self::Gone(gone) => vec![gone.reason()],
            Self::Orphaned(gone, record) => {
                let (Gone::Absent(id) | Gone::Replaced(id, _)) = gone;
                vec![gone.reason(), Reason::Record(id.clone(), *record)]
            }
        }
    }
}

/// Something that a write is based on, and which must still be so in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// An owner does not exist.
    Absent(ObjectId),
    /// The key of an owner is that of another object, as seen at this revision.
    Replaced(ObjectId, i64),
    /// An owner, as seen at this revision, waits for its dependents.
    Waits(ObjectId, i64),
    /// The record of an owner, as seen at this revision, says so.
    Record(ObjectId, i64),
    /// The object's namespace does not exist.
    Homeless,
}

/// The namespace of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// It exists, or the object needs none.
    Exists,
    /// It was there a moment ago and has been deleted.
    Deleted,
    /// It is not there, and may come; the object was noticed in it at this time.
    Missing(Timestamp),
}

/// An object to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Which.
    pub(crate) id: ObjectId,
    /// Its uid, when any version of it has parsed.
    pub(crate) uid: Option<String>,
    /// The revision of its document.
    pub(crate) mod_revision: i64,
    /// Whether its document parses.
    pub(crate) valid: bool,
    /// Its namespace.
    pub(crate) home: Home,
    /// Its owners, each with what became of it.
    pub(crate) owners: Vec<(OwnerReference, Owner)>,
    /// How many objects it owns itself.
    pub(crate) dependents: usize,
    /// Whether an owner that waits for its dependents depends on it in turn, so that neither could go first.
    pub(crate) circular: bool,
    /// Whether a deletion record about it stands.
    pub(crate) recorded: bool,
}

/// A deletion record to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The object that it is about.
    pub(crate) id: ObjectId,
    /// The record's revision.
    pub(crate) mod_revision: i64,
    /// `Orphan`, `Foreground`.
    pub(crate) policy: String,
    /// The revision of the object's document, when the object exists with the uid that the record names.
    pub(crate) object: Option<i64>,
    /// How many objects name that uid as their owner.
    pub(crate) dependents: usize,
    /// How many of these hold it back while it is deleted in the foreground.
    pub(crate) blocking: usize,
}

/// Everything that a pass looks at, at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Objects.
    pub(crate) candidates: Vec<Candidate>,
    /// Statuses whose object is gone.
    pub(crate) statuses: Vec<ObjectId>,
    /// Deletion records.
    pub(crate) records: Vec<Record>,
}

/// An object that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    /// Which.
    pub(crate) id: ObjectId,
    /// As seen.
    pub(crate) mod_revision: i64,
    /// Why.
    pub(crate) because: Vec<Reason>,
}

/// An object that loses owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    /// Which.
    pub(crate) id: ObjectId,
    /// As seen.
    pub(crate) mod_revision: i64,
    /// The owners that it keeps.
    pub(crate) keep: Vec<OwnerReference>,
    /// Why it loses the others.
    pub(crate) because: Vec<Reason>,
}

/// What to do with a deletion record. Revisions are those at which object and record were seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RecordStep {
    /// It has been carried out, or is about an object that does not exist any more.
    Remove { id: ObjectId, record: i64 },
    /// Delete its object, and the record with it.
    Finish {
        id: ObjectId,
        object: i64,
        record: i64,
    },
    /// Delete its object; the record stays until no dependent is left.
    DeleteObject {
        id: ObjectId,
        object: i64,
        record: i64,
    },
    /// Write one: an object that has dependents of its own is to go dependents first, too.
    Pass {
        id: ObjectId,
        uid: String,
        object: i64,
        because: Vec<Reason>,
    },
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Objects to delete.
    pub(crate) delete: Vec<Removal>,
    /// Objects to take owners from.
    pub(crate) release: Vec<Release>,
    /// Statuses to delete.
    pub(crate) statuses: Vec<ObjectId>,
    /// Deletion records to move on.
    pub(crate) records: Vec<RecordStep>,
    /// Objects to look at again when this time has passed.
    pub(crate) later: Vec<(ObjectId, Duration)>,
    /// Why something was not done.
    pub(crate) notes: Vec<String>,
}

impl Plan {
    /// Takes in what another part of the objects asks for.
    pub(crate) fn append(&mut self, more: Self) {
        let Self {
            delete,
            release,
            statuses,
            records,
            later,
            notes,
        } = more;
        self.delete.extend(delete);
        self.release.extend(release);
        self.statuses.extend(statuses);
        self.records.extend(records);
        self.later.extend(later);
        self.notes.extend(notes);
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.delete.is_empty()
            && self.release.is_empty()
            && self.statuses.is_empty()
            && self.records.is_empty()
    }
}

struct Because<'a>(&'a [Reason]);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for reason in self.0 {
            match reason {
                Reason::Absent(id) => write!(f, ", {id} is gone")?,
                Reason::Replaced(id, at) => write!(f, ", {id} is another at {at}")?,
                Reason::Waits(id, at) => write!(f, ", {id} waits at {at}")?,
                Reason::Record(_, at) => write!(f, " by its record at {at}")?,
                Reason::Homeless => write!(f, ", its namespace is gone")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for r in &self.delete {
            let because = Because(&r.because);
            writeln!(f, "delete {} at {}{because}", r.id, r.mod_revision)?;
        }
        for r in &self.release {
            let (kept, because) = (r.keep.len(), Because(&r.because));
            writeln!(
                f,
                "release {} at {}, it keeps {kept} owners{because}",
                r.id, r.mod_revision
            )?;
        }
        for id in &self.statuses {
            writeln!(f, "delete status of {id}")?;
        }
        for step in &self.records {
            match step {
                RecordStep::Remove { id, record } => {
                    writeln!(f, "delete record of {id} at {record}")?
                }
                RecordStep::Finish { id, object, record } => {
                    writeln!(f, "delete {id} at {object} and its record at {record}")?
                }
                RecordStep::DeleteObject { id, object, record } => {
                    writeln!(f, "delete {id} at {object} and keep its record at {record}")?
                }
                RecordStep::Pass {
                    id,
                    object,
                    because,
                    ..
                } => {
                    let because = Because(because);
                    writeln!(f, "record {id} at {object} as leaving{because}")?
                }
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

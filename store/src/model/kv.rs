//! Keys with all their versions since the last compaction, and the changes in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::api::{
    DeleteRangeRequest, DeleteRangeResponse, KeyValue, PutRequest, PutResponse, RangeRequest,
    RangeResponse, ResponseHeader,
};
use super::error::ModelError;
use super::lease::Leases;
use super::range::{self, Span, span};

/// Bytes of a revision as a key of the database, and what a page needs beside it. An estimate.
const ENTRY_OVERHEAD: i64 = 17 + 16;

/// One change of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its revision.
    pub main: i64,
    /// Its place among the changes of that revision.
    pub sub: i64,
    /// Whether the key was deleted. Then `kv` has only the key and the revision.
    pub deleted: bool,
    /// The key as it was afterwards.
    pub kv: KeyValue,
}

impl Change {
    fn size(&self) -> i64 {
        i64::try_from(self.kv.encoded_len()).unwrap_or(i64::MAX) + ENTRY_OVERHEAD
    }
}

/// The versions of one key, oldest first.
type Versions = Vec<Arc<Change>>;

#[derive(Debug)]
pub(super) struct Kv {
    keys: BTreeMap<Bytes, Versions>,
    /// All changes since the last compaction, and what is left of its revision.
    log: VecDeque<Arc<Change>>,
    pub(super) revision: i64,
    pub(super) compacted: i64,
    bytes: i64,
}

impl Default for Kv {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            log: VecDeque::new(),
            // As etcd's: an empty store is at revision 1, and nothing has been compacted.
            revision: 1,
            compacted: -1,
            bytes: 0,
        }
    }
}

impl Kv {
    /// The key as of a revision.
    pub(super) fn at(&self, key: &[u8], revision: i64) -> Option<&Arc<Change>> {
        version_at(self.keys.get(key)?, revision)
    }

    /// The keys of a range as of a revision, in order.
    pub(super) fn scan<'a>(
        &'a self,
        key: &'a [u8],
        end: &'a [u8],
        revision: i64,
    ) -> impl Iterator<Item = &'a Arc<Change>> + 'a {
        let (one, many) = match span(key, end) {
            Span::One(key) => (self.keys.get(key), None),
            Span::Many(from, to) => (None, Some(self.keys.range::<[u8], _>((from, to)))),
            Span::Nothing => (None, None),
        };
        one.into_iter()
            .chain(many.into_iter().flatten().map(|(_, versions)| versions))
            .filter_map(move |versions| version_at(versions, revision))
    }

    /// The changes from a revision on, in order. Complete when the revision is not compacted.
    pub(super) fn changes_since(&self, revision: i64) -> impl Iterator<Item = &Arc<Change>> {
        let first = self.log.partition_point(|change| change.main < revision);
        self.log.range(first..)
    }

    /// Everything that is kept, in the order of keys.
    pub(super) fn versions(&self) -> impl Iterator<Item = &Arc<Change>> {
        self.keys.values().flatten()
    }

    /// Bytes that the versions take, roughly as a database would count.
    pub(super) fn bytes(&self) -> i64 {
        self.bytes
    }

    /// Forgets what no reader at `revision` or later can see.
    pub(super) fn compact(&mut self, revision: i64) -> Result<(), ModelError> {
        if revision <= self.compacted {
            return Err(ModelError::Compacted);
        }
        if revision > self.revision {
            return Err(ModelError::FutureRevision);
        }
        self.compacted = revision;
        let settled = self.log.partition_point(|change| change.main <= revision);
        let mut kept = Vec::new();
        for change in self.log.drain(..settled) {
            let Some(versions) = self.keys.get_mut(&change.kv.key) else {
                continue;
            };
            let keep_from = versions
                .partition_point(|version| version.main <= revision)
                .saturating_sub(1);
            for dropped in versions.drain(..keep_from) {
                self.bytes -= dropped.size();
            }
            // A deletion before the compacted revision says nothing any more; one of that revision still has its watchers.
            if let Some(first) = versions.first()
                && first.deleted
                && first.main < revision
            {
                self.bytes -= first.size();
                versions.remove(0);
            }
            if versions.is_empty() {
                self.keys.remove(&change.kv.key);
            } else if change.main == revision && Arc::ptr_eq(&versions[0], &change) {
                kept.push(change);
            }
        }
        for change in kept.into_iter().rev() {
            self.log.push_front(change);
        }
        Ok(())
    }

    /// Begins a write. Nothing of it shows before it is finished.
    pub(super) fn write<'a>(&'a mut self, leases: &'a mut Leases) -> Write<'a> {
        Write {
            main: self.revision + 1,
            sub: 0,
            kv: self,
            leases,
        }
    }

    /// From all versions that were kept, in order of revision.
    pub(super) fn restore(
        revision: i64,
        compacted: i64,
        changes: impl Iterator<Item = Change>,
    ) -> Self {
        let mut kv = Self {
            revision,
            compacted,
            ..Self::default()
        };
        for change in changes {
            kv.push(change);
        }
        let settled = kv.log.partition_point(|change| change.main < compacted);
        kv.log.drain(..settled);
        kv
    }

    fn push(&mut self, change: Change) {
        let change = Arc::new(change);
        self.bytes += change.size();
        match self.keys.get_mut(&change.kv.key) {
            Some(versions) => versions.push(Arc::clone(&change)),
            None => {
                self.keys
                    .insert(change.kv.key.clone(), vec![Arc::clone(&change)]);
            }
        }
        self.log.push_back(change);
    }
}

/// The newest version that is not newer than a revision, unless the key was deleted by then.
fn version_at(versions: &Versions, revision: i64) -> Option<&Arc<Change>> {
    let newest = match versions.last() {
        Some(last) if last.main <= revision => last,
        _ => {
            let newer = versions.partition_point(|version| version.main <= revision);
            versions.get(newer.checked_sub(1)?)?
        }
    };
    (!newest.deleted).then_some(newest)
}

/// A write in progress: everything it does has one revision.
pub(super) struct Write<'a> {
    kv: &'a mut Kv,
    leases: &'a mut Leases,
    main: i64,
    sub: i64,
}

impl Write<'_> {
    /// The revision that its reads are of: its own, once it has changed something.
    pub(super) fn revision(&self) -> i64 {
        if self.sub > 0 {
            self.main
        } else {
            self.main - 1
        }
    }

    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader {
            revision: self.revision(),
            ..ResponseHeader::default()
        })
    }

    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, ModelError> {
        range::read(self.kv, request, self.revision())
    }

    /// Writes a key. The lease has been checked.
    pub(super) fn put(&mut self, request: PutRequest) -> Result<PutResponse, ModelError> {
        let previous = self.kv.at(&request.key, self.main).cloned();
        let old = previous.as_ref().map(|change| &change.kv);
        let (mut value, mut lease) = (request.value, request.lease);
        if request.ignore_value || request.ignore_lease {
            let old = old.ok_or(ModelError::KeyNotFound)?;
            if request.ignore_value {
                value = old.value.clone();
            }
            if request.ignore_lease {
                lease = old.lease;
            }
        }
        let kv = KeyValue {
            create_revision: old.map_or(self.main, |old| old.create_revision),
            mod_revision: self.main,
            version: old.map_or(1, |old| old.version + 1),
            key: request.key,
            value,
            lease,
        };
        self.leases
            .reattach(&kv.key, old.map_or(0, |old| old.lease), lease);
        let prev_kv = old.filter(|_| request.prev_kv).cloned();
        self.push(kv, false);
        Ok(PutResponse {
            header: self.header(),
            prev_kv,
        })
    }

    pub(super) fn delete_range(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let found: Vec<_> = self
            .kv
            .scan(&request.key, &request.range_end, self.revision())
            .cloned()
            .collect();
        for change in &found {
            self.leases.reattach(&change.kv.key, change.kv.lease, 0);
            let kv = KeyValue {
                key: change.kv.key.clone(),
                mod_revision: self.main,
                ..KeyValue::default()
            };
            self.push(kv, true);
        }
        DeleteRangeResponse {
            header: self.header(),
            deleted: i64::try_from(found.len()).unwrap_or(i64::MAX),
            prev_kvs: if request.prev_kv {
                found.iter().map(|change| change.kv.clone()).collect()
            } else {
                Vec::new()
            },
        }
    }

    /// Makes it visible. Returns whether there was anything.
    pub(super) fn finish(self) -> bool {
        if self.sub > 0 {
            self.kv.revision = self.main;
        }
        self.sub > 0
    }

    fn push(&mut self, kv: KeyValue, deleted: bool) {
        self.kv.push(Change {
            main: self.main,
            sub: self.sub,
            deleted,
            kv,
        });
        self.sub += 1;
    }
}

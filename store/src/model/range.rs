//! Which keys a request means, and the options of a read.

use std::ops::Bound;

use bytes::Bytes;

use super::api::{KeyValue, RangeRequest, RangeResponse, ResponseHeader, SortOrder, SortTarget};
use super::error::ModelError;
use super::kv::Kv;

/// The range end that means "no end".
const NO_END: &[u8] = b"\0";

/// The keys of a request: one, those in `[key, end)`, or all from `key` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The key, or the first one.
    pub key: Bytes,
    /// The first key past the range, as the API has it: empty for one key, a zero byte for no end.
    pub end: Bytes,
}

impl KeyRange {
    /// From the two fields of a request.
    pub fn new(key: Bytes, end: Bytes) -> Self {
        Self { key, end }
    }

    /// Whether a key belongs to it.
    pub fn contains(&self, key: &[u8]) -> bool {
        if self.end.is_empty() {
            return self.key == key;
        }
        &*self.key <= key && (self.end == NO_END || key < &*self.end)
    }

    /// Whether no key can belong to it.
    pub fn is_empty(&self) -> bool {
        !self.end.is_empty() && self.end != NO_END && self.end <= self.key
    }
}

/// What a range is in an ordered map.
pub(super) enum Span<'a> {
    One(&'a [u8]),
    Many(Bound<&'a [u8]>, Bound<&'a [u8]>),
    Nothing,
}

pub(super) fn span<'a>(key: &'a [u8], end: &'a [u8]) -> Span<'a> {
    if end.is_empty() {
        Span::One(key)
    } else if end == NO_END {
        Span::Many(Bound::Included(key), Bound::Unbounded)
    } else if key < end {
        Span::Many(Bound::Included(key), Bound::Excluded(end))
    } else {
        Span::Nothing
    }
}

/// Reads a range at its revision, seen from `current`.
pub(super) fn read(
    kv: &Kv,
    request: &RangeRequest,
    current: i64,
) -> Result<RangeResponse, ModelError> {
    if request.revision > current {
        return Err(ModelError::FutureRevision);
    }
    let revision = if request.revision <= 0 {
        current
    } else {
        request.revision
    };
    if revision < kv.compacted {
        return Err(ModelError::Compacted);
    }
    let mut response = RangeResponse {
        header: Some(ResponseHeader {
            revision: current,
            ..ResponseHeader::default()
        }),
        ..RangeResponse::default()
    };
    let found = kv.scan(&request.key, &request.range_end, revision);
    if request.count_only {
        response.count = length(found.count());
        return Ok(response);
    }

    let (order, target) = (request.sort_order(), request.sort_target());
    let filtered = request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0;
    let limit = usize::try_from(request.limit).unwrap_or(0);
    // With an order or a filter everything is read before it is cut; with a target alone it is cut first. Odd, and etcd's.
    let fetch = if limit == 0 || filtered || order != SortOrder::None {
        usize::MAX
    } else {
        limit.saturating_add(1)
    };
    let mut total = 0;
    for change in found {
        total += 1;
        if response.kvs.len() < fetch && (!filtered || passes(request, &change.kv)) {
            response.kvs.push(change.kv.clone());
        }
    }
    response.count = length(total);
    sort(&mut response.kvs, order, target);
    if limit > 0 && response.kvs.len() > limit {
        response.kvs.truncate(limit);
        response.more = true;
    }
    if request.keys_only {
        for kv in &mut response.kvs {
            kv.value = Bytes::new();
        }
    }
    Ok(response)
}

fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn passes(request: &RangeRequest, kv: &KeyValue) -> bool {
    let within =
        |value: i64, min: i64, max: i64| (max == 0 || value <= max) && (min == 0 || value >= min);
    within(
        kv.mod_revision,
        request.min_mod_revision,
        request.max_mod_revision,
    ) && within(
        kv.create_revision,
        request.min_create_revision,
        request.max_create_revision,
    )
}

/// Sorts, equal ones in the order of their keys. (etcd's sort is stable for short lists only.)
fn sort(kvs: &mut [KeyValue], order: SortOrder, target: SortTarget) {
    let descending = order == SortOrder::Descend;
    if target == SortTarget::Key {
        if descending {
            kvs.reverse();
        }
        return;
    }
    kvs.sort_by(|a, b| {
        let (a, b) = if descending { (b, a) } else { (a, b) };
        match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        }
    });
}

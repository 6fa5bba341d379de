//! What etcd refuses before it looks at any key: malformed requests, too many operations, writes of one key that collide,
//! requests that are too large or do not fit into the quota.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;

use super::api::{
    Compare, DeleteRangeRequest, Op, PutRequest, RangeRequest, RequestOp, SortOrder, SortTarget,
    TxnRequest,
};
use super::error::ModelError;

/// What etcd reckons for a key beside its bytes.
const KEY_COST: usize = 256;

/// What etcd reckons for a lease.
pub(super) const LEASE_COST: i64 = 64;

/// Bytes that etcd puts around a request before it measures it: an id of ten bytes, and the tags. One or two more than
/// there are for small ids and requests.
const ENVELOPE: usize = 19;

pub(super) fn range(request: &RangeRequest) -> Result<(), ModelError> {
    key(&request.key)?;
    if SortOrder::try_from(request.sort_order).is_err()
        || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(ModelError::InvalidSortOption);
    }
    Ok(())
}

pub(super) fn put(request: &PutRequest) -> Result<(), ModelError> {
    key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(ModelError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(ModelError::LeaseProvided);
    }
    Ok(())
}

pub(super) fn delete_range(request: &DeleteRangeRequest) -> Result<(), ModelError> {
    key(&request.key)
}

fn key(key: &Bytes) -> Result<(), ModelError> {
    if key.is_empty() {
        return Err(ModelError::EmptyKey);
    }
    Ok(())
}

/// A transaction as a whole: what its parts are, how many, and that no key can be written twice.
pub(super) fn txn(request: &TxnRequest, max_operations: usize) -> Result<(), ModelError> {
    parts(request, max_operations)?;
    writes(&request.success)?;
    writes(&request.failure)?;
    Ok(())
}

/// A level has as many operations as its longest list, and leaves the rest of the limit to what is nested in it.
fn parts(request: &TxnRequest, limit: usize) -> Result<(), ModelError> {
    let longest = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    let left = limit
        .checked_sub(longest)
        .ok_or(ModelError::TooManyOperations)?;
    for Compare { key: compared, .. } in &request.compare {
        key(compared)?;
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Op::Range(request)) => range(request)?,
            Some(Op::Put(request)) => put(request)?,
            Some(Op::DeleteRange(request)) => delete_range(request)?,
            Some(Op::Txn(request)) => parts(request, left)?,
            None => return Err(ModelError::KeyNotFound),
        }
    }
    Ok(())
}

/// What a list of operations may write, with all that is nested in it.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deleted_keys: BTreeSet<&'a [u8]>,
    deleted_ranges: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Writes<'a> {
    fn deletes(&self, key: &[u8]) -> bool {
        self.deleted_keys.contains(key)
            || self
                .deleted_ranges
                .iter()
                .any(|(start, end)| *start <= key && key < *end)
    }

    fn put(&mut self, key: &'a [u8]) -> Result<(), ModelError> {
        if self.deletes(key) || !self.puts.insert(key) {
            return Err(ModelError::DuplicateKey);
        }
        Ok(())
    }

    fn absorb_deletes(&mut self, other: Writes<'a>) {
        self.deleted_keys.extend(other.deleted_keys);
        self.deleted_ranges.extend(other.deleted_ranges);
    }
}

/// Refuses keys that could be put twice, or deleted and put. Exactly as far as etcd does: a key that one nested
/// transaction puts and a *later* one deletes passes, and so does a deletion without an end, which etcd compares by its
/// literal range end.
fn writes(ops: &[RequestOp]) -> Result<Writes<'_>, ModelError> {
    let mut all = Writes::default();
    for op in ops {
        if let Some(Op::DeleteRange(request)) = &op.request {
            if request.range_end.is_empty() {
                all.deleted_keys.insert(&request.key);
            } else {
                all.deleted_ranges.push((&request.key, &request.range_end));
            }
        }
    }
    for op in ops {
        if let Some(Op::Txn(request)) = &op.request {
            let (then, or_else) = (writes(&request.success)?, writes(&request.failure)?);
            for key in &then.puts {
                all.put(key)?;
            }
            for key in &or_else.puts {
                // One of the two branches runs, so both may put it.
                if !then.puts.contains(key) {
                    all.put(key)?;
                }
            }
            all.absorb_deletes(then);
            all.absorb_deletes(or_else);
        }
    }
    for op in ops {
        if let Some(Op::Put(request)) = &op.request {
            all.put(&request.key)?;
        }
    }
    Ok(all)
}

/// Whether a transaction is nothing but reads. A nested one never counts as that.
pub(super) fn is_read_only(request: &TxnRequest) -> bool {
    request
        .success
        .iter()
        .chain(&request.failure)
        .all(|op| matches!(op.request, Some(Op::Range(_))))
}

/// Whether a request is small enough.
pub(super) fn size(request: &impl Message, limit: usize) -> Result<(), ModelError> {
    if request.encoded_len() + ENVELOPE > limit {
        return Err(ModelError::RequestTooLarge);
    }
    Ok(())
}

/// What a put costs of the quota, in bytes.
pub(super) fn put_cost(request: &PutRequest) -> i64 {
    let cost = KEY_COST + request.key.len() + request.value.len();
    i64::try_from(cost).unwrap_or(i64::MAX)
}

/// What a transaction costs of the quota: its more expensive branch.
pub(super) fn txn_cost(request: &TxnRequest) -> i64 {
    let branch = |ops: &[RequestOp]| -> i64 {
        ops.iter()
            .map(|op| match &op.request {
                Some(Op::Put(request)) => put_cost(request),
                Some(Op::Txn(request)) => txn_cost(request),
                _ => 0,
            })
            .sum()
    };
    branch(&request.success).max(branch(&request.failure))
}

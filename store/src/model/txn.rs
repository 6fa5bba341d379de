//! Transactions: which branches run is settled before anything is written.

use std::cmp::Ordering;

use bytes::Bytes;

use super::api::{
    Compare, CompareResult, CompareTarget, KeyValue, Op, OpResponse, PutRequest, RangeRequest,
    RequestOp, ResponseHeader, ResponseOp, TargetUnion, TxnRequest, TxnResponse,
};
use super::error::ModelError;
use super::kv::{Kv, Write};
use super::lease::Leases;
use super::range::KeyRange;

/// The branch a transaction takes, and those of the transactions nested in that branch.
pub(super) struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

impl Path {
    fn branch<'a>(&self, request: &'a TxnRequest) -> &'a [RequestOp] {
        if self.succeeded {
            &request.success
        } else {
            &request.failure
        }
    }
}

/// Evaluates all compares, nested ones too, against the store as it is.
pub(super) fn path(kv: &Kv, request: &TxnRequest) -> Path {
    let mut path = Path {
        succeeded: request.compare.iter().all(|compare| holds(kv, compare)),
        nested: Vec::new(),
    };
    for op in path.branch(request) {
        if let Some(Op::Txn(nested)) = &op.request {
            path.nested.push(self::path(kv, nested));
        }
    }
    path
}

/// Refuses what could not be carried out. What passes cannot fail any more.
pub(super) fn check(
    kv: &Kv,
    leases: &Leases,
    request: &TxnRequest,
    path: &Path,
) -> Result<(), ModelError> {
    check_branch(kv, leases, request, path, &mut Vec::new())
}

fn check_branch(
    kv: &Kv,
    leases: &Leases,
    request: &TxnRequest,
    path: &Path,
    deleted: &mut Vec<KeyRange>,
) -> Result<(), ModelError> {
    let mut nested = path.nested.iter();
    for op in path.branch(request) {
        match &op.request {
            Some(Op::Range(request)) => check_range(kv, request)?,
            Some(Op::Put(request)) => {
                check_put(kv, leases, request)?;
                // etcd accepts this, and then stops in the middle: the key is gone when it is its turn.
                if (request.ignore_value || request.ignore_lease)
                    && deleted.iter().any(|range| range.contains(&request.key))
                {
                    return Err(ModelError::KeyNotFound);
                }
            }
            Some(Op::DeleteRange(request)) => deleted.push(KeyRange::new(
                request.key.clone(),
                request.range_end.clone(),
            )),
            Some(Op::Txn(request)) => {
                if let Some(path) = nested.next() {
                    check_branch(kv, leases, request, path, deleted)?;
                }
            }
            None => {}
        }
    }
    Ok(())
}

/// Reads of a transaction are held against the store before it, so one of its own revision is one of the future.
fn check_range(kv: &Kv, request: &RangeRequest) -> Result<(), ModelError> {
    match request.revision {
        0 => Ok(()),
        revision if revision > kv.revision => Err(ModelError::FutureRevision),
        revision if revision < kv.compacted => Err(ModelError::Compacted),
        _ => Ok(()),
    }
}

fn check_put(kv: &Kv, leases: &Leases, request: &PutRequest) -> Result<(), ModelError> {
    if (request.ignore_value || request.ignore_lease) && kv.at(&request.key, kv.revision).is_none()
    {
        return Err(ModelError::KeyNotFound);
    }
    if request.lease != 0 && leases.get(request.lease).is_none() {
        return Err(ModelError::LeaseNotFound);
    }
    Ok(())
}

/// Carries it out. An error here would be one that `check` overlooked.
pub(super) fn execute(
    write: &mut Write<'_>,
    request: TxnRequest,
    path: &Path,
) -> Result<TxnResponse, ModelError> {
    let ops = if path.succeeded {
        request.success
    } else {
        request.failure
    };
    let mut response = TxnResponse {
        // A nested answer has an empty header; the outermost gets its own at the end.
        header: Some(ResponseHeader::default()),
        succeeded: path.succeeded,
        responses: Vec::with_capacity(ops.len()),
    };
    let mut nested = path.nested.iter();
    for op in ops {
        let answer = match op.request {
            Some(Op::Range(request)) => Some(OpResponse::Range(write.range(&request)?)),
            Some(Op::Put(request)) => Some(OpResponse::Put(write.put(request)?)),
            Some(Op::DeleteRange(request)) => {
                Some(OpResponse::DeleteRange(write.delete_range(&request)))
            }
            Some(Op::Txn(request)) => match nested.next() {
                Some(path) => Some(OpResponse::Txn(execute(write, request, path)?)),
                None => None,
            },
            None => None,
        };
        response.responses.push(ResponseOp { response: answer });
    }
    Ok(response)
}

fn holds(kv: &Kv, compare: &Compare) -> bool {
    let mut found = kv
        .scan(&compare.key, &compare.range_end, kv.revision)
        .peekable();
    if found.peek().is_none() {
        // What does not exist compares like zeros, but it has no value, not even an empty one.
        return compare.target() != CompareTarget::Value
            && holds_for(compare, &KeyValue::default());
    }
    found.all(|change| holds_for(compare, &change.kv))
}

fn holds_for(compare: &Compare, kv: &KeyValue) -> bool {
    let union = compare.target_union.as_ref();
    // A number of another target counts as none given.
    let ordering = match (CompareTarget::try_from(compare.target), union) {
        (Ok(CompareTarget::Version), Some(TargetUnion::Version(number))) => kv.version.cmp(number),
        (Ok(CompareTarget::Version), _) => kv.version.cmp(&0),
        (Ok(CompareTarget::Create), Some(TargetUnion::CreateRevision(number))) => {
            kv.create_revision.cmp(number)
        }
        (Ok(CompareTarget::Create), _) => kv.create_revision.cmp(&0),
        (Ok(CompareTarget::Mod), Some(TargetUnion::ModRevision(number))) => {
            kv.mod_revision.cmp(number)
        }
        (Ok(CompareTarget::Mod), _) => kv.mod_revision.cmp(&0),
        (Ok(CompareTarget::Value), Some(TargetUnion::Value(value))) => kv.value.cmp(value),
        (Ok(CompareTarget::Value), _) => kv.value.cmp(&Bytes::new()),
        (Ok(CompareTarget::Lease), Some(TargetUnion::Lease(number))) => kv.lease.cmp(number),
        (Ok(CompareTarget::Lease), _) => kv.lease.cmp(&0),
        (Err(_), _) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}

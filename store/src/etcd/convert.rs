//! Between the trait's vocabulary and etcd's messages. Values are moved or shared, never copied.

use std::sync::atomic::{AtomicU64, Ordering};

use super::wire::{self, CompareResult, CompareTarget, Request, Response, TargetUnion};
use crate::types::{
    Compare, Event, EventKind, KeyValue, LeaseId, Page, Revision, Txn, TxnOp, TxnResult,
};

/// Turns a transaction into a request.
pub(super) fn txn_request(txn: Txn) -> wire::TxnRequest {
    wire::TxnRequest {
        compare: txn.compares.into_iter().map(compare).collect(),
        success: txn.then.into_iter().map(request_op).collect(),
        failure: txn.or_else.into_iter().map(request_op).collect(),
    }
}

fn compare(compare: Compare) -> wire::Compare {
    let (key, range_end, result, target, union) = match compare {
        Compare::ModRevision(key, revision) => (
            key,
            Vec::new(),
            CompareResult::Equal,
            CompareTarget::Mod,
            TargetUnion::ModRevision(revision),
        ),
        Compare::CreateRevision(key, revision) => (
            key,
            Vec::new(),
            CompareResult::Equal,
            CompareTarget::Create,
            TargetUnion::CreateRevision(revision),
        ),
        Compare::Exists(key) => (
            key,
            Vec::new(),
            CompareResult::Greater,
            CompareTarget::Version,
            TargetUnion::Version(0),
        ),
        Compare::RangeUnchangedSince {
            start,
            end,
            revision,
        } => (
            start,
            end.into_bytes(),
            CompareResult::Less,
            CompareTarget::Mod,
            TargetUnion::ModRevision(revision.saturating_add(1)),
        ),
    };
    wire::Compare {
        result: result.into(),
        target: target.into(),
        key: key.into_bytes(),
        range_end,
        target_union: Some(union),
    }
}

fn request_op(op: TxnOp) -> wire::RequestOp {
    let request = match op {
        TxnOp::Put(put) => Request::Put(wire::PutRequest {
            key: put.key.into_bytes(),
            value: put.value,
            lease: put.lease.map_or(0, |lease| lease.0),
        }),
        TxnOp::Delete(key) => Request::DeleteRange(wire::DeleteRangeRequest {
            key: key.into_bytes(),
            range_end: Vec::new(),
        }),
        TxnOp::DeleteRange { start, end } => Request::DeleteRange(wire::DeleteRangeRequest {
            key: start.into_bytes(),
            range_end: end.into_bytes(),
        }),
        TxnOp::Get(key) => Request::Range(wire::RangeRequest {
            key: key.into_bytes(),
            ..wire::RangeRequest::default()
        }),
        TxnOp::Txn(txn) => Request::Txn(txn_request(*txn)),
    };
    wire::RequestOp {
        request: Some(request),
    }
}

/// Turns an answer into the result of the transaction. Nested answers get the outer revision: etcd gives them none.
pub(super) fn txn_result(response: wire::TxnResponse, skipped: &AtomicU64) -> TxnResult {
    let revision = revision_of(response.header.as_ref());
    nested_result(response, revision, skipped)
}

fn nested_result(
    response: wire::TxnResponse,
    revision: Revision,
    skipped: &AtomicU64,
) -> TxnResult {
    let mut result = TxnResult {
        succeeded: response.succeeded,
        revision,
        nested: Vec::with_capacity(response.responses.len()),
        reads: Vec::new(),
    };
    for op in response.responses {
        let mut nested = None;
        match op.response {
            Some(Response::Range(range)) => {
                result.reads.push(
                    range
                        .kvs
                        .into_iter()
                        .next()
                        .and_then(|kv| key_value(kv, skipped)),
                );
            }
            Some(Response::Txn(inner)) => nested = Some(nested_result(inner, revision, skipped)),
            Some(Response::Put(_) | Response::DeleteRange(_)) | None => {}
        }
        result.nested.push(nested);
    }
    result
}

/// Turns an answer into a page.
pub(super) fn page(response: wire::RangeResponse, skipped: &AtomicU64) -> Page {
    Page {
        revision: revision_of(response.header.as_ref()),
        kvs: response
            .kvs
            .into_iter()
            .filter_map(|kv| key_value(kv, skipped))
            .collect(),
        more: response.more,
        count: response.count,
    }
}

/// The revision that a header names.
pub(super) fn revision_of(header: Option<&wire::ResponseHeader>) -> Revision {
    Revision(header.map_or(0, |header| header.revision))
}

/// A key with its value; `None`, and counted, when the key is not UTF-8.
pub(super) fn key_value(kv: wire::KeyValue, skipped: &AtomicU64) -> Option<KeyValue> {
    match String::from_utf8(kv.key) {
        Ok(key) => Some(KeyValue {
            key,
            value: kv.value,
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            lease: (kv.lease != 0).then_some(LeaseId(kv.lease)),
        }),
        Err(_) => {
            skipped.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// An event; `None`, and counted, when its key is not UTF-8.
pub(super) fn event(event: wire::Event, skipped: &AtomicU64) -> Option<Event> {
    let kind = if event.kind == wire::EVENT_DELETE {
        EventKind::Delete
    } else {
        EventKind::Put
    };
    key_value(event.kv?, skipped).map(|kv| Event { kind, kv })
}

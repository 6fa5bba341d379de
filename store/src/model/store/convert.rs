//! Between the trait's vocabulary and the model's messages. Keys and values are moved or shared.

use bytes::Bytes;

use crate::error::StoreError;
use crate::model::ModelError;
use crate::model::api;
use crate::types::{
    Compare, Event, EventKind, KeyValue, LeaseId, Page, RangeRequest, Revision, ServerStatus, Txn,
    TxnOp, TxnResult, WatchBatch,
};

pub(super) fn range_request(request: RangeRequest) -> api::RangeRequest {
    api::RangeRequest {
        key: request.start.into(),
        range_end: request.end.into(),
        limit: request.limit,
        revision: request.revision.map_or(0, |revision| revision.0),
        keys_only: request.keys_only,
        count_only: request.count_only,
        ..api::RangeRequest::default()
    }
}

pub(super) fn txn_request(txn: Txn) -> api::TxnRequest {
    api::TxnRequest {
        compare: txn.compares.into_iter().map(compare).collect(),
        success: txn.then.into_iter().map(op).collect(),
        failure: txn.or_else.into_iter().map(op).collect(),
    }
}

fn compare(compare: Compare) -> api::Compare {
    use api::{CompareResult, CompareTarget, TargetUnion};
    let (key, range_end, result, target, union) = match compare {
        Compare::ModRevision(key, revision) => (
            key,
            String::new(),
            CompareResult::Equal,
            CompareTarget::Mod,
            TargetUnion::ModRevision(revision),
        ),
        Compare::CreateRevision(key, revision) => (
            key,
            String::new(),
            CompareResult::Equal,
            CompareTarget::Create,
            TargetUnion::CreateRevision(revision),
        ),
        Compare::Exists(key) => (
            key,
            String::new(),
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
            end,
            CompareResult::Less,
            CompareTarget::Mod,
            TargetUnion::ModRevision(revision.saturating_add(1)),
        ),
    };
    api::Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        range_end: range_end.into(),
        target_union: Some(union),
    }
}

fn op(op: TxnOp) -> api::RequestOp {
    match op {
        TxnOp::Put(put) => api::Op::Put(api::PutRequest {
            key: put.key.into(),
            value: put.value,
            lease: put.lease.map_or(0, |lease| lease.0),
            ..api::PutRequest::default()
        }),
        TxnOp::Delete(key) => delete(key, String::new()),
        TxnOp::DeleteRange { start, end } => delete(start, end),
        TxnOp::Get(key) => api::Op::Range(api::RangeRequest {
            key: key.into(),
            ..api::RangeRequest::default()
        }),
        TxnOp::Txn(txn) => api::Op::Txn(txn_request(*txn)),
    }
    .into()
}

fn delete(start: String, end: String) -> api::Op {
    api::Op::DeleteRange(api::DeleteRangeRequest {
        key: start.into(),
        range_end: end.into(),
        prev_kv: false,
    })
}

pub(super) fn txn_result(response: api::TxnResponse) -> TxnResult {
    let revision = revision_of(response.header.as_ref());
    nested_result(response, revision)
}

/// Nested answers get the outer revision, as from etcd.
fn nested_result(response: api::TxnResponse, revision: Revision) -> TxnResult {
    let mut result = TxnResult {
        succeeded: response.succeeded,
        revision,
        nested: Vec::with_capacity(response.responses.len()),
        reads: Vec::new(),
    };
    for op in response.responses {
        let mut nested = None;
        match op.response {
            Some(api::OpResponse::Range(range)) => {
                let read = range.kvs.into_iter().next();
                result.reads.push(read.and_then(key_value));
            }
            Some(api::OpResponse::Txn(inner)) => nested = Some(nested_result(inner, revision)),
            Some(api::OpResponse::Put(_) | api::OpResponse::DeleteRange(_)) | None => {}
        }
        result.nested.push(nested);
    }
    result
}

pub(super) fn page(response: api::RangeResponse) -> Page {
    Page {
        revision: revision_of(response.header.as_ref()),
        kvs: response.kvs.into_iter().filter_map(key_value).collect(),
        more: response.more,
        count: response.count,
    }
}

pub(super) fn batch(events: Vec<api::Event>, revision: i64) -> WatchBatch {
    let event = |event: api::Event| {
        let kind = if event.r#type == i32::from(api::EventType::Delete) {
            EventKind::Delete
        } else {
            EventKind::Put
        };
        key_value(event.kv?).map(|kv| Event { kind, kv })
    };
    WatchBatch {
        revision: Revision(revision),
        events: events.into_iter().filter_map(event).collect(),
    }
}

pub(super) fn status(status: api::StatusResponse) -> ServerStatus {
    ServerStatus {
        revision: revision_of(status.header.as_ref()),
        alarms: ["NOSPACE", "CORRUPT"]
            .into_iter()
            .filter(|alarm| status.errors.iter().any(|text| text.contains(alarm)))
            .map(str::to_owned)
            .collect(),
        version: status.version,
        db_size_bytes: status.db_size,
        db_size_in_use_bytes: status.db_size_in_use,
        has_leader: status.leader != 0,
    }
}

fn revision_of(header: Option<&api::ResponseHeader>) -> Revision {
    Revision(header.map_or(0, |header| header.revision))
}

/// `None` when the key is not UTF-8, as readers of etcd skip it.
fn key_value(kv: api::KeyValue) -> Option<KeyValue> {
    Some(KeyValue {
        key: text(&kv.key)?,
        value: kv.value,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: (kv.lease != 0).then_some(LeaseId(kv.lease)),
    })
}

fn text(key: &Bytes) -> Option<String> {
    std::str::from_utf8(key).ok().map(str::to_owned)
}

/// The trait's error for a refusal, in the words that a client of etcd would use.
pub(super) fn store_error(error: ModelError, context: String) -> StoreError {
    let message = error.to_string();
    let message = message.trim_start_matches("etcdserver: ").to_owned();
    match error {
        ModelError::Compacted => StoreError::Compacted {
            context,
            compact_revision: 0,
        },
        ModelError::NoSpace => StoreError::NoSpace { context },
        ModelError::LeaseNotFound => StoreError::LeaseNotFound { context },
        ModelError::TooManyOperations | ModelError::RequestTooLarge => {
            StoreError::TooLarge { context, message }
        }
        ModelError::EmptyKey
        | ModelError::KeyNotFound
        | ModelError::ValueProvided
        | ModelError::LeaseProvided
        | ModelError::DuplicateKey
        | ModelError::InvalidSortOption
        | ModelError::FutureRevision
        | ModelError::LeaseExists
        | ModelError::LeaseTtlTooLarge => StoreError::Invalid { context, message },
    }
}

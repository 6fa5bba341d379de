//! The messages of etcd's API that carry keys and values, as this crate sends and receives them.
//!
//! They are the same on the wire as those that `etcd-client` generates (a test holds them against each other), with one
//! difference in memory: values are [`Bytes`], so that a value is neither copied out of a received message nor cloned
//! when a transaction is built, kept, and sent again. Messages without values are used as `etcd-client` has them.

use bytes::Bytes;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResponseHeader {
    #[prost(uint64, tag = "1")]
    pub(crate) cluster_id: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) member_id: u64,
    #[prost(int64, tag = "3")]
    pub(crate) revision: i64,
    #[prost(uint64, tag = "4")]
    pub(crate) raft_term: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(int64, tag = "2")]
    pub(crate) create_revision: i64,
    #[prost(int64, tag = "3")]
    pub(crate) mod_revision: i64,
    #[prost(int64, tag = "4")]
    pub(crate) version: i64,
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) value: Bytes,
    #[prost(int64, tag = "6")]
    pub(crate) lease: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(crate) limit: i64,
    #[prost(int64, tag = "4")]
    pub(crate) revision: i64,
    #[prost(bool, tag = "8")]
    pub(crate) keys_only: bool,
    #[prost(bool, tag = "9")]
    pub(crate) count_only: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) kvs: Vec<KeyValue>,
    #[prost(bool, tag = "3")]
    pub(crate) more: bool,
    #[prost(int64, tag = "4")]
    pub(crate) count: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: Bytes,
    #[prost(int64, tag = "3")]
    pub(crate) lease: i64,
}

/// The answer to a put or a range delete. What they answer is not asked for.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WriteResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DeleteRangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) range_end: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RequestOp {
    #[prost(oneof = "Request", tags = "1, 2, 3, 4")]
    pub(crate) request: Option<Request>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Request {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeRequest),
    #[prost(message, tag = "4")]
    Txn(TxnRequest),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResponseOp {
    #[prost(oneof = "Response", tags = "1, 2, 3, 4")]
    pub(crate) response: Option<Response>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Response {
    #[prost(message, tag = "1")]
    Range(RangeResponse),
    #[prost(message, tag = "2")]
    Put(WriteResponse),
    #[prost(message, tag = "3")]
    DeleteRange(WriteResponse),
    #[prost(message, tag = "4")]
    Txn(TxnResponse),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum CompareResult {
    Equal = 0,
    Greater = 1,
    Less = 2,
    NotEqual = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum CompareTarget {
    Version = 0,
    Create = 1,
    Mod = 2,
    Value = 3,
    Lease = 4,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Compare {
    #[prost(enumeration = "CompareResult", tag = "1")]
    pub(crate) result: i32,
    #[prost(enumeration = "CompareTarget", tag = "2")]
    pub(crate) target: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "64")]
    pub(crate) range_end: Vec<u8>,
    #[prost(oneof = "TargetUnion", tags = "4, 5, 6")]
    pub(crate) target_union: Option<TargetUnion>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum TargetUnion {
    #[prost(int64, tag = "4")]
    Version(i64),
    #[prost(int64, tag = "5")]
    CreateRevision(i64),
    #[prost(int64, tag = "6")]
    ModRevision(i64),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) success: Vec<RequestOp>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) failure: Vec<RequestOp>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TxnResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(bool, tag = "2")]
    pub(crate) succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    pub(crate) responses: Vec<ResponseOp>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WatchRequest {
    #[prost(oneof = "WatchUnion", tags = "1, 3")]
    pub(crate) request_union: Option<WatchUnion>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum WatchUnion {
    #[prost(message, tag = "1")]
    Create(WatchCreateRequest),
    #[prost(message, tag = "3")]
    Progress(WatchProgressRequest),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WatchProgressRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WatchCreateRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(crate) start_revision: i64,
    #[prost(bool, tag = "8")]
    pub(crate) fragment: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(int64, tag = "2")]
    pub(crate) watch_id: i64,
    #[prost(bool, tag = "3")]
    pub(crate) created: bool,
    #[prost(bool, tag = "4")]
    pub(crate) canceled: bool,
    #[prost(int64, tag = "5")]
    pub(crate) compact_revision: i64,
    #[prost(string, tag = "6")]
    pub(crate) cancel_reason: String,
    #[prost(bool, tag = "7")]
    pub(crate) fragment: bool,
    #[prost(message, repeated, tag = "11")]
    pub(crate) events: Vec<Event>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Event {
    /// 0 for a put, 1 for a deletion.
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) kv: Option<KeyValue>,
}

/// The kind of an [`Event`] that deletes.
pub(crate) const EVENT_DELETE: i32 = 1;

#[cfg(test)]
mod tests {
    use etcd_client::proto as theirs;
    use prost::Message;

    use super::*;

    /// Our encoding decodes as the generated message and encodes to the same bytes again.
    fn same<Ours: Message + Default + PartialEq, Theirs: Message + Default>(ours: &Ours) {
        let bytes = ours.encode_to_vec();
        let theirs = Theirs::decode(bytes.as_slice()).unwrap();
        let back = Ours::decode(theirs.encode_to_vec().as_slice()).unwrap();
        assert!(&back == ours);
        assert!(
            theirs.encoded_len() == bytes.len(),
            "a field of ours is unknown to the generated message"
        );
    }

    fn header() -> Option<ResponseHeader> {
        Some(ResponseHeader {
            cluster_id: 1,
            member_id: 2,
            revision: 3,
            raft_term: 4,
        })
    }

    fn kv() -> KeyValue {
        KeyValue {
            key: b"k".to_vec(),
            create_revision: 1,
            mod_revision: 2,
            version: 3,
            value: Bytes::from_static(b"v"),
            lease: 4,
        }
    }

    #[test]
    fn requests_are_those_of_the_generated_api() {
        let range = RangeRequest {
            key: b"a".to_vec(),
            range_end: b"b".to_vec(),
            limit: 5,
            revision: 6,
            keys_only: true,
            count_only: true,
        };
        same::<_, theirs::PbRangeRequest>(&range);
        let compare = |union| Compare {
            result: CompareResult::Less.into(),
            target: CompareTarget::Mod.into(),
            key: b"a".to_vec(),
            range_end: b"b".to_vec(),
            target_union: Some(union),
        };
        let op = |request| RequestOp {
            request: Some(request),
        };
        let txn = TxnRequest {
            compare: vec![
                compare(TargetUnion::Version(1)),
                compare(TargetUnion::CreateRevision(2)),
                compare(TargetUnion::ModRevision(3)),
            ],
            success: vec![
                op(Request::Range(range)),
                op(Request::Put(PutRequest {
                    key: b"k".to_vec(),
                    value: Bytes::from_static(b"v"),
                    lease: 7,
                })),
                op(Request::DeleteRange(DeleteRangeRequest {
                    key: b"a".to_vec(),
                    range_end: b"b".to_vec(),
                })),
            ],
            failure: vec![op(Request::Txn(TxnRequest {
                compare: vec![],
                success: vec![],
                failure: vec![],
            }))],
        };
        same::<_, theirs::PbTxnRequest>(&txn);
        for union in [
            WatchUnion::Create(WatchCreateRequest {
                key: b"a".to_vec(),
                range_end: b"b".to_vec(),
                start_revision: 9,
                fragment: true,
            }),
            WatchUnion::Progress(WatchProgressRequest {}),
        ] {
            same::<_, theirs::PbWatchRequest>(&WatchRequest {
                request_union: Some(union),
            });
        }
    }

    #[test]
    fn responses_are_those_of_the_generated_api() {
        let range = RangeResponse {
            header: header(),
            kvs: vec![kv(), kv()],
            more: true,
            count: 3,
        };
        same::<_, theirs::PbRangeResponse>(&range);
        let op = |response| ResponseOp {
            response: Some(response),
        };
        let txn = TxnResponse {
            header: header(),
            succeeded: true,
            responses: vec![
                op(Response::Range(range)),
                op(Response::Put(WriteResponse { header: header() })),
                op(Response::DeleteRange(WriteResponse { header: header() })),
                op(Response::Txn(TxnResponse {
                    header: None,
                    succeeded: true,
                    responses: vec![],
                })),
            ],
        };
        same::<_, theirs::PbTxnResponse>(&txn);
        let watch = WatchResponse {
            header: header(),
            watch_id: 1,
            created: true,
            canceled: true,
            compact_revision: 4,
            cancel_reason: "why".into(),
            fragment: true,
            events: vec![Event {
                kind: EVENT_DELETE,
                kv: Some(kv()),
            }],
        };
        same::<_, theirs::PbWatchResponse>(&watch);
    }
}

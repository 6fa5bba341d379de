//! Random requests over few keys, leases and revisions, so that they meet.

use bytes::Bytes;
use fastrand::Rng;
use setpoint_store::model::api::{
    CompactionRequest, Compare, DeleteRangeRequest, HashKvRequest, LeaseGrantRequest,
    LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, Op, PutRequest,
    RangeRequest, RequestOp, TargetUnion, TxnRequest, WatchCreateRequest,
};
use setpoint_store::model::{Model, Request};

/// All keys that are ever written. Not all are text.
pub(super) const KEYS: [&[u8]; 7] = [b"a", b"a\0", b"a\xff", b"b", b"b/1", b"c", b"\xff\xfe"];

const VALUES: [&[u8]; 5] = [b"", b"1", b"2", b"\0\xff", b"a longer value"];

/// Long enough never to expire during a test.
const TTL: i64 = 100_000;

pub(super) struct Generator {
    pub(super) rng: Rng,
    /// The revision that the sequence began at.
    pub(super) base: i64,
    /// Whether the server checks how a range is to be sorted. 3.4 does not.
    pub(super) checks_sorting: bool,
}

impl Generator {
    /// Whether to do what happens once in so many times.
    pub(super) fn one_in(&mut self, times: u32) -> bool {
        self.rng.u32(0..times) == 0
    }

    fn key(&mut self) -> Bytes {
        if self.one_in(60) {
            return Bytes::new();
        }
        Bytes::from_static(KEYS[self.rng.usize(0..KEYS.len())])
    }

    /// A range end: mostly none, a later key, or no end; sometimes one that makes no sense.
    fn end(&mut self) -> Bytes {
        match self.rng.u32(0..8) {
            0..4 => Bytes::new(),
            4 => Bytes::from_static(b"\0"),
            5 => Bytes::from_static(b"b"),
            6 => Bytes::from_static(b"d"),
            _ => self.key(),
        }
    }

    fn value(&mut self) -> Bytes {
        Bytes::from_static(VALUES[self.rng.usize(0..VALUES.len())])
    }

    fn lease(&mut self) -> i64 {
        [0, 0, 1, 2, 3, -7][self.rng.usize(0..6)]
    }

    /// A revision around those that there are.
    pub(super) fn revision(&mut self, model: &Model) -> i64 {
        let current = model.revision();
        match self.rng.u32(0..10) {
            0..4 => 0,
            4 => model.compacted() - 1,
            5 => model.compacted(),
            6 => current,
            7 if self.one_in(3) => current + 1,
            8 if self.one_in(3) => -self.rng.i64(1..4),
            _ => self.rng.i64(self.base - 1..=current),
        }
    }

    fn bound(&mut self, model: &Model) -> i64 {
        if self.one_in(5) {
            self.revision(model)
        } else {
            0
        }
    }

    fn unknown_sorting(&mut self) -> i32 {
        if self.one_in(60) && self.checks_sorting {
            7
        } else {
            0
        }
    }

    pub(super) fn range(&mut self, model: &Model) -> RangeRequest {
        RangeRequest {
            key: self.key(),
            range_end: self.end(),
            limit: [0, 0, 0, 1, 2, 3, -1][self.rng.usize(0..7)],
            revision: self.revision(model),
            sort_order: self.rng.i32(0..3) + self.unknown_sorting(),
            sort_target: self.rng.i32(0..5) + self.unknown_sorting(),
            serializable: self.rng.bool(),
            keys_only: self.one_in(4),
            count_only: self.one_in(5),
            min_mod_revision: self.bound(model),
            max_mod_revision: self.bound(model),
            min_create_revision: self.bound(model),
            max_create_revision: self.bound(model),
        }
    }

    pub(super) fn put(&mut self) -> PutRequest {
        let (ignore_value, ignore_lease) = (self.one_in(8), self.one_in(8));
        PutRequest {
            key: self.key(),
            value: if ignore_value && !self.one_in(8) {
                Bytes::new()
            } else {
                self.value()
            },
            lease: if ignore_lease && !self.one_in(8) {
                0
            } else {
                self.lease()
            },
            prev_kv: self.rng.bool(),
            ignore_value,
            ignore_lease,
        }
    }

    pub(super) fn delete_range(&mut self) -> DeleteRangeRequest {
        DeleteRangeRequest {
            key: self.key(),
            range_end: self.end(),
            prev_kv: self.rng.bool(),
        }
    }

    fn compare(&mut self, model: &Model) -> Compare {
        let union = |rng: &mut Self| match rng.rng.u32(0..6) {
            0 => Some(TargetUnion::Version(rng.rng.i64(0..3))),
            1 => Some(TargetUnion::CreateRevision(rng.revision(model))),
            2 => Some(TargetUnion::ModRevision(rng.revision(model))),
            3 => Some(TargetUnion::Value(rng.value())),
            4 => Some(TargetUnion::Lease(rng.lease())),
            _ => None,
        };
        let target_union = union(self);
        // Mostly the target that the operand belongs to.
        let target = match &target_union {
            Some(TargetUnion::Version(_)) => 0,
            Some(TargetUnion::CreateRevision(_)) => 1,
            Some(TargetUnion::ModRevision(_)) => 2,
            Some(TargetUnion::Value(_)) => 3,
            Some(TargetUnion::Lease(_)) => 4,
            None => self.rng.i32(0..5),
        };
        Compare {
            result: self.rng.i32(0..4) + if self.one_in(60) { 7 } else { 0 },
            target: if self.one_in(20) {
                self.rng.i32(0..6)
            } else {
                target
            },
            key: self.key(),
            target_union,
            range_end: self.end(),
        }
    }

    fn op(&mut self, model: &Model, depth: u32) -> RequestOp {
        let op = match self.rng.u32(0..10) {
            0 | 1 => Op::Range(self.range(model)),
            2..6 => Op::Put(self.put()),
            6 | 7 => Op::DeleteRange(self.delete_range()),
            _ if depth < 3 => Op::Txn(self.txn(model, depth + 1)),
            _ if self.one_in(20) => return RequestOp::default(),
            _ => Op::Put(self.put()),
        };
        op.into()
    }

    pub(super) fn txn(&mut self, model: &Model, depth: u32) -> TxnRequest {
        let mut list = |most: usize| -> Vec<RequestOp> {
            (0..self.rng.usize(0..=most))
                .map(|_| self.op(model, depth))
                .collect()
        };
        let (success, failure) = (list(4), list(3));
        let mut request = TxnRequest {
            compare: Vec::new(),
            success,
            failure,
        };
        for _ in 0..self.rng.usize(0..3) {
            let compare = self.compare(model);
            request.compare.push(compare);
        }
        if depth == 0 && deletes_without_end(&request) {
            // etcd accepts such a put of a key that the deletion has just taken, and dies of it.
            ignore_nothing(&mut request);
        }
        request
    }

    pub(super) fn request(&mut self, model: &Model) -> Request {
        match self.rng.u32(0..32) {
            0..7 => Request::Range(self.range(model)),
            7..14 => Request::Put(self.put()),
            14..17 => Request::DeleteRange(self.delete_range()),
            17..25 => Request::Txn(self.txn(model, 0)),
            25 => Request::LeaseGrant(LeaseGrantRequest {
                ttl: if self.one_in(10) { i64::MAX } else { TTL },
                id: match self.lease() {
                    0 => 1,
                    id => id,
                },
            }),
            26 => Request::LeaseRevoke(LeaseRevokeRequest { id: self.lease() }),
            27 => Request::LeaseKeepAlive(LeaseKeepAliveRequest { id: self.lease() }),
            28 => Request::LeaseTimeToLive(LeaseTimeToLiveRequest {
                id: self.lease(),
                keys: true,
            }),
            29 => Request::LeaseLeases,
            30 => Request::HashKv(HashKvRequest {
                // Since 3.6 etcd remembers the hashes that it took when it compacted, of the history before that.
                revision: match self.revision(model) {
                    revision if revision > model.compacted() => revision,
                    _ => 0,
                },
            }),
            _ => Request::Compact(CompactionRequest {
                revision: self.revision(model),
                physical: true,
            }),
        }
    }

    pub(super) fn watch(&mut self, model: &Model) -> WatchCreateRequest {
        let filters = match self.rng.u32(0..8) {
            0 => vec![0],
            1 => vec![1],
            _ => Vec::new(),
        };
        WatchCreateRequest {
            key: self.key(),
            range_end: self.end(),
            start_revision: self.revision(model).max(0),
            filters,
            prev_kv: self.rng.bool(),
            ..WatchCreateRequest::default()
        }
    }
}

fn ops(request: &TxnRequest) -> impl Iterator<Item = &RequestOp> {
    request.success.iter().chain(&request.failure)
}

/// Whether somewhere in it is a deletion whose range end does not say how far it goes.
fn deletes_without_end(request: &TxnRequest) -> bool {
    ops(request).any(|op| match &op.request {
        Some(Op::DeleteRange(delete)) => &*delete.range_end == b"\0",
        Some(Op::Txn(nested)) => deletes_without_end(nested),
        _ => false,
    })
}

fn ignore_nothing(request: &mut TxnRequest) {
    for op in request.success.iter_mut().chain(&mut request.failure) {
        match &mut op.request {
            Some(Op::Put(put)) => (put.ignore_value, put.ignore_lease) = (false, false),
            Some(Op::Txn(nested)) => ignore_nothing(nested),
            _ => {}
        }
    }
}

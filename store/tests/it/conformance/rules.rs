//! Rules of etcd's API that the project relies on, and that only the whole API shows.

use std::time::Instant;

use bytes::Bytes;
use setpoint_store::Revision;
use setpoint_store::model::api::{
    AlarmAction, AlarmRequest, AlarmType, CompactionRequest, Compare, CompareTarget,
    DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, Op, PutRequest, RangeRequest, RequestOp, TargetUnion, TxnRequest,
    TxnResponse,
};
use setpoint_store::model::{Request, Response};
use tonic::{Code, Status};

use crate::servers::{SHORTEST_LEASE, Subject};
use crate::support::{events, short, watching};

fn put(key: &str, value: impl Into<Bytes>) -> PutRequest {
    PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.into(),
        ..PutRequest::default()
    }
}

fn delete(key: &str, end: &'static [u8]) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::from_static(end),
        prev_kv: false,
    }
}

/// The key's version is this.
fn version_is(key: &str, version: i64) -> Compare {
    Compare {
        target: CompareTarget::Version.into(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        target_union: Some(TargetUnion::Version(version)),
        ..Compare::default()
    }
}

fn when(compare: Vec<Compare>, success: Vec<Op>) -> TxnRequest {
    TxnRequest {
        compare,
        success: success.into_iter().map(RequestOp::from).collect(),
        failure: Vec::new(),
    }
}

async fn txn(subject: &Subject, request: TxnRequest) -> Result<TxnResponse, Status> {
    match subject.call(Request::Txn(request)).await? {
        Response::Txn(response) => Ok(response),
        other => panic!("{other:?}"),
    }
}

async fn refused(subject: &Subject, request: TxnRequest) -> (Code, String) {
    let status = txn(subject, request).await.unwrap_err();
    (status.code(), status.message().to_owned())
}

pub(super) async fn all_compares_come_before_any_write(subject: &Subject) {
    let key = subject.prefix("order");
    let nested = |version: i64| Op::Txn(when(vec![version_is(&key, version)], Vec::new()));
    let request = when(
        Vec::new(),
        vec![
            nested(0),
            Op::Put(put(&key, "v")),
            nested(0),
            nested(1),
            Op::Range(RangeRequest {
                key: Bytes::copy_from_slice(key.as_bytes()),
                ..RangeRequest::default()
            }),
        ],
    );
    let response = txn(subject, request).await.unwrap();
    let answers: Vec<_> = response
        .responses
        .into_iter()
        .filter_map(|op| op.response)
        .collect();
    use setpoint_store::model::api::OpResponse;
    let held: Vec<_> = answers
        .iter()
        .filter_map(|answer| match answer {
            OpResponse::Txn(nested) => Some(nested.succeeded),
            _ => None,
        })
        .collect();
    assert_eq!(held, [true, true, false]);
    // Reads are another matter: they see what was written before them.
    assert!(matches!(&answers[4], OpResponse::Range(range) if range.count == 1));
}

pub(super) async fn operations_are_counted_along_one_path(subject: &Subject) {
    let prefix = subject.prefix("path");
    let puts = |name: &str, count: usize| -> Vec<Op> {
        (0..count)
            .map(|n| Op::Put(put(&format!("{prefix}/{name}{n}"), "v")))
            .collect()
    };
    // 100 nested ones that each put one: one level has 100, the next 1.
    let wide = (0..100)
        .map(|n| Op::Txn(when(Vec::new(), puts(&format!("w{n}-"), 1))))
        .collect();
    txn(subject, when(Vec::new(), wide)).await.unwrap();
    // Whichever list is longer counts, and the compares are one of them.
    let deep = |compares: usize, inner: usize| {
        when(
            vec![version_is(&prefix, 0); compares],
            vec![Op::Txn(when(Vec::new(), puts("d", inner)))],
        )
    };
    txn(subject, deep(8, 120)).await.unwrap();
    let too_many = (
        Code::InvalidArgument,
        "etcdserver: too many operations in txn request".to_owned(),
    );
    assert_eq!(refused(subject, deep(9, 120)).await, too_many);
    assert_eq!(
        refused(subject, when(Vec::new(), puts("f", 129))).await,
        too_many
    );
}

pub(super) async fn a_key_is_written_once_in_a_transaction(subject: &Subject) {
    let key = subject.prefix("twice");
    let write = || Op::Put(put(&key, "v"));
    let remove = || Op::DeleteRange(delete(&key, b""));
    let remove_range = || {
        Op::DeleteRange(DeleteRangeRequest {
            range_end: format!("{key}~").into(),
            ..delete(&key, b"")
        })
    };
    let nested = |ops: Vec<Op>| Op::Txn(when(Vec::new(), ops));
    let duplicate = (
        Code::InvalidArgument,
        "etcdserver: duplicate key given in txn request".to_owned(),
    );
    for ops in [
        vec![write(), write()],
        vec![write(), remove()],
        vec![remove(), write()],
        vec![write(), remove_range()],
        vec![remove_range(), write()],
        vec![write(), nested(vec![write()])],
        vec![nested(vec![write()]), nested(vec![write()])],
        vec![nested(vec![remove()]), nested(vec![write()])],
        vec![nested(vec![remove()]), write()],
        vec![write(), nested(vec![remove()])],
    ] {
        assert_eq!(
            refused(subject, when(Vec::new(), ops.clone())).await,
            duplicate,
            "{ops:?}"
        );
    }
    // Branches of which only one runs may both put it.
    let either = Op::Txn(TxnRequest {
        failure: vec![write().into()],
        ..when(Vec::new(), vec![write()])
    });
    txn(subject, when(Vec::new(), vec![either])).await.unwrap();
    // What one nested transaction puts, a later one may delete.
    for ops in [
        vec![remove(), remove(), remove_range()],
        vec![nested(vec![write()]), nested(vec![remove()])],
    ] {
        txn(subject, when(Vec::new(), ops)).await.unwrap();
    }
    assert_eq!(subject.store.get(&key).await.unwrap().0, None);
}

pub(super) async fn a_lease_ends_at_one_revision(subject: &Subject) {
    let prefix = subject.prefix("end");
    let Ok(Response::LeaseGrant(lease)) = subject
        .call(Request::LeaseGrant(LeaseGrantRequest { ttl: 600, id: 0 }))
        .await
    else {
        panic!("no lease")
    };
    assert!(lease.id > 0);
    let mut first = 0;
    for name in ["b", "c", "a"] {
        let request = PutRequest {
            lease: lease.id,
            ..put(&format!("{prefix}/{name}"), "v")
        };
        match subject.call(Request::Put(request)).await {
            Ok(Response::Put(response)) if first == 0 => {
                first = response.header.unwrap().revision;
            }
            Ok(_) => {}
            Err(status) => panic!("{status}"),
        }
    }
    let keys = LeaseTimeToLiveRequest {
        id: lease.id,
        keys: true,
    };
    match subject.call(Request::LeaseTimeToLive(keys)).await {
        Ok(Response::LeaseTimeToLive(left)) => {
            assert_eq!((left.granted_ttl, left.keys.len()), (600, 3));
            assert!((590..=600).contains(&left.ttl), "{}", left.ttl);
        }
        other => panic!("{other:?}"),
    }
    let path = format!("{prefix}/");
    let mut watch = subject
        .store
        .watch(watching(&path, Some(Revision(first))))
        .await
        .unwrap();
    let revoke = LeaseRevokeRequest { id: lease.id };
    subject.call(Request::LeaseRevoke(revoke)).await.unwrap();
    let seen = events(&mut watch, 6).await;
    assert_eq!(
        short(&path, &seen),
        ["+b=v", "+c=v", "+a=v", "-a", "-b", "-c"]
    );
    let revisions: Vec<_> = seen[3..]
        .iter()
        .map(|event| event.kv.mod_revision)
        .collect();
    assert!(revisions.iter().all(|revision| *revision == revisions[0]));
}

pub(super) async fn leases_have_limits(subject: &Subject) {
    let grant =
        |ttl: i64, id: i64| subject.call(Request::LeaseGrant(LeaseGrantRequest { ttl, id }));
    let mut id = 0x5e7_0001;
    let asked = loop {
        let asked = Instant::now();
        match grant(1, id).await {
            Ok(Response::LeaseGrant(granted)) => {
                assert_eq!((granted.id, granted.ttl), (id, 2), "the shortest there is");
            }
            other => panic!("{other:?}"),
        }
        match grant(5, id).await {
            Err(twice) => {
                assert_eq!(
                    (twice.code(), twice.message()),
                    (Code::FailedPrecondition, "etcdserver: lease already exists")
                );
                break asked;
            }
            // It was over by then, which proves nothing.
            Ok(_) => assert!(asked.elapsed() >= SHORTEST_LEASE, "granted twice"),
        }
        let revoke = LeaseRevokeRequest { id };
        subject.call(Request::LeaseRevoke(revoke)).await.unwrap();
        id += 1;
    };
    let long = grant(9_000_000_001, 0).await.unwrap_err();
    assert_eq!(
        (long.code(), long.message()),
        (Code::OutOfRange, "etcdserver: too large lease TTL")
    );
    // It expires, not before its time; then it is unknown.
    let alive = || async {
        match subject
            .call(Request::LeaseTimeToLive(LeaseTimeToLiveRequest {
                id,
                keys: false,
            }))
            .await
        {
            Ok(Response::LeaseTimeToLive(left)) => left.ttl >= 0,
            other => panic!("{other:?}"),
        }
    };
    crate::support::until("the end of the lease", || async { !alive().await }).await;
    assert!(asked.elapsed() >= SHORTEST_LEASE);
    match subject
        .call(Request::LeaseKeepAlive(LeaseKeepAliveRequest { id }))
        .await
    {
        Ok(Response::LeaseKeepAlive(gone)) => assert_eq!(gone.ttl, 0),
        other => panic!("{other:?}"),
    }
    let revoked = subject
        .call(Request::LeaseRevoke(LeaseRevokeRequest { id }))
        .await
        .unwrap_err();
    assert_eq!(
        (revoked.code(), revoked.message()),
        (Code::NotFound, "etcdserver: requested lease not found")
    );
}

pub(super) async fn a_request_has_a_largest_size(subject: &Subject) {
    let key = subject.prefix("size");
    const LIMIT: usize = 1_572_864;
    // Around the value: the key, the tags, an id. Some bytes, which differ from request to request by one or two.
    for (bytes, fits) in [(LIMIT - 64, true), (LIMIT, false)] {
        let answer = subject
            .call(Request::Put(put(&key, vec![b'x'; bytes])))
            .await;
        match answer {
            Ok(_) => assert!(fits, "{bytes}"),
            Err(status) => assert!(
                !fits
                    && (status.code(), status.message())
                        == (Code::InvalidArgument, "etcdserver: request is too large"),
                "{bytes}: {status}"
            ),
        }
    }
    subject
        .call(Request::DeleteRange(delete(&key, b"")))
        .await
        .unwrap();
}

pub(super) async fn a_full_store_takes_nothing_but_deletions(subject: &Subject) {
    let fill = |n: usize| put(&format!("/full/{}", n % 4), vec![b'x'; 500_000]);
    let mut written = 0;
    let full = loop {
        match subject.call(Request::Put(fill(written))).await {
            Ok(_) => written += 1,
            Err(status) => break status,
        }
        assert!(written < 100, "the quota is not heeded");
    };
    assert!(written > 1);
    let no_space = (
        Code::ResourceExhausted,
        "etcdserver: mvcc: database space exceeded",
    );
    assert_eq!((full.code(), full.message()), no_space);
    // The alarm stands; what is small is refused as well.
    crate::support::until("the alarm", || async {
        subject.store.status().await.unwrap().alarms == ["NOSPACE"]
    })
    .await;
    let small = subject
        .call(Request::Put(put("/full/small", "v")))
        .await
        .unwrap_err();
    assert_eq!((small.code(), small.message()), no_space);
    let grant = LeaseGrantRequest { ttl: 60, id: 0 };
    let grant = subject.call(Request::LeaseGrant(grant)).await.unwrap_err();
    assert_eq!((grant.code(), grant.message()), no_space);
    // Reads and deletions go on, in transactions too.
    let reads = when(
        vec![version_is("/full/0", 0)],
        vec![Op::Put(put("/full/small", "v"))],
    );
    assert_eq!(
        refused(subject, reads).await,
        (no_space.0, no_space.1.to_owned()),
        "what it could cost counts, not what it does"
    );
    let removes = when(Vec::new(), vec![Op::DeleteRange(delete("/full/0", b""))]);
    txn(subject, removes).await.unwrap();
    let gone = subject
        .call(Request::DeleteRange(delete("/full/", b"/full0")))
        .await;
    let Ok(Response::DeleteRange(gone)) = gone else {
        panic!("{gone:?}")
    };
    assert!(gone.deleted > 0);
    // Compacted, defragmented and disarmed it is as before.
    subject
        .compact(Revision(gone.header.unwrap().revision))
        .await;
    subject.call(Request::Defragment).await.unwrap();
    let list = AlarmRequest::default();
    let Ok(Response::Alarm(alarms)) = subject.call(Request::Alarm(list)).await else {
        panic!("no list of alarms")
    };
    assert_eq!(alarms.alarms.len(), 1);
    let disarm = AlarmRequest {
        action: AlarmAction::Deactivate.into(),
        member_id: alarms.alarms[0].member_id,
        alarm: AlarmType::NoSpace.into(),
    };
    subject.call(Request::Alarm(disarm)).await.unwrap();
    crate::support::until("a put", || async {
        subject
            .call(Request::Put(put("/full/small", "v")))
            .await
            .is_ok()
    })
    .await;
    let size = subject.store.status().await.unwrap().db_size_bytes;
    assert!(size < 1_000_000, "{size}");
}

pub(super) async fn compactions_go_forward(subject: &Subject) {
    let compact = |revision: i64| {
        subject.call(Request::Compact(CompactionRequest {
            revision,
            physical: true,
        }))
    };
    let gone = (
        Code::OutOfRange,
        "etcdserver: mvcc: required revision has been compacted".to_owned(),
    );
    let future = (
        Code::OutOfRange,
        "etcdserver: mvcc: required revision is a future revision".to_owned(),
    );
    let error = |status: Status| (status.code(), status.message().to_owned());
    let mut revision = 0;
    for _ in 0..3 {
        match subject.call(Request::Put(put("/k", "v"))).await {
            Ok(Response::Put(response)) => revision = response.header.unwrap().revision,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(error(compact(-1).await.unwrap_err()), gone);
    assert_eq!(error(compact(revision + 1).await.unwrap_err()), future);
    compact(0).await.unwrap();
    assert_eq!(error(compact(0).await.unwrap_err()), gone);
    compact(revision - 1).await.unwrap();
    assert_eq!(error(compact(revision - 1).await.unwrap_err()), gone);
    compact(revision).await.unwrap();
    let read = |revision: i64| {
        subject.call(Request::Range(RangeRequest {
            key: Bytes::from_static(b"/k"),
            revision,
            ..RangeRequest::default()
        }))
    };
    assert_eq!(error(read(revision - 1).await.unwrap_err()), gone);
    match read(revision).await {
        Ok(Response::Range(range)) => assert_eq!((range.count, range.kvs[0].version), (1, 3)),
        other => panic!("{other:?}"),
    }
}

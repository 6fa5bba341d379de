use etcd_client::proto::{PbPutRequest, PbRangeRequest, PbResponseHeader, PbResponseOp};

use super::*;

/// A DATA frame with one gRPC message.
fn frame(stream: u32, ends: bool, message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len() + 5).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([DATA, u8::from(ends)]);
    frame.extend(stream.to_be_bytes());
    frame.push(0);
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    frame
}

fn put(key: &str) -> PbTxnRequestOp {
    let put = PbPutRequest {
        key: key.into(),
        value: b"v".to_vec(),
        ..PbPutRequest::default()
    };
    PbTxnRequestOp {
        request: Some(PbTxnOpRequest::RequestPut(put)),
    }
}

fn guarded(key: &str, revision: i64, op: PbTxnRequestOp) -> PbTxnRequest {
    PbTxnRequest {
        compare: vec![PbCompare {
            key: key.into(),
            target_union: Some(PbTargetUnion::ModRevision(revision)),
            ..PbCompare::default()
        }],
        success: vec![op],
        failure: Vec::new(),
    }
}

/// Two transactions in one, as group commit sends them.
fn batch() -> PbTxnRequest {
    let nested = |request| PbTxnRequestOp {
        request: Some(PbTxnOpRequest::RequestTxn(request)),
    };
    PbTxnRequest {
        success: vec![
            nested(guarded("/fence", 7, put("/a"))),
            nested(guarded("/fence", 6, put("/b"))),
        ],
        ..PbTxnRequest::default()
    }
}

fn answer(revision: i64) -> PbTxnResponse {
    let nested = |succeeded| PbResponseOp {
        response: Some(PbTxnOpResponse::ResponseTxn(PbTxnResponse {
            succeeded,
            ..PbTxnResponse::default()
        })),
    };
    PbTxnResponse {
        header: Some(PbResponseHeader {
            revision,
            ..PbResponseHeader::default()
        }),
        succeeded: true,
        responses: vec![nested(true), nested(false)],
    }
}

fn tap() -> (Arc<Wire>, Tap) {
    let wire = Arc::<Wire>::default();
    let sender = Sender {
        name: "a".into(),
        life: 1,
    };
    (Arc::clone(&wire), Tap::new(wire, sender))
}

#[test]
fn transactions_are_read_whatever_the_pieces_they_come_in() {
    let mut requests = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let range = PbRangeRequest {
        key: b"/setpoint/x".to_vec(),
        ..PbRangeRequest::default()
    };
    requests.extend(frame(1, true, &range));
    requests.extend(frame(3, true, &batch()));
    // Settings, whose payload is nobody's business.
    let mut answers = vec![0, 0, 3, 4, 0, 0, 0, 0, 0, 1, 2, 3];
    answers.extend(frame(3, false, &answer(9)));
    for size in [1, 2, 7, 64, requests.len()] {
        let (wire, tap) = tap();
        requests.chunks(size).for_each(|piece| tap.request(piece));
        let sent = wire.transactions();
        assert_eq!(sent.len(), 1, "the range is none: {sent:?}");
        assert_eq!(sent[0].answered, None);
        assert!(sent[0].items.iter().all(|i| i.done.is_none()));
        answers.chunks(size).for_each(|piece| tap.answer(piece));
        let sent = &wire.transactions()[0];
        assert_eq!(sent.answered, Some(9));
        let done = |key: &str| sent.explains(key, Some(b"v"));
        assert_eq!(done("/a").unwrap().guards[0].mod_revision, Some(7));
        assert!(done("/b").is_none(), "its guard did not hold");
        assert!(sent.explains("/a", Some(b"w")).is_none());
        assert!(sent.explains("/a", None).is_none());
    }
}

#[test]
fn what_has_no_answer_may_have_been_done() {
    let (wire, tap) = tap();
    tap.request(&[0; PREFACE]);
    tap.request(&frame(5, true, &batch()));
    let sent = &wire.transactions()[0];
    assert!(sent.explains("/b", Some(b"v")).is_some());
}

//! What a watch tells, and when, held against a disk that is slow at the wrong moment.

use std::fs::File;
use std::io;

use bytes::Bytes;
use futures::poll;
use parking_lot::Mutex;

use super::*;
use crate::devstore::Options;
use crate::devstore::log::reserve_room;
use crate::model::Request;
use crate::model::api::{CompactionRequest, PutRequest};

/// While a test holds this the log of [`held_up`] does not get any further.
static DISK: Mutex<()> = Mutex::new(());

fn held_up(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let _held = DISK.lock();
    reserve_room(file, offset, length)
}

fn put(value: usize) -> Request {
    Request::Put(PutRequest {
        key: Bytes::from_static(b"k"),
        value: vec![7; value].into(),
        ..PutRequest::default()
    })
}

#[tokio::test]
#[expect(
    clippy::await_holding_lock,
    reason = "the thread of the log waits for it, and no task does"
)]
async fn a_watch_that_is_cancelled_for_compaction_tells_no_revision_that_is_not_on_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        directory: Some(directory.path().into()),
        log_chunk_bytes: 2 << 20,
        reserve_room: held_up,
        ..Options::default()
    };
    let (engine, _) = Engine::open(options).unwrap();
    let engine = Arc::new(engine);
    engine.call(put(1)).await.unwrap();
    engine.call(put(1)).await.unwrap();
    let compact = CompactionRequest {
        revision: 3,
        physical: false,
    };
    engine.call(Request::Compact(compact)).await.unwrap();
    let (answers, mut told) = mpsc::channel(QUEUE);
    let mut watches = Watches {
        engine: Arc::clone(&engine),
        signal: Arc::default(),
        answers,
        watches: BTreeMap::new(),
        ids: BTreeMap::new(),
        next: 0,
        progress_wanted: false,
    };
    let request = WatchCreateRequest {
        key: Bytes::from_static(b"k"),
        start_revision: 1,
        ..WatchCreateRequest::default()
    };
    assert!(watches.create(request).await.is_ok());
    let watcher = *watches.ids.keys().next().unwrap();

    let disk = DISK.lock();
    // More than half a chunk: the log asks for room now, and waits for it.
    engine.call(put(1_200_000)).await.unwrap();
    let mut before = Box::pin(engine.call(put(1)));
    assert!(poll!(&mut before).is_pending(), "it is not on the disk");
    let mut forward = Box::pin(watches.forward(watcher));
    assert!(poll!(&mut forward).is_pending(), "it waits for what it saw");
    let mut after = Box::pin(engine.call(put(1)));
    assert!(poll!(&mut after).is_pending());
    drop(disk);
    assert!(forward.await.is_ok());
    before.await.unwrap();
    after.await.unwrap();

    assert!(told.recv().await.unwrap().unwrap().created);
    let canceled = told.recv().await.unwrap().unwrap();
    assert!(canceled.canceled);
    assert_eq!(canceled.compact_revision, 3);
    // 4 is the large one, 5 what the watch saw, and 6 came after it.
    assert_eq!(canceled.header.unwrap().revision, 5);
}

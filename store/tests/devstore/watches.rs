//! Watches through etcd's client library.

use std::time::Duration;

use etcd_client::{Client, EventType, WatchFilterType, WatchOptions, WatchStream};
use setpoint_store::devstore::Options;

use crate::server::{LONG, Server};

async fn next(stream: &mut WatchStream) -> etcd_client::WatchResponse {
    tokio::time::timeout(LONG, stream.message())
        .await
        .expect("it comes")
        .expect("the stream is sound")
        .expect("the stream goes on")
}

/// A watch that stands, and its id.
async fn watching(client: &mut Client, key: &str, options: WatchOptions) -> (WatchStream, i64) {
    let mut stream = client.watch(key, Some(options)).await.unwrap();
    let created = next(&mut stream).await;
    assert!(created.created() && !created.canceled());
    (stream, created.watch_id())
}

fn shown(response: &etcd_client::WatchResponse) -> Vec<String> {
    response
        .events()
        .iter()
        .map(|event| {
            let kv = event.kv().expect("an event has a key");
            let sign = match event.event_type() {
                EventType::Put => '+',
                EventType::Delete => '-',
            };
            let before = event
                .prev_kv()
                .map(|kv| format!(" was {}", kv.value_str().unwrap()))
                .unwrap_or_default();
            format!("{sign}{}{before}", kv.key_str().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn one_stream_carries_many_watches_each_with_its_options() {
    let server = Server::memory().await;
    let mut client = server.client().await;
    client.put("a/1", "x", None).await.unwrap();
    client.put("b/1", "y", None).await.unwrap();
    let now = client.get("a/1", None).await.unwrap();
    let revision = now.header().unwrap().revision();

    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(2)
        .with_prev_key();
    let (mut stream, first) = watching(&mut client, "a/", options).await;
    let past = next(&mut stream).await;
    assert_eq!(
        (past.watch_id(), shown(&past)),
        (first, vec!["+a/1".into()])
    );

    let deletions = WatchOptions::new()
        .with_prefix()
        .with_watch_id(77)
        .with_filters([WatchFilterType::NoPut]);
    stream.watch("b/", Some(deletions)).await.unwrap();
    let created = next(&mut stream).await;
    assert!(created.created());
    assert_eq!(created.watch_id(), 77);
    assert_eq!(created.header().unwrap().revision(), revision);

    // The same id again, and a range that cannot be.
    let again = WatchOptions::new().with_watch_id(77);
    stream.watch("c", Some(again)).await.unwrap();
    let refused = next(&mut stream).await;
    assert!(refused.created() && refused.canceled());
    assert_eq!(refused.watch_id(), -1);
    assert_eq!(
        refused.cancel_reason(),
        "mvcc: duplicate watch ID provided on the WatchStream"
    );
    let empty = WatchOptions::new().with_range("a");
    stream.watch("b", Some(empty)).await.unwrap();
    assert_eq!(
        next(&mut stream).await.cancel_reason(),
        "mvcc: watcher range is empty"
    );

    let future = WatchOptions::new()
        .with_watch_id(5)
        .with_start_revision(revision + 3);
    stream.watch("f", Some(future)).await.unwrap();
    assert_eq!(next(&mut stream).await.watch_id(), 5);

    client.put("a/1", "z", None).await.unwrap();
    let changed = next(&mut stream).await;
    assert_eq!(
        (changed.watch_id(), shown(&changed)),
        (first, vec!["+a/1 was x".into()])
    );
    client.put("f", "too early", None).await.unwrap();
    client.put("b/2", "filtered", None).await.unwrap();
    client.delete("b/1", None).await.unwrap();
    let deleted = next(&mut stream).await;
    assert_eq!(
        (deleted.watch_id(), shown(&deleted)),
        (77, vec!["-b/1".into()])
    );
    client.put("f", "now", None).await.unwrap();
    let begun = next(&mut stream).await;
    assert_eq!((begun.watch_id(), shown(&begun)), (5, vec!["+f".into()]));

    stream.cancel(77).await.unwrap();
    let canceled = next(&mut stream).await;
    assert!(canceled.canceled());
    assert_eq!((canceled.watch_id(), canceled.compact_revision()), (77, 0));
    server.stop().await;
}

#[tokio::test]
async fn a_watch_of_compacted_history_is_cancelled_with_the_revision() {
    let server = Server::memory().await;
    let mut client = server.client().await;
    for n in 0..5 {
        client.put("k", n.to_string(), None).await.unwrap();
    }
    client.compact(5, None).await.unwrap();
    let options = WatchOptions::new().with_start_revision(3);
    let (mut stream, _) = watching(&mut client, "k", options).await;
    let canceled = next(&mut stream).await;
    assert!(canceled.canceled());
    assert_eq!(canceled.compact_revision(), 5);
    server.stop().await;
}

#[tokio::test]
async fn quiet_watches_are_told_how_far_the_store_is() {
    let server = Server::start(Options {
        progress_interval: Duration::from_millis(200),
        ..Options::default()
    })
    .await;
    let mut client = server.client().await;
    let options = WatchOptions::new().with_progress_notify();
    let (mut stream, id) = watching(&mut client, "quiet", options).await;
    let put = client.put("elsewhere", "1", None).await.unwrap();
    let revision = put.header().unwrap().revision();
    loop {
        let progress = next(&mut stream).await;
        assert!(progress.events().is_empty());
        assert_eq!(progress.watch_id(), id);
        if progress.header().unwrap().revision() == revision {
            break;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn progress_of_all_watches_is_told_when_it_is_asked_for() {
    let server = Server::memory().await;
    let mut client = server.client().await;
    let (mut stream, _) = watching(&mut client, "quiet", WatchOptions::new()).await;
    let put = client.put("elsewhere", "1", None).await.unwrap();
    stream.request_progress().await.unwrap();
    let progress = next(&mut stream).await;
    assert_eq!(progress.watch_id(), -1);
    let (told, made) = (progress.header().unwrap(), put.header().unwrap());
    assert_eq!(told.revision(), made.revision());
    assert_eq!(told.cluster_id(), made.cluster_id());
    server.stop().await;
}

#[tokio::test]
async fn a_large_answer_comes_in_fragments_to_those_who_want_them() {
    let server = Server::memory().await;
    let mut client = server.client().await;
    // As much as the library takes in one message.
    let count = 4;
    for n in 0..count {
        let value = vec![b'x'; 900_000];
        client.put(format!("big/{n}"), value, None).await.unwrap();
    }
    let options = || WatchOptions::new().with_prefix().with_start_revision(2);
    let (mut whole, _) = watching(&mut client, "big/", options()).await;
    assert_eq!(next(&mut whole).await.events().len(), count);

    let (mut parts, _) = watching(&mut client, "big/", options().with_fragment()).await;
    let mut events = Vec::new();
    let mut messages = 0;
    while events.len() < count {
        let part = next(&mut parts).await;
        assert!(part.events().len() <= 2, "at most two fit into 2 MiB");
        events.extend(shown(&part));
        messages += 1;
    }
    assert!(messages >= 2, "{messages}");
    assert_eq!(events[3], "+big/3");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_nobody_up_when_the_store_stops() {
    let server = Server::start(Options {
        // Only what is being carried out is worth that long a wait, and here that is nothing.
        stop_limit: LONG * 10,
        ..Options::default()
    })
    .await;
    let mut client = server.client().await;
    // More than the windows of a connection and the queue of the watch take.
    let value = "x".repeat(1 << 20);
    for n in 0..24 {
        client
            .put(format!("big/{n:02}"), value.clone(), None)
            .await
            .unwrap();
    }
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(2)
        .with_fragment();
    let (stream, _) = watching(&mut client, "big/", options).await;
    tokio::time::timeout(LONG, server.stop())
        .await
        .expect("it does not wait for the client");
    drop(stream);
}

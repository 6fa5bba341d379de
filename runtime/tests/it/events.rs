//! The recorder writes what people read, under leases that nobody has to keep alive, and is never in anybody's way.

use std::time::{Duration, Instant};

use setpoint_apis::core::{Event, Node, Pod};
use setpoint_apis::{KeyRange, ObjectKey, document};
use setpoint_runtime::Clock;
use setpoint_runtime::events::{EventRef, EventType, Recorder};
use setpoint_runtime::shutdown::CancellationToken;
use setpoint_store::group_commit::{GroupCommit, Options};
use setpoint_store::{KeyValue, RangeRequest};
use tokio::task::JoinHandle;

use crate::support::{Fixture, LIMIT, key};

struct Recording {
    recorder: Recorder,
    stop: CancellationToken,
    driver: JoinHandle<()>,
}

impl Recording {
    fn start(f: &Fixture, source: &str, node: Option<&str>) -> Self {
        let stop = CancellationToken::new();
        let commits = GroupCommit::new(f.store.clone(), Options::default());
        let (recorder, driver) = Recorder::new(
            f.store.clone(),
            commits,
            f.keyspace.clone(),
            Clock::system(),
            source,
            node.map(str::to_owned),
            stop.clone(),
        );
        Self {
            recorder,
            stop,
            driver: tokio::spawn(driver),
        }
    }

    /// Waits until so many documents have been written: a flush at the end gives up soon.
    async fn written(&self, count: u64) {
        let waited = tokio::time::timeout(LIMIT, async {
            while self.recorder.stats().written < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(waited.await.is_ok(), "{:?}", self.recorder.stats());
    }

    /// Ends the driver, with its last flush.
    async fn end(self) -> Recorder {
        self.stop.cancel();
        tokio::time::timeout(LIMIT, self.driver)
            .await
            .expect("a driver ends")
            .unwrap();
        self.recorder
    }
}

fn pod(name: &str) -> EventRef {
    EventRef::of::<Pod>(&key(name), "u-1")
}

async fn read(f: &Fixture, range: KeyRange) -> Vec<(KeyValue, Event)> {
    let request = RangeRequest {
        start: range.start,
        end: range.end,
        ..RangeRequest::default()
    };
    let page = f.store.range(request).await.unwrap();
    let decoded = |kv: KeyValue| {
        let event: Event = document::decode(&kv.value).unwrap();
        (kv, event)
    };
    page.kvs.into_iter().map(decoded).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_events_are_one_document_and_all_of_a_writer_share_a_lease() {
    let f = Fixture::start().await;
    let recording = Recording::start(&f, "scheduler", None);
    let begun = Instant::now();
    for _ in 0..5 {
        recording
            .recorder
            .warning(pod("a"), "FailedScheduling", "no node fits");
    }
    recording
        .recorder
        .normal(pod("b"), "Scheduled", "assigned to n1");
    let node = EventRef::of::<Node>(&ObjectKey::cluster("n1"), "");
    recording.recorder.normal(node, "NodeReady", "it is there");
    // Events are collected for a quarter of a second: what comes later may be written apart.
    let at_once = begun.elapsed() < Duration::from_millis(250);
    recording.written(3).await;
    let recorder = recording.end().await;

    let events = read(&f, f.keyspace.event_range("default")).await;
    let told: Vec<_> = events
        .iter()
        .map(|(_, e)| (e.reason.as_deref().unwrap(), e.count))
        .collect();
    assert_eq!(
        told,
        [
            ("FailedScheduling", Some(5)),
            ("Scheduled", Some(1)),
            ("NodeReady", Some(1))
        ]
    );
    let leases: Vec<_> = events.iter().map(|(kv, _)| kv.lease.unwrap()).collect();
    assert!(leases.iter().all(|l| *l == leases[0]), "{leases:?}");
    let left = f.store.lease_time_left(leases[0]).await.unwrap().unwrap();
    assert_eq!(left.granted, Duration::from_secs(70 * 60));
    assert!(left.remaining > Duration::from_secs(60 * 60));
    let stats = recorder.stats();
    assert_eq!((stats.recorded, stats.failed), (7, 0));
    assert!(stats.written == 3 || !at_once, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_write_under_their_own_range() {
    let f = Fixture::start().await;
    let recording = Recording::start(&f, "agent", Some("n1"));
    recording
        .recorder
        .event(pod("a"), EventType::Normal, "Started", "started main");
    recording.written(1).await;
    recording.end().await;
    assert_eq!(read(&f, f.keyspace.event_range("default")).await.len(), 0);
    let events = read(&f, f.keyspace.node_events(Some("n1"))).await;
    assert_eq!(events.len(), 1);
    assert_eq!(
        events[0].1.source.as_ref().unwrap().host.as_deref(),
        Some("n1")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_outlive_a_revoked_lease_and_an_etcd_that_was_away() {
    let f = Fixture::start().await;
    let recording = Recording::start(&f, "scheduler", None);
    recording.recorder.normal(pod("a"), "First", "before");
    recording.written(1).await;
    let lease = read(&f, f.keyspace.event_range("default")).await[0].0.lease;
    f.store.lease_revoke(lease.unwrap()).await.unwrap();
    recording.recorder.normal(pod("a"), "Second", "after");
    recording.written(2).await;

    f.etcd.kill();
    recording.recorder.normal(pod("a"), "Third", "while away");
    f.etcd.restart().await;
    recording.written(3).await;
    recording.end().await;
    let reasons: Vec<_> = read(&f, f.keyspace.event_range("default"))
        .await
        .into_iter()
        .filter_map(|(_, e)| e.reason)
        .collect();
    assert!(reasons.contains(&"Second".into()) && reasons.contains(&"Third".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorder_without_a_store_drops_and_counts_and_does_not_hold_up_the_end() {
    let f = Fixture::start().await;
    let recording = Recording::start(&f, "scheduler", None);
    f.etcd.kill();
    for i in 0..20_000 {
        recording
            .recorder
            .normal(pod(&format!("p{i}")), "Created", "created");
    }
    let begin = std::time::Instant::now();
    let recorder = recording.end().await;
    assert!(begin.elapsed() < Duration::from_secs(10));
    let stats = recorder.stats();
    assert_eq!((stats.recorded, stats.written), (20_000, 0));
    assert!(stats.overflowed + stats.suppressed > 0, "{stats:?}");
    // Nobody listens any more: still no error, still no wait.
    recorder.normal(pod("a"), "Late", "late");
    assert_eq!(recorder.stats().overflowed, stats.overflowed + 1);
}

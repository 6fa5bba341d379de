//! Election and fencing: one leader at a time, a deposed one cannot write, an unknown outcome is fenced off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use setpoint_apis::Key;
use setpoint_runtime::{Cache, Elector, Leader, LeaderError, Write, WriteOutcome};
use setpoint_store::group_commit::{GroupCommit, Options};
use setpoint_store::{
    KeyValue, LeaseId, LeaseTime, Page, Put, RangeRequest, Revision, ServerStatus, SharedStore,
    Store, StoreError, Txn, TxnOp, TxnResult, WatchBatch, WatchRequest,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::{Fixture, LIMIT, config_map, key};

const CONTROLLER: &str = "test";

/// A replica that reports each leadership it gets and leads until told to stop.
struct Replica {
    shutdown: CancellationToken,
    elector: Elector,
    task: tokio::task::JoinHandle<()>,
}

impl Replica {
    fn start(
        store: SharedStore,
        cache: Cache,
        name: &str,
        ttl: Duration,
        led: mpsc::Sender<Leader>,
    ) -> Self {
        let commits = GroupCommit::new(store.clone(), Options::default());
        let elector = Elector::new(store, commits, cache, name, ttl);
        let shutdown = CancellationToken::new();
        let (campaign, stop) = (elector.clone(), shutdown.clone());
        let task = tokio::spawn(async move {
            campaign
                .run(CONTROLLER, stop, |leader| {
                    let led = led.clone();
                    async move {
                        led.send(leader.clone()).await.unwrap();
                        leader.lost().cancelled().await;
                    }
                })
                .await;
        });
        Self {
            shutdown,
            elector,
            task,
        }
    }
}

async fn next(led: &mut mpsc::Receiver<Leader>) -> Leader {
    tokio::time::timeout(LIMIT, led.recv())
        .await
        .expect("somebody leads in time")
        .unwrap()
}

fn write(f: &Fixture, name: &str, value: &str) -> Write {
    let key = f.keyspace.build(&Key::Desired("configmaps", key(name)));
    let put = Put {
        key,
        value: config_map(name, value).into(),
        lease: None,
    };
    Write {
        guards: Vec::new(),
        ops: vec![TxnOp::Put(put)],
        context: format!("writing {name}"),
    }
}

async fn stored(f: &Fixture, name: &str) -> Option<String> {
    let key = f.keyspace.build(&Key::Desired("configmaps", key(name)));
    f.store
        .get(&key)
        .await
        .unwrap()
        .0
        .map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_hands_over_at_once_and_the_old_leader_can_write_no_more() {
    let f = Fixture::start().await;
    let (led, mut leaders) = mpsc::channel(4);
    let cache = f.cache().await;
    let first = Replica::start(
        f.store.clone(),
        cache.clone(),
        "first",
        Duration::from_secs(60),
        led.clone(),
    );
    let old = next(&mut leaders).await;
    assert!(matches!(
        old.commit(vec![write(&f, "a", "old")]).await.unwrap()[..],
        [WriteOutcome::Committed(_)]
    ));

    let second = Replica::start(
        f.store.clone(),
        cache,
        "second",
        Duration::from_secs(60),
        led,
    );
    // The second one is warm when the first one ends: its campaign has found the key held.
    tokio::task::yield_now().await;
    let begin = Instant::now();
    first.shutdown.cancel();
    let new = next(&mut leaders).await;
    // Far below the lease of 60 s; the figure itself belongs to a benchmark.
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    assert!(new.epoch() > old.epoch());
    assert!(
        new.cache().revision() >= new.epoch(),
        "it decides from a snapshot at its election or later"
    );
    assert!(matches!(
        old.commit(vec![write(&f, "a", "late")]).await,
        Err(LeaderError::Deposed { .. })
    ));
    assert!(stored(&f, "a").await.unwrap().contains("old"));

    first.task.await.unwrap();
    first.elector.resign().await;
    second.shutdown.cancel();
    second.task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_does_not_know_yet_that_it_was_deposed_is_stopped_by_the_store() {
    let f = Fixture::start().await;
    let (led, mut leaders) = mpsc::channel(4);
    let cache = f.cache().await;
    let replica = Replica::start(f.store.clone(), cache, "only", Duration::from_secs(60), led);
    let leader = next(&mut leaders).await;
    // As if another process had taken over: the key is somebody else's now.
    let (lease, _) = f.store.lease_grant(Duration::from_secs(60)).await.unwrap();
    let key = f.keyspace.build(&Key::Leader(CONTROLLER, None));
    let usurp = Txn::new().put_with_lease(key, "leader: usurper\n", lease);
    f.store.txn(usurp).await.unwrap();
    let result = leader.commit(vec![write(&f, "a", "late")]).await;
    assert!(
        matches!(result, Err(LeaderError::Deposed { .. })),
        "{result:?}"
    );
    assert_eq!(stored(&f, "a").await, None);
    assert!(leader.lost().is_cancelled());
    replica.shutdown.cancel();
    replica.task.await.unwrap();
    let left = f
        .store
        .get(&f.keyspace.build(&Key::Leader(CONTROLLER, None)))
        .await
        .unwrap()
        .0;
    assert!(
        left.is_some(),
        "a deposed leader does not delete the key of its successor"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_overwrites_an_election_key_stops_nobody_for_long() {
    let f = Fixture::start().await;
    let (led, mut leaders) = mpsc::channel(4);
    let cache = f.cache().await;
    let ttl = Duration::from_secs(60);
    let first = Replica::start(f.store.clone(), cache.clone(), "first", ttl, led.clone());
    let old = next(&mut leaders).await;
    let second = Replica::start(f.store.clone(), cache, "second", ttl, led);
    f.put(&Key::Leader(CONTROLLER, None), "{{{").await;
    let new = next(&mut leaders).await;
    assert!(new.epoch() > old.epoch());
    let late = old.commit(vec![write(&f, "a", "late")]).await;
    assert!(matches!(late, Err(LeaderError::Deposed { .. })), "{late:?}");
    for replica in [first, second] {
        replica.shutdown.cancel();
        replica.task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_ends_the_leadership_and_the_next_campaign_wins_again() {
    let f = Fixture::start().await;
    let (led, mut leaders) = mpsc::channel(4);
    let cache = f.cache().await;
    let replica = Replica::start(f.store.clone(), cache, "only", Duration::from_secs(6), led);
    let first = next(&mut leaders).await;
    let held = f
        .store
        .get(&f.keyspace.build(&Key::Leader(CONTROLLER, None)))
        .await
        .unwrap()
        .0
        .unwrap();
    f.store.lease_revoke(held.lease.unwrap()).await.unwrap();
    let second = next(&mut leaders).await;
    assert!(first.lost().is_cancelled());
    assert!(second.epoch() > first.epoch());
    replica.shutdown.cancel();
    replica.task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_unknown_outcome_the_epoch_moves_on_so_that_a_late_write_cannot_land() {
    let f = Fixture::start().await;
    let (led, mut leaders) = mpsc::channel(4);
    let cache = f.cache().await;
    let lossy = Lossy::new(f.store.clone());
    let replica = Replica::start(lossy.clone(), cache, "only", Duration::from_secs(60), led);
    let leader = next(&mut leaders).await;
    let before = leader.epoch();

    lossy.lose.store(true, std::sync::atomic::Ordering::SeqCst);
    let result = leader.commit(vec![write(&f, "a", "lost")]).await;
    assert!(
        matches!(result, Err(LeaderError::Refenced { .. })),
        "{result:?}"
    );
    assert!(leader.epoch() > before);
    assert!(
        leader.cache().revision() >= leader.epoch(),
        "and the cache has caught up"
    );

    // The lost transaction arrives at etcd after all.
    let late = lossy
        .late
        .lock()
        .take()
        .expect("a transaction was held back");
    let outcome = f.store.txn(late).await.unwrap();
    let applied = outcome.succeeded && outcome.nested.iter().flatten().all(|n| n.succeeded);
    assert!(!applied || stored(&f, "a").await.is_none(), "{outcome:?}");
    assert_eq!(stored(&f, "a").await, None, "the fence held");

    assert!(matches!(
        leader.commit(vec![write(&f, "a", "again")]).await.unwrap()[..],
        [WriteOutcome::Committed(_)]
    ));
    replica.shutdown.cancel();
    replica.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_key_left_over_from_a_former_leadership_is_led_under_a_new_epoch() {
    let store: SharedStore = Arc::new(setpoint_store::model::ModelStore::default());
    let (cache, driver) =
        setpoint_runtime::CacheBuilder::new().build(store.clone(), Default::default());
    tokio::spawn(driver.run());
    let lossy = Lossy::new(store);
    let commits = GroupCommit::new(lossy.clone(), Options::default());
    let elector = Elector::new(
        lossy.clone(),
        commits,
        cache,
        "only",
        Duration::from_secs(60),
    );
    let (led, mut leaders) = mpsc::channel(4);
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let losing = lossy.clone();
    let task = tokio::spawn(async move {
        let mut first = true;
        let lead = |leader: Leader| {
            led.try_send(leader.clone()).unwrap();
            // The first leadership ends by itself, and the transaction that gives its key up is lost.
            let ends = std::mem::take(&mut first);
            losing.lose.store(ends, std::sync::atomic::Ordering::SeqCst);
            async move {
                if !ends {
                    leader.lost().cancelled().await;
                }
            }
        };
        elector.run(CONTROLLER, stop, lead).await;
    });
    let (first, second) = (next(&mut leaders).await, next(&mut leaders).await);
    assert!(second.epoch() > first.epoch());
    // When it arrives after all it gives nothing up: the epoch that it names is over.
    let late = lossy.late.lock().take().unwrap();
    assert!(!lossy.txn(late).await.unwrap().succeeded);
    shutdown.cancel();
    task.await.unwrap();
}

/// A leader over the model, whose connection loses what the test wants lost.
async fn lossy_leader() -> (Arc<Lossy>, Leader, Replica) {
    let store: SharedStore = Arc::new(setpoint_store::model::ModelStore::default());
    let (cache, driver) =
        setpoint_runtime::CacheBuilder::new().build(store.clone(), Default::default());
    tokio::spawn(driver.run());
    let lossy = Lossy::new(store);
    let (led, mut leaders) = mpsc::channel(4);
    let ttl = Duration::from_secs(60);
    let replica = Replica::start(lossy.clone(), cache, "only", ttl, led);
    (lossy, next(&mut leaders).await, replica)
}

#[tokio::test(start_paused = true)]
async fn a_write_that_nobody_waits_for_any_more_cannot_arrive_after_the_next_one() {
    let (lossy, leader, _replica) = lossy_leader().await;
    let before = leader.epoch();
    let write = |value: &'static str| vec![Write::put("a test", "/setpoint/x", value)];
    lossy.lose.store(true, std::sync::atomic::Ordering::SeqCst);
    // Handed over, and dropped.
    assert!(leader.commit(write("dropped")).now_or_never().is_none());
    let late = loop {
        tokio::task::yield_now().await;
        if let Some(late) = lossy.late.lock().take() {
            break late;
        }
    };
    let refenced = leader.commit(write("next")).await;
    assert!(
        matches!(refenced, Err(LeaderError::Refenced { .. })),
        "{refenced:?}"
    );
    assert!(leader.epoch() > before && leader.cache().revision() >= leader.epoch());
    let next = leader.commit(write("next")).await.unwrap();
    assert!(matches!(next[..], [WriteOutcome::Committed(_)]), "{next:?}");
    assert!(!lossy.txn(late).await.unwrap().succeeded);
    let (kv, _) = lossy.get("/setpoint/x").await.unwrap();
    assert_eq!(&kv.unwrap().value[..], b"next");
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_renewal_of_the_fence_was_dropped_leads_on() {
    let (lossy, leader, _replica) = lossy_leader().await;
    let before = leader.epoch();
    let write = || vec![Write::put("a test", "/setpoint/x", "")];
    // The write is lost; the renewal that follows is carried out, but there is no answer to it.
    lossy.lose.store(true, std::sync::atomic::Ordering::SeqCst);
    lossy.mute.store(true, std::sync::atomic::Ordering::SeqCst);
    let dropped = tokio::time::timeout(Duration::from_secs(1), leader.commit(write())).await;
    assert!(dropped.is_err(), "{dropped:?}");
    assert_eq!(leader.epoch(), before);
    let refenced = leader.commit(write()).await;
    assert!(
        matches!(refenced, Err(LeaderError::Refenced { .. })),
        "{refenced:?}"
    );
    assert!(leader.epoch() > before);
    let next = leader.commit(write()).await.unwrap();
    assert!(matches!(next[..], [WriteOutcome::Committed(_)]), "{next:?}");
    assert!(!leader.lost().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_conflict_names_the_revision_that_a_cache_must_reach_to_show_its_cause() {
    let store: SharedStore = Arc::new(setpoint_store::model::ModelStore::default());
    let behind = Lossy::new(store.clone());
    let (cache, driver) =
        setpoint_runtime::CacheBuilder::new().build(behind.clone(), Default::default());
    tokio::spawn(driver.run());
    let (led, mut leaders) = mpsc::channel(4);
    let ttl = Duration::from_secs(60);
    let _replica = Replica::start(store.clone(), cache, "only", ttl, led);
    let leader = next(&mut leaders).await;
    behind.still.send_replace(true);
    let key = leader
        .keyspace()
        .build(&Key::Desired("configmaps", key("a")));
    let put = setpoint_store::Txn::new().put(key.clone(), config_map("a", "theirs"));
    let theirs = store.txn(put).await.unwrap().revision;

    let ours = Write::put("a test", key.clone(), config_map("a", "ours"));
    let ours = ours.when(setpoint_store::Compare::absent(key));
    let outcomes = leader.commit(vec![ours]).await.unwrap();
    let [WriteOutcome::Conflict(at)] = outcomes[..] else {
        panic!("{outcomes:?}");
    };
    assert_eq!(at, theirs);
    let limit = Duration::from_millis(200);
    let begin = tokio::time::Instant::now();
    assert!(!leader.see(at, limit).await);
    assert_eq!(begin.elapsed(), limit);
    behind.still.send_replace(false);
    assert!(leader.see(at, Duration::from_secs(60)).await);
    assert!(begin.elapsed() < Duration::from_secs(60));
    assert!(leader.cache().revision() >= theirs);
}

/// A standby that is wrong about the lease of the leader deposes it, and that is all.
#[tokio::test(start_paused = true)]
async fn a_standby_that_takes_the_lease_for_expired_leads_and_the_old_leader_is_fenced() {
    let store: SharedStore = Arc::new(setpoint_store::model::ModelStore::default());
    let (cache, driver) =
        setpoint_runtime::CacheBuilder::new().build(store.clone(), Default::default());
    tokio::spawn(driver.run());
    let ttl = Duration::from_secs(60);
    let (led, mut leaders) = mpsc::channel(4);
    let first = Replica::start(store.clone(), cache.clone(), "first", ttl, led.clone());
    let old = next(&mut leaders).await;
    let wrong = Lossy::new(store);
    wrong
        .all_expired
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let second = Replica::start(wrong, cache, "second", ttl, led);
    let new = tokio::time::timeout(Duration::from_secs(2), leaders.recv())
        .await
        .expect("it does not wait for the lease")
        .unwrap();
    assert!(new.epoch() > old.epoch());
    let late = old
        .commit(vec![Write::put("late", "/setpoint/x", "")])
        .await;
    assert!(matches!(late, Err(LeaderError::Deposed { .. })), "{late:?}");
    for replica in [first, second] {
        replica.shutdown.cancel();
        replica.task.await.unwrap();
    }
}

/// Holds one transaction back and says that its outcome is unknown.
pub(crate) struct Lossy {
    inner: SharedStore,
    pub(crate) lose: std::sync::atomic::AtomicBool,
    pub(crate) late: parking_lot::Mutex<Option<Txn>>,
    /// The next transaction that is not held back is carried out and never answered.
    mute: std::sync::atomic::AtomicBool,
    /// Nothing more is heard of the members of elections.
    pub(crate) deaf: Arc<std::sync::atomic::AtomicBool>,
    /// What happens is heard of when this ends.
    still: tokio::sync::watch::Sender<bool>,
    /// Whoever asks is told that every lease has expired.
    pub(crate) all_expired: std::sync::atomic::AtomicBool,
}

impl Lossy {
    pub(crate) fn new(inner: SharedStore) -> Arc<Self> {
        Arc::new(Self {
            inner,
            lose: Default::default(),
            late: Default::default(),
            mute: Default::default(),
            deaf: Default::default(),
            still: Default::default(),
            all_expired: Default::default(),
        })
    }
}

impl Store for Lossy {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), StoreError>> {
        self.inner.get(key)
    }
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<Page, StoreError>> {
        self.inner.range(request)
    }
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult, StoreError>> {
        if self.lose.swap(false, std::sync::atomic::Ordering::SeqCst) {
            *self.late.lock() = Some(txn);
            let error = StoreError::Unknown {
                context: "a test".into(),
                message: "held back".into(),
            };
            return Box::pin(std::future::ready(Err(error)));
        }
        if self.mute.swap(false, std::sync::atomic::Ordering::SeqCst) {
            let done = self.inner.txn(txn);
            return Box::pin(async move {
                let _unheard = done.await;
                std::future::pending().await
            });
        }
        self.inner.txn(txn)
    }
    fn watch(
        &self,
        request: WatchRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError>> {
        let (deaf, still) = (self.deaf.clone(), self.still.clone());
        let concerned = request.start.contains("/members/");
        Box::pin(async move {
            let stream = self.inner.watch(request).await?;
            let heard = stream.then(move |batch| {
                let lost = concerned && deaf.load(std::sync::atomic::Ordering::SeqCst);
                let mut still = still.subscribe();
                async move {
                    if lost {
                        std::future::pending::<()>().await;
                    }
                    let _ended = still.wait_for(|still| !still).await;
                    batch
                }
            });
            Ok(heard.boxed())
        })
    }
    fn lease_grant(&self, ttl: Duration) -> BoxFuture<'_, Result<(LeaseId, Duration), StoreError>> {
        self.inner.lease_grant(ttl)
    }
    fn lease_renew(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, StoreError>> {
        self.inner.lease_renew(lease)
    }
    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.lease_revoke(lease)
    }
    fn lease_time_left(
        &self,
        lease: LeaseId,
    ) -> BoxFuture<'_, Result<Option<LeaseTime>, StoreError>> {
        Box::pin(async move {
            let left = self.inner.lease_time_left(lease).await?;
            let expired = self.all_expired.load(std::sync::atomic::Ordering::SeqCst);
            Ok(left.map(|left| LeaseTime {
                remaining: if expired {
                    Duration::ZERO
                } else {
                    left.remaining
                },
                ..left
            }))
        })
    }
    fn status(&self) -> BoxFuture<'_, Result<ServerStatus, StoreError>> {
        self.inner.status()
    }
}

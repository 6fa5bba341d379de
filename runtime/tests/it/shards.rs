//! Mode `hash`: shards are spread, follow the members, and have one effective writer each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use setpoint_apis::{Key, KeyRange, Keyspace};
use setpoint_runtime::{
    Cache, CacheBuilder, Elector, Leader, LeaderError, Metrics, Shard, Shards, Write, WriteOutcome,
};
use setpoint_store::group_commit::{GroupCommit, Options};
use setpoint_store::list::{List, list_all};
use setpoint_store::model::ModelStore;
use setpoint_store::task::Process;
use setpoint_store::testing::TestEtcd;
use setpoint_store::{KeyValue, SharedStore, Txn};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::election::Lossy;
use crate::support::{LIMIT, config_map, key};

const CONTROLLER: &str = "test";
const TTL: Duration = Duration::from_secs(6);

/// What one member leads at present.
type Led = Arc<Mutex<BTreeMap<Shard, Leader>>>;

struct Member {
    led: Led,
    commits: GroupCommit,
    metrics: Metrics,
    process: Process,
    shutdown: CancellationToken,
    ended: tokio::sync::oneshot::Receiver<()>,
}

impl Member {
    fn start(store: &SharedStore, cache: &Cache, name: &str) -> Self {
        let commits = GroupCommit::new(store.clone(), Options::default());
        let metrics = Metrics::default();
        let elector = Elector::new(store.clone(), commits.clone(), cache.clone(), name, TTL)
            .with_metrics(metrics.clone());
        let shutdown = CancellationToken::new();
        let process = Process::new();
        let led = Led::default();
        let (done, ended) = tokio::sync::oneshot::channel();
        let (leads, stop) = (led.clone(), shutdown.clone());
        tokio::spawn(process.own(async move {
            elector
                .run_sharded(CONTROLLER, Shards::DEFAULT, stop, move |leader| {
                    let leads = leads.clone();
                    async move {
                        let shard = leader.shard().unwrap();
                        leads.lock().insert(shard, leader.clone());
                        leader.lost().cancelled().await;
                        leads.lock().remove(&shard);
                    }
                })
                .await;
            elector.resign().await;
            let _ = done.send(());
        }));
        Self {
            led,
            commits,
            metrics,
            process,
            shutdown,
            ended,
        }
    }

    /// What it leads, and has not given up: a task that ends late may be about to say so.
    fn shards(&self) -> BTreeSet<Shard> {
        let led = self.led.lock();
        let leads = led.iter().filter(|(_, by)| !by.lost().is_cancelled());
        leads.map(|(shard, _)| *shard).collect()
    }

    fn any(&self) -> Leader {
        let led = self.led.lock();
        let mut leads = led.values().filter(|by| !by.lost().is_cancelled());
        leads.next().unwrap().clone()
    }
}

async fn world(store: SharedStore) -> (SharedStore, Cache) {
    let (cache, driver) = CacheBuilder::new().build(store.clone(), Keyspace::default());
    tokio::spawn(driver.run());
    cache.ready().await;
    (store, cache)
}

fn model() -> SharedStore {
    Arc::new(ModelStore::default())
}

/// Waits until `members` lead all shards, each shard once, and none of them leads nothing.
async fn settled(members: &[&Member]) {
    let waited = tokio::time::timeout(LIMIT, async {
        loop {
            let all: Vec<Shard> = members.iter().flat_map(|m| m.shards()).collect();
            let each: BTreeSet<Shard> = all.iter().copied().collect();
            let idle = members.iter().any(|m| m.shards().is_empty());
            if all.len() == 64 && each.len() == 64 && !idle {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    if waited.await.is_err() {
        let led: Vec<_> = members.iter().map(|m| m.shards()).collect();
        panic!("not within {LIMIT:?}: {led:?}");
    }
}

fn write(name: &str, value: &str) -> Write {
    let key = Keyspace::default().build(&Key::Desired("configmaps", key(name)));
    Write::put(format!("writing {name}"), key, config_map(name, value))
}

async fn seats(store: &SharedStore) -> Vec<KeyValue> {
    let keyspace = Keyspace::default();
    let prefix = keyspace.build(&Key::Leader(CONTROLLER, None));
    let range = KeyRange::prefix(format!("{prefix}/"));
    let all = List::new(range.start, range.end);
    list_all(&**store, all).await.unwrap().0
}

async fn members_come_and_go(store: SharedStore) {
    let (store, cache) = world(store).await;
    let a = Member::start(&store, &cache, "a");
    settled(&[&a]).await;
    let b = Member::start(&store, &cache, "b");
    settled(&[&a, &b]).await;
    let (of_a, of_b) = (a.shards(), b.shards());
    let c = Member::start(&store, &cache, "c");
    // The third one takes from the first, and then from the second, which may hear of it later.
    let has_its_share = tokio::time::timeout(LIMIT, async {
        while c.commits.stats().items < 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(has_its_share.await.is_ok(), "{:?}", c.commits.stats());
    settled(&[&a, &b, &c]).await;
    // Only what went to the third one has moved.
    assert!(a.shards().is_subset(&of_a) && b.shards().is_subset(&of_b));
    for member in [&a, &b, &c] {
        let stats = member.commits.stats();
        assert!(stats.items >= 20 && stats.batches <= 40, "{stats:?}");
    }
    for kv in seats(&store).await {
        let value = String::from_utf8_lossy(&kv.value).into_owned();
        assert!(value.contains("\ngeneration: "), "{value}");
    }

    b.shutdown.cancel();
    b.ended.await.unwrap();
    settled(&[&a, &c]).await;
    let text = a.metrics.encode().unwrap();
    let leading = format!(
        "setpoint_leading{{controller=\"{CONTROLLER}\"}} {}\n",
        a.shards().len()
    );
    assert!(text.contains(&leading), "{text}");
    for member in [a, c] {
        member.shutdown.cancel();
        member.ended.await.unwrap();
    }
    assert_eq!(seats(&store).await, []);
}

#[tokio::test(start_paused = true)]
async fn shards_follow_the_members_and_move_no_more_than_they_must() {
    members_come_and_go(model()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_follow_the_members_in_etcd_too() {
    let etcd = TestEtcd::start().await;
    members_come_and_go(etcd.store().await).await;
}

#[tokio::test(start_paused = true)]
async fn the_shards_of_a_member_that_dies_are_led_again_within_the_time_of_its_lease() {
    let (store, cache) = world(model()).await;
    let (a, b, c) = (
        Member::start(&store, &cache, "a"),
        Member::start(&store, &cache, "b"),
        Member::start(&store, &cache, "c"),
    );
    settled(&[&a, &b, &c]).await;
    b.process.kill();
    let died = Instant::now();
    settled(&[&a, &c]).await;
    assert!(died.elapsed() <= TTL, "{:?}", died.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_paused_past_its_lease_writes_nothing_more_for_its_old_shards() {
    let (store, cache) = world(model()).await;
    let a = Member::start(&store, &cache, "a");
    let b = Member::start(&store, &cache, "b");
    settled(&[&a, &b]).await;
    let old = b.any();
    b.process.freeze();
    settled(&[&a]).await;
    let shard = old.shard().unwrap();
    let new = a.led.lock()[&shard].clone();
    assert!(new.epoch() > old.epoch());
    // It goes on as if nothing had happened, and the store says no.
    let late = old.commit(vec![write("a", "late")]).await;
    assert!(matches!(late, Err(LeaderError::Deposed { .. })), "{late:?}");
    let done = new.commit(vec![write("a", "new")]).await.unwrap();
    assert!(matches!(done[..], [WriteOutcome::Committed(_)]), "{done:?}");
    let text = b.metrics.encode().unwrap();
    assert!(
        text.contains("setpoint_fenced_writes_total{controller=\"test\"} 1\n"),
        "{text}"
    );
    // When it goes on it takes its share again, with new epochs.
    b.process.thaw();
    settled(&[&a, &b]).await;
    assert!(b.any().epoch() > new.epoch());
}

#[tokio::test(start_paused = true)]
async fn a_shard_is_claimed_only_when_its_former_owner_has_finished() {
    let (store, cache) = world(model()).await;
    let commits = GroupCommit::new(store.clone(), Options::default());
    let elector = Elector::new(store.clone(), commits, cache.clone(), "slow", TTL);
    let (gate, finish) = (Arc::new(tokio::sync::Semaphore::new(0)), Led::default());
    let (held, led) = (gate.clone(), finish.clone());
    let stop = CancellationToken::new();
    let run = {
        let stop = stop.clone();
        tokio::spawn(async move {
            let lead = move |leader: Leader| {
                let (held, led) = (held.clone(), led.clone());
                async move {
                    led.lock().insert(leader.shard().unwrap(), leader.clone());
                    leader.lost().cancelled().await;
                    let _ = held.acquire().await;
                    led.lock().remove(&leader.shard().unwrap());
                }
            };
            elector
                .run_sharded(CONTROLLER, Shards::DEFAULT, stop, lead)
                .await;
        })
    };
    while finish.lock().len() < 64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let b = Member::start(&store, &cache, "b");
    tokio::time::sleep(TTL * 3).await;
    let moving: Vec<Leader> = finish.lock().values().cloned().collect();
    let moving = moving.iter().filter(|l| l.lost().is_cancelled()).count();
    assert!(moving > 10, "{moving} shards are to move");
    assert_eq!(b.shards().len(), 0, "they are still worked on");
    gate.add_permits(1);
    let waited = tokio::time::timeout(LIMIT, async {
        while b.shards().len() < moving {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap();
    stop.cancel();
    run.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_an_unknown_outcome_only_the_shard_that_it_concerns_gets_a_new_epoch() {
    let lossy = Lossy::new(model());
    let (store, cache) = world(lossy.clone()).await;
    let a = Member::start(&store, &cache, "a");
    settled(&[&a]).await;
    let before: Vec<_> = a.led.lock().values().map(Leader::epoch).collect();
    let leader = a.any();
    lossy.lose.store(true, std::sync::atomic::Ordering::SeqCst);
    let result = leader.commit(vec![write("a", "lost")]).await;
    assert!(
        matches!(result, Err(LeaderError::Refenced { .. })),
        "{result:?}"
    );
    let after: Vec<_> = a.led.lock().values().map(Leader::epoch).collect();
    let changed = before.iter().zip(&after).filter(|(b, a)| b != a).count();
    assert_eq!(changed, 1);
    let late = lossy.late.lock().take().unwrap();
    assert!(!store.txn(late).await.unwrap().succeeded, "the fence held");
    let again = leader.commit(vec![write("a", "again")]).await.unwrap();
    assert!(matches!(again[..], [WriteOutcome::Committed(_)]));
    let text = a.metrics.encode().unwrap();
    assert!(
        text.contains("setpoint_unknown_outcomes_total{controller=\"test\"} 1\n"),
        "{text}"
    );
    settled(&[&a]).await;
}

/// Claims and releases whose outcome is unknown leave keys behind, or come late: whatever it is, it is found and mended.
#[tokio::test(start_paused = true)]
async fn lost_claims_and_releases_are_made_up_for() {
    for lost in 0..6 {
        let lossy = Lossy::new(model());
        let (store, cache) = world(lossy.clone()).await;
        let lose = |now: bool| {
            lossy.lose.store(now, std::sync::atomic::Ordering::SeqCst);
        };
        lose(lost == 0);
        let a = Member::start(&store, &cache, "a");
        if lost == 1 {
            // Registered: what is lost is the claim.
            while a.commits.stats().items == 0 {
                tokio::task::yield_now().await;
            }
            lose(true);
        }
        settled(&[&a]).await;
        lose(lost == 2);
        let b = Member::start(&store, &cache, "b");
        if lost >= 3 {
            let handing = a.commits.stats().items;
            while a.commits.stats().items == handing && b.shards().is_empty() {
                tokio::task::yield_now().await;
            }
            lose(lost == 3);
        }
        settled(&[&a, &b]).await;
        lose(lost == 4);
        let late = lossy.late.lock().take();
        if let Some(late) = late {
            store.txn(late).await.unwrap();
        }
        settled(&[&a, &b]).await;
        b.shutdown.cancel();
        b.ended.await.unwrap();
        settled(&[&a]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_has_not_heard_of_another_cannot_claim_its_shards() {
    let (store, cache) = world(model()).await;
    let lossy = Lossy::new(store.clone());
    let a = Member::start(&(lossy.clone() as SharedStore), &cache, "a");
    settled(&[&a]).await;
    lossy.deaf.store(true, std::sync::atomic::Ordering::SeqCst);
    let b = Member::start(&store, &cache, "b");
    // Registered, and waiting for what is its own.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((a.shards().len(), b.shards().len()), (64, 0));
    // All shards become free while the second member cannot claim any.
    b.process.freeze();
    for seat in seats(&store).await {
        store.txn(Txn::new().delete(seat.key)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        seats(&store).await,
        [],
        "claimed under a map that is outdated"
    );
    b.process.thaw();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let of_b = b.shards().len();
    assert!((1..64).contains(&of_b), "{of_b}");
    assert_eq!(seats(&store).await.len(), of_b);
}

#[tokio::test(start_paused = true)]
async fn members_watch_over_each_other() {
    let (store, cache) = world(model()).await;
    let a = Member::start(&store, &cache, "a");
    settled(&[&a]).await;
    let before = a.any().epoch();
    // One that takes the lease of its neighbour for expired revokes it, and the neighbour begins anew.
    let wrong = Lossy::new(store.clone());
    wrong
        .all_expired
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let b = Member::start(&(wrong.clone() as SharedStore), &cache, "b");
    tokio::time::sleep(Duration::from_secs(2)).await;
    wrong
        .all_expired
        .store(false, std::sync::atomic::Ordering::SeqCst);
    settled(&[&a, &b]).await;
    let later = a.led.lock().values().all(|l| l.epoch() > before);
    assert!(later, "the lease of the first member was revoked");
}

#[tokio::test(start_paused = true)]
async fn strangers_who_write_election_keys_stop_nobody_for_long() {
    let (store, cache) = world(model()).await;
    let a = Member::start(&store, &cache, "a");
    settled(&[&a]).await;
    let keyspace = Keyspace::default();
    let old = a.any();
    let shard = old.shard().unwrap().to_string();
    for key in [
        Key::Leader(CONTROLLER, Some(&shard)),
        Key::Leader(CONTROLLER, Some("no-number")),
        Key::Member(CONTROLLER, "nobody"),
        Key::Member(CONTROLLER, "a"),
    ] {
        let txn = Txn::new().put(keyspace.build(&key), "{{{");
        store.txn(txn).await.unwrap();
    }
    old.lost().cancelled().await;
    settled(&[&a]).await;
    assert!(a.led.lock()[&old.shard().unwrap()].epoch() > old.epoch());
}

/// A process in mode `lease`; says whom it leads as.
async fn whole(
    store: &SharedStore,
    cache: &Cache,
    name: &str,
) -> (Arc<Mutex<Option<Leader>>>, CancellationToken) {
    let commits = GroupCommit::new(store.clone(), Options::default());
    let elector = Elector::new(store.clone(), commits, cache.clone(), name, TTL);
    let (led, stop) = (
        Arc::<Mutex<Option<Leader>>>::default(),
        CancellationToken::new(),
    );
    let (leads, shutdown) = (led.clone(), stop.clone());
    tokio::spawn(async move {
        let lead = |leader: Leader| {
            let leads = leads.clone();
            async move {
                *leads.lock() = Some(leader.clone());
                leader.lost().cancelled().await;
                *leads.lock() = None;
            }
        };
        elector.run(CONTROLLER, shutdown, lead).await;
        elector.resign().await;
    });
    (led, stop)
}

/// Waits until there is a leader of the whole.
async fn leads(led: &Mutex<Option<Leader>>) {
    let waited = tokio::time::timeout(LIMIT, async {
        while led.lock().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap();
}

async fn either_mode(store: SharedStore) {
    let (store, cache) = world(store).await;
    let key = Keyspace::default().build(&Key::Leader(CONTROLLER, None));
    let (first, stop_first) = whole(&store, &cache, "first").await;
    leads(&first).await;

    // Whoever would share waits, whatever it knows: the store says so too.
    let a = Member::start(&store, &cache, "a");
    let b = Member::start(&store, &cache, "b");
    tokio::time::sleep(TTL / 4).await;
    assert_eq!((seats(&store).await, a.shards().len()), (vec![], 0));
    stop_first.cancel();
    settled(&[&a, &b]).await;

    // And the reverse.
    let (second, stop_second) = whole(&store, &cache, "second").await;
    tokio::time::sleep(TTL / 4).await;
    assert!(second.lock().is_none());
    assert_eq!(store.get(&key).await.unwrap().0, None);
    settled(&[&a, &b]).await;
    a.shutdown.cancel();
    settled(&[&b]).await;
    assert!(second.lock().is_none());
    b.process.kill();
    leads(&second).await;
    assert_eq!(seats(&store).await, []);
    stop_second.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_controller_is_led_as_a_whole_or_in_shards_and_never_both() {
    either_mode(model()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_too_has_a_controller_led_as_a_whole_or_in_shards_and_never_both() {
    let etcd = TestEtcd::start().await;
    either_mode(etcd.store().await).await;
}

#[tokio::test(start_paused = true)]
async fn strangers_who_write_a_key_of_the_other_mode_keep_nobody_from_leading() {
    let keyspace = Keyspace::default();
    let put = async |store: &SharedStore, key: Key<'_>| {
        let txn = Txn::new().put(keyspace.build(&key), "{{{");
        store.txn(txn).await.unwrap();
    };
    // The whole, while there are shards, and one more is to have some.
    let (store, cache) = world(model()).await;
    let a = Member::start(&store, &cache, "a");
    settled(&[&a]).await;
    put(&store, Key::Leader(CONTROLLER, None)).await;
    let b = Member::start(&store, &cache, "b");
    settled(&[&a, &b]).await;
    let whole_key = keyspace.build(&Key::Leader(CONTROLLER, None));
    assert_eq!(store.get(&whole_key).await.unwrap().0, None);

    // Shards, before somebody leads the whole.
    let (store, cache) = world(model()).await;
    for shard in ["3", "no-number"] {
        put(&store, Key::Leader(CONTROLLER, Some(shard))).await;
    }
    let (led, _stop) = whole(&store, &cache, "whole").await;
    leads(&led).await;
    assert_eq!(seats(&store).await, []);
}

#[tokio::test(start_paused = true)]
async fn members_watch_over_whoever_leads_the_whole() {
    let (store, cache) = world(model()).await;
    let (led, _stop) = whole(&store, &cache, "whole").await;
    leads(&led).await;
    let leader = led.lock().clone().unwrap();
    // One that takes its lease for expired revokes it.
    let wrong = Lossy::new(store.clone());
    wrong
        .all_expired
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let _a = Member::start(&(wrong.clone() as SharedStore), &cache, "a");
    let lost = tokio::time::timeout(LIMIT, leader.lost().cancelled()).await;
    assert!(lost.is_ok(), "nobody watches over it");
}

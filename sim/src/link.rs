//! One process's connection to the store: the [`Store`] trait over the in-memory model, through a [`Network`] that delays,
//! loses and separates.
//!
//! What was sent arrives, or does not, whatever becomes of the sender: a process that is killed or frozen does not call
//! its messages back. Every write that arrives is entered in the [`Ledger`] with its sender.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use setpoint_store::model::ModelStore;
use setpoint_store::task::Process;
use setpoint_store::{
    KeyValue, LeaseId, LeaseTime, Page, RangeRequest, Revision, ServerStatus, Store, StoreError,
    Txn, TxnResult, WatchBatch, WatchRequest,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::ledger::{Ledger, Sent};
use crate::named::Named;
use crate::network::{Fate, Network};
use crate::scenario::Strike;
use crate::strike::Strikes;
use crate::world::Role;

/// How long an answer is waited for. The client of real etcd gives a request as long.
const DEADLINE: Duration = Duration::from_secs(5);
/// After this silence a watch is given up, as the client of real etcd does.
const SILENCE: Duration = Duration::from_secs(10);

/// A process's connection.
pub(crate) struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    /// Who writes.
    process: Arc<str>,
    /// Where it runs: what the network reaches or not.
    host: Arc<str>,
    store: ModelStore,
    network: Network,
    ledger: Ledger,
    strikes: Strikes,
    /// What runs it, to be killed at one of its writes.
    life: Process,
    /// How fast the process's time passes: 1 is right.
    rate: f64,
    rng: Mutex<Rng>,
}

impl Link {
    /// Connects `process`. Its messages have luck of their own, so that what one process does leaves the others' alone.
    ///
    /// Its clock gains `drift_ppm` millionths. All timers of a simulation run alike; what a process measures with them
    /// that matters to others are the times that the store tells it of leases, so these are told in true time: what takes
    /// 30 s on a clock that is fast is over sooner.
    pub(crate) fn new(
        (process, life): (Arc<str>, Process),
        host: Arc<str>,
        store: ModelStore,
        (network, strikes): (Network, Strikes),
        ledger: Ledger,
        drift_ppm: i32,
        seed: u64,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                process,
                host,
                store,
                network,
                ledger,
                strikes,
                life,
                rate: 1.0 + f64::from(drift_ppm) * 1e-6,
                rng: Mutex::new(Rng::with_seed(seed)),
            }),
        }
    }
}

impl Inner {
    /// How long it truly takes until so much time has passed for the process.
    fn measured(&self, time: Duration) -> Duration {
        time.div_f64(self.rate)
    }

    /// Sends a request, has `apply` done where and when it arrives, and waits for the answer.
    async fn call<T, F>(
        &self,
        context: String,
        writes: bool,
        apply: impl FnOnce(ModelStore) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let fate = self.network.fate(&self.host, writes, &mut self.rng.lock());
        self.send(context, writes, fate, apply).await
    }

    /// As [`Self::call`], for a message that fares like this.
    async fn send<T, F>(
        &self,
        context: String,
        writes: bool,
        fate: Fate,
        apply: impl FnOnce(ModelStore) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let (answer, answered) = oneshot::channel();
        if let Some(arrives) = fate.arrives {
            let store = self.store.clone();
            // A task of the network, not of the process.
            tokio::spawn(async move {
                sleep(arrives).await;
                let result = apply(store).await;
                if let Some(returns) = fate.returns {
                    sleep(returns).await;
                    // The sender may have given up.
                    let _ = answer.send(result);
                } else {
                    // Kept open, or the sender would learn at once that no answer comes.
                    sleep(DEADLINE).await;
                }
            });
        } else {
            tokio::spawn(async move {
                sleep(DEADLINE * 2).await;
                drop(answer);
            });
        }
        let lost = || "no answer within 5 s".to_owned();
        match timeout(DEADLINE, answered).await {
            // A process that was cut off while the answer was under way does not get it.
            Ok(Ok(result)) if !self.network.is_cut(&self.host) => result,
            _ if writes => Err(StoreError::Unknown {
                context,
                message: lost(),
            }),
            _ => Err(StoreError::Unavailable {
                context,
                message: lost(),
            }),
        }
    }
}

impl Store for Link {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), StoreError>> {
        let key = key.to_owned();
        Box::pin(
            self.inner
                .call(format!("get {key}"), false, move |store| async move {
                    store.get(&key).await
                }),
        )
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<Page, StoreError>> {
        let context = format!("range {}", request.start);
        Box::pin(self.inner.call(context, false, move |store| async move {
            store.range(request).await
        }))
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult, StoreError>> {
        let inner = &self.inner;
        let ledger = inner.ledger.clone();
        let mut sent = ledger.sending(&inner.process);
        let mut strike = None;
        if Role::of(&sent.process) == Role::Controllers {
            sent.named = Named::of(&txn);
            strike = inner.strikes.count(&sent.named);
        }
        let mut fate = inner.network.fate(&inner.host, true, &mut inner.rng.lock());
        match strike {
            Some(Strike::Lost) => fate = Fate::LOST,
            Some(Strike::Unanswered) => fate.returns = None,
            Some(Strike::CrashBefore) => {
                fate = Fate::LOST;
                inner.life.kill();
            }
            Some(Strike::CrashAfter) | None => {}
        }
        let arrived = (ledger.clone(), sent.clone());
        let dies = (strike == Some(Strike::CrashAfter)).then(|| inner.life.clone());
        let call = inner.send(
            "transaction".to_owned(),
            true,
            fate,
            move |store| async move {
                let (ledger, sent) = arrived;
                let result = apply(&store, &ledger, sent, txn).await;
                if let Some(life) = dies {
                    life.kill();
                }
                result
            },
        );
        Box::pin(async move {
            let result = call.await;
            if matches!(result, Err(StoreError::Unknown { .. })) {
                ledger.give_up(&sent);
            }
            result
        })
    }

    fn watch(
        &self,
        request: WatchRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let context = format!("watch {}", request.start);
            let batches = inner
                .call(context, false, move |store| async move {
                    store.watch(request).await
                })
                .await?;
            Ok(deliver(inner, batches))
        })
    }

    fn lease_grant(&self, ttl: Duration) -> BoxFuture<'_, Result<(LeaseId, Duration), StoreError>> {
        let granted = self
            .inner
            .call("lease grant".to_owned(), true, move |store| async move {
                store.lease_grant(ttl).await
            });
        Box::pin(async move {
            granted
                .await
                .map(|(id, ttl)| (id, self.inner.measured(ttl)))
        })
    }

    fn lease_renew(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, StoreError>> {
        let renewed = self
            .inner
            .call("lease renewal".to_owned(), false, move |store| async move {
                store.lease_renew(lease).await
            });
        Box::pin(async move { renewed.await.map(|ttl| self.inner.measured(ttl)) })
    }

    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        let ledger = self.inner.ledger.clone();
        Box::pin(self.inner.call(
            "lease revocation".to_owned(),
            true,
            move |store| async move {
                let result = store.lease_revoke(lease).await;
                ledger.catch_up(None);
                result
            },
        ))
    }

    fn lease_time_left(
        &self,
        lease: LeaseId,
    ) -> BoxFuture<'_, Result<Option<LeaseTime>, StoreError>> {
        let asked = self
            .inner
            .call("lease time".to_owned(), false, move |store| async move {
                store.lease_time_left(lease).await
            });
        // What was granted is told as it is: the bound on two looks at a lease (`runtime/src/election/expiry.rs`) is measured
        // at the true rate.
        Box::pin(async move {
            let left = asked.await?;
            Ok(left.map(|left| LeaseTime {
                remaining: self.inner.measured(left.remaining),
                ..left
            }))
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<ServerStatus, StoreError>> {
        Box::pin(
            self.inner
                .call("status".to_owned(), false, |store| async move {
                    store.status().await
                }),
        )
    }
}

async fn apply(
    store: &ModelStore,
    ledger: &Ledger,
    sent: Sent,
    txn: Txn,
) -> Result<TxnResult, StoreError> {
    // What expired before belongs to nobody.
    ledger.catch_up(None);
    let result = store.txn(txn).await;
    ledger.catch_up(Some(sent));
    result
}

/// The deliveries of a watch, in order, each with its delay; broken off by bad luck or long silence.
fn deliver(
    link: Arc<Inner>,
    batches: BoxStream<'static, Result<WatchBatch, StoreError>>,
) -> BoxStream<'static, Result<WatchBatch, StoreError>> {
    struct Delivery {
        link: Arc<Inner>,
        batches: BoxStream<'static, Result<WatchBatch, StoreError>>,
        last: Instant,
        broken: bool,
    }
    let delivery = Delivery {
        link,
        batches,
        last: Instant::now(),
        broken: false,
    };
    let broken = |message: &str| StoreError::Unavailable {
        context: "watch".to_owned(),
        message: message.to_owned(),
    };
    stream::unfold(Some(delivery), move |delivery| async move {
        let mut delivery = delivery?;
        let link = Arc::clone(&delivery.link);
        if delivery.broken {
            return Some((Err(broken("the stream was reset")), None));
        }
        let next = async {
            let batch = delivery.batches.next().await?;
            let (delay, breaks) = link.network.delivery(&mut link.rng.lock());
            delivery.last = delivery.last.max(Instant::now() + delay);
            delivery.broken = breaks;
            sleep_until(delivery.last).await;
            link.network.connected(&link.host).await;
            Some(batch)
        };
        tokio::select! {
            biased;
            () = link.network.cut_for(&link.host, SILENCE) => {
                Some((Err(broken("nothing was heard for 10 s")), None))
            }
            batch = next => Some((batch?, Some(delivery))),
        }
    })
    .fuse()
    .boxed()
}

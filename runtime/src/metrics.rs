//! What a process of controllers counts, in the format that Prometheus reads.
//!
//! Each process has one [`Metrics`], which is handed to whatever counts. What others count already (group commit, the
//! cache) is asked when somebody looks.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use setpoint_store::group_commit::GroupCommit;

use crate::cache::Cache;

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The counters of a process; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: RwLock<Registry>,
    leader_changes: Family<Label, Counter>,
    leading: Family<Label, Gauge>,
    fenced_writes: Family<Label, Counter>,
    unknown_outcomes: Family<Label, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    controller: String,
}

/// The counters of one controller.
#[derive(Clone)]
pub(crate) struct ControllerMetrics {
    /// Elections that this process has won.
    pub(crate) leader_changes: Counter,
    /// The leaderships that it has now.
    pub(crate) leading: Gauge,
    /// Writes that the store rejected because their epoch was over.
    pub(crate) fenced_writes: Counter,
    /// Writes of which nobody knew whether they were applied.
    pub(crate) unknown_outcomes: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let leader_changes = Family::default();
        let leading = Family::default();
        let fenced_writes = Family::default();
        let unknown_outcomes = Family::default();
        let mut registry = Registry::with_prefix("setpoint");
        registry.register(
            "leader_changes",
            "Elections that this process has won; of shards, each counts",
            leader_changes.clone(),
        );
        registry.register(
            "leading",
            "Leaderships that this process has: 1 for the leader, or how many shards",
            leading.clone(),
        );
        registry.register(
            "fenced_writes",
            "Writes that etcd rejected because the epoch of their leader was over",
            fenced_writes.clone(),
        );
        registry.register(
            "unknown_outcomes",
            "Writes of which it was not known whether etcd had applied them",
            unknown_outcomes.clone(),
        );
        Self {
            inner: Arc::new(Inner {
                registry: RwLock::new(registry),
                leader_changes,
                leading,
                fenced_writes,
                unknown_outcomes,
            }),
        }
    }
}

impl Metrics {
    /// Shows the counters of a group commit too. Once per process.
    pub fn show_commits(&self, commits: GroupCommit) {
        self.show(Commits(commits));
    }

    /// Shows the state of a cache too. Once per process.
    pub fn show_cache(&self, cache: Cache) {
        self.show(CacheState(cache));
    }

    /// Everything, as text of the type [`CONTENT_TYPE`].
    ///
    /// # Errors
    /// None that a program can cause; the encoder's type has one.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.inner.registry.read())?;
        Ok(text)
    }

    pub(crate) fn of(&self, controller: &str) -> ControllerMetrics {
        let label = Label {
            controller: controller.to_owned(),
        };
        let inner = &self.inner;
        ControllerMetrics {
            leader_changes: inner.leader_changes.get_or_create_owned(&label),
            leading: inner.leading.get_or_create_owned(&label),
            fenced_writes: inner.fenced_writes.get_or_create_owned(&label),
            unknown_outcomes: inner.unknown_outcomes.get_or_create_owned(&label),
        }
    }

    fn show(&self, collector: impl Collector) {
        self.inner
            .registry
            .write()
            .register_collector(Box::new(collector));
    }
}

struct Commits(GroupCommit);

impl fmt::Debug for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Commits")
    }
}

impl Collector for Commits {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.0.stats();
        for (name, help, value) in [
            (
                "commit_items",
                "Guarded writes that were sent; over commit_batches, the size of a batch",
                stats.items,
            ),
            (
                "commit_batches",
                "Transactions that they were sent in",
                stats.batches,
            ),
            (
                "commit_deferred",
                "How often a write waited for another one of the same key",
                stats.deferred,
            ),
            (
                "commit_alone",
                "Writes that were tried again alone because their transaction was refused",
                stats.alone,
            ),
        ] {
            counter(&mut encoder, name, help, value)?;
        }
        gauge(
            &mut encoder,
            "commit_queued",
            "Writes that wait to be sent",
            stats.queued as i64,
        )?;
        gauge(
            &mut encoder,
            "commit_in_flight",
            "Transactions under way",
            stats.in_flight as i64,
        )
    }
}

struct CacheState(Cache);

impl fmt::Debug for CacheState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheState")
    }
}

impl Collector for CacheState {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        gauge(
            &mut encoder,
            "cache_revision",
            "The revision of etcd that the cache has seen; 0 until it has listed everything once",
            self.0.revision().0,
        )
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstCounter::new(value);
    let encoder = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
    metric.encode(encoder)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> fmt::Result {
    let metric = ConstGauge::new(value);
    let encoder = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
    metric.encode(encoder)
}

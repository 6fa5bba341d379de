//! The pod layer as the node loop sees it: a task per pod, found again by key and placement.

mod sweeper;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use setpoint_apis::ObjectKey;
use setpoint_apis::records::PodActual;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::deadline::{self, Deadline};
use crate::driver::{Adopted, Driver, adopt_surely};
use crate::layout::{DataDir, PodDir};
use crate::node::RunnerContext;
use crate::node::config::AgentConfig;
use crate::pod::{HostUser, NodeFacts, PodContext, PodHandle, PodInput, Reporter, SteadyClock};
use crate::process::{ProcessDriver, ProcessDriverConfig};
use crate::volumes::{Discarded, discard, remove_pod_dir};
use crate::workload::{Begin, PodReport, PodRunner, PodWork, Reports};
use sweeper::Sweeper;

/// A container's log is rotated at this size, and so many files of it are kept: kubelet's defaults.
const LOG_MAX_BYTES: u64 = 10 << 20;
const LOG_MAX_FILES: u32 = 5;
/// How long containers of which nothing is known any more get to end by themselves.
const PURGE_GRACE: Duration = Duration::from_secs(10);

/// The tasks of all pods, by key and placement.
type Pods = Arc<Mutex<BTreeMap<(ObjectKey, u32), Arc<PodHandle>>>>;

/// The directories that are being emptied. A pod that is to have one of them waits.
#[derive(Clone, Debug)]
struct Purging(Arc<watch::Sender<BTreeSet<PathBuf>>>);

impl Purging {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeSet::new())))
    }

    /// Whether it was not being emptied already.
    fn begin(&self, dir: &Path) -> bool {
        let mut began = false;
        self.0
            .send_modify(|dirs| began = dirs.insert(dir.to_owned()));
        began
    }

    fn done(&self, dir: &Path) {
        self.0.send_modify(|dirs| {
            dirs.remove(dir);
        });
    }

    /// Returns when the directory is not being emptied. From when it is called it counts, not from when it is polled.
    fn gone(&self, dir: PathBuf) -> impl Future<Output = ()> + Send + 'static {
        let mut dirs = self.0.subscribe();
        async move {
            // The sender lives as long as the purge does; without one there is no purge.
            let _ = dirs.wait_for(|dirs| !dirs.contains(&dir)).await;
        }
    }
}

/// A directory that is being emptied. However that ends, a pod that waits for it goes on.
struct Purge(Purging, PathBuf);

impl Drop for Purge {
    fn drop(&mut self) {
        self.0.done(&self.1);
    }
}

/// Runs pods with one driver.
pub struct Runner {
    ctx: Arc<PodContext>,
    pods: Pods,
    purging: Purging,
    reports: Arc<Reports>,
    host_ip: String,
    sweeper: Sweeper,
}

impl Runner {
    /// A pod layer that runs containers as processes of this machine.
    ///
    /// # Errors
    /// The path of the running program cannot be told, which is also the containers' supervisor.
    pub fn with_processes(
        config: &AgentConfig,
        context: RunnerContext,
    ) -> io::Result<Arc<dyn PodRunner>> {
        let driver = ProcessDriver::new(ProcessDriverConfig::detect(&config.cgroup_root)?);
        Ok(Self::new(config, context, Arc::new(driver)))
    }

    /// A pod layer over any driver.
    #[expect(
        clippy::new_ret_no_self,
        reason = "callers know the pod layer by its trait alone"
    )]
    pub fn new(
        config: &AgentConfig,
        context: RunnerContext,
        driver: Arc<dyn Driver>,
    ) -> Arc<dyn PodRunner> {
        let host_ip = config.address.to_string();
        let base_env = ["PATH", "HOME", "LANG"]
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
            .collect();
        let pods = Arc::default();
        let ctx = Arc::new(PodContext {
            driver,
            data: DataDir::new(&config.data_dir),
            content: context.content,
            node: NodeFacts {
                name: config.node.clone(),
                address: host_ip.clone(),
                capacity: context.capacity,
                allocatable: context.allocatable,
                base_env,
            },
            user: HostUser::current(),
            recorder: context.recorder,
            reporter: Arc::new(Forward {
                reports: context.reports.clone(),
                pods: Arc::clone(&pods),
            }),
            clock: SteadyClock::new(context.clock),
            // Shared by all agents of the machine: mount points are the machine's. Only root mounts, and only root
            // writes there.
            mount_registry: PathBuf::from("/run/setpoint/mountpoints"),
            pids_limit: None,
            log_max_bytes: LOG_MAX_BYTES,
            log_max_files: LOG_MAX_FILES,
        });
        let runner = Self {
            sweeper: Sweeper::start(&ctx.data, &ctx.node.name, ctx.recorder.clone()),
            ctx,
            pods,
            purging: Purging::new(),
            reports: context.reports,
            host_ip,
        };
        runner.follow_content(context.content_version);
        Arc::new(runner)
    }

    fn follow_content(&self, mut version: tokio::sync::watch::Receiver<u64>) {
        let pods = self.pods.clone();
        tokio::spawn(async move {
            // Ends with the node loop, which has the sender.
            while version.changed().await.is_ok() {
                let handles: Vec<_> = pods.lock().values().cloned().collect();
                for handle in handles {
                    handle.content_changed();
                }
            }
        });
    }

    fn input(&self, work: PodWork) -> PodInput {
        PodInput {
            placement: work.header.placement.unwrap_or_default(),
            uid: work.header.uid.into(),
            pod_ip: work
                .pod_ip
                .map_or_else(|| self.host_ip.clone(), |ip| ip.to_string()),
            claimed_at: self.ctx.clock.now().wall,
            key: work.key,
            pod: work.pod,
            fence: work.fence,
        }
    }
}

impl PodRunner for Runner {
    fn start(&self, work: PodWork, begin: Begin, last: Option<PodActual>) {
        let mut input = self.input(work);
        if let Some(claimed) = last.as_ref().and_then(|l| l.start_time) {
            input.claimed_at = claimed;
        }
        if begin == Begin::Adopt {
            // What the former agent wrote down last may not have reached etcd.
            let dir = self.ctx.data.pod(&input.uid, input.placement);
            if let Some(written) = PodHandle::last_status(&dir) {
                if last.is_none() {
                    input.claimed_at = written.start_time.unwrap_or(input.claimed_at);
                }
                self.reports.post(PodReport::Status(
                    input.key.clone(),
                    input.placement,
                    Box::new(written),
                ));
            }
        }
        let id = (input.key.clone(), input.placement);
        let dir = self.ctx.data.pod(&input.uid, input.placement);
        let free = self.purging.gone(dir.path().to_owned());
        let handle = Arc::new(PodHandle::spawn_after(free, self.ctx.clone(), input));
        self.pods.lock().insert(id, handle);
    }

    fn update(&self, work: PodWork) {
        let input = self.input(work);
        let handle = self
            .pods
            .lock()
            .get(&(input.key.clone(), input.placement))
            .cloned();
        if let Some(handle) = handle {
            handle.update(input);
        }
    }

    fn stop(&self, key: &ObjectKey, placement: u32) {
        match self.pods.lock().get(&(key.clone(), placement)).cloned() {
            Some(handle) => handle.stop(None),
            None => self
                .reports
                .post(PodReport::Stopped(key.clone(), placement)),
        }
    }

    fn stop_within(&self, key: &ObjectKey, placement: u32, within: Duration) -> bool {
        let pods = self.pods.lock();
        let handle = pods.get(&(key.clone(), placement));
        handle.map(|handle| handle.stop(Some(within))).is_some()
    }

    fn extend(&self, fence: i64, deadline: Deadline) {
        let (dir, path) = (self.ctx.data.fences(), self.ctx.data.fence(fence));
        let written = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .and_then(|()| deadline::write(&path, deadline.boot));
        if let Err(error) = written {
            // The shims keep to the former deadline.
            error!(path = %path.display(), %error, "the deadline of the node's fence was not written: if this goes on, pods that must never run twice are killed");
        }
    }

    fn forget_fence(&self, fence: i64) {
        // A shim that reads it all the same finds that it has ended.
        let _ = fs::remove_file(self.ctx.data.fence(fence));
    }

    fn purge_all_but(&self, known: BTreeSet<(String, u32)>) {
        let (driver, data) = (self.ctx.driver.clone(), self.ctx.data.clone());
        let known: BTreeSet<_> = known
            .iter()
            .map(|(uid, placement)| data.pod(uid, *placement).path().to_owned())
            .collect();
        let running: BTreeSet<_> = self
            .pods
            .lock()
            .values()
            .map(|h| h.dir().path().to_owned())
            .collect();
        // Listed before this returns: a pod that is claimed from now on has a directory that must not be among them.
        let existing = data.existing_pods().unwrap_or_default();
        for dir in existing {
            let path = dir.path();
            if known.contains(path) || running.contains(path) || !self.purging.begin(path) {
                continue;
            }
            info!(dir = %path.display(), "removing what is left of a pod that is no longer this node's");
            let driver = driver.clone();
            let done = Purge(self.purging.clone(), path.to_owned());
            tokio::spawn(async move {
                purge(&*driver, &dir).await;
                drop(done);
            });
        }
    }

    fn discard_claims(&self, uids: Vec<String>) -> BoxFuture<'static, Discarded> {
        let (ctx, sweeper) = (self.ctx.clone(), self.sweeper.clone());
        let discarded = tokio::task::spawn_blocking(move || discard(&ctx.data, &ctx.content, uids));
        async move {
            // Without an answer the runtime is shutting down, or it will be asked again.
            let discarded = discarded.await.unwrap_or_default();
            if discarded.iter().any(|(_, done)| done.is_ok()) {
                sweeper.wake();
            }
            discarded
        }
        .boxed()
    }
}

/// Ends the containers of a pod of which only the directory is left, and removes it.
async fn purge(driver: &dyn Driver, dir: &PodDir) {
    let directories = |path: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(path).into_iter().flatten();
        entries
            .filter_map(|e| Some(e.ok()?.path()))
            .filter(|p| p.is_dir())
            .collect()
    };
    for container in directories(&dir.path().join("containers")) {
        for attempt in directories(&container) {
            if let Adopted::Running(running) = adopt_surely(driver, &attempt).await {
                running.signal(rustix::process::Signal::TERM.as_raw());
                if tokio::time::timeout(PURGE_GRACE, running.ended())
                    .await
                    .is_err()
                {
                    running.kill();
                    running.ended().await;
                }
            }
            if let Err(error) = driver.remove(attempt).await {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "a container could not be removed"
                );
            }
        }
    }
    if let Err(error) = remove_pod_dir(dir) {
        warn!(dir = %dir.path().display(), %error, "a pod's directory could not be removed");
    }
}

/// Hands on what pods say, and forgets pods that have stopped.
struct Forward {
    reports: Arc<Reports>,
    pods: Pods,
}

impl Reporter for Forward {
    fn status(&self, key: &ObjectKey, actual: PodActual) {
        self.reports.post(PodReport::Status(
            key.clone(),
            actual.placement,
            Box::new(actual),
        ));
    }

    fn stopped(&self, key: &ObjectKey, placement: u32) {
        self.pods.lock().remove(&(key.clone(), placement));
        self.reports
            .post(PodReport::Stopped(key.clone(), placement));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_directory_that_is_being_emptied_is_waited_for_and_emptied_once() {
        let purging = Purging::new();
        let dir = Path::new("u-1");
        assert!(purging.begin(dir));
        assert!(!purging.begin(dir));
        let mut wait = std::pin::pin!(purging.gone(dir.to_owned()));
        assert_eq!(wait.as_mut().now_or_never(), None);
        assert_eq!(purging.gone("u-2".into()).now_or_never(), Some(()));
        purging.done(dir);
        wait.await;
    }
}

//! One pod on this node: a task that observes its containers, decides ([`decide`]) and carries out, until the pod is
//! taken back.
//!
//! The task is given work by its [`PodHandle`] and reports through a [`Reporter`]. It keeps nothing that an agent that
//! comes after it could not find again in the pod's directory.

mod adopt;
pub mod decide;
pub mod model;
pub mod probe;
mod start;
pub mod status;
mod worker;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use setpoint_apis::core::Pod;
use setpoint_apis::records::{ClaimFence, PodActual};
use setpoint_apis::time::Timestamp;
use setpoint_apis::{ObjectKey, ResourceList};
use setpoint_runtime::events::Recorder;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tracing::error;

use crate::content::Content;
use crate::driver::Driver;
use crate::env::PodFacts;
use crate::layout::{DataDir, PodDir};
use model::Now;

/// What all pods of a node share.
pub struct PodContext {
    /// What runs containers.
    pub driver: Arc<dyn Driver>,
    /// Where pods have their directories.
    pub data: DataDir,
    /// ConfigMaps and Secrets.
    pub content: Arc<Content>,
    /// The node.
    pub node: NodeFacts,
    /// Whom the agent runs as.
    pub user: HostUser,
    /// Takes events.
    pub recorder: Recorder,
    /// Takes statuses.
    pub reporter: Arc<dyn Reporter>,
    /// The clock.
    pub clock: SteadyClock,
    /// See [`crate::spec::ContainerSpec::mount_registry`].
    pub mount_registry: PathBuf,
    /// The most processes of a container; `None` for no limit.
    pub pids_limit: Option<u64>,
    /// See [`crate::spec::LogSpec::max_bytes`].
    pub log_max_bytes: u64,
    /// See [`crate::spec::LogSpec::max_files`].
    pub log_max_files: u32,
}

impl PodContext {
    fn facts<'a>(&'a self, input: &'a PodInput) -> PodFacts<'a> {
        PodFacts {
            pod: &input.pod,
            uid: &input.uid,
            node_name: &self.node.name,
            host_ip: &self.node.address,
            pod_ip: &input.pod_ip,
            allocatable: &self.node.allocatable,
        }
    }
}

/// What pods may know of their node.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// What the machine has.
    pub capacity: ResourceList,
    /// What pods may request.
    pub allocatable: ResourceList,
    /// What every container's environment begins with: the agent's own PATH and HOME.
    pub base_env: Vec<(String, String)>,
}

/// A user of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostUser {
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
    /// The numbers of its other groups.
    pub groups: Vec<u32>,
}

impl HostUser {
    /// Whom this process runs as.
    pub fn current() -> Self {
        let groups = rustix::process::getgroups().unwrap_or_default();
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: groups
                .into_iter()
                .map(rustix::process::Gid::as_raw)
                .collect(),
        }
    }

    fn is_root(&self) -> bool {
        self.uid == 0
    }

    fn is_in(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }
}

impl NodeFacts {
    fn search_path(&self) -> &str {
        self.base_env
            .iter()
            .find(|(n, _)| n == "PATH")
            .map_or("/usr/local/bin:/usr/bin:/bin", |(_, v)| v)
    }
}

/// A pod as this node is to run it.
#[derive(Clone, Debug)]
pub struct PodInput {
    /// Its name.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: Arc<str>,
    /// Which placement of the pod this is.
    pub placement: u32,
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its address.
    pub pod_ip: String,
    /// When it was claimed.
    pub claimed_at: Timestamp,
    /// The fence under which it was claimed.
    pub fence: Option<ClaimFence>,
}

/// Takes what pods have to say. Must not block.
pub trait Reporter: Send + Sync + 'static {
    /// The pod's status has changed.
    fn status(&self, key: &ObjectKey, actual: PodActual);

    /// The pod has been stopped as ordered, and nothing of it is left.
    fn stopped(&self, key: &ObjectKey, placement: u32);
}

/// Later than anything that is waited for.
const FAR_AHEAD: Duration = Duration::from_secs(30 * 366 * 24 * 3600);

/// Wall time, and a clock that only goes forward, in one.
#[derive(Clone, Debug)]
pub struct SteadyClock {
    wall: setpoint_runtime::Clock,
    origin: Duration,
    start: tokio::time::Instant,
}

impl SteadyClock {
    /// A clock that takes wall time from `wall`, and looks at it once for the steady part.
    pub fn new(wall: setpoint_runtime::Clock) -> Self {
        let origin = wall.now().duration_since(Timestamp::EPOCH);
        Self {
            wall,
            origin,
            start: tokio::time::Instant::now(),
        }
    }

    /// The moment.
    pub fn now(&self) -> Now {
        Now {
            wall: self.wall.now(),
            mono: self.origin + self.start.elapsed(),
        }
    }

    /// The instant of tokio's clock at which the steady clock shows `mono`.
    fn instant(&self, mono: Duration) -> tokio::time::Instant {
        // What tokio's clock cannot show is far enough away never to come.
        let ahead = mono.saturating_sub(self.origin);
        self.start
            .checked_add(ahead)
            .unwrap_or_else(|| self.start + FAR_AHEAD)
    }
}

/// How soon, and how late, a pod whose task died of a bug is taken up again.
const RESPAWN: Duration = Duration::from_secs(1);
const RESPAWN_MAX: Duration = Duration::from_secs(60);

/// A running pod task. Dropping it ends the task and leaves the containers alone.
pub struct PodHandle {
    dir: PodDir,
    orders: Arc<Orders>,
    task: AbortHandle,
}

impl PodHandle {
    /// Begins to run a pod, or to look after one that an earlier agent ran.
    pub fn spawn(ctx: Arc<PodContext>, input: PodInput) -> Self {
        Self::spawn_after(std::future::ready(()), ctx, input)
    }

    /// The same, but nothing of the pod is touched before `free` is done. Orders are taken meanwhile and obeyed then.
    pub fn spawn_after(
        free: impl Future<Output = ()> + Send + 'static,
        ctx: Arc<PodContext>,
        input: PodInput,
    ) -> Self {
        let orders = Arc::<Orders>::default();
        let dir = ctx.data.pod(&input.uid, input.placement);
        let task = tokio::spawn({
            let orders = orders.clone();
            async move {
                free.await;
                run(ctx, input, orders).await;
            }
        })
        .abort_handle();
        Self { dir, orders, task }
    }

    /// The pod's directory.
    pub fn dir(&self) -> &PodDir {
        &self.dir
    }

    /// The status that a task of the pod has last written down.
    pub fn last_status(dir: &PodDir) -> Option<PodActual> {
        crate::spec::read_record(dir.path(), adopt::STATUS_FILE).unwrap_or_default()
    }

    /// The pod's definition has changed. Of several that the task has not looked at yet the last one counts.
    pub fn update(&self, input: PodInput) {
        self.orders.give(|o| {
            o.kept_update = Some(input.clone());
            o.update = Some(Box::new(input));
        });
    }

    /// ConfigMaps or Secrets of the node have changed.
    pub fn content_changed(&self) {
        self.orders.give(|o| o.content_changed = true);
    }

    /// Stops the pod for good, within its grace period or the one that is given. Orders that come later only make it
    /// shorter.
    pub fn stop(&self, grace: Option<Duration>) {
        self.orders.give(|o| {
            o.stop = Some(match (o.stop.flatten(), grace) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            });
            o.kept_stop = o.stop;
        });
    }
}

/// What a pod's task has been told and has not looked at yet. Giving an order neither waits nor fails, and orders keep
/// their sequence.
#[derive(Default)]
struct Orders {
    pending: Mutex<Pending>,
    given: Notify,
}

#[derive(Default)]
struct Pending {
    update: Option<Box<PodInput>>,
    content_changed: bool,
    stop: Option<Option<Duration>>,
    /// What still holds after it was taken, for a task that has to begin again.
    kept_update: Option<PodInput>,
    kept_stop: Option<Option<Duration>>,
}

/// Runs a pod to its end. A bug that a pod's task dies of is reported, and the pod is taken up again as after a restart
/// of the agent: its containers go on, and its end is reported whatever happened.
async fn run(ctx: Arc<PodContext>, mut input: PodInput, orders: Arc<Orders>) {
    let mut pause = RESPAWN;
    loop {
        let life = worker::run(ctx.clone(), input.clone(), orders.clone());
        let Err(panic) = AssertUnwindSafe(life).catch_unwind().await else {
            return;
        };
        let said = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or_default();
        error!(object = %input.key, panic = said, "a bug ended a pod's task; taking the pod up again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RESPAWN_MAX);
        if let Some(update) = orders.repeat() {
            input = update;
        }
    }
}

impl Orders {
    fn give(&self, order: impl FnOnce(&mut Pending)) {
        order(&mut self.pending.lock());
        self.given.notify_one();
    }

    fn take(&self) -> Pending {
        let mut pending = self.pending.lock();
        Pending {
            update: pending.update.take(),
            content_changed: std::mem::take(&mut pending.content_changed),
            stop: pending.stop.take(),
            ..Pending::default()
        }
    }

    /// Gives the order to stop once more, and returns what the pod was last changed to.
    fn repeat(&self) -> Option<PodInput> {
        let mut updated = None;
        self.give(|o| {
            o.stop = o.kept_stop;
            updated = o.kept_update.clone();
        });
        updated
    }
}

impl Drop for PodHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

//! The task that deletes what is in the trash: at the beginning what an earlier agent has left, then whatever comes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use setpoint_apis::ObjectKey;
use setpoint_apis::core::Node;
use setpoint_apis::fnv::fnv64;
use setpoint_runtime::backoff::Backoff;
use setpoint_runtime::events::{EventRef, Recorder};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::layout::DataDir;
use crate::volumes::{TrashError, empty};

/// The wait before what could not be deleted is tried again.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(30 * 60));

/// How often the same is told: before its event has expired.
const TELL_AGAIN: Duration = Duration::from_secs(30 * 60);

/// The reason of the events.
const REASON: &str = "TrashNotDeleted";

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sweeper(Arc<watch::Sender<()>>);

impl Sweeper {
    /// Begins. The task ends when all handles are gone, and with the runtime: a deletion that is under way then stops at
    /// the next file.
    pub(super) fn start(data: &DataDir, node: &str, recorder: Recorder) -> Self {
        let (wake, woken) = watch::channel(());
        let about = EventRef::of::<Node>(&ObjectKey::cluster(node), "");
        tokio::spawn(sweep(data.trash(), woken, about, recorder));
        Self(Arc::new(wake))
    }

    /// There is something in the trash.
    pub(super) fn wake(&self) {
        self.0.send_replace(());
    }
}

async fn sweep(
    trash: PathBuf,
    mut woken: watch::Receiver<()>,
    about: EventRef,
    recorder: Recorder,
) {
    let seed = fnv64(trash.as_os_str().as_encoded_bytes());
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut failures = 0;
    let mut told: Option<(String, Instant)> = None;
    loop {
        woken.mark_unchanged();
        let wait = match empty_there(trash.clone()).await {
            Some(Ok(())) => {
                if std::mem::take(&mut failures) > 0 {
                    info!(trash = %trash.display(), "the trash is deleted by now");
                }
                None
            }
            Some(Err(error)) => {
                failures += 1;
                let wait = AGAIN.delay(failures, &mut rng);
                warn!(trash = %trash.display(), failures, retry_after_s = wait.as_secs(), error = &error as &dyn std::error::Error, "what volume claims have left cannot all be deleted");
                let message =
                    format!("what deleted volume claims have left cannot all be deleted: {error}");
                let now = Instant::now();
                if !told.as_ref().is_some_and(|(before, at)| {
                    *before == message && now.saturating_duration_since(*at) < TELL_AGAIN
                }) {
                    recorder.warning(about.clone(), REASON, message.clone());
                    told = Some((message, now));
                }
                Some(wait)
            }
            None => return,
        };
        let over = async {
            match wait {
                Some(wait) => sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        // What cannot be deleted is not in the way of what comes: that is deleted at once.
        tokio::select! {
            biased;
            changed = woken.changed() => if changed.is_err() { return },
            () = over => {}
        }
    }
}

/// Empties the trash on a thread for what blocks; `None` when that could not be done to the end.
async fn empty_there(trash: PathBuf) -> Option<Result<(), TrashError>> {
    let stop = Arc::new(AtomicBool::new(false));
    let _when_dropped = Stop(stop.clone());
    let emptied = tokio::task::spawn_blocking(move || empty(&trash, &stop));
    emptied.await.ok()
}

/// Stops a deletion that nobody waits for any more: a runtime that ends waits for its threads.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

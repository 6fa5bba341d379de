//! When pods are created and bound, as a watcher sees it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use setpoint_apis::{Key, Keyspace};
use setpoint_store::{EventKind, SharedStore, StoreError, WatchRequest};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The namespace of all pods.
pub(super) const NAMESPACE: &str = "default";

/// Why pods are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// They are bound before the measurement begins.
    Fill,
    /// They are measured.
    Measured,
    /// They show that the scheduler is at work.
    Warm,
}

impl Role {
    /// The name of a pod.
    pub(super) fn name(self, number: usize) -> String {
        let role = match self {
            Self::Fill => "fill",
            Self::Measured => "bench",
            Self::Warm => "warm",
        };
        format!("{role}-{number:06}")
    }

    /// Role and number of a pod's name.
    pub(super) fn parse(name: &str) -> Option<(Self, usize)> {
        let (role, number) = name.split_once('-')?;
        let role = match role {
            "fill" => Self::Fill,
            "bench" => Self::Measured,
            "warm" => Self::Warm,
            _ => return None,
        };
        Some((role, number.parse().ok()?))
    }
}

/// How many pods have been seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) created: usize,
    pub(super) bound: usize,
    pub(super) fill_bound: usize,
    pub(super) warm_bound: usize,
}

/// When the measured pods were seen, by number.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) created: Vec<Option<Instant>>,
    pub(super) bound: Vec<Option<Instant>>,
}

/// Follows bindings and pods in one watch, so that they are seen in one order.
pub(super) struct Watch {
    progress: watch::Receiver<Progress>,
    task: JoinHandle<Result<Seen, StoreError>>,
    stop: CancellationToken,
}

impl Watch {
    /// Begins to watch for so many measured pods.
    pub(super) async fn start(
        store: &SharedStore,
        keyspace: &Keyspace,
        pods: usize,
    ) -> Result<Self> {
        // Bindings and desired pods are neighbours in the keyspace, with nothing of this benchmark in between.
        let request = WatchRequest {
            start: keyspace.binding_range(None).start,
            end: keyspace.desired_range("pods", None).end,
            from: None,
        };
        let mut stream = store
            .watch(request)
            .await
            .context("watching pods and bindings")?;
        let (report, progress) = watch::channel(Progress::default());
        let stop = CancellationToken::new();
        let (stopped, keyspace) = (stop.clone(), keyspace.clone());
        let task = tokio::spawn(async move {
            let mut seen = Seen {
                created: vec![None; pods],
                bound: vec![None; pods],
            };
            let mut fill_bound = std::collections::BTreeSet::new();
            let mut progress = Progress::default();
            loop {
                let batch = tokio::select! {
                    biased;
                    () = stopped.cancelled() => return Ok(seen),
                    batch = stream.next() => match batch {
                        Some(batch) => batch?,
                        None => return Ok(seen),
                    },
                };
                let now = Instant::now();
                for event in batch.events.iter().filter(|e| e.kind == EventKind::Put) {
                    let (key, is_binding) = match keyspace.split(&event.kv.key) {
                        Ok(Key::Binding(key)) => (key, true),
                        Ok(Key::Desired("pods", key)) => (key, false),
                        _ => continue,
                    };
                    match (Role::parse(&key.name), is_binding) {
                        (Some((Role::Measured, number)), true) => {
                            progress.bound += note(&mut seen.bound, number, now);
                        }
                        (Some((Role::Measured, number)), false) => {
                            progress.created += note(&mut seen.created, number, now);
                        }
                        (Some((Role::Fill, number)), true) => {
                            progress.fill_bound += usize::from(fill_bound.insert(number));
                        }
                        (Some((Role::Warm, _)), true) => progress.warm_bound += 1,
                        _ => {}
                    }
                }
                report.send_replace(progress);
            }
        });
        Ok(Self {
            progress,
            task,
            stop,
        })
    }

    /// Follows the progress.
    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits until so many are seen; how many there are when none came for so long.
    ///
    /// # Errors
    /// The watch has ended.
    pub(super) async fn until(
        &mut self,
        wanted: usize,
        patience: Duration,
        count: impl Fn(&Progress) -> usize,
    ) -> Result<Result<(), usize>> {
        loop {
            let now = count(&self.progress.borrow_and_update());
            if now >= wanted {
                return Ok(Ok(()));
            }
            let more = self.progress.wait_for(|progress| count(progress) > now);
            match tokio::time::timeout(patience, more).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => bail!("the watch of pods and bindings has ended"),
                Err(_) => return Ok(Err(now)),
            }
        }
    }

    /// Ends the watch; what it has seen.
    ///
    /// # Errors
    /// What the watch ended with.
    pub(super) async fn finish(self) -> Result<Seen> {
        self.stop.cancel();
        let seen = self.task.await.context("the watching task ended")?;
        seen.context("watching pods and bindings")
    }
}

/// Takes note of the first time; 1 when it is.
fn note(times: &mut [Option<Instant>], number: usize, now: Instant) -> usize {
    match times.get_mut(number) {
        Some(time @ None) => {
            *time = Some(now);
            1
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_role_and_number() {
        for role in [Role::Fill, Role::Measured, Role::Warm] {
            assert_eq!(Role::parse(&role.name(1234)), Some((role, 1234)));
        }
        assert_eq!(Role::parse("other-1"), None);
        assert_eq!(Role::parse("bench-x"), None);
    }

    #[test]
    fn only_the_first_time_counts() {
        let (first, mut times) = (Instant::now(), vec![None; 2]);
        assert_eq!(note(&mut times, 1, first), 1);
        assert_eq!(note(&mut times, 1, first + Duration::from_secs(1)), 0);
        assert_eq!(note(&mut times, 7, first), 0);
        assert_eq!(times, [None, Some(first)]);
    }
}

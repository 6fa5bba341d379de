//! Where background work is spawned, and the processes of a simulation.
//!
//! A simulation runs many processes of Setpoint as tasks of one thread. It must be able to freeze one of them (a
//! virtual machine that is paused, a host that swaps) and to kill one without a destructor having its say in the store.
//! So code that may run in a simulation spawns through [`spawn`]: what is spawned belongs to the process of whoever
//! spawned it. Outside a simulation there is no such process, and [`spawn`] is tokio's.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::future::{BoxFuture, Either, FutureExt};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

tokio::task_local! {
    static CURRENT: Process;
}

/// Spawns `work` into the process that the caller belongs to.
pub fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(inherit(work))
}

/// Makes `work` belong to the caller's process, for what spawns by itself (a `JoinSet`, a `TaskTracker`).
pub fn inherit<F>(work: F) -> impl Future<Output = F::Output> + Send + 'static
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match CURRENT.try_with(Process::clone) {
        Ok(process) => Either::Left(process.own(work)),
        Err(_) => Either::Right(work),
    }
}

/// A simulated process: tasks that are frozen, thawed and killed together. Cheap to clone.
#[derive(Clone, Default)]
pub struct Process {
    inner: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    condition: Condition,
    /// How each task is woken, in the order in which they were spawned.
    tasks: BTreeMap<u64, Waker>,
    spawned: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Condition {
    #[default]
    Running,
    Frozen,
    Killed,
}

impl Process {
    /// A running process without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `work`, and all that it spawns, part of this process. In a process that was killed it is dropped at once
    /// and never ends.
    pub fn own<F>(&self, work: F) -> impl Future<Output = F::Output> + Send + 'static + use<F>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let mut state = self.inner.lock();
        state.spawned += 1;
        Owned {
            process: self.clone(),
            id: state.spawned,
            waker: None,
            work: Some(CURRENT.scope(self.clone(), work).boxed()),
        }
    }

    /// Stops all tasks where they stand. Time goes on, so what they wait for is overdue when they go on.
    pub fn freeze(&self) {
        self.enter(Condition::Frozen);
    }

    /// Lets the tasks go on.
    pub fn thaw(&self) {
        self.enter(Condition::Running);
    }

    /// Ends all tasks where they stand, for good. What they own is dropped when the runtime next gets to them.
    pub fn kill(&self) {
        self.enter(Condition::Killed);
    }

    /// Whether it was killed.
    pub fn is_killed(&self) -> bool {
        self.inner.lock().condition == Condition::Killed
    }

    fn enter(&self, condition: Condition) {
        let woken: Vec<Waker> = {
            let mut state = self.inner.lock();
            if state.condition == Condition::Killed {
                return;
            }
            state.condition = condition;
            state.tasks.values().cloned().collect()
        };
        woken.iter().for_each(Waker::wake_by_ref);
    }
}

struct Owned<T> {
    process: Process,
    id: u64,
    /// The waker that the process knows.
    waker: Option<Waker>,
    /// `None` once the process was killed.
    work: Option<BoxFuture<'static, T>>,
}

impl<T> Future for Owned<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        let condition = {
            let mut state = this.process.inner.lock();
            if !this.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                this.waker = Some(cx.waker().clone());
                state.tasks.insert(this.id, cx.waker().clone());
            }
            state.condition
        };
        match (condition, &mut this.work) {
            (Condition::Running, Some(work)) => work.poll_unpin(cx),
            (Condition::Frozen, _) => Poll::Pending,
            (Condition::Killed, _) | (Condition::Running, None) => {
                this.work = None;
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.process.inner.lock().tasks.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    /// Counts seconds, in a task that the task of the process spawns.
    fn count(process: &Process) -> Arc<AtomicU32> {
        let counted = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&counted);
        tokio::spawn(process.own(async move {
            spawn(async move {
                loop {
                    sleep(Duration::from_secs(1)).await;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }));
        counted
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_frozen_process_has_spawned_stands_still_and_goes_on() {
        let process = Process::new();
        let counted = count(&process);
        sleep(Duration::from_millis(3500)).await;
        assert_eq!(counted.load(Ordering::Relaxed), 3);
        process.freeze();
        sleep(Duration::from_secs(10)).await;
        assert_eq!(counted.load(Ordering::Relaxed), 3);
        process.thaw();
        sleep(Duration::from_millis(2500)).await;
        // The second that was under way when it froze is over at once.
        assert_eq!(counted.load(Ordering::Relaxed), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_killed_process_ends_at_once_and_for_good() {
        let process = Process::new();
        let counted = count(&process);
        sleep(Duration::from_millis(1500)).await;
        process.kill();
        process.thaw();
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&counted), 1, "what it owned is dropped");
        let late = tokio::spawn(process.own(async {}));
        sleep(Duration::from_secs(5)).await;
        assert!(!late.is_finished());
        assert_eq!(counted.load(Ordering::Relaxed), 1);
    }
}

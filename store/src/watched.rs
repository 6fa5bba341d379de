//! A value that others watch: tokio's `watch`, as far as it is needed, with waiters that wake in the order in which they
//! began to wait.
//!
//! tokio spreads the waiters of a channel at random, for less contention between threads. A run that is to be repeated
//! step by step cannot have that, and the values here (a revision, the state of a lease) have few waiters.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The writing side. Clones share the value.
#[derive(Debug)]
pub struct Watched<T>(Arc<Shared<T>>);

/// The reading side.
#[derive(Debug)]
pub struct Watcher<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Clone for Watcher<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Copy> Watched<T> {
    /// A value that nobody watches yet.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Shared {
            value: Mutex::new(value),
            changed: Notify::new(),
        }))
    }

    /// The value now.
    pub fn get(&self) -> T {
        *self.0.value.lock()
    }

    /// Replaces the value.
    pub fn set(&self, value: T) {
        *self.0.value.lock() = value;
        self.0.changed.notify_waiters();
    }

    /// A reading side.
    pub fn watcher(&self) -> Watcher<T> {
        Watcher(Arc::clone(&self.0))
    }

    /// As [`Watcher::wait_for`].
    pub async fn wait_for(&self, holds: impl FnMut(&T) -> bool) -> T {
        self.watcher().wait_for(holds).await
    }
}

impl<T: Copy> Watcher<T> {
    /// The value now.
    pub fn get(&self) -> T {
        *self.0.value.lock()
    }

    /// Waits until `holds`, also when that is never: a writer that is gone changes nothing. Values that are replaced
    /// before the waiter gets to run may be missed. Cancel safe.
    pub async fn wait_for(&self, mut holds: impl FnMut(&T) -> bool) -> T {
        loop {
            let changed = self.0.changed.notified();
            let value = self.get();
            if holds(&value) {
                return value;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn waiters_wake_in_the_order_in_which_they_began_to_wait() {
        let value = Watched::new(0);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..32)
            .map(|waiter| {
                let (value, woken) = (value.watcher(), Arc::clone(&woken));
                tokio::spawn(async move {
                    value.wait_for(|v| *v == 1).await;
                    woken.lock().push(waiter);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        value.set(1);
        for task in tasks {
            task.await.unwrap();
        }
        assert!(woken.lock().is_sorted());
        assert_eq!(value.wait_for(|v| *v == 1).await, 1);
    }
}

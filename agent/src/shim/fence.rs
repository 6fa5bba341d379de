//! The watchdog of a container that runs under a fence: when the agent has not moved the deadline in time, the shim kills
//! the container, whatever has become of the agent.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::errno;
use crate::deadline::{DeadlineFile, boot_time};
use crate::spec::StepError;

/// How long after an attempt to kill the next one is made: what is in uninterruptible sleep dies when it wakes, and what
/// forks may have got away.
const AGAIN: Duration = Duration::from_millis(20);

pub(super) struct Fence {
    file: DeadlineFile,
    /// Readable when `wake` has come, suspend included.
    timer: OwnedFd,
    wake: Duration,
    over: bool,
}

impl Fence {
    /// The fence of a container; `None` when it runs under none.
    pub(super) fn of(path: Option<&Path>) -> Result<Option<Self>, StepError> {
        let Some(path) = path else {
            return Ok(None);
        };
        let failed =
            |e: std::io::Error| StepError::new("fence", format_args!("{}: {e}", path.display()));
        let file = DeadlineFile::open(path).map_err(failed)?;
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)
            .map_err(|e| StepError::new("fence", errno(e)))?;
        let mut fence = Self {
            file,
            timer,
            wake: Duration::ZERO,
            over: false,
        };
        fence.check()?;
        fence.is_over();
        Ok(Some(fence))
    }

    /// Fails when the fence has ended: nothing may be started under it.
    pub(super) fn check(&self) -> Result<(), StepError> {
        match self.file.has_passed() {
            true => Err(ended()),
            false => Ok(()),
        }
    }

    /// Becomes readable when [`Fence::is_over`] is to be asked.
    pub(super) fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// Whether the deadline has passed, however often it was moved, and another attempt to kill is due.
    pub(super) fn is_over(&mut self) -> bool {
        let now = boot_time();
        if now < self.wake {
            return false;
        }
        // Once it is over it stays over: an agent that goes on later finds the container gone.
        let until = self.file.until().filter(|until| !self.over && *until > now);
        self.over = until.is_none();
        self.wake = until.unwrap_or(now + AGAIN);
        // With valid arguments this cannot fail; and should it, the loop above wakes with each output of the container.
        let _ = timerfd_settime(
            &self.timer,
            TimerfdTimerFlags::ABSTIME,
            &Itimerspec {
                it_interval: timespec(Duration::ZERO),
                it_value: timespec(self.wake),
            },
        );
        self.over
    }

    /// Why the container was ended, if it was the fence.
    pub(super) fn why(&self) -> Option<StepError> {
        self.over.then(ended)
    }
}

fn ended() -> StepError {
    StepError::new(
        "fence",
        "the node's fence lease was not renewed in time, and the pod must never run twice",
    )
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: time.as_secs().cast_signed(),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

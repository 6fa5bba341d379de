//! Nothing escapes: whatever a container started is found and killed when its main process has ended.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process};

use crate::cgroup::Cgroup;
use crate::procfs;

/// Collects all children that have ended. Orphans of the container count: the shim is their subreaper.
pub(super) fn reap_all() -> Vec<(i32, WaitStatus)> {
    let mut ended = Vec::new();
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        ended.push((pid.as_raw_nonzero().get(), status));
    }
    ended
}

/// Kills every process of the container and waits until none is left, except those the kernel cannot kill (in
/// uninterruptible sleep): it waits for those for as long as it takes, because the container has not ended before.
///
/// `wake` becomes readable when a child has ended; `while_waiting` is called between rounds.
pub(super) fn kill_rest(
    cgroup: Option<&Cgroup>,
    wake: &impl std::os::fd::AsFd,
    mut while_waiting: impl FnMut(),
) {
    let me = std::process::id() as i32;
    let mut pause = Duration::from_millis(1);
    loop {
        reap_all();
        let family = procfs::descendants(me);
        let members = cgroup.map(Cgroup::processes).unwrap_or_default();
        if family.is_empty() && members.is_empty() {
            return;
        }
        if !members.is_empty()
            && let Some(cgroup) = cgroup
        {
            cgroup.kill_all();
        }
        stop_then_kill(me);
        while_waiting();
        let mut fds = [PollFd::new(wake, PollFlags::IN)];
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: pause.as_nanos() as i64,
        };
        let _ = poll(&mut fds, Some(&timeout));
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Kills every process of the container, once, and waits for nothing.
pub(super) fn kill_now(cgroup: Option<&Cgroup>) {
    if let Some(cgroup) = cgroup {
        cgroup.kill_all();
    }
    stop_then_kill(std::process::id() as i32);
}

/// Stops parents before their children are listed, so that no process can have another one while the list is walked,
/// and no number can be taken by a stranger: a stopped parent does not reap.
fn stop_then_kill(root: i32) {
    let mut found: Vec<i32> = Vec::new();
    loop {
        let fresh: Vec<i32> = procfs::descendants(root)
            .into_iter()
            .filter(|p| !found.contains(p))
            .collect();
        if fresh.is_empty() {
            break;
        }
        for pid in fresh {
            signal(pid, Signal::STOP);
            found.push(pid);
        }
    }
    for pid in found {
        signal(pid, Signal::KILL);
    }
}

pub(super) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

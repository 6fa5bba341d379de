//! Looking at and ending the processes of a node from outside, as a power failure would.

use std::collections::HashSet;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// Kills an agent, its shims and their containers with SIGKILL. Only processes of that agent's data directory, and
/// their descendants, are touched.
pub(crate) fn kill_node(agent: Option<u32>, data_dir: &Path) {
    let processes = all();
    let mut doomed: Vec<u32> = agent.into_iter().collect();
    let marker = data_dir.to_string_lossy().into_owned();
    doomed.extend(
        processes
            .iter()
            .filter(|p| is_shim_of(p, &marker))
            .map(|p| p.pid),
    );
    let mut known: HashSet<u32> = doomed.iter().copied().collect();
    let mut next = 0;
    while next < doomed.len() {
        let parent = doomed[next];
        doomed.extend(
            processes
                .iter()
                .filter(|p| p.parent == parent && known.insert(p.pid))
                .map(|p| p.pid),
        );
        next += 1;
    }
    for pid in doomed {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // An error means that it is gone already.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// The resident set of a process in bytes, as the kernel counts it; 0 when it is gone.
pub(crate) fn rss_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|l| {
            l.strip_prefix("VmRSS:")?
                .trim()
                .strip_suffix(" kB")?
                .parse::<u64>()
                .ok()
        })
        .map_or(0, |kib| kib * 1024)
}

struct Process {
    pid: u32,
    parent: u32,
    arguments: Vec<String>,
}

fn is_shim_of(process: &Process, data_dir: &str) -> bool {
    process.arguments.get(1).is_some_and(|a| a == "shim")
        && process
            .arguments
            .get(2)
            .is_some_and(|dir| Path::new(dir).starts_with(data_dir))
}

fn all() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The command name, in parentheses, may hold anything; the parent is the second field after it.
            let parent = stat
                .rsplit_once(')')?
                .1
                .split_whitespace()
                .nth(1)?
                .parse()
                .ok()?;
            let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let arguments = cmdline
                .split(|b| *b == 0)
                .map(|a| String::from_utf8_lossy(a).into_owned())
                .collect();
            Some(Process {
                pid,
                parent,
                arguments,
            })
        })
        .collect()
}

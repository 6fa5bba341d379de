//! The little that is read from `/proc`: who is whose child, and since when.

use std::fs;
use std::io;

use crate::spec::ProcessId;

/// What `/proc/<pid>/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) state: char,
    pub(crate) parent: i32,
    pub(crate) cpu_ticks: u64,
    pub(crate) start_ticks: u64,
    pub(crate) resident_pages: u64,
}

/// Reads the state of a process. `None` when there is none.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The same, where it matters whether there is none or whether it cannot be told.
pub(crate) fn look(pid: i32) -> io::Result<Option<Stat>> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => Ok(parse_stat(&text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(e) => Err(e),
    }
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The second field is the program's name in parentheses, which may itself hold blanks and parentheses.
    let rest = &text[text.rfind(')')? + 1..];
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        cpu_ticks: number(11)? + number(12)?,
        start_ticks: number(19)?,
        resident_pages: number(21)?,
    })
}

/// Identifies a running process.
pub(crate) fn identify(pid: i32) -> Option<ProcessId> {
    Some(ProcessId {
        pid,
        start_ticks: stat(pid)?.start_ticks,
    })
}

/// Whether exactly this process still exists and is not a zombie.
pub(crate) fn is_alive(process: ProcessId) -> bool {
    stat(process.pid)
        .is_some_and(|s| s.start_ticks == process.start_ticks && s.state != 'Z' && s.state != 'X')
}

/// The children of all threads of a process, zombies included.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return found;
    };
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(list) => found.extend(
                list.split_ascii_whitespace()
                    .filter_map(|p| p.parse::<i32>().ok()),
            ),
            // The kernel was built without the file (the thread itself exists): look at every process instead.
            Err(_) if thread.path().join("stat").exists() => return children_by_scan(pid),
            Err(_) => {}
        }
    }
    found
}

fn children_by_scan(parent: i32) -> Vec<i32> {
    let Ok(all) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    all.flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| stat(*pid).is_some_and(|s| s.parent == parent))
        .collect()
}

/// A process's descendants, parents before children.
pub(crate) fn descendants(pid: i32) -> Vec<i32> {
    let mut found = children(pid);
    let mut next = 0;
    while next < found.len() {
        let more = children(found[next]);
        next += 1;
        found.extend(more);
    }
    found
}

/// Differs for every boot of the machine.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|s| s.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_parentheses_does_not_confuse() {
        let s = parse_stat(
            "17 (a) (b) c) S 3 17 17 0 -1 4194560 1 2 3 4 50 7 0 0 20 0 1 0 4711 1000 42 1 1 1",
        )
        .unwrap();
        assert_eq!(
            s,
            Stat {
                state: 'S',
                parent: 3,
                cpu_ticks: 57,
                start_ticks: 4711,
                resident_pages: 42
            }
        );
        assert_eq!(parse_stat("17 (x"), None);
    }

    #[test]
    fn the_own_process_is_alive_and_another_start_time_is_another_process() {
        let me = identify(std::process::id() as i32).unwrap();
        assert!(is_alive(me));
        assert!(!is_alive(ProcessId {
            start_ticks: me.start_ticks + 1,
            ..me
        }));
        assert!(!boot_id().is_empty());
    }
}

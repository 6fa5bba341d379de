//! Finding a container again after a restart of the agent.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tracing::warn;

use super::container::{Handles, ProcessContainer, conclude, empty, now};
use super::{ProcessDriverConfig, blocking, lost};
use crate::driver::{Adopted, DriverError};
use crate::locked::Locked;
use crate::procfs;
use crate::spec::{
    ContainerSpec, EXIT_FILE, ExitRecord, PID_FILE, PidRecord, SPEC_FILE, read_record, write_record,
};

pub(super) async fn adopt(
    config: Arc<ProcessDriverConfig>,
    dir: PathBuf,
    limit: Duration,
) -> Result<Adopted, DriverError> {
    let mut deadline = tokio::time::Instant::now() + limit;
    loop {
        let found = {
            let dir = dir.clone();
            blocking(move || look(&dir)).await
        };
        match found.map_err(|source| DriverError::Directory {
            dir: dir.clone(),
            source,
        })? {
            Found::Nothing => return Ok(Adopted::NotStarted),
            Found::Ended(record) => return Ok(Adopted::Ended(record)),
            Found::Running(spec, record) => {
                let handles =
                    Handles::open(&record, false).map_err(|source| DriverError::Directory {
                        dir: dir.clone(),
                        source,
                    })?;
                let container =
                    ProcessContainer::watch(config, dir, spec.cgroup, record, None, handles);
                return Ok(Adopted::Running(Arc::new(container)));
            }
            // The former agent died within the few milliseconds that a start takes.
            Found::Starting if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await
            }
            Found::Starting => {
                let hung = dir.clone();
                let ended = blocking(move || end_hung(&hung)).await;
                ended.map_err(|source| DriverError::Directory {
                    dir: dir.clone(),
                    source,
                })?;
                // What it became meanwhile, or that it never began.
                deadline = tokio::time::Instant::now() + limit;
            }
        }
    }
}

/// Ends a shim that has not started its container, and what else is in the container's group. Nobody knows its number:
/// it is the process whose standard input is the locked file.
fn end_hung(dir: &Path) -> io::Result<()> {
    let spec_path = std::fs::canonicalize(dir.join(SPEC_FILE))?;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let number = entry.file_name().to_str().and_then(|n| n.parse().ok());
        let Some(pid) = number.and_then(Pid::from_raw) else {
            continue;
        };
        let holds = || std::fs::read_link(entry.path().join("fd/0")).is_ok_and(|f| f == spec_path);
        if !holds() {
            continue;
        }
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        // Looked at again: the number could have gone to another process before the descriptor was taken.
        if holds() {
            warn!(dir = %dir.display(), pid = pid.as_raw_nonzero(), "a supervising process did not start its container in time; killing it");
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }
    let spec: ContainerSpec = whole(dir, SPEC_FILE)?.unwrap_or_default();
    if let Some(cgroup) = spec.cgroup {
        empty(&cgroup);
    }
    Ok(())
}

enum Found {
    Nothing,
    Starting,
    Running(Box<ContainerSpec>, PidRecord),
    Ended(ExitRecord),
}

fn look(dir: &Path) -> io::Result<Found> {
    if let Some(exit) = whole::<ExitRecord>(dir, EXIT_FILE)? {
        return Ok(Found::Ended(exit));
    }
    let file = match File::open(dir.join(SPEC_FILE)) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(e) => return Err(e),
    };
    // Held to the end: nobody else is to conclude the same.
    let lock = Locked::take(file);
    let shim_lives = lock.is_none();
    let record = match read_record::<PidRecord>(dir, PID_FILE) {
        // It began, and nobody can tell when and as what; the main process has died with the shim.
        Err(e) if is_torn(&e) && !shim_lives => Some(PidRecord::default()),
        read => read?,
    };
    match (shim_lives, record) {
        (true, None) => Ok(Found::Starting),
        (true, Some(record)) => {
            let spec = read_record::<ContainerSpec>(dir, SPEC_FILE)?.unwrap_or_default();
            Ok(Found::Running(Box::new(spec), record))
        }
        (false, record) => {
            // It may have ended since the first look.
            if let Some(exit) = whole::<ExitRecord>(dir, EXIT_FILE)? {
                return Ok(Found::Ended(exit));
            }
            let Some(record) = record else {
                return Ok(Found::Nothing);
            };
            if record.boot_id != procfs::boot_id() {
                let exit = lost("the machine was restarted", Some(&record), now());
                let _ = write_record(dir, EXIT_FILE, &exit);
                return Ok(Found::Ended(exit));
            }
            let spec: ContainerSpec = whole(dir, SPEC_FILE)?.unwrap_or_default();
            Ok(Found::Ended(conclude(
                dir,
                spec.cgroup.as_ref(),
                &record,
                None,
            )))
        }
    }
}

/// A record that a crash of the machine has torn counts as one that was never written: asking again would not mend it.
fn whole<T: serde::de::DeserializeOwned>(dir: &Path, file: &str) -> io::Result<Option<T>> {
    match read_record(dir, file) {
        Err(e) if is_torn(&e) => Ok(None),
        read => read,
    }
}

fn is_torn(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_records_of_a_container_that_has_ended_do_not_hold_up_anything() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(SPEC_FILE), "{}").unwrap();
        std::fs::write(dir.path().join(EXIT_FILE), "").unwrap();
        assert!(matches!(look(dir.path()), Ok(Found::Nothing)));
        std::fs::write(dir.path().join(PID_FILE), "{").unwrap();
        assert!(matches!(look(dir.path()), Ok(Found::Ended(_))));
    }
}

//! Until when the containers of a fence may run.
//!
//! A pod that must never run twice runs under its node's fence lease. The agent turns each renewal of the lease into a
//! [`Deadline`] and writes it to a file; the shims of the fence's containers read it when their last known deadline comes,
//! and kill what they supervise when it has not moved. So an agent that is dead, hung or stopped, or that cannot reach the
//! store, lets nothing outlive the fence.
//!
//! Deadlines are moments of `CLOCK_BOOTTIME`, which goes on while the machine is suspended, in this boot of the machine.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::procfs;

/// Longer than a record.
const RECORD_LIMIT: usize = 128;

/// What is left of the lease when everything under it is dead: for the kernel to kill, and for clocks that go at
/// different speeds, a tenth of the lease.
pub fn margin(ttl: Duration) -> Duration {
    ttl / 10
}

/// The most that a pod gets to stop in before it is killed: two fifths of the lease. So half of the lease passes after a
/// renewal before anything is stopped, in which the next one has been tried, and once more if that failed.
pub fn room(ttl: Duration) -> Duration {
    ttl * 2 / 5
}

/// When the containers of a fence are killed unless it is extended, on two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// On tokio's clock, which stands still while the machine is suspended.
    pub at: Instant,
    /// On `CLOCK_BOOTTIME`.
    pub boot: Duration,
}

/// `CLOCK_BOOTTIME` now.
pub(crate) fn boot_time() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// Writes a deadline, in place: that needs no room on a disk that is full, once the file is there.
///
/// # Errors
/// IO errors. The file then holds what it held before, or nothing that is a deadline.
pub(crate) fn write(path: &Path, until: Duration) -> io::Result<()> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    file.write_all_at(record(until, &procfs::boot_id()).as_bytes(), 0)
}

/// Twice, so that a reader can tell a record that is being written; always of the same length.
fn record(until: Duration, boot: &str) -> String {
    let nanos = until.as_nanos();
    format!("{nanos:020} {nanos:020} {boot}\n")
}

fn parse(record: &[u8], boot: &str) -> Option<Duration> {
    let line = std::str::from_utf8(record).ok()?.lines().next()?;
    let mut fields = line.split(' ');
    let (first, second) = (fields.next()?, fields.next()?);
    if first != second || fields.next()? != boot {
        return None;
    }
    Some(Duration::from_nanos(first.parse().ok()?))
}

/// The file of a fence, open for reading. It can be read where its path no longer leads to it.
#[derive(Debug)]
pub(crate) struct DeadlineFile {
    file: File,
    boot: String,
}

impl DeadlineFile {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::open(path)?,
            boot: procfs::boot_id(),
        })
    }

    /// The deadline; `None` when there is none in this boot of the machine.
    pub(crate) fn until(&self) -> Option<Duration> {
        // A writer is done in far less time than it takes to read a second time.
        (0..3).find_map(|_| {
            let mut buffer = [0; RECORD_LIMIT];
            let length = self.file.read_at(&mut buffer, 0).ok()?;
            parse(&buffer[..length], &self.boot)
        })
    }

    /// Whether it has passed. What is not known has passed.
    pub(crate) fn has_passed(&self) -> bool {
        self.until().is_none_or(|until| boot_time() >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_read_as_it_was_written_also_by_who_opened_the_file_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("7");
        assert!(DeadlineFile::open(&path).is_err());
        let until = boot_time() + Duration::from_secs(60);
        write(&path, until).unwrap();
        let file = DeadlineFile::open(&path).unwrap();
        assert_eq!(file.until(), Some(until));
        assert!(!file.has_passed());
        write(&path, Duration::from_nanos(1)).unwrap();
        assert_eq!(file.until(), Some(Duration::from_nanos(1)));
        assert!(file.has_passed());
    }

    #[test]
    fn what_is_torn_or_of_another_boot_is_no_deadline() {
        let until = Duration::from_secs(5);
        let whole = record(until, "b1");
        assert_eq!(parse(whole.as_bytes(), "b1"), Some(until));
        assert_eq!(parse(whole.as_bytes(), "b2"), None);
        let torn = whole.replacen("0000005000000000", "0000006000000000", 1);
        assert_ne!(torn, whole);
        assert_eq!(parse(torn.as_bytes(), "b1"), None);
        assert_eq!(parse(b"", "b1"), None);
        assert_eq!(parse(&[0xff; 9], "b1"), None);
    }

    #[test]
    fn half_of_a_lease_passes_before_anything_is_stopped() {
        let ttl = Duration::from_secs(30);
        assert_eq!(ttl - margin(ttl) - room(ttl), ttl / 2);
    }
}

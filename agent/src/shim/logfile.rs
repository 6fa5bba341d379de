//! Writes a container's output in the log format of the container runtime interface, one record per line:
//! `2026-11-23T10:00:00.123456789Z stdout F the line`. A line longer than 16 KiB is split into records marked `P`, the
//! last of which is marked `F`.
//!
//! The container is never blocked by its log: what cannot be written is dropped and counted, and a note in the log
//! says so once there is room again.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use crate::spec::LogSpec;

/// The longest content of one record, as other runtimes have it.
const MAX_CONTENT: usize = 16 * 1024;
/// Write when so many bytes of records have come together.
const MAX_BATCH: usize = 64 * 1024;

/// One of the two streams of a container: its name, and the beginning of a line whose end has not come yet.
pub(super) struct Stream {
    name: &'static str,
    pending: Vec<u8>,
}

impl Stream {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            pending: Vec::new(),
        }
    }
}

/// The log of one run of a container.
pub(super) struct LogFile {
    spec: LogSpec,
    file: Option<File>,
    /// Bytes of whole records in the file.
    size: u64,
    /// The number of the next rotated file.
    next_rotated: u64,
    batch: Vec<u8>,
    /// Lost since the last note.
    unreported: u64,
    dropped: u64,
    stamp: Stamp,
}

impl LogFile {
    /// A log that creates its file at once, and again later when that fails.
    pub(super) fn new(spec: LogSpec) -> Self {
        let mut log = Self {
            spec,
            file: None,
            size: 0,
            next_rotated: 1,
            batch: Vec::new(),
            unreported: 0,
            dropped: 0,
            stamp: Stamp::default(),
        };
        let _ = log.open();
        log
    }

    /// How many lines were lost.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether lines were lost and the log does not say so yet.
    pub(super) fn owes_a_note(&self) -> bool {
        self.unreported > 0
    }

    /// Takes output that was read at `now` (nanoseconds since the epoch) and writes the records it completes.
    pub(super) fn feed(&mut self, stream: &mut Stream, mut data: &[u8], now: i64) {
        self.stamp.set(now);
        while !data.is_empty() {
            let room = MAX_CONTENT - stream.pending.len();
            match data.iter().take(room + 1).position(|b| *b == b'\n') {
                Some(end) => {
                    stream.pending.extend_from_slice(&data[..end]);
                    self.record(stream, 'F');
                    data = &data[end + 1..];
                }
                None if data.len() <= room => {
                    stream.pending.extend_from_slice(data);
                    data = &[];
                }
                None => {
                    stream.pending.extend_from_slice(&data[..room]);
                    self.record(stream, 'P');
                    data = &data[room..];
                }
            }
        }
        self.flush();
    }

    /// Writes a last line that has no end, and the note that is owed.
    pub(super) fn finish(&mut self, streams: &mut [Stream], now: i64) {
        self.stamp.set(now);
        for stream in streams {
            if !stream.pending.is_empty() {
                self.record(stream, 'F');
            }
        }
        self.flush();
        self.retry(now);
    }

    /// Tries to write the note that is owed.
    pub(super) fn retry(&mut self, now: i64) {
        self.stamp.set(now);
        self.write_note();
    }

    fn record(&mut self, stream: &mut Stream, tag: char) {
        self.batch.extend_from_slice(self.stamp.text.as_bytes());
        let _ = write!(self.batch, " {} {tag} ", stream.name);
        self.batch.extend_from_slice(&stream.pending);
        self.batch.push(b'\n');
        stream.pending.clear();
        if self.batch.len() >= MAX_BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        self.write_note();
        let mut batch = std::mem::take(&mut self.batch);
        // Nothing is written after a gap before the note that tells of it.
        let kept = if self.unreported > 0 {
            0
        } else {
            self.write(&batch)
        };
        let lost = batch[kept..].iter().filter(|b| **b == b'\n').count() as u64;
        self.unreported += lost;
        self.dropped += lost;
        batch.clear();
        self.batch = batch;
    }

    /// The note comes before the lines that follow the gap, so that the log shows where the gap is.
    fn write_note(&mut self) {
        if self.unreported > 0 {
            let (time, lost) = (&self.stamp.text, self.unreported);
            let note = format!(
                "{time} stderr F [setpoint] {lost} log lines were lost: the log could not be written\n"
            );
            if self.write(note.as_bytes()) == note.len() {
                self.unreported = 0;
            }
        }
    }

    /// Appends records, rotating where the limit falls. Returns how many bytes of them are in the log: whole records.
    fn write(&mut self, records: &[u8]) -> usize {
        let mut done = 0;
        while done < records.len() {
            let rest = &records[done..];
            let room = self.spec.max_bytes.saturating_sub(self.size) as usize;
            let mut take = whole_records(&rest[..room.min(rest.len())]);
            if take == 0 {
                if self.size > 0 && self.rotate() {
                    continue;
                }
                // A record larger than the limit, or a file that cannot be rotated.
                take = rest
                    .iter()
                    .position(|b| *b == b'\n')
                    .map_or(rest.len(), |i| i + 1);
            }
            match self.append(&rest[..take]) {
                Ok(()) => done += take,
                Err(kept) => return done + kept,
            }
        }
        done
    }

    /// Appends; the error is how many bytes were kept all the same.
    fn append(&mut self, records: &[u8]) -> Result<(), usize> {
        if self.file.is_none() {
            self.open().map_err(|_| 0_usize)?;
        }
        let Some(file) = self.file.as_mut() else {
            return Err(0);
        };
        let mut written = 0;
        while written < records.len() {
            match file.write(&records[written..]) {
                Ok(n) if n > 0 => written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                _ => {
                    let kept = whole_records(&records[..written]);
                    self.size += kept as u64;
                    let _ = file.set_len(self.size);
                    return Err(kept);
                }
            }
        }
        self.size += written as u64;
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        if let Some(parent) = self.spec.path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = File::options()
            .create(true)
            .append(true)
            .open(&self.spec.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Begins a new file. False when that is not possible.
    fn rotate(&mut self) -> bool {
        if self.spec.max_files <= 1 {
            let emptied = self.file.as_ref().is_some_and(|f| f.set_len(0).is_ok());
            if emptied {
                self.size = 0;
            }
            return emptied;
        }
        if fs::rename(&self.spec.path, self.rotated(self.next_rotated)).is_err() {
            return false;
        }
        self.file = None;
        self.size = 0;
        let old = self
            .next_rotated
            .saturating_sub(u64::from(self.spec.max_files - 1));
        if old > 0 {
            let _ = fs::remove_file(self.rotated(old));
        }
        self.next_rotated += 1;
        true
    }

    fn rotated(&self, number: u64) -> PathBuf {
        let mut name = OsString::from(&self.spec.path);
        name.push(format!(".{number}"));
        name.into()
    }
}

/// How many bytes at the beginning are whole records.
fn whole_records(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1)
}

/// A time as text, to the nanosecond. Remembers the second, which most lines share with the line before.
#[derive(Default)]
struct Stamp {
    second: i64,
    text: String,
}

impl Stamp {
    fn set(&mut self, nanos: i64) {
        let (second, rest) = (
            nanos.div_euclid(1_000_000_000),
            nanos.rem_euclid(1_000_000_000),
        );
        if self.text.is_empty() || second != self.second {
            self.second = second;
            self.text = civil(second);
        }
        self.text.truncate(20);
        self.text.replace_range(19.., &format!(".{rest:09}Z"));
    }
}

/// `2026-11-23T10:00:00Z` for a second since the epoch (proleptic Gregorian calendar).
fn civil(second: i64) -> String {
    let (days, of_day) = (second.div_euclid(86_400), second.rem_euclid(86_400));
    // Count from 1 March of the year 0, so that the leap day is the last of its year.
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * day_of_year + 2) / 153;
    let (month, day) = (
        if m < 10 { m + 3 } else { m - 9 },
        day_of_year - (153 * m + 2) / 5 + 1,
    );
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_428_000_123_456_789;

    fn log(max_bytes: u64, max_files: u32) -> (tempfile::TempDir, LogFile) {
        let tmp = tempfile::tempdir().unwrap();
        let log = LogFile::new(LogSpec {
            path: tmp.path().join("0.log"),
            max_bytes,
            max_files,
        });
        (tmp, log)
    }

    #[test]
    fn times_are_as_a_calendar_has_them() {
        for (second, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_428_000, "2026-11-23T10:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(civil(second), text);
            assert_eq!(text.parse::<jiff::Timestamp>().unwrap().as_second(), second);
        }
    }

    #[test]
    fn lines_are_joined_across_reads_and_long_ones_are_split() {
        let (tmp, mut log) = log(1 << 20, 2);
        let mut out = Stream::new("stdout");
        log.feed(&mut out, b"one\ntw", NOW);
        log.feed(&mut out, b"o\n\n", NOW);
        let long = vec![b'x'; MAX_CONTENT * 2 + 5];
        log.feed(&mut out, &long, NOW);
        log.feed(&mut out, b"\nend", NOW);
        log.finish(&mut [out], NOW);
        let text = fs::read_to_string(tmp.path().join("0.log")).unwrap();
        let records: Vec<(&str, usize)> = text.lines().map(|l| (&l[..40], l.len() - 40)).collect();
        let p = "2026-11-23T10:00:00.123456789Z stdout ";
        let (f, part) = (format!("{p}F "), format!("{p}P "));
        let want = [
            (&f, 3),
            (&f, 3),
            (&f, 0),
            (&part, MAX_CONTENT),
            (&part, MAX_CONTENT),
            (&f, 5),
            (&f, 3),
        ];
        assert_eq!(records, want.map(|(p, n)| (p.as_str(), n)));
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_one_record() {
        let (tmp, mut log) = log(1 << 20, 2);
        let mut out = Stream::new("stdout");
        log.feed(&mut out, &vec![b'x'; MAX_CONTENT], NOW);
        log.feed(&mut out, b"\n", NOW);
        let text = fs::read_to_string(tmp.path().join("0.log")).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains(" stdout F xxx"));
    }

    #[test]
    fn old_files_go_when_the_limit_is_reached() {
        let (tmp, mut log) = log(200, 3);
        let mut out = Stream::new("stdout");
        for i in 0..40 {
            log.feed(&mut out, format!("line {i:02}\n").as_bytes(), NOW);
        }
        let mut names: Vec<_> = fs::read_dir(tmp.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
        for name in &names {
            assert!(fs::metadata(tmp.path().join(name)).unwrap().len() <= 200);
        }
        assert!(
            fs::read_to_string(tmp.path().join("0.log"))
                .unwrap()
                .contains("line 39")
        );
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_the_log_says_so_when_there_is_room_again() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("0.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut log = LogFile::new(LogSpec {
            path: path.clone(),
            max_bytes: 1 << 20,
            max_files: 2,
        });
        let mut out = Stream::new("stdout");
        log.feed(&mut out, b"lost 1\nlost 2\n", NOW);
        log.retry(NOW);
        assert!(log.owes_a_note());
        assert_eq!(log.dropped(), 2);
        fs::remove_file(&path).unwrap();
        log.file = None; // As if the disk had room: the device file itself never has any.
        log.feed(&mut out, b"kept\n", NOW);
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("2 log lines were lost"), "{text}");
        assert!(lines[1].ends_with("stdout F kept"));
        assert!(!log.owes_a_note());
    }
}

use std::io::Write;
use std::time::Duration;

use super::*;

fn record(i: usize) -> String {
    format!(
        "2026-11-23T10:00:{:02}.000000000Z stdout F line {i}\n",
        i % 60
    )
}

fn read(path: &Path, options: &LogOptions) -> String {
    let mut reader = LogReader::open(path, options).unwrap();
    let mut all = Vec::new();
    while let Some(chunk) = reader.next_chunk().unwrap() {
        all.extend(chunk);
    }
    String::from_utf8(all).unwrap()
}

/// Ten lines, of which the first six are in rotated files.
fn rotated() -> (tempfile::TempDir, PathBuf) {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("0.log");
    for (name, lines) in [("0.log.9", 0..3), ("0.log.10", 3..6), ("0.log", 6..10)] {
        fs::write(tmp.path().join(name), lines.map(record).collect::<String>()).unwrap();
    }
    (tmp, path)
}

fn lines(range: std::ops::Range<usize>) -> String {
    range.map(|i| format!("line {i}\n")).collect()
}

#[test]
fn a_log_is_read_across_rotation_in_order() {
    let (_tmp, path) = rotated();
    assert_eq!(read(&path, &LogOptions::default()), lines(0..10));
}

#[test]
fn tail_counts_from_the_end_across_files() {
    let (_tmp, path) = rotated();
    for n in [0, 1, 4, 5, 8, 10, 99] {
        let options = LogOptions {
            tail: Some(n),
            ..LogOptions::default()
        };
        assert_eq!(read(&path, &options), lines(10 - n.min(10)..10), "tail {n}");
    }
}

#[test]
fn since_and_timestamps_use_the_recorded_time() {
    let (_tmp, path) = rotated();
    let since = "2026-11-23T10:00:08Z"
        .parse::<jiff::Timestamp>()
        .unwrap()
        .as_nanosecond() as i64;
    let options = LogOptions {
        since: Some(since),
        timestamps: true,
        ..LogOptions::default()
    };
    let want = "2026-11-23T10:00:08.000000000Z line 8\n2026-11-23T10:00:09.000000000Z line 9\n";
    assert_eq!(read(&path, &options), want);
}

#[test]
fn parts_of_a_long_line_are_joined_and_half_records_are_skipped() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("0.log");
    fs::write(&path, "2026-11-23T10:00:00.000000000Z stdout P ab\n2026-11-23T10:00:00.000000000Z stdout F cd\n2026-11\n").unwrap();
    assert_eq!(read(&path, &LogOptions::default()), "abcd\n");
}

#[test]
fn a_log_that_does_not_exist_is_empty() {
    let tmp = tempfile::tempdir().unwrap();
    assert_eq!(read(&tmp.path().join("0.log"), &LogOptions::default()), "");
}

/// What the files hold that are opened when `between` happens after each of the first listings, until it returns false.
fn opened_while(path: &Path, mut between: impl FnMut() -> bool) -> String {
    let mut goes_on = true;
    let files = opened(|| {
        let files = files_of(path);
        goes_on = goes_on && between();
        files
    });
    let texts = files.unwrap().into_iter().map(io::read_to_string);
    texts.map(Result::unwrap).collect()
}

fn records(range: std::ops::Range<usize>) -> String {
    range.map(record).collect()
}

#[test]
fn a_rotation_while_a_log_is_opened_hides_nothing() {
    let (tmp, path) = rotated();
    let rotate = || fs::rename(&path, tmp.path().join("0.log.11")).unwrap();
    // The name is gone for a moment.
    let mut step = 0;
    let texts = opened_while(&path, || {
        match step {
            0 => rotate(),
            _ => fs::write(&path, record(10)).unwrap(),
        }
        step += 1;
        step < 2
    });
    assert_eq!(texts, records(0..11));

    // The name is another file's at once, and the oldest file is removed.
    let texts = opened_while(&path, || {
        fs::rename(&path, tmp.path().join("0.log.12")).unwrap();
        fs::write(&path, record(11)).unwrap();
        fs::remove_file(tmp.path().join("0.log.9")).unwrap();
        false
    });
    assert_eq!(texts, records(3..12));

    // What is opened last may have been rotated after the others were opened.
    let mut listings = 0;
    let texts = opened_while(&path, || {
        listings += 1;
        if listings == 2 {
            fs::rename(&path, tmp.path().join("0.log.13")).unwrap();
            fs::write(&path, record(12)).unwrap();
        }
        listings < 2
    });
    assert_eq!(texts, records(3..13));
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error_and_not_a_long_search() {
    let (tmp, path) = rotated();
    std::os::unix::fs::symlink("nowhere", tmp.path().join("0.log.8")).unwrap();
    let error = LogReader::open(&path, &LogOptions::default()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn following_sees_every_line_across_rotation_and_ends_with_the_container() {
    let tmp = tempfile::tempdir().unwrap();
    let (path, exit) = (tmp.path().join("0.log"), tmp.path().join("exit.json"));
    let mut follower =
        LogFollower::open(&path, &LogOptions::default(), Some(exit.clone())).unwrap();
    let writer = tokio::task::spawn_blocking(move || {
        for i in 0..300 {
            if i % 50 == 49 {
                fs::rename(&path, path.with_file_name(format!("0.log.{i}"))).unwrap();
            }
            let mut file = File::options()
                .create(true)
                .append(true)
                .open(&path)
                .unwrap();
            file.write_all(record(i).as_bytes()).unwrap();
        }
        fs::write(exit, "{}").unwrap();
    });
    let mut all = Vec::new();
    let following = async {
        while let Some(chunk) = follower.next_chunk().await.unwrap() {
            all.extend(chunk);
        }
    };
    tokio::time::timeout(Duration::from_secs(30), following)
        .await
        .expect("the follower ends with the container");
    writer.await.unwrap();
    assert_eq!(String::from_utf8(all).unwrap(), lines(0..300));
}

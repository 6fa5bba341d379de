//! What is still there after a crash, whatever it has done to the log.

use std::path::Path;
use std::time::Duration;

use setpoint_store::devstore::{LogDamage, OpenError, Options};
use setpoint_store::{RangeRequest, SharedStore, StoreError, Txn};

use crate::server::{LONG, Server, in_directory, recovered, temporary};

/// Bytes around the payload of a frame; one without payload ends a batch.
const FRAME: usize = 17;

/// The file's revision before anything was written.
const EMPTY: i64 = 1;

async fn put(store: &SharedStore, key: &str, value: &str) {
    let done = store
        .txn(Txn::new().put(key, value.to_owned()))
        .await
        .unwrap();
    assert!(done.succeeded);
}

/// The used part of a log: without the room for more.
fn used(directory: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(directory.join("log-1")).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes.truncate(end);
    bytes
}

/// A log as a crash leaves it, and where it ended after each write, the first entry before any.
async fn crashed(writes: usize) -> (Vec<u8>, Vec<usize>) {
    let directory = temporary();
    let server = Server::start(in_directory(directory.path())).await;
    let store = server.store().await;
    let mut ends = vec![used(directory.path()).len()];
    for n in 0..writes {
        put(&store, &format!("key/{n}"), &format!("value {n}")).await;
        ends.push(used(directory.path()).len());
    }
    (used(directory.path()), ends)
}

/// A directory with such a log.
fn holding(log: &[u8]) -> tempfile::TempDir {
    let directory = temporary();
    std::fs::write(directory.path().join("log-1"), log).unwrap();
    directory
}

#[tokio::test]
async fn a_log_that_ends_anywhere_recovers_to_its_last_whole_record() {
    let (log, ends) = crashed(4).await;
    for length in ends[1]..=log.len() {
        let directory = holding(&log[..length]);
        let found = recovered(in_directory(directory.path())).unwrap();
        // A record is whole before the end of its batch is.
        let whole = ends[1..].iter().filter(|end| length + FRAME >= **end);
        let revision = EMPTY + i64::try_from(whole.count()).unwrap();
        assert_eq!(found.revision, revision, "cut to {length} of {}", log.len());
        match found.dropped {
            Some(dropped) => {
                let end = dropped.offset + dropped.bytes;
                assert!(end <= length as u64 && dropped.bytes > 0, "{dropped:?}");
                assert_eq!(dropped.records, 0, "{dropped:?}");
            }
            // Zeros at the end look like room that was not used.
            None => assert!(
                ends.iter()
                    .any(|end| length == *end || length + FRAME == *end)
                    || log[length - 1] == 0,
                "{length}"
            ),
        }
        // It goes on from there, and nothing is left to drop.
        let again = recovered(in_directory(directory.path())).unwrap();
        assert_eq!((again.revision, again.dropped), (revision, None));
    }
}

#[tokio::test]
async fn a_damaged_last_write_is_dropped_and_one_before_it_is_refused() {
    let (log, ends) = crashed(4).await;
    let last = ends[ends.len() - 2];
    for byte in ends[2]..log.len() {
        let mut damaged = log.clone();
        damaged[byte] ^= 0x55;
        let directory = holding(&damaged);
        let outcome = recovered(in_directory(directory.path()));
        if byte >= last {
            let found = outcome.unwrap();
            let in_record = byte < log.len() - FRAME;
            assert_eq!(found.revision, if in_record { 4 } else { 5 }, "byte {byte}");
            let dropped = found.dropped.expect("it says what it dropped");
            assert_eq!(dropped.offset + dropped.bytes, log.len() as u64);
            continue;
        }
        match outcome {
            Err(OpenError::Damage(LogDamage::Middle {
                offset, resumes, ..
            })) => {
                assert!(offset <= byte as u64 && byte < usize::try_from(resumes).unwrap());
            }
            other => panic!("byte {byte}: {other:?}"),
        }
        assert_eq!(
            std::fs::read(directory.path().join("log-1")).unwrap(),
            damaged,
            "a refused log is left alone"
        );
    }
}

#[tokio::test]
async fn damage_in_the_middle_is_cut_off_only_when_told_so() {
    let (log, ends) = crashed(4).await;
    let mut damaged = log.clone();
    damaged[ends[2] + FRAME + 3] ^= 1;
    let directory = holding(&damaged);
    let error = recovered(in_directory(directory.path())).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&format!("damaged at byte {}", ends[2])),
        "{text}"
    );
    assert!(text.contains("revision 3, 2 records"), "{text}");
    assert!(text.contains("--truncate-damaged-log"), "{text}");

    let truncating = Options {
        truncate_damaged_log: true,
        ..in_directory(directory.path())
    };
    let found = recovered(truncating).unwrap();
    assert_eq!(found.revision, 3);
    let dropped = found.dropped.unwrap();
    assert_eq!((dropped.offset, dropped.records), (ends[2] as u64, 1));
    let aside = directory.path().join(format!("damaged-1-{}", ends[2]));
    assert!(
        std::fs::read(aside)
            .unwrap()
            .starts_with(&damaged[ends[2]..])
    );
    let again = recovered(in_directory(directory.path())).unwrap();
    assert_eq!((again.revision, again.dropped), (3, None));
}

#[tokio::test]
async fn a_damaged_end_that_cannot_be_kept_is_not_cut_off() {
    use std::os::unix::fs::MetadataExt as _;
    let (log, ends) = crashed(4).await;
    let mut damaged = log.clone();
    damaged[ends[2] + FRAME + 3] ^= 1;
    let directory = holding(&damaged);
    let truncating = Options {
        truncate_damaged_log: true,
        ..in_directory(directory.path())
    };
    let aside = directory.path().join(format!("damaged-1-{}", ends[2]));
    std::fs::create_dir(&aside).unwrap();
    let error = recovered(truncating.clone()).unwrap_err();
    assert!(
        error.to_string().contains("keeping the damaged end"),
        "{error}"
    );
    let left = std::fs::read(directory.path().join("log-1")).unwrap();
    assert!(left.starts_with(&damaged), "the log is left alone");

    std::fs::remove_dir(&aside).unwrap();
    assert_eq!(recovered(truncating).unwrap().revision, 3);
    let mode = std::fs::metadata(&aside).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds what the log held");
}

#[tokio::test]
async fn a_store_that_stopped_in_order_takes_no_damage_for_a_crash() {
    let directory = temporary();
    let server = Server::start(in_directory(directory.path())).await;
    let store = server.store().await;
    put(&store, "k", "v").await;
    let record = used(directory.path()).len() - FRAME - 1;
    server.stop().await;
    let mut bytes = std::fs::read(directory.path().join("log-1")).unwrap();
    bytes[record] ^= 1;
    std::fs::write(directory.path().join("log-1"), bytes).unwrap();
    let error = recovered(in_directory(directory.path())).unwrap_err();
    assert!(error.to_string().contains("goes on at byte"), "{error}");
}

#[tokio::test]
async fn a_damaged_snapshot_and_other_files_are_refused() {
    let (log, ends) = crashed(1).await;
    let mut damaged = log.clone();
    damaged[ends[0] - FRAME - 1] ^= 1;
    let directory = holding(&damaged);
    let error = recovered(in_directory(directory.path())).unwrap_err();
    assert!(
        error.to_string().contains("snapshot at the beginning"),
        "{error}"
    );
    let directory = holding(b"something else");
    let error = recovered(in_directory(directory.path())).unwrap_err();
    assert!(error.to_string().contains("is not a log"), "{error}");
    let directory = temporary();
    std::fs::create_dir(directory.path().join("member")).unwrap();
    let error = recovered(in_directory(directory.path())).unwrap_err();
    assert!(error.to_string().contains("of an etcd server"), "{error}");
}

#[tokio::test]
async fn a_directory_has_one_store_at_a_time() {
    let directory = temporary();
    let server = Server::start(in_directory(directory.path())).await;
    let error = recovered(in_directory(directory.path())).unwrap_err();
    let process = format!("(process {})", std::process::id());
    assert!(error.to_string().contains(&process), "{error}");
    server.stop().await;
    recovered(in_directory(directory.path())).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_grows_is_replaced_and_nothing_is_lost() {
    const ROUNDS: i64 = 100;
    let directory = temporary();
    let options = Options {
        compact_log_after: 128 * 1024,
        ..in_directory(directory.path())
    };
    let server = Server::start(options.clone()).await;
    let newest = || {
        let mut numbers: Vec<u64> = std::fs::read_dir(directory.path())
            .unwrap()
            .filter_map(|entry| {
                entry
                    .unwrap()
                    .file_name()
                    .to_str()?
                    .strip_prefix("log-")?
                    .parse()
                    .ok()
            })
            .collect();
        numbers.sort_unstable();
        numbers
    };
    let mut writers = Vec::new();
    for writer in 0..8 {
        let store = server.store().await;
        writers.push(tokio::spawn(async move {
            for round in 0..ROUNDS {
                let value = format!("{round} {}", "x".repeat(2_000));
                put(&store, &format!("w/{writer}"), &value).await;
            }
        }));
    }
    for writer in writers {
        tokio::time::timeout(LONG, writer).await.unwrap().unwrap();
    }
    let store = server.store().await;
    let all = RangeRequest {
        start: "w/".to_owned(),
        end: "w0".to_owned(),
        ..RangeRequest::default()
    };
    let before = store.range(all.clone()).await.unwrap();
    assert_eq!(before.revision.0, EMPTY + 8 * ROUNDS);
    assert!(
        newest().last().is_some_and(|number| *number > 1),
        "{:?}",
        newest()
    );
    server.stop().await;

    let server = Server::start(options).await;
    assert_eq!(server.recovery.dropped, None);
    assert_eq!(newest().len(), 1, "one log is left");
    let after = server.store().await.range(all).await.unwrap();
    assert_eq!(after.kvs, before.kvs);
    assert_eq!(after.revision, before.revision);
    server.stop().await;
}

/// Whether the disk of [`small_disk`] has room again. One test uses it.
static FREED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

fn small_disk(file: &std::fs::File, offset: u64, length: u64) -> std::io::Result<()> {
    if offset + length > 2 << 20 && !FREED.load(std::sync::atomic::Ordering::SeqCst) {
        // ENOSPC
        return Err(std::io::Error::from_raw_os_error(28));
    }
    file.set_len(offset + length)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_changes_and_loses_none() {
    let directory = temporary();
    let options = Options {
        reserve_room: small_disk,
        ..in_directory(directory.path())
    };
    let server = Server::start(options).await;
    let store = server.store().await;
    // Again when the lease is over before the key is put.
    tokio::time::timeout(LONG, async {
        loop {
            let (lease, _) = store.lease_grant(Duration::from_secs(2)).await.unwrap();
            let leased = Txn::new().put_with_lease("leased", "x", lease);
            match store.txn(leased).await {
                Ok(_) => return,
                Err(error) => assert!(matches!(error, StoreError::LeaseNotFound { .. }), "{error}"),
            }
        }
    })
    .await
    .expect("the key is put");
    let value = "x".repeat(100_000);
    let mut written = 0;
    let error = loop {
        let txn = Txn::new().put(format!("full/{written}"), value.clone());
        match store.txn(txn).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100, "the disk is small");
    };
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(text.contains("No space left on device"), "{text}");
    assert!(written > 5, "{written}");
    // Reads go on, and leases end.
    let range = RangeRequest {
        start: "full/".to_owned(),
        end: "full0".to_owned(),
        ..RangeRequest::default()
    };
    assert_eq!(store.range(range.clone()).await.unwrap().kvs.len(), written);
    tokio::time::timeout(LONG, async {
        while store.get("leased").await.unwrap().0.is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the lease expires");
    // What a crash now would leave.
    let crashed = holding(&used(directory.path()));
    let found = recovered(in_directory(crashed.path())).unwrap();
    assert_eq!(found.revision, EMPTY + 2 + i64::try_from(written).unwrap());
    assert_eq!(found.dropped, None);

    FREED.store(true, std::sync::atomic::Ordering::SeqCst);
    put(&store, "full/again", &value).await;
    assert_eq!(store.range(range).await.unwrap().kvs.len(), written + 1);
    server.stop().await;
}

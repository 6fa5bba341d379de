//! What happened, for people: a timeline of faults, elections and sessions, and where the evidence is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use setpoint_apis::{Key, Keyspace};
use setpoint_store::{KeyValue, RangeRequest, Revision, SharedStore, StoreError};

use super::history::{Change, History};
use super::probe::is_cached;
use super::tap::Transaction;

/// How many of the last changes, and lines of each log, are shown.
const LAST: usize = 30;

/// What is known when a test ends.
pub(super) struct Report {
    pub(super) name: &'static str,
    pub(super) notes: Vec<(Duration, String)>,
    pub(super) changes: Vec<Change>,
    pub(super) transactions: Vec<Transaction>,
    pub(super) logs: Vec<(String, PathBuf)>,
}

impl Report {
    /// The timeline, the last changes, the ends of the logs.
    pub(super) fn print(&self) {
        let mut text = self.timeline();
        let first = self.changes.len().saturating_sub(LAST);
        let _ = writeln!(text, "--- the last changes:");
        self.write_changes(&mut text, first);
        for (name, path) in &self.logs {
            let log = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(LAST)..].join("\n");
            let _ = writeln!(text, "--- the end of the log of {name}:\n{tail}");
        }
        show(&text);
    }

    /// Keeps everything in a file, and says where.
    pub(super) fn keep(&self) {
        let mut text = self.timeline();
        let _ = writeln!(text, "--- all changes:");
        self.write_changes(&mut text, 0);
        let _ = writeln!(text, "--- all transactions:");
        for transaction in &self.transactions {
            let _ = writeln!(text, "{transaction:?}");
        }
        for (name, path) in &self.logs {
            let log = std::fs::read_to_string(path).unwrap_or_default();
            let _ = writeln!(text, "--- the log of {name}:\n{log}");
        }
        let file = format!("setpoint-faults-{}-{}.txt", self.name, std::process::id());
        let path = std::env::temp_dir().join(file);
        match std::fs::write(&path, text) {
            Ok(()) => show(&format!("all evidence is in {}\n", path.display())),
            Err(error) => show(&format!("{} cannot be written: {error}\n", path.display())),
        }
    }

    /// What was done, and who led and held sessions when.
    fn timeline(&self) -> String {
        let keyspace = Keyspace::default();
        let mut lines: Vec<(Duration, String)> = self.notes.clone();
        for change in &self.changes {
            let what = match keyspace.split(&change.key) {
                Ok(Key::Leader(..) | Key::NodeAlive(_)) => describe(change),
                Ok(Key::Health(_)) => {
                    let state = change.value.as_deref().map(String::from_utf8_lossy);
                    let state = state.as_deref().and_then(|v| v.lines().next());
                    format!("{}: {}", describe(change), state.unwrap_or("gone"))
                }
                _ => continue,
            };
            lines.push((change.at, what));
        }
        lines.sort_by_key(|(at, _)| *at);
        let mut text = format!("--- {}: what happened\n", self.name);
        for (at, what) in lines {
            let _ = writeln!(text, "{:9.3} s  {what}", at.as_secs_f64());
        }
        text
    }

    fn write_changes(&self, text: &mut String, first: usize) {
        let history = History {
            transactions: self.transactions.clone(),
            ..History::default()
        };
        let writers = history.writers();
        for revision in self.changes[first..].chunk_by(|a, b| a.revision == b.revision) {
            let by = writers.of(revision);
            let by: Vec<String> = by.iter().map(ToString::to_string).collect();
            for change in revision {
                let at = change.at.as_secs_f64();
                let what = describe(change);
                let _ = writeln!(text, "{at:9.3} s  {what}  by {}", by.join(" or "));
            }
        }
    }
}

fn describe(change: &Change) -> String {
    let verb = change.value.as_ref().map_or("deleted", |_| "put");
    let mut text = format!("r{:<6} {verb} {}", change.revision, change.key);
    if let (Some(value), true) = (&change.value, change.key.contains("/leaders/")) {
        let _ = write!(text, " = {}", String::from_utf8_lossy(value).trim_end());
    }
    text
}

#[expect(clippy::print_stderr, reason = "a failed test shows what happened")]
fn show(text: &str) {
    eprint!("{text}");
}

/// What etcd held of the keys that probes cache at a revision: each key's mod revision.
pub(super) async fn listing(
    store: &SharedStore,
    revision: i64,
) -> Result<BTreeMap<String, i64>, StoreError> {
    let keyspace = Keyspace::default();
    let state = keyspace.state();
    let mut all: Vec<KeyValue> = Vec::new();
    let mut start = state.start;
    loop {
        let request = RangeRequest {
            start,
            end: state.end.clone(),
            limit: 500,
            revision: Some(Revision(revision)),
            keys_only: true,
            ..RangeRequest::default()
        };
        let page = store.range(request).await?;
        all.extend(page.kvs);
        match all.last() {
            Some(last) if page.more => start = format!("{}\0", last.key),
            _ => break,
        }
    }
    let cached = all.into_iter().filter(|kv| is_cached(&keyspace, &kv.key));
    Ok(cached.map(|kv| (kv.key, kv.mod_revision)).collect())
}

//! `history`: the record is whole. Revisions do not go back, no write of a key is missing, and what it adds up to is what
//! etcd lists.

use std::collections::BTreeMap;

use super::Finding;
use crate::faults::history::History;

pub(super) fn check(history: &History) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut complain = |revision: i64, message: String| {
        found.push(Finding {
            check: "history",
            revision,
            message,
        });
    };
    let mut present: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    let mut last = 0;
    for change in &history.changes {
        let key = change.key.as_str();
        if change.revision < last {
            complain(change.revision, format!("{key} comes after r{last}"));
        }
        last = change.revision;
        let before = present.get(key).map_or(0, |(_, version)| *version);
        match &change.value {
            Some(_) if change.version == before + 1 => {
                present.insert(key, (change.revision, change.version));
            }
            Some(_) => {
                let version = change.version;
                complain(
                    change.revision,
                    format!("version {version} of {key} follows {before}"),
                );
                present.insert(key, (change.revision, version));
            }
            None if before > 0 => drop(present.remove(key)),
            None => complain(
                change.revision,
                format!("{key} is deleted and was not there"),
            ),
        }
    }
    for kv in &history.listed {
        let recorded = present.remove(kv.key.as_str());
        if recorded != Some((kv.mod_revision, kv.version)) {
            complain(
                kv.mod_revision,
                format!(
                    "{} is listed with version {}, recorded as {recorded:?} (revision, version)",
                    kv.key, kv.version
                ),
            );
        }
    }
    for (key, (revision, _)) in present {
        complain(revision, format!("{key} is recorded, and not listed"));
    }
    found
}

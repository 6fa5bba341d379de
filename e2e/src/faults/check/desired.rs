//! `no lost desired`: what users want is there in the end as they wrote it, and nothing without an owner was deleted by
//! anybody but them.

use std::collections::BTreeMap;

use setpoint_apis::{Key, Keyspace, document};

use super::Finding;
use crate::faults::history::{History, Writer};
use crate::faults::{Role, role};

#[derive(serde::Deserialize)]
struct Owned {
    metadata: Meta,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    owner_references: Vec<serde_json::Value>,
}

pub(super) fn check(history: &History, keyspace: &Keyspace) -> Vec<Finding> {
    let mut found = Vec::new();
    let writers = history.writers();
    let mut present: BTreeMap<&str, &[u8]> = BTreeMap::new();
    for revision in history.revisions() {
        for change in revision {
            let key = change.key.as_str();
            if !matches!(keyspace.split(key), Ok(Key::Desired(..))) {
                continue;
            }
            if let Some(value) = &change.value {
                present.insert(key, value);
                continue;
            }
            let before = present.remove(key).unwrap_or_default();
            let by = writers.of(revision);
            let users =
                |w: &Writer<'_>| matches!(w, Writer::Sent(t) if role(&t.sender) == Role::User);
            let owned = document::decode_value::<Owned>(before)
                .is_ok_and(|o| !o.metadata.owner_references.is_empty());
            if !owned && !by.iter().any(users) {
                let by: Vec<String> = by.iter().map(ToString::to_string).collect();
                found.push(Finding {
                    check: "no lost desired",
                    revision: change.revision,
                    message: format!("{key} has no owner and was deleted by {}", by.join(" or ")),
                });
            }
        }
    }
    for (key, wanted) in &history.wanted {
        let there = present.get(key.as_str());
        if there != Some(&wanted.as_bytes()) {
            let there = there.map(|t| String::from_utf8_lossy(t));
            found.push(Finding {
                check: "no lost desired",
                revision: history.changes.last().map_or(0, |c| c.revision),
                message: format!("{key} should be\n{wanted}\nand is\n{there:?}"),
            });
        }
    }
    found
}

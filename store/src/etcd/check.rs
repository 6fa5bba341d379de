//! Is there an etcd, and is it one that will do? In words that tell what to do.

use super::EtcdStore;
use super::version::Version;
use crate::error::StoreError;
use crate::types::ServerStatus;

/// What [`EtcdStore::check`] found.
#[derive(Clone, Debug)]
pub struct Health {
    /// What the member said of itself.
    pub status: ServerStatus,
    /// Its version, if it could be read.
    pub version: Option<Version>,
    /// What is known to be wrong with the version, as a sentence; `None` for a current one.
    pub holes: Option<String>,
    /// What an operator should know at once: alarms, a missing leader. Whole sentences.
    pub warnings: Vec<String>,
}

/// Judges a status.
pub(super) fn judge(store: &EtcdStore, status: ServerStatus) -> Result<Health, StoreError> {
    let names = store.endpoints();
    let version = Version::parse(&status.version);
    let mut warnings = Vec::new();
    let mut known = None;
    match version {
        Some(version) if version < Version::OLDEST => {
            return Err(StoreError::Invalid {
                context: format!("checking etcd at {names}"),
                message: format!(
                    "etcd {version} is too old: {} is the oldest that works, a current 3.5 or 3.6 is recommended",
                    Version::OLDEST
                ),
            });
        }
        Some(version) => {
            let holes = version.known_holes();
            if !holes.is_empty() {
                known = Some(format!(
                    "etcd {version} at {names} has known holes; it will do for development, use the newest patch of 3.5 or \
                     3.6 for anything else: {}",
                    holes.join("; ")
                ));
            }
        }
        None => warnings.push(format!(
            "etcd at {names} has a version that cannot be judged: {}",
            status.version
        )),
    }
    if !status.has_leader {
        warnings.push(format!("etcd at {names} has no leader: nothing can be read or written until a majority of members runs"));
    }
    for alarm in &status.alarms {
        warnings.push(match alarm.as_str() {
            "NOSPACE" => format!(
                "etcd at {names} is out of space (NOSPACE alarm): writes are refused until it is compacted, defragmented, and \
                 the alarm disarmed (etcdctl compact, etcdctl defrag, etcdctl alarm disarm)"
            ),
            "CORRUPT" => format!("etcd at {names} reports a corrupt member (CORRUPT alarm)"),
            other => format!("etcd at {names} has raised the alarm {other}"),
        });
    }
    Ok(Health {
        status,
        version,
        holes: known,
        warnings,
    })
}

/// The error of a check, in words for a person at a terminal.
pub(super) fn explain(store: &EtcdStore, error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable { message, .. } => {
            let names = store.endpoints();
            // The endpoint is in the sentence already.
            let cause = message
                .rsplit_once(": ")
                .filter(|(head, _)| names.contains(head))
                .map_or(message.as_str(), |(_, cause)| cause);
            let question = if store.uses_tls() {
                "is it running, is that its client URL, and does it accept the client's certificate?"
            } else {
                "is it running, and is that its client URL?"
            };
            StoreError::Unavailable {
                context: "checking etcd".to_owned(),
                message: format!("etcd at {names} does not answer ({cause}): {question}"),
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::ConnectOptions;

    #[tokio::test]
    async fn the_holes_of_a_version_are_no_warning_and_are_told_in_short_and_in_full() {
        let options = ConnectOptions::new(["127.0.0.1:1"]);
        let store = EtcdStore::connect(&options).await.unwrap();
        let status = |version: &str| ServerStatus {
            version: version.to_owned(),
            has_leader: true,
            ..ServerStatus::default()
        };
        let old = judge(&store, status("3.4.23")).unwrap();
        assert_eq!(old.warnings, Vec::<String>::new());
        assert!(old.holes.unwrap().contains("nested transactions"));
        let caution = old.version.unwrap().caution().unwrap();
        assert!(caution.starts_with("etcd 3.4.23 has 5 known holes") && caution.len() < 120);
        let current = judge(&store, status("3.6.14")).unwrap();
        assert_eq!(current.holes, None);
        assert_eq!(current.version.unwrap().caution(), None);
    }
}

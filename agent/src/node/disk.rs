//! The agent's copy on disk: what it claimed, and the content its pods use, so that it can go on without etcd.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use setpoint_apis::ObjectKey;
use setpoint_apis::fnv::fnv64;
use setpoint_apis::records::ClaimFence;
use tokio::time::{Instant, sleep};

use crate::locked::Locked;

/// What is remembered of a claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The work key's mod revision.
    pub(crate) work_revision: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod_ip: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fence: Option<ClaimFence>,
    /// The work document as it stood in etcd.
    pub(crate) work: String,
}

/// What is remembered of a config map or secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedContent {
    pub(crate) plural: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) document: String,
}

/// The directory is in use or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another agent uses it.
    #[error("the data directory {0} is in use by another agent")]
    InUse(PathBuf),
    /// It cannot be read or written.
    #[error("the agent's data directory: {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// An agent's copy on disk: the data directory, held under a lock until dropped, or a pretended one.
pub struct Disk {
    /// Differs for every data directory, and stays over restarts.
    pub(crate) instance: String,
    storage: Storage,
}

enum Storage {
    Files {
        claims: PathBuf,
        content: PathBuf,
        _lock: Locked,
    },
    Hollow(HollowDisk),
}

/// The disk of an agent that has none. It outlives the agent as long as a clone of it is kept.
#[derive(Clone, Default)]
pub struct HollowDisk(Arc<Mutex<Files>>);

#[derive(Default)]
struct Files {
    claims: BTreeMap<String, Claim>,
    content: BTreeMap<String, SavedContent>,
}

impl Disk {
    /// The copy in memory of a hollow agent. `instance` differs between agents.
    pub fn hollow(instance: impl Into<String>, disk: HollowDisk) -> Self {
        Self {
            instance: instance.into(),
            storage: Storage::Hollow(disk),
        }
    }

    /// As [`Disk::open`], and waits up to `limit` for an agent that uses it. One that was killed holds the lock until the
    /// kernel has let go of all that it had, and whoever restarts it may be quicker.
    ///
    /// # Errors
    /// Another agent uses it still, or it cannot be read or written.
    pub async fn open_within(dir: &Path, limit: Duration) -> Result<Self, DiskError> {
        let deadline = Instant::now() + limit;
        loop {
            match Self::open(dir) {
                Err(DiskError::InUse(_)) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(50)).await;
                }
                opened => return opened,
            }
        }
    }

    /// Opens the data directory, and makes it if it does not exist.
    ///
    /// # Errors
    /// Another agent uses it, or it cannot be read or written.
    pub fn open(dir: &Path) -> Result<Self, DiskError> {
        let (claims, content) = (dir.join("claims"), dir.join("content"));
        for part in [dir, &claims, &content] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(part)
                .map_err(at(part))?;
        }
        let path = dir.join("lock");
        let lock = fs::File::create(&path).map_err(at(&path))?;
        let lock = Locked::take(lock).ok_or_else(|| DiskError::InUse(dir.into()))?;
        let path = dir.join("instance");
        let instance = match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
            _ => {
                // Not a matter of decisions: two directories must differ, that is all.
                #[expect(
                    clippy::disallowed_methods,
                    reason = "an identity, not a decision: it must not be repeatable"
                )]
                let fresh = format!("{:016x}", fastrand::Rng::new().u64(..));
                write(&path, fresh.as_bytes())?;
                fresh
            }
        };
        let storage = Storage::Files {
            claims,
            content,
            _lock: lock,
        };
        Ok(Self { instance, storage })
    }

    /// The claims of earlier runs. A file that cannot be read is skipped and reported: the others count all the same.
    pub(crate) fn claims(&self) -> Vec<Claim> {
        match &self.storage {
            Storage::Files { claims, .. } => read_all(claims),
            Storage::Hollow(disk) => disk.0.lock().claims.values().cloned().collect(),
        }
    }

    pub(crate) fn content(&self) -> Vec<SavedContent> {
        match &self.storage {
            Storage::Files { content, .. } => read_all(content),
            Storage::Hollow(disk) => disk.0.lock().content.values().cloned().collect(),
        }
    }

    pub(crate) fn save_claim(&self, claim: &Claim) -> Result<(), DiskError> {
        let name = file_name(&[&claim.namespace, &claim.name]);
        match &self.storage {
            Storage::Files { claims, .. } => save(&claims.join(name), claim)?,
            Storage::Hollow(disk) => drop(disk.0.lock().claims.insert(name, claim.clone())),
        }
        Ok(())
    }

    pub(crate) fn drop_claim(&self, key: &ObjectKey) -> Result<(), DiskError> {
        let name = file_name(&[&key.namespace, &key.name]);
        match &self.storage {
            Storage::Files { claims, .. } => remove(&claims.join(name))?,
            Storage::Hollow(disk) => drop(disk.0.lock().claims.remove(&name)),
        }
        Ok(())
    }

    pub(crate) fn save_content(&self, saved: &SavedContent) -> Result<(), DiskError> {
        let name = file_name(&[&saved.plural, &saved.namespace, &saved.name]);
        match &self.storage {
            Storage::Files { content, .. } => save(&content.join(name), saved)?,
            Storage::Hollow(disk) => drop(disk.0.lock().content.insert(name, saved.clone())),
        }
        Ok(())
    }

    pub(crate) fn drop_content(&self, plural: &str, key: &ObjectKey) -> Result<(), DiskError> {
        let name = file_name(&[plural, &key.namespace, &key.name]);
        match &self.storage {
            Storage::Files { content, .. } => remove(&content.join(name))?,
            Storage::Hollow(disk) => drop(disk.0.lock().content.remove(&name)),
        }
        Ok(())
    }
}

/// What the names of files begin with that are not in place yet.
const TEMPORARY: &str = ".tmp-";
/// File systems have a limit of 255 bytes, and a namespace and a name may be longer together.
const LONGEST_NAME: usize = 200;

/// The file of an object. No part of an object's name has an underscore or a tilde in it.
fn file_name(parts: &[&str]) -> String {
    let whole = parts.join("_");
    if whole.len() <= LONGEST_NAME {
        return whole;
    }
    let mut end = LONGEST_NAME - 17;
    while !whole.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}~{:016x}", &whole[..end], fnv64(whole.as_bytes()))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.to_owned();
    move |source| DiskError::Io { path, source }
}

fn save<T: Serialize>(path: &Path, record: &T) -> Result<(), DiskError> {
    let text = serde_json::to_vec(record)
        .map_err(io::Error::from)
        .map_err(at(path))?;
    write(path, &text)
}

/// In one step, readable for the agent's user only: secrets are among it.
///
/// Not synced: a claim is saved on the way to a pod's start, a millisecond each. A process that is killed loses nothing
/// by it. A machine that loses power may, but then nothing runs that this would be needed for, etcd has it all, and a
/// torn file is skipped.
fn write(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let temporary = path.with_file_name(format!("{TEMPORARY}{:016x}", fnv64(name)));
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(at(path))
}

fn remove(path: &Path) -> Result<(), DiskError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

fn read_all<T: serde::de::DeserializeOwned>(dir: &Path) -> Vec<T> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    // The directories of volume claims are beside the records of claimed pods.
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|e| e.ok().filter(|e| !e.file_type().is_ok_and(|t| t.is_dir())))
        .map(|e| e.path())
        .collect();
    paths.sort();
    paths.retain(|p| {
        !p.file_name()
            .is_some_and(|n| n.as_encoded_bytes().starts_with(TEMPORARY.as_bytes()))
    });
    paths
        .into_iter()
        .filter_map(|path| {
            let record = fs::read(&path).and_then(|b| Ok(serde_json::from_slice(&b)?));
            record.map_err(|error| tracing::warn!(path = %path.display(), %error, "a file of the disk copy cannot be read")).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_claim(name: &str) -> Claim {
        Claim {
            namespace: "default".into(),
            name: name.into(),
            work_revision: 3,
            pod_ip: None,
            fence: None,
            work: "x".into(),
        }
    }

    #[test]
    fn claims_survive_and_a_broken_file_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        disk.save_claim(&mk_claim("a")).unwrap();
        disk.save_claim(&mk_claim("b")).unwrap();
        disk.drop_claim(&ObjectKey::namespaced("default", "b"))
            .unwrap();
        disk.drop_claim(&ObjectKey::namespaced("default", "never"))
            .unwrap();
        fs::write(dir.path().join("claims/default_broken"), "{").unwrap();
        let instance = disk.instance.clone();
        drop(disk);
        let disk = Disk::open(dir.path()).unwrap();
        assert_eq!(disk.claims(), [mk_claim("a")]);
        assert_eq!(disk.instance, instance);
    }

    #[test]
    fn names_of_any_kind_and_length_are_kept_apart() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        let long = "n".repeat(252);
        let names = ["web", "web.tmp", &format!("{long}a"), &format!("{long}b")];
        for name in names {
            let mut claim = mk_claim(name);
            claim.namespace = "d".repeat(63);
            disk.save_claim(&claim).unwrap();
        }
        // A write that was cut short.
        fs::write(dir.path().join("claims/.tmp-0"), "{").unwrap();
        let mut found: Vec<String> = disk.claims().into_iter().map(|c| c.name).collect();
        found.sort();
        let mut expected: Vec<String> = names.map(str::to_owned).into();
        expected.sort();
        assert_eq!(found, expected);
        let gone = ObjectKey::namespaced("d".repeat(63).as_str(), names[2]);
        disk.drop_claim(&gone).unwrap();
        assert_eq!(disk.claims().len(), 3);
    }

    #[test]
    fn two_agents_cannot_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let _held = Disk::open(dir.path()).unwrap();
        assert!(matches!(Disk::open(dir.path()), Err(DiskError::InUse(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_is_just_ending_is_waited_for_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let held = Disk::open(dir.path()).unwrap();
        let limit = Duration::from_secs(5);
        let begun = Instant::now();
        let refused = Disk::open_within(dir.path(), limit).await;
        assert!(matches!(refused, Err(DiskError::InUse(_))));
        assert!(begun.elapsed() >= limit);
        let ending = async {
            sleep(limit / 2).await;
            drop(held);
        };
        let (opened, ()) = tokio::join!(Disk::open_within(dir.path(), limit), ending);
        opened.unwrap();
    }
}

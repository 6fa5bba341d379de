//! Where things are in the agent's data directory.
//!
//! ```text
//! <data>/instance.json                                who used the directory last
//! <data>/work/...                                     the copy of what this node was given
//! <data>/claims/<uid>/                                the files of a volume claim; they outlive its pods
//! <data>/claims/.trash/...                            those of claims that are gone, while they are being deleted
//! <data>/fences/<revision>                            until when what runs under a fence may run
//! <data>/pods/<uid>-<placement>/claim.json            what was claimed
//! <data>/pods/<uid>-<placement>/work.yaml             the pod as it was given
//! <data>/pods/<uid>-<placement>/containers/<container>/<attempt>/
//! <data>/pods/<uid>-<placement>/logs/<container>/<attempt>.log
//! <data>/pods/<uid>-<placement>/volumes/<volume>/    for a volume claim: a link to its directory
//! ```
//!
//! The command line reads logs through this module on the same machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use setpoint_apis::keyspace::uid_name;

use crate::spec::EXIT_FILE;

/// An agent's data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir(PathBuf);

/// The directory of one placement of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodDir(PathBuf);

/// The log of one run of a container, and where its end will be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLocation {
    /// The current log file; see [`crate::logs`].
    pub log: PathBuf,
    /// Exists when the run has ended.
    pub exit_record: PathBuf,
}

impl DataDir {
    /// The data directory at a path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The parent of all pods' directories.
    pub fn pods(&self) -> PathBuf {
        self.0.join("pods")
    }

    /// The file with the deadline of the fence of this revision ([`crate::deadline`]).
    pub fn fence(&self, revision: i64) -> PathBuf {
        self.fences().join(revision.to_string())
    }

    /// The parent of all deadlines.
    pub fn fences(&self) -> PathBuf {
        self.0.join("fences")
    }

    /// The directory of a volume claim. A uid that would not do as a file name is spelt in hexadecimal.
    pub fn claim(&self, uid: &str) -> PathBuf {
        self.claims().join(uid_name(uid))
    }

    /// The parent of all volume claims' directories.
    pub fn claims(&self) -> PathBuf {
        self.0.join("claims")
    }

    /// What is on its way out. On the file system of the claims, so that a directory can be moved here; no claim's
    /// directory begins with a dot.
    pub fn trash(&self) -> PathBuf {
        self.claims().join(".trash")
    }

    /// The directory of one placement of a pod. A uid that would not do as a file name is spelt in hexadecimal.
    pub fn pod(&self, uid: &str, placement: u32) -> PodDir {
        PodDir(self.pods().join(pod_name(uid, placement)))
    }

    /// The pods that have a directory.
    ///
    /// # Errors
    /// IO errors.
    pub fn existing_pods(&self) -> io::Result<Vec<PodDir>> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(self.pods()) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.push(PodDir(entry.path()));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }
}

/// The name of a placement, unique on its node: of its directory and its control group.
pub fn pod_name(uid: &str, placement: u32) -> String {
    format!("{}-{placement}", uid_name(uid))
}

impl PodDir {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The data directory that it is in.
    pub fn data(&self) -> DataDir {
        let data = self.0.parent().and_then(Path::parent);
        DataDir(data.unwrap_or(&self.0).to_owned())
    }

    /// A volume's directory.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.0.join("volumes").join(name)
    }

    /// The parent of a container's attempts.
    pub fn container(&self, name: &str) -> PathBuf {
        self.0.join("containers").join(name)
    }

    /// The directory of one run of a container; `attempt` counts restarts.
    pub fn attempt(&self, container: &str, attempt: u32) -> PathBuf {
        self.container(container).join(attempt.to_string())
    }

    /// The log of one run of a container.
    pub fn log(&self, container: &str, attempt: u32) -> PathBuf {
        self.0
            .join("logs")
            .join(container)
            .join(format!("{attempt}.log"))
    }

    /// The runs of a container that are still on disk, oldest first.
    pub fn attempts(&self, container: &str) -> Vec<u32> {
        numbers(&self.container(container), "")
    }

    /// The log of the newest run of a container, or of the one before. `None` when there is none.
    pub fn find_log(&self, container: &str, previous: bool) -> Option<LogLocation> {
        let runs = numbers(&self.0.join("logs").join(container), ".log");
        let attempt = *runs.iter().nth_back(usize::from(previous))?;
        Some(LogLocation {
            log: self.log(container, attempt),
            exit_record: self.attempt(container, attempt).join(EXIT_FILE),
        })
    }
}

/// The numbers that, with a suffix, are names in a directory; sorted.
fn numbers(dir: &Path, suffix: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut found: Vec<u32> = entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.strip_suffix(suffix)?.parse().ok())
        .collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_finds_the_data_directory_that_it_is_in() {
        let data = DataDir::new("/srv/agent");
        assert_eq!(data.pod("u", 1).data(), data);
        assert_eq!(data.claim("u-1"), Path::new("/srv/agent/claims/u-1"));
        let hostile = data.claim("../../etc");
        assert_eq!(hostile.parent(), Some(Path::new("/srv/agent/claims")));
    }

    #[test]
    fn a_hostile_uid_stays_inside_the_data_directory() {
        let data = DataDir::new("/data");
        assert_eq!(
            data.pod("5e790000-0000-8000-8000-000000000007", 2).path(),
            Path::new("/data/pods/5e790000-0000-8000-8000-000000000007-2")
        );
        for uid in ["../../etc", "", "a/b", "..", &"a".repeat(500)] {
            let dir = data.pod(uid, 1);
            assert_eq!(dir.path().parent(), Some(Path::new("/data/pods")), "{uid}");
            assert!(dir.path().file_name().unwrap().len() < 200);
        }
    }

    #[test]
    fn the_newest_log_and_the_one_before_are_found() {
        let tmp = tempfile::tempdir().unwrap();
        let pod = DataDir::new(tmp.path()).pod("u", 1);
        assert_eq!(pod.find_log("c", false), None);
        fs::create_dir_all(pod.path().join("logs/c")).unwrap();
        for name in ["2.log", "10.log", "10.log.1"] {
            fs::write(pod.path().join("logs/c").join(name), "").unwrap();
        }
        assert_eq!(pod.find_log("c", false).unwrap().log, pod.log("c", 10));
        assert_eq!(pod.find_log("c", true).unwrap().log, pod.log("c", 2));
    }
}

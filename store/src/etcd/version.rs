//! Versions of etcd, and what is known to be wrong with some of them.

use std::fmt;

/// `3.4.23`. Suffixes (`-rc.1`, `+git`) are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Major.
    pub major: u32,
    /// Minor.
    pub minor: u32,
    /// Patch.
    pub patch: u32,
}

impl Version {
    /// The oldest version that Setpoint works with: the first with fragmented watches and requested progress.
    pub const OLDEST: Self = Self::new(3, 4, 0);

    /// A version.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// Reads `3.4.23`, `3.6.0-rc.1`, `3.5`.
    pub fn parse(text: &str) -> Option<Self> {
        let core = text
            .trim()
            .trim_start_matches('v')
            .split(['-', '+'])
            .next()?;
        let mut parts = core.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        let patch = parts.next().map_or(Ok(0), str::parse).ok()?;
        Some(Self {
            major,
            minor,
            patch,
        })
    }

    /// Whether the answer to a progress request is ordered behind the events, and given by synced watchers only.
    ///
    /// Older servers answer at once with the store's revision, whatever is still on its way to the watcher
    /// (etcd-io/etcd#15220).
    pub(crate) fn orders_requested_progress(self) -> bool {
        match (self.major, self.minor) {
            (3, 4) => self.patch >= 25,
            (3, 5) => self.patch >= 8,
            _ => self >= Self::new(3, 6, 0),
        }
    }

    /// What is known to be wrong with this version and matters to Setpoint. Empty for a current one.
    ///
    /// Clusters with authentication, or with pods that must never run twice, need a version without any of these.
    pub fn known_holes(self) -> Vec<&'static str> {
        HOLES
            .iter()
            .filter(|hole| (hole.affects)(self))
            .map(|hole| hole.text)
            .collect()
    }

    /// In one line, for logs: that the version has known holes, and where to read which. `None` when it has none.
    pub fn caution(self) -> Option<String> {
        let holes = self.known_holes().len();
        (holes > 0).then(|| {
            format!("etcd {self} has {holes} known holes and is for development (`setpoint version` names them)")
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Why these versions of etcd's members ([`Store::versions`](crate::Store::versions)) must not be relied on by clusters with
/// authentication or with pods that must never run twice, and what to do about it. `None`: they may.
pub fn distrust(versions: &[impl AsRef<str>]) -> Option<String> {
    versions.iter().find_map(|text| {
        let text = text.as_ref();
        let wrong = match Version::parse(text) {
            Some(version) => {
                let holes = version.known_holes();
                if holes.is_empty() {
                    return None;
                }
                format!("etcd {version} has known holes ({})", holes.join("; "))
            }
            None => format!("the version of etcd, {text:?}, cannot be judged"),
        };
        Some(format!("{wrong}; update etcd to {TRUSTED}"))
    })
}

/// What to update to.
const TRUSTED: &str = "the newest patch of 3.5, 3.6 or a later minor version";

struct Hole {
    affects: fn(Version) -> bool,
    text: &'static str,
}

const fn older_3_4(version: Version, fixed: u32) -> bool {
    version.major == 3 && version.minor == 4 && version.patch < fixed
}

const HOLES: &[Hole] = &[
    Hole {
        affects: |v| older_3_4(v, 42),
        text: "permissions are not checked inside nested transactions (fixed in 3.4.42)",
    },
    Hole {
        affects: |v| older_3_4(v, 44),
        text: "any user may keep another's lease alive, or attach keys to it (fixed in 3.4.44)",
    },
    Hole {
        affects: |v| older_3_4(v, 45),
        text: "a member that is no longer leader renews leases (fixed in 3.4.45)",
    },
    Hole {
        affects: |v| older_3_4(v, 36),
        text: "watch events can be lost around a compaction (fixed in 3.4.36)",
    },
    Hole {
        affects: |v| match (v.major, v.minor) {
            (3, 4) => true,
            (3, 5) => v.patch < 33,
            (3, 6) => v.patch < 14,
            (3, 7) => v.patch < 1,
            _ => false,
        },
        text: "open-ended watches bypass range permissions (fixed in 3.5.33, 3.6.14, 3.7.1)",
    },
    Hole {
        // Ordered progress came first (3.4.25, 3.5.8), the repair of watchers without events later (3.4.31, 3.5.13).
        affects: |v| {
            matches!((v.major, v.minor), (3, 4) if (25..31).contains(&v.patch))
                || matches!((v.major, v.minor), (3, 5) if (8..13).contains(&v.patch))
        },
        text: "watches that see no events are never told of progress, and will be reopened all the time (fixed in 3.4.31, 3.5.13)",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_with_and_without_suffixes() {
        assert_eq!(Version::parse("3.4.23"), Some(Version::new(3, 4, 23)));
        assert_eq!(
            Version::parse("v3.6.0-rc.1+git"),
            Some(Version::new(3, 6, 0))
        );
        assert_eq!(Version::parse("3.5"), Some(Version::new(3, 5, 0)));
        assert_eq!(Version::parse("latest"), None);
        assert_eq!(Version::parse(""), None);
    }

    #[test]
    fn holes_are_those_of_the_version() {
        assert_eq!(Version::new(3, 4, 23).known_holes().len(), 5);
        assert!(Version::new(3, 5, 33).known_holes().is_empty());
        assert!(Version::new(3, 6, 14).known_holes().is_empty());
        assert_eq!(Version::new(3, 6, 13).known_holes().len(), 1);
        assert_eq!(Version::new(3, 5, 9).known_holes().len(), 2);
    }

    #[test]
    fn one_member_with_holes_is_one_too_many_and_it_is_said_what_to_do() {
        assert_eq!(distrust(&["3.6.16", "3.5.33"]), None);
        let why = distrust(&["3.6.16", "3.4.23"]).unwrap();
        assert!(why.starts_with("etcd 3.4.23 has known holes (permissions are not checked"));
        assert!(
            why.ends_with("update etcd to the newest patch of 3.5, 3.6 or a later minor version")
        );
        assert!(distrust(&["newest"]).unwrap().contains("cannot be judged"));
    }

    #[test]
    fn the_model_and_the_development_store_count_as_a_version_without_holes() {
        assert_eq!(distrust(&[crate::model::Config::default().version]), None);
    }

    #[test]
    fn requested_progress_is_trusted_from_the_fixed_versions_on() {
        assert!(!Version::new(3, 4, 23).orders_requested_progress());
        assert!(Version::new(3, 4, 25).orders_requested_progress());
        assert!(!Version::new(3, 5, 7).orders_requested_progress());
        assert!(Version::new(3, 5, 8).orders_requested_progress());
        assert!(Version::new(3, 6, 0).orders_requested_progress());
    }
}

//! Where this machine has its control groups.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The hierarchies of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Version 1: a hierarchy per controller, by its mount point. Also for machines with both, where the controllers
    /// that matter are in version 1.
    V1(BTreeMap<String, PathBuf>),
    /// Version 2: the directory below which groups are made.
    V2(PathBuf),
    /// None.
    None,
}

impl Layout {
    /// What is mounted here.
    pub fn detect() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::parse(&mounts, &own, rustix::process::geteuid().is_root())
    }

    fn parse(mountinfo: &str, own: &str, is_root: bool) -> Self {
        let mut v1 = BTreeMap::new();
        let mut v2 = None;
        for line in mountinfo.lines() {
            // 35 25 0:30 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
            let Some((mount, fs)) = line.split_once(" - ") else {
                continue;
            };
            let Some(point) = mount.split(' ').nth(4) else {
                continue;
            };
            let mut fs = fs.split(' ');
            match fs.next() {
                Some("cgroup") => {
                    for option in fs.next_back().unwrap_or_default().split(',') {
                        if matches!(option, "cpu" | "cpuacct" | "memory" | "pids" | "freezer") {
                            v1.entry(option.to_owned())
                                .or_insert_with(|| PathBuf::from(point));
                        }
                    }
                }
                Some("cgroup2") => v2 = v2.or(Some(PathBuf::from(point))),
                _ => {}
            }
        }
        match v2 {
            _ if v1
                .keys()
                .any(|c| matches!(c.as_str(), "cpu" | "memory" | "pids")) =>
            {
                Self::V1(v1)
            }
            Some(root) if is_root => Self::V2(root),
            Some(root) => {
                // A user's manager may have delegated the own group to them.
                let path = own
                    .lines()
                    .find_map(|l| l.strip_prefix("0::/"))
                    .unwrap_or_default();
                Self::V2(root.join(Path::new(path)))
            }
            None if !v1.is_empty() => Self::V1(v1),
            None => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
25 1 0:23 / /sys/fs/cgroup rw shared:8 - tmpfs tmpfs rw,mode=755
26 25 0:24 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
27 25 0:25 / /sys/fs/cgroup/memory rw,relatime shared:10 - cgroup cgroup rw,memory
28 25 0:26 / /sys/fs/cgroup/freezer rw,relatime shared:11 - cgroup cgroup rw,freezer
29 25 0:27 / /sys/fs/cgroup/unified rw,relatime shared:12 - cgroup2 cgroup2 rw,nsdelegate
";
    const UNIFIED: &str =
        "26 25 0:24 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn controllers_in_version_1_decide() {
        let Layout::V1(mounts) = Layout::parse(HYBRID, "0::/\n", true) else {
            panic!("version 1 expected")
        };
        assert_eq!(mounts["cpu"], mounts["cpuacct"]);
        assert_eq!(mounts.len(), 4);
    }

    #[test]
    fn without_root_version_2_starts_at_the_own_group() {
        let own = "0::/user.slice/user-1000.slice\n";
        assert_eq!(
            Layout::parse(UNIFIED, own, true),
            Layout::V2("/sys/fs/cgroup".into())
        );
        assert_eq!(
            Layout::parse(UNIFIED, own, false),
            Layout::V2("/sys/fs/cgroup/user.slice/user-1000.slice".into())
        );
        assert_eq!(Layout::parse("", "", true), Layout::None);
    }
}

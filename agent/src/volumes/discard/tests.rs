use std::os::unix::fs::symlink;

use super::*;
use crate::spec::SPEC_FILE;

struct Node {
    _tmp: tempfile::TempDir,
    data: DataDir,
    content: Content,
}

fn node() -> Node {
    let tmp = tempfile::tempdir().unwrap();
    Node {
        data: DataDir::new(tmp.path()),
        content: Content::default(),
        _tmp: tmp,
    }
}

impl Node {
    /// The directory of a claim, with a file in it.
    fn claim(&self, uid: &str) -> PathBuf {
        let path = self.data.claim(uid);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("file"), uid).unwrap();
        path
    }

    /// What became of each, in a word.
    fn discard(&self, uids: &[&str]) -> Vec<String> {
        let uids = uids.iter().map(|&uid| uid.to_owned()).collect();
        let discarded = discard(&self.data, &self.content, uids);
        let word = |done: Result<(), DiscardProblem>| match done {
            Ok(()) => "done".to_owned(),
            Err(DiscardProblem::InUse) => "in use".to_owned(),
            Err(problem) => problem.to_string(),
        };
        discarded.into_iter().map(|(_, done)| word(done)).collect()
    }

    fn trash(&self) -> Vec<String> {
        let entries = fs::read_dir(self.data.trash()).into_iter().flatten();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

#[test]
fn a_directory_goes_into_the_trash_once_and_for_all() {
    let n = node();
    assert_eq!(n.discard(&["u-1"]), ["done"], "there was none");
    let (one, two) = (n.claim("u-1"), n.claim("u-2"));
    assert_eq!(n.discard(&["u-1", "u-3"]), ["done", "done"]);
    assert_eq!(n.discard(&["u-1"]), ["done"]);
    assert!(!one.exists() && two.exists());
    assert_eq!(n.trash(), ["u-1.0"]);
    // A restored claim of the same uid.
    n.claim("u-1");
    assert_eq!(n.discard(&["u-1"]), ["done"]);
    assert_eq!(n.trash(), ["u-1.0", "u-1.1"]);
    let hostile = "../../etc";
    n.claim(hostile);
    assert_eq!(n.discard(&[hostile]), ["done"]);
    assert_eq!(n.trash().len(), 3);
}

#[test]
fn a_directory_stays_while_a_pod_has_a_link_to_it_or_a_container_was_started_with_it() {
    let n = node();
    let paths = ["u-1", "u-2", "u-3"].map(|uid| n.claim(uid));
    let linked = n.data.pod("p", 1);
    fs::create_dir_all(linked.path().join("volumes")).unwrap();
    symlink("../../../claims/u-1", linked.volume("data")).unwrap();
    // Of an agent that made no links.
    let started = n.data.pod("q", 4).attempt("c", 0);
    fs::create_dir_all(&started).unwrap();
    let spec = format!(
        "{{\"mounts\": [{{\"source\": \"{}/sub\"}}]}}",
        paths[1].display()
    );
    fs::write(started.join(SPEC_FILE), spec).unwrap();
    let all = ["u-1", "u-2", "u-3"];
    assert_eq!(n.discard(&all), ["in use", "in use", "done"]);
    crate::volumes::remove_pod_dir(&linked).unwrap();
    assert_eq!(n.discard(&all), ["done", "in use", "done"]);
    fs::remove_dir_all(n.data.pod("q", 4).path()).unwrap();
    assert_eq!(n.discard(&all), ["done"; 3]);
    assert!(paths.iter().all(|path| !path.exists()));
}

#[test]
fn while_it_is_not_known_who_uses_it_a_directory_stays() {
    let n = node();
    let path = n.claim("u-1");
    let pod = n.data.pod("p", 1);
    let attempt = pod.attempt("c", 0);
    // Something that cannot be read as a file.
    fs::create_dir_all(attempt.join(SPEC_FILE)).unwrap();
    let said = n.discard(&["u-1"]).remove(0);
    assert!(said.contains("pods"), "{said}");
    assert!(path.exists());
    fs::remove_dir(attempt.join(SPEC_FILE)).unwrap();
    assert_eq!(n.discard(&["u-1"]), ["done"]);
}

#[test]
fn a_pod_that_prepares_and_a_directory_that_goes_wait_for_each_other() {
    let n = std::sync::Arc::new(node());
    let path = n.claim("u-1");
    let held = n.content.hold_claims();
    let other = n.clone();
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || tell.send(other.discard(&["u-1"])));
    // The pod stands before the directory is looked at, however fast the other thread is.
    let pod = n.data.pod("p", 1);
    fs::create_dir_all(pod.path().join("volumes")).unwrap();
    symlink("../../../claims/u-1", pod.volume("data")).unwrap();
    assert!(told.try_recv().is_err());
    drop(held);
    assert_eq!(told.recv().unwrap(), ["in use"]);
    thread.join().unwrap().unwrap();
    assert!(path.exists());
}

#[test]
fn a_link_in_the_place_of_a_directory_goes_and_what_it_points_to_stays() {
    let n = node();
    let elsewhere = n.data.path().join("elsewhere");
    fs::create_dir_all(&elsewhere).unwrap();
    fs::write(elsewhere.join("file"), "mine").unwrap();
    fs::create_dir_all(n.data.claims()).unwrap();
    symlink(&elsewhere, n.data.claim("u-1")).unwrap();
    assert_eq!(n.discard(&["u-1"]), ["done"]);
    assert_eq!(n.trash(), ["u-1.0"]);
    crate::volumes::empty(&n.data.trash(), &false.into()).unwrap();
    assert_eq!(n.trash(), [""; 0]);
    assert_eq!(fs::read_to_string(elsewhere.join("file")).unwrap(), "mine");
}

#[test]
fn a_directory_that_cannot_be_moved_stays_with_the_reason_and_what_helps() {
    let n = node();
    let path = n.claim("u-1");
    // No directory can be made there.
    fs::write(n.data.trash(), "in the way").unwrap();
    let said = n.discard(&["u-1"]).remove(0);
    assert!(said.contains("see to the disk"), "{said}");
    assert!(path.exists());
    fs::remove_file(n.data.trash()).unwrap();
    assert_eq!(n.discard(&["u-1"]), ["done"]);
}

#[test]
fn mount_points_are_read_as_the_kernel_writes_them() {
    let line = br"36 35 98:0 /mnt1 /srv/with\040blank\134and\011tab rw,noatime master:1 - ext3 /dev/root rw";
    let point = Path::new("/srv/with blank\\and\ttab");
    assert_eq!(mount_point(line).as_deref(), Some(point));
    assert_eq!(mount_point(b"36 35 98:0 /"), None);
    assert_eq!(
        mount_point(br"1 2 3 / /a\9").as_deref(),
        Some(Path::new(r"/a\9"))
    );
    let found = mounted_below(Path::new("/proc")).unwrap();
    assert!(found.is_some_and(|at| at.starts_with("/proc")));
    let n = node();
    assert_eq!(mounted_below(&n.claim("u-1")).unwrap(), None);
}

#[test]
fn what_is_mounted_below_keeps_a_directory_where_it_is() {
    let n = node();
    let path = n.claim("u-1");
    let point = path.join("disk");
    fs::create_dir(&point).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    if rustix::mount::mount("tmpfs", &point, "tmpfs", flags, None).is_err() {
        return; // Only root can; what is read is tested without.
    }
    let said = n.discard(&["u-1"]).remove(0);
    rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(said.contains("unmount it"), "{said}");
    assert!(path.join("file").exists());
    assert_eq!(n.discard(&["u-1"]), ["done"]);
}

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
fn trees_of_any_shape_go_and_nothing_outside_is_touched() {
    let tmp = tempfile::tempdir().unwrap();
    let (trash, outside) = (tmp.path().join("trash"), tmp.path().join("outside"));
    fs::create_dir_all(outside.join("deep")).unwrap();
    fs::write(outside.join("file"), "mine").unwrap();
    let tree = trash.join("u-1.0");
    fs::create_dir_all(tree.join("a/b/c")).unwrap();
    fs::create_dir_all(tree.join("empty")).unwrap();
    for n in 0..300 {
        fs::write(tree.join(format!("a/b/{n}")), "x").unwrap();
    }
    symlink(&outside, tree.join("a/dir")).unwrap();
    symlink(outside.join("file"), tree.join("a/file")).unwrap();
    symlink("/nowhere", tree.join("a/b/c/broken")).unwrap();
    symlink("../..", tree.join("a/up")).unwrap();
    // The names that directories get which are moved up.
    fs::create_dir_all(trash.join("d0/in")).unwrap();
    fs::write(trash.join("d1"), "a file").unwrap();
    fs::create_dir(trash.join("d2")).unwrap();
    empty(&trash, &AtomicBool::new(false)).unwrap();
    assert_eq!(count(&trash), 0);
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "mine");
    assert!(outside.join("deep").is_dir());
    empty(&tmp.path().join("none"), &AtomicBool::new(false)).unwrap();
}

#[test]
fn a_tree_that_is_deeper_than_any_path_may_be_goes() {
    let tmp = tempfile::tempdir().unwrap();
    let trash = tmp.path().join("trash");
    fs::create_dir(&trash).unwrap();
    // 3,000 directories of 10 bytes each: paths end at 4,096.
    let mut dir = open(CWD, &trash).unwrap();
    for _ in 0..3_000 {
        rustix::fs::mkdirat(&dir, "directory1", Mode::RWXU).unwrap();
        dir = open(&dir, "directory1").unwrap();
    }
    drop(dir);
    empty(&trash, &AtomicBool::new(false)).unwrap();
    assert_eq!(count(&trash), 0);
}

#[test]
fn directories_without_rights_go_too() {
    let tmp = tempfile::tempdir().unwrap();
    let trash = tmp.path().join("trash");
    fs::create_dir_all(trash.join("u/locked/inner")).unwrap();
    fs::write(trash.join("u/locked/file"), "x").unwrap();
    for path in ["u/locked/inner", "u/locked", "u"] {
        let none = fs::Permissions::from_mode(0o000);
        fs::set_permissions(trash.join(path), none).unwrap();
    }
    empty(&trash, &AtomicBool::new(false)).unwrap();
    assert_eq!(count(&trash), 0);
}

#[test]
fn a_deletion_that_was_stopped_goes_on_later() {
    let tmp = tempfile::tempdir().unwrap();
    let trash = tmp.path().join("trash");
    fs::create_dir_all(trash.join("u/a")).unwrap();
    empty(&trash, &AtomicBool::new(true)).unwrap();
    assert_eq!(count(&trash), 1);
    empty(&trash, &AtomicBool::new(false)).unwrap();
    assert_eq!(count(&trash), 0);
}

#[test]
fn what_cannot_be_deleted_is_named_and_the_rest_goes() {
    let tmp = tempfile::tempdir().unwrap();
    let trash = tmp.path().join("trash");
    let point = trash.join("u/disk");
    fs::create_dir_all(&point).unwrap();
    fs::create_dir_all(trash.join("v/deep/er")).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    if rustix::mount::mount("tmpfs", &point, "tmpfs", flags, None).is_err() {
        return; // Only root can.
    }
    fs::write(point.join("file"), "of another file system").unwrap();
    let error = empty(&trash, &AtomicBool::new(false)).unwrap_err();
    let kept = fs::read_to_string(point.join("file"));
    rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(kept.unwrap(), "of another file system");
    assert_eq!(error.path, point);
    assert!(error.to_string().contains("unmount"), "{error}");
    assert_eq!(count(&trash), 1, "the rest is gone");
    empty(&trash, &AtomicBool::new(false)).unwrap();
    assert_eq!(count(&trash), 0);
}

//! A file under a lock that ends with the value.

use std::fs::File;

use rustix::fs::{FlockOperation, flock};

/// A file that is this value's alone until it is dropped.
#[derive(Debug)]
pub(crate) struct Locked(File);

impl Locked {
    /// Locks a file; `None` when it is another one's.
    pub(crate) fn take(file: File) -> Option<Self> {
        let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
        locked.ok().map(|()| Self(file))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing the file is not enough while a child that is being started has it, too.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_though_a_child_has_the_file_and_another_one_has_to_wait_until_then() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let open = || File::options().create(true).append(true).open(&path);
        let first = open().unwrap();
        // What a child has that is being started.
        let of_child = first.try_clone().unwrap();
        let first = Locked::take(first).unwrap();
        assert!(Locked::take(open().unwrap()).is_none());
        drop(first);
        assert!(Locked::take(open().unwrap()).is_some());
        drop(of_child);
    }
}

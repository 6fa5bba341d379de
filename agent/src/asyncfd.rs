//! Waiting for a file descriptor that tokio has no type for: a process, inotify.
#![expect(
    unsafe_code,
    reason = "tokio asks its caller to promise that the descriptor stays the same"
)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor to wait on until it is readable.
pub(crate) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd gives the same open descriptor every time, for as long as it lives, and it lives in the result.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}

//! The system calls that have no safe wrapper: fork, exec, signals. All unsafe code of the crate is here.
#![expect(
    unsafe_code,
    reason = "fork, execve, signalfd and signal dispositions have no safe interface"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

/// Which side of a fork this is.
pub(super) enum Fork {
    /// The new process.
    Child,
    /// The old one, with the child's number.
    Parent(i32),
}

/// Forks the calling process, which must be single-threaded.
pub(super) fn fork() -> io::Result<Fork> {
    // SAFETY: the shim never starts a thread, so the child may do everything that the parent may, allocation included.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Replaces the program. Returns only to say why that failed.
pub(super) fn execve(program: &CString, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| {
        list.iter()
            .map(|s| s.as_ptr())
            .chain([ptr::null()])
            .collect::<Vec<_>>()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: all strings end in NUL and both lists in a null pointer; they live until the call returns.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends the process at once, without running destructors of the parent's copies.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: always allowed.
    unsafe { libc::_exit(code) }
}

/// Takes a private copy of the mount table.
pub(super) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: CLONE_NEWNS touches no memory of the process.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })
}

/// Blocks the signals that the shim handles and returns a descriptor that reports them.
pub(super) fn signal_fd() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised before use; a descriptor that signalfd returns is ours to own.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [
            libc::SIGCHLD,
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGHUP,
        ] {
            libc::sigaddset(&raw mut set, signal);
        }
        check(libc::sigprocmask(
            libc::SIG_SETMASK,
            &raw const set,
            ptr::null_mut(),
        ))?;
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        check(fd)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Takes the pending signals off the descriptor.
pub(super) fn pending_signals(fd: &OwnedFd) -> Vec<i32> {
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    let mut buffer = [0u8; SIZE * 8];
    let mut signals = Vec::new();
    while let Ok(n) = rustix::io::read(fd, &mut buffer) {
        // The number is the first field of the record.
        signals.extend(
            buffer[..n]
                .chunks_exact(SIZE)
                .map(|r| i32::from_ne_bytes([r[0], r[1], r[2], r[3]])),
        );
        if n < buffer.len() {
            break;
        }
    }
    signals
}

/// Gives all signals their default disposition and unblocks them, as a fresh program expects.
pub(super) fn reset_signals() {
    // SAFETY: plain calls with valid arguments; KILL and STOP refuse, which is fine.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
    }
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

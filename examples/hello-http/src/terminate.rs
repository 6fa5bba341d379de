//! Waiting for SIGTERM or SIGINT with nothing but std: the handler writes one byte into a socket pair, and whoever waits
//! reads it.

use std::io::{self, Read};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// The writing end, for the handler. It is never closed.
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// Ends a wait when the first signal comes.
pub(crate) struct Signal(UnixStream);

impl Signal {
    /// Blocks until SIGTERM or SIGINT has come; at once when one came before.
    pub(crate) fn wait(mut self) -> io::Result<()> {
        self.0.read_exact(&mut [0])
    }
}

/// Takes over SIGTERM and SIGINT.
pub(crate) fn install() -> io::Result<Signal> {
    let (reader, writer) = UnixStream::pair()?;
    // A full socket must not block the handler.
    writer.set_nonblocking(true)?;
    WAKE.store(writer.into_raw_fd(), Ordering::SeqCst);
    handler::install(SIGTERM)?;
    handler::install(SIGINT)?;
    Ok(Signal(reader))
}

#[expect(
    unsafe_code,
    reason = "std has no signal handling, and an example without dependencies is the point"
)]
mod handler {
    use super::{Ordering, WAKE, io};

    unsafe extern "C" {
        fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
        fn write(fd: i32, data: *const u8, length: usize) -> isize;
    }

    pub(super) fn install(number: i32) -> io::Result<()> {
        const SIG_ERR: usize = usize::MAX;
        // SAFETY: `on_signal` has the type that signal(2) wants and calls nothing that is not async-signal-safe.
        match unsafe { signal(number, on_signal) } {
            SIG_ERR => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    extern "C" fn on_signal(_: i32) {
        let byte = 1_u8;
        // SAFETY: write(2) is async-signal-safe, the pointer is to one live byte, and the descriptor is open for good. A
        // failure means that the socket is full, so the reader wakes anyway.
        unsafe { write(WAKE.load(Ordering::SeqCst), &raw const byte, 1) };
    }
}

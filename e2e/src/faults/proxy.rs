//! A TCP proxy that can be told to misbehave: one for each pair of a process and an etcd member, so that each process
//! can be cut off alone.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::tap::{Sender, Tap, Wire};

/// What a proxy does with what it is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Hands everything on.
    #[default]
    Pass,
    /// Nobody is there: connections break and new ones are refused.
    Cut,
    /// Hands everything on, in both directions, so much later.
    Delay(Duration),
    /// Half open: requests arrive, answers do not come back until the mode ends.
    HoldAnswers,
    /// Half open: requests do not arrive until the mode ends.
    HoldRequests,
    /// Half open: connections are accepted and stay open, and all that is sent is swallowed. What lost something breaks
    /// when the mode ends.
    Swallow,
}

/// How much is held back per direction of a connection before its sender has to wait, in pieces of up to 16 kB.
const HELD: usize = 1024;

/// A proxy that runs until it is dropped.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    resets: watch::Sender<u32>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    target: SocketAddr,
    mode: watch::Receiver<Mode>,
    resets: watch::Receiver<u32>,
    wire: Arc<Wire>,
    name: Arc<str>,
    life: Arc<AtomicU32>,
}

impl Proxy {
    /// Listens on a free port of `ip`, and leads to `target`. `life` counts the processes that are called `name`.
    ///
    /// # Errors
    /// When nothing is free.
    pub async fn start(
        ip: Ipv4Addr,
        target: SocketAddr,
        wire: Arc<Wire>,
        name: Arc<str>,
        life: Arc<AtomicU32>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((ip, 0)).await?;
        let address = listener.local_addr()?;
        let (mode, resets) = (watch::Sender::default(), watch::Sender::default());
        let shared = Shared {
            target,
            mode: mode.subscribe(),
            resets: resets.subscribe(),
            wire,
            name,
            life,
        };
        let task = tokio::spawn(serve(listener, address, shared));
        Ok(Self {
            address,
            mode,
            resets,
            task,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Behaves like this from now on.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Whether no connection leads through it.
    pub fn is_idle(&self) -> bool {
        // Each connection follows the mode; without any, only the listener does.
        self.mode.receiver_count() <= 1
    }

    /// Breaks the connections that there are.
    pub fn reset(&self) {
        self.resets.send_modify(|n| *n += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut listener: TcpListener, address: SocketAddr, mut shared: Shared) {
    loop {
        let accepted = tokio::select! {
            biased;
            cut = shared.mode.wait_for(|m| *m == Mode::Cut) => {
                if cut.is_err() {
                    return;
                }
                None
            }
            accepted = listener.accept() => Some(accepted),
        };
        match accepted {
            Some(Ok((client, _))) => {
                let shared = shared.clone();
                tokio::spawn(connection(client, shared));
            }
            // Too many open files, or the client is gone again.
            Some(Err(_)) => sleep(Duration::from_millis(10)).await,
            None => {
                drop(listener);
                if shared.mode.wait_for(|m| *m != Mode::Cut).await.is_err() {
                    return;
                }
                listener = match rebind(address).await {
                    Some(listener) => listener,
                    None => return,
                };
            }
        }
    }
}

/// The same port again. Addresses that proxies listen on are nobody else's, so it is free, if not at once.
async fn rebind(address: SocketAddr) -> Option<TcpListener> {
    for _ in 0..500 {
        let socket = TcpSocket::new_v4().ok()?;
        socket.set_reuseaddr(true).ok()?;
        if socket.bind(address).is_ok()
            && let Ok(listener) = socket.listen(128)
        {
            return Some(listener);
        }
        sleep(Duration::from_millis(10)).await;
    }
    None
}

async fn connection(mut client: TcpStream, shared: Shared) {
    let mut mode = shared.mode.clone();
    let mut resets = shared.resets.clone();
    resets.mark_unchanged();
    let relayed = tokio::select! {
        biased;
        _ = mode.wait_for(|m| *m == Mode::Cut) => Err(broken()),
        _ = resets.changed() => Err(broken()),
        relayed = relay(&mut client, &shared) => relayed,
    };
    if relayed.is_err() {
        // Not an orderly end.
        let _ = client.set_zero_linger();
    }
}

fn broken() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

async fn relay(client: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    let mut mode = shared.mode.clone();
    if *mode.borrow_and_update() == Mode::Swallow {
        let mut sink = [0; 4096];
        let swallow = async { while matches!(client.read(&mut sink).await, Ok(n) if n > 0) {} };
        tokio::select! {
            () = swallow => {}
            _ = mode.wait_for(|m| *m != Mode::Swallow) => {}
        }
        return Err(broken());
    }
    let mut server = TcpStream::connect(shared.target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let sender = Sender {
        name: Arc::clone(&shared.name),
        life: shared.life.load(Ordering::Acquire),
    };
    let tap = Tap::new(Arc::clone(&shared.wire), sender);
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let requests = pump(
        client_read,
        server_write,
        mode.clone(),
        Mode::HoldRequests,
        |b| tap.request(b),
    );
    let answers = pump(server_read, client_write, mode, Mode::HoldAnswers, |b| {
        tap.answer(b);
    });
    // When one side is done the other has nobody left to talk to.
    tokio::select! {
        ended = requests => ended,
        ended = answers => ended,
    }
}

/// One direction. What is read is looked at before it is handed on, so that a request that never arrives is known too.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mode: watch::Receiver<Mode>,
    hold: Mode,
    mut look: impl FnMut(&[u8]),
) -> io::Result<()> {
    let (queue, mut queued) = mpsc::channel::<(Instant, Bytes)>(HELD);
    let mut seen = mode.clone();
    let read = async move {
        let mut buffer = vec![0; 16 << 10];
        let mut swallowed = false;
        loop {
            let n = from.read(&mut buffer).await?;
            if n == 0 {
                return Ok(());
            }
            if *seen.borrow_and_update() == Mode::Swallow {
                swallowed = true;
            } else if swallowed {
                return Err(broken());
            } else {
                look(&buffer[..n]);
                let piece = Bytes::copy_from_slice(&buffer[..n]);
                if queue.send((Instant::now(), piece)).await.is_err() {
                    return Ok(());
                }
            }
        }
    };
    let mut mode = mode;
    let write = async move {
        while let Some((came, piece)) = queued.recv().await {
            loop {
                let now = *mode.borrow_and_update();
                match now {
                    Mode::Delay(by) if came.elapsed() < by => tokio::select! {
                        () = sleep_until(came + by) => break,
                        changed = mode.changed() => changed.map_err(|_| broken())?,
                    },
                    _ if now == hold || now == Mode::Swallow => {
                        mode.changed().await.map_err(|_| broken())?;
                    }
                    _ => break,
                }
            }
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    };
    let (read, wrote): (io::Result<()>, io::Result<()>) = tokio::join!(read, write);
    read.and(wrote)
}

#[cfg(test)]
mod tests;

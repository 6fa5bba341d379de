//! The process: found, started, and gone when the test is.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpSocket;

/// A child that dies with this process.
pub(super) struct Process {
    child: Child,
    /// Keeps the thread that started the child: the kernel kills the child when that thread ends.
    _parent: mpsc::Sender<()>,
}

impl Process {
    pub(super) fn start(binary: &Path, args: &[String], log: &Path) -> Self {
        // `setpriv` becomes the program it starts, so the pid is etcd's own.
        let mut command = match find("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log file");
        command
            .args(args)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file);
        let (sender, receiver) = mpsc::channel();
        let (parent, ended) = mpsc::channel::<()>();
        std::thread::Builder::new()
            .name("etcd-parent".to_owned())
            .spawn(move || {
                // The test's own thread may end before the test's etcd should; this one waits.
                let _ = sender.send(command.spawn());
                let _ = ended.recv();
            })
            .expect("a thread");
        let child = receiver
            .recv()
            .expect("the thread answers")
            .expect("etcd can be started");
        Self {
            child,
            _parent: parent,
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    pub(super) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a pid");
        // The child has not been waited for, so the pid is still its own.
        kill_process(pid, signal).expect("the process can be signalled");
    }

    /// Stops it, and waits until all its threads have stopped: the signal alone returns before that.
    #[expect(
        clippy::disallowed_methods,
        reason = "the pause between two looks at the predicate, outside of any runtime"
    )]
    pub(super) fn freeze(&self) {
        self.signal(Signal::STOP);
        while !self.has_stopped() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn has_stopped(&self) -> bool {
        let tasks =
            std::fs::read_dir(format!("/proc/{}/task", self.id())).expect("a process of ours");
        tasks.flatten().all(|task| {
            // `pid (name) state ...`; a thread that is gone by now has stopped for good.
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit(") ")
                .next()
                .is_none_or(|rest| rest.is_empty() || rest.starts_with(['T', 'Z', 'X']))
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The etcd that tests use: `SETPOINT_ETCD`, or on the path.
///
/// # Panics
/// When there is none.
pub fn find_etcd() -> PathBuf {
    std::env::var_os("SETPOINT_ETCD").map(PathBuf::from).or_else(|| find("etcd")).unwrap_or_else(|| {
        panic!("no etcd: there is none on PATH and SETPOINT_ETCD is not set. `make test` installs what tests need.")
    })
}

/// etcdctl: beside `SETPOINT_ETCD`, or on the path.
///
/// # Panics
/// When there is none.
pub fn find_etcdctl() -> PathBuf {
    let beside =
        std::env::var_os("SETPOINT_ETCD").map(|etcd| PathBuf::from(etcd).with_file_name("etcdctl"));
    beside
        .filter(|path| path.is_file())
        .or_else(|| find("etcdctl"))
        .unwrap_or_else(|| panic!("no etcdctl on PATH. `make test` installs what tests need."))
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let standard = ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(standard)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// A port of 127.0.0.1 that nobody else is given as long as this lives, whether etcd listens on it or not.
pub(super) struct Port {
    number: u16,
    _held: TcpSocket,
}

impl Port {
    /// The socket is bound and does not listen, so connections are refused; with SO_REUSEADDR on both, as Go has it,
    /// etcd may listen on its port all the same.
    pub(super) fn hold() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .set_reuseaddr(true)
            .expect("a socket that shares its port");
        socket
            .bind((Ipv4Addr::LOCALHOST, 0).into())
            .expect("a free port");
        let address = socket.local_addr().expect("a bound socket has an address");
        Self {
            number: address.port(),
            _held: socket,
        }
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }

    /// Whether somebody listens on it.
    pub(super) fn accepts(&self) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.number));
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
    }
}

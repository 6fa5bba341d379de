//! Child processes that end with the test, however it ends.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use rustix::process::Signal;

use crate::cluster::signal;

type Answer = mpsc::SyncSender<std::io::Result<Child>>;

/// Starts processes. The kernel ends them when the thread that started them ends, so this is a thread that outlives
/// whatever part of a test asks for one.
#[derive(Clone)]
pub(super) struct Nursery {
    orders: mpsc::SyncSender<(Command, Answer)>,
}

impl Nursery {
    pub(super) fn new() -> Self {
        let (orders, received) = mpsc::sync_channel::<(Command, Answer)>(1);
        std::thread::Builder::new()
            .name("nursery".to_owned())
            .spawn(move || {
                while let Ok((mut command, answer)) = received.recv() {
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("a thread");
        Self { orders }
    }
}

/// A process of a test. Dropping it kills it.
pub(super) struct Process {
    name: String,
    child: Child,
    /// Keeps the thread that started it.
    _nursery: Nursery,
}

impl Process {
    /// Starts a program; what it says goes to the end of `log`.
    pub(super) fn start(nursery: &Nursery, name: &str, command: Command, log: &Path) -> Self {
        let mut wrapped = dying(command);
        let file = File::options().create(true).append(true).open(log);
        let file = file.unwrap_or_else(|e| panic!("opening {}: {e}", log.display()));
        wrapped
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file);
        let (answer, child) = mpsc::sync_channel(1);
        let ordered = nursery.orders.send((wrapped, answer));
        ordered.expect("the nursery lives as long as its handles");
        let child = child.recv().expect("the nursery answers");
        let child = child.unwrap_or_else(|e| panic!("starting {name}: {e}"));
        Self {
            name: name.to_owned(),
            child,
            _nursery: nursery.clone(),
        }
    }

    pub(super) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids are small")
    }

    /// Sends a signal. The child has not been waited for, so the process id is still its own.
    pub(super) fn signal(&self, what: Signal) {
        signal(self.pid(), what);
    }

    /// Stops it, and waits until all of its threads have stopped: the signal alone returns before that.
    #[expect(
        clippy::disallowed_methods,
        reason = "the pause between two looks at the predicate"
    )]
    pub(super) fn freeze(&self) {
        self.signal(Signal::STOP);
        while !self.has_stopped() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    fn has_stopped(&self) -> bool {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.pid())) else {
            return true;
        };
        tasks.flatten().all(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            // `pid (name) state ...`; a thread that is gone has stopped for good.
            let state = stat.rsplit(") ").next().unwrap_or_default();
            state.is_empty() || state.starts_with(['T', 'Z', 'X'])
        })
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("with code {code}"),
            (_, Some(signal)) => format!("by signal {signal}"),
            _ => "somehow".to_owned(),
        };
        Some(format!("{} ended {how}", self.name))
    }
}

/// The command, to be ended by the kernel with the thread that starts it, where there is a `setpriv`. That becomes the
/// program it starts, so the process id is the program's.
fn dying(command: Command) -> Command {
    let setpriv = ["/usr/bin/setpriv", "/bin/setpriv"].map(Path::new);
    let Some(setpriv) = setpriv.iter().find(|p| p.is_file()) else {
        return command;
    };
    let mut wrapped = Command::new(setpriv);
    wrapped
        .args(["--pdeathsig", "KILL", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    }
    wrapped
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! Starts a container's main process: everything between fork and exec, with a name for each step, so that a failure
//! says which one it was.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount_bind_recursive, mount_change, mount_remount,
};
use rustix::process::{Signal, chdir, getppid, set_parent_process_death_signal, setsid, umask};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space, set_no_new_privs};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
use serde::{Deserialize, Serialize};

use super::fence::Fence;
use super::sys::{self, Fork};
use super::{errno, mountpoints};
use crate::openfiles;
use crate::spec::{ContainerSpec, Degraded, StepError};

/// A main process that runs its own program.
pub(super) struct Launched {
    pub(super) pid: i32,
    /// The reading ends of its stdout and stderr, non-blocking; none when it writes to the shim's own.
    pub(super) output: Option<(OwnedFd, OwnedFd)>,
    pub(super) degraded: Vec<Degraded>,
}

/// What the child reports before its program takes over, one JSON document per line. Silence is success.
#[derive(Serialize, Deserialize)]
enum Report {
    Degraded(Degraded),
    Failed(StepError),
}

/// Starts the main process and returns when its program runs.
pub(super) fn launch(spec: &ContainerSpec, fence: Option<&Fence>) -> Result<Launched, StepError> {
    let program = Program::prepare(spec)?;
    let io_error = |e: rustix::io::Errno| StepError::new("pipe", errno(e));
    let (mut report, report_out) = pipe()
        .map_err(io_error)
        .map(|(r, w)| (File::from(r), File::from(w)))?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(io_error)?;
    let (output, child_output) = if spec.log.is_some() {
        let (out, out_end) = pipe().map_err(io_error)?;
        let (err, err_end) = pipe().map_err(io_error)?;
        for end in [&out_end, &err_end] {
            if spec.uid.is_some() || spec.gid.is_some() {
                // So that a program that has another user can open /dev/stdout.
                let _ = rustix::fs::fchown(
                    end,
                    spec.uid.map(Uid::from_raw),
                    spec.gid.map(Gid::from_raw),
                );
            }
        }
        for end in [&out, &err] {
            rustix::io::ioctl_fionbio(end, true).map_err(io_error)?;
        }
        (Some((out, err)), Some((out_end, err_end)))
    } else {
        (None, None)
    };

    let parent = rustix::process::getpid();
    match sys::fork().map_err(|e| StepError::new("fork", e))? {
        Fork::Child => {
            drop(report);
            let mut reporter = Reporter(report_out);
            let error = Child {
                spec,
                program: &program,
                fence,
                parent,
                null,
                output: child_output,
            }
            .run(&mut reporter);
            reporter.send(&Report::Failed(error));
            sys::exit_now(127)
        }
        Fork::Parent(pid) => {
            drop(report_out);
            drop(child_output);
            let mut text = String::new();
            report
                .read_to_string(&mut text)
                .map_err(|e| StepError::new("start", e))?;
            let mut degraded = Vec::new();
            for line in text.lines() {
                match serde_json::from_str(line).map_err(|e| StepError::new("start", e))? {
                    Report::Degraded(d) => degraded.push(d),
                    Report::Failed(error) => return Err(error),
                }
            }
            Ok(Launched {
                pid,
                output,
                degraded,
            })
        }
    }
}

fn pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
}

struct Reporter(File);

impl Reporter {
    fn send(&mut self, report: &Report) {
        if let Ok(mut line) = serde_json::to_vec(report) {
            line.push(b'\n');
            let _ = self.0.write_all(&line);
        }
    }
}

/// The program with its arguments and environment as exec wants them, and where to look for it.
struct Program {
    argv: Vec<CString>,
    env: Vec<CString>,
    candidates: Vec<CString>,
}

impl Program {
    fn prepare(spec: &ContainerSpec) -> Result<Self, StepError> {
        let nul = |what: &str| StepError::new("exec", format_args!("{what} contains a NUL byte"));
        let Some(name) = spec.argv.first().filter(|n| !n.is_empty()) else {
            return Err(StepError::new("exec", "there is no command to run"));
        };
        let argv = spec
            .argv
            .iter()
            .map(|a| CString::new(a.as_str()).map_err(|_| nul("an argument")))
            .collect::<Result<_, _>>()?;
        let env = spec
            .env
            .iter()
            .map(|(k, v)| {
                CString::new(format!("{k}={v}")).map_err(|_| nul("an environment variable"))
            })
            .collect::<Result<_, _>>()?;
        let candidates = if name.contains('/') {
            vec![CString::new(name.as_str()).map_err(|_| nul("the command"))?]
        } else {
            let path = spec
                .env
                .iter()
                .rev()
                .find(|(k, _)| k == "PATH")
                .map_or(&spec.search_path, |(_, v)| v);
            path.split(':')
                .map(|dir| if dir.is_empty() { "." } else { dir })
                .map(|dir| CString::new(format!("{dir}/{name}")).map_err(|_| nul("the command")))
                .collect::<Result<_, _>>()?
        };
        Ok(Self {
            argv,
            env,
            candidates,
        })
    }

    /// Runs it. Returns only to say why it cannot.
    fn exec(&self) -> StepError {
        let name = self.argv[0].to_string_lossy();
        let mut denied = None;
        for candidate in &self.candidates {
            let error = sys::execve(candidate, &self.argv, &self.env);
            let path = Path::new(std::ffi::OsStr::from_bytes(candidate.as_bytes()));
            match error.kind() {
                io::ErrorKind::NotFound if path.exists() => {
                    return StepError::new(
                        "exec",
                        format_args!("{}: its interpreter does not exist", path.display()),
                    );
                }
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {}
                io::ErrorKind::PermissionDenied => {
                    if path.exists() {
                        denied = denied.or(Some(path));
                    }
                }
                _ => {
                    return StepError::new(
                        "exec",
                        format_args!("{}: {}", path.display(), io_text(&error)),
                    );
                }
            }
        }
        match denied {
            Some(path) => StepError::new(
                "exec",
                format_args!("{}: permission denied", path.display()),
            ),
            None if name.contains('/') => {
                StepError::new("exec", format_args!("{name:?}: no such file"))
            }
            None => StepError::new(
                "exec",
                format_args!("{name:?}: executable file not found in PATH"),
            ),
        }
    }
}

/// The new process, before its program takes over.
struct Child<'a> {
    spec: &'a ContainerSpec,
    program: &'a Program,
    fence: Option<&'a Fence>,
    parent: rustix::process::Pid,
    null: OwnedFd,
    output: Option<(OwnedFd, OwnedFd)>,
}

impl Child<'_> {
    fn run(&self, reporter: &mut Reporter) -> StepError {
        match self.steps(reporter) {
            Ok(()) => self.program.exec(),
            Err(error) => error,
        }
    }

    fn steps(&self, reporter: &mut Reporter) -> Result<(), StepError> {
        let spec = self.spec;
        let step = |name: &'static str| move |e: rustix::io::Errno| StepError::new(name, errno(e));
        setsid().map_err(step("session"))?;
        sys::reset_signals();
        umask(Mode::from_raw_mode(0o022));
        if let Some(cgroup) = &spec.cgroup {
            // The child joins by itself: moving oneself, alone, does not take the kernel's global lock.
            cgroup.join_self().map_err(|(file, e)| {
                StepError::new("cgroup", format_args!("{}: {e}", file.display()))
            })?;
        }
        // The shim itself is protected; its container is not, unless told so.
        let adj = spec.oom_score_adj.unwrap_or(0);
        if std::fs::write("/proc/self/oom_score_adj", adj.to_string()).is_err() && adj < 0 {
            let why = "only root may lower it".to_owned();
            reporter.send(&Report::Degraded(Degraded {
                what: "oom_score_adj".into(),
                why,
            }));
        }
        if let Some(process) = spec.enter_mounts_of {
            enter_mounts(process.pid).map_err(|e| {
                StepError::new(
                    "mount",
                    format_args!("cannot join the container's mounts: {e}"),
                )
            })?;
        } else if !spec.mounts.is_empty() {
            self.mount(reporter)?;
        }
        rustix::stdio::dup2_stdin(&self.null).map_err(step("stdio"))?;
        if let Some((out, err)) = &self.output {
            rustix::stdio::dup2_stdout(out).map_err(step("stdio"))?;
            rustix::stdio::dup2_stderr(err).map_err(step("stdio"))?;
        }
        let cwd = spec.cwd.as_deref().unwrap_or(Path::new("/"));
        chdir(cwd)
            .map_err(|e| StepError::new("cwd", format_args!("{}: {}", cwd.display(), errno(e))))?;
        if let Some(limit) = spec.open_files {
            openfiles::restore(limit);
        }
        self.become_user()?;
        if spec.no_new_privileges {
            set_no_new_privs(true).map_err(step("no_new_privs"))?;
        }
        // Changing the user clears this, so it comes last. The parent may have died before it was set.
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(step("session"))?;
        if getppid() != Some(self.parent) {
            return Err(StepError::new(
                "session",
                "the supervising process has gone",
            ));
        }
        // All that came before may have taken any time.
        self.fence.map_or(Ok(()), Fence::check)
    }

    fn mount(&self, reporter: &mut Reporter) -> Result<(), StepError> {
        if let Err(e) = sys::unshare_mounts() {
            if e.kind() != io::ErrorKind::PermissionDenied {
                return Err(StepError::new("mount", io_text(&e)));
            }
            let why = "no permission to make a mount namespace (not root)".to_owned();
            reporter.send(&Report::Degraded(Degraded {
                what: "mounts".into(),
                why,
            }));
            return Ok(());
        }
        // What is mounted here stays here; what the host unmounts later goes here too, so nothing is kept busy.
        mount_change(
            "/",
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
        )
        .map_err(|e| StepError::new("mount", format_args!("propagation of /: {}", errno(e))))?;
        for m in &self.spec.mounts {
            let at = |e: io::Error| {
                StepError::new(
                    "mount",
                    format_args!(
                        "{} at {}: {}",
                        m.source.display(),
                        m.target.display(),
                        io_text(&e)
                    ),
                )
            };
            mountpoints::create_inside(m).map_err(at)?;
            mount_bind_recursive(&m.source, &m.target).map_err(|e| at(e.into()))?;
            if m.read_only {
                mount_remount(&m.target, MountFlags::BIND | MountFlags::RDONLY, "")
                    .map_err(|e| at(e.into()))?;
            }
        }
        Ok(())
    }

    fn become_user(&self) -> Result<(), StepError> {
        let spec = self.spec;
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let same_user = spec.uid.is_none_or(|u| u == uid.as_raw())
            && spec.gid.is_none_or(|g| g == gid.as_raw());
        let nothing_asked = spec.uid.is_none() && spec.gid.is_none();
        if spec.groups.is_empty() && (nothing_asked || (same_user && !uid.is_root())) {
            return Ok(());
        }
        let failed = |what: &str, id: u32| {
            let what = format!("cannot become {what} {id}");
            move |e: rustix::io::Errno| StepError::new("user", format_args!("{what}: {}", errno(e)))
        };
        let groups: Vec<Gid> = spec.groups.iter().map(|g| Gid::from_raw(*g)).collect();
        set_thread_groups(&groups).map_err(failed(
            "a member of group",
            spec.groups.first().copied().unwrap_or(0),
        ))?;
        if let Some(gid) = spec.gid {
            set_thread_gid(Gid::from_raw(gid)).map_err(failed("group", gid))?;
        }
        if let Some(uid) = spec.uid {
            set_thread_uid(Uid::from_raw(uid)).map_err(failed("user", uid))?;
        }
        Ok(())
    }
}

fn enter_mounts(pid: i32) -> io::Result<()> {
    let namespace = File::open(format!("/proc/{pid}/ns/mnt"))?;
    let own = std::fs::metadata("/proc/self/ns/mnt")?;
    use std::os::unix::fs::MetadataExt;
    if namespace.metadata()?.ino() == own.ino() {
        return Ok(()); // The container has none of its own.
    }
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
        .map_err(io::Error::from)
}

/// The system's words without the error number.
fn io_text(e: &io::Error) -> String {
    let text = e.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

//! The process driver with real processes: how containers start, end, are found again, and leave nothing behind.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Fixture, alive, eventually, is_root, sh, within};
use setpoint_agent::cgroup::Limits;
use setpoint_agent::driver::{Adopted, Driver, DriverError, ExecRequest};
use setpoint_agent::logs::{LogOptions, LogReader};
use setpoint_agent::spec::{BindMount, ContainerSpec, LogSpec};

#[tokio::test]
async fn an_exit_code_is_recorded_exactly() {
    let f = Fixture::new();
    let container = f.start("c", sh("exit 42")).await.unwrap();
    let exit = within(container.ended()).await;
    assert_eq!(
        (exit.exit_code, exit.signal, exit.oom_killed, &exit.error),
        (Some(42), None, false, &None)
    );
    assert!(exit.started_at > 0 && exit.finished_at >= exit.started_at);
    assert!(matches!(f.driver.adopt(f.dir("c")).await.unwrap(), Adopted::Ended(e) if e == exit));
}

#[tokio::test]
async fn a_deadly_signal_is_recorded() {
    let f = Fixture::new();
    let container = f.start("c", sh("kill -SEGV $$")).await.unwrap();
    let exit = within(container.ended()).await;
    assert_eq!(
        (exit.exit_code, exit.signal, exit.shell_code()),
        (None, Some(11), 139)
    );
}

#[tokio::test]
async fn term_reaches_the_main_process_and_its_answer_counts() {
    let f = Fixture::new();
    let container = f
        .start(
            "c",
            sh("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"),
        )
        .await
        .unwrap();
    eventually("the trap is set", || f.log("c").contains("ready")).await;
    container.signal(15);
    assert_eq!(within(container.ended()).await.exit_code, Some(7));
    assert!(f.log("c").contains("bye"));
}

#[tokio::test]
async fn kill_ends_a_container_that_ignores_term_with_all_it_started() {
    let f = Fixture::new();
    let script = "trap '' TERM; sleep 1000 & setsid sh -c 'trap \"\" TERM; sleep 1000 & sleep 1000' & echo ready; wait";
    let container = f.start("c", sh(script)).await.unwrap();
    eventually("it is up", || f.log("c").contains("ready")).await;
    container.signal(15);
    assert!(
        tokio::time::timeout(Duration::from_millis(200), container.ended())
            .await
            .is_err(),
        "TERM is ignored"
    );
    let family = eventually_some("its processes", || {
        let family = crate::support::descendants(container.record().shim.pid);
        (family.len() >= 5).then_some(family)
    })
    .await;
    container.kill();
    assert_eq!(within(container.ended()).await.signal, Some(9));
    assert_eq!(family.iter().filter(|p| alive(**p)).count(), 0);
}

#[tokio::test]
async fn a_daemon_that_left_its_session_ends_with_the_container() {
    for with_cgroups in [true, false] {
        let f = if with_cgroups {
            Fixture::new()
        } else {
            Fixture::without_cgroups()
        };
        let pid_file = f.path("daemon.pid");
        // Twice forked, in a session of its own, its parents gone: an orphan.
        let script = format!(
            "(setsid sh -c 'echo $$ > {p}.tmp; mv {p}.tmp {p}; exec sleep 1000' &) & wait; while [ ! -e {p} ]; do sleep 0.01; done; exit 3",
            p = pid_file.display()
        );
        let container = f.start("c", sh(&script)).await.unwrap();
        let exit = within(container.ended()).await;
        assert_eq!(exit.exit_code, Some(3), "{exit:?}");
        let daemon: i32 = fs::read_to_string(&pid_file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        assert!(!alive(daemon), "with cgroups: {with_cgroups}");
    }
}

#[tokio::test]
async fn orphans_leave_no_zombies_while_the_container_runs() {
    let f = Fixture::new();
    let container = f
        .start(
            "c",
            sh("for i in 1 2 3 4 5; do (sh -c 'sleep 0.02' &) ; done; echo ready; exec sleep 1000"),
        )
        .await
        .unwrap();
    eventually("it is up", || f.log("c").contains("ready")).await;
    let shim = container.record().shim.pid;
    eventually("only the main process is left", || {
        crate::support::descendants(shim) == [container.record().container.pid]
    })
    .await;
}

#[tokio::test]
async fn a_container_that_exceeds_its_memory_is_oom_killed() {
    if !is_root() {
        return; // Limits need permission; what is reported without it has its own test.
    }
    let f = Fixture::new();
    let limits = Limits {
        memory_limit_bytes: Some(32 << 20),
        ..Limits::default()
    };
    let hog = sh("head -c 300000000 /dev/zero | tail -c 200000000 > /dev/null"); // tail keeps the end of a pipe in memory.
    let container = f.start_limited("c", hog, limits).await.unwrap();
    if !container.record().degraded.is_empty() {
        return; // No memory controller on this machine.
    }
    let exit = within(container.ended()).await;
    assert!(exit.oom_killed, "{exit:?}");
    assert_eq!(exit.shell_code(), 137);
}

#[tokio::test]
async fn a_fork_bomb_stops_at_its_limit_and_dies_with_its_container() {
    if !is_root() {
        return;
    }
    let f = Fixture::new();
    let limits = Limits {
        pids_limit: Some(20),
        ..Limits::default()
    };
    let container = f
        .start_limited(
            "c",
            sh("i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); done; wait"),
            limits,
        )
        .await
        .unwrap();
    if !container.record().degraded.is_empty() {
        return;
    }
    eventually("the limit is felt", || {
        f.log("c").to_lowercase().contains("fork")
    })
    .await;
    assert!(crate::support::descendants(container.record().shim.pid).len() <= 20);
    let family = crate::support::descendants(container.record().shim.pid);
    container.kill();
    within(container.ended()).await;
    assert_eq!(family.iter().filter(|p| alive(**p)).count(), 0);
}

#[tokio::test]
async fn a_container_survives_its_agent_and_the_next_one_learns_its_exit_code() {
    let f = Fixture::new();
    let gate = f.path("gate");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.02; done; exit 23",
        gate.display()
    );
    // The agent is a runtime that is thrown away, so that nothing of it reads the container's end.
    let dir = f.dir("c");
    let request = f.request("c", sh(&script), Limits::default());
    let driver = f.another_driver();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime
            .block_on(async { driver.start(request).await.map(drop) })
            .unwrap();
    })
    .join()
    .unwrap();
    let Adopted::Running(container) = f.driver.adopt(dir.clone()).await.unwrap() else {
        panic!("it runs")
    };
    fs::write(&gate, "").unwrap();
    assert_eq!(within(container.ended()).await.exit_code, Some(23));
}

#[tokio::test]
async fn a_container_whose_parent_is_killed_goes_on() {
    // A real process starts the shim and is killed with KILL, together with its process group.
    let f = Fixture::new();
    let dir = f.dir("c");
    fs::create_dir_all(&dir).unwrap();
    let mut spec = sh("trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done");
    spec.log = Some(LogSpec::at(f.log_path("c")));
    fs::write(dir.join("spec.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
    use std::os::unix::process::CommandExt;
    let mut parent = std::process::Command::new("sh")
        .args([
            "-c",
            "exec 0< \"$1/spec.json\"; flock 0; \"$0\" \"$1\" & wait",
            env!("CARGO_BIN_EXE_setpoint-shim"),
        ])
        .arg(&dir)
        .process_group(0)
        .spawn()
        .unwrap();
    eventually("the container runs", || f.log("c").contains("up")).await;
    rustix::process::kill_process_group(
        rustix::process::Pid::from_raw(parent.id() as i32).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    parent.wait().unwrap();
    // A background job of a shell has /dev/null as stdin, so this shim holds no lock: adoption is by the real driver
    // only. What counts here is that the container goes on and its end is recorded.
    let record: setpoint_agent::spec::PidRecord =
        setpoint_agent::spec::read_record(&dir, "pid.json")
            .unwrap()
            .unwrap();
    assert!(alive(record.container.pid) && alive(record.shim.pid));
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(record.shim.pid).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    let exit = eventually_some("the exit record", || {
        setpoint_agent::spec::read_record::<setpoint_agent::spec::ExitRecord>(&dir, "exit.json")
            .unwrap()
    })
    .await;
    assert_eq!(exit.exit_code, Some(5));
}

#[tokio::test]
async fn a_killed_shim_takes_its_container_with_it_and_the_end_is_told_honestly() {
    let f = Fixture::new();
    let container = f
        .start("c", sh("sleep 1000 & echo ready; wait"))
        .await
        .unwrap();
    eventually("it is up", || f.log("c").contains("ready")).await;
    let record = container.record().clone();
    let family = crate::support::descendants(record.shim.pid);
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(record.shim.pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let exit = within(container.ended()).await;
    assert_eq!(exit.signal, Some(9));
    assert!(exit.error.unwrap().message.contains("not known"));
    assert!(!alive(record.container.pid));
    if is_root() {
        assert_eq!(
            family.iter().filter(|p| alive(**p)).count(),
            0,
            "the control group finds the rest"
        );
    } else {
        family.into_iter().for_each(crate::support::kill);
    }
}

#[tokio::test]
async fn without_control_groups_too_the_end_is_told_when_the_main_process_is_gone() {
    let f = Fixture::without_cgroups();
    let container = f
        .start("c", sh("echo ready; exec sleep 1000"))
        .await
        .unwrap();
    eventually("it is up", || f.log("c").contains("ready")).await;
    let record = container.record().clone();
    crate::support::kill(record.shim.pid);
    let exit = within(container.ended()).await;
    assert_eq!(exit.signal, Some(9));
    assert!(!alive(record.container.pid));
}

#[tokio::test]
async fn what_was_never_started_is_told_apart() {
    let f = Fixture::new();
    assert!(matches!(
        f.driver.adopt(f.dir("none")).await.unwrap(),
        Adopted::NotStarted
    ));
    fs::create_dir_all(f.dir("torn")).unwrap();
    fs::write(f.dir("torn").join("spec.json"), "{\"argv\":").unwrap();
    assert!(matches!(
        f.driver.adopt(f.dir("torn")).await.unwrap(),
        Adopted::NotStarted
    ));
    f.driver.remove(f.dir("torn")).await.unwrap();
    assert!(!f.dir("torn").exists());
}

#[tokio::test]
async fn mistakes_say_which_step_failed_and_why() {
    let f = Fixture::new();
    let argv = |a: &[&str]| ContainerSpec {
        argv: a.iter().map(|s| (*s).to_owned()).collect(),
        search_path: "/bin".into(),
        ..ContainerSpec::default()
    };
    fs::write(f.path("plain"), "no program").unwrap();
    let cases: Vec<(ContainerSpec, &str)> = vec![
        (
            argv(&["no-such-program-xyz"]),
            "exec: \"no-such-program-xyz\": executable file not found in PATH",
        ),
        (
            argv(&["/no/such/program"]),
            "exec: \"/no/such/program\": no such file",
        ),
        (argv(&[]), "exec: there is no command to run"),
        (
            argv(&[f.path("plain").to_str().unwrap()]),
            "permission denied",
        ),
        (
            ContainerSpec {
                cwd: Some("/no/such/dir".into()),
                ..sh("true")
            },
            "cwd: /no/such/dir: no such file or directory",
        ),
    ];
    for (i, (spec, want)) in cases.into_iter().enumerate() {
        let name = format!("c{i}");
        match f.start(&name, spec).await {
            Err(DriverError::Start(error)) => assert!(
                error.to_string().contains(want),
                "{error} should say {want}"
            ),
            other => panic!("{want}: {other:?}"),
        }
        let Adopted::Ended(exit) = f.driver.adopt(f.dir(&name)).await.unwrap() else {
            panic!("recorded")
        };
        assert_eq!((exit.started_at, exit.shell_code()), (0, 128));
    }
}

#[tokio::test]
async fn output_is_kept_in_order_with_long_lines_whole() {
    let f = Fixture::new();
    let script = "echo out; head -c 65536 /dev/zero | tr '\\0' x; echo; printf 'no newline'";
    let container = f.start("c", sh(script)).await.unwrap();
    within(container.ended()).await;
    let log = f.log("c");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines.iter().map(|l| l.len()).max(), Some(65536));
    assert_eq!(lines.last(), Some(&"no newline"));
    let raw = fs::read_to_string(f.log_path("c")).unwrap();
    assert!(raw.lines().any(|l| l.contains(" stdout P xxx")));
    // The two streams are read as they come, so that a line of the other one may be anywhere.
    let container = f.start("d", sh("echo err >&2")).await.unwrap();
    within(container.ended()).await;
    let raw = fs::read_to_string(f.log_path("d")).unwrap();
    assert!(raw.ends_with(" stderr F err\n"), "{raw}");
}

#[tokio::test]
async fn a_chatty_container_keeps_only_its_newest_files() {
    let f = Fixture::new();
    let mut spec = sh("seq 1 20000");
    spec.log = Some(LogSpec {
        path: f.log_path("c"),
        max_bytes: 100_000,
        max_files: 3,
    });
    let container = f.start("c", spec).await.unwrap();
    assert_eq!(within(container.ended()).await.exit_code, Some(0));
    let files: Vec<u64> = fs::read_dir(f.log_path("c").parent().unwrap())
        .unwrap()
        .map(|e| e.unwrap().metadata().unwrap().len())
        .collect();
    assert!(
        files.len() == 3 && files.iter().all(|len| *len <= 200_000),
        "{files:?}"
    );
    let log = f.log("c");
    assert!(log.ends_with("\n19999\n20000\n"));
    let numbers: Vec<u32> = log.lines().map(|l| l.parse().unwrap()).collect();
    assert!(
        numbers.windows(2).all(|w| w[0] + 1 == w[1]),
        "in order, without gaps"
    );
}

#[tokio::test]
async fn a_full_disk_costs_log_lines_and_nothing_else() {
    if !is_root() {
        return; // Needs a small file system to fill.
    }
    let f = Fixture::new();
    let small = crate::support::Tmpfs::mount(&f.path("small"), "640k");
    let (gate, written) = (f.path("gate"), f.path("written"));
    let mut spec = sh(&format!(
        "yes 0123456789012345678901234567890123456789 | head -n 20000; : > {w}; while [ ! -e {g} ]; do sleep 0.02; done; echo after; exit 9",
        w = written.display(),
        g = gate.display()
    ));
    let path = small.path().join("0.log");
    spec.log = Some(LogSpec {
        path: path.clone(),
        max_bytes: 100 << 20,
        max_files: 3,
    });
    fs::write(small.path().join("ballast"), vec![0; 400_000]).unwrap();
    let container = f.start("c", spec).await.unwrap();
    eventually(
        "it has written more than the disk holds, and was not held up",
        || written.exists(),
    )
    .await;
    fs::remove_file(small.path().join("ballast")).unwrap();
    fs::write(&gate, "").unwrap();
    let exit = within(container.ended()).await;
    assert_eq!(exit.exit_code, Some(9));
    assert!(exit.log_lines_dropped > 1000, "{exit:?}");
    let mut reader = LogReader::open(&path, &LogOptions::default()).unwrap();
    let mut log = Vec::new();
    while let Some(chunk) = reader.next_chunk().unwrap() {
        log.extend(chunk);
    }
    let log = String::from_utf8(log).unwrap();
    assert!(
        log.contains("log lines were lost") && log.ends_with("after\n"),
        "{}",
        &log[log.len() - 500..]
    );
}

#[tokio::test]
async fn a_full_disk_does_not_lose_the_exit_code() {
    if !is_root() {
        return;
    }
    let f = Fixture::new();
    let small = crate::support::Tmpfs::mount(&f.path("small"), "128k");
    let gate = f.path("gate");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.02; done; exit 31",
        gate.display()
    );
    let mut request = f.request("c", sh(&script), Limits::default());
    request.dir = small.path().join("c");
    f.track(&request.dir);
    let container = f.driver.start(request).await.unwrap();
    let fill = fs::write(small.path().join("ballast"), vec![0; 1 << 20]);
    assert!(fill.is_err(), "the disk is full now");
    fs::write(&gate, "").unwrap();
    assert_eq!(within(container.ended()).await.exit_code, Some(31));
    assert!(
        matches!(f.driver.adopt(small.path().join("c")).await.unwrap(), Adopted::Ended(e) if e.exit_code == Some(31))
    );
}

#[tokio::test]
async fn volumes_are_seen_at_their_mount_paths_by_the_container_alone() {
    if !is_root() {
        return;
    }
    let f = Fixture::new();
    let (volume, config) = (f.path("volume"), f.path("app.conf"));
    fs::create_dir(&volume).unwrap();
    fs::write(&config, "setting\n").unwrap();
    let target = f.path("host/not/there");
    let mut spec = sh(&format!(
        "cat {t}/etc/app.conf; echo data > {t}/file; echo x > {t}/etc/app.conf || echo read-only; exec sleep 1000",
        t = target.display()
    ));
    spec.mounts = vec![
        BindMount {
            source: volume.clone(),
            target: target.clone(),
            read_only: false,
        },
        BindMount {
            source: config,
            target: target.join("etc/app.conf"),
            read_only: true,
        },
    ];
    spec.mount_registry = f.path("registry");
    let container = f.start("c", spec).await.unwrap();
    if container
        .record()
        .degraded
        .iter()
        .any(|d| d.what == "mounts")
    {
        return; // Root without the right to mount.
    }
    eventually("it has written", || f.log("c").contains("read-only")).await;
    assert!(f.log("c").starts_with("setting\n"));
    assert_eq!(fs::read_to_string(volume.join("file")).unwrap(), "data\n");
    assert!(
        target.is_dir() && !target.join("file").exists(),
        "the host sees an empty directory"
    );

    let seen = container
        .exec(ExecRequest {
            argv: vec!["cat".into(), target.join("file").to_str().unwrap().into()],
            timeout: Duration::from_secs(20),
        })
        .await
        .unwrap();
    assert_eq!((seen.exit_code, seen.output.as_str()), (0, "data\n"));
    container.kill();
    within(container.ended()).await;
    assert!(
        !f.path("host").exists(),
        "what was made for the mount is removed"
    );
}

#[tokio::test]
async fn another_user_has_its_ids_and_can_open_its_output() {
    if !is_root() {
        return;
    }
    let f = Fixture::new();
    let mut spec =
        sh("id -u; id -g; id -G; echo reopened > /dev/stdout; grep NoNewPrivs /proc/self/status");
    (spec.uid, spec.gid, spec.groups, spec.no_new_privileges) =
        (Some(65533), Some(65532), vec![3000, 3001], true);
    let container = f.start("c", spec).await.unwrap();
    assert_eq!(
        within(container.ended()).await.exit_code,
        Some(0),
        "{}",
        f.log("c")
    );
    assert_eq!(
        f.log("c"),
        "65533\n65532\n65532 3000 3001\nreopened\nNoNewPrivs:\t1\n"
    );
}

#[tokio::test]
async fn the_environment_is_exactly_what_was_asked_for() {
    let f = Fixture::new();
    let mut spec = ContainerSpec {
        argv: vec!["env".into()],
        search_path: "/usr/bin:/bin".into(),
        ..ContainerSpec::default()
    };
    spec.env = vec![
        ("B".into(), "2".into()),
        ("A".into(), "with = and\nnewline".into()),
    ];
    let container = f.start("c", spec).await.unwrap();
    within(container.ended()).await;
    assert_eq!(f.log("c"), "B=2\nA=with = and\nnewline\n");
}

#[tokio::test]
async fn a_container_has_the_limit_on_open_files_that_it_is_given() {
    let f = Fixture::new();
    let mut spec = sh("ulimit -Sn");
    spec.open_files = Some(77);
    let container = f.start("c", spec).await.unwrap();
    within(container.ended()).await;
    assert_eq!(f.log("c"), "77\n");
}

#[tokio::test]
async fn exec_has_an_exit_code_a_limit_of_time_and_leaves_nothing() {
    let f = Fixture::new();
    let container = f
        .start(
            "c",
            ContainerSpec {
                env: vec![
                    ("COLOUR".into(), "blue".into()),
                    ("PATH".into(), "/usr/bin:/bin".into()),
                ],
                ..sh("exec sleep 1000")
            },
        )
        .await
        .unwrap();
    let exec = |script: &str, ms| {
        let request = ExecRequest {
            argv: vec!["sh".into(), "-c".into(), script.into()],
            timeout: Duration::from_millis(ms),
        };
        let container = container.clone();
        async move { container.exec(request).await }
    };
    let out = exec("echo $COLOUR; echo err >&2; exit 4", 20_000)
        .await
        .unwrap();
    assert_eq!((out.exit_code, out.output.as_str()), (4, "blue\nerr\n"));
    let marker = f.path("exec.pid");
    let script = format!("sleep 1000 & echo $! > {}; wait", marker.display());
    let mut left: Option<i32> = None;
    // On a busy machine the time may be over before the shell has got so far.
    for limit in [400, 2_000, 20_000] {
        let hanging = exec(&script, limit).await;
        assert!(
            matches!(hanging, Err(DriverError::Timeout(_))),
            "{hanging:?}"
        );
        left = fs::read_to_string(&marker)
            .ok()
            .and_then(|pid| pid.trim().parse().ok());
        if left.is_some() {
            break;
        }
    }
    let pid = left.expect("its process id");
    eventually("nothing is left", || !alive(pid)).await;
    let missing = container
        .exec(ExecRequest {
            argv: vec!["no-such-program".into()],
            timeout: Duration::from_secs(20),
        })
        .await;
    assert!(
        matches!(&missing, Err(DriverError::Start(e)) if e.message.contains("not found")),
        "{missing:?}"
    );
}

#[tokio::test]
async fn usage_is_told_while_it_runs() {
    let f = Fixture::new();
    let container = f
        .start(
            "c",
            sh("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo done; exec sleep 1000"),
        )
        .await
        .unwrap();
    eventually("it has worked", || f.log("c").contains("done")).await;
    let usage = container.usage();
    assert!(
        usage.cpu_nanos.is_some_and(|n| n > 0) && usage.memory_bytes.is_some_and(|n| n > 0),
        "{usage:?}"
    );
}

#[tokio::test]
async fn removal_leaves_no_directory_and_no_control_group() {
    let f = Fixture::new();
    let container = f.start("c", sh("true")).await.unwrap();
    within(container.ended()).await;
    f.driver.remove(f.dir("c")).await.unwrap();
    assert!(!f.dir("c").exists());
    assert_eq!(f.control_groups(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn without_root_it_runs_and_says_what_could_not_be_applied() {
    if !is_root() || !Path::new("/usr/bin/setpriv").exists() {
        return; // As another user than root every test here is this one.
    }
    let f = Fixture::without_cgroups();
    let program = f.path("shim");
    // By another process: a child that this one starts while a copy of its own is open could keep it open for writing,
    // and what is open for writing cannot be run.
    let copied = std::process::Command::new("cp")
        .args([
            env!("CARGO_BIN_EXE_setpoint-shim").as_ref(),
            program.as_os_str(),
        ])
        .status();
    assert!(copied.unwrap().success());
    crate::support::open_to_all(f.path("").as_path());
    let driver = f.driver_with(&[
        "/usr/bin/setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        program.to_str().unwrap(),
    ]);
    let mut spec = sh("id -u; exit 6");
    spec.mounts = vec![BindMount {
        source: "/tmp".into(),
        target: "/nonexistent-mount".into(),
        read_only: false,
    }];
    let request = f.request("c", spec, Limits::default());
    fs::create_dir_all(&request.dir).unwrap();
    fs::create_dir_all(f.log_path("c").parent().unwrap()).unwrap();
    crate::support::open_to_all(f.path("").as_path());
    let container = driver.start(request).await.unwrap();
    assert_eq!(container.record().degraded[0].what, "mounts");
    assert_eq!(within(container.ended()).await.exit_code, Some(6));
    assert_eq!(f.log("c"), "65534\n");
}

#[tokio::test]
async fn starting_takes_milliseconds() {
    // Not a benchmark: a build without optimisation on a busy machine. It catches a sleep or a lock in the path, which
    // would hold up every start.
    let f = Fixture::new();
    let quick = Duration::from_millis(250);
    let mut best = Duration::MAX;
    let (tried_since, mut tries) = (Instant::now(), 0);
    while best >= quick && tried_since.elapsed() < Duration::from_secs(60) {
        tries += 1;
        let name = format!("c{tries}");
        let request = f.request(
            &name,
            sh("exec sleep 1000"),
            Limits {
                memory_limit_bytes: Some(64 << 20),
                ..Limits::default()
            },
        );
        let begun = Instant::now();
        let container = f.driver.start(request).await.unwrap();
        best = best.min(begun.elapsed());
        container.kill();
        within(container.ended()).await;
    }
    assert!(best < quick, "{best:?} at best of {tries}");
}

async fn eventually_some<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    eventually(what, || {
        found = probe();
        found.is_some()
    })
    .await;
    found.unwrap()
}

#[tokio::test]
async fn a_supervisor_that_hangs_is_killed_and_said_so_and_the_next_try_may_begin() {
    let f = Fixture::new();
    let limit = Duration::from_millis(200);
    let hangs = f.driver_with(&["/bin/sh", "-c", "exec sleep 1000", "shim"]);
    let hangs = hangs.with_start_limit(limit);
    let request = f.request("c", sh("exit 6"), Limits::default());
    let dir = request.dir.clone();
    let error = within(hangs.start(request)).await.unwrap_err();
    assert!(matches!(error, DriverError::Hung(_)), "{error}");
    assert!(matches!(
        within(hangs.adopt(dir.clone())).await,
        Ok(Adopted::Ended(_))
    ));
    within(hangs.remove(dir)).await.unwrap();
    let container = f.start("c", sh("exit 6")).await.unwrap();
    assert_eq!(within(container.ended()).await.exit_code, Some(6));
}

#[tokio::test]
async fn a_supervisor_that_hung_when_the_agent_died_does_not_hold_up_the_next_agent() {
    let f = Fixture::new();
    let limit = Duration::from_millis(200);
    let hangs = f.driver_with(&["/bin/sh", "-c", ": > \"$1/hangs\"; exec sleep 1000", "shim"]);
    let request = f.request("c", sh("exit 6"), Limits::default());
    let dir = request.dir.clone();
    let begun = dir.join("hangs");
    // The agent dies while it waits.
    tokio::select! {
        started = hangs.start(request) => panic!("it did not hang: {:?}", started.err()),
        () = eventually("the supervisor hangs", || begun.exists()) => {}
    }
    let next = f.another_driver().with_start_limit(limit);
    assert!(matches!(
        within(next.adopt(dir.clone())).await,
        Ok(Adopted::NotStarted)
    ));
    within(next.remove(dir)).await.unwrap();
    let container = f.start("c", sh("exit 6")).await.unwrap();
    assert_eq!(within(container.ended()).await.exit_code, Some(6));
}

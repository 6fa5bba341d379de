//! The etcd of a development cluster: found on this machine and started on loopback with a data directory of its own.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::child::Managed;

/// The Go module that builds the pinned etcd, as `hack/etcd` has it: so that the program alone can set one up.
const MODULE: [(&str, &str); 3] = [
    ("go.mod", include_str!("../../../hack/etcd/go.mod")),
    ("go.sum", include_str!("../../../hack/etcd/go.sum")),
    (
        "cmd/etcd/main.go",
        include_str!("../../../hack/etcd/cmd/etcd/main.go"),
    ),
];

/// Finds an etcd: the one asked for, `SETPOINT_ETCD`, one on PATH, one that was built into the cache directory. Where
/// there is none and Go is present, one is built from its published modules.
pub(crate) async fn find_or_build(asked: Option<&Path>) -> Result<PathBuf> {
    match find(asked)? {
        Some(path) => Ok(path),
        None => build().await,
    }
}

/// As [`find_or_build`], without building.
pub(crate) fn find(asked: Option<&Path>) -> Result<Option<PathBuf>> {
    if let Some(path) = asked {
        if path.is_file() {
            return Ok(Some(path.into()));
        }
        bail!("--etcd-bin names {}, which is not a file", path.display());
    }
    if let Some(path) = std::env::var_os("SETPOINT_ETCD").map(PathBuf::from) {
        if path.is_file() {
            return Ok(Some(path));
        }
        bail!(
            "SETPOINT_ETCD names {}, which is not a file",
            path.display()
        );
    }
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|p| std::env::split_paths(&p).collect::<Vec<_>>())
        .map(|dir| dir.join("etcd"))
        .find(|p| p.is_file());
    Ok(on_path.or_else(newest_built))
}

async fn build() -> Result<PathBuf> {
    let version = MODULE[0]
        .1
        .lines()
        .find_map(|l| l.trim().strip_prefix("go.etcd.io/etcd/server/v3 v"))
        .context("hack/etcd/go.mod names no version of etcd")?;
    let cache = cache_dir();
    let help = format!(
        "install one (`apt-get install etcd-server`), name one with --etcd-bin, or use a running one with --etcd ENDPOINT \
         (looked on PATH and in {})",
        cache.display()
    );
    std::fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    let work = tempfile::Builder::new()
        .prefix(".build.")
        .tempdir_in(&cache)
        .context("making room to build etcd")?;
    for (file, text) in MODULE {
        let path = work.path().join("module").join(file);
        std::fs::create_dir_all(path.parent().unwrap_or(work.path()))
            .context("writing the module that builds etcd")?;
        std::fs::write(&path, text).context("writing the module that builds etcd")?;
    }
    let mut out = std::io::stderr();
    writeln!(
        out,
        "setpoint dev: no etcd found; building etcd {version} from its published Go modules (a minute or two, once)"
    )?;
    let built = work.path().join("bin");
    let output = Command::new("go")
        .args(["build", "-trimpath", "-ldflags=-s -w", "-o"])
        .arg(built.join("etcd"))
        .arg("./cmd/etcd")
        .current_dir(work.path().join("module"))
        .envs([
            ("GOTOOLCHAIN", "local"),
            ("GOFLAGS", "-mod=readonly"),
            ("CGO_ENABLED", "0"),
        ])
        .kill_on_drop(true)
        .output()
        .await;
    match output {
        Err(error) => bail!("no etcd found, and none can be built (go: {error}): {help}"),
        Ok(output) if !output.status.success() => {
            bail!(
                "no etcd found, and building one failed:\n{}\n{help}",
                String::from_utf8_lossy(&output.stderr).trim_end()
            )
        }
        Ok(_) => {}
    }
    let target = cache.join(version);
    // Where somebody else has built it meanwhile, theirs stays.
    if let Err(error) = std::fs::rename(&built, &target)
        && !target.join("etcd").is_file()
    {
        return Err(error).with_context(|| format!("moving the build to {}", target.display()));
    }
    Ok(target.join("etcd"))
}

fn cache_dir() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|h| Path::new(&h).join(".cache")))
        .unwrap_or_else(std::env::temp_dir);
    base.join("setpoint").join("etcd")
}

/// `scripts/etcd.sh` builds into `<cache>/<version>/etcd`.
fn newest_built() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = std::fs::read_dir(cache_dir())
        .ok()?
        .filter_map(|e| Some(e.ok()?.path()))
        .collect();
    versions.sort();
    versions
        .into_iter()
        .rev()
        .map(|v| v.join("etcd"))
        .find(|p| p.is_file())
}

/// Starts `binary` on loopback. The client port is `port`, or a free one when that is taken. Returns its endpoint.
pub(crate) async fn start(
    binary: &Path,
    data: &Path,
    logs: &Path,
    port: u16,
) -> Result<(Managed, String)> {
    let (client, peer) = (free_port(port)?, free_port(0)?);
    let endpoint = format!("http://127.0.0.1:{client}");
    let peer_url = format!("http://127.0.0.1:{peer}");
    let mut command = Command::new(binary);
    command
        .arg("--name=dev")
        .arg(format!("--data-dir={}", data.display()))
        .arg(format!("--listen-client-urls={endpoint}"))
        .arg(format!("--advertise-client-urls={endpoint}"))
        .arg(format!("--listen-peer-urls={peer_url}"))
        .arg(format!("--initial-advertise-peer-urls={peer_url}"))
        .arg(format!("--initial-cluster=dev={peer_url}"))
        // History stays for an hour, so that `get --at` works and memory does not grow without end.
        .arg("--auto-compaction-mode=periodic")
        .arg("--auto-compaction-retention=1h")
        .arg("--log-level=warn")
        .stdout(Stdio::null());
    for (name, _) in std::env::vars_os() {
        // etcd takes every flag from the environment as well; those of the user's shell are not meant for this one.
        if name.to_string_lossy().starts_with("ETCD_") {
            command.env_remove(name);
        }
    }
    Ok((Managed::start("etcd", command, logs)?, endpoint))
}

/// A port nobody listens on: `wanted` when it is free. Another process may take it before the store does; then the store
/// ends, and its log says so.
pub(crate) fn free_port(wanted: u16) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .context("finding a free port on loopback")?;
    Ok(listener
        .local_addr()
        .context("reading a listener's address")?
        .port())
}

//! Where a development cluster keeps its state: an etcd of its own where there is one, else the development store that
//! this program is, too.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use tokio::process::Command;

use super::DevArgs;
use super::child::Managed;
use super::etcd;

/// What `--store` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreKind {
    /// The development store of this program
    Builtin,
    /// An etcd; one is built where there is none, if Go is present
    Etcd,
}

/// The process that keeps a cluster's state.
pub(crate) struct StoreProcess {
    pub(crate) kind: StoreKind,
    pub(crate) process: Managed,
    pub(crate) endpoint: String,
}

/// Starts the store that the flags and the data directory ask for.
///
/// # Errors
/// When it cannot be found or started, or the directory holds the data of another kind of store.
pub(crate) async fn start(args: &DevArgs, dir: &Path, logs: &Path) -> Result<StoreProcess> {
    let (etcd_data, builtin_data) = (dir.join("etcd"), dir.join("devstore"));
    let kind = match args.store {
        Some(kind) => kind,
        None => {
            let found = Found {
                etcd: etcd::find(args.etcd_bin.as_deref())?.is_some(),
                etcd_data: etcd_data.is_dir(),
                builtin_data: builtin_data.is_dir(),
            };
            match choose(&found, args.etcd_bin.is_some()) {
                Some(kind) => kind,
                None => bail!(
                    "{} holds the data of an etcd, and there is no etcd here: install one (`apt-get install etcd-server`), name \
                     one with --etcd-bin, or begin a new cluster in the development store with --store builtin",
                    etcd_data.display()
                ),
            }
        }
    };
    let (process, endpoint) = match kind {
        StoreKind::Etcd => {
            let binary = etcd::find_or_build(args.etcd_bin.as_deref()).await?;
            etcd::start(&binary, &etcd_data, logs, args.etcd_port).await?
        }
        StoreKind::Builtin => {
            let program = std::env::current_exe().context("finding the setpoint program")?;
            builtin(program, &builtin_data, logs, args.etcd_port)?
        }
    };
    Ok(StoreProcess {
        kind,
        process,
        endpoint,
    })
}

/// What there is on this machine and in the data directory.
struct Found {
    etcd: bool,
    etcd_data: bool,
    builtin_data: bool,
}

/// Which store to start when nobody says; `None` when the data is of one that is not here.
fn choose(found: &Found, etcd_named: bool) -> Option<StoreKind> {
    if etcd_named {
        return Some(StoreKind::Etcd);
    }
    match (found.etcd_data, found.builtin_data) {
        // A cluster that was begun in one store goes on in it.
        (false, true) => Some(StoreKind::Builtin),
        _ if found.etcd => Some(StoreKind::Etcd),
        (true, false) => None,
        _ => Some(StoreKind::Builtin),
    }
}

fn builtin(program: PathBuf, data: &Path, logs: &Path, port: u16) -> Result<(Managed, String)> {
    let address = format!("127.0.0.1:{}", etcd::free_port(port)?);
    let mut command = Command::new(program);
    command
        .args(["devstore", "--listen", &address])
        .arg("--data-dir")
        .arg(data);
    let process = Managed::start("devstore", command, logs)?;
    Ok((process, format!("http://{address}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_the_one_that_has_the_data_else_etcd_else_the_builtin() {
        let choice = |etcd, etcd_data, builtin_data| {
            let found = Found {
                etcd,
                etcd_data,
                builtin_data,
            };
            choose(&found, false)
        };
        assert_eq!(choice(true, false, false), Some(StoreKind::Etcd));
        assert_eq!(choice(false, false, false), Some(StoreKind::Builtin));
        assert_eq!(choice(true, false, true), Some(StoreKind::Builtin));
        assert_eq!(choice(true, true, true), Some(StoreKind::Etcd));
        assert_eq!(choice(false, true, true), Some(StoreKind::Builtin));
        assert_eq!(choice(false, true, false), None);
        let found = Found {
            etcd: true,
            etcd_data: false,
            builtin_data: true,
        };
        assert_eq!(choose(&found, true), Some(StoreKind::Etcd));
    }
}

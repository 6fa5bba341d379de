//! `setpoint devstore`: a server of etcd's API for development, with nothing to install.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use setpoint_store::devstore::{DevStore, Options, Recovery};
use tokio::net::TcpListener;

/// Flags of `setpoint devstore`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DevStoreArgs {
    /// Where the log of all changes is kept. Without it everything is gone when the process ends
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where etcd's API is served; port 0 takes a free one
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 2379)), value_name = "IP:PORT")]
    pub(crate) listen: SocketAddr,
    /// Listen beyond loopback as well: whoever reaches the port may read and write everything
    #[arg(long)]
    pub(crate) listen_anywhere: bool,
    /// Begin an empty data directory with a snapshot that `etcdctl snapshot save` took of a development store
    #[arg(long, value_name = "FILE", requires = "data_dir")]
    pub(crate) restore: Option<PathBuf>,
    /// End a log that is damaged in the middle there, instead of refusing it; what is cut off is kept in a file
    #[arg(long, requires = "data_dir")]
    pub(crate) truncate_damaged_log: bool,
    /// Bytes of data from which on writes are refused
    #[arg(long, default_value_t = 2 << 30, value_name = "BYTES", value_parser = clap::value_parser!(i64).range(1 << 20..))]
    pub(crate) quota_bytes: i64,
    /// History older than this is compacted; 0 keeps all of it
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = crate::commands::duration)]
    pub(crate) retention: Duration,
}

/// Serves until Ctrl-C.
pub(crate) async fn run(args: DevStoreArgs) -> Result<()> {
    if !args.listen.ip().is_loopback() && !args.listen_anywhere {
        bail!(
            "the development store has no users and no TLS, so it listens on loopback only, and {} is not. Use etcd; or, \
             where everybody who reaches that port may read and write everything, add --listen-anywhere",
            args.listen
        );
    }
    let mut options = Options {
        directory: args.data_dir,
        restore: args.restore,
        truncate_damaged_log: args.truncate_damaged_log,
        retention: (!args.retention.is_zero()).then_some(args.retention),
        ..Options::default()
    };
    options.model.quota_bytes = args.quota_bytes;
    // Before the log is read: no use in that when somebody else has the port.
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("listening on {}", args.listen))?;
    let address = listener
        .local_addr()
        .context("reading the listener's address")?;
    let store = DevStore::open(options).context("opening the development store")?;

    let mut out = std::io::stdout();
    let place = store.directory().map_or_else(
        || "in memory only".to_owned(),
        |directory| format!("data in {}", directory.display()),
    );
    report(&mut out, store.recovery())?;
    writeln!(
        out,
        "development store: etcd's API on http://{address}, {place}"
    )?;
    writeln!(
        out,
        "development store: for development and tests; use etcd for anything you would miss"
    )?;
    out.flush()?;
    store
        .serve(listener, crate::signals::interrupted())
        .await
        .context("serving the development store")
}

fn report(out: &mut impl std::io::Write, recovery: Recovery) -> std::io::Result<()> {
    if recovery.records > 0 || recovery.revision > 1 {
        writeln!(
            out,
            "development store: recovered revision {} ({} changes from the log)",
            recovery.revision, recovery.records
        )?;
    }
    if let Some(dropped) = recovery.dropped {
        writeln!(
            out,
            "development store: dropped the last {} bytes of the log, from byte {} on, with {} whole records: a write that a \
             crash had interrupted, or damage",
            dropped.bytes, dropped.offset, dropped.records
        )?;
    }
    Ok(())
}

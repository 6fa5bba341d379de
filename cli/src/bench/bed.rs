//! What a benchmark of the store works on: an etcd, and a prefix that nobody else uses.

use std::path::Path;

use anyhow::{Context, Result};
use setpoint_apis::Keyspace;
use setpoint_store::{SharedStore, Txn, TxnOp};

use crate::dev::{Managed, StoreKind, StoreProcess, connect, etcd, start_store};

/// An etcd of its own, which ends with the benchmark, or one that runs already.
pub(super) struct Bed {
    pub(super) store: SharedStore,
    pub(super) endpoint: String,
    pub(super) keyspace: Keyspace,
    own: Option<Managed>,
    directory: tempfile::TempDir,
}

impl Bed {
    /// Connects to `etcd`; starts one where there is none.
    pub(super) async fn make(etcd: Option<&str>) -> Result<Self> {
        let keyspace = Keyspace::new(&format!("/setpoint-bench-{}", std::process::id()))?;
        let directory = tempfile::Builder::new()
            .prefix("setpoint-bench-")
            .tempdir()
            .context("creating a temporary directory")?;
        let (own, endpoint, store) = match etcd {
            Some(endpoint) => (None, endpoint.to_owned(), connect(endpoint, None).await?),
            None => {
                let binary = etcd::find_or_build(None).await?;
                let path = directory.path();
                let start = async || {
                    let (process, endpoint) =
                        etcd::start(&binary, &path.join("etcd"), path, 0).await?;
                    Ok(StoreProcess {
                        kind: StoreKind::Etcd,
                        process,
                        endpoint,
                    })
                };
                let (started, store) = start_store(start).await?;
                (Some(started.process), started.endpoint, store)
            }
        };
        Ok(Self {
            store,
            endpoint,
            keyspace,
            own,
            directory,
        })
    }

    /// The process of an etcd that was started.
    pub(super) fn own_pid(&self) -> Option<u32> {
        self.own.as_ref().map(Managed::pid)
    }

    /// A directory that is gone when the benchmark ends.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Removes what was written.
    pub(super) async fn wipe(&self) -> Result<()> {
        let all = self.keyspace.all();
        let wipe = Txn {
            then: vec![TxnOp::DeleteRange {
                start: all.start,
                end: all.end,
            }],
            ..Txn::new()
        };
        self.store
            .txn(wipe)
            .await
            .context("removing the benchmark's keys")?;
        Ok(())
    }

    /// Ends the etcd that was started, or removes the keys from the one that goes on.
    pub(super) async fn end(mut self) -> Result<()> {
        match &mut self.own {
            Some(etcd) => {
                // It is waited for, so that its directory can go.
                etcd.kill().await;
                Ok(())
            }
            None => self.wipe().await,
        }
    }
}

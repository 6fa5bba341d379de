//! What every command needs: where its output goes, which namespace is meant, and a connection when it asks for one.

use anyhow::{Result, bail};
use setpoint_apis::time::Timestamp;
use setpoint_runtime::Clock;
use setpoint_store::config;

use crate::args::GlobalArgs;
use crate::client::Client;
use crate::connect::{self, Connected};
use crate::resolve::check_namespace;
use crate::term::{self, Out};

/// The namespace where none is given.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// What every command needs.
pub(crate) struct Context {
    /// Standard output.
    pub(crate) out: Out,
    global: GlobalArgs,
    clock: Clock,
}

impl Context {
    /// The context of one run of the program.
    pub(crate) fn new(global: GlobalArgs) -> Self {
        Self {
            out: Out::stdout(),
            global,
            clock: Clock::system(),
        }
    }

    /// The flags that every command takes.
    pub(crate) fn global(&self) -> &GlobalArgs {
        &self.global
    }

    /// The time now.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Connects to etcd.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn connect(&self) -> Result<Connected> {
        let connected = connect::connect(&self.global.flags(), self.global.request_timeout).await?;
        // An old version is no news at every command; an alarm is.
        if let Some(holes) = connected
            .health
            .holes
            .as_ref()
            .filter(|_| self.global.verbose > 0)
        {
            term::warn(holes);
        }
        connected.health.warnings.iter().for_each(term::warn);
        Ok(connected)
    }

    /// Connects to etcd and gives a client.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn client(&self) -> Result<Client> {
        let Connected {
            store, keyspace, ..
        } = self.connect().await?;
        crate::init::check_layout(&store, &keyspace).await?;
        Ok(Client::new(store, keyspace))
    }

    /// The namespace that is meant where an object says none.
    ///
    /// # Errors
    /// When it cannot be one's name.
    pub(crate) fn namespace(&self) -> Result<String> {
        let of_context = match &self.global.namespace {
            Some(_) => None,
            None => config::load(&self.global.flags())?.namespace,
        };
        let given = self.global.namespace.as_deref().or(of_context.as_deref());
        let name = given.unwrap_or(DEFAULT_NAMESPACE);
        if name.is_empty() {
            bail!("--namespace is empty");
        }
        check_namespace(name)?;
        Ok(name.to_owned())
    }

    /// The namespace that was asked for by flag or environment.
    pub(crate) fn given_namespace(&self) -> Option<&str> {
        self.global.namespace.as_deref()
    }
}

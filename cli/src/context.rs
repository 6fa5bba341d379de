//! What every command needs: where its output goes, which namespace is meant, and a connection when it asks for one.

use anyhow::{Result, bail};
use setpoint_apis::strict::Document;
use setpoint_apis::time::Timestamp;
use setpoint_runtime::Clock;
use setpoint_store::config;
use setpoint_store::etcd::version::distrust;

use crate::args::GlobalArgs;
use crate::client::Client;
use crate::connect::{self, Connected};
use crate::kinds::KindInfo;
use crate::manifest;
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

    /// Connects to etcd and gives a client to write documents with. Warns when one of them is about a pod that must never run
    /// twice, and etcd is not to be relied on for that.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub(crate) async fn client_to_write(&self, documents: &[Document]) -> Result<Client> {
        let Connected {
            store,
            keyspace,
            health,
            ..
        } = self.connect().await?;
        crate::init::check_layout(&store, &keyspace).await?;
        let single = documents.iter().find(|d| manifest::never_twice(&d.value));
        if let Some(single) = single {
            // A member that does not tell is judged by the agents, when they are to start the pod.
            let versions = store.versions().await;
            let versions = versions.unwrap_or_else(|_| vec![health.status.version]);
            if let Some(why) = distrust(&versions) {
                term::warn(format_args!(
                    "{} has the partition policy stop, and no node will start its pods on this etcd: {why}",
                    KindInfo::from(&single.kind).full_name(&single.key.name)
                ));
            }
        }
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

//! The command line: every command with its flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, Parser, Subcommand};
use setpoint_store::config::Flags;

use crate::commands;

/// Runs containers and processes on a fleet of machines, with etcd as the only shared state
#[derive(Parser, Clone, Debug)]
#[command(
    name = "setpoint",
    version,
    max_term_width = 100,
    propagate_version = true
)]
#[command(
    after_help = "Kubernetes manifests are applied as they are: `setpoint apply -f FILE`. A cluster to try: `setpoint dev`."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub(crate) struct GlobalArgs {
    /// The configuration file [env: SETPOINT_CONFIG] [default: ~/.config/setpoint/config.yaml]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(crate) config: Option<PathBuf>,
    /// The context of the configuration file to use [env: SETPOINT_CONTEXT]
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub(crate) context: Option<String>,
    /// etcd's endpoints [env: SETPOINT_ENDPOINTS] [default: http://127.0.0.1:2379]
    #[arg(long, global = true, value_name = "URL,...", hide_short_help = true)]
    pub(crate) endpoints: Vec<String>,
    /// The prefix of all keys [env: SETPOINT_PREFIX] [default: /setpoint]
    #[arg(long, global = true, value_name = "PREFIX", hide_short_help = true)]
    pub(crate) key_prefix: Option<String>,
    /// The CA certificate of etcd [env: SETPOINT_CACERT]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(crate) cacert: Option<PathBuf>,
    /// The client certificate [env: SETPOINT_CERT]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(crate) cert: Option<PathBuf>,
    /// The key of the client certificate [env: SETPOINT_KEY]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(crate) key: Option<PathBuf>,
    /// The user [env: SETPOINT_USER]
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub(crate) user: Option<String>,
    /// A file with the user's password [env: SETPOINT_PASSWORD holds the password itself]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(crate) password_file: Option<PathBuf>,
    /// The namespace
    #[arg(
        short,
        long,
        global = true,
        env = "SETPOINT_NAMESPACE",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub(crate) namespace: Option<String>,
    /// Give up on a request to etcd after so long; 0 is the default of a few seconds
    #[arg(long, global = true, value_name = "DURATION", value_parser = commands::duration, hide_short_help = true)]
    pub(crate) request_timeout: Option<Duration>,
    /// Say more of what is done; twice for details
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The command line as it is read: every flag that is on or off also takes `=true` and `=false`, as kubectl's do.
pub(crate) fn command() -> clap::Command {
    switches_with_values(<Cli as clap::CommandFactory>::command())
}

fn switches_with_values(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| match arg.get_action() {
            ArgAction::SetTrue => arg
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_value("false")
                .default_missing_value("true")
                .value_parser(BoolishValueParser::new())
                .value_name("BOOL")
                .hide_default_value(true)
                .hide_possible_values(true),
            _ => arg,
        })
        .mut_subcommands(switches_with_values)
}

impl GlobalArgs {
    /// The flags that say where etcd is.
    pub(crate) fn flags(&self) -> Flags {
        Flags {
            config: self.config.clone(),
            context: self.context.clone(),
            endpoints: self.endpoints.clone(),
            prefix: self.key_prefix.clone(),
            cacert: self.cacert.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            user: self.user.clone(),
            password_file: self.password_file.clone(),
        }
    }
}

/// The commands.
///
/// Parts of a cluster (`dev`, `devstore`, `controllers`, `agent`, `bench`) end by themselves and bring a runtime of many
/// threads; everything else is a client, see [`Command::is_client`].
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Command {
    /// Create or change what manifests describe, all of it or nothing
    Apply(commands::apply::ApplyArgs),
    /// Create what manifests describe; what exists already is an error
    Create(commands::create::CreateArgs),
    /// Show objects
    Get(commands::get::GetArgs),
    /// Show everything about objects, with their events
    Describe(commands::describe::DescribeArgs),
    /// Explain why a pod waits, or why it is where it is
    Why(commands::why::WhyArgs),
    /// Delete objects
    #[command(alias = "rm")]
    Delete(commands::delete::DeleteArgs),
    /// Show what containers write
    #[command(alias = "log")]
    Logs(commands::logs::LogsArgs),
    /// Change a document in an editor
    Edit(commands::edit::EditArgs),
    /// Change the number of replicas
    Scale(commands::scale::ScaleArgs),
    /// Follow, restart or show rollouts
    Rollout(commands::rollout::RolloutArgs),
    /// Wait until objects are as told
    Wait(commands::wait::WaitArgs),
    /// Change labels
    Label(commands::label::LabelArgs),
    /// Change annotations
    Annotate(commands::label::LabelArgs),
    /// Start a pod on another node, and stop it where it is once it is ready there
    Move(commands::displace::MoveArgs),
    /// Stop pods where they are and place them again, within disruption budgets
    Evict(commands::evict::EvictArgs),
    /// Cordon nodes, and evict the pods there, within disruption budgets
    Drain(commands::drain::DrainArgs),
    /// Keep new pods away from nodes
    Cordon(commands::cordon::CordonArgs),
    /// Let new pods onto nodes again
    Uncordon(commands::cordon::CordonArgs),
    /// Check manifests without a cluster
    Validate(commands::validate::ValidateArgs),
    /// Print JSON Schemas
    Schema(commands::schema::SchemaArgs),
    /// Run a whole cluster on virtual time, with faults; `simulate schedule`: where pods would go
    Simulate(commands::simulate::SimulateArgs),
    /// Explain fields
    Explain(commands::schema::ExplainArgs),
    /// List the kinds of objects
    #[command(name = "api-resources")]
    ApiResources(commands::api_resources::ApiResourcesArgs),
    /// Prepare a keyspace in etcd
    Init(commands::init::InitArgs),
    /// Show and choose contexts of the configuration file
    Config(commands::config::ConfigArgs),
    /// Run a whole cluster in the foreground: a store, controllers, agents
    Dev(crate::dev::DevArgs),
    /// Run the development store: a server of etcd's API with nothing to install
    Devstore(crate::devstore::DevStoreArgs),
    /// Run the agent of this machine
    Agent(Box<crate::agent::AgentArgs>),
    /// Run the controllers, or some of them
    Controllers(crate::controllers::ControllersArgs),
    /// Measure a cluster on this machine
    Bench(crate::bench::BenchArgs),
    /// Print versions
    Version(commands::version::VersionArgs),
    /// Print a completion script
    Completion(commands::completion::CompletionArgs),
}

impl Command {
    /// Whether it sees to it itself what Ctrl-C leaves behind.
    pub(crate) fn minds_interrupts(&self) -> bool {
        matches!(self, Self::Drain(_))
    }

    /// Whether it is a client: one thread, ended by Ctrl-C at any time.
    pub(crate) fn is_client(&self) -> bool {
        !matches!(
            self,
            Self::Dev(_)
                | Self::Devstore(_)
                | Self::Agent(_)
                | Self::Controllers(_)
                | Self::Bench(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_switch_takes_a_value_as_kubectls_do() {
        let logs = |args: &[&str]| {
            let words = ["setpoint", "logs", "p"].iter().chain(args);
            let matches = command().try_get_matches_from(words)?;
            let cli = Cli::from_arg_matches(&matches)?;
            Ok::<_, clap::Error>(format!("{:?}", cli.command))
        };
        for (args, expected) in [
            (&[][..], "prefix: false"),
            (&["--prefix"], "prefix: true"),
            (&["--prefix=true"], "prefix: true"),
            (&["--prefix=false"], "prefix: false"),
            (&["-f=false"], "follow: false"),
            (&["-fp"], "follow: true, previous: true"),
        ] {
            let parsed = logs(args).unwrap();
            assert!(parsed.contains(expected), "{args:?}: {parsed}");
        }
        assert!(logs(&["--prefix=maybe"]).is_err());
        for words in [
            ["setpoint", "get", "pods", "--all-namespaces=true"],
            ["setpoint", "get", "pods", "-Aw"],
            ["setpoint", "delete", "pod/p", "--wait=false"],
        ] {
            let matches = command().try_get_matches_from(words);
            assert!(matches.is_ok(), "{words:?}: {matches:?}");
        }
    }
}

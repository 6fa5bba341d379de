//! The commands, one module each.

pub(crate) mod api_resources;
pub(crate) mod apply;
mod budgets;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod cordon;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod displace;
pub(crate) mod drain;
pub(crate) mod edit;
pub(crate) mod evict;
pub(crate) mod get;
pub(crate) mod init;
pub(crate) mod label;
pub(crate) mod logs;
mod requests;
pub(crate) mod rollout;
pub(crate) mod scale;
pub(crate) mod schema;
pub(crate) mod simulate;
pub(crate) mod validate;
pub(crate) mod version;
pub(crate) mod wait;
pub(crate) mod why;

use std::process::ExitCode;

use anyhow::Result;
use setpoint_apis::Keyspace;

use crate::args::{Cli, Command};
use crate::context::Context;
use crate::parts;

/// Runs the command of a command line, and hands its output to the terminal also when it fails.
///
/// # Errors
/// What the command failed with, or that its output could not be written.
pub(crate) async fn run(cli: Cli) -> Result<ExitCode> {
    let mut context = Context::new(cli.global);
    let result = dispatch(cli.command, &mut context).await;
    let flushed = context.out.flush();
    let code = result?;
    flushed?;
    Ok(code)
}

async fn dispatch(command: Command, context: &mut Context) -> Result<ExitCode> {
    let done = match command {
        Command::Apply(args) => apply::run(args, context).await,
        Command::Create(args) => create::run(args, context).await,
        Command::Get(args) => get::run(args, context).await,
        Command::Describe(args) => describe::run(args, context).await,
        Command::Delete(args) => delete::run(args, context).await,
        Command::Logs(args) => logs::run(args, context).await,
        Command::Edit(args) => edit::run(args, context).await,
        Command::Scale(args) => scale::run(args, context).await,
        Command::Rollout(args) => rollout::run(args, context).await,
        Command::Wait(args) => wait::run(args, context).await,
        Command::Why(args) => why::run(args, context).await,
        Command::Label(args) => label::run(args, label::What::Labels, context).await,
        Command::Annotate(args) => label::run(args, label::What::Annotations, context).await,
        Command::Move(args) => displace::run_move(args, context).await,
        Command::Cordon(args) => cordon::run(args, true, context).await,
        Command::Uncordon(args) => cordon::run(args, false, context).await,
        Command::Validate(args) => validate::run(args, context).await,
        Command::Schema(args) => schema::run(args, context),
        Command::Explain(args) => schema::explain(args, context),
        Command::ApiResources(args) => api_resources::run(args, context).await,
        Command::Init(args) => init::run(args, context).await,
        Command::Config(args) => config::run(args, context),
        Command::Dev(mut args) => {
            if let Some(prefix) = &context.global().key_prefix {
                args.key_prefix = Keyspace::new(prefix)?;
            }
            crate::dev::run(args).await
        }
        Command::Devstore(args) => crate::devstore::run(args).await,
        Command::Bench(args) => crate::bench::run(args).await,
        Command::Agent(args) => {
            let part = parts::begin(context, args.holes).await?;
            let options = setpoint_store::config::load(&context.global().flags())?.options;
            if args.is_hollow() {
                let gate = part.gate.clone();
                return gate
                    .unless_refused(crate::agent::run_hollow(*args, options, part))
                    .await
                    .map(|()| ExitCode::SUCCESS);
            }
            let agent =
                crate::agent::run(*args, options.tls, part.store, part.keyspace, part.shutdown);
            part.gate.unless_refused(agent).await
        }
        Command::Controllers(args) => {
            let part = parts::begin(context, args.holes).await?;
            let run = crate::controllers::run(args, part.store, part.keyspace, part.shutdown);
            part.gate.unless_refused(run).await
        }
        Command::Version(args) => version::run(args, context).await,
        Command::Completion(args) => completion::run(args, context),
        // Their exit codes say more than whether it worked.
        Command::Evict(args) => return evict::run(args, context).await,
        Command::Drain(args) => return drain::run(args, context).await,
        Command::Simulate(args) => return simulate::run(args, context).await,
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// How something is to be tried without doing it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DryRun {
    /// Do it
    #[default]
    None,
    /// Write nothing; check the manifests, and say what would become of the objects
    Client,
    /// Write nothing; check as the writing would, namespaces and limits included
    Server,
}

impl DryRun {
    /// What is put behind a message.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }
}

/// Reads `30s`, `5m`, `1h30m`, or a number of seconds.
///
/// # Errors
/// When it is none of these.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    let bad = || format!("{text:?} is not a duration such as 30s, 5m or 1h30m");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(std::time::Duration::from_secs(seconds));
    }
    let (mut total, mut number) = (0.0, String::new());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_ascii_digit() || c == '.' {
            number.push(c);
            continue;
        }
        let unit = match c {
            'm' if chars.next_if_eq(&'s').is_some() => 0.001,
            's' => 1.0,
            'm' => 60.0,
            'h' => 3_600.0,
            'd' => 86_400.0,
            _ => return Err(bad()),
        };
        total += number.parse::<f64>().map_err(|_| bad())? * unit;
        number.clear();
    }
    if !number.is_empty() || text.is_empty() {
        return Err(bad());
    }
    std::time::Duration::try_from_secs_f64(total).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn durations_are_read_as_kubectl_reads_them() {
        for (text, millis) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("90", 90_000),
            ("1.5s", 1_500),
            ("250ms", 250),
            ("0", 0),
            ("2d", 172_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "s", "5x", "-1s", "5m3", "1.2.3s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}

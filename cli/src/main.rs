//! The `setpoint` program: commands of a client, and the parts of a cluster as subcommands.

mod agent;
mod args;
mod autoscaled;
mod bench;
mod client;
mod commands;
mod connect;
mod context;
mod controllers;
mod dev;
mod devstore;
mod gate;
mod init;
mod kinds;
mod manifest;
mod object;
mod parts;
mod planning;
mod printers;
mod random;
mod resolve;
mod select;
mod signals;
mod term;
mod write;
mod yaml_edit;

use std::process::ExitCode;

use clap::FromArgMatches;
use clap::error::ErrorKind;

use args::{Cli, Command};

/// What a shell reports of a program that Ctrl-C ended.
pub(crate) const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    // Containers are started through this program. That must not depend on anything below.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == "shim")
    {
        return shim();
    }
    let parsed = args::command()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // As kubectl: 1 for whatever is wrong, misuse included.
            let fine = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            return match fine {
                true => ExitCode::SUCCESS,
                // There 1 says that a simulation went badly.
                false if std::env::args_os().any(|word| word == "simulate") => {
                    commands::simulate::BAD_INPUT.into()
                }
                false => ExitCode::FAILURE,
            };
        }
    };
    logging(cli.global.verbose, &cli.command);
    match run(cli) {
        Ok(code) => code,
        Err(error) if term::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            term::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn shim() -> ExitCode {
    setpoint_agent::shim::main(std::env::args_os().skip(2))
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    // An agent waits most of its life, and every thread costs it memory.
    let waits = matches!(&cli.command, Command::Agent(args) if !args.is_hollow());
    let mut builder = if cli.command.is_client() || waits {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder.enable_all().build()?;
    let ends_at_once = cli.command.is_client() && !cli.command.minds_interrupts();
    let result = runtime.block_on(async {
        let command = commands::run(cli);
        if !ends_at_once {
            return command.await;
        }
        tokio::select! {
            result = command => result,
            () = signals::interrupted() => Ok(ExitCode::from(INTERRUPTED)),
        }
    });
    // A read of standard input or of a file may never return.
    runtime.shutdown_background();
    result
}

/// Logs to standard error: parts of a cluster say what they do, clients only when asked.
fn logging(verbose: u8, command: &Command) {
    let level = match (verbose, command.is_client()) {
        (0, true) => "error",
        (0, false) => "info",
        (1, true) => "info",
        (1, false) | (2, true) => "debug",
        _ => "trace",
    };
    let filter = std::env::var("SETPOINT_LOG").unwrap_or_else(|_| match level {
        "debug" | "trace" => format!("info,setpoint={level},setpoint_apis={level},setpoint_store={level},setpoint_runtime={level}"),
        // What one agent says of its sessions, thousands would say at once.
        "info" if matches!(command, Command::Agent(args) if args.is_hollow()) => "warn,setpoint_agent::fleet=info".to_owned(),
        level => level.to_owned(),
    });
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_writer(std::io::stderr)
        .init();
}

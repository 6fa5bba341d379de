//! `setpoint completion`: scripts that let a shell complete commands and flags.

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::context::Context;

/// Flags of `setpoint completion`.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct CompletionArgs {
    /// The shell: `source <(setpoint completion bash)`
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the command.
pub(crate) fn run(args: CompletionArgs, context: &mut Context) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "setpoint", &mut script);
    context.out.bytes(&script);
    Ok(())
}

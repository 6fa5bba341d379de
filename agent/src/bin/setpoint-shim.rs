//! The supervising process alone, for the agent's own tests. The product has it as a hidden subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    setpoint_agent::shim::main(std::env::args_os().skip(1))
}

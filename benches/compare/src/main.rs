//! `compare` measures WebSocket servers side by side: what a message costs in CPU time of the server, what an idle
//! connection costs in memory, and how many deliveries a fan-out gets out of a second of CPU.
//!
//! The server under test is a child process on one core, the load is this process on another. Servers take turns,
//! round after round, so that whatever disturbs the machine disturbs all of them. See `../README.md`.

mod client;
mod cpu;
mod load;
mod memory;
mod options;
mod peers;
mod report;
mod rounds;
mod server;
mod stats;

use std::process::ExitCode;

use clap::Parser as _;

use crate::options::{Command, Options};

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("compare: some servers failed, see above");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `false` when a server failed under a load; the others were measured nevertheless.
fn run(options: &Options) -> anyhow::Result<bool> {
    let loads = match &options.command {
        Command::List => {
            peers::print_list(&options.common.tautline_dir());
            return Ok(true);
        }
        Command::Echo(load) => vec![load.clone().into()],
        Command::Idle(load) => vec![load.clone().into()],
        Command::Fanout(load) => vec![load.clone().into()],
        Command::Suite => load::suite(),
    };
    let mut all_well = true;
    for load in &loads {
        all_well &= rounds::measure(load, &options.common)?;
    }
    Ok(all_well)
}

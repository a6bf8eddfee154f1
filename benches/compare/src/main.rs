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
mod proof;
mod report;
mod rounds;
mod server;
mod stats;
mod suite;

use std::process::ExitCode;

use clap::Parser as _;

use crate::load::Load;
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
    let common = &options.common;
    let load = match &options.command {
        Command::List => {
            peers::print_list(&common.tautline_dir());
            return Ok(true);
        }
        Command::Slow(proof) => return proof.show(common).map(|()| true),
        Command::Behind(proof) => return proof.show(common).map(|()| true),
        Command::Workers(proof) => return proof.show(common).map(|()| true),
        Command::Suite(suite) => return suite::run(suite, common),
        Command::Echo(load) => Load::Echo(load.clone()),
        Command::Deflate(load) => Load::Deflate(load.clone()),
        Command::Broadcast(load) => Load::Broadcast(load.clone()),
        Command::Storm(load) => Load::Storm(load.clone()),
        Command::Open(load) => Load::Open(load.clone()),
        Command::Engine(load) => Load::Engine(load.clone()),
        Command::Idle(load) => Load::Idle(load.clone()),
        Command::Fanout(load) => Load::Fanout(load.clone()),
        Command::Many(load) => Load::Many(load.clone()),
        Command::Join(load) => Load::Join(load.clone()),
        Command::Subscribed(load) => Load::Subscribed(load.clone()),
    };
    let entries = rounds::measure(&load, common, &[], common.json.as_deref())?;
    report::print(&load.title(), &entries);
    Ok(rounds::all_well(&entries))
}

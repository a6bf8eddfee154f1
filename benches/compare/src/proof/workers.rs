//! Two workers against one: what a delivery costs with each, and how far the busier of two gets with its half.
//!
//! Whether two workers deliver twice as much in a second can only be seen where the load has cores of its own besides.
//! What decides it can be measured on any machine: the work of one worker, against what the busier of two has to do of
//! the same. With a core for each worker, the time that passes is the busier one's.

use anyhow::{Context as _, Result};
use clap::Args;

use crate::cpu;
use crate::load::{FanoutLoad, ManyLoad, Work};
use crate::options::Common;
use crate::peers::{OURS, PEERS, Service};
use crate::server::Server;
use crate::stats::Spread;

/// The figures of the proof.
#[derive(Debug, Clone, Args)]
pub(crate) struct WorkersProof {
    /// Publications in flight
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
    in_flight: u32,
}

enum What {
    Fanout(FanoutLoad),
    Many(ManyLoad),
}

impl WorkersProof {
    /// Shows it, and prints what was seen.
    ///
    /// # Errors
    /// A delivery that does not come, or is not what it must be.
    pub(crate) fn show(&self, common: &Common) -> Result<()> {
        println!(
            "| load | CPU ns a delivery, one worker | two workers | the busier of two has | so two do |"
        );
        println!("|---|--:|--:|--:|--:|");
        let loads = [
            (
                "fan-out to 1,000",
                What::Fanout(FanoutLoad::new(1_000, 128, self.in_flight)),
            ),
            ("10,000 channels of 5", What::Many(ManyLoad::new())),
        ];
        for (name, load) in loads {
            let (mut one, mut two, mut share, mut gain) = (vec![], vec![], vec![], vec![]);
            for _ in 0..common.rounds.unwrap_or(5) {
                let (first, second) = (
                    measure(&load, Service::Clients, common)?,
                    measure(&load, Service::TwoWorkers, common)?,
                );
                one.push(first.cpu_per_message());
                two.push(second.cpu_per_message());
                share.push(second.busiest.as_secs_f64() / second.cpu.as_secs_f64());
                gain.push(first.busiest.as_secs_f64() / second.busiest.as_secs_f64());
            }
            let median = |values: &[f64]| {
                Spread::of(values.iter().copied()).map_or(0.0, |spread| spread.median)
            };
            println!(
                "| {name} | {:.0} | {:.0} | {:.0} % | {:.2} x |",
                median(&one),
                median(&two),
                100.0 * median(&share),
                median(&gain)
            );
        }
        Ok(())
    }
}

fn measure(load: &What, service: Service, common: &Common) -> Result<Work> {
    let peer = PEERS
        .iter()
        .find(|peer| peer.name == OURS)
        .context("Tautline is not among the servers")?;
    let start = peer.start(service).context("Tautline has no workers")?;
    let line = start
        .locate(&common.tautline_dir())
        .map_err(anyhow::Error::msg)?;
    let (server_core, load_core) = (common.server_core, common.load_core);
    let server = Server::start(&peer.name, &line, start, None, server_core, load_core)?;
    cpu::pin(load_core)?;
    match load {
        What::Fanout(load) => load.run(server.address, server.dialect, &server.cpu),
        What::Many(load) => load.run(server.address, server.dialect, &server.cpu),
    }
}

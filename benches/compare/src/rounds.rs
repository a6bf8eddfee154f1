//! Rounds: every server has one turn in each, and the order moves on by one from round to round, so that none is
//! always the first or always behind the same neighbour. Each turn is a fresh process.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cpu;
use crate::load::{Load, Sample};
use crate::memory::HeapCounter;
use crate::options::Common;
use crate::peers::{PEERS, Peer};
use crate::server::{Server, scratch_dir};

/// A server and what its turns gave so far, `None` for a turn that failed or is still to come.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) peer: Peer,
    pub(crate) samples: Vec<Option<Sample>>,
}

/// One turn as a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Turn {
    pub(crate) load: String,
    pub(crate) server: String,
    pub(crate) round: usize,
    pub(crate) sample: Sample,
}

/// Measures one load. Turns of `earlier` runs are taken as they are; new ones are appended to `file`, where there is one.
pub(crate) fn measure(
    load: &Load,
    common: &Common,
    earlier: &[Turn],
    file: Option<&Path>,
) -> Result<Vec<Entry>> {
    let title = load.title();
    eprintln!("\n{title}");
    let mut entries = entries(load, common)?;
    cpu::pin(common.load_core)?;
    for round in 0..common.rounds.unwrap_or(load.default_rounds()) as usize {
        for turn in 0..entries.len() {
            let index = (turn + round) % entries.len();
            let entry = &mut entries[index];
            let known = earlier.iter().find(|turn| {
                turn.load == title && turn.server == entry.peer.name && turn.round == round
            });
            if let Some(known) = known {
                entry.samples.push(Some(known.sample.clone()));
                continue;
            }
            let sample = match take_turn(load, &entry.peer, common) {
                Ok(sample) => Some(sample),
                Err(error) => {
                    eprintln!(
                        "  round {}: {} failed: {error:#}",
                        round + 1,
                        entry.peer.name
                    );
                    None
                }
            };
            if let (Some(sample), Some(file)) = (&sample, file) {
                let turn = Turn {
                    load: title.clone(),
                    server: entry.peer.name.to_string(),
                    round,
                    sample: sample.clone(),
                };
                let mut file = OpenOptions::new().create(true).append(true).open(file)?;
                writeln!(file, "{}", serde_json::to_string(&turn)?)?;
            }
            entry.samples.push(sample);
        }
        eprintln!("  round {} done", round + 1);
    }
    Ok(entries)
}

/// Whether no server failed.
pub(crate) fn all_well(entries: &[Entry]) -> bool {
    entries
        .iter()
        .all(|entry| entry.samples.iter().all(Option::is_some))
}

/// Who takes part in a load, with nothing measured yet.
fn entries(load: &Load, common: &Common) -> Result<Vec<Entry>> {
    for name in &common.servers {
        if !PEERS.iter().any(|peer| peer.name == *name) {
            let known: Vec<&str> = PEERS.iter().map(|peer| &*peer.name).collect();
            bail!(
                "there is no server {name:?}; there are {}",
                known.join(", ")
            );
        }
    }
    let wanted = PEERS
        .iter()
        .filter(|peer| peer.is_wanted(&common.servers))
        .chain(&common.also);
    let mut entries = Vec::new();
    for peer in wanted {
        let Some(start) = peer.start(load.service()) else {
            continue;
        };
        match start.locate(&common.tautline_dir()) {
            Ok(_) => entries.push(Entry {
                peer: peer.clone(),
                samples: Vec::new(),
            }),
            Err(missing) => eprintln!("  SKIPPED {}: {missing}", peer.name),
        }
    }
    if entries.is_empty() {
        bail!("none of the servers asked for is there and knows this load");
    }
    Ok(entries)
}

fn take_turn(load: &Load, peer: &Peer, common: &Common) -> Result<Sample> {
    let start = peer
        .start(load.service())
        .context("it does not know this load")?;
    let line = start
        .locate(&common.tautline_dir())
        .map_err(anyhow::Error::msg)?;
    if let Load::Engine(load) = load {
        return load
            .run(&line, common.server_core, common.load_core)
            .map(Sample::Engine);
    }
    let heap = if load.counts_heap() {
        Some(HeapCounter::create(&scratch_dir()?)?)
    } else {
        None
    };
    let server = Server::start(
        &peer.name,
        &line,
        start,
        heap.as_ref(),
        common.server_core,
        common.load_core,
    )?;
    let sample = load.run(peer, &server, heap.as_ref());
    let sample = sample.with_context(|| format!("it last said: {:?}", server.last_words()))?;
    if let Some(warning) = server.stop()? {
        eprintln!("compare: {}: {warning}", peer.name);
    }
    Ok(sample)
}

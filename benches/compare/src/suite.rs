//! The published table: its rows, and how they are printed. Each turn is kept in a file as soon as it was measured, so a
//! run that was interrupted is gone on with, and rows can be measured one by one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::client::session::Encoding;
use crate::load::{
    BroadcastLoad, DeflateLoad, EchoLoad, EngineLoad, Extra, FanoutLoad, IdleLoad, JoinLoad, Load,
    ManyLoad, OpenLoad, StormLoad, SubscribedLoad, Way,
};
use crate::options::{Common, SuiteOptions};
use crate::peers::{BASELINE, OURS, PEERS};
use crate::report::{self, against_baseline, as_engine, as_idle, as_work, cost, figure, grouped};
use crate::rounds::{self, Entry, Turn};
use crate::server::scratch_dir;

/// One row of the published table.
struct Row {
    name: &'static str,
    load: Load,
    /// What it is to be compared by.
    goal: &'static str,
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name, load, goal| rows.push(Row { name, load, goal });
    let echo = EchoLoad::new;
    row("echo-20-1", Load::Echo(echo(20, 100, 1)), "0.95 of bare");
    row("echo-20-16", Load::Echo(echo(20, 100, 16)), "0.93 of bare");
    row(
        "echo-512-16",
        Load::Echo(echo(512, 100, 16)),
        "0.93 of bare",
    );
    row(
        "echo-16k",
        Load::Echo(echo(16 << 10, 16, 4)),
        "1.15 of bare",
    );
    row(
        "echo-text",
        Load::Echo(echo(16 << 10, 16, 4).with_text()),
        "0.85 of bare",
    );
    row("echo-1m", Load::Echo(echo(1 << 20, 4, 1)), "0.90 of bare");
    row(
        "deflate-alone",
        Load::Deflate(DeflateLoad::new(false)),
        "1.3 x the best peer, at no larger a size",
    );
    row(
        "deflate-takeover",
        Load::Deflate(DeflateLoad::new(true)),
        "ahead at the same size",
    );
    let broadcast = |clients, in_flight, deflate| {
        Load::Broadcast(BroadcastLoad::new(clients, in_flight, deflate))
    };
    row("broadcast-1k-1", broadcast(1_000, 1, false), "1.0 of bare");
    row(
        "broadcast-1k-16",
        broadcast(1_000, 16, false),
        "1.2 of bare",
    );
    row(
        "broadcast-10k-1",
        broadcast(10_000, 1, false),
        "1.0 of bare",
    );
    row(
        "broadcast-10k-16",
        broadcast(10_000, 16, false),
        "1.2 of bare",
    );
    row(
        "broadcast-1k-1-deflate",
        broadcast(1_000, 1, true),
        "1.0 of bare",
    );
    row(
        "broadcast-1k-16-deflate",
        broadcast(1_000, 16, true),
        "1.2 of bare",
    );
    row(
        "broadcast-10k-1-deflate",
        broadcast(10_000, 1, true),
        "1.0 of bare",
    );
    row(
        "broadcast-10k-16-deflate",
        broadcast(10_000, 16, true),
        "1.2 of bare",
    );
    row("storm", Load::Storm(StormLoad::new(10_000)), "0.88 of bare");
    row(
        "open",
        Load::Open(OpenLoad::new()),
        "p99 no worse than the best peer's",
    );
    row(
        "engine",
        Load::Engine(EngineLoad::new(16)),
        "40 ns, no allocation",
    );
    let idle = |connections, way| Load::Idle(IdleLoad::new(connections, way));
    row(
        "idle",
        idle(10_000, Way::Plain),
        "1,024 B, before and after",
    );
    row(
        "idle-deflate",
        idle(2_000, Way::Deflate),
        "3,584 B afterwards",
    );
    row("idle-axum", idle(2_000, Way::Axum), "1,536 B");
    row("idle-tls", idle(1_000, Way::Tls), "11,264 B");
    let fanout = |clients, in_flight| Load::Fanout(FanoutLoad::new(clients, 128, in_flight));
    row(
        "channels-1",
        fanout(1_000, 1),
        "3 x centrifuge, 1.25 of bun's CPU",
    );
    row(
        "channels-16",
        fanout(1_000, 16),
        "3 x centrifuge, 1.25 of bun's CPU",
    );
    row(
        "channels-10k-1",
        fanout(10_000, 1),
        "3 x centrifuge, 1.25 of bun's CPU",
    );
    row(
        "channels-10k-16",
        fanout(10_000, 16),
        "3 x centrifuge, 1.25 of bun's CPU",
    );
    let channels = || FanoutLoad::new(1_000, 128, 16);
    let protobuf = channels().encoded(Encoding::Protobuf);
    let plain = "1.5 of channels-16's CPU";
    row("channels-16-protobuf", Load::Fanout(protobuf), plain);
    row(
        "channels-16-delta",
        Load::Fanout(channels().with(Extra::Delta)),
        plain,
    );
    row(
        "channels-16-filters",
        Load::Fanout(channels().with(Extra::Filters)),
        plain,
    );
    row("many", Load::Many(ManyLoad::new()), "3 x centrifuge");
    row(
        "join",
        Load::Join(JoinLoad::new(5_000)),
        "0.4 of centrifuge's CPU",
    );
    let subscribed = |own| Load::Subscribed(SubscribedLoad::new(10_000, own));
    row("subscribed", subscribed(false), "2,560 B");
    row("subscribed-own", subscribed(true), "");
    rows
}

/// Measures the rows that were asked for, and prints all that have been. `false` when a server failed.
pub(crate) fn run(options: &SuiteOptions, common: &Common) -> Result<bool> {
    let rows = rows();
    if options.rows {
        for row in &rows {
            println!("{:<26} {}", row.name, row.load.title());
        }
        return Ok(true);
    }
    for name in &options.only {
        if !rows.iter().any(|row| row.name == name) {
            bail!("there is no row {name:?}; `suite --rows` names them");
        }
    }
    let file = match &options.results {
        Some(file) => file.clone(),
        None => default_file()?,
    };
    let wanted =
        |row: &Row| options.only.is_empty() || options.only.iter().any(|name| name == row.name);
    if options.fresh {
        forget(&file, |turn| {
            rows.iter()
                .any(|row| wanted(row) && row.load.title() == turn.load)
        })?;
    }
    let mut all_well = true;
    if !options.print {
        for row in rows.iter().filter(|row| wanted(row)) {
            match rounds::measure(&row.load, common, &turns(&file)?, Some(&file)) {
                Ok(entries) => {
                    all_well &= rounds::all_well(&entries);
                    report::print(&row.load.title(), &entries);
                }
                Err(error) => {
                    eprintln!("  row {} was left out: {error:#}", row.name);
                    all_well = false;
                }
            }
        }
    }
    print(&rows, &turns(&file)?);
    Ok(all_well)
}

fn default_file() -> Result<PathBuf> {
    Ok(scratch_dir()?.join("suite.jsonl"))
}

/// What has been measured so far.
fn turns(file: &Path) -> Result<Vec<Turn>> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(file)?;
    text.lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is not of this program", file.display()))
}

fn forget(file: &Path, which: impl Fn(&Turn) -> bool) -> Result<()> {
    let mut kept = String::new();
    for turn in turns(file)?.iter().filter(|turn| !which(turn)) {
        kept.push_str(&serde_json::to_string(turn)?);
        kept.push('\n');
    }
    if file.exists() {
        fs::write(file, kept)?;
    }
    Ok(())
}

/// The entries of one row as they would come of a run.
fn entries_of(row: &Row, turns: &[Turn]) -> Vec<Entry> {
    let title = row.load.title();
    let mut entries = Vec::new();
    for peer in PEERS {
        let mut samples: Vec<(usize, _)> = turns
            .iter()
            .filter(|turn| turn.load == title && turn.server == peer.name)
            .map(|turn| (turn.round, turn.sample.clone()))
            .collect();
        samples.sort_by_key(|(round, _)| *round);
        let known = entries
            .iter()
            .any(|entry: &Entry| entry.peer.name == peer.name);
        if !samples.is_empty() && !known {
            entries.push(Entry {
                peer: peer.clone(),
                samples: samples
                    .into_iter()
                    .map(|(_, sample)| Some(sample))
                    .collect(),
            });
        }
    }
    entries
}

/// Markdown: CPU, then memory, then the engine, then who took part.
fn print(rows: &[Row], turns: &[Turn]) {
    let measured: Vec<(&Row, Vec<Entry>)> = rows
        .iter()
        .map(|row| (row, entries_of(row, turns)))
        .filter(|(_, entries)| !entries.is_empty())
        .collect();
    print_table(
        &measured,
        "CPU ns a message, and against the bare server",
        |row| !matches!(row.load, Load::Idle(_) | Load::Engine(_)),
    );
    print_table(
        &measured,
        "heap bytes a connection, before / after traffic",
        |row| matches!(row.load, Load::Idle(_)),
    );
    print_table(&measured, "the engine alone", |row| {
        matches!(row.load, Load::Engine(_))
    });
    let mut versions = Vec::new();
    for peer in PEERS {
        let took_part = measured
            .iter()
            .any(|(_, entries)| entries.iter().any(|entry| entry.peer.name == peer.name));
        if let (true, Some(version)) = (took_part, peer.version()) {
            versions.push(format!("{} {version}", peer.name));
        }
    }
    versions.dedup();
    println!("\nPeers: {}.", versions.join(", "));
    println!("Each row by itself: `benches/run suite ROW`.");
}

fn print_table(measured: &[(&Row, Vec<Entry>)], what: &str, which: impl Fn(&Row) -> bool) {
    let measured: Vec<_> = measured.iter().filter(|(row, _)| which(row)).collect();
    let mut columns: Vec<&str> = Vec::new();
    for peer in PEERS {
        let has_any = measured
            .iter()
            .any(|(_, entries)| entries.iter().any(|entry| entry.peer.name == peer.name));
        if has_any && !columns.contains(&&*peer.name) {
            columns.push(&peer.name);
        }
    }
    if columns.is_empty() {
        return;
    }
    println!(
        "\n| row: {what} | to reach | {OURS} to the best peer | {} |",
        columns.join(" | ")
    );
    println!("|---|---|--:|{}", "--:|".repeat(columns.len()));
    for (row, entries) in measured {
        let mut line = format!("| `{}` | {} | {} |", row.name, row.goal, lead(entries));
        for column in &columns {
            let entry = entries.iter().find(|entry| entry.peer.name == *column);
            let cell = entry.map_or(String::new(), |entry| cell(entry, entries));
            line.push_str(&format!(" {cell} |"));
        }
        println!("{line}");
    }
}

/// How much less ours takes than the best of the peers: above 1 is ahead.
fn lead(entries: &[Entry]) -> String {
    let (mut ours, mut best) = (None, None::<(f64, &str)>);
    for entry in entries {
        let Some(value) = compared_by(entry) else {
            continue;
        };
        if entry.peer.name == OURS {
            ours = Some(value);
        } else if entry.peer.name != BASELINE && best.is_none_or(|(best, _)| value < best) {
            best = Some((value, &entry.peer.name));
        }
    }
    match (ours, best) {
        (Some(ours), Some((best, name))) => format!("{:.2} ({name})", best / ours),
        _ => String::new(),
    }
}

/// The figure that tells who is ahead; less is better.
fn compared_by(entry: &Entry) -> Option<f64> {
    let latency = figure(entry, |sample| Some(as_work(sample)?.latency_us?[1]));
    let heap = || {
        let counted = entry.peer.heap_is_counted;
        figure(entry, |sample| {
            as_idle(sample)
                .map(|idle| idle.after_burst.heap)
                .filter(|_| counted)
        })
    };
    latency
        .or_else(|| figure(entry, cost))
        .or_else(heap)
        .map(|spread| spread.median)
}

fn cell(entry: &Entry, entries: &[Entry]) -> String {
    if let Some(spread) = figure(entry, cost) {
        let mut cell = grouped(spread.median);
        if let Some(ratio) = against_baseline(entry, entries) {
            cell.push_str(&format!(" · {:.2}", ratio.median));
        }
        if let Some(size) = figure(entry, |sample| as_work(sample)?.reply_bytes) {
            cell.push_str(&format!(" · {:.0} B", size.median));
        }
        let latency =
            |index: usize| figure(entry, |sample| Some(as_work(sample)?.latency_us?[index]));
        if let (Some(p50), Some(p99), Some(p999)) = (latency(0), latency(1), latency(2)) {
            cell.push_str(&format!(
                " · p50 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs",
                p50.median, p99.median, p999.median
            ));
        }
        return cell;
    }
    let before = figure(entry, |sample| Some(as_idle(sample)?.after_handshake.heap));
    let after = figure(entry, |sample| Some(as_idle(sample)?.after_burst.heap));
    if let (Some(before), Some(after)) = (before, after) {
        let resident = figure(entry, |sample| Some(as_idle(sample)?.after_burst.resident));
        return if entry.peer.heap_is_counted {
            format!("{} / {}", grouped(before.median), grouped(after.median))
        } else {
            format!(
                "resident {}",
                grouped(resident.map_or(0.0, |value| value.median))
            )
        };
    }
    let read = |read: fn(&crate::load::Engine) -> Option<f64>| {
        figure(entry, |sample| as_engine(sample).and_then(read)).map_or(0.0, |value| value.median)
    };
    format!(
        "{:.1} ns, {:.0} instructions, {:.3} allocations",
        read(|engine| Some(engine.nanoseconds)),
        read(|engine| engine.instructions),
        read(|engine| Some(engine.allocations)),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn rows_are_told_apart_by_name_and_by_load() {
        let rows = rows();
        let names: HashSet<_> = rows.iter().map(|row| row.name).collect();
        let titles: HashSet<_> = rows.iter().map(|row| row.load.title()).collect();
        assert_eq!((names.len(), titles.len()), (rows.len(), rows.len()));
    }
}

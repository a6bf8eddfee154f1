//! A client that is far behind catches up, in order, while others go on publishing; the server's memory meanwhile.

use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Author, Stage, mebibytes, read_in_order};
use crate::client::Random;
use crate::client::http::ask;
use crate::client::upgrade::PATIENCE;
use crate::options::Common;

const CHANNEL: &str = "stream";
const PAYLOAD: usize = 128;
const BURST: usize = 64;
/// Nothing that is shown here takes longer.
const LIMIT: Duration = Duration::from_secs(300);

/// The figures of the proof.
#[derive(Debug, Clone, Args)]
pub(crate) struct BehindProof {
    /// How many publications the client has missed
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    missed: u32,
    /// Publications a second while it catches up
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
}

impl BehindProof {
    /// Shows it, and prints what it took.
    ///
    /// # Errors
    /// A publication that the client gets not at all, twice or out of order.
    pub(crate) fn show(&self, common: &Common) -> Result<()> {
        let stage = Stage::set(common)?;
        let mut author = Author::new(&stage, CHANNEL, PAYLOAD)?;
        let position = ask(
            stage.server.address,
            "/api/history",
            Some(&format!(r#"{{"channel":"{CHANNEL}","limit":0}}"#)),
        )?;
        let position: serde_json::Value = serde_json::from_str(&position)?;
        let epoch = position["result"]["epoch"]
            .as_str()
            .context("the channel has no epoch")?;
        let empty = stage.memory()?;
        let mut unsent = self.missed as usize;
        while unsent > 0 {
            let burst = unsent.min(BURST);
            author.send(burst)?;
            author.session.wait(burst)?;
            unsent -= burst;
        }
        let full = stage.memory()?;

        let mut random = Random::new(1);
        let mut reader = stage.open()?;
        reader.begin(&mut random, &[])?;
        let subscribe = format!(
            r#"{{"id":2,"subscribe":{{"channel":"{CHANNEL}","recover":true,"epoch":"{epoch}","offset":0}}}}"#
        );
        let (start, cpu) = (Instant::now(), stage.server.cpu.now()?);
        reader.send(&mut random, subscribe.as_bytes())?;
        let (mut next, mut live, mut peak) = (1, 0, full.heap);
        let mut buffer = vec![0; 256 * 1024];
        let (mut served, mut caught_up) = (None, None);
        let mut looked = 0;
        // It is there when it has got what was published a moment ago; one more second shows that it stays there.
        while caught_up.is_none_or(|at: Instant| at.elapsed() < Duration::from_secs(1)) {
            if start.elapsed() > LIMIT {
                bail!("the client is at {next} after {LIMIT:?}");
            }
            if is_readable(&reader.stream, Duration::from_millis(1))? {
                read_in_order(&mut reader, &mut buffer, &mut next, |_| ())?;
            }
            // As soon as it is being served: what nobody asks for any more may be forgotten.
            if next > 1 {
                served.get_or_insert_with(Instant::now);
            }
            let since = served.map_or(Duration::ZERO, |at| at.elapsed());
            let due = (since.as_secs_f64() * f64::from(self.rate)) as usize;
            if due > live {
                author.send(due - live)?;
                live = due;
            }
            while is_readable(&author.session.stream, Duration::ZERO)? {
                author.session.receive(&mut buffer, |_| Ok(()))?;
            }
            if next / 20_000 > looked {
                looked = next / 20_000;
                peak = peak.max(stage.memory()?.heap);
            }
            if caught_up.is_none() && next > author.sent.len() as u64 {
                caught_up = Some(Instant::now());
            }
        }
        let took = caught_up.map_or(Duration::ZERO, |at| at - start);
        let cpu = stage.server.cpu.now()? - cpu;
        let end = Instant::now() + PATIENCE;
        while next <= author.sent.len() as u64 {
            if Instant::now() > end {
                bail!("publication {next} does not come");
            }
            read_in_order(&mut reader, &mut buffer, &mut next, |_| ())?;
        }
        let heap = |bytes: i64| mebibytes(bytes - empty.heap);
        println!(
            "| missed | a second meanwhile | caught up after | CPU of the server | its heap: history | at most more meanwhile |"
        );
        println!("|--:|--:|--:|--:|--:|--:|");
        println!(
            "| {} | {} | {:.1} s | {:.2} s, {:.0} ns a publication | {:.0} MiB | {:.2} MiB |",
            self.missed,
            self.rate,
            took.as_secs_f64(),
            cpu.as_secs_f64(),
            cpu.as_nanos() as f64 / next as f64,
            heap(full.heap),
            mebibytes(peak - full.heap)
        );
        println!(
            "\nAll of them, up to number {}, in order, none lost, none twice.",
            next - 1
        );
        Ok(())
    }
}

fn is_readable(stream: &TcpStream, patience: Duration) -> Result<bool> {
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(patience)?;
    Ok(poll(&mut fds, patience)? > 0)
}

//! The engine alone: no sockets, no server. The program `engine` of this workspace parses, unmasks and answers frames in
//! a loop and tells what that took; how many instructions, `valgrind` counts where it is installed.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cpu;
use crate::peers::CommandLine;

/// Turns of the loop in which instructions are counted: each costs the same.
const COUNTED_TURNS: u64 = 1000;

/// The figures of an engine load.
#[derive(Debug, Clone, Args)]
pub(crate) struct EngineLoad {
    /// Bytes of each message
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(0..=16 << 10))]
    payload: u32,
    /// Messages in each input
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,
    /// Messages in all
    #[arg(long, default_value_t = 10_000_000)]
    messages: u64,
}

/// What a message took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Engine {
    pub(crate) nanoseconds: f64,
    pub(crate) allocations: f64,
    pub(crate) instructions: Option<f64>,
}

impl EngineLoad {
    /// The published load.
    pub(crate) fn new(batch: u32) -> Self {
        Self {
            payload: 32,
            batch,
            messages: 10_000_000,
        }
    }

    /// What is done, in one line.
    pub(crate) fn title(&self) -> String {
        let Self {
            payload,
            batch,
            messages,
        } = self;
        format!(
            "engine alone: parse, unmask and answer {payload} B, {batch} in each input; {messages} messages a turn"
        )
    }

    /// One turn.
    pub(crate) fn run(&self, line: &CommandLine, core: usize, own_core: usize) -> Result<Engine> {
        cpu::pin(core)?;
        let figures = self.call(&mut Command::new(&line.program), self.messages);
        let instructions = self.instructions(line);
        cpu::pin(own_core)?;
        let (_, figures) = figures?;
        let mut words = figures.split_whitespace();
        let mut next = || -> Result<f64> {
            let word = words.next().context("the engine printed too little")?;
            Ok(word.parse()?)
        };
        Ok(Engine {
            nanoseconds: next()?,
            allocations: next()?,
            instructions,
        })
    }

    /// Instructions of user code for each message, if there is something that counts them. What the program does besides
    /// is in both runs, so the difference is what the messages took.
    fn instructions(&self, line: &CommandLine) -> Option<f64> {
        let count = |messages: u64| {
            let mut command = Command::new("valgrind");
            command
                .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
                .arg(&line.program);
            let (report, _) = self.call(&mut command, messages).ok()?;
            let (_, count) = report.split_once("Collected : ")?;
            count.split_whitespace().next()?.parse::<f64>().ok()
        };
        let few = COUNTED_TURNS * u64::from(self.batch);
        Some((count(2 * few)? - count(few)?) / few as f64)
    }

    /// What the program prints to its error output, and to its output.
    fn call(&self, command: &mut Command, messages: u64) -> Result<(String, String)> {
        let output = command
            .args(["--payload", &self.payload.to_string()])
            .args(["--batch", &self.batch.to_string()])
            .args(["--messages", &messages.to_string()])
            .output()
            .context("cannot start it")?;
        let said = String::from_utf8(output.stderr)?;
        if !output.status.success() {
            bail!("it failed: {said}");
        }
        Ok((said, String::from_utf8(output.stdout)?))
    }
}

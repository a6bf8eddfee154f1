//! What can be said to `tautline lab`.

use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use tautline_hub::config::duration;

#[derive(Debug, Args)]
pub(in crate::cli) struct LabArgs {
    /// For how long messages are published
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = RangedU64ValueParser::<u64>::new().range(1..=3600))]
    pub(super) seconds: u64,

    /// Messages a second
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = RangedU64ValueParser::<u64>::new().range(1..=500))]
    pub(super) rate: u64,

    /// Clients of each way
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pub(super) clients: usize,

    /// How often those that poll ask: from 10ms to 60s
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub(super) poll: Duration,

    /// Bytes of a message, besides its number and time
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = RangedU64ValueParser::<usize>::new().range(0..=16_384))]
    pub(super) size: usize,

    /// Measure this server instead of one's own, such as http://127.0.0.1:8000
    ///
    /// Its CPU time can't be told then.
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<String>,

    /// The channel to use there; it needs history that clients may read
    #[arg(long, value_name = "CHANNEL", default_value = "lab", requires = "url")]
    pub(super) channel: String,

    /// Key of its HTTP API, which publishes; `dev` for a server on this machine
    #[arg(
        long,
        value_name = "KEY",
        env = "TAUTLINE_API_KEY",
        hide_env_values = true
    )]
    pub(super) key: Option<String>,

    /// Connection token of the clients, where anonymous ones may not do this
    #[arg(
        long,
        value_name = "TOKEN",
        env = "TAUTLINE_TOKEN",
        hide_env_values = true
    )]
    pub(super) token: Option<String>,

    /// Print JSON, as happens anyway where the output isn't a terminal
    #[arg(long)]
    pub(super) json: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text).map_err(|error| error.to_string())?;
    if (SHORTEST..=LONGEST).contains(&interval) {
        Ok(interval)
    } else {
        Err("expected at least 10ms and at most 60s".to_owned())
    }
}

const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(60);

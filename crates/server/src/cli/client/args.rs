//! What can be said to the commands that ask a running server.

use clap::{Args, Subcommand};

pub(super) use super::lab::args::LabArgs;

/// Which server to ask.
#[derive(Debug, Args)]
pub(in crate::cli) struct ServerArgs {
    /// Where the server is
    #[arg(
        long,
        value_name = "URL",
        env = "TAUTLINE_URL",
        default_value = "http://127.0.0.1:8000"
    )]
    pub(super) url: String,

    /// Print JSON, as happens anyway where the output isn't a terminal
    #[arg(long)]
    pub(super) json: bool,
}

impl ServerArgs {
    /// As if it had been said.
    pub(super) fn at(url: String) -> Self {
        Self { url, json: false }
    }
}

/// Which server to ask, and the key of its API.
#[derive(Debug, Args)]
pub(in crate::cli) struct ApiArgs {
    #[command(flatten)]
    pub(super) server: ServerArgs,

    /// Key of the HTTP API; `dev` for a server on this machine
    ///
    /// Better given by the environment: the arguments of a program can be seen by every user of the
    /// machine.
    #[arg(
        long,
        value_name = "KEY",
        env = "TAUTLINE_API_KEY",
        hide_env_values = true
    )]
    pub(super) key: Option<String>,
}

/// The commands that ask a running server.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ClientCommand {
    /// Publish a message into a channel
    #[command(after_help = PUBLISH_AFTER_HELP)]
    Publish(PublishArgs),

    /// Watch what is published, until Ctrl-C
    ///
    /// As a client, over the client protocol: what it may subscribe to is what its token, or an
    /// anonymous client, may. Comes back when the connection breaks, with what it has missed where the
    /// channel keeps it.
    #[command(after_help = SUBSCRIBE_AFTER_HELP)]
    Subscribe(SubscribeArgs),

    /// Tell who is in a channel
    Presence {
        /// The channel
        channel: String,
        /// Only how many
        #[arg(long)]
        stats: bool,
        #[command(flatten)]
        api: ApiArgs,
    },

    /// Read what a channel keeps
    History(HistoryArgs),

    /// List the channels with subscribers
    Channels {
        /// Only those whose names match, such as 'chat:*'
        #[arg(value_name = "PATTERN", default_value = "")]
        pattern: String,
        #[command(flatten)]
        api: ApiArgs,
    },

    /// Follow a user, a connection or a channel live, until Ctrl-C
    ///
    /// Each command that comes in and each reply and push that goes out, by which rule something was
    /// refused, what was recovered, and how much waits to be written. Of payloads it shows the size;
    /// all of them where the server allows that (http_api.trace_payloads).
    #[command(after_help = TRACE_AFTER_HELP)]
    Trace(TraceArgs),

    /// Compare polling, long-polling, streaming, SSE and WebSocket, side by side
    #[command(long_about = LAB_ABOUT, after_help = LAB_AFTER_HELP)]
    Lab(LabArgs),

    /// End connections: all of a user, or one of them
    Disconnect(DisconnectArgs),

    /// Look after events that the application's backend would not have
    #[command(after_help = EVENTS_AFTER_HELP)]
    Events {
        #[command(subcommand)]
        command: EventsCommand,
    },

    /// Have tokens count no more: one, those of a user, or those of a connection
    ///
    /// Nobody comes in by them, and who is here by them has to fetch others: whether there are any is for the
    /// application's backend to say.
    #[command(after_help = REVOKE_AFTER_HELP)]
    Revoke(RevokeArgs),

    /// Tell what the server carries
    Info {
        #[command(flatten)]
        api: ApiArgs,
    },
}

const LAB_ABOUT: &str = "\
Compare polling, long-polling, streaming, SSE and WebSocket, side by side

All five follow one feed by the same cursor. Measured is how long each message takes from before it is \
published to when a client has read it; how many requests and how many bytes that takes, in both \
directions, with all heads, without those of TCP; and the CPU time of the thread that serves each way \
and of the thread with its clients.

Starts servers of its own in this process, on free ports of the loopback interface: one thread for each \
way, and one without clients, whose time is taken off. The page at /lab of `tautline dev` shows the same as \
a browser sees it.";

const LAB_AFTER_HELP: &str = "\
Examples:
  tautline lab
  tautline lab --seconds 60 --rate 1 --poll 5s
  tautline lab --clients 100 --json | jq '.ways[] | {way, cpu: .cpu_ms.server}'
  TAUTLINE_API_KEY=... tautline lab --url https://live.example.org --channel lab:1";

const PUBLISH_AFTER_HELP: &str = "\
Examples:
  tautline publish lobby '{\"text\":\"hello\"}'
  tautline publish lobby --text hello
  make-message | tautline publish lobby -";

const SUBSCRIBE_AFTER_HELP: &str = "\
Examples:
  tautline subscribe lobby
  tautline subscribe chat:1 chat:2 | jq .data
  TAUTLINE_TOKEN=$(tautline token --config tautline.toml --user 7) tautline subscribe chat:1";

#[derive(Debug, Args)]
pub(in crate::cli) struct PublishArgs {
    /// The channel
    pub(super) channel: String,
    /// The message, as JSON; `-` to read it from standard input
    pub(super) data: String,
    /// The message is plain text, and is published as a JSON string
    #[arg(long)]
    pub(super) text: bool,
    /// A label that filters can use; may be given several times
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    pub(super) tags: Vec<(String, String)>,
    /// Publish it once, however often this is repeated within five minutes
    #[arg(long, value_name = "KEY")]
    pub(super) idempotency_key: Option<String>,
    /// Deliver it, but don't keep it
    #[arg(long)]
    pub(super) skip_history: bool,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SubscribeArgs {
    /// The channels
    #[arg(required = true, value_name = "CHANNEL")]
    pub(super) channels: Vec<String>,
    /// End after so many messages
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// Token of a user; without one, an anonymous client
    #[arg(
        long,
        value_name = "TOKEN",
        env = "TAUTLINE_TOKEN",
        hide_env_values = true
    )]
    pub(super) token: Option<String>,
    #[command(flatten)]
    pub(super) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct HistoryArgs {
    /// The channel
    pub(super) channel: String,
    /// How many messages at the most
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    pub(super) limit: u32,
    /// Begin behind this position
    #[arg(long, value_name = "OFFSET:EPOCH", value_parser = position)]
    pub(super) since: Option<(u64, String)>,
    /// Newest first
    #[arg(long)]
    pub(super) reverse: bool,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

const TRACE_AFTER_HELP: &str = "\
Examples:
  tautline trace --user 42
  tautline trace --channel chat:1 --payloads
  tautline trace --refusals | jq .why";

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("follow").required(true))]
pub(in crate::cli) struct TraceArgs {
    /// All connections of this user, also those still to come; an empty one for anonymous connections
    #[arg(long, value_name = "ID", group = "follow")]
    pub(super) user: Option<String>,
    /// The connection with this id
    #[arg(long, value_name = "ID", group = "follow")]
    pub(super) client: Option<String>,
    /// Whatever concerns this channel
    #[arg(long, value_name = "NAME", group = "follow")]
    pub(super) channel: Option<String>,
    /// What is refused to anybody, and whom the server ends
    #[arg(long, group = "follow")]
    pub(super) refusals: bool,
    /// Show payloads
    #[arg(long)]
    pub(super) payloads: bool,
    /// End after so many seconds
    #[arg(long, value_name = "NUMBER", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(super) seconds: u64,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

const EVENTS_AFTER_HELP: &str = "\
Examples:
  tautline events list
  tautline events show 9f86d081884c7d65-41
  tautline events retry 9f86d081884c7d65-41
  tautline events retry --all
  tautline events list --json | jq -r '.events[].event.id'";

/// What can be done about dead letters.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum EventsCommand {
    /// List them, the oldest first
    List {
        /// How many at the most, up to 1000
        #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Begin where a page before has ended
        #[arg(long, value_name = "CURSOR")]
        cursor: Option<String>,
        #[command(flatten)]
        api: ApiArgs,
    },

    /// Show them as they were posted, and why they were not taken
    Show {
        /// Their ids
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        #[command(flatten)]
        api: ApiArgs,
    },

    /// Send them again
    Retry(SettleArgs),

    /// Throw them away
    Drop(SettleArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SettleArgs {
    /// Their ids
    #[arg(
        value_name = "ID",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub(super) ids: Vec<String>,
    /// All there are
    #[arg(long)]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DisconnectArgs {
    /// Whose connections; an empty one for anonymous connections
    #[arg(long, value_name = "ID", required_unless_present = "client")]
    pub(super) user: Option<String>,
    /// Only the connection with this id
    #[arg(long, value_name = "ID")]
    pub(super) client: Option<String>,
    /// What clients are told: 3000 to 4999. They come back, except for 3500 to 3999 and 4500 to 4999
    #[arg(long, value_name = "CODE", default_value_t = 3503)]
    pub(super) code: u32,
    /// Why, for developers
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(super) reason: String,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

const REVOKE_AFTER_HELP: &str = "\
Examples:
  tautline revoke --user 42
  tautline revoke --user 42 --issued-before 1900000000
  tautline revoke --token 9f2c --expire-at 1900000000
  tautline revoke --client 8d1f6a1e-2b1c-4f6e-9d3a-0c1b2a3d4e5f";

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(in crate::cli) struct RevokeArgs {
    /// The token with this id (claim `jti`)
    #[arg(long, value_name = "ID", group = "what")]
    pub(super) token: Option<String>,
    /// The tokens of this user
    #[arg(long, value_name = "ID", group = "what")]
    pub(super) user: Option<String>,
    /// The tokens by which this connection is there, which is ended
    #[arg(long, value_name = "ID", group = "what")]
    pub(super) client: Option<String>,
    /// Only those that were issued (claim `iat`) before this, in Unix seconds [default: now]
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["token", "client"])]
    pub(super) issued_before: Option<u64>,
    /// When the server can forget it, in Unix seconds, as the tokens have expired then [default: never]
    #[arg(long, value_name = "SECONDS")]
    pub(super) expire_at: Option<u64>,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

fn tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn position(text: &str) -> Result<(u64, String), String> {
    let expected = "expected OFFSET:EPOCH, such as 14:hKqPwZbd";
    let (offset, epoch) = text.split_once(':').ok_or(expected)?;
    Ok((offset.parse().map_err(|_| expected)?, epoch.to_owned()))
}

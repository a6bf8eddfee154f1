//! What can be said to the commands that ask a running server.

use clap::{Args, Subcommand};

pub(super) use super::lab::args::LabArgs;
use super::manage::{
    BROADCAST_AFTER_HELP, BroadcastArgs, DISCONNECT_AFTER_HELP, DisconnectArgs, PUBLISH_AFTER_HELP,
    PublishArgs, REFRESH_AFTER_HELP, REFRESH_USAGE, RefreshArgs, SUBSCRIBE_USER_AFTER_HELP,
    SubscribeUserArgs, UnsubscribeArgs,
};

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

    /// Publish the same message into several channels
    #[command(after_help = BROADCAST_AFTER_HELP)]
    Broadcast(BroadcastArgs),

    /// Watch channels live, until Ctrl-C
    ///
    /// What is published, who is there, who comes and goes, where the channels stand, and what was
    /// missed. As a client, over the client protocol: what it may subscribe to is what its token, or
    /// an anonymous client, may. History and presence that the client may not see are asked for with
    /// the key of the HTTP API, if there is one. Comes back when the connection breaks, with what it
    /// has missed where the channel keeps it.
    ///
    /// As JSON each line is an object with `event`: connected, subscribed, presence, publication,
    /// join, leave, gap, refused, unsubscribed or disconnected.
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
    #[command(after_help = DISCONNECT_AFTER_HELP)]
    Disconnect(DisconnectArgs),

    /// Subscribe connections of a user to a channel, without their asking
    #[command(after_help = SUBSCRIBE_USER_AFTER_HELP)]
    SubscribeUser(SubscribeUserArgs),

    /// End subscriptions of a user to a channel, whoever has made them
    Unsubscribe(UnsubscribeArgs),

    /// Say until when connections of a user live, and what others are shown about them
    #[command(override_usage = REFRESH_USAGE, after_help = REFRESH_AFTER_HELP)]
    Refresh(RefreshArgs),

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

    /// Tell whether a server is up, by the exit status
    ///
    /// For the health checks of containers, whose images have no shell and no curl.
    #[command(after_help = HEALTH_AFTER_HELP)]
    Health {
        /// Whether it takes new clients, too: one that is on its way out doesn't
        #[arg(long)]
        ready: bool,
        #[command(flatten)]
        server: ServerArgs,
    },

    /// Tell what the server carries
    Info {
        /// Also its workers, and where its memory is
        #[arg(long)]
        debug: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
}

const HEALTH_AFTER_HELP: &str = "\
Examples:
  tautline health --url http://127.0.0.1:9000
  tautline health --ready && echo 'it takes clients'

Exit status: 0 if it is, 1 if it isn't or can't be reached within 5 seconds.";

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

const SUBSCRIBE_AFTER_HELP: &str = "\
Examples:
  tautline subscribe lobby --history 20
  tautline subscribe chat:1 chat:2 --data | jq .text
  tautline subscribe chat:1 --json | jq 'select(.event == \"join\").info.user'
  TAUTLINE_TOKEN=$(tautline token --config tautline.toml --user 7) tautline subscribe chat:1";

#[derive(Debug, Args)]
pub(in crate::cli) struct SubscribeArgs {
    /// The channels
    #[arg(required = true, value_name = "CHANNEL")]
    pub(super) channels: Vec<String>,
    /// Show the newest messages first that the channels keep: so many of each
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) history: Option<u32>,
    /// Show what was published since this position first, all of it, or tell that it can't be had
    #[arg(long, value_name = "OFFSET:EPOCH", value_parser = position, conflicts_with = "history")]
    pub(super) since: Option<(u64, String)>,
    /// End after so many messages
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// Print the data of messages alone, a line each; warnings go to standard error
    #[arg(long, conflicts_with = "json")]
    pub(super) data: bool,
    /// Token of a user; without one, an anonymous client
    #[arg(
        long,
        value_name = "TOKEN",
        env = "TAUTLINE_TOKEN",
        hide_env_values = true
    )]
    pub(super) token: Option<String>,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct HistoryArgs {
    /// The channel
    pub(super) channel: String,
    /// How many messages at the most; -1 for all
    #[arg(long, value_name = "NUMBER", default_value_t = 10, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1..))]
    pub(super) limit: i32,
    /// All messages, as --limit -1
    #[arg(long, conflicts_with = "limit")]
    pub(super) all: bool,
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

const REVOKE_AFTER_HELP: &str = "\
Examples:
  tautline revoke --user 42
  tautline revoke --user 42 --issued-before 1900000000
  tautline revoke --user 42 --channel room:7
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
    /// Only the user's subscription tokens for this channel
    #[arg(long, conflicts_with_all = ["token", "client"])]
    pub(super) channel: Option<String>,
    /// Only those that were issued (claim `iat`) before this, in Unix seconds [default: now]
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["token", "client"])]
    pub(super) issued_before: Option<u64>,
    /// When the server can forget it, in Unix seconds, as the tokens have expired then [default: never]
    #[arg(long, value_name = "SECONDS")]
    pub(super) expire_at: Option<u64>,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

/// Also with a comma, as positions are written elsewhere.
pub(super) fn position(text: &str) -> Result<(u64, String), String> {
    let expected = "expected OFFSET:EPOCH, such as 14:hKqPwZbd";
    let (offset, epoch) = text.split_once([':', ',']).ok_or(expected)?;
    Ok((offset.parse().map_err(|_| expected)?, epoch.to_owned()))
}

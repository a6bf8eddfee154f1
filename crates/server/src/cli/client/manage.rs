//! The commands that publish, and those that change what connections have: `publish`, `broadcast`,
//! `disconnect`, `subscribe-user`, `unsubscribe` and `refresh`. Each is one call of the HTTP API.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tautline_hub::config::duration;

use super::args::ApiArgs;
use super::call::call;
use super::show::{self, Position, Reader, Show, clean};
use crate::cli::error::CliError;

/// What is published.
#[derive(Debug, Args)]
struct MessageArgs {
    /// The message is plain text, and is published as a JSON string
    #[arg(long, conflicts_with = "b64")]
    text: bool,
    /// The message is base64 of bytes that need not be JSON, for channels that take them
    #[arg(long)]
    b64: bool,
    /// A label that filters can use; may be given several times
    #[arg(long = "tag", alias = "tags", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,
    /// Publish it once, however often this is repeated within five minutes
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Deliver it, but don't keep it
    #[arg(long)]
    skip_history: bool,
    /// Send it as a patch of the message before to those who take patches
    #[arg(long)]
    delta: bool,
    /// Publish it only if the channel's version is less than this
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    version: Option<u64>,
    /// What versions count in: those of different epochs can't be compared, and go through
    #[arg(long, value_name = "EPOCH", requires = "version")]
    version_epoch: Option<String>,
    /// Id of the one connection that doesn't get it, such as that of its author
    #[arg(long, value_name = "ID")]
    exclude_client: Option<String>,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PublishArgs {
    /// The channel
    channel: String,
    /// The message, as JSON; `-` to read it from standard input
    data: String,
    #[command(flatten)]
    message: MessageArgs,
}

pub(super) const PUBLISH_AFTER_HELP: &str = "\
Examples:
  tautline publish lobby '{\"text\":\"hello\"}'
  tautline publish lobby --text hello
  make-message | tautline publish lobby -
  tautline publish prices:gold '{\"eur\":2301}' --version 17 --idempotency-key gold-17";

#[derive(Debug, Args)]
pub(in crate::cli) struct BroadcastArgs {
    /// The message, as JSON; `-` to read it from standard input
    data: String,
    /// The channels
    #[arg(required = true, value_name = "CHANNEL")]
    channels: Vec<String>,
    #[command(flatten)]
    message: MessageArgs,
}

pub(super) const BROADCAST_AFTER_HELP: &str = "\
Examples:
  tautline broadcast '{\"text\":\"hello\"}' news:en news:de
  tautline broadcast --text 'back at nine' $(tautline channels | jq -r '.channels|keys[]')

Exit status 1 if it could not be published into one of them.";

/// Whose connections, and which of them. All that is said must be true of a connection.
#[derive(Debug, Args)]
#[group(id = "target", required = true, multiple = true)]
struct TargetArgs {
    /// Whose connections; an empty one for anonymous connections
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Only the connection with this id
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// Only the connection with this session, such as one of server-sent events; with --user or --client,
    /// or else of an anonymous client
    #[arg(long, value_name = "ID")]
    session: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DisconnectArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Id of a connection that stays; may be given several times
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    whitelist: Vec<String>,
    /// What clients are told: 3000 to 4999. They come back, except for 3500 to 3999 and 4500 to 4999
    #[arg(long, value_name = "CODE", default_value_t = 3503)]
    code: u32,
    /// Why, for developers
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) const DISCONNECT_AFTER_HELP: &str = "\
Examples:
  tautline disconnect --user 7 --code 4501 --reason 'signed out'
  tautline disconnect --user 7 --whitelist 8d1f6a1e-2b1c-4f6e-9d3a-0c1b2a3d4e5f";

#[derive(Debug, Args)]
pub(in crate::cli) struct SubscribeUserArgs {
    /// The channel
    channel: String,
    #[command(flatten)]
    target: TargetArgs,
    /// What others in the channel are shown about the subscriber: any JSON value
    #[arg(long, value_name = "JSON", value_parser = json)]
    info: Option<Box<RawValue>>,
    /// For the client, which gets it with the news: any JSON value
    #[arg(long, value_name = "JSON", value_parser = json)]
    data: Option<Box<RawValue>>,
    /// Have the client get what was published since this position
    #[arg(long, value_name = "OFFSET:EPOCH", value_parser = super::args::position)]
    recover_since: Option<(u64, String)>,
    /// How long the subscription lives, such as 90s or 10m
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, conflicts_with = "expire_at")]
    ttl: Option<Duration>,
    /// When it ends, in Unix seconds
    #[arg(long, value_name = "SECONDS")]
    expire_at: Option<u64>,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) const SUBSCRIBE_USER_AFTER_HELP: &str = "\
Examples:
  tautline subscribe-user orders:7 --user 7
  tautline subscribe-user chat:1 --user 7 --info '{\"role\":\"guest\"}' --ttl 10m";

#[derive(Debug, Args)]
pub(in crate::cli) struct UnsubscribeArgs {
    /// The channel
    channel: String,
    #[command(flatten)]
    target: TargetArgs,
    /// What clients are told: 2000 to 2999. From 2500 on they subscribe again
    #[arg(long, value_name = "CODE", default_value_t = 2000)]
    code: u32,
    /// Why, for developers
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RefreshArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    life: LifeArgs,
    /// What others are shown about them from now on: any JSON value
    #[arg(long, value_name = "JSON", value_parser = json)]
    info: Option<Box<RawValue>>,
    #[command(flatten)]
    api: ApiArgs,
}

/// How long connections live on. It has to be said, as saying nothing would mean for ever.
#[derive(Debug, Args)]
#[group(id = "life", required = true, multiple = false)]
struct LifeArgs {
    /// How long from now, such as 90s or 10m; 0 for ever
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    ttl: Option<Duration>,
    /// Until then, in Unix seconds; 0 for ever
    #[arg(long, value_name = "SECONDS")]
    expire_at: Option<u64>,
    /// Not at all: they are closed with 3005, and come back with a new token if they get one
    #[arg(long)]
    expired: bool,
}

/// Shorter than it would be by itself.
pub(super) const REFRESH_USAGE: &str =
    "tautline refresh [OPTIONS] <--user|--client|--session> <--ttl|--expire-at|--expired>";

pub(super) const REFRESH_AFTER_HELP: &str = "\
Examples:
  tautline refresh --user 7 --ttl 1h
  tautline refresh --user 7 --ttl 0 --info '{\"name\":\"Ann\"}'
  tautline refresh --client 8d1f6a1e-2b1c-4f6e-9d3a-0c1b2a3d4e5f --expired";

pub(super) async fn publish(args: &PublishArgs) -> Result<(), CliError> {
    let (data, b64data) = args.message.payload(&args.data)?;
    let message = args.message.with(data.as_deref(), b64data.as_deref());
    let parameters = Publish {
        channel: Some(&args.channel),
        channels: None,
        ..message
    };
    let api = &args.message.api;
    let result = call(api, "publish", &parameters).await?;
    show::result::<Position>(Reader::of(&api.server), &result)
}

pub(super) async fn broadcast(args: &BroadcastArgs) -> Result<(), CliError> {
    let (data, b64data) = args.message.payload(&args.data)?;
    let message = args.message.with(data.as_deref(), b64data.as_deref());
    let parameters = Publish {
        channel: None,
        channels: Some(&args.channels),
        ..message
    };
    let api = &args.message.api;
    let result = call(api, "broadcast", &parameters).await?;
    let read: Broadcast = serde_json::from_str(result.get()).map_err(|error| {
        CliError::Failure(format!("the result is not what it should be: {error}"))
    })?;
    let mut failures = 0;
    let mut text = String::new();
    for (channel, response) in args.channels.iter().zip(&read.responses) {
        let told = match response {
            Response::Error(refusal) => {
                failures += 1;
                let message = clean(&refusal.message);
                format!("not published: {message} (error {})\n", refusal.code)
            }
            Response::Result(position) => position.show(),
        };
        text.push_str(&format!("{}: {told}", clean(channel)));
    }
    match Reader::of(&api.server) {
        Reader::Person => show::print(&text)?,
        Reader::Program => show::print(&format!("{}\n", result.get()))?,
    }
    match failures {
        0 => Ok(()),
        count => Err(CliError::Failure(format!(
            "not published into {count} of {} channels",
            args.channels.len()
        ))),
    }
}

pub(super) async fn disconnect(args: &DisconnectArgs) -> Result<(), CliError> {
    let parameters = Disconnect {
        target: args.target.parameters(),
        whitelist: &args.whitelist,
        disconnect: Told {
            code: args.code,
            reason: &args.reason,
        },
    };
    let done = "done: whoever of them was here is disconnected\n";
    change(&args.api, "disconnect", &parameters, done).await
}

pub(super) async fn subscribe_user(args: &SubscribeUserArgs) -> Result<(), CliError> {
    let since = args.recover_since.as_ref();
    let parameters = Subscribe {
        target: args.target.parameters(),
        channel: &args.channel,
        info: args.info.as_deref(),
        data: args.data.as_deref(),
        recover_since: since.map(|(offset, epoch)| Since {
            offset: *offset,
            epoch,
        }),
        expire_at: expire_at(args.ttl, args.expire_at)?,
    };
    let done = "done: whoever of them is here is subscribed\n";
    change(&args.api, "subscribe", &parameters, done).await
}

pub(super) async fn unsubscribe(args: &UnsubscribeArgs) -> Result<(), CliError> {
    let parameters = Unsubscribe {
        target: args.target.parameters(),
        channel: &args.channel,
        unsubscribe: Told {
            code: args.code,
            reason: &args.reason,
        },
    };
    let done = "done: nobody of them is subscribed any more\n";
    change(&args.api, "unsubscribe", &parameters, done).await
}

pub(super) async fn refresh(args: &RefreshArgs) -> Result<(), CliError> {
    let LifeArgs {
        ttl,
        expire_at: at,
        expired,
    } = args.life;
    let parameters = Refresh {
        target: args.target.parameters(),
        expired,
        expire_at: expire_at(ttl, at)?,
        info: args.info.as_deref(),
    };
    let done = match expired {
        true => "done: whoever of them was here has to come again\n",
        false => "done: whoever of them is here is refreshed\n",
    };
    change(&args.api, "refresh", &parameters, done).await
}

/// Calls what has nothing to tell but that it is done.
async fn change(
    api: &ApiArgs,
    method: &str,
    parameters: &impl Serialize,
    done: &str,
) -> Result<(), CliError> {
    let result = call(api, method, parameters).await?;
    match Reader::of(&api.server) {
        Reader::Program => show::print(&format!("{}\n", result.get())),
        Reader::Person => show::print(done),
    }
}

impl MessageArgs {
    /// The payload, as `data` or as `b64data`.
    fn payload(&self, data: &str) -> Result<(Option<Box<RawValue>>, Option<String>), CliError> {
        let mut text = data.to_owned();
        if text == "-" {
            text.clear();
            io::stdin()
                .take(MAX_INPUT)
                .read_to_string(&mut text)
                .map_err(|error| CliError::Failure(format!("can't read the message: {error}")))?;
        }
        if self.b64 {
            // Lines of base64 may be broken, as those of `base64` are.
            text.retain(|char| !char.is_ascii_whitespace());
            STANDARD.decode(&text).map_err(|error| {
                CliError::Usage(format!(
                    "the message is not base64 (RFC 4648, with padding): {error}"
                ))
            })?;
            return Ok((None, Some(text)));
        }
        let json = if self.text {
            serde_json::value::to_raw_value(&text)
        } else {
            // As it was written: numbers may have more digits than a program keeps.
            serde_json::from_str(text.trim())
        };
        let json = json.map_err(|error| {
            CliError::Usage(format!(
                "the message is not JSON: {error}. Use --text to publish plain text"
            ))
        })?;
        Ok((Some(json), None))
    }

    /// The parameters, but for the channels.
    fn with<'a>(&'a self, data: Option<&'a RawValue>, b64data: Option<&'a str>) -> Publish<'a> {
        let tags = self.tags.iter();
        Publish {
            channel: None,
            channels: None,
            data,
            b64data,
            tags: tags.map(|(key, value)| (&**key, &**value)).collect(),
            idempotency_key: self.idempotency_key.as_deref(),
            skip_history: self.skip_history,
            delta: self.delta,
            version: self.version,
            version_epoch: self.version_epoch.as_deref(),
            exclude_client: self.exclude_client.as_deref(),
        }
    }
}

impl TargetArgs {
    fn parameters(&self) -> Target<'_> {
        Target {
            user: self.user.as_deref(),
            client: self.client.as_deref(),
            session: self.session.as_deref(),
        }
    }
}

/// When something ends, in Unix seconds, from how long it lives: 0 for never.
fn expire_at(ttl: Option<Duration>, at: Option<u64>) -> Result<Option<u64>, CliError> {
    let Some(ttl) = ttl else {
        return Ok(at);
    };
    if ttl.is_zero() {
        return Ok(Some(0));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_err(|_| CliError::Failure("this machine's clock is before 1970".into()))?;
    Ok(Some(now.saturating_add(ttl).as_secs()))
}

#[derive(Serialize)]
struct Publish<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    b64data: Option<&'a str>,
    tags: BTreeMap<&'a str, &'a str>,
    idempotency_key: Option<&'a str>,
    skip_history: bool,
    delta: bool,
    version: Option<u64>,
    version_epoch: Option<&'a str>,
    exclude_client: Option<&'a str>,
}

#[derive(Serialize)]
struct Target<'a> {
    user: Option<&'a str>,
    client: Option<&'a str>,
    session: Option<&'a str>,
}

/// What clients are told.
#[derive(Serialize)]
struct Told<'a> {
    code: u32,
    reason: &'a str,
}

#[derive(Serialize)]
struct Disconnect<'a> {
    #[serde(flatten)]
    target: Target<'a>,
    whitelist: &'a [String],
    disconnect: Told<'a>,
}

#[derive(Serialize)]
struct Unsubscribe<'a> {
    #[serde(flatten)]
    target: Target<'a>,
    channel: &'a str,
    unsubscribe: Told<'a>,
}

#[derive(Serialize)]
struct Subscribe<'a> {
    #[serde(flatten)]
    target: Target<'a>,
    channel: &'a str,
    info: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    recover_since: Option<Since<'a>>,
    expire_at: Option<u64>,
}

#[derive(Serialize)]
struct Since<'a> {
    offset: u64,
    epoch: &'a str,
}

#[derive(Serialize)]
struct Refresh<'a> {
    #[serde(flatten)]
    target: Target<'a>,
    expired: bool,
    expire_at: Option<u64>,
    info: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Broadcast {
    responses: Vec<Response>,
}

/// What has come of it in one channel.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Response {
    Result(Position),
    Error(Refusal),
}

#[derive(Deserialize)]
struct Refusal {
    code: u32,
    message: String,
}

fn tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn json(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("{error}; expected JSON such as '{{\"name\":\"Ann\"}}'"))
}

/// Longest message from standard input, in bytes: no server takes one that is longer.
const MAX_INPUT: u64 = 64 * 1024 * 1024;

//! The commands that ask a running server: `publish`, `subscribe`, `presence`, `history`,
//! `channels`, `trace`, `disconnect`, `events`, `info` and `config reload`; and `lab`, which brings one of its own.
//!
//! They are clients like any other: of the HTTP API, but for `subscribe`, which speaks the client
//! protocol over a WebSocket. A person at a terminal is shown text, a program JSON, a line each.

pub(super) mod args;
pub(super) mod call;
mod events;
mod lab;
pub(super) mod show;
mod subscribe;
mod trace;

use std::collections::BTreeMap;
use std::io::{self, Read as _};

use serde_json::json;
use serde_json::value::RawValue;

use self::args::{ApiArgs, ClientCommand, DisconnectArgs, HistoryArgs, PublishArgs, RevokeArgs};
use self::call::call;
use self::show::{Channels, History, Info, Position, Presence, Reader, Reloaded, Revoked, Stats};
use super::error::CliError;

/// Does what the command says.
pub(super) fn run(command: &ClientCommand) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        match command {
            ClientCommand::Publish(args) => publish(args).await,
            ClientCommand::Subscribe(args) => subscribe::run(args).await,
            ClientCommand::Presence {
                channel,
                stats,
                api,
            } => presence(channel, *stats, api).await,
            ClientCommand::History(args) => history(args).await,
            ClientCommand::Lab(args) => lab::run(args).await,
            ClientCommand::Channels { pattern, api } => {
                let result = call(api, "channels", &json!({"pattern": pattern})).await?;
                show::result::<Channels>(Reader::of(&api.server), &result)
            }
            ClientCommand::Trace(args) => trace::run(args).await,
            ClientCommand::Disconnect(args) => disconnect(args).await,
            ClientCommand::Events { command } => events::run(command).await,
            ClientCommand::Revoke(args) => revoke(args).await,
            ClientCommand::Info { api } => {
                let result = call(api, "info", &json!({})).await?;
                show::result::<Info>(Reader::of(&api.server), &result)
            }
        }
    });
    match outcome {
        Err(CliError::NobodyReads) => Ok(()),
        outcome => outcome,
    }
}

/// Has a server read its configuration again.
pub(super) fn reload(api: &ApiArgs) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(call(api, "reload", &json!({})))?;
    match show::result::<Reloaded>(Reader::of(&api.server), &result) {
        Err(CliError::NobodyReads) => Ok(()),
        outcome => outcome,
    }
}

async fn publish(args: &PublishArgs) -> Result<(), CliError> {
    let mut data = args.data.clone();
    if data == "-" {
        data.clear();
        io::stdin()
            .take(MAX_INPUT)
            .read_to_string(&mut data)
            .map_err(|error| CliError::Failure(format!("can't read the message: {error}")))?;
    }
    let data = if args.text {
        json!(data)
    } else {
        serde_json::from_str(&data).map_err(|error| {
            CliError::Usage(format!(
                "the message is not JSON: {error}. Use --text to publish plain text"
            ))
        })?
    };
    let tags: BTreeMap<_, _> = args.tags.iter().cloned().collect();
    let parameters = json!({
        "channel": args.channel,
        "data": data,
        "tags": tags,
        "idempotency_key": args.idempotency_key,
        "skip_history": args.skip_history,
    });
    let result = call(&args.api, "publish", &parameters).await?;
    show::result::<Position>(Reader::of(&args.api.server), &result)
}

async fn presence(channel: &str, stats: bool, api: &ApiArgs) -> Result<(), CliError> {
    let parameters = json!({"channel": channel});
    let reader = Reader::of(&api.server);
    if stats {
        let result = call(api, "presence_stats", &parameters).await?;
        return show::result::<Stats>(reader, &result);
    }
    let result = call(api, "presence", &parameters).await?;
    show::result::<Presence>(reader, &result)
}

async fn history(args: &HistoryArgs) -> Result<(), CliError> {
    let since = args.since.as_ref();
    let since = since.map(|(offset, epoch)| json!({"offset": offset, "epoch": epoch}));
    let parameters = json!({
        "channel": args.channel,
        "limit": args.limit,
        "since": since,
        "reverse": args.reverse,
    });
    let result: Box<RawValue> = call(&args.api, "history", &parameters).await?;
    show::result::<History>(Reader::of(&args.api.server), &result)
}

async fn disconnect(args: &DisconnectArgs) -> Result<(), CliError> {
    let mut parameters = json!({
        "disconnect": {"code": args.code, "reason": args.reason},
    });
    for (name, value) in [("user", &args.user), ("client", &args.client)] {
        if let Some(value) = value {
            parameters[name] = json!(value);
        }
    }
    let result = call(&args.api, "disconnect", &parameters).await?;
    match Reader::of(&args.api.server) {
        Reader::Program => show::print(&format!("{}\n", result.get())),
        Reader::Person => show::print("done: whoever of them was here is disconnected\n"),
    }
}

async fn revoke(args: &RevokeArgs) -> Result<(), CliError> {
    let RevokeArgs {
        token,
        user,
        client,
        issued_before,
        expire_at,
        api,
    } = args;
    let (method, name, value) = match (token, user, client) {
        (Some(token), ..) => ("revoke_token", "uid", token),
        (_, Some(user), _) => ("invalidate_user_tokens", "user", user),
        (.., Some(client)) => ("revoke_client", "client", client),
        // The command line was refused.
        (None, None, None) => return Ok(()),
    };
    let mut parameters = json!({ name: value, "expire_at": expire_at });
    if let Some(issued_before) = issued_before {
        parameters["issued_before"] = json!(issued_before);
    }
    let result = call(api, method, &parameters).await?;
    show::result::<Revoked>(Reader::of(&api.server), &result)
}

/// Longest message from standard input, in bytes: no server takes one that is longer.
const MAX_INPUT: u64 = 64 * 1024 * 1024;

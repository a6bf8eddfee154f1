//! The commands that ask a running server: `subscribe`, `presence`, `history`, `channels`, `trace`, `events`,
//! `info` and `config reload`; those that publish, and that change what connections have ([`manage`]); and
//! `lab`, which brings a server of its own.
//!
//! They are clients like any other: of the HTTP API, but for `subscribe`, which speaks the client
//! protocol over a WebSocket. A person at a terminal is shown text, a program JSON, a line each.

pub(super) mod args;
pub(super) mod call;
mod events;
mod lab;
mod manage;
mod paint;
pub(super) mod show;
mod subscribe;
mod trace;

use http::StatusCode;
use serde_json::json;
use serde_json::value::RawValue;

use self::args::{ApiArgs, ClientCommand, HistoryArgs, RevokeArgs, ServerArgs};
use self::call::call;
use self::show::{Channels, History, Info, Presence, Reader, Reloaded, Report, Revoked, Stats};
use super::error::CliError;

/// Does what the command says.
pub(super) fn run(command: &ClientCommand) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        match command {
            ClientCommand::Publish(args) => manage::publish(args).await,
            ClientCommand::Broadcast(args) => manage::broadcast(args).await,
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
            ClientCommand::Disconnect(args) => manage::disconnect(args).await,
            ClientCommand::SubscribeUser(args) => manage::subscribe_user(args).await,
            ClientCommand::Unsubscribe(args) => manage::unsubscribe(args).await,
            ClientCommand::Refresh(args) => manage::refresh(args).await,
            ClientCommand::Events { command } => events::run(command).await,
            ClientCommand::Revoke(args) => revoke(args).await,
            ClientCommand::Health { ready, server } => health(*ready, server).await,
            ClientCommand::Info { debug: false, api } => {
                let result = call(api, "info", &json!({})).await?;
                show::result::<Info>(Reader::of(&api.server), &result)
            }
            ClientCommand::Info { debug: true, api } => {
                let result = call(api, "debug", &json!({})).await?;
                show::result::<Report>(Reader::of(&api.server), &result)
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

async fn health(ready: bool, args: &ServerArgs) -> Result<(), CliError> {
    let path = if ready { "/ready" } else { "/health" };
    let (status, body) = call::get(&args.url, path).await?;
    if status != StatusCode::OK {
        let told = show::beginning(&body);
        return Err(CliError::Failure(format!(
            "{path} is answered with {status}: {told}"
        )));
    }
    match (Reader::of(args), ready) {
        (Reader::Program, _) => show::print("{}\n"),
        (Reader::Person, true) => show::print("the server is up, and takes clients\n"),
        (Reader::Person, false) => show::print("the server is up\n"),
    }
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
        "limit": if args.all { -1 } else { args.limit },
        "since": since,
        "reverse": args.reverse,
    });
    let result: Box<RawValue> = call(&args.api, "history", &parameters).await?;
    show::result::<History>(Reader::of(&args.api.server), &result)
}

async fn revoke(args: &RevokeArgs) -> Result<(), CliError> {
    let RevokeArgs {
        token,
        user,
        client,
        channel,
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
    if let Some(channel) = channel {
        parameters["channel"] = json!(channel);
    }
    if let Some(issued_before) = issued_before {
        parameters["issued_before"] = json!(issued_before);
    }
    let result = call(api, method, &parameters).await?;
    show::result::<Revoked>(Reader::of(&api.server), &result)
}

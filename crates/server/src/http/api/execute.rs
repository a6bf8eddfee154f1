//! Does what a command says, and writes its result.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use tautline_hub::ApiPublish;
use tautline_protocol::ErrorCode;
use tautline_protocol::json::{encode_history, encode_result};
use tautline_protocol::message::{
    Error, HistoryResult, Response as ProtocolResult, StreamPosition,
};

use super::ApiLimits;
use super::audit::{About, Audit, AuditLog};
use super::command::Command;
use super::dead;
use super::error::{explained, write_error};
use super::join::join_all;
use super::key::ApiKey;
use super::method::Method;
use super::presence;
use crate::config::Change;
use crate::http::node::{Node, NodeInfo};
use crate::reload::{ReloadError, Reloaded};
use crate::revocations::Revoked;
use crate::telemetry::Followed;

/// How many of a call's operations are under way at a time. Between two lots, other work of the
/// thread has its turn.
pub(super) const AT_ONCE: usize = 1024;

/// Who calls: with which key, and from where.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) key: &'a ApiKey,
    pub(super) address: Option<IpAddr>,
}

/// Who calls, and within what.
pub(super) struct Caller<'a> {
    pub(super) who: Who<'a>,
    pub(super) audit: &'a Audit,
    pub(super) audit_log: AuditLog,
    pub(super) limits: &'a ApiLimits,
    /// Where what is published is followed, and how many more publications are.
    pub(super) followed: Option<(Followed, Cell<usize>)>,
}

impl Caller<'_> {
    /// Publishes, and follows it if that is wanted.
    async fn publish<N: Node>(
        &self,
        request: ApiPublish,
        node: &N,
    ) -> Result<Option<StreamPosition>, Error> {
        if let Some((followed, left)) = &self.followed
            && left.get() > 0
        {
            left.set(left.get() - 1);
            let delivery = followed.publish(&request.channel);
            return node.publish_followed(request, delivery).await;
        }
        node.publish(request).await
    }

    /// The key isn't good for it.
    fn refused(&self, method: &str, about: impl FnOnce() -> About, reason: &dyn Display) {
        if self.audit_log == AuditLog::None {
            return;
        }
        let Who { key, address } = self.who;
        self.audit
            .refused(address, Some(key.name()), method, about, reason);
    }
}

/// Does it, and returns the result, without the `result` around it. It is counted.
pub(super) async fn execute<N: Node>(
    command: Command,
    caller: &Caller<'_>,
    node: &N,
) -> Result<Vec<u8>, Error> {
    let (method, start) = (command.method().name(), Instant::now());
    let who = caller.who;
    if let Err(refusal) = who.key.scope().check(&command) {
        caller.refused(method, || About::command(&command), &refusal);
        let text = format!("{refusal} (the key's name is {})", who.key.name());
        let error = explained(ErrorCode::PermissionDenied, text);
        node.count_call(|calls| calls.executed(method, error.code, start.elapsed()));
        return Err(error);
    }
    let mut entry = caller.audit_log.entry(&command);
    if method == Method::Reload.name()
        && let Some(entry) = entry.take()
    {
        // It may be the end of the log. What comes of it is told by itself.
        entry.write(who, None);
    }
    let result = execute_uncounted(command, caller, node).await;
    let code = result.as_ref().err().map_or(0, |error| error.code);
    if let Some(entry) = entry {
        entry.write(who, Some(code));
    }
    node.count_call(|calls| calls.executed(method, code, start.elapsed()));
    result
}

async fn execute_uncounted<N: Node>(
    command: Command,
    caller: &Caller<'_>,
    node: &N,
) -> Result<Vec<u8>, Error> {
    match command {
        Command::Broadcast { channels, publish } => {
            Ok(broadcast(channels, &publish, caller, node).await)
        }
        Command::Channels { pattern } => {
            let channels = node.channels(pattern).await?;
            channels_json(channels, caller)
        }
        Command::DeadEvents { which, from, limit } => {
            dead::page(&node.dead_events(which, from, limit).await?)
        }
        Command::Debug => json(&node.report().await),
        Command::Disconnect {
            target,
            spared,
            disconnect,
        } => done(node.disconnect(target, spared, disconnect).await),
        Command::History(request) => {
            let result = node.history(request).await?;
            Ok(history_result(&result))
        }
        Command::HistoryRemove(channel) => done(node.history_remove(channel).await),
        Command::Info => {
            let nodes = node.info().await?;
            let nodes = nodes.iter().map(NodeView::from).collect();
            json(&InfoResult { nodes })
        }
        Command::Presence { request, is_page } => {
            let list = node.presence(request).await?;
            Ok(presence::result(list, is_page))
        }
        Command::PresenceStats(channel) => {
            let result = node.presence_stats(channel).await?;
            Ok(protocol_result(&ProtocolResult::PresenceStats(result)))
        }
        Command::Publish(request) => {
            let mut out = Vec::new();
            let position = caller.publish(request, node).await?;
            write_position(position.as_ref(), &mut out);
            Ok(out)
        }
        Command::Refresh { target, request } => done(node.refresh(target, request).await),
        Command::Reload => reloaded(node.reload().await),
        Command::Revoke(what) => {
            let Revoked {
                connections,
                subscriptions,
                persisted,
            } = node.revoke(what).await?;
            json(&RevokeResult {
                connections,
                subscriptions,
                persisted,
            })
        }
        Command::Rpc { method, params } => {
            let data = node.rpc(method, params).await?;
            let result = tautline_protocol::message::RpcResult { data };
            Ok(protocol_result(&ProtocolResult::Rpc(result)))
        }
        Command::SettleDeadEvents { which, again } => {
            let count = node.settle_dead_events(which, again).await?;
            json(&CountResult { count })
        }
        Command::Subscribe { target, request } => done(node.subscribe(target, request).await),
        Command::Unsubscribe {
            target,
            channel,
            unsubscribe,
        } => done(node.unsubscribe(target, channel, unsubscribe).await),
    }
}

/// Publishes into each channel, and writes one response each, in the same order. Failures stay with
/// their channel: the call as a whole succeeds.
async fn broadcast<N: Node>(
    channels: Vec<String>,
    publish: &ApiPublish,
    caller: &Caller<'_>,
    node: &N,
) -> Vec<u8> {
    let publish = |channel: String| async move {
        let scope = caller.who.key.scope();
        if let Err(refusal) = scope.check_channel(&channel) {
            caller.refused("broadcast", || About::channel(&channel), &refusal);
            let text = refusal.to_string();
            return Err(explained(ErrorCode::PermissionDenied, text));
        }
        let publish = ApiPublish {
            channel,
            ..publish.clone()
        };
        caller.publish(publish, node).await
    };
    let mut out = br#"{"responses":["#.to_vec();
    let mut first = true;
    let mut channels = channels.into_iter().peekable();
    while channels.peek().is_some() {
        let lot = channels.by_ref().take(AT_ONCE).map(publish);
        for outcome in join_all(lot).await {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            match outcome {
                Ok(position) => {
                    out.extend_from_slice(br#"{"result":"#);
                    write_position(position.as_ref(), &mut out);
                    out.push(b'}');
                }
                Err(error) => write_error(&error, &mut out),
            }
        }
        tokio::task::yield_now().await;
    }
    out.extend_from_slice(b"]}");
    out
}

/// What has changed, or why nothing has.
fn reloaded(result: Result<Reloaded, ReloadError>) -> Result<Vec<u8>, Error> {
    let error = match result {
        Ok(Reloaded { changes, warnings }) => return json(&ReloadResult { changes, warnings }),
        Err(error) => error,
    };
    let code = match &error {
        ReloadError::NoFile => ErrorCode::NotAvailable,
        ReloadError::Config(_) | ReloadError::HandlerAndProxies | ReloadError::Events(_) => {
            ErrorCode::BadRequest
        }
        _ => ErrorCode::Internal,
    };
    Err(explained(code, error.to_string()))
}

fn done(result: Result<(), Error>) -> Result<Vec<u8>, Error> {
    result.map(|()| b"{}".to_vec())
}

fn json(result: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(result).map_err(|_| ErrorCode::Internal.into())
}

/// A payload that isn't JSON is told as base64, the way it would be published.
fn history_result(result: &HistoryResult) -> Vec<u8> {
    let mut out = Vec::new();
    encode_history(result, |data| STANDARD.encode(data), &mut out);
    out
}

pub(super) fn protocol_result(result: &ProtocolResult) -> Vec<u8> {
    let mut out = Vec::new();
    encode_result(result, &mut out);
    out
}

/// `{"offset":14,"epoch":"hKqPwZbd"}`, or `{}` for a publication that has no position.
fn write_position(position: Option<&StreamPosition>, out: &mut Vec<u8>) {
    let position = position.map(|StreamPosition { offset, epoch }| PositionView {
        offset: *offset,
        epoch,
    });
    match position.map(|position| serde_json::to_vec(&position)) {
        Some(Ok(json)) => out.extend_from_slice(&json),
        _ => out.extend_from_slice(b"{}"),
    }
}

/// Of the channels those that the key may know of, within the limit.
fn channels_json(
    mut channels: BTreeMap<Arc<str>, u64>,
    caller: &Caller<'_>,
) -> Result<Vec<u8>, Error> {
    let scope = caller.who.key.scope();
    channels.retain(|channel, _| scope.check_channel(channel).is_ok());
    let (most, found) = (caller.limits.max_listed_channels, channels.len());
    if found > most {
        let text = format!(
            "{found} channels match, at most {most} are listed (http_api.max_listed_channels); \
             ask with a narrower `pattern`"
        );
        return Err(explained(ErrorCode::LimitExceeded, text));
    }
    let channels = channels.iter();
    let channels = channels.map(|(channel, count)| {
        let num_clients = *count;
        (&**channel, ChannelView { num_clients })
    });
    json(&ChannelsResult {
        channels: channels.collect(),
    })
}

#[derive(Serialize)]
struct PositionView<'a> {
    offset: u64,
    epoch: &'a str,
}

#[derive(Serialize)]
struct ChannelsResult<'a> {
    channels: BTreeMap<&'a str, ChannelView>,
}

#[derive(Serialize)]
struct CountResult {
    count: usize,
}

#[derive(Serialize)]
struct ChannelView {
    num_clients: u64,
}

#[derive(Serialize)]
struct ReloadResult {
    changes: Vec<Change>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct RevokeResult {
    connections: usize,
    subscriptions: usize,
    persisted: bool,
}

#[derive(Serialize)]
struct InfoResult<'a> {
    nodes: Vec<NodeView<'a>>,
}

#[derive(Serialize)]
struct NodeView<'a> {
    uid: &'a str,
    name: &'a str,
    version: &'a str,
    num_clients: u64,
    num_users: u64,
    num_channels: u64,
    num_subs: u64,
    uptime: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<MetricsView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<ProcessView>,
}

#[derive(Serialize)]
struct MetricsView<'a> {
    interval: u64,
    items: &'a BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct ProcessView {
    cpu: f64,
    rss: u64,
}

impl<'a> From<&'a NodeInfo> for NodeView<'a> {
    fn from(node: &'a NodeInfo) -> Self {
        Self {
            uid: &node.uid,
            name: &node.name,
            version: &node.version,
            num_clients: node.num_clients,
            num_users: node.num_users,
            num_channels: node.num_channels,
            num_subs: node.num_subs,
            uptime: node.uptime,
            metrics: node.metrics.as_ref().map(|metrics| MetricsView {
                interval: metrics.interval,
                items: &metrics.items,
            }),
            process: node.process.map(|process| ProcessView {
                cpu: process.cpu,
                rss: process.rss,
            }),
        }
    }
}

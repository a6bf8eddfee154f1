//! A command: a method with its parameters, read and checked.

use bytes::Bytes;
use tautline_hub::{ApiPublish, ApiRefresh, ApiSubscribe, Target};
use tautline_protocol::message::{Disconnect, Unsubscribe};

use super::ApiLimits;
use super::control;
use super::dead;
use super::error::Failure;
use super::method::Method;
use super::params;
use super::revoke;
use crate::events::DeadEvents;
use crate::glob::Glob;
use crate::http::node::{History, Presence};
use crate::revocations::Revoke;

/// What is to be done. A batch is several of these.
#[derive(Debug)]
pub(super) enum Command {
    Broadcast {
        channels: Vec<String>,
        /// For a channel that is still to be filled in.
        publish: ApiPublish,
    },
    Channels {
        pattern: Option<Glob>,
    },
    DeadEvents {
        which: DeadEvents,
        from: u64,
        limit: usize,
    },
    Debug,
    Disconnect {
        target: Target,
        spared: Vec<String>,
        disconnect: Disconnect,
    },
    History(History),
    HistoryRemove(String),
    Info,
    Presence {
        request: Presence,
        /// A page was asked for.
        is_page: bool,
    },
    PresenceStats(String),
    Publish(ApiPublish),
    Refresh {
        target: Target,
        request: ApiRefresh,
    },
    Reload,
    Revoke(Revoke),
    Rpc {
        method: String,
        params: Bytes,
    },
    /// Sends them again, or drops them.
    SettleDeadEvents {
        which: DeadEvents,
        again: bool,
    },
    Subscribe {
        target: Target,
        request: ApiSubscribe,
    },
    Unsubscribe {
        target: Target,
        channel: String,
        unsubscribe: Unsubscribe,
    },
}

impl Command {
    /// Reads the parameters of a method. A batch is no command, and what goes on is none: error 104.
    pub(super) fn parse(method: Method, body: &[u8], limits: &ApiLimits) -> Result<Self, Failure> {
        Ok(match method {
            Method::Batch | Method::Trace => {
                return Err(tautline_protocol::ErrorCode::MethodNotFound.into());
            }
            Method::Broadcast => params::broadcast(body, limits)?,
            Method::Channels => control::channels(body)?,
            Method::DeadEvents => dead::list(body)?,
            Method::DeadEventsDrop => dead::settle(body, false)?,
            Method::DeadEventsRetry => dead::settle(body, true)?,
            Method::Debug => params::none(body).map(|()| Self::Debug)?,
            Method::Disconnect => control::disconnect(body)?,
            Method::History => Self::History(params::history(body)?),
            Method::HistoryRemove => Self::HistoryRemove(params::channel(body)?),
            Method::Info => params::none(body).map(|()| Self::Info)?,
            Method::Presence => {
                let (request, is_page) = params::presence(body)?;
                Self::Presence { request, is_page }
            }
            Method::PresenceStats => Self::PresenceStats(params::channel(body)?),
            Method::Publish => Self::Publish(params::publish(body)?),
            Method::Refresh => control::refresh(body)?,
            Method::Reload => params::none(body).map(|()| Self::Reload)?,
            Method::InvalidateUserTokens => revoke::user(body)?,
            Method::RevokeClient => revoke::client(body)?,
            Method::RevokeToken => revoke::token(body)?,
            Method::Rpc => control::rpc(body)?,
            Method::Subscribe => control::subscribe(body)?,
            Method::Unsubscribe => control::unsubscribe(body)?,
        })
    }

    pub(super) fn method(&self) -> Method {
        match self {
            Self::Broadcast { .. } => Method::Broadcast,
            Self::Channels { .. } => Method::Channels,
            Self::DeadEvents { .. } => Method::DeadEvents,
            Self::Debug => Method::Debug,
            Self::Disconnect { .. } => Method::Disconnect,
            Self::History(_) => Method::History,
            Self::HistoryRemove(_) => Method::HistoryRemove,
            Self::Info => Method::Info,
            Self::Presence { .. } => Method::Presence,
            Self::PresenceStats(_) => Method::PresenceStats,
            Self::Publish(_) => Method::Publish,
            Self::Refresh { .. } => Method::Refresh,
            Self::Reload => Method::Reload,
            Self::Revoke(Revoke::Client { .. }) => Method::RevokeClient,
            Self::Revoke(Revoke::Token { .. }) => Method::RevokeToken,
            Self::Revoke(Revoke::User { .. } | Revoke::UserChannel { .. }) => {
                Method::InvalidateUserTokens
            }
            Self::Rpc { .. } => Method::Rpc,
            Self::SettleDeadEvents { again: true, .. } => Method::DeadEventsRetry,
            Self::SettleDeadEvents { again: false, .. } => Method::DeadEventsDrop,
            Self::Subscribe { .. } => Method::Subscribe,
            Self::Unsubscribe { .. } => Method::Unsubscribe,
        }
    }

    /// The one channel that it is about, if it is about one.
    pub(super) fn channel(&self) -> Option<&str> {
        match self {
            Self::History(History { channel, .. })
            | Self::Publish(ApiPublish { channel, .. })
            | Self::HistoryRemove(channel)
            | Self::PresenceStats(channel)
            | Self::Unsubscribe { channel, .. } => Some(channel),
            Self::Presence { request, .. } => Some(&request.channel),
            Self::Subscribe { request, .. } => Some(&request.channel),
            Self::Broadcast { .. }
            | Self::Channels { .. }
            | Self::DeadEvents { .. }
            | Self::Debug
            | Self::Disconnect { .. }
            | Self::Info
            | Self::Refresh { .. }
            | Self::Reload
            | Self::Revoke(_)
            | Self::Rpc { .. }
            | Self::SettleDeadEvents { .. } => None,
        }
    }

    /// The connections that it changes, if it changes any.
    pub(super) fn target(&self) -> Option<&Target> {
        match self {
            Self::Disconnect { target, .. }
            | Self::Refresh { target, .. }
            | Self::Subscribe { target, .. }
            | Self::Unsubscribe { target, .. } => Some(target),
            _ => None,
        }
    }
}

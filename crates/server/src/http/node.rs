//! What the HTTP side needs from the rest of the server.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::Full;
use tautline_hub::{ApiPublish, ApiRefresh, ApiSubscribe, PresenceList, Target};
use tautline_protocol::ErrorCode;
use tautline_protocol::message::{
    Disconnect, Error, HistoryResult, Payload, PresenceStatsResult, StreamPosition, Unsubscribe,
};

use super::Settings;
use super::admin::{Report, Sessions};
use super::api::dead;
use super::counters::HttpCounters;
use super::line::HttpLine;
use super::metrics::{CallCounters, Snapshot};
use super::respond::{Reply, ReplyBody, Response};
use crate::client_address::Seen;
use crate::http::RequestBody;
use crate::telemetry::Delivery;

use crate::events::{DeadEvents, DeadPage};
use crate::glob::Glob;
use crate::reload::{ReloadError, Reloaded};
use crate::revocations::{Revoke, Revoked};
use crate::trace::{TraceBody, TraceRequest};

/// The operations behind the HTTP API. Implemented by each worker over its hub; by a fake in the
/// tests of this module.
///
/// Futures stay on the worker's thread, so they need not be `Send`. Errors are the protocol's; the
/// API answers with their code and text.
pub trait Node: 'static {
    /// The same answer, whose bytes count among those that wait for clients until they are taken. Ending `line` gives it up.
    fn hold(&self, response: &mut http::Response<ReplyBody>, line: &Rc<HttpLine>) {
        let _ = (response, line);
    }

    /// Publishes into one channel. `Some` position if the channel's history has the publication,
    /// `None` if the channel keeps no history or `skip_history` was asked for.
    fn publish(
        &self,
        request: ApiPublish,
    ) -> impl Future<Output = Result<Option<StreamPosition>, Error>>;

    /// The same, where somebody wants to know when it was written.
    fn publish_followed(
        &self,
        request: ApiPublish,
        delivery: Delivery,
    ) -> impl Future<Output = Result<Option<StreamPosition>, Error>> {
        drop(delivery);
        self.publish(request)
    }

    /// Who is in a channel, or some of them.
    fn presence(&self, request: Presence) -> impl Future<Output = Result<PresenceList, Error>>;

    /// How many are in a channel.
    fn presence_stats(
        &self,
        channel: String,
    ) -> impl Future<Output = Result<PresenceStatsResult, Error>>;

    /// A page of a channel's history.
    fn history(&self, request: History) -> impl Future<Output = Result<HistoryResult, Error>>;

    /// Drops what a channel's history holds. Its position goes on.
    fn history_remove(&self, channel: String) -> impl Future<Output = Result<(), Error>>;

    /// Subscribes connections to a channel; done when all subscriptions have begun.
    fn subscribe(
        &self,
        target: Target,
        request: ApiSubscribe,
    ) -> impl Future<Output = Result<(), Error>>;

    /// Ends subscriptions to a channel.
    fn unsubscribe(
        &self,
        target: Target,
        channel: String,
        unsubscribe: Unsubscribe,
    ) -> impl Future<Output = Result<(), Error>>;

    /// Ends connections, but for those whose ids are in `spared`.
    fn disconnect(
        &self,
        target: Target,
        spared: Vec<String>,
        disconnect: Disconnect,
    ) -> impl Future<Output = Result<(), Error>>;

    /// Prolongs connections, or shortens them.
    fn refresh(
        &self,
        target: Target,
        request: ApiRefresh,
    ) -> impl Future<Output = Result<(), Error>>;

    /// Has tokens count no more. Without tokens, 108.
    fn revoke(&self, what: Revoke) -> impl Future<Output = Result<Revoked, Error>> {
        drop(what);
        std::future::ready(Err(ErrorCode::NotAvailable.into()))
    }

    /// The channels with subscribers whose names match, and how many each has.
    fn channels(
        &self,
        pattern: Option<Glob>,
    ) -> impl Future<Output = Result<BTreeMap<Arc<str>, u64>, Error>>;

    /// Calls a method of an extension, with parameters that are JSON or nothing. Without
    /// extensions, 104.
    fn rpc(
        &self,
        method: String,
        params: Bytes,
    ) -> impl Future<Output = Result<Option<Payload>, Error>> {
        drop((method, params));
        std::future::ready(Err(ErrorCode::MethodNotFound.into()))
    }

    /// What requests are answered by from now on, if that is something else than at the start.
    fn settings(&self) -> Option<Arc<Settings>> {
        None
    }

    /// Has the node read its configuration again.
    fn reload(&self) -> impl Future<Output = Result<Reloaded, ReloadError>> {
        std::future::ready(Err(ReloadError::NoFile))
    }

    /// Some of the events that the application's backend would not have, the oldest first: `most` at the most, from a
    /// place on that the page before has named. Without events, 108.
    fn dead_events(
        &self,
        which: DeadEvents,
        from: u64,
        most: usize,
    ) -> impl Future<Output = Result<DeadPage, Error>> {
        drop((which, from, most));
        std::future::ready(Err(dead::not_available()))
    }

    /// Sends them again, or drops them, and tells how many that were. Without events, 108.
    fn settle_dead_events(
        &self,
        which: DeadEvents,
        again: bool,
    ) -> impl Future<Output = Result<usize, Error>> {
        drop((which, again));
        std::future::ready(Err(dead::not_available()))
    }

    /// What the node has counted.
    fn snapshot(&self) -> impl Future<Output = Snapshot> {
        std::future::ready(Snapshot::default())
    }

    /// What an admin is told of it.
    fn report(&self) -> impl Future<Output = Report> {
        std::future::ready(Report::default())
    }

    /// Who is logged in.
    fn admin_sessions(&self) -> Option<Arc<Sessions>> {
        None
    }

    /// How it is known whom a request is from; `None` where its connection has no address.
    fn seen(&self, line: &HttpLine, headers: &HeaderMap) -> Option<Seen> {
        let _ = (line, headers);
        None
    }

    /// Whom a request is from, where that is known.
    fn address_of(&self, line: &HttpLine, headers: &HeaderMap) -> Option<IpAddr> {
        let _ = headers;
        line.from().map(|from| from.ip())
    }

    /// Whether new clients are welcome: not any more once the node is on its way out.
    fn is_ready(&self) -> bool {
        true
    }

    /// Follows somebody from when this resolves on. `None` where there are as many who do as may be.
    fn trace(&self, request: &TraceRequest) -> impl Future<Output = Option<TraceBody>> {
        let _ = request;
        std::future::ready(None)
    }

    /// Whether an API key that comes from an address may be looked at: the answer to give if not.
    fn refuse_key(&self, address: Option<IpAddr>) -> Option<Response> {
        let _ = address;
        None
    }

    /// An API key was looked at that came from an address.
    fn note_key(&self, address: Option<IpAddr>, is_right: bool) {
        let _ = (address, is_right);
    }

    /// Lets the node count something about a call of the API.
    fn count_call(&self, count: impl FnOnce(&mut CallCounters)) {
        drop(count);
    }

    /// Lets the node count something about a request or a connection that came to nothing.
    fn count_http(&self, count: impl FnOnce(&mut HttpCounters)) {
        drop(count);
    }

    /// All server processes and what they carry.
    fn info(&self) -> impl Future<Output = Result<Vec<NodeInfo>, Error>>;

    /// Opens a WebSocket on a connection which has carried other requests before: reverse proxies
    /// keep connections and use them for whatever comes next. The answer is the 101, or a
    /// refusal; `None` when the request doesn't ask for a WebSocket.
    fn open_websocket(
        &self,
        request: Request<RequestBody>,
        line: &Rc<HttpLine>,
    ) -> Option<http::Response<Full<Bytes>>> {
        drop((request, line));
        None
    }

    /// Whether WebSockets can be opened at a path other than the SDKs'.
    fn opens_websockets_at(&self, path: &str) -> bool {
        let _ = path;
        false
    }

    /// Answers a request for one of the doors that are made of plain HTTP. One that is for none of
    /// them is given back. `line` is the connection that the answer goes over.
    fn enter(
        &self,
        request: Request<RequestBody>,
        line: &Rc<HttpLine>,
    ) -> impl Future<Output = Result<Reply, Request<RequestBody>>> {
        let _ = line;
        std::future::ready(Err(request))
    }
}

/// Which of those in a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// The channel, never empty.
    pub channel: String,
    /// How many at the most; `None` for all.
    pub limit: Option<u32>,
    /// Where to start; `None` for the first.
    pub cursor: Option<String>,
    /// Any of them will do.
    pub sample: bool,
}

/// Which part of a channel's history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// The channel, never empty.
    pub channel: String,
    /// How many publications at the most: 0 for the position alone, `None` for all.
    pub limit: Option<u32>,
    /// Where to start, exclusive.
    pub since: Option<StreamPosition>,
    /// Newest first.
    pub reverse: bool,
}

/// One server process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeInfo {
    /// Unique among the processes that were ever started.
    pub uid: String,
    /// For people.
    pub name: String,
    /// Version of the server.
    pub version: String,
    /// Connections.
    pub num_clients: u64,
    /// Distinct users with connections.
    pub num_users: u64,
    /// Channels with subscribers.
    pub num_channels: u64,
    /// Subscriptions.
    pub num_subs: u64,
    /// Seconds since the process started.
    pub uptime: u64,
    /// What it has counted lately; `None` in its first minute.
    pub metrics: Option<RecentNumbers>,
    /// What its process uses, where the system tells.
    pub process: Option<ProcessLoad>,
}

/// What was counted within a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecentNumbers {
    /// How long that was, in seconds.
    pub interval: u64,
    /// The counters of `/metrics`, without the prefix, over all their labels.
    pub items: BTreeMap<String, u64>,
}

/// What a process uses of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessLoad {
    /// Percent of one processor, in the last whole minute; since the start in the first one.
    pub cpu: f64,
    /// Memory that it has, in bytes.
    pub rss: u64,
}

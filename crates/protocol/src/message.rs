//! The types of the protocol's messages, the same for every encoding.
//!
//! What a client sends ([`Command`] and the requests) borrows from the frame that it arrived in.
//! What a server sends ([`Reply`], [`Push`] and the results) owns or shares its parts, so that one
//! publication can be handed to many connections.
//!
//! Field names are the protocol's own. A payload in a JSON connection is one JSON value, kept as
//! the bytes it was written with; see [`Payload`].
//!
//! What belongs to the protocol's optional extensions (maps, shared poll, channel compaction,
//! dictionaries) is not here, but for the fields by which a server recognises and refuses them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::filter::RawFilter;

/// Application data, exactly as it was sent: one JSON value (as text) on JSON connections, any bytes
/// on Protobuf connections.
pub type Payload = Bytes;

// ---- client to server -------------------------------------------------------------------------

/// One command of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Command<'a> {
    /// Chosen by the client, echoed in the reply. `0` means that no reply is expected: a pong, or
    /// `send`.
    pub id: u32,
    /// What is asked for; `None` in a pong (and in a command with no known request).
    pub request: Option<Request<'a>>,
}

/// What a command asks for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Request<'a> {
    /// Authenticate; must come first.
    Connect(ConnectRequest<'a>),
    /// Start receiving a channel's publications.
    Subscribe(SubscribeRequest<'a>),
    /// Stop receiving a channel's publications.
    Unsubscribe(UnsubscribeRequest<'a>),
    /// Publish into a channel.
    Publish(PublishRequest<'a>),
    /// Who is in a channel.
    Presence(PresenceRequest<'a>),
    /// How many are in a channel.
    PresenceStats(PresenceStatsRequest<'a>),
    /// Read a channel's stored publications.
    History(HistoryRequest<'a>),
    /// Reserved by the protocol; no SDK sends it.
    Ping,
    /// A message to the server that expects no reply.
    Send(SendRequest<'a>),
    /// Call a method of the application.
    Rpc(RpcRequest<'a>),
    /// Prolong the connection with a new token.
    Refresh(RefreshRequest<'a>),
    /// Prolong a subscription with a new token.
    SubRefresh(SubRefreshRequest<'a>),
}

/// A string of a request: borrowed where it stood unescaped in the frame.
pub type Text<'a> = std::borrow::Cow<'a, str>;

/// The first command of a connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectRequest<'a> {
    /// JWT; empty when the client has none.
    pub token: Text<'a>,
    /// Application data, for the server's connect handler.
    pub data: Option<&'a [u8]>,
    /// Server-side subscriptions which the client had, to be recovered, by channel; at most [`MAX_SUBS`].
    pub subs: BTreeMap<Text<'a>, SubscribeRequest<'a>>,
    /// Name of the client's SDK or application.
    pub name: Text<'a>,
    /// Version of the client's application.
    pub version: Text<'a>,
    /// HTTP headers that the client's environment couldn't send as such (a browser's WebSocket),
    /// by name; at most [`MAX_HEADERS`].
    pub headers: BTreeMap<Text<'a>, Text<'a>>,
}

/// How many channels a [`ConnectRequest`] may name. One takes six bytes in a frame, and some hundred in memory.
pub const MAX_SUBS: usize = 10_000;

/// How many headers a [`ConnectRequest`] may have: as many as heads of HTTP requests usually may.
pub const MAX_HEADERS: usize = 64;

/// Start receiving a channel's publications.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscribeRequest<'a> {
    /// The channel.
    pub channel: Text<'a>,
    /// Subscription JWT; empty when the client has none.
    pub token: Text<'a>,
    /// Whether what was missed since (`epoch`, `offset`) is asked for.
    pub recover: bool,
    /// Stream incarnation of the position to recover from.
    pub epoch: Text<'a>,
    /// Offset of the last publication the client has.
    pub offset: u64,
    /// Application data, for the server's subscribe handler.
    pub data: Option<&'a [u8]>,
    /// Asks for gap detection.
    pub positioned: bool,
    /// Asks for recovery.
    pub recoverable: bool,
    /// Asks for join and leave pushes.
    pub join_leave: bool,
    /// Delta encoding that the client understands; empty for none.
    pub delta: Text<'a>,
    /// Which publications are wanted, by their tags. Not looked into yet.
    pub tags_filter: Option<RawFilter<'a>>,
    /// Feature bits, see [`SUBSCRIBE_FLAG_REJECT_UNRECOVERED`].
    pub flag: i64,
    /// Kind of subscription: 0 stream, 1 to 3 map, 4 shared poll.
    pub kind: i32,
}

/// Bit of [`SubscribeRequest::flag`]: the client would take numeric channel ids.
pub const SUBSCRIBE_FLAG_COMPACT: i64 = 1;
/// Bit of [`SubscribeRequest::flag`]: answer with error 112 where the position can't be recovered.
pub const SUBSCRIBE_FLAG_REJECT_UNRECOVERED: i64 = 2;

/// Stop receiving a channel's publications.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UnsubscribeRequest<'a> {
    /// The channel.
    pub channel: Text<'a>,
}

/// Publish into a channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishRequest<'a> {
    /// The channel.
    pub channel: Text<'a>,
    /// The payload; `None` when the field was absent.
    pub data: Option<&'a [u8]>,
    /// 0 for a publication; 1 would change an entry of a map.
    pub kind: i32,
}

/// Who is in a channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PresenceRequest<'a> {
    /// The channel.
    pub channel: Text<'a>,
}

/// How many are in a channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PresenceStatsRequest<'a> {
    /// The channel.
    pub channel: Text<'a>,
}

/// Read a channel's stored publications.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryRequest<'a> {
    /// The channel.
    pub channel: Text<'a>,
    /// How many publications at the most; `0` for the position alone, negative for as many as the
    /// server allows.
    pub limit: i32,
    /// Where to start, exclusive; `None` for the oldest kept (or the newest, in reverse).
    pub since: Option<StreamPosition>,
    /// Newest first.
    pub reverse: bool,
}

/// A message that expects no reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SendRequest<'a> {
    /// The payload.
    pub data: Option<&'a [u8]>,
}

/// Call a method of the application.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RpcRequest<'a> {
    /// The payload.
    pub data: Option<&'a [u8]>,
    /// The method's name.
    pub method: Text<'a>,
}

/// Prolong the connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RefreshRequest<'a> {
    /// The new JWT.
    pub token: Text<'a>,
}

/// Prolong a subscription.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubRefreshRequest<'a> {
    /// The channel.
    pub channel: Text<'a>,
    /// The new JWT.
    pub token: Text<'a>,
    /// 0 refresh; 1 and 2 belong to shared poll subscriptions.
    pub kind: i32,
}

// ---- shared -----------------------------------------------------------------------------------

/// A position in a channel's stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct StreamPosition {
    /// Offset of the last publication before the position; the first publication has offset 1.
    pub offset: u64,
    /// The stream's incarnation: an opaque string, compared for equality only.
    pub epoch: Arc<str>,
}

/// Who published, or who is in a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// User id; empty for an anonymous user.
    pub user: Arc<str>,
    /// Id of the connection.
    pub client: Arc<str>,
    /// What the application attached to the connection.
    pub conn_info: Option<Payload>,
    /// What the application attached to the subscription.
    pub chan_info: Option<Payload>,
}

/// A message of a channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Publication {
    /// The payload.
    pub data: Payload,
    /// The publishing connection; `None` when the server's API published it.
    pub info: Option<Arc<ClientInfo>>,
    /// Place in the channel's stream, from 1; 0 where the channel keeps no history.
    pub offset: u64,
    /// Labels, usable by filters.
    pub tags: BTreeMap<String, String>,
    /// `data` is a patch against the publication before this one; see [`delta`](crate::delta).
    pub delta: bool,
    /// When it was published, in Unix milliseconds; 0 where that isn't told.
    pub time: i64,
    /// The channel, where it is another than the subscription's: a subscription to a pattern.
    pub channel: Option<Arc<str>>,
    /// The only connection that is not to get it, by its id. Never told to clients.
    pub except: Option<Arc<str>>,
}

// ---- server to client -------------------------------------------------------------------------

/// What a server sends: the answer to a command, or something of its own accord.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The answer to the command with this (non-zero) id.
    Answer(u32, Result<Response, Error>),
    /// Something that no command asked for.
    Push(Push),
    /// Asks the client for a sign of life: an empty object.
    Ping,
}

/// A command's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Stable number; see [`ErrorCode`](crate::code::ErrorCode) for the protocol's own.
    pub code: u32,
    /// For developers.
    pub message: std::borrow::Cow<'static, str>,
    /// Whether the same command may succeed later.
    pub temporary: bool,
}

/// A command's result. Each kind is always written, even when it has no fields: SDKs look for it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Response {
    /// Answers [`Request::Connect`].
    Connect(ConnectResult),
    /// Answers [`Request::Subscribe`].
    Subscribe(SubscribeResult),
    /// Answers [`Request::Unsubscribe`].
    Unsubscribe,
    /// Answers [`Request::Publish`].
    Publish,
    /// Answers [`Request::Presence`].
    Presence(PresenceResult),
    /// Answers [`Request::PresenceStats`].
    PresenceStats(PresenceStatsResult),
    /// Answers [`Request::History`].
    History(HistoryResult),
    /// Answers [`Request::Rpc`].
    Rpc(RpcResult),
    /// Answers [`Request::Refresh`].
    Refresh(RefreshResult),
    /// Answers [`Request::SubRefresh`].
    SubRefresh(RefreshResult),
}

/// A connection is established.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectResult {
    /// Id of the connection, never empty.
    pub client: Arc<str>,
    /// The server's version, never empty.
    pub version: std::borrow::Cow<'static, str>,
    /// Seconds until the client must refresh; `None` when the connection doesn't expire, or when
    /// refreshing isn't the client's duty. Never `Some(0)`.
    pub ttl: Option<u32>,
    /// Application data.
    pub data: Option<Payload>,
    /// Server-side subscriptions, by channel.
    pub subs: BTreeMap<Arc<str>, SubscribeResult>,
    /// Seconds between pings; 0 for no pings.
    pub ping: u32,
    /// Whether the client must answer pings.
    pub pong: bool,
    /// Secret handle of the connection, for transports which need one.
    pub session: Option<Arc<str>>,
    /// The server process that holds the connection, for transports which need it.
    pub node: Option<Arc<str>>,
    /// The server's clock in Unix milliseconds, where configured.
    pub time: Option<i64>,
}

/// A subscription is established.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscribeResult {
    /// Seconds until the client must refresh the subscription. Never `Some(0)`.
    pub ttl: Option<u32>,
    /// Recovery is on for this subscription.
    pub recoverable: bool,
    /// The server watches this subscription for gaps.
    pub positioned: bool,
    /// The stream's incarnation; empty when the subscription is neither positioned nor recoverable.
    pub epoch: Arc<str>,
    /// Position. The *requested* offset when `recovered`, the stream's top otherwise.
    pub offset: u64,
    /// What was missed, oldest first.
    pub publications: Vec<Arc<Publication>>,
    /// Nothing is missing between the requested position and this subscription's live feed.
    pub recovered: bool,
    /// Recovery was asked for.
    pub was_recovering: bool,
    /// Publications may come as patches; see [`delta`](crate::delta).
    pub delta: bool,
    /// Application data.
    pub data: Option<Payload>,
}

/// Who is in a channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PresenceResult {
    /// By connection id.
    pub presence: BTreeMap<Arc<str>, Arc<ClientInfo>>,
}

/// How many are in a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresenceStatsResult {
    /// Connections.
    pub num_clients: u32,
    /// Distinct user ids (all anonymous connections count as one).
    pub num_users: u32,
}

/// Stored publications, with the stream's top.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryResult {
    /// The page asked for.
    pub publications: Vec<Arc<Publication>>,
    /// The stream's top, whatever the page.
    pub position: StreamPosition,
}

/// What an application's method returned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RpcResult {
    /// The payload.
    pub data: Option<Payload>,
}

/// A connection or a subscription was prolonged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefreshResult {
    /// Seconds until the next refresh; `None` when there is no more expiry. Never `Some(0)`.
    pub ttl: Option<u32>,
}

/// Something that no command asked for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Push {
    /// A channel's publication.
    Publication(Arc<str>, Arc<Publication>),
    /// Somebody subscribed to a channel.
    Join(Arc<str>, Arc<ClientInfo>),
    /// Somebody left a channel.
    Leave(Arc<str>, Arc<ClientInfo>),
    /// The server ended a subscription.
    Unsubscribe(Arc<str>, Unsubscribe),
    /// The server added a subscription.
    Subscribe(Arc<str>, Subscribe),
    /// A message of the server to one connection.
    Message(Payload),
    /// The connection is established; only on transports that carry pushes alone.
    Connect(Box<ConnectResult>),
    /// The server prolonged the connection.
    Refresh(RefreshResult),
    /// The server ends the connection; only where the transport has no close code of its own.
    Disconnect(Disconnect),
}

/// The end of a subscription, by the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Below 2500: final. From 2500: the client subscribes again.
    pub code: u32,
    /// For developers.
    pub reason: std::borrow::Cow<'static, str>,
}

/// A server-side subscription added after connecting.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subscribe {
    /// Recovery is on.
    pub recoverable: bool,
    /// Gaps are watched for.
    pub positioned: bool,
    /// Where the subscription starts.
    pub position: StreamPosition,
    /// Application data.
    pub data: Option<Payload>,
}

/// Commands of a client whose connection carries messages in one direction only, in a request beside
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmulationRequest<'a> {
    /// The server process that holds the connection.
    pub node: &'a str,
    /// Secret handle of the connection.
    pub session: &'a str,
    /// A frame of commands.
    pub data: &'a [u8],
}

/// The end of a connection, by the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// Decides whether the client comes back; see [`code`](crate::code).
    pub code: u32,
    /// For developers; never empty, never JSON (SDKs would misread it).
    pub reason: std::borrow::Cow<'static, str>,
}

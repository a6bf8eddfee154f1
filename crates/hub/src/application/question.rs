//! What an application is asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use tautline_protocol::Disconnect;
use tautline_protocol::message::{ClientInfo, Payload};

use crate::watch::TraceParent;
use crate::{SessionId, Transport};

/// Whom a question is about. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The session, for as long as it lasts.
    pub session: SessionId,
    /// Connection id, user and what others are shown. While the client is [connecting](Question::Connecting)
    /// the user is that of its token, or empty.
    pub info: Arc<ClientInfo>,
    /// What the application keeps with the connection and clients never see: of the token, or of
    /// [`ConnectReply::meta`](super::ConnectReply::meta).
    pub meta: Option<Payload>,
    /// How the client is connected.
    pub transport: Transport,
}

/// What is asked, or told: some questions need no more of an answer than that they have been dealt with.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Question {
    /// May the client come in? Answered with [`Answer::Connect`](super::Answer::Connect).
    Connecting(ConnectEvent),
    /// The client has come in. Its next command waits for the answer, which is
    /// [`Answer::Noted`](super::Answer::Noted).
    Connected,
    /// May it subscribe? Answered with [`Answer::Subscribe`](super::Answer::Subscribe).
    Subscribe(SubscribeEvent),
    /// May it publish? Answered with [`Answer::Publish`](super::Answer::Publish).
    Publish(PublishEvent),
    /// A call. Answered with [`Answer::Rpc`](super::Answer::Rpc).
    Rpc(RpcEvent),
    /// A message that expects no reply. Answered with [`Answer::Message`](super::Answer::Message).
    Message(MessageEvent),
    /// May the connection live on? Answered with [`Answer::Refresh`](super::Answer::Refresh).
    Refresh(RefreshEvent),
    /// May a subscription live on? Answered with [`Answer::SubRefresh`](super::Answer::SubRefresh).
    SubRefresh(SubRefreshEvent),
    /// A subscription that had begun has ended. Nobody waits for the answer,
    /// [`Answer::Noted`](super::Answer::Noted).
    Unsubscribed(UnsubscribeEvent),
    /// A client that had come in has gone. Nobody waits for the answer,
    /// [`Answer::Noted`](super::Answer::Noted).
    Disconnected(DisconnectEvent),
}

/// A client that wants to come in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectEvent {
    /// The token as it was sent; empty for none. One that the configured keys don't vouch for is refused
    /// without a question; where no keys are configured, it is the application's to judge.
    pub token: String,
    /// What the token says, where the configured keys vouch for it.
    pub identity: Option<Identity>,
    /// Whether the client comes in if the answer has nothing to say: it has a token, or anonymous users
    /// are allowed.
    pub permitted: bool,
    /// Name of the client's SDK or application.
    pub name: String,
    /// Version of the client's application.
    pub version: String,
    /// What the client's application sent along.
    pub data: Option<Payload>,
    /// Headers that a browser could not send as such. A client can write anything here.
    pub headers: BTreeMap<String, String>,
    /// Server-side subscriptions that the client had.
    pub channels: Vec<String>,
}

/// Who a token says that the client is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User id; empty for an anonymous user.
    pub user: String,
    /// What others are shown.
    pub info: Option<Payload>,
    /// What is kept for the application.
    pub meta: Option<Payload>,
    /// When the connection expires, in Unix seconds.
    pub expire_at: Option<u64>,
}

/// A client that wants to subscribe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscribeEvent {
    /// The channel.
    pub channel: String,
    /// The token as it was sent; empty for none.
    pub token: String,
    /// Whether the options, or the token, allow it.
    pub permitted: bool,
    /// What the client's application sent along.
    pub data: Option<Payload>,
}

/// A client that wants to publish.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishEvent {
    /// The channel.
    pub channel: Arc<str>,
    /// The payload: what the namespace takes.
    pub data: Payload,
    /// Whether the options allow it.
    pub permitted: bool,
    /// Whether the client is subscribed to the channel.
    pub subscribed: bool,
    /// The trace that it is in, if it is in one that is kept: what is asked elsewhere because of it goes on with that.
    pub trace: Option<TraceParent>,
}

/// A call of a method.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RpcEvent {
    /// The method's name; may be empty.
    pub method: String,
    /// The payload.
    pub data: Option<Payload>,
}

/// A message that expects no reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MessageEvent {
    /// The payload; empty when there was none.
    pub data: Payload,
}

/// A connection whose time is over, or whose client says that it goes on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RefreshEvent {
    /// The token that the client sent, which no configured keys could judge; empty when the server asks by
    /// itself because the connection has expired.
    pub token: String,
}

/// A subscription whose time is over, or whose client says that it goes on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubRefreshEvent {
    /// The channel.
    pub channel: Arc<str>,
    /// As [`RefreshEvent::token`].
    pub token: String,
}

/// A subscription has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnsubscribeEvent {
    /// The channel.
    pub channel: Arc<str>,
    /// Why: [`BY_CLIENT`](Self::BY_CLIENT), [`BY_DISCONNECT`](Self::BY_DISCONNECT), or the code that the
    /// client was told.
    pub code: u32,
}

impl UnsubscribeEvent {
    /// The client asked for it.
    pub const BY_CLIENT: u32 = 0;
    /// The client has gone.
    pub const BY_DISCONNECT: u32 = 1;
}

/// A client has gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisconnectEvent {
    /// What the client was told; [`Disconnect::CONNECTION_CLOSED`] if it went by itself.
    pub disconnect: Disconnect,
}

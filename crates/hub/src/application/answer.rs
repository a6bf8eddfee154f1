//! What an application answers.

use std::collections::BTreeMap;

use bytes::Bytes;
use tautline_auth::{Allowed, Capabilities, Overrides};
use tautline_protocol::message::{Error, Payload};
use tautline_protocol::{Disconnect, ErrorCode};

/// Why a client doesn't get what it asked for.
///
/// An [`ErrorCode`], an [`Error`] or a [`Disconnect`] becomes one by `into` or `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The command fails. Codes from 400 to 1999 are the application's own.
    Error(Error),
    /// The connection ends. Codes from 4000 to 4999 are the application's own; the client comes back after
    /// those below 4500.
    Disconnect(Disconnect),
}

impl Refusal {
    /// An error of the application's own, which the client is not to try again.
    pub fn error(code: u32, message: impl Into<String>) -> Self {
        Self::Error(Error {
            code,
            message: message.into().into(),
            temporary: false,
        })
    }

    /// What the client is told, as a number.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::Error(error) => error.code,
            Self::Disconnect(disconnect) => disconnect.code,
        }
    }

    /// Whether it says that the client isn't who it says it is: error 101 (unauthorized), unless it is temporary, or
    /// disconnect 3500 (invalid token). Other codes may mean anything.
    pub(crate) fn is_of_identity(&self) -> bool {
        match self {
            Self::Error(error) => {
                error.code == ErrorCode::Unauthorized.number() && !error.temporary
            }
            Self::Disconnect(disconnect) => disconnect.code == Disconnect::INVALID_TOKEN.code,
        }
    }

    /// An error of the application's own after which the client may try again.
    pub fn temporary(code: u32, message: impl Into<String>) -> Self {
        Self::Error(Error {
            code,
            message: message.into().into(),
            temporary: true,
        })
    }

    /// An end of the connection. The reason must be something: clients would misread an empty one.
    pub fn disconnect(code: u32, reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        if reason.is_empty() {
            reason.push_str("disconnect");
        }
        Self::Disconnect(Disconnect {
            code,
            reason: reason.into(),
        })
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::Error(code.into())
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Disconnect> for Refusal {
    fn from(disconnect: Disconnect) -> Self {
        Self::Disconnect(disconnect)
    }
}

/// The answer to a [`Question`](super::Question), of the kind that it asks for. Another kind is as good as
/// [`Failed`](Self::Failed).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Answer {
    /// To [`Question::Connecting`](super::Question::Connecting).
    Connect(Result<ConnectReply, Refusal>),
    /// To [`Question::Subscribe`](super::Question::Subscribe).
    Subscribe(Result<SubscribeReply, Refusal>),
    /// To [`Question::Publish`](super::Question::Publish).
    Publish(Result<PublishReply, Refusal>),
    /// To [`Question::Rpc`](super::Question::Rpc).
    Rpc(Result<RpcReply, Refusal>),
    /// To [`Question::Message`](super::Question::Message).
    Message(Result<(), Disconnect>),
    /// To [`Question::Refresh`](super::Question::Refresh).
    Refresh(Result<RefreshReply, Refusal>),
    /// To [`Question::SubRefresh`](super::Question::SubRefresh).
    SubRefresh(Result<RefreshReply, Refusal>),
    /// To the questions that only tell something.
    Noted,
    /// There is no answer, and nobody knows why. The client gets error 100, which is temporary.
    Failed,
}

/// A client may come in.
///
/// The default leaves all to token and options: who would come in without the application does, and nobody
/// else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectReply {
    /// Who the client is; empty for an anonymous user. `None`: whom the token names, or an anonymous
    /// user where the options allow one. Where neither does, the client is refused.
    pub user: Option<String>,
    /// What others are shown: one JSON value. `None`: what the token says.
    pub info: Option<Payload>,
    /// What is kept with the connection for the application, and comes with each question. `None`: what
    /// the token says.
    pub meta: Option<Payload>,
    /// Goes to the client with the reply: one JSON value (any bytes for a client of Protobuf).
    pub data: Option<Payload>,
    /// When the connection expires, in Unix seconds. `None`: when the token does.
    pub expire_at: Option<u64>,
    /// Whose duty it is to prolong it.
    pub refresh: RefreshBy,
    /// What the client may do in channels, beside what their namespaces allow. `None`: what the token
    /// says.
    pub capabilities: Option<Capabilities>,
    /// Channels to which the client is subscribed from the beginning, besides those of its token.
    pub subs: BTreeMap<String, SubscribeReply>,
}

impl ConnectReply {
    /// The client is this user, whatever its token says.
    pub fn user(user: impl Into<String>) -> Self {
        Self {
            user: Some(user.into()),
            ..Self::default()
        }
    }

    /// The client is nobody in particular, and may come in all the same.
    pub fn anonymous() -> Self {
        Self::user("")
    }

    /// Subscribes the client to a channel from the beginning.
    #[must_use]
    pub fn subscribe(mut self, channel: impl Into<String>) -> Self {
        self.subs.insert(channel.into(), SubscribeReply::default());
        self
    }
}

/// Who sees to it that something with an end lives on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefreshBy {
    /// The client: it is told when, and comes with a new token.
    #[default]
    Client,
    /// The server: the application is asked when the time has come. The client knows nothing of it.
    Server,
}

/// A client may subscribe. The default adds nothing to what token and options say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscribeReply {
    /// What others in the channel are shown about the subscriber: one JSON value. `None`: what the token
    /// says.
    pub info: Option<Payload>,
    /// Goes to the client with the reply: one JSON value. `None`: what the token says.
    pub data: Option<Payload>,
    /// Options of the namespace that are different for this subscription. What is `None` here is as the
    /// token says.
    pub overrides: Overrides,
    /// What the subscriber may do in the channel, beside what namespace and token allow.
    pub allow: Allowed,
    /// Of which publications the subscriber may know: a tags filter as JSON, beside those that namespace
    /// and token impose. One that can't be read is error 103.
    pub tags_filter: Option<String>,
    /// When the subscription expires, in Unix seconds. `None`: when the token does.
    pub expire_at: Option<u64>,
    /// Whose duty it is to prolong it.
    pub refresh: RefreshBy,
}

/// A client may publish.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum PublishReply {
    /// What it sent.
    #[default]
    AsSent,
    /// Something else.
    Instead(PublishInstead),
    /// The application has published what there was to publish, or nothing. The client is told that all went
    /// well.
    Done,
}

/// What is published instead of what a client sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishInstead {
    /// The payload: what the namespace takes. `None`: what the client sent.
    pub data: Option<Payload>,
    /// Labels.
    pub tags: BTreeMap<String, String>,
    /// Not to be kept in the channel's history.
    pub skip_history: bool,
    /// A publish with a key that the channel has seen in the last five minutes does nothing. At most 255
    /// bytes.
    pub idempotency_key: Option<String>,
    /// Goes out as a patch to those who take patches.
    pub delta: bool,
    /// With a version, a publish does nothing where the channel has this version or a later one already; 0
    /// for none.
    pub version: u64,
    /// What the version counts in; versions of another scope are not compared. At most 255 bytes.
    pub version_epoch: String,
}

/// What a call returns: one JSON value (any bytes for a client of Protobuf), or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcReply {
    /// The payload.
    pub data: Option<Payload>,
}

impl From<()> for RpcReply {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl From<Bytes> for RpcReply {
    fn from(data: Bytes) -> Self {
        Self { data: Some(data) }
    }
}

impl From<Vec<u8>> for RpcReply {
    fn from(data: Vec<u8>) -> Self {
        Bytes::from(data).into()
    }
}

impl From<String> for RpcReply {
    fn from(data: String) -> Self {
        Bytes::from(data).into()
    }
}

impl From<&'static str> for RpcReply {
    fn from(data: &'static str) -> Self {
        Bytes::from(data).into()
    }
}

/// A connection or a subscription lives on. (One that doesn't is refused, with
/// [`Disconnect::EXPIRED`] for a connection and with [`ErrorCode::Expired`] for a subscription.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefreshReply {
    /// Until when, in Unix seconds; `None` for ever.
    pub expire_at: Option<u64>,
    /// What others are shown from now on; `None` for what they were shown so far.
    pub info: Option<Payload>,
    /// Of a connection, what is kept with it from now on; `None` for what was kept so far.
    pub meta: Option<Payload>,
}

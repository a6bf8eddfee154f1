//! What messages are, as far as they are counted.

use tautline_protocol::{Push, Reply, Request, Response};

/// What a message is: the answer to a command, a push, or what a client sends. The names are those of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is what it is called")]
pub enum FrameType {
    ServerPing,
    ClientPong,
    PushConnect,
    PushSubscribe,
    PushPublication,
    PushJoin,
    PushLeave,
    PushUnsubscribe,
    PushMessage,
    PushRefresh,
    PushDisconnect,
    Connect,
    Subscribe,
    Unsubscribe,
    Publish,
    Presence,
    PresenceStats,
    History,
    Rpc,
    Send,
    Refresh,
    SubRefresh,
    /// The answer to a command that has failed, whichever.
    Error,
    /// What can't be read, and what is none of these.
    Other,
}

impl FrameType {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::ServerPing,
        Self::ClientPong,
        Self::PushConnect,
        Self::PushSubscribe,
        Self::PushPublication,
        Self::PushJoin,
        Self::PushLeave,
        Self::PushUnsubscribe,
        Self::PushMessage,
        Self::PushRefresh,
        Self::PushDisconnect,
        Self::Connect,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Publish,
        Self::Presence,
        Self::PresenceStats,
        Self::History,
        Self::Rpc,
        Self::Send,
        Self::Refresh,
        Self::SubRefresh,
        Self::Error,
        Self::Other,
    ];

    /// What to call it, such as `push_publication`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ServerPing => "server_ping",
            Self::ClientPong => "client_pong",
            Self::PushConnect => "push_connect",
            Self::PushSubscribe => "push_subscribe",
            Self::PushPublication => "push_publication",
            Self::PushJoin => "push_join",
            Self::PushLeave => "push_leave",
            Self::PushUnsubscribe => "push_unsubscribe",
            Self::PushMessage => "push_message",
            Self::PushRefresh => "push_refresh",
            Self::PushDisconnect => "push_disconnect",
            Self::Connect => "connect",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Publish => "publish",
            Self::Presence => "presence",
            Self::PresenceStats => "presence_stats",
            Self::History => "history",
            Self::Rpc => "rpc",
            Self::Send => "send",
            Self::Refresh => "refresh",
            Self::SubRefresh => "sub_refresh",
            Self::Error => "error",
            Self::Other => "other",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What a command is; one without a request is a pong.
    pub(super) fn of_command(request: Option<&Request<'_>>) -> Self {
        match request {
            None => Self::ClientPong,
            Some(Request::Connect(_)) => Self::Connect,
            Some(Request::Subscribe(_)) => Self::Subscribe,
            Some(Request::Unsubscribe(_)) => Self::Unsubscribe,
            Some(Request::Publish(_)) => Self::Publish,
            Some(Request::Presence(_)) => Self::Presence,
            Some(Request::PresenceStats(_)) => Self::PresenceStats,
            Some(Request::History(_)) => Self::History,
            Some(Request::Rpc(_)) => Self::Rpc,
            Some(Request::Send(_)) => Self::Send,
            Some(Request::Refresh(_)) => Self::Refresh,
            Some(Request::SubRefresh(_)) => Self::SubRefresh,
            Some(_) => Self::Other,
        }
    }

    pub(super) fn of_reply(reply: &Reply) -> Self {
        match reply {
            Reply::Ping => Self::ServerPing,
            Reply::Answer(_, Err(_)) => Self::Error,
            Reply::Answer(_, Ok(response)) => Self::of_response(response),
            Reply::Push(push) => Self::of_push(push),
        }
    }

    fn of_response(response: &Response) -> Self {
        match response {
            Response::Connect(_) => Self::Connect,
            Response::Subscribe(_) => Self::Subscribe,
            Response::Unsubscribe => Self::Unsubscribe,
            Response::Publish => Self::Publish,
            Response::Presence(_) => Self::Presence,
            Response::PresenceStats(_) => Self::PresenceStats,
            Response::History(_) => Self::History,
            Response::Rpc(_) => Self::Rpc,
            Response::Refresh(_) => Self::Refresh,
            Response::SubRefresh(_) => Self::SubRefresh,
            _ => Self::Other,
        }
    }

    fn of_push(push: &Push) -> Self {
        match push {
            Push::Publication(..) => Self::PushPublication,
            Push::Join(..) => Self::PushJoin,
            Push::Leave(..) => Self::PushLeave,
            Push::Unsubscribe(..) => Self::PushUnsubscribe,
            Push::Subscribe(..) => Self::PushSubscribe,
            Push::Message(_) => Self::PushMessage,
            Push::Connect(_) => Self::PushConnect,
            Push::Refresh(_) => Self::PushRefresh,
            Push::Disconnect(_) => Self::PushDisconnect,
            _ => Self::Other,
        }
    }
}

/// Messages that went one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// How many.
    pub messages: u64,
    /// Their bytes, without what a transport puts around them.
    pub bytes: u64,
}

impl Traffic {
    /// Counts some.
    pub fn add(&mut self, messages: u64, bytes: usize) {
        self.messages += messages;
        self.bytes += bytes as u64;
    }

    /// Adds what was counted elsewhere.
    pub fn merge(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_at_its_place() {
        for what in FrameType::ALL {
            assert_eq!(FrameType::ALL[what.index()], what);
        }
    }
}

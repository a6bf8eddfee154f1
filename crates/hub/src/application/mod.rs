//! The application: code that decides what the options leave open.
//!
//! A hub asks its [`Application`] what to make of a connection, a subscription, a publication, a call;
//! the application answers at once, or later by [`Hub::answer`](crate::Hub::answer). The hub waits as
//! it waits for an engine: the session's next command is not executed, and its transport stops reading.
//! Nothing here is asynchronous in Rust's sense; a server puts its own futures behind this trait, and a
//! test answers by hand.
//!
//! # Rules
//!
//! - **The options speak first.** What they, and a token, say comes with the question
//!   ([`SubscribeEvent::permitted`] and its like). An application that answers accordingly is one that
//!   isn't there; it may allow more, and less. What is malformed, unknown or over a limit is refused
//!   without a question.
//! - **Commands of a connection** wait for their answers one after the other, but for calls (RPC): of
//!   these, [`rpc_limit`](crate::config::ClientOptions::rpc_limit) may be under way.
//! - **A question is answered once**: by the return value of [`ask`](Application::ask), or by one call of
//!   [`Hub::answer`](crate::Hub::answer). Answers to questions that nobody asks any more are ignored.
//! - **Patience ends**: after [`ApplicationOptions::timeout`] the client gets error 100, which is
//!   temporary, and the question is [withdrawn](Application::withdraw). So it is when its client goes.
//! - **There are limits**: with [`ApplicationOptions::max_in_flight`] questions under way, commands are
//!   refused with error 111, temporary too.
//! - **Only [interests](Application::interests) are asked about.** A hub without an application, or for
//!   commands in which it takes no interest, does no more than it did before.

mod answer;
mod question;

use std::ops::BitOr;
use std::time::Duration;

pub use self::answer::{
    Answer, ConnectReply, PublishInstead, PublishReply, RefreshBy, RefreshReply, Refusal, RpcReply,
    SubscribeReply,
};
pub use self::question::{
    Client, ConnectEvent, DisconnectEvent, Identity, MessageEvent, PublishEvent, Question,
    RefreshEvent, RpcEvent, SubRefreshEvent, SubscribeEvent, UnsubscribeEvent,
};

use crate::engine::{Started, Ticket};

/// Decides for one hub. The [module's documentation](self) has the rules.
pub trait Application {
    /// What it wants to be asked about. Read once, when the hub gets the application.
    fn interests(&self) -> Interests {
        Interests::ALL
    }

    /// Answers, or takes note of the ticket to answer later. Must return at once.
    fn ask(&mut self, ticket: Ticket, client: Client, question: Question) -> Started<Answer>;

    /// Nobody waits for the answer any more: the client has gone, or time has run out.
    fn withdraw(&mut self, ticket: Ticket) {
        let _ = ticket;
    }
}

/// How long an application may take, and how much it is asked at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplicationOptions {
    /// How long an answer may take. Default: 4 s, as SDKs give up after 5.
    pub timeout: Duration,
    /// How many questions of one hub may be under way. Default: 10,000.
    pub max_in_flight: usize,
}

impl Default for ApplicationOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(4),
            max_in_flight: 10_000,
        }
    }
}

/// A set of [questions](Question), by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interests(u16);

impl Interests {
    /// None.
    pub const NONE: Self = Self(0);
    /// All.
    pub const ALL: Self = Self(u16::MAX);
    /// [`Question::Connecting`].
    pub const CONNECTING: Self = Self(1);
    /// [`Question::Connected`].
    pub const CONNECTED: Self = Self(1 << 1);
    /// [`Question::Subscribe`].
    pub const SUBSCRIBE: Self = Self(1 << 2);
    /// [`Question::Publish`].
    pub const PUBLISH: Self = Self(1 << 3);
    /// [`Question::Rpc`].
    pub const RPC: Self = Self(1 << 4);
    /// [`Question::Message`].
    pub const MESSAGE: Self = Self(1 << 5);
    /// [`Question::Refresh`].
    pub const REFRESH: Self = Self(1 << 6);
    /// [`Question::SubRefresh`].
    pub const SUB_REFRESH: Self = Self(1 << 7);
    /// [`Question::Unsubscribed`].
    pub const UNSUBSCRIBED: Self = Self(1 << 8);
    /// [`Question::Disconnected`].
    pub const DISCONNECTED: Self = Self(1 << 9);

    /// Whether all of `other` are among these.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Interests {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

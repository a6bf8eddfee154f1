//! Commands and requests that wait for an engine, or for an application, which answers later.

use std::sync::Arc;

use tautline_protocol::message::{
    ConnectResult, Error, HistoryResult, PresenceStatsResult, Unsubscribe,
};

use super::SessionId;
use super::api::PublishOutcome;
use super::ask::{AskedCommand, Guest};
use super::channels::ChannelKey;
use super::enforce::FilteredRead;
use super::publish::Watched;
use super::queries::Expected;
use crate::engine::{EngineError, HistoryPage, Outcome, PresencePage};

/// The command of a session that waits. No other of the session is executed meanwhile.
pub(crate) enum Waiting {
    Publish {
        command: u32,
        watched: Watched,
    },
    Presence {
        command: u32,
    },
    PresenceStats {
        command: u32,
    },
    History {
        command: u32,
        expected: Expected,
    },
    FilteredHistory {
        command: u32,
        read: Box<FilteredRead>,
    },
    Unsubscribe {
        command: u32,
    },
    Subscribe(Subscribing),
    Connect(Connecting),
    Application(AskedCommand),
    /// No command, but room in the queue of what the client has yet to take.
    Room,
    /// No command, but that others take what came of those before.
    Others,
}

/// A connect command: authenticated, but its server-side subscriptions have not begun yet.
pub(crate) struct Connecting {
    pub(crate) command: u32,
    pub(crate) result: ConnectResult,
    pub(crate) guest: Guest,
    pub(crate) subscriptions: Vec<Subscribing>,
}

/// A subscribe command: allowed, but not answered yet.
pub(crate) struct Subscribing {
    pub(crate) command: u32,
    pub(crate) channel: u32,
    /// How many of the operations below are still under way.
    pub(crate) outstanding: u8,
    /// One of them failed.
    pub(crate) failed: Option<EngineError>,
    /// Came of the history call; stays `None` where no position is wanted.
    pub(crate) page: Option<HistoryPage>,
    pub(crate) wants: Wants,
    /// The position to recover from, where that is asked for and possible.
    pub(crate) since: Option<(u64, Arc<str>)>,
    /// Of what was missed, the newest will do.
    pub(crate) is_cache: bool,
    /// Recovery was asked for.
    pub(crate) was_recovering: bool,
    /// If the position can't be recovered, the command fails.
    pub(crate) reject_unrecovered: bool,
    pub(crate) ttl: Option<u32>,
    pub(crate) data: Option<bytes::Bytes>,
    /// An operator has ended it already: the client is told once it knows that it has begun.
    pub(crate) ended: Option<Unsubscribe>,
}

/// What a subscription will have, everything considered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wants {
    pub(crate) positioned: bool,
    pub(crate) recoverable: bool,
    pub(crate) presence: bool,
    /// To announce its coming and leaving.
    pub(crate) announce: bool,
    /// To be told of others.
    pub(crate) join_leave: bool,
}

/// Whom an outcome is for.
pub(crate) enum Pending {
    /// The command for which a session waits.
    Session(SessionId),
    /// A subscription that a session waits for, and the index of its channel.
    Subscription(SessionId, u32),
    /// All sessions that wait for a channel's feed.
    Attach(ChannelKey),
    /// Sessions that are behind in a channel, all at the same offset.
    Page {
        channel: ChannelKey,
        since: u64,
        waiters: Vec<SessionId>,
    },
    /// The check whether a channel's position is right.
    Position(ChannelKey),
    ApiPublish(Done<PublishOutcome>),
    ApiPresence(Done<PresencePage>),
    ApiPresenceStats(Done<PresenceStatsResult>),
    ApiHistory(Done<HistoryResult>, Arc<str>),
    ApiHistoryRemove(Done<()>),
}

/// Takes the result of an API request.
pub(crate) type Done<T> = Box<dyn FnOnce(Result<T, Error>)>;

impl Waiting {
    /// The id of the command; 0 where none waits.
    pub(crate) fn command(&self) -> u32 {
        match self {
            Self::Room | Self::Others => 0,
            Self::Publish { command, .. }
            | Self::Presence { command }
            | Self::PresenceStats { command }
            | Self::History { command, .. }
            | Self::FilteredHistory { command, .. }
            | Self::Unsubscribe { command } => *command,
            Self::Subscribe(subscribing) => subscribing.command,
            Self::Connect(connecting) => connecting.command,
            Self::Application(asked) => asked.command(),
        }
    }
}

impl Waiting {
    /// Whether it goes on by [`Hub::drained`](super::Hub::drained), and by nothing else.
    pub(crate) fn rests(&self) -> bool {
        match self {
            Self::FilteredHistory { read, .. } => read.rests(),
            Self::Room => true,
            _ => false,
        }
    }

    /// What is waited for of a channel.
    pub(crate) fn subscribing(&mut self, channel: u32) -> Option<&mut Subscribing> {
        let subscriptions = match self {
            Self::Subscribe(subscribing) => std::slice::from_mut(subscribing),
            Self::Connect(connecting) => &mut connecting.subscriptions[..],
            _ => return None,
        };
        subscriptions
            .iter_mut()
            .find(|subscribing| subscribing.channel == channel)
    }

    /// Whether any of the subscriptions waits for the engine.
    pub(crate) fn is_outstanding(&self) -> bool {
        match self {
            Self::Subscribe(subscribing) => subscribing.outstanding > 0,
            Self::Connect(connecting) => connecting.is_outstanding(),
            _ => false,
        }
    }
}

impl Connecting {
    /// Whether any of the subscriptions waits for the engine.
    pub(crate) fn is_outstanding(&self) -> bool {
        let mut subscriptions = self.subscriptions.iter();
        subscriptions.any(|subscribing| subscribing.outstanding > 0)
    }
}

impl Subscribing {
    /// Takes note that one of the operations has ended.
    pub(crate) fn note(&mut self, outcome: Outcome) {
        self.outstanding -= 1;
        match outcome {
            Outcome::Changed(Ok(())) => {}
            Outcome::History(Ok(page)) => self.page = Some(page),
            Outcome::Changed(Err(error)) | Outcome::History(Err(error)) => {
                self.failed = Some(error);
            }
            _ => self.failed = Some(EngineError::Unavailable),
        }
    }
}

//! The sessions of one hub: what is known of each connection.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use tautline_auth::{Allowed, Capabilities, Overrides, TokenMark};
use tautline_protocol::Encoding;
use tautline_protocol::message::ClientInfo;

use super::SessionId;
use super::counts::Counts;
use super::cursor::Lag;
use super::enforce::Filters;
use super::frame::{Frame, KeptFrame};
use super::limit::SessionBuckets;
use super::liveness::Heartbeat;
use super::slab::Slab;
use super::tally::Counted;
use super::users::Peers;
use super::waiting::Waiting;
use super::wheel::{Deadline, Tick};
use crate::engine::JoinLevel;

/// What a hub must know of a connection's transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// What to call it where people look, such as `websocket`.
    pub name: &'static str,
    /// How messages are written.
    pub encoding: Encoding,
    /// How server and client know of each other that they are there.
    pub pings: Pings,
    /// Whether a page of history that doesn't follow the position it was asked from is refused with error 112.
    /// The protocol's clients get what is still kept, and see by the offsets that something is missing; who
    /// gets only a part of a stream, by a filter that is imposed on it, can't see that.
    pub gapless_history: bool,
}

/// How server and client know of each other that they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pings {
    /// By the protocol's pings, which the client answers by the protocol's pongs.
    Protocol,
    /// By the protocol's pings, and nothing answers them. A client that is gone is noticed by its
    /// connection's end.
    OneWay,
    /// By the transport's own, such as the control frames of WebSockets: sent by
    /// [`Outbox::ping`](crate::Outbox::ping), answers told to [`Hub::pong_came`](super::Hub::pong_came). The
    /// protocol's are not used, in neither direction.
    Transport,
    /// By both: the protocol's for a client which wants to see them, the transport's to be answered.
    OneWayAndTransport,
}

impl Pings {
    /// Whether the protocol's are sent.
    pub(crate) fn are_messages(self) -> bool {
        self != Self::Transport
    }

    /// Whether the transport's are sent.
    pub(crate) fn are_the_transports(self) -> bool {
        matches!(self, Self::Transport | Self::OneWayAndTransport)
    }
}

impl Transport {
    /// A transport that carries messages both ways.
    pub fn new(name: &'static str, encoding: Encoding) -> Self {
        Self {
            name,
            encoding,
            pings: Pings::Protocol,
            gapless_history: false,
        }
    }

    /// A transport by which clients listen, and answer no pings.
    pub fn one_way(name: &'static str, encoding: Encoding) -> Self {
        Self::new(name, encoding).with_pings(Pings::OneWay)
    }

    /// The same with other pings.
    #[must_use]
    pub fn with_pings(self, pings: Pings) -> Self {
        Self { pings, ..self }
    }

    /// The same for a client that is told by error 112 when a page of history wouldn't follow its position.
    #[must_use]
    pub fn with_gapless_history(self) -> Self {
        Self {
            gapless_history: true,
            ..self
        }
    }
}

/// One connection.
pub(crate) struct Session {
    pub(crate) transport: Transport,
    pub(crate) counted: Counted,
    pub(crate) state: State,
    /// The command that waits for the engine or the application, if one does.
    pub(crate) waiting: Option<Box<Waiting>>,
    /// Commands that came behind it.
    pub(crate) backlog: Option<Box<Backlog>>,
    /// The tick for which a timer is set; 0 for none.
    pub(crate) armed: Tick,
    /// Bytes of answers to its commands that may wait to be written: all since nothing waited.
    pub(crate) answers: u32,
    /// More is queued for it than may be: it is closed before the current call ends.
    pub(crate) is_slow: bool,
    /// More was queued for it than may be, since it has last taken all: that is only tried out.
    pub(crate) is_tried: bool,
    /// What is not at the head, if anything.
    pub(crate) lag: Option<Box<Lag>>,
}

pub(crate) enum State {
    /// No connect command was successful yet.
    Opened {
        stale_at: Duration,
        /// Whoever connects without a token.
        user: Option<Arc<str>>,
    },
    /// A connect command was answered with an error. Nothing is listened to any more.
    Refused { stale_at: Duration },
    /// The usual state.
    Connected(Connected),
}

pub(crate) struct Connected {
    /// Who it is, as others see it.
    pub(crate) info: Arc<ClientInfo>,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) heartbeat: Heartbeat,
    /// The token that it is here by.
    pub(crate) mark: TokenMark,
    /// When the connection is closed unless it is refreshed.
    pub(crate) expires_at: Option<Deadline>,
    pub(crate) conduct: Option<Box<Conduct>>,
    /// Its place among its user's.
    pub(crate) peers: Peers,
}

/// What a session may do, and how often it does.
#[derive(Default)]
pub(crate) struct Conduct {
    /// Once it has done anything.
    pub(crate) buckets: Option<SessionBuckets>,
    /// What its token lets it do in channels.
    pub(crate) capabilities: Option<Arc<Capabilities>>,
    /// Where a user's connection is to be the only one: which came when.
    pub(crate) number: Option<NonZeroU64>,
}

/// A session's subscription to a channel.
pub(crate) struct Subscription {
    /// Index of the channel.
    pub(crate) channel: u32,
    /// Place in the channel's list of subscribers.
    pub(crate) slot: u32,
    /// Is listed in the channel's presence.
    pub(crate) in_presence: bool,
    /// How its coming was announced, if it was: its leaving is, too.
    pub(crate) announced: Option<JoinLevel>,
    /// What of its namespace's options doesn't count for it.
    pub(crate) overridden: Overridden,
    /// Made by the server, when the client connected.
    pub(crate) server_side: bool,
    /// Made because of what the session may do by its token, and ended when it may no more.
    pub(crate) by_capability: bool,
    /// One of those that the connection's token names.
    pub(crate) by_token: bool,
    pub(crate) extra: Option<Box<SubscriptionExtra>>,
}

impl Subscription {
    /// It counts no more among those of its channel, on all hubs together.
    pub(crate) fn leave(&self, rooms: &Counts, channel: &str) {
        if self.server_side {
            rooms.leave_other(channel);
        } else {
            rooms.leave(channel);
        }
    }
}

/// Of which options a token, or the application, has said something else for a subscription.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Overridden(u8);

impl Overridden {
    pub(crate) const PRESENCE: u8 = 1;
    pub(crate) const JOIN_LEAVE: u8 = 1 << 1;
    pub(crate) const PUSH_JOIN_LEAVE: u8 = 1 << 2;

    pub(crate) fn of(overrides: &Overrides) -> Self {
        let bits = [
            (overrides.presence, Self::PRESENCE),
            (overrides.join_leave, Self::JOIN_LEAVE),
            (overrides.force_push_join_leave, Self::PUSH_JOIN_LEAVE),
        ];
        let bits = bits.iter().filter(|(said, _)| said.is_some());
        Self(bits.fold(0, |all, (_, bit)| all | bit))
    }

    /// Whether that option is one of them.
    pub(crate) fn has(self, option: u8) -> bool {
        self.0 & option != 0
    }
}

/// What few subscriptions have.
#[derive(Default)]
pub(crate) struct SubscriptionExtra {
    /// The session's info with what a token said about this subscription.
    pub(crate) info: Option<Arc<ClientInfo>>,
    /// When the subscription is ended unless it is refreshed.
    pub(crate) expires_at: Option<Duration>,
    /// The application is asked when the subscription expires.
    pub(crate) refresh_by_server: bool,
    /// The token that it was made by.
    pub(crate) mark: TokenMark,
    /// What a token lets the subscriber do in the channel.
    pub(crate) allow: Allowed,
    /// Where something is imposed on the subscriber.
    pub(crate) filters: Option<Filters>,
}

/// Frames of commands that wait for one before them.
#[derive(Default)]
pub(crate) struct Backlog {
    frames: VecDeque<KeptFrame>,
    /// What they come to, with what each of them costs beside its bytes.
    bytes: usize,
}

impl Backlog {
    /// Bytes of memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a frame that has come, as the last. Whether all of them are within `limit` bytes; beyond, it isn't kept.
    pub(crate) fn push(&mut self, frame: Frame<'_>, limit: usize) -> bool {
        let bytes = self.bytes + FRAME + frame.bytes().len();
        let fits = bytes <= limit;
        if fits {
            self.bytes = bytes;
            self.frames.push_back(frame.to_kept());
        }
        fits
    }

    /// Puts the rest of a frame before all others: it was let in already.
    pub(crate) fn put_back(&mut self, rest: Frame<'_>) {
        self.bytes += FRAME + rest.bytes().len();
        self.frames.push_front(rest.to_kept());
    }

    /// The next of them.
    pub(crate) fn pop(&mut self) -> Option<KeptFrame> {
        let frame = self.frames.pop_front()?;
        self.bytes -= FRAME + frame.as_frame().bytes().len();
        Some(frame)
    }
}

/// What a frame costs beside its bytes, or a little more: a million empty ones are no nothing.
const FRAME: usize = 64;

impl Session {
    pub(crate) fn connected(&self) -> Option<&Connected> {
        match &self.state {
            State::Connected(connected) => Some(connected),
            State::Opened { .. } | State::Refused { .. } => None,
        }
    }

    pub(crate) fn connected_mut(&mut self) -> Option<&mut Connected> {
        match &mut self.state {
            State::Connected(connected) => Some(connected),
            State::Opened { .. } | State::Refused { .. } => None,
        }
    }

    /// The earliest of its deadlines.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Opened { stale_at, .. } | State::Refused { stale_at } => Some(*stale_at),
            State::Connected(connected) => {
                let subscriptions = connected.subscriptions.iter();
                let subscriptions = subscriptions.filter_map(Subscription::expires_at);
                let retry = self.lag.as_ref().and_then(|lag| lag.retry_at);
                let expires_at = connected.expires_at.map(Deadline::time);
                [connected.heartbeat.deadline(), expires_at, retry]
                    .into_iter()
                    .flatten()
                    .chain(subscriptions)
                    .min()
            }
        }
    }
}

impl Connected {
    pub(crate) fn subscription(&self, channel: u32) -> Option<&Subscription> {
        // A dense list of at most `client.channel_limit`, usually a handful.
        self.subscriptions
            .iter()
            .find(|subscription| subscription.channel == channel)
    }

    pub(crate) fn subscription_mut(&mut self, channel: u32) -> Option<&mut Subscription> {
        self.subscriptions
            .iter_mut()
            .find(|subscription| subscription.channel == channel)
    }

    /// What its token lets it do in channels.
    pub(crate) fn capabilities(&self) -> Option<&Arc<Capabilities>> {
        self.conduct.as_ref()?.capabilities.as_ref()
    }

    pub(crate) fn set_capabilities(&mut self, capabilities: Option<Arc<Capabilities>>) {
        if self.conduct.is_some() || capabilities.is_some() {
            self.conduct.get_or_insert_default().capabilities = capabilities;
        }
    }

    /// What the session may do in a channel beside what the namespace says. `index` is that of the
    /// channel, if it is subscribed.
    pub(crate) fn allowed(&self, name: &str, index: Option<u32>) -> Allowed {
        let subscription = index.and_then(|index| self.subscription(index));
        let extra = subscription.and_then(|subscription| subscription.extra.as_deref());
        let own = extra.map_or(Allowed::NOTHING, |extra| extra.allow);
        let capabilities = self.capabilities();
        own | capabilities.map_or(Allowed::NOTHING, |capabilities| capabilities.of(name))
    }

    /// How the session shows itself in a channel.
    pub(crate) fn info_in(&self, channel: Option<u32>) -> &Arc<ClientInfo> {
        channel
            .and_then(|channel| self.subscription(channel))
            .and_then(|subscription| subscription.extra.as_ref()?.info.as_ref())
            .unwrap_or(&self.info)
    }
}

impl Subscription {
    pub(crate) fn expires_at(&self) -> Option<Duration> {
        self.extra.as_ref()?.expires_at
    }
}

/// All sessions of a hub.
#[derive(Default)]
pub(crate) struct Sessions(Slab<Session>);

impl Sessions {
    pub(crate) fn insert(&mut self, session: Session) -> SessionId {
        let (index, generation) = self.0.insert(session);
        SessionId { index, generation }
    }

    pub(crate) fn remove(&mut self, id: SessionId) -> Option<Session> {
        self.get(id)?;
        self.0.remove(id.index)
    }

    pub(crate) fn get(&self, id: SessionId) -> Option<&Session> {
        self.0.get(id.index, id.generation)
    }

    pub(crate) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.0.get_mut(id.index, id.generation)
    }

    pub(crate) fn connected(&self, id: SessionId) -> Option<&Connected> {
        self.get(id)?.connected()
    }

    /// The connected session in a slot of the table, whoever that is.
    pub(crate) fn connected_at(&self, index: u32) -> Option<(SessionId, &Connected)> {
        let id = SessionId {
            index,
            generation: self.0.generation(index),
        };
        Some((id, self.0.at(index)?.connected()?))
    }

    pub(crate) fn connected_at_mut(&mut self, index: u32) -> Option<&mut Connected> {
        self.0.at_mut(index)?.connected_mut()
    }

    pub(crate) fn connected_mut(&mut self, id: SessionId) -> Option<&mut Connected> {
        self.get_mut(id)?.connected_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn ids(&self) -> Vec<SessionId> {
        let keys = self.0.keys();
        keys.map(|(index, generation)| SessionId { index, generation })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Idle sessions are what a server has most of. Whoever makes one larger should know it.
    #[test]
    fn a_session_is_small() {
        assert!(
            size_of::<crate::hub::slab::Slot<Session>>() <= 160,
            "a slot of the table"
        );
        assert!(size_of::<Subscription>() <= 24);
        assert!(size_of::<crate::hub::channels::Subscriber>() <= 24);
        assert!(size_of::<crate::hub::Timer>() <= 12);
    }
}

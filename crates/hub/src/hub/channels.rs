//! The channels of one hub, and who is subscribed to each.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tautline_protocol::Encoding;
use tautline_protocol::filter::Filter;
use tautline_protocol::message::Payload;

use super::SessionId;
use super::class::{Classes, Patching};
use super::slab::Slab;
use super::tail::Tail;
use crate::engine::{Channel as ChannelArc, FeedId};

/// Names a channel of one hub for as long as it has subscribers; afterwards it finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChannelKey {
    pub(crate) index: u32,
    generation: u32,
}

/// A channel with subscribers on this worker.
pub(crate) struct Channel {
    pub(crate) name: ChannelArc,
    pub(crate) subscribers: Vec<Subscriber>,
    /// Incarnation of the stream, as last heard of; empty as long as nothing was.
    pub(crate) epoch: Arc<str>,
    /// Offset of the last publication that the feed brought in this epoch; 0 for none.
    pub(crate) seen: u64,
    /// How many live subscribers are watched for gaps.
    pub(crate) positioned: u32,
    /// How many are catching up with the feed, or may have to.
    pub(crate) following: u32,
    /// For how many publications are held.
    pub(crate) holding: u32,
    /// The end of the feed, as long as anybody is following.
    pub(crate) tail: Option<Box<Tail>>,
    /// Only where somebody has a filter or takes patches.
    pub(crate) classes: Option<Box<Classes>>,
    /// What is published here need not be JSON.
    pub(crate) takes_bytes: bool,
    /// Pages being read for those who are behind: where each begins, and the serial of its ticket.
    pub(crate) reads: Vec<(u64, u64)>,
    /// What the engine calls the feed of this channel to this worker.
    pub(crate) feed: FeedId,
    pub(crate) state: FeedState,
    /// When the position was last known to be right.
    pub(crate) checked_at: Duration,
    /// Whether a timer for the next check is set.
    pub(crate) check_armed: bool,
    /// The last check found the engine ahead of the feed, which may be a matter of time.
    pub(crate) suspected: bool,
}

/// Whether a channel is fed.
pub(crate) enum FeedState {
    /// Whoever subscribes next begins it.
    Off,
    /// It was asked for; these sessions wait for it.
    Beginning(Vec<SessionId>),
    On,
}

/// A session in a channel's list: all that fan-out needs to know of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscriber {
    pub(crate) session: SessionId,
    /// The cursor. Publications up to this offset are not for the session: it has them, or has no
    /// claim to them. Stands still while the session gets what the feed brings: how far that has
    /// come is [`Channel::seen`], the same for all.
    pub(crate) from: u64,
    pub(crate) role: Role,
    /// Something that is missing ends the subscription.
    pub(crate) positioned: bool,
    pub(crate) encoding: Encoding,
    /// Number of its class among the channel's.
    pub(crate) class: u16,
    pub(crate) patching: Patching,
    /// Wants to know who comes and goes.
    pub(crate) join_leave: bool,
}

/// What is to be done for a subscriber with a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It stands at the head: deliver what comes.
    Live,
    /// The subscribe command is not answered yet. Publications are nothing to the session.
    Pending,
    /// It is behind the head, at [`Subscriber::from`], and reads on from there as it has room.
    /// Publications are nothing to it until it has caught up.
    Behind,
    /// It can't keep up, and its namespace wants it to have the newest: what comes is held, and some
    /// of that is dropped.
    Holding,
}

impl Channel {
    fn new(name: ChannelArc, now: Duration) -> Self {
        Self {
            name,
            subscribers: Vec::new(),
            epoch: Arc::default(),
            seen: 0,
            positioned: 0,
            following: 0,
            holding: 0,
            tail: None,
            classes: None,
            takes_bytes: false,
            reads: Vec::new(),
            feed: 0,
            state: FeedState::Off,
            checked_at: now,
            check_armed: false,
            suspected: false,
        }
    }
}

impl Channel {
    pub(crate) fn push(&mut self, subscriber: Subscriber) {
        self.count(&subscriber, 1);
        if self.subscribers.is_empty() {
            // Most channels of a user's own have no more than this one.
            self.subscribers.reserve_exact(1);
        }
        self.subscribers.push(subscriber);
        self.keep_tail();
    }

    pub(crate) fn set_role(&mut self, slot: usize, role: Role) {
        let before = self.subscribers[slot];
        self.subscribers[slot].role = role;
        self.count(&before, -1);
        self.count(&Subscriber { role, ..before }, 1);
        self.keep_tail();
    }

    /// Finds the class of a subscriber that is about to be entered.
    pub(crate) fn classify(&mut self, filter: Option<Filter>, patching: Patching) -> u16 {
        if self.classes.is_none() && (filter.is_some() || patching != Patching::Off) {
            let mut classes = Classes::new();
            for _ in &self.subscribers {
                classes.enter(None, Patching::Off);
            }
            self.classes = Some(Box::new(classes));
        }
        match &mut self.classes {
            None => 0,
            Some(classes) => classes.enter(filter, patching),
        }
    }

    /// A subscriber has got something that wasn't fanned out, `last` at last.
    pub(crate) fn meet(&mut self, slot: usize, last: Option<&Payload>) {
        if let (Some(last), Some(classes)) = (last, &mut self.classes) {
            classes.meet(&mut self.subscribers[slot], last);
        }
    }

    /// Gives a subscriber another filter, from the next publication on.
    pub(crate) fn reclassify(&mut self, slot: usize, filter: Option<Filter>) {
        // So that there are classes, in which the subscriber has a place.
        let class = self.classify(filter, self.subscribers[slot].patching);
        let before = self.subscribers[slot];
        if let Some(classes) = &mut self.classes {
            classes.leave(&before);
        }
        let subscriber = &mut self.subscribers[slot];
        subscriber.class = class;
        subscriber.miss();
    }

    /// Takes a subscriber out. The last one gets its place.
    pub(crate) fn swap_remove(&mut self, slot: usize) {
        let subscriber = self.subscribers.swap_remove(slot);
        self.count(&subscriber, -1);
        self.keep_tail();
        let classes = self.classes.as_mut();
        if classes.is_some_and(|classes| classes.leave(&subscriber)) {
            self.classes = None;
        }
    }

    /// Where the session's subscription stands in the stream.
    pub(crate) fn position(&self, subscriber: &Subscriber) -> u64 {
        match subscriber.role {
            Role::Live | Role::Holding => subscriber.from.max(self.seen),
            Role::Pending | Role::Behind => subscriber.from,
        }
    }

    fn count(&mut self, subscriber: &Subscriber, change: i32) {
        let counter = match subscriber.role {
            Role::Live if subscriber.positioned => &mut self.positioned,
            Role::Pending if subscriber.positioned => &mut self.following,
            Role::Behind => &mut self.following,
            Role::Holding => &mut self.holding,
            Role::Live | Role::Pending => return,
        };
        *counter = counter.saturating_add_signed(change);
    }

    fn keep_tail(&mut self) {
        if self.following == 0 {
            self.tail = None;
        } else if self.tail.is_none() {
            self.tail = Some(Box::default());
        }
    }
}

/// All channels of a hub.
#[derive(Default)]
pub(crate) struct Channels {
    index: HashMap<ChannelArc, u32, foldhash::fast::RandomState>,
    slots: Slab<Channel>,
}

impl Channels {
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &ChannelArc> {
        self.index.keys()
    }

    pub(crate) fn keys(&self) -> Vec<ChannelKey> {
        let keys = self.slots.keys();
        keys.map(|(index, generation)| ChannelKey { index, generation })
            .collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.slots.iter()
    }

    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        self.index.get(name).copied()
    }

    /// The channel of that name, made if there was none.
    pub(crate) fn find_or_insert(&mut self, name: &str, now: Duration) -> u32 {
        if let Some(index) = self.find(name) {
            return index;
        }
        let name = ChannelArc::from(name);
        let channel = Channel::new(name.clone(), now);
        let (index, _) = self.slots.insert(channel);
        self.index.insert(name, index);
        index
    }

    pub(crate) fn remove(&mut self, index: u32) {
        if let Some(channel) = self.slots.remove(index) {
            self.index.remove(&channel.name);
        }
    }

    pub(crate) fn key(&self, index: u32) -> ChannelKey {
        ChannelKey {
            index,
            generation: self.slots.generation(index),
        }
    }

    pub(crate) fn get(&self, index: u32) -> Option<&Channel> {
        self.slots.at(index)
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut Channel> {
        self.slots.at_mut(index)
    }

    pub(crate) fn by_key(&mut self, key: ChannelKey) -> Option<&mut Channel> {
        self.slots.get_mut(key.index, key.generation)
    }
}

//! Readers that can't keep up and are to have the newest: what is held for them until there is room.

use std::collections::VecDeque;
use std::sync::Arc;

use tautline_protocol::message::Publication;

use super::channel_name::ChannelName;
use super::channels::{ChannelKey, Role};
use super::cursor::{PAGE_PUBLICATIONS, page_bytes};
use super::patches::Sequence;
use super::{Hub, SessionId};
use crate::Now;
use crate::config::{HubConfig, SlowConsumer};
use crate::engine::weight;
use crate::outbox::Outbox;

/// Publications of one channel that wait until the session has room.
pub(super) struct Held {
    pub(super) channel: ChannelKey,
    publications: VecDeque<Arc<Publication>>,
    bytes: usize,
}

impl Hub {
    /// Holds a publication for a session that is to have the newest when it has room.
    pub(super) fn hold(&mut self, id: SessionId, index: u32, publication: &Arc<Publication>) {
        let key = self.channels.key(index);
        let Some(channel) = self.channels.get(index) else {
            return;
        };
        let (policy, tag) = slow_consumer(&self.config, &channel.name);
        let limit = page_bytes(&self.config);
        let session = self.sessions.get_mut(id);
        let lag = session.and_then(|session| session.lag.as_deref_mut());
        let held = lag.and_then(|lag| lag.held.iter_mut().find(|held| held.channel == key));
        if let Some(held) = held {
            if policy == SlowConsumer::Latest {
                let is_replaced = |other: &Publication| match tag {
                    "" => true,
                    tag => other.tags.get(tag) == publication.tags.get(tag),
                };
                self.counters.dropped += held.remove(is_replaced);
            }
            self.counters.dropped += held.push(publication, limit);
        }
    }

    /// Sends what was held for a channel, which is live again with that.
    pub(super) fn release<O: Outbox>(&mut self, now: Now, id: SessionId, held: &Held, out: &mut O) {
        let Some(slot) = self.slot_in(id, held.channel, Role::Holding) else {
            return;
        };
        self.catch_up(now, held.channel, slot);
        if let Some(channel) = self.channels.by_key(held.channel) {
            let (name, subscriber) = (channel.name.clone(), channel.subscribers[slot]);
            let classes = channel.classes.as_deref();
            let takes_bytes = channel.takes_bytes;
            let mut sequence = Sequence::new(classes, subscriber, &mut self.patches);
            let publications = held.publications.iter();
            let publications: Vec<_> = publications
                .filter_map(|publication| sequence.dress(publication))
                .collect();
            let last = sequence.last();
            channel.meet(slot, last.as_ref());
            self.send_fitting(now, id, &name, takes_bytes, publications, out);
        }
    }
}

impl Held {
    pub(super) fn new(channel: ChannelKey) -> Self {
        Self {
            channel,
            publications: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Removes those that something newer replaces, and returns how many.
    fn remove(&mut self, is_replaced: impl Fn(&Publication) -> bool) -> u64 {
        let (before, bytes) = (self.publications.len(), &mut self.bytes);
        self.publications.retain(|publication| {
            let is_replaced = is_replaced(publication);
            *bytes -= if is_replaced { weight(publication) } else { 0 };
            !is_replaced
        });
        (before - self.publications.len()) as u64
    }

    /// Adds the newest, and returns how many of the oldest had to go for it.
    fn push(&mut self, publication: &Arc<Publication>, limit: usize) -> u64 {
        self.bytes += weight(publication);
        self.publications.push_back(publication.clone());
        let mut dropped = 0;
        while self.publications.len() > 1
            && (self.publications.len() > PAGE_PUBLICATIONS || self.bytes > limit)
        {
            if let Some(oldest) = self.publications.pop_front() {
                self.bytes -= weight(&oldest);
                dropped += 1;
            }
        }
        dropped
    }
}

/// What becomes of a channel's readers that can't keep up, and the tag by which the latest is told.
pub(super) fn slow_consumer<'c>(config: &'c HubConfig, channel: &str) -> (SlowConsumer, &'c str) {
    match ChannelName::parse(config, channel) {
        Ok(name) => (
            name.options.slow_consumer(),
            &name.options.slow_consumer_key_tag,
        ),
        Err(_) => (SlowConsumer::Disconnect, ""),
    }
}

//! Joins, or leaves, of one channel that came one right behind the other.
//!
//! A crowd comes at once. Of that each of those who are told gets one message, with a join behind the other, as of publications
//! that came together: it costs a subscriber what one of them does.

use std::sync::Arc;

use tautline_protocol::message::ClientInfo;
use tautline_protocol::{Encoding, Push, Reply};

use super::channels::Subscriber;
use super::fanout::Kind;
use super::frame_type::FrameType;
use super::run;
use super::{Hub, SessionId};
use crate::engine::{Channel, Delivery, FeedId, info_weight};
use crate::outbox::Outbox;

/// One that came, or left.
pub(super) struct Passage {
    pub(super) channel: Channel,
    /// The feed that tells it.
    pub(super) feed: FeedId,
    pub(super) info: Arc<ClientInfo>,
    pub(super) is_join: bool,
}

/// Those that are told together.
#[derive(Default)]
pub(super) struct Company {
    replies: Vec<Reply>,
    bytes: usize,
}

impl Company {
    fn push(&mut self, channel: &Channel, info: Arc<ClientInfo>, is_join: bool) {
        self.bytes += info_weight(&info);
        let channel = channel.clone();
        let push = if is_join {
            Push::Join(channel, info)
        } else {
            Push::Leave(channel, info)
        };
        self.replies.push(Reply::Push(push));
    }
}

impl Hub {
    /// Tells the subscribers of a channel who came or left, and with it who did the same right behind him.
    pub(super) fn deliver_company<O: Outbox>(
        &mut self,
        first: Passage,
        behind: &mut std::iter::Peekable<impl Iterator<Item = Delivery>>,
        out: &mut O,
    ) {
        let Passage {
            channel,
            feed,
            info,
            is_join,
        } = first;
        let Some(index) = self.fed_channel(&channel, feed) else {
            return;
        };
        // A session that left and came back must not hear of its own leaving.
        let leaver = match is_join {
            true => None,
            false => self.returned(index, &info),
        };
        let mut company = std::mem::take(&mut self.company);
        company.push(&channel, info, is_join);
        let may_follow = |hub: &Self, next: &Delivery, bytes: usize| {
            let (its_channel, its_feed, info, joins) = match next {
                Delivery::Join {
                    channel,
                    feed,
                    info,
                } => (channel, feed, info, true),
                Delivery::Leave {
                    channel,
                    feed,
                    info,
                } => (channel, feed, info, false),
                _ => return false,
            };
            joins == is_join
                && *its_feed == feed
                && bytes + info_weight(info) <= run::MOST_BYTES
                && *its_channel == channel
                && (joins || hub.returned(index, info).is_none())
        };
        while leaver.is_none()
            && company.replies.len() < run::MOST
            && let Some(next) = behind.next_if(|next| may_follow(self, next, company.bytes))
            && let Delivery::Join { info, .. } | Delivery::Leave { info, .. } = next
        {
            company.push(&channel, info, is_join);
        }
        let count = company.replies.len() as u64;
        let delivered = self.tally.delivered();
        if is_join {
            delivered.joins += count;
        } else {
            delivered.leaves += count;
        }
        self.fan_out_company(index, &company.replies, leaver, out);
        company.replies.clear();
        company.bytes = 0;
        self.company = company;
    }

    fn fan_out_company<O: Outbox>(
        &mut self,
        index: u32,
        replies: &[Reply],
        except: Option<SessionId>,
        out: &mut O,
    ) {
        let Some(first) = replies.first() else {
            return;
        };
        let wants =
            |subscriber: &Subscriber| subscriber.join_leave && Some(subscriber.session) != except;
        if self.is_traced() {
            for reply in replies {
                self.observe_event(index, reply, out, wants);
            }
        }
        let encode = |encoding: Encoding, message: &mut Vec<u8>| {
            for reply in replies {
                encoding.append_reply(reply, message);
            }
        };
        out.saying(FrameType::of_reply(first), replies.len());
        self.fan_out(index, encode, out, Kind::Event, |subscriber, _| {
            wants(subscriber)
        });
    }

    /// The session of somebody who left a channel, if it is subscribed to it again.
    fn returned(&self, index: u32, info: &ClientInfo) -> Option<SessionId> {
        let id = *self.clients.get(&info.client)?;
        self.sessions.connected(id)?.subscription(index)?;
        Some(id)
    }
}

//! Who comes and goes, told to a channel's subscribers: at once, or as soon as there is time for it.
//!
//! Each that comes is told to all who are there. So of a crowd that comes at once, or comes and goes, as much is to be told
//! as it has members, squared; what of that may be told in a second is bounded for each channel.
//!
//! Nobody is refused for it, and nothing is lost: what is beyond waits, in the order in which it happened. Who has gone before it
//! was told that he came isn't told of at all. So of a connection no more than two changes wait (that it left, and that it
//! is back), and those of which only the leaving waits are some of those who were there at one moment: what waits is bounded by
//! the subscriptions that there were. Who comes and goes all the time delays others by two deliveries to
//! each, however often he does it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tautline_protocol::message::ClientInfo;

use super::Hub;
use super::channel_name::ChannelName;
use super::limit::Over;
use crate::Now;
use crate::engine::JoinLevel;

/// Somebody came to a channel, or left it.
pub(super) struct Change {
    pub(super) info: Arc<ClientInfo>,
    pub(super) level: JoinLevel,
    pub(super) is_join: bool,
}

/// What there was no time to tell yet.
#[derive(Default)]
pub(super) struct Announcements {
    lines: HashMap<Arc<str>, Line, foldhash::fast::RandomState>,
    /// When each line goes on.
    due: BTreeSet<(Duration, Arc<str>)>,
    /// How many changes wait in all of them.
    count: usize,
}

/// The changes of one channel that wait.
#[derive(Default)]
struct Line {
    /// In their order.
    changes: BTreeMap<u64, Change>,
    /// Those of them who came, by connection.
    joins: HashMap<Arc<str>, u64, foldhash::fast::RandomState>,
    next: u64,
    due: Duration,
}

impl Announcements {
    /// How many changes wait.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// When the next line goes on.
    pub(super) fn next(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    fn has(&self, channel: &str) -> bool {
        self.count > 0 && self.lines.contains_key(channel)
    }

    /// Puts a change at the end of its channel's line, which begins now and goes on at `due` if there is none; or takes one
    /// away that it undoes, and returns `false`.
    fn push(&mut self, channel: &Arc<str>, change: Change, due: Duration) -> bool {
        let line = self.lines.entry(channel.clone()).or_default();
        if line.changes.is_empty() {
            line.due = due;
            self.due.insert((due, channel.clone()));
        }
        if change.is_join {
            line.joins.insert(change.info.client.clone(), line.next);
        } else if let Some(join) = line.joins.remove(&change.info.client) {
            // Nobody has heard that it came.
            line.changes.remove(&join);
            self.count -= 1;
            self.end_if_empty(channel);
            return false;
        }
        line.changes.insert(line.next, change);
        line.next += 1;
        self.count += 1;
        true
    }

    /// Takes the first change of a line.
    fn pop(&mut self, channel: &str) -> Option<Change> {
        let line = self.lines.get_mut(channel)?;
        let (_, change) = line.changes.pop_first()?;
        if change.is_join {
            line.joins.remove(&change.info.client);
        }
        self.count -= 1;
        self.end_if_empty(channel);
        Some(change)
    }

    fn end_if_empty(&mut self, channel: &str) {
        let line = self.lines.get(channel);
        if line.is_some_and(|line| line.changes.is_empty())
            && let Some((name, line)) = self.lines.remove_entry(channel)
        {
            self.due.remove(&(line.due, name));
        }
        if self.lines.is_empty() {
            // Crowds come seldom.
            *self = Self::default();
        }
    }

    /// A line that goes on now.
    fn take_due(&mut self, now: Duration) -> Option<Arc<str>> {
        if self.next()? > now {
            return None;
        }
        self.due.pop_first().map(|(_, channel)| channel)
    }

    /// A line that was taken goes on at `due`, if anything is left of it.
    fn put_off(&mut self, channel: Arc<str>, due: Duration) {
        if let Some(line) = self.lines.get_mut(&channel) {
            line.due = due;
            self.due.insert((due, channel));
        }
    }
}

impl Hub {
    /// How many joins and leaves of its sessions are still to be told, as
    /// [`join_leave_deliveries_per_second`](crate::config::NamespaceOptions::join_leave_deliveries_per_second) allows no more at
    /// the moment.
    pub fn unannounced(&self) -> usize {
        self.announcements.len()
    }

    /// Tells a channel's subscribers who came or left, now or as soon as that may be.
    pub(super) fn tell_change(&mut self, now: Now, channel: &Arc<str>, change: Change) {
        if self.announcements.has(channel) {
            // Behind those that happened before.
            return self.put_off(channel, change, now.monotonic + STEP);
        }
        match self.pay_to_tell(now, channel) {
            Ok(()) => self.tell(now, channel, &change),
            Err(over) => {
                if let Some(id) = self.clients.get(&change.info.client).copied() {
                    self.observe_over_limit(id, Some(channel), &Over::JoinLeave(over.most));
                }
                if over.dry_run {
                    self.counters.over_limit.join_leave[1] += 1;
                    return self.tell(now, channel, &change);
                }
                self.put_off(channel, change, over.again_at(now));
            }
        }
    }

    fn put_off(&mut self, channel: &Arc<str>, change: Change, due: Duration) {
        if self.announcements.push(channel, change, due) {
            self.counters.over_limit.join_leave[0] += 1;
        }
    }

    /// Goes on with those lines whose time has come.
    pub(super) fn announce_due(&mut self, now: Now) {
        while let Some(channel) = self.announcements.take_due(now.monotonic) {
            let mut due = now.monotonic + STEP;
            for _ in 0..AT_ONCE {
                match self.pay_to_tell(now, &channel) {
                    Err(over) if !over.dry_run => {
                        due = over.again_at(now);
                        break;
                    }
                    _ => {}
                }
                let Some(change) = self.announcements.pop(&channel) else {
                    break;
                };
                self.tell(now, &channel, &change);
            }
            self.announcements.put_off(channel, due);
        }
    }

    /// Takes what it costs to tell one change to a channel's subscribers.
    fn pay_to_tell(&self, now: Now, channel: &str) -> Result<(), TooMuch> {
        let Ok(name) = ChannelName::parse(&self.config, channel) else {
            return Ok(());
        };
        let most = name.options.join_leave_deliveries_per_second;
        let taken = self.pay_for_join_leave(now.monotonic, most, channel);
        taken.map_err(|wait| TooMuch {
            most,
            wait,
            dry_run: name.options.rates_dry_run,
        })
    }

    fn tell(&mut self, now: Now, channel: &Arc<str>, change: &Change) {
        let (info, level) = (&change.info, change.level);
        if change.is_join {
            self.engine.join(now, self.worker, channel, info, level);
            self.tally.sent().joins += 1;
        } else {
            self.engine.leave(now, self.worker, channel, info, level);
            self.tally.sent().leaves += 1;
        }
    }
}

/// There is no time for more at the moment.
struct TooMuch {
    /// Deliveries in a second.
    most: u64,
    /// Until there is time for the next.
    wait: Duration,
    dry_run: bool,
}

impl TooMuch {
    /// When it is tried again: soon enough for a channel that has fewer subscribers by then, or other options.
    fn again_at(&self, now: Now) -> Duration {
        now.monotonic + self.wait.clamp(STEP, PATIENCE)
    }
}

/// How often a line goes on, at the most.
const STEP: Duration = Duration::from_millis(10);

/// How often it looks whether it may, at the least.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many changes of a line are told at once, whatever they come to.
const AT_ONCE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn change(client: &str, is_join: bool) -> Change {
        Change {
            info: Arc::new(ClientInfo {
                client: client.into(),
                ..ClientInfo::default()
            }),
            level: JoinLevel::Client,
            is_join,
        }
    }

    fn told(announcements: &mut Announcements, channel: &str) -> Vec<String> {
        let changes = std::iter::from_fn(|| announcements.pop(channel));
        let told = changes.map(|change| {
            let sign = if change.is_join { '+' } else { '-' };
            format!("{sign}{}", change.info.client)
        });
        told.collect()
    }

    #[test]
    fn who_has_gone_before_it_was_told_that_he_came_is_not_told_of() {
        let mut all = Announcements::default();
        let (channel, due) = ("a".into(), Duration::from_secs(1));
        for (client, is_join, waits) in [
            ("ann", true, true),
            ("bob", false, true),
            ("eve", true, true),
            ("ann", false, false),
            ("bob", true, true),
            ("dan", true, true),
            ("bob", false, false),
            ("bob", true, true),
        ] {
            let change = change(client, is_join);
            assert_eq!(all.push(&channel, change, due), waits, "{client} {is_join}");
        }
        assert_eq!(all.len(), 4);
        assert_eq!(told(&mut all, "a"), ["-bob", "+eve", "+dan", "+bob"]);
        assert_eq!((all.len(), all.next()), (0, None));
    }

    #[test]
    fn who_comes_and_goes_all_the_time_takes_no_more_room() {
        let mut all = Announcements::default();
        let (channel, due) = ("a".into(), Duration::from_secs(1));
        for _ in 0..10_000 {
            all.push(&channel, change("bob", false), due);
            all.push(&channel, change("bob", true), due);
            // Told or not, the first stays what others know.
            all.push(&channel, change("bob", false), due);
            let line = &all.lines["a"];
            assert!(line.changes.len() <= 1 && line.joins.is_empty());
            assert_eq!(all.pop("a").map(|change| change.is_join), Some(false));
        }
        assert!(all.lines.is_empty() && all.due.is_empty());
    }

    #[test]
    fn lines_go_on_in_the_order_of_their_time() {
        let mut all = Announcements::default();
        let at = Duration::from_secs;
        for (channel, due) in [("a", 3), ("b", 1), ("c", 2)] {
            all.push(&channel.into(), change("bob", true), at(due));
            // Its line has its time already.
            all.push(&channel.into(), change("eve", true), at(0));
        }
        assert_eq!(all.next(), Some(at(1)));
        assert_eq!(all.take_due(at(0)), None);
        let due: Vec<_> = std::iter::from_fn(|| all.take_due(at(2))).collect();
        assert_eq!(due, ["b".into(), "c".into()]);
        for channel in due {
            all.pop(&channel);
            all.put_off(channel, at(9));
        }
        assert_eq!(all.take_due(at(3)), Some("a".into()));
        all.put_off("a".into(), at(10));
        assert_eq!(all.next(), Some(at(9)));
        assert_eq!(told(&mut all, "b"), ["+eve"]);
        all.put_off("b".into(), at(11));
        assert_eq!(all.next(), Some(at(9)), "c's, as nothing is left of b");
    }
}

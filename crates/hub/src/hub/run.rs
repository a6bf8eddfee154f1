//! Publications of one channel that came one right behind the other.
//!
//! Who publishes fast is read many commands at a time, and a busy mailbox fills while the worker is
//! elsewhere. What then waits of one channel goes out as one message, which the protocol allows:
//! its clients read a message reply by reply.

use std::sync::Arc;

use tautline_protocol::Publication;

use crate::engine::{Channel, Delivery, FeedId};

/// A run: publications without anything between them, in the stream or in the feed.
#[derive(Default)]
pub(crate) struct Run {
    publications: Vec<Arc<Publication>>,
    /// Of their data.
    bytes: usize,
    /// The last offset that may be among them.
    end: u64,
    /// Those who take patches get them as such.
    makes_patches: bool,
}

impl Run {
    /// A run that begins with `publication`, and goes no further than offset `end`.
    /// As patches for those who take them, if there is a stream and `patch` says so.
    pub(crate) fn begin(&mut self, publication: Arc<Publication>, end: u64, patch: bool) {
        self.clear();
        self.makes_patches = patch && publication.offset > 0;
        self.push(publication);
        self.end = end;
    }

    pub(crate) fn push(&mut self, publication: Arc<Publication>) {
        self.bytes += publication.data.len();
        self.publications.push(publication);
    }

    pub(crate) fn publications(&self) -> &[Arc<Publication>] {
        &self.publications
    }

    /// The offset of the first; 0 where there is no stream.
    pub(crate) fn first_offset(&self) -> u64 {
        self.publications.first().map_or(0, |first| first.offset)
    }

    pub(crate) fn makes_patches(&self) -> bool {
        self.makes_patches
    }

    /// Keeps its capacity, and nothing else.
    pub(crate) fn clear(&mut self) {
        self.publications.clear();
        self.bytes = 0;
    }

    /// Whether `delivery` may leave with what is here, which was fed to `channel` by `feed` in
    /// `epoch`.
    pub(crate) fn is_continued_by(
        &self,
        delivery: &Delivery,
        channel: &Channel,
        feed: FeedId,
        epoch: &Arc<str>,
    ) -> bool {
        let (
            Delivery::Publication {
                channel: its_channel,
                feed: its_feed,
                publication,
                epoch: its_epoch,
                previous,
                patch,
            },
            Some(last),
        ) = (delivery, self.publications.last())
        else {
            return false;
        };
        // Zero for both where there is no stream; no offset is skipped or taken back where there is one.
        // What isn't for all goes by itself.
        let is_for_all = last.except.is_none() && publication.except.is_none();
        let follows = if last.offset == 0 {
            publication.offset == 0
        } else {
            *patch == self.makes_patches
                && *previous == last.offset
                && publication.offset > last.offset
                && publication.offset <= self.end
        };
        follows
            && is_for_all
            && *its_feed == feed
            && self.publications.len() < MOST
            && self.bytes + publication.data.len() <= MOST_BYTES
            && its_channel == channel
            && its_epoch == epoch
    }
}

/// No more than the bits of a set of them.
pub(crate) const MOST: usize = 64;

/// One that is larger goes by itself.
pub(crate) const MOST_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(offset: u64, length: usize) -> Arc<Publication> {
        Arc::new(Publication {
            data: vec![b'0'; length].into(),
            offset,
            ..Publication::default()
        })
    }

    fn delivery(
        channel: &str,
        feed: FeedId,
        epoch: &str,
        previous: u64,
        offset: u64,
        length: usize,
    ) -> Delivery {
        Delivery::Publication {
            channel: channel.into(),
            feed,
            publication: publication(offset, length),
            epoch: epoch.into(),
            previous,
            patch: true,
        }
    }

    #[test]
    fn only_what_follows_right_on_it_continues_a_run() {
        let mut run = Run::default();
        run.begin(publication(7, 10), 8, true);
        let (channel, epoch) = (Channel::from("a"), Arc::from("e"));
        let continues = |delivery| run.is_continued_by(&delivery, &channel, 1, &epoch);
        assert!(continues(delivery("a", 1, "e", 7, 8, 10)));
        assert!(!continues(delivery("b", 1, "e", 7, 8, 10)), "channel");
        assert!(!continues(delivery("a", 2, "e", 7, 8, 10)), "feed");
        assert!(!continues(delivery("a", 1, "f", 7, 8, 10)), "epoch");
        assert!(!continues(delivery("a", 1, "e", 8, 9, 10)), "a gap");
        assert!(!continues(delivery("a", 1, "e", 7, 9, 10)), "too far");
        assert!(!continues(delivery("a", 1, "e", 6, 7, 10)), "again");
        assert!(!continues(delivery("a", 1, "e", 0, 0, 10)), "no stream");
        let mut whole = delivery("a", 1, "e", 7, 8, 10);
        if let Delivery::Publication { patch, .. } = &mut whole {
            *patch = false;
        }
        assert!(!continues(whole), "not as a patch");
        let mut echo = delivery("a", 1, "e", 7, 8, 10);
        if let Delivery::Publication { publication, .. } = &mut echo {
            Arc::make_mut(publication).except = Some("c1".into());
        }
        assert!(!continues(echo), "not for all");
        assert!(!continues(delivery("a", 1, "e", 7, 8, MOST_BYTES)), "size");
    }

    #[test]
    fn a_run_ends_when_it_is_long_enough() {
        let mut run = Run::default();
        run.begin(publication(0, 1), u64::MAX, true);
        let (channel, epoch) = (Channel::from("a"), Arc::default());
        let next = delivery("a", 1, "", 0, 0, 1);
        while run.is_continued_by(&next, &channel, 1, &epoch) {
            run.push(publication(0, 1));
        }
        assert_eq!(run.publications().len(), MOST);
    }
}

//! The newest publications of a channel's feed, kept for those who are catching up with it.
//!
//! An engine that answers later says where the stream ended when it looked; what the feed has
//! brought since is here. So whoever catches up meets the feed, however fast it runs.

use std::collections::VecDeque;
use std::sync::Arc;

use tautline_protocol::message::Publication;

use crate::engine::weight;

/// The end of a feed, without holes. Bounded: what is pushed out can be read from the engine.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    publications: VecDeque<Arc<Publication>>,
    /// Offset of the publication before the first; no meaning while there is none.
    before: u64,
    bytes: usize,
}

impl Tail {
    /// Adds what the feed has brought, which follows on `previous` in the stream.
    pub(crate) fn push(&mut self, publication: &Arc<Publication>, previous: u64) {
        let last = self.publications.back().map(|last| last.offset);
        if last.is_none_or(|last| previous > last) {
            self.clear();
            self.before = previous;
        }
        self.bytes += weight(publication);
        self.publications.push_back(publication.clone());
        while self.publications.len() > MAX_PUBLICATIONS || self.bytes > MAX_BYTES {
            let Some(first) = self.publications.pop_front() else {
                break;
            };
            self.before = first.offset;
            self.bytes -= weight(&first);
        }
    }

    /// Forgets everything: the stream has begun anew.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// All that follows on the publication with this offset; `None` if some of it isn't here.
    pub(crate) fn behind(&self, offset: u64) -> Option<impl Iterator<Item = &Arc<Publication>>> {
        (!self.publications.is_empty() && self.before <= offset).then(|| {
            let start = self
                .publications
                .partition_point(|publication| publication.offset <= offset);
            self.publications.range(start..)
        })
    }
}

/// More than a page, so that who has read the last page finds the rest here.
const MAX_PUBLICATIONS: usize = 1024;
const MAX_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(offsets: &[(u64, u64)]) -> Tail {
        let mut tail = Tail::default();
        for &(previous, offset) in offsets {
            tail.push(&publication(offset, 10), previous);
        }
        tail
    }

    fn publication(offset: u64, size: usize) -> Arc<Publication> {
        Arc::new(Publication {
            offset,
            data: vec![b'1'; size].into(),
            ..Publication::default()
        })
    }

    fn behind(tail: &Tail, offset: u64) -> Option<Vec<u64>> {
        tail.behind(offset)
            .map(|rest| rest.map(|publication| publication.offset).collect())
    }

    #[test]
    fn it_serves_those_who_have_what_comes_before() {
        let tail = tail(&[(5, 6), (6, 9), (9, 10)]);
        assert_eq!(behind(&tail, 4), None);
        assert_eq!(behind(&tail, 5), Some(vec![6, 9, 10]));
        assert_eq!(behind(&tail, 7), Some(vec![9, 10]));
        assert_eq!(behind(&tail, 10), Some(vec![]));
        assert_eq!(behind(&Tail::default(), 10), None);
    }

    #[test]
    fn a_hole_in_the_feed_begins_it_anew() {
        let tail = tail(&[(5, 6), (8, 9)]);
        assert_eq!(behind(&tail, 6), None);
        assert_eq!(behind(&tail, 8), Some(vec![9]));
    }

    #[test]
    fn it_is_bounded_by_number_and_by_bytes() {
        let many: Vec<(u64, u64)> = (1..3000).map(|offset| (offset - 1, offset)).collect();
        let tail = tail(&many);
        assert_eq!(tail.publications.len(), MAX_PUBLICATIONS);
        assert_eq!(behind(&tail, 2999 - MAX_PUBLICATIONS as u64 - 1), None);
        assert!(behind(&tail, 2999 - MAX_PUBLICATIONS as u64).is_some());
        let mut tail = Tail::default();
        for offset in 1..10 {
            tail.push(&publication(offset, MAX_BYTES / 3), offset - 1);
        }
        assert!(tail.bytes <= MAX_BYTES);
        assert_eq!(behind(&tail, 7), Some(vec![8, 9]));
    }
}

//! Joining what is stored to what is live, so that a subscription begins without a gap or a
//! duplicate.
//!
//! Pure: what was read and what came meanwhile go in, what to tell the client comes out.

use std::sync::Arc;

use tautline_protocol::message::{Publication, StreamPosition};

use crate::engine::HistoryPage;

/// Live publications that came while a subscription was being made.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// Of all of them.
    epoch: Arc<str>,
    /// In the order they came. Only kept when `keep` allows.
    publications: Vec<Arc<Publication>>,
    /// What came before the first.
    previous: u64,
    /// Offset of the last; 0 for an empty buffer.
    top: u64,
    /// They don't follow each other, or are not all of one epoch.
    is_broken: bool,
    /// How many are kept. More than that can't be recovered, but still count for the position.
    keep: usize,
    /// There were more.
    is_overfull: bool,
}

impl Buffer {
    /// A buffer that keeps up to `keep` publications.
    pub(crate) fn new(keep: usize) -> Self {
        Self {
            keep,
            ..Self::default()
        }
    }

    /// Adds a publication that is part of the stream.
    pub(crate) fn push(&mut self, publication: &Arc<Publication>, epoch: &Arc<str>, previous: u64) {
        if self.top == 0 {
            self.epoch = epoch.clone();
            self.previous = previous;
        } else if *epoch != self.epoch || previous > self.top {
            self.is_broken = true;
        } else if publication.offset <= self.top {
            return;
        }
        self.top = publication.offset;
        if self.publications.len() < self.keep {
            self.publications.push(publication.clone());
        } else {
            self.is_overfull = true;
        }
    }
}

/// Where and how a positioned subscription begins.
#[derive(Debug, PartialEq)]
pub(crate) struct Beginning {
    /// Nothing is missing since the requested position.
    pub(crate) recovered: bool,
    /// What was missed.
    pub(crate) publications: Vec<Arc<Publication>>,
    /// What the client is told: the requested offset if recovered, the top otherwise.
    pub(crate) position: StreamPosition,
    /// Offset of the last publication which the client has (or has no claim to) after this.
    pub(crate) from: u64,
}

/// What was stored and what is live don't meet.
#[derive(Debug, PartialEq)]
pub(crate) struct Hole;

/// Joins `page`, read since the requested position, to what came live meanwhile.
///
/// `since` is the position to recover from, `None` where no recovery was asked for. The page must
/// have been read from it.
pub(crate) fn begin(
    since: Option<(u64, &str)>,
    page: HistoryPage,
    buffer: Buffer,
) -> Result<Beginning, Hole> {
    let HistoryPage {
        top,
        publications: stored,
        follows,
    } = page;
    let has_live = buffer.top > top.offset;
    if buffer.top > 0 && (buffer.is_broken || buffer.epoch != top.epoch) {
        return Err(Hole);
    }
    // The first live publication may lie well before the top. What must not be is a hole between.
    if has_live && buffer.previous > top.offset {
        return Err(Hole);
    }
    let from = top.offset.max(buffer.top);
    let unrecovered = |epoch| Beginning {
        recovered: false,
        publications: Vec::new(),
        position: StreamPosition {
            offset: from,
            epoch,
        },
        from,
    };
    let Some((since, epoch)) = since else {
        return Ok(unrecovered(top.epoch));
    };
    let same_stream = epoch.is_empty() || *epoch == *top.epoch;
    let reaches_top = match stored.last() {
        None => since == top.offset,
        Some(last) => last.offset == top.offset,
    };
    let is_complete = follows && reaches_top && !(has_live && buffer.is_overfull);
    if !same_stream || !is_complete {
        return Ok(unrecovered(top.epoch));
    }
    let mut publications = stored;
    let live = buffer.publications.into_iter();
    publications.extend(live.filter(|publication| publication.offset > top.offset));
    Ok(Beginning {
        recovered: true,
        publications,
        position: StreamPosition {
            offset: since,
            epoch: top.epoch,
        },
        from,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(offset: u64) -> Arc<Publication> {
        Arc::new(Publication {
            offset,
            ..Publication::default()
        })
    }

    fn page(top: u64, entries: impl IntoIterator<Item = u64>, follows: bool) -> HistoryPage {
        HistoryPage {
            top: StreamPosition {
                offset: top,
                epoch: "E".into(),
            },
            publications: entries.into_iter().map(publication).collect(),
            follows,
        }
    }

    fn live(epoch: &str, offsets: &[u64]) -> Buffer {
        let mut buffer = Buffer::new(10);
        for &offset in offsets {
            buffer.push(&publication(offset), &epoch.into(), offset - 1);
        }
        buffer
    }

    fn offsets(beginning: &Beginning) -> Vec<u64> {
        beginning
            .publications
            .iter()
            .map(|publication| publication.offset)
            .collect()
    }

    #[test]
    fn everything_missed_is_there_and_the_requested_offset_is_told() {
        let begun = begin(Some((3, "E")), page(5, 4..=5, true), live("E", &[])).unwrap();
        assert!(begun.recovered);
        assert_eq!(offsets(&begun), [4, 5]);
        assert_eq!((begun.position.offset, begun.from), (3, 5));
    }

    #[test]
    fn nothing_missed_is_recovered_too() {
        let begun = begin(Some((5, "E")), page(5, [], true), live("E", &[])).unwrap();
        assert!(begun.recovered && begun.publications.is_empty());
        assert_eq!((begun.position.offset, begun.from), (5, 5));
    }

    #[test]
    fn an_empty_epoch_matches_any_and_another_matches_none() {
        assert!(
            begin(Some((3, "")), page(5, 4..=5, true), live("E", &[]))
                .unwrap()
                .recovered
        );
        let begun = begin(Some((3, "F")), page(5, 4..=5, true), live("E", &[])).unwrap();
        assert!(!begun.recovered && begun.publications.is_empty());
        assert_eq!((begun.position.offset, begun.from), (5, 5));
        assert_eq!(&*begun.position.epoch, "E");
    }

    #[test]
    fn a_page_that_does_not_follow_or_stops_short_is_not_recovered() {
        assert!(
            !begin(Some((1, "E")), page(5, 4..=5, false), live("E", &[]))
                .unwrap()
                .recovered
        );
        assert!(
            !begin(Some((1, "E")), page(5, 2..=4, true), live("E", &[]))
                .unwrap()
                .recovered
        );
    }

    #[test]
    fn a_client_ahead_of_the_stream_is_not_recovered() {
        let begun = begin(Some((9, "E")), page(5, [], false), live("E", &[])).unwrap();
        assert!(!begun.recovered);
        assert_eq!(begun.position.offset, 5);
    }

    #[test]
    fn live_publications_join_without_gap_or_duplicate() {
        let begun = begin(
            Some((2, "E")),
            page(5, 3..=5, true),
            live("E", &[4, 5, 6, 7]),
        )
        .unwrap();
        assert_eq!(offsets(&begun), [3, 4, 5, 6, 7]);
        assert_eq!((begun.position.offset, begun.from), (2, 7));
    }

    #[test]
    fn live_publications_count_for_the_position_where_nothing_is_recovered() {
        let begun = begin(None, page(5, 1..=5, true), live("E", &[6, 7])).unwrap();
        assert!(!begun.recovered && begun.publications.is_empty());
        assert_eq!((begun.position.offset, begun.from), (7, 7));
    }

    #[test]
    fn a_hole_between_stored_and_live_is_noticed() {
        assert_eq!(
            begin(None, page(5, 1..=5, true), live("E", &[7])),
            Err(Hole)
        );
        assert_eq!(
            begin(None, page(5, 1..=5, true), live("E", &[6, 8])),
            Err(Hole)
        );
        assert_eq!(
            begin(None, page(5, 1..=5, true), live("F", &[6])),
            Err(Hole)
        );
    }

    #[test]
    fn more_than_is_kept_is_not_recovered() {
        let offsets: Vec<u64> = (6..=20).collect();
        let begun = begin(Some((5, "E")), page(5, [], true), live("E", &offsets)).unwrap();
        assert!(!begun.recovered && begun.publications.is_empty());
        assert_eq!((begun.position.offset, begun.from), (20, 20));
    }
}

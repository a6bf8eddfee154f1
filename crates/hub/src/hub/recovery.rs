//! Where a positioned subscription begins, so that it has neither a gap nor a duplicate.
//!
//! Pure: what was read goes in, what to tell the client comes out.

use std::sync::Arc;

use tautline_protocol::message::{Publication, StreamPosition};

use crate::engine::HistoryPage;

/// Where and how a positioned subscription begins.
#[derive(Debug, PartialEq)]
pub(crate) struct Beginning {
    /// Nothing is missing since the requested position, and nothing will be: what is not among the
    /// publications follows.
    pub(crate) recovered: bool,
    /// What was missed, or the first page of it.
    pub(crate) publications: Vec<Arc<Publication>>,
    /// What the client is told: the requested offset if recovered, the top otherwise.
    pub(crate) position: StreamPosition,
    /// Offset of the last publication which the client has (or has no claim to) after this.
    pub(crate) from: u64,
    /// What follows comes by the feed; otherwise there is more to be read first.
    pub(crate) is_at_head: bool,
}

/// Begins with `page`, read since the requested position.
///
/// `since` is the position to recover from, `None` where no recovery was asked for. `seen` is how
/// far the feed has come in the page's epoch; 0 if it has brought nothing yet.
pub(crate) fn begin(since: Option<(u64, &str)>, page: HistoryPage, seen: u64) -> Beginning {
    let HistoryPage {
        top,
        publications,
        follows,
    } = page;
    let is_same = |epoch: &str| epoch.is_empty() || *epoch == *top.epoch;
    match since {
        Some((since, epoch)) if follows && is_same(epoch) => {
            let from = publications.last().map_or(since, |last| last.offset);
            Beginning {
                recovered: true,
                publications,
                is_at_head: is_at_head(from, seen, top.offset),
                position: StreamPosition {
                    offset: since,
                    epoch: top.epoch,
                },
                from,
            }
        }
        _ => {
            let from = top.offset.max(seen);
            Beginning {
                recovered: false,
                publications: Vec::new(),
                position: StreamPosition {
                    offset: from,
                    epoch: top.epoch,
                },
                from,
                is_at_head: true,
            }
        }
    }
}

/// The same where the newest publication that `passes` is all that is wanted of what was missed.
/// `page` was read backward, from the newest on.
pub(crate) fn begin_with_newest(
    (since, epoch): (u64, &str),
    page: HistoryPage,
    seen: u64,
    passes: impl Fn(&Publication) -> bool,
) -> Beginning {
    let HistoryPage {
        top,
        mut publications,
        ..
    } = page;
    let is_current = since > 0 && since == top.offset && *epoch == *top.epoch;
    let has_newest = publications.first().map(|newest| newest.offset) == Some(top.offset);
    let recovered = is_current || has_newest;
    let from = top.offset;
    if !recovered {
        publications.clear();
        return Beginning {
            recovered,
            publications,
            position: StreamPosition {
                offset: from.max(seen),
                epoch: top.epoch,
            },
            from: from.max(seen),
            is_at_head: true,
        };
    }
    publications.retain(|publication| passes(publication));
    publications.truncate(1);
    // With a filter, what the client has may be the newest for it though the stream went on.
    let is_same = *epoch == *top.epoch;
    publications.retain(|publication| !is_same || publication.offset > since);
    Beginning {
        recovered,
        publications,
        is_at_head: is_at_head(from, seen, from),
        position: StreamPosition {
            offset: since,
            epoch: top.epoch,
        },
        from,
    }
}

/// Whether everything behind `from` comes by a feed that has come as far as `seen`. One that has
/// brought nothing yet (0) brings what comes behind `top`, read after it began.
pub(crate) fn is_at_head(from: u64, seen: u64, top: u64) -> bool {
    from >= if seen > 0 { seen } else { top }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(top: u64, entries: impl IntoIterator<Item = u64>, follows: bool) -> HistoryPage {
        let publication = |offset| {
            Arc::new(Publication {
                offset,
                ..Publication::default()
            })
        };
        HistoryPage {
            top: StreamPosition {
                offset: top,
                epoch: "E".into(),
            },
            publications: entries.into_iter().map(publication).collect(),
            follows,
        }
    }

    fn offsets(beginning: &Beginning) -> Vec<u64> {
        let publications = beginning.publications.iter();
        publications.map(|publication| publication.offset).collect()
    }

    #[test]
    fn everything_missed_is_there_and_the_requested_offset_is_told() {
        let begun = begin(Some((3, "E")), page(5, 4..=5, true), 0);
        assert!(begun.recovered && begun.is_at_head);
        assert_eq!(offsets(&begun), [4, 5]);
        assert_eq!((begun.position.offset, begun.from), (3, 5));
    }

    #[test]
    fn nothing_missed_is_recovered_too() {
        let begun = begin(Some((5, "E")), page(5, [], true), 0);
        assert!(begun.recovered && begun.is_at_head && begun.publications.is_empty());
        assert_eq!((begun.position.offset, begun.from), (5, 5));
    }

    #[test]
    fn an_empty_epoch_matches_any_and_another_matches_none() {
        assert!(begin(Some((3, "")), page(5, 4..=5, true), 0).recovered);
        let begun = begin(Some((3, "F")), page(5, 4..=5, true), 0);
        assert!(!begun.recovered && begun.is_at_head && begun.publications.is_empty());
        assert_eq!((begun.position.offset, begun.from), (5, 5));
        assert_eq!(&*begun.position.epoch, "E");
    }

    #[test]
    fn what_does_not_follow_is_not_recovered() {
        assert!(!begin(Some((1, "E")), page(5, 4..=5, false), 0).recovered);
        assert!(!begin(Some((9, "E")), page(5, [], false), 0).recovered);
    }

    #[test]
    fn a_first_page_is_recovered_and_leaves_more_to_read() {
        let begun = begin(Some((1, "E")), page(900, 2..=4, true), 0);
        assert!(begun.recovered && !begun.is_at_head);
        assert_eq!((begun.position.offset, begun.from), (1, 4));
        // Not if the feed is still about to bring the rest.
        assert!(begin(Some((1, "E")), page(900, 2..=4, true), 4).is_at_head);
    }

    #[test]
    fn a_cache_does_not_repeat_what_the_client_has() {
        let newest = |since, passing: u64| {
            let mut page = page(5, [], false);
            page.publications = self::page(5, 1..=5, true).publications;
            page.publications.reverse();
            let begun = begin_with_newest(since, page, 0, |one| one.offset <= passing);
            assert!(begun.recovered && begun.from == 5);
            offsets(&begun)
        };
        assert_eq!(newest((0, ""), 3), [3]);
        assert_eq!(newest((2, "E"), 3), [3]);
        assert_eq!(newest((3, "E"), 3), [0; 0], "the stream went on without it");
        assert_eq!(newest((5, "E"), 5), [0; 0]);
        assert_eq!(newest((3, "F"), 3), [3], "of another stream");
    }

    #[test]
    fn a_feed_that_is_ahead_has_to_be_caught_up_with() {
        let begun = begin(Some((3, "E")), page(5, 4..=5, true), 8);
        assert!(begun.recovered && !begun.is_at_head);
        // Who recovers nothing has no claim to what came meanwhile.
        let begun = begin(None, page(5, [], false), 8);
        assert!(!begun.recovered && begun.is_at_head);
        assert_eq!((begun.position.offset, begun.from), (8, 8));
    }
}

//! The contract of engines, sentence by sentence.

mod bench;
mod feed;
mod history;
mod once;
mod presence;

use self::feed::{
    channels_are_separate, feed_ends, feed_is_ordered, feeds_have_names, no_history_no_position,
    offsets_count, publications_keep_their_exception, wishes_for_patches,
};
use self::history::{
    meta_ttl_ends_the_epoch, pages_backward, pages_forward, pages_have_a_size, pages_tell_holes,
    removed_history, size_limits_history, ttl_limits_history,
};
use self::once::{keys_and_versions, keys_publish_once, versions_have_a_scope, versions_only_grow};
use self::presence::{joins_and_leaves, presence_in_pages, presence_lists, users_join_once};
use super::Subject;

/// Something that every engine must do, with its name.
pub type Rule = (&'static str, fn(&dyn Subject));

/// All rules.
pub const CONTRACT: &[Rule] = &[
    (
        "offsets count from one and come with the epoch",
        offsets_count,
    ),
    (
        "every worker attached gets each publication once and in order",
        feed_is_ordered,
    ),
    ("a worker that is not attached gets nothing", feed_ends),
    (
        "deliveries name the feed that brings them",
        feeds_have_names,
    ),
    (
        "without history there is no position",
        no_history_no_position,
    ),
    ("history is kept up to its size", size_limits_history),
    (
        "history is kept for its time, positions for longer",
        ttl_limits_history,
    ),
    (
        "a forgotten position begins a new epoch",
        meta_ttl_ends_the_epoch,
    ),
    ("pages forward go on behind a position", pages_forward),
    ("pages are bounded by bytes", pages_have_a_size),
    ("pages backward go on before a position", pages_backward),
    (
        "a page says whether it follows its position",
        pages_tell_holes,
    ),
    ("a key publishes once", keys_publish_once),
    (
        "what is no newer than the channel's version is not published",
        versions_only_grow,
    ),
    (
        "versions of another scope can't be compared",
        versions_have_a_scope,
    ),
    (
        "a key that came with a stale version has its outcome",
        keys_and_versions,
    ),
    (
        "history that is removed is gone, and the stream goes on",
        removed_history,
    ),
    (
        "the wish for a patch comes with the publication",
        wishes_for_patches,
    ),
    (
        "presence lists who was added and not removed",
        presence_lists,
    ),
    (
        "presence is listed in pages, from any place on",
        presence_in_pages,
    ),
    (
        "joins and leaves reach those attached, in order",
        joins_and_leaves,
    ),
    ("a user joins once and leaves once", users_join_once),
    (
        "a publication keeps whom it is not for",
        publications_keep_their_exception,
    ),
    ("channels know nothing of each other", channels_are_separate),
];

/// Checks every rule, each on a fresh engine.
///
/// # Panics
///
/// If a rule is broken; the rule's name is printed first.
pub fn check<S: Subject>(make: impl Fn() -> S) {
    for (name, rule) in CONTRACT {
        // Shown by the test harness only if the rule is broken.
        eprintln!("rule: {name}");
        rule(&make());
    }
}

//! Patches between publications that many readers get one after the other.
//!
//! Whoever reads from history gets each publication as a patch against the one before it. A thousand
//! clients that come back at once read the same pages, so what was made for one is kept for the others:
//! a few, for a while, within [`MAX_BYTES`].

use std::sync::Arc;

use hashbrown::HashMap;
use tautline_protocol::delta::Encoder;
use tautline_protocol::message::{Payload, Publication};

use super::channels::Subscriber;
use super::class::{Classes, Patching, as_patch, whole};

/// Makes patches, and remembers the last ones.
#[derive(Default)]
pub(crate) struct Patches {
    pub(super) encoder: Encoder,
    /// By the places in memory of what they are between, which stays there as long as it is
    /// remembered.
    known: HashMap<[(usize, usize); 2], Made, foldhash::fast::RandomState>,
    /// What `known` holds.
    bytes: usize,
}

struct Made {
    /// Hold their places.
    _between: [Payload; 2],
    patch: Option<Payload>,
}

impl Patches {
    /// The patch that makes `target` of `base`, if there is one worth it.
    fn between(&mut self, base: &Payload, target: &Payload) -> Option<Payload> {
        let key = [base, target].map(|payload| (payload.as_ptr() as usize, payload.len()));
        if let Some(made) = self.known.get(&key) {
            return made.patch.clone();
        }
        let patch = self.encoder.encode(base, target);
        let patch = patch.map(Payload::copy_from_slice);
        let bytes = base.len() + target.len() + patch.as_ref().map_or(0, Payload::len);
        self.bytes += bytes + size_of::<Made>();
        if self.bytes > MAX_BYTES {
            self.known = HashMap::default();
            self.bytes = 0;
        }
        let made = Made {
            _between: [base.clone(), target.clone()],
            patch: patch.clone(),
        };
        self.known.insert(key, made);
        patch
    }
}

/// What one reader gets of publications that it reads one after the other: those that are for it, each
/// as a patch against the one before if it takes patches. The first one is whole: the reader may have
/// anything before it.
pub(crate) struct Sequence<'a> {
    classes: Option<&'a Classes>,
    subscriber: Subscriber,
    patches: &'a mut Patches,
    last: Option<Payload>,
}

impl<'a> Sequence<'a> {
    pub(crate) fn new(
        classes: Option<&'a Classes>,
        subscriber: Subscriber,
        patches: &'a mut Patches,
    ) -> Self {
        Self {
            classes,
            subscriber,
            patches,
            last: None,
        }
    }

    /// The next of them as the reader gets it; `None` if it isn't for it.
    pub(crate) fn dress(&mut self, publication: &Arc<Publication>) -> Option<Arc<Publication>> {
        let Self {
            classes,
            subscriber,
            patches,
            last,
        } = self;
        if classes.is_some_and(|classes| !classes.passes(subscriber.class, publication)) {
            return None;
        }
        if subscriber.patching == Patching::Off {
            return Some(publication.clone());
        }
        let base = last.replace(publication.data.clone());
        let patch = base.and_then(|base| patches.between(&base, &publication.data));
        Some(match patch {
            Some(patch) => as_patch(subscriber.encoding, publication, &patch),
            None => whole(subscriber.encoding, publication),
        })
    }

    /// What the reader has now; `None` if it got nothing, or takes no patches.
    pub(crate) fn last(self) -> Option<Payload> {
        self.last
    }
}

/// How much may be held to be used again.
const MAX_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use tautline_protocol::delta;

    fn reading(number: usize) -> Payload {
        format!("{{\"device\":\"pump-7\",\"status\":\"running\",\"rpm\":{number}}}").into()
    }

    #[test]
    fn a_patch_is_made_once() {
        let mut patches = Patches::default();
        let (base, target) = (reading(1), reading(2));
        let first = patches.between(&base, &target).unwrap();
        let again = patches.between(&base, &target).unwrap();
        assert_eq!(first.as_ptr(), again.as_ptr());
        // The same bytes elsewhere have the same patch, but it isn't known.
        let other = patches.between(&reading(1), &target).unwrap();
        assert_eq!(first, other);
        assert_ne!(first.as_ptr(), other.as_ptr());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_right() {
        let mut patches = Patches::default();
        let all: Vec<Payload> = (0..40_000).map(reading).collect();
        for pair in all.windows(2) {
            let patch = patches.between(&pair[0], &pair[1]).unwrap();
            assert_eq!(delta::apply(&pair[0], &patch, 1000).unwrap(), pair[1]);
            assert!(patches.bytes <= 2 * MAX_BYTES);
            assert!(patches.known.len() * size_of::<Made>() <= MAX_BYTES);
        }
    }
}

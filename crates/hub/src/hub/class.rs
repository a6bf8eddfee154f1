//! Subscribers that get publications in a way of their own: filtered by tags, or as patches.
//!
//! Those of a channel with the same filter are a *class*. A filter is asked once a publication,
//! however many have it; and a patch is made once for each pair of publications, which is to say
//! once for all classes that got the same publication before. A channel where nobody wants any of
//! this has no classes, and costs nothing for it.

use std::sync::Arc;

use tautline_protocol::delta::Encoder;
use tautline_protocol::filter::Filter;
use tautline_protocol::message::{Payload, Publication};
use tautline_protocol::{Encoding, Push, Reply};

use super::channels::{Role, Subscriber};
use crate::engine::Channel as Name;
use crate::outbox::Outbox;

/// The classes of a channel's subscribers.
pub(crate) struct Classes {
    /// The first is that of those without a filter.
    list: Vec<Class>,
    /// How many subscribers take patches.
    patched: u32,
}

#[derive(Default)]
struct Class {
    filter: Option<Filter>,
    subscribers: u32,
    /// What those who are live got last.
    last: Option<Payload>,
}

/// Whether a subscriber takes patches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Patching {
    #[default]
    Off,
    /// It does, but has nothing yet that a patch could be made against.
    Fresh,
    /// It has what its class got last.
    Ready,
}

impl Subscriber {
    /// Its class gets something that it doesn't, or not from here.
    pub(crate) fn miss(&mut self) {
        if self.patching == Patching::Ready {
            self.patching = Patching::Fresh;
        }
    }
}

impl Classes {
    pub(crate) fn new() -> Self {
        Self {
            list: vec![Class::default()],
            patched: 0,
        }
    }

    /// Enters a subscriber and returns the number of its class.
    pub(crate) fn enter(&mut self, filter: Option<Filter>, patching: Patching) -> u16 {
        let place = match &filter {
            None => Some(0),
            Some(_) => self.list.iter().position(|class| class.filter == filter),
        };
        let place = place.or_else(|| {
            let mut places = self.list.iter().enumerate().skip(1);
            places
                .find(|(_, class)| class.subscribers == 0)
                .map(|(place, _)| place)
        });
        let place = place.unwrap_or(self.list.len());
        // Fewer than `MAX_CLASSES`, see `is_full`.
        let number = u16::try_from(place).unwrap_or_default();
        if place == self.list.len() {
            self.list.push(Class::default());
        }
        let class = &mut self.list[place];
        if class.subscribers == 0 {
            *class = Class {
                filter,
                ..Class::default()
            };
        }
        class.subscribers += 1;
        self.patched += u32::from(patching != Patching::Off);
        number
    }

    /// Whether there is no room for another filter.
    pub(crate) fn is_full(&self, filter: &Filter) -> bool {
        let mut classes = self.list.iter().skip(1);
        let has_room = self.list.len() < MAX_CLASSES
            || classes.any(|class| class.subscribers == 0 || class.filter.as_ref() == Some(filter));
        !has_room
    }

    /// Takes a subscriber out. Returns whether there is nobody left for whom classes are needed.
    pub(crate) fn leave(&mut self, subscriber: &Subscriber) -> bool {
        if let Some(class) = self.list.get_mut(usize::from(subscriber.class)) {
            class.subscribers = class.subscribers.saturating_sub(1);
        }
        self.patched -= u32::from(subscriber.patching != Patching::Off);
        let mut filtered = self.list.iter().skip(1);
        self.patched == 0 && filtered.all(|class| class.subscribers == 0)
    }

    /// Whether a publication is for the subscribers of a class.
    pub(crate) fn passes(&self, class: u16, publication: &Publication) -> bool {
        let filter = self
            .list
            .get(usize::from(class))
            .and_then(|class| class.filter.as_ref());
        filter.is_none_or(|filter| filter.matches(&publication.tags))
    }

    /// Publications went by that the subscribers may not have got: patches begin anew.
    pub(crate) fn forget(&mut self) {
        for class in &mut self.list {
            class.last = None;
        }
    }
}

/// How many different filters a channel's subscribers on one worker may have: each is asked about
/// each publication.
const MAX_CLASSES: usize = 10_000;

/// What a subscriber gets of a publication that it reads from history, or got late. Whole: a reader
/// may have anything before it. `None` if it isn't for it.
pub(crate) fn dress(
    classes: Option<&Classes>,
    subscriber: &Subscriber,
    publication: &Arc<Publication>,
) -> Option<Arc<Publication>> {
    if classes.is_some_and(|classes| !classes.passes(subscriber.class, publication)) {
        return None;
    }
    if subscriber.patching == Patching::Off {
        return Some(publication.clone());
    }
    Some(whole(subscriber.encoding, publication))
}

/// A publication as those get it who take patches, where it is no patch.
fn whole(encoding: Encoding, publication: &Publication) -> Arc<Publication> {
    let data = encoding.delta_data(&publication.data);
    Arc::new(Publication {
        // What isn't UTF-8 is no JSON either, and is never published where JSON is spoken.
        data: data.unwrap_or_else(|| publication.data.clone()),
        ..publication.clone()
    })
}

/// How a message is to be written. The place in a table of what was made ready.
#[derive(Clone, Copy)]
enum Form {
    Plain,
    Whole,
    Patch,
}

/// One publication on its way to the classes of a channel.
pub(crate) struct Assortment<'a, O: Outbox> {
    name: &'a Name,
    publication: &'a Arc<Publication>,
    scratch: &'a mut Vec<u8>,
    /// By class: whether it is for it.
    passes: Vec<bool>,
    /// By class: the patch against what it got last.
    patches: Vec<Option<Payload>>,
    /// By encoding, plain and whole.
    ready: [[Option<O::Prepared>; 2]; Encoding::COUNT],
    /// By encoding and class.
    ready_patches: [Vec<Option<O::Prepared>>; Encoding::COUNT],
}

impl<'a, O: Outbox> Assortment<'a, O> {
    pub(crate) fn new(
        name: &'a Name,
        publication: &'a Arc<Publication>,
        patch: bool,
        classes: &mut Classes,
        encoder: &mut Encoder,
        scratch: &'a mut Vec<u8>,
    ) -> Self {
        let count = classes.list.len();
        let mut passes = Vec::with_capacity(count);
        let mut patches: Vec<Option<Payload>> = Vec::with_capacity(count);
        let makes_patches = patch && classes.patched > 0;
        // Few bases: most classes got the same publication last.
        let mut made: Vec<(*const u8, Option<Payload>)> = Vec::new();
        for class in &mut classes.list {
            let filter = class.filter.as_ref();
            let is_for_it = class.subscribers > 0
                && filter.is_none_or(|filter| filter.matches(&publication.tags));
            passes.push(is_for_it);
            let base = class.last.as_ref().filter(|_| is_for_it && makes_patches);
            let patch = base.and_then(|base| {
                let known = made.iter().find(|(made, _)| *made == base.as_ptr());
                if let Some((_, patch)) = known {
                    return patch.clone();
                }
                let patch = encoder.encode(base, &publication.data);
                let patch = patch.map(Payload::copy_from_slice);
                made.push((base.as_ptr(), patch.clone()));
                patch
            });
            patches.push(patch);
            if is_for_it && classes.patched > 0 {
                class.last = Some(publication.data.clone());
            }
        }
        Self {
            name,
            publication,
            scratch,
            passes,
            patches,
            ready: Default::default(),
            ready_patches: std::array::from_fn(|_| (0..count).map(|_| None).collect()),
        }
    }

    /// Whether the publication is for a subscriber that would get it by its place in the stream.
    pub(crate) fn is_for(&self, subscriber: &Subscriber) -> bool {
        self.passes
            .get(usize::from(subscriber.class))
            .is_some_and(|passes| *passes)
    }

    /// The message for a subscriber, which has the publication with that.
    pub(crate) fn take(&mut self, subscriber: &mut Subscriber, out: &mut O) -> &O::Prepared {
        let class = usize::from(subscriber.class);
        let form = match subscriber.patching {
            Patching::Off => Form::Plain,
            Patching::Ready if self.patches[class].is_some() => Form::Patch,
            Patching::Fresh | Patching::Ready => Form::Whole,
        };
        if subscriber.patching == Patching::Fresh && subscriber.role == Role::Live {
            subscriber.patching = Patching::Ready;
        }
        self.get(subscriber.encoding, class, form, out)
    }

    fn get(&mut self, encoding: Encoding, class: usize, form: Form, out: &mut O) -> &O::Prepared {
        let Self {
            name,
            publication,
            scratch,
            patches,
            ready,
            ready_patches,
            ..
        } = self;
        let place = match form {
            Form::Plain => &mut ready[encoding.index()][0],
            Form::Whole => &mut ready[encoding.index()][1],
            Form::Patch => &mut ready_patches[encoding.index()][class],
        };
        place.get_or_insert_with(|| {
            let publication = match (form, &patches[class]) {
                (Form::Plain, _) => (*publication).clone(),
                (Form::Patch, Some(patch)) => {
                    let data = encoding.delta_data(patch).unwrap_or_else(|| patch.clone());
                    Arc::new(Publication {
                        data,
                        delta: true,
                        ..(***publication).clone()
                    })
                }
                (Form::Whole | Form::Patch, _) => whole(encoding, publication),
            };
            let push = Push::Publication((*name).clone(), publication);
            scratch.clear();
            encoding.encode_reply(&Reply::Push(push), scratch);
            out.prepare(encoding, scratch)
        })
    }
}

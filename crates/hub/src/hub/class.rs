//! Subscribers that get publications in a way of their own: filtered by tags, or as patches.
//!
//! Those of a channel with the same filter are a *class*. A filter is asked once a publication,
//! however many have it; and a patch is made once for each pair of publications, which is to say
//! once for all classes that got the same publication before. A channel where nobody wants any of
//! this has no classes, and costs nothing for it.

use std::sync::Arc;

use hashbrown::HashMap;
use tautline_protocol::delta::Encoder;
use tautline_protocol::filter::Filter;
use tautline_protocol::message::{Payload, Publication};
use tautline_protocol::{Encoding, Push, Reply};

use super::channels::{Role, Subscriber};
use super::frame_type::FrameType;
use super::run::Run;
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

    /// The filter of a class, if it has one.
    pub(crate) fn filter(&self, class: u16) -> Option<&Filter> {
        self.list.get(usize::from(class))?.filter.as_ref()
    }

    /// Whether a publication is for the subscribers of a class.
    pub(crate) fn passes(&self, class: u16, publication: &Publication) -> bool {
        let filter = self
            .list
            .get(usize::from(class))
            .and_then(|class| class.filter.as_ref());
        filter.is_none_or(|filter| filter.matches(&publication.tags))
    }

    /// A subscriber has got something from history, `last` at last: the next patch of its class is for
    /// it if that is what the class got last, too.
    pub(crate) fn meet(&mut self, subscriber: &mut Subscriber, last: &Payload) {
        if subscriber.patching == Patching::Off {
            return;
        }
        let class = self.list.get_mut(usize::from(subscriber.class));
        let has_it = class.is_some_and(|class| {
            if class.subscribers == 1 {
                // It is all there is of the class.
                class.last = Some(last.clone());
            }
            class.last.as_ref() == Some(last)
        });
        subscriber.patching = if has_it {
            Patching::Ready
        } else {
            Patching::Fresh
        };
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

/// A publication as those get it who take patches, where it is no patch.
pub(crate) fn whole(encoding: Encoding, publication: &Publication) -> Arc<Publication> {
    let data = encoding.delta_data(&publication.data);
    Arc::new(Publication {
        // What isn't UTF-8 is no JSON either, and is never published where JSON is spoken.
        data: data.unwrap_or_else(|| publication.data.clone()),
        ..publication.clone()
    })
}

/// A publication as those get it who take patches, where it is one.
pub(crate) fn as_patch(
    encoding: Encoding,
    publication: &Publication,
    patch: &Payload,
) -> Arc<Publication> {
    let data = encoding.delta_data(patch);
    Arc::new(Publication {
        // A patch between what is UTF-8 is UTF-8.
        data: data.unwrap_or_else(|| patch.clone()),
        delta: true,
        ..publication.clone()
    })
}

/// Publications on their way to the classes of a channel, all of them to each that they are for.
pub(crate) struct Assortment<'a, O: Outbox> {
    name: &'a Name,
    run: &'a [Arc<Publication>],
    scratch: &'a mut Vec<u8>,
    encoder: &'a mut Encoder,
    makes_patches: bool,
    /// By class: the number of its group.
    group_of: Vec<u16>,
    groups: Vec<Group<O>>,
    /// Patches, by the address of what they are made against and their place in the run.
    made: Vec<(*const u8, usize, Option<Payload>)>,
}

/// Classes which get the same of a run, and got the same before it.
struct Group<O: Outbox> {
    /// Which are for it: a bit for each of the run.
    passes: u64,
    /// What patches of the first one are made against.
    base: Option<Payload>,
    /// By encoding, and by what its subscribers have.
    ready: [[Option<O::Prepared>; 3]; Encoding::COUNT],
}

impl<'a, O: Outbox> Assortment<'a, O> {
    /// Asks each filter about each publication of `run`.
    pub(crate) fn new(
        name: &'a Name,
        run: &'a Run,
        classes: &mut Classes,
        encoder: &'a mut Encoder,
        scratch: &'a mut Vec<u8>,
    ) -> Self {
        let is_patched = classes.patched > 0;
        let makes_patches = is_patched && run.makes_patches();
        let run = run.publications();
        let mut group_of = Vec::with_capacity(classes.list.len());
        let mut groups: Vec<Group<O>> = Vec::new();
        // Few: most classes got the same publication last. But there may be as many as classes.
        let mut known = HashMap::<_, u16, foldhash::fast::RandomState>::default();
        for class in &mut classes.list {
            let mut passes = 0_u64;
            let mut last = None;
            if class.subscribers > 0 {
                for (place, publication) in run.iter().enumerate() {
                    let filter = class.filter.as_ref();
                    if filter.is_none_or(|filter| filter.matches(&publication.tags)) {
                        passes |= 1 << place;
                        last = Some(publication);
                    }
                }
            }
            let base = class.last.clone().filter(|_| makes_patches && passes != 0);
            if let Some(last) = last
                && is_patched
            {
                class.last = Some(last.data.clone());
            }
            let key = (passes, base.as_ref().map(|base| base.as_ptr()));
            let group = *known.entry(key).or_insert_with(|| {
                groups.push(Group {
                    passes,
                    base,
                    ready: Default::default(),
                });
                // No more than `MAX_CLASSES`.
                (groups.len() - 1) as u16
            });
            group_of.push(group);
        }
        Self {
            name,
            run,
            scratch,
            encoder,
            makes_patches,
            group_of,
            groups,
            made: Vec::new(),
        }
    }

    /// Whether any of it is for a subscriber that would get it by its place in the stream.
    pub(crate) fn is_for(&self, subscriber: &Subscriber) -> bool {
        self.groups[self.group(subscriber)].passes != 0
    }

    /// The message for a subscriber, which has all that is for it with that.
    pub(crate) fn take(&mut self, subscriber: &mut Subscriber, out: &mut O) -> &O::Prepared {
        let patching = subscriber.patching;
        if patching == Patching::Fresh && subscriber.role == Role::Live {
            subscriber.patching = Patching::Ready;
        }
        let (group, encoding) = (self.group(subscriber), subscriber.encoding);
        let place = patching as usize;
        if self.groups[group].ready[encoding.index()][place].is_none() {
            self.encode(group, encoding, patching);
        }
        let Self {
            groups, scratch, ..
        } = self;
        let passes = groups[group].passes;
        groups[group].ready[encoding.index()][place].get_or_insert_with(|| {
            out.saying(FrameType::PushPublication, passes.count_ones() as usize);
            out.prepare(encoding, scratch)
        })
    }

    fn group(&self, subscriber: &Subscriber) -> usize {
        let group = self.group_of.get(usize::from(subscriber.class));
        group.copied().unwrap_or_default().into()
    }

    /// Puts the message of a group together, as those get it who have what `patching` says.
    fn encode(&mut self, group: usize, encoding: Encoding, patching: Patching) {
        let Group { passes, base, .. } = &self.groups[group];
        let mut base = base.clone().filter(|_| patching == Patching::Ready);
        self.scratch.clear();
        for (place, publication) in self.run.iter().enumerate() {
            if passes & 1 << place == 0 {
                continue;
            }
            let dressed = match (patching, &base) {
                (Patching::Off, _) => publication.clone(),
                (_, None) => whole(encoding, publication),
                (_, Some(base)) => {
                    match patch(&mut self.made, self.encoder, base, place, publication) {
                        None => whole(encoding, publication),
                        Some(patch) => as_patch(encoding, publication, &patch),
                    }
                }
            };
            base = self.makes_patches.then(|| publication.data.clone());
            let push = Push::Publication(self.name.clone(), dressed);
            encoding.append_reply(&Reply::Push(push), self.scratch);
        }
    }
}

/// The patch that makes a publication of `base`, if there is one that is worth it. Each is made once.
fn patch(
    made: &mut Vec<(*const u8, usize, Option<Payload>)>,
    encoder: &mut Encoder,
    base: &Payload,
    place: usize,
    publication: &Publication,
) -> Option<Payload> {
    let mut known = made.iter();
    if let Some((.., patch)) = known.find(|(made, at, _)| (*made, *at) == (base.as_ptr(), place)) {
        return patch.clone();
    }
    let patch = encoder.encode(base, &publication.data);
    let patch = patch.map(Payload::copy_from_slice);
    made.push((base.as_ptr(), place, patch.clone()));
    patch
}

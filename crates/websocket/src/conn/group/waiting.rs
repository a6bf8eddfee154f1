//! A list of those who wait for the next publication. It is taken as a whole, and whoever waits again
//! is added again; who leaves in between gives its place to the next.

use std::mem;

/// Those who wait.
pub(super) struct Waiting<T> {
    list: Vec<Option<T>>,
    /// Places in `list` whose owners have left.
    vacant: Vec<u32>,
    /// Counts how often the list was taken.
    turn: u64,
    /// Kept for its memory: what `list` was before it was taken.
    spare: Vec<Option<T>>,
}

/// Where somebody waits, until the list is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    turn: u64,
    index: u32,
}

impl Place {
    /// In no list.
    pub(super) const NONE: Self = Self {
        turn: u64::MAX,
        index: 0,
    };
}

impl<T> Waiting<T> {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.list.len() == self.vacant.len()
    }

    /// Adds one who waits.
    #[inline]
    pub(super) fn add(&mut self, waiter: T) -> Place {
        let index = match self.vacant.pop() {
            Some(index) => {
                self.list[index as usize] = Some(waiter);
                index
            }
            None => {
                self.list.push(Some(waiter));
                (self.list.len() - 1) as u32
            }
        };
        let turn = self.turn;
        Place { turn, index }
    }

    /// Who waits there, unless the list was taken in the meantime.
    #[inline]
    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut T> {
        if place.turn != self.turn {
            return None;
        }
        self.list.get_mut(place.index as usize)?.as_mut()
    }

    /// Takes one out who waits no longer, unless the list was taken in the meantime.
    pub(super) fn remove(&mut self, place: Place) -> Option<T> {
        if place.turn != self.turn {
            return None;
        }
        let waiter = self.list.get_mut(place.index as usize)?.take();
        if waiter.is_some() {
            self.vacant.push(place.index);
        }
        waiter
    }

    /// Takes all, and begins the next turn.
    pub(super) fn take_all(&mut self) -> Vec<Option<T>> {
        self.turn += 1;
        self.vacant.clear();
        mem::replace(&mut self.list, mem::take(&mut self.spare))
    }

    /// Keeps an emptied list for the memory that it has, unless that is more than twice what `members` need.
    pub(super) fn keep(&mut self, list: Vec<Option<T>>, members: usize) {
        debug_assert!(list.is_empty());
        if list.capacity() > self.spare.capacity() && list.capacity() <= 2 * members {
            self.spare = list;
        }
    }

    /// Gives all memory back, when nobody waits.
    pub(super) fn reset(&mut self) {
        debug_assert!(self.is_empty());
        self.turn += 1;
        (self.list, self.vacant, self.spare) = (Vec::new(), Vec::new(), Vec::new());
    }
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            vacant: Vec::new(),
            turn: 0,
            spare: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_makes_room_for_the_next() {
        let mut waiting = Waiting::default();
        let places: Vec<_> = (0..3).map(|n| waiting.add(n)).collect();
        assert_eq!(waiting.remove(places[1]), Some(1));
        assert_eq!(waiting.remove(places[1]), None);
        for n in 10..100 {
            let place = waiting.add(n);
            assert_eq!(waiting.remove(place), Some(n));
        }
        assert_eq!((waiting.list.len(), waiting.vacant.len()), (3, 1));
        waiting.add(7);
        assert_eq!(waiting.take_all(), [Some(0), Some(7), Some(2)]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_place_is_of_one_turn() {
        let mut waiting = Waiting::default();
        let old = waiting.add("old");
        waiting.take_all();
        waiting.add("new");
        assert_eq!(waiting.get_mut(old), None);
        assert_eq!(waiting.remove(old), None);
        assert_eq!(waiting.remove(Place::NONE), None);
        assert_eq!(waiting.take_all(), [Some("new")]);
    }

    #[test]
    fn memory_is_kept_from_turn_to_turn_but_not_too_much() {
        let mut waiting = Waiting::default();
        for n in 0..100 {
            waiting.add(n);
        }
        let mut list = waiting.take_all();
        let memory = list.as_ptr();
        list.clear();
        waiting.keep(list, 100);
        assert!(waiting.take_all().is_empty());
        waiting.add(1);
        let list = waiting.take_all();
        assert_eq!((list.as_ptr(), &list[..]), (memory, &[Some(1)][..]));
        waiting.keep(Vec::with_capacity(1000), 10);
        assert_eq!(waiting.spare.capacity(), 0);
    }
}

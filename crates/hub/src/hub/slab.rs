//! A table whose entries are named by a number, and by how often the number was used before.
//!
//! It grows by blocks which stay where they are: an entry is never moved, nothing is copied in a
//! connect storm, and no more than a block is spare. (A vector that doubles has a third to spare on
//! average, and an idle session is mostly this table's bytes.)

/// Entries of one kind.
pub(crate) struct Slab<T> {
    /// All of them full but the last.
    blocks: Vec<Vec<Slot<T>>>,
    /// Numbers that may be used again.
    free: Vec<u32>,
}

pub(crate) struct Slot<T> {
    generation: u32,
    entry: Option<T>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            blocks: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    /// Enters something, and returns its number and generation.
    pub(crate) fn insert(&mut self, entry: T) -> (u32, u32) {
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slot_mut(index)
        {
            slot.entry = Some(entry);
            return (index, slot.generation);
        }
        let slot = Slot {
            generation: 0,
            entry: Some(entry),
        };
        match self.blocks.last_mut() {
            Some(block) if block.len() < BLOCK => block.push(slot),
            _ => {
                let mut block = Vec::with_capacity(BLOCK);
                block.push(slot);
                self.blocks.push(block);
            }
        }
        let last = self.blocks.last().map_or(0, Vec::len);
        // What is entered takes more memory than 32 bits can count.
        (((self.blocks.len() - 1) * BLOCK + last - 1) as u32, 0)
    }

    /// Takes out whatever has the number.
    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let slot = self.slot_mut(index)?;
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        Some(entry)
    }

    #[inline]
    pub(crate) fn get(&self, index: u32, generation: u32) -> Option<&T> {
        let slot = self.slot(index)?;
        slot.entry
            .as_ref()
            .filter(|_| slot.generation == generation)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32, generation: u32) -> Option<&mut T> {
        let slot = self.slot_mut(index)?;
        let is_it = slot.generation == generation;
        slot.entry.as_mut().filter(|_| is_it)
    }

    /// Whatever has the number now.
    #[inline]
    pub(crate) fn at(&self, index: u32) -> Option<&T> {
        self.slot(index)?.entry.as_ref()
    }

    /// Whatever has the number now.
    #[inline]
    pub(crate) fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slot_mut(index)?.entry.as_mut()
    }

    /// How often the number was used before.
    pub(crate) fn generation(&self, index: u32) -> u32 {
        self.slot(index).map_or(0, |slot| slot.generation)
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        // All blocks are full but the last.
        let last = self.blocks.last().map_or(0, Vec::len);
        self.blocks.len().saturating_sub(1) * BLOCK + last - self.free.len()
    }

    /// The number and generation of each entry.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (u32, u32)> {
        let slots = self.blocks.iter().flatten().enumerate();
        slots
            .filter(|(_, slot)| slot.entry.is_some())
            .map(|(index, slot)| (index as u32, slot.generation))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let slots = self.blocks.iter().flatten();
        slots.filter_map(|slot| slot.entry.as_ref())
    }

    #[inline]
    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        let index = index as usize;
        self.blocks.get(index / BLOCK)?.get(index % BLOCK)
    }

    #[inline]
    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot<T>> {
        let index = index as usize;
        self.blocks.get_mut(index / BLOCK)?.get_mut(index % BLOCK)
    }
}

const BLOCK: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testkit::Seeded;

    #[test]
    fn it_does_what_a_map_would() {
        let mut random = Seeded::new(1);
        let mut slab = Slab::default();
        assert_eq!(slab.len(), 0);
        let mut known: Vec<((u32, u32), u64)> = Vec::new();
        let mut gone: Vec<(u32, u32)> = Vec::new();
        for step in 0..5000_u64 {
            if known.is_empty() || random.chance(if step < 2500 { 60 } else { 40 }) {
                let key = slab.insert(step);
                assert!(!gone.contains(&key), "a key is never given twice");
                assert!(known.iter().all(|(other, _)| other.0 != key.0));
                known.push((key, step));
            } else {
                let (key, entry) = known.swap_remove(random.below(known.len()));
                assert_eq!(slab.remove(key.0), Some(entry));
                gone.push(key);
            }
            if step % 100 == 0 {
                for ((index, generation), entry) in &known {
                    assert_eq!(slab.get(*index, *generation), Some(entry));
                    assert_eq!(slab.at(*index), Some(entry));
                    assert_eq!(slab.generation(*index), *generation);
                }
                for (index, generation) in &gone {
                    assert_eq!(slab.get_mut(*index, *generation), None);
                }
                let mut keys: Vec<_> = known.iter().map(|(key, _)| *key).collect();
                keys.sort_unstable();
                assert_eq!(slab.keys().collect::<Vec<_>>(), keys);
                assert_eq!(slab.iter().count(), keys.len());
                assert_eq!(slab.len(), keys.len());
            }
        }
        assert_eq!(slab.at(u32::MAX), None);
        assert_eq!(slab.remove(u32::MAX), None);
    }
}

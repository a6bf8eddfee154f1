//! How many subscribers channels have on this node, where their namespaces say how many there may be.

use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;

/// The channels that are counted, for all hubs of a process.
#[derive(Default)]
pub(crate) struct Rooms(Mutex<HashMap<Arc<str>, usize, foldhash::fast::RandomState>>);

/// A subscriber's room in a channel, for as long as this lives.
pub(crate) struct Room {
    rooms: Arc<Rooms>,
    channel: Arc<str>,
}

impl Rooms {
    /// Room for one more subscriber of a channel that may have so many, and whether it is one too many; none for that, but
    /// in a dry run.
    pub(crate) fn take(
        self: &Arc<Self>,
        channel: &str,
        most: usize,
        dry_run: bool,
    ) -> (Option<Arc<Room>>, bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.get(channel).copied().unwrap_or(0);
        let is_over = count >= most;
        if is_over && !dry_run {
            return (None, true);
        }
        let channel = match all.get_key_value_mut(channel) {
            Some((channel, count)) => {
                *count += 1;
                Arc::clone(channel)
            }
            None => {
                let channel: Arc<str> = channel.into();
                all.insert(Arc::clone(&channel), 1);
                channel
            }
        };
        let room = Room {
            rooms: Arc::clone(self),
            channel,
        };
        (Some(Arc::new(room)), is_over)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut all = self.rooms.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.channel) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.channel);
            }
        }
        if all.len() < all.capacity() / 4 {
            all.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_free_again_when_subscribers_leave() {
        let rooms = Arc::<Rooms>::default();
        let take = |channel| rooms.take(channel, 2, false);
        let (one, other) = (take("a").0.unwrap(), take("a").0.unwrap());
        let (none, is_over) = take("a");
        assert!(none.is_none() && is_over);
        assert!(take("b").0.is_some(), "another channel");
        let (tried, is_over) = rooms.take("a", 2, true);
        assert!(tried.is_some() && is_over);
        drop((one, tried));
        assert!(take("a").0.is_some());
        drop(other);
        assert!(rooms.0.lock().unwrap().is_empty());
    }
}

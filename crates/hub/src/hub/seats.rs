//! The connections of each user, counted over all hubs of a process: how many there may be, and which of
//! them is the newest.
//!
//! All are counted who are somebody, whether or not there is a limit: it costs a connection no memory, and a limit
//! that comes with a reload holds for those who are there already. Only where one is to be the only one, each has its
//! number.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tautline_protocol::Disconnect;

use super::counts::{Counts, Place};
use super::{Hub, SessionId};
use crate::Now;
use crate::config::ClientOptions;
use crate::engine::{Delivery, Mailbox, WorkerId};
use crate::outbox::Outbox;

/// The connections of all users. They outlive a configuration.
#[derive(Default)]
pub(crate) struct Seats {
    taken: Arc<Counts>,
    /// Number of the last one that has one.
    last: AtomicU64,
    mailboxes: Mutex<Vec<(WorkerId, Arc<dyn Mailbox>)>>,
}

/// What the options say of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeatRules {
    /// How many each may have; 0 for any number.
    limit: usize,
    /// A new one takes the place of those before it.
    is_single: bool,
}

impl SeatRules {
    pub(crate) fn new(options: &ClientOptions) -> Self {
        let personal = &options.subscribe_to_user_personal_channel;
        Self {
            limit: options.user_connection_limit,
            is_single: personal.enabled && personal.single_connection,
        }
    }
}

impl Seats {
    /// Makes known how a worker is told of connections that others have taken.
    pub(crate) fn register(&self, worker: WorkerId, mailbox: &Arc<dyn Mailbox>) {
        let mailboxes = self.mailboxes.lock();
        let mut mailboxes = mailboxes.unwrap_or_else(PoisonError::into_inner);
        mailboxes.retain(|(known, _)| *known != worker);
        mailboxes.push((worker, mailbox.clone()));
    }

    /// A connection of a user is gone.
    pub(super) fn leave(&self, user: &str) {
        if !user.is_empty() {
            self.taken.leave(user);
        }
    }

    /// A number greater than those of all before it; and tells the workers to end the connections of the user whose
    /// numbers are smaller.
    fn supersede(&self, user: &Arc<str>) -> Option<NonZeroU64> {
        let number = NonZeroU64::new(self.last.fetch_add(1, Ordering::Relaxed) + 1)?;
        let mailboxes = self.mailboxes.lock();
        for (_, mailbox) in &*mailboxes.unwrap_or_else(PoisonError::into_inner) {
            mailbox.push(Delivery::Superseded {
                user: user.clone(),
                by: number.get(),
            });
        }
        Some(number)
    }
}

impl Hub {
    /// A place among its user's connections for one that is about to connect; the anonymous one needs none.
    ///
    /// # Errors
    ///
    /// Disconnect 3504 if the user has as many connections as it may.
    pub(super) fn take_seat(&mut self, user: &Arc<str>) -> Result<Option<Place>, Disconnect> {
        if user.is_empty() {
            return Ok(None);
        }
        let rules = self.config.seat_rules;
        // Those before it make room, if only one is wanted.
        let most = if rules.is_single { 0 } else { rules.limit };
        let taken = self
            .config
            .seats
            .taken
            .take(user, most, self.config.dry_run);
        let counts = &mut self.counters.over_limit.user_connections;
        match taken {
            Ok((place, is_over)) => {
                counts[1] += u64::from(is_over);
                Ok(Some(place))
            }
            Err(_full) => {
                counts[0] += 1;
                let why = format_args!(
                    "the user has {most} connections on this node, as many as client.user_connection_limit allows"
                );
                Err(self.because_of(why, Disconnect::CONNECTION_LIMIT))
            }
        }
    }

    /// A session is connected, and counts until it [leaves](Seats::leave).
    pub(super) fn sit_down(&mut self, id: SessionId, place: Option<Place>) {
        let Some(place) = place else {
            return;
        };
        place.keep();
        if self.config.seat_rules.is_single
            && let Some(connected) = self.sessions.connected_mut(id)
        {
            let number = self.config.seats.supersede(&connected.info.user);
            connected.conduct.get_or_insert_default().number = number;
        }
    }

    /// Ends the connections of a user that were there before another, which is to be the only one: those without a number
    /// came when there was no such rule.
    pub(super) fn end_superseded<O: Outbox>(&mut self, now: Now, user: &str, by: u64, out: &mut O) {
        for id in self.users.sessions_of(user, &self.sessions) {
            let connected = self.sessions.connected(id);
            let conduct = connected.and_then(|connected| connected.conduct.as_deref());
            let number = conduct.and_then(|conduct| conduct.number);
            if number.map_or(0, NonZeroU64::get) < by {
                self.end(now, id, &Disconnect::CONNECTION_LIMIT, out);
            }
        }
    }
}

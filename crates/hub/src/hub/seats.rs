//! The connections of each user, counted over all hubs of a process: how many there may be, and which of
//! them is the newest.
//!
//! Only where an option asks for it. A connect takes a lock then, and nothing else does.

use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use tautline_protocol::Disconnect;

use super::{Hub, SessionId};
use crate::Now;
use crate::config::ClientOptions;
use crate::engine::{Delivery, Mailbox, WorkerId};
use crate::outbox::Outbox;

/// The seats of all users. They outlive a configuration.
#[derive(Default)]
pub(crate) struct Seats {
    taken: Mutex<Taken>,
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

    /// Whether anybody is counted.
    fn count(self) -> bool {
        self.limit > 0 || self.is_single
    }
}

#[derive(Default)]
struct Taken {
    by_user: HashMap<Arc<str>, usize, foldhash::fast::RandomState>,
    /// Number of the last one.
    last: u64,
    mailboxes: Vec<(WorkerId, Arc<dyn Mailbox>)>,
}

/// A connection that counts, for as long as this lives.
pub(crate) struct Seat {
    seats: Arc<Seats>,
    user: Arc<str>,
    /// Greater than those of all seats that were taken before.
    number: u64,
}

impl Seats {
    /// Makes known how a worker is told of connections that others have taken.
    pub(crate) fn register(&self, worker: WorkerId, mailbox: &Arc<dyn Mailbox>) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.mailboxes.retain(|(known, _)| *known != worker);
        taken.mailboxes.push((worker, mailbox.clone()));
    }

    /// A seat for a user, and whether it is one too many, if those may be taken. None is needed for the anonymous one,
    /// or where nobody counts.
    ///
    /// # Errors
    ///
    /// If the user has as many as it may.
    fn take(
        self: &Arc<Self>,
        user: &Arc<str>,
        rules: SeatRules,
        dry_run: bool,
    ) -> Result<(Option<Seat>, bool), Disconnect> {
        if user.is_empty() || !rules.count() {
            return Ok((None, false));
        }
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.by_user.entry_ref(user).or_insert(0);
        // Those before it make room, if only one is wanted.
        let is_over = rules.limit > 0 && !rules.is_single && *count >= rules.limit;
        if is_over && !dry_run {
            return Err(Disconnect::CONNECTION_LIMIT);
        }
        *count += 1;
        taken.last += 1;
        let seat = Seat {
            seats: self.clone(),
            user: user.clone(),
            number: taken.last,
        };
        Ok((Some(seat), is_over))
    }
}

impl Seat {
    /// Its client is connected now: tells the workers to end the connections that it takes the place of.
    fn supersede(&self) {
        let taken = self.seats.taken.lock();
        let taken = taken.unwrap_or_else(PoisonError::into_inner);
        for (_, mailbox) in &taken.mailboxes {
            mailbox.push(Delivery::Superseded {
                user: self.user.clone(),
                by: self.number,
            });
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let taken = self.seats.taken.lock();
        let mut taken = taken.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.by_user.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                taken.by_user.remove(&self.user);
            }
        }
    }
}

impl Hub {
    /// # Errors
    ///
    /// Disconnect 3504 if the user has as many connections as it may.
    pub(super) fn take_seat(&mut self, user: &Arc<str>) -> Result<Option<Seat>, Disconnect> {
        let (rules, dry_run) = (self.config.seat_rules, self.config.dry_run);
        let counts = &mut self.counters.over_limit.user_connections;
        let taken = self.config.seats.take(user, rules, dry_run);
        counts[0] += u64::from(taken.is_err());
        let (seat, is_over) = taken?;
        counts[1] += u64::from(is_over);
        Ok(seat)
    }

    /// A session is connected, and has a seat.
    pub(super) fn sit_down(&mut self, id: SessionId, seat: Option<Seat>) {
        if let (Some(seat), Some(connected)) = (seat, self.sessions.connected_mut(id)) {
            if self.config.seat_rules.is_single {
                seat.supersede();
            }
            connected.conduct.get_or_insert_default().seat = Some(seat);
        }
    }

    /// The connections that are there count from now on, if any do. None is ended for it, however many there
    /// are.
    pub(super) fn seat_everybody(&mut self) {
        let rules = SeatRules {
            limit: usize::MAX,
            ..self.config.seat_rules
        };
        if !self.config.seat_rules.count() {
            return;
        }
        for id in self.sessions.ids() {
            if let Some(connected) = self.sessions.connected_mut(id)
                && connected
                    .conduct
                    .as_ref()
                    .is_none_or(|conduct| conduct.seat.is_none())
                && let Ok((Some(seat), _)) =
                    self.config.seats.take(&connected.info.user, rules, false)
            {
                connected.conduct.get_or_insert_default().seat = Some(seat);
            }
        }
    }

    /// Ends the connections of a user that were there before another, which is to be the only one.
    pub(super) fn end_superseded<O: Outbox>(&mut self, now: Now, user: &str, by: u64, out: &mut O) {
        for id in self.users.sessions_of(user, &self.sessions) {
            let connected = self.sessions.connected(id);
            let conduct = connected.and_then(|connected| connected.conduct.as_deref());
            let seat = conduct.and_then(|conduct| conduct.seat.as_ref());
            if seat.is_some_and(|seat| seat.number < by) {
                self.end(now, id, &Disconnect::CONNECTION_LIMIT, out);
            }
        }
    }
}

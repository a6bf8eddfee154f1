//! How often sessions and users do things, and what becomes of those who do them too often.
//!
//! A session has a bucket for each kind of command that is limited, made with its first command. The
//! buckets of a user are shared by all hubs of a process, and are taken from without a lock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use tautline_protocol::{Disconnect, ErrorCode, Request};

use super::dispatch::Refusal;
use super::sessions::Conduct;
use super::{Hub, SessionId};
use crate::Now;
use crate::config::{ClientCommandRates, ClientOptions, UserCommandRates};
use crate::rate::{Bucket, Rate, SharedBucket};

/// What is counted and limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A new connection of a user.
    Connect,
    /// The subscribe command.
    Subscribe,
    /// The unsubscribe command.
    Unsubscribe,
    /// The publish command.
    Publish,
    /// The presence command.
    Presence,
    /// The presence stats command.
    PresenceStats,
    /// The history command.
    History,
    /// The RPC command.
    Rpc,
    /// A message that expects no reply.
    Send,
    /// The refresh command.
    Refresh,
    /// The sub refresh command.
    SubRefresh,
}

impl Operation {
    /// How many there are.
    pub const COUNT: usize = 11;

    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Connect,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Publish,
        Self::Presence,
        Self::PresenceStats,
        Self::History,
        Self::Rpc,
        Self::Send,
        Self::Refresh,
        Self::SubRefresh,
    ];

    /// What to call it, such as `presence_stats`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Publish => "publish",
            Self::Presence => "presence",
            Self::PresenceStats => "presence_stats",
            Self::History => "history",
            Self::Rpc => "rpc",
            Self::Send => "send",
            Self::Refresh => "refresh",
            Self::SubRefresh => "sub_refresh",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What a request is, if it is counted.
    pub(super) fn of(request: &Request<'_>) -> Option<Self> {
        Some(match request {
            Request::Subscribe(_) => Self::Subscribe,
            Request::Unsubscribe(_) => Self::Unsubscribe,
            Request::Publish(_) => Self::Publish,
            Request::Presence(_) => Self::Presence,
            Request::PresenceStats(_) => Self::PresenceStats,
            Request::History(_) => Self::History,
            Request::Rpc(_) => Self::Rpc,
            Request::Send(_) => Self::Send,
            Request::Refresh(_) => Self::Refresh,
            Request::SubRefresh(_) => Self::SubRefresh,
            _ => return None,
        })
    }
}

/// How often it happened that somebody did something too often, whether or not that had
/// consequences. Numbers only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OverLimit {
    /// By the limits of a connection, by [`Operation::index`].
    pub client_command: [u64; Operation::COUNT],
    /// By the limits of a user, by [`Operation::index`].
    pub user_command: [u64; Operation::COUNT],
    /// Errors.
    pub client_error: u64,
}

/// The rates of one table of options.
#[derive(Debug)]
pub(crate) struct Rates {
    dry_run: bool,
    /// By operation: the rate, and the place of its bucket.
    of: [Option<(Rate, usize)>; Operation::COUNT],
    total: Option<(Rate, usize)>,
    /// How many buckets that takes.
    buckets: usize,
}

/// All limits, as they are used.
#[derive(Debug)]
pub(crate) struct Limits {
    client: Rates,
    user: Rates,
    error: Option<Rate>,
    error_dry_run: bool,
    users: UserBuckets,
}

impl Limits {
    pub(crate) fn new(options: &ClientOptions) -> Self {
        let rates = &options.rate_limit;
        // A client that comes back subscribes to everything at once, and may be refused for all of it.
        let room = options.channel_limit.saturating_add(1);
        let error = rates.client_error.total.map(|rate| rate.at_once(room));
        Self {
            client: Rates::of_clients(&rates.client_command, room),
            user: Rates::of_users(&rates.user_command, room),
            error: error.filter(|_| rates.client_error.enabled),
            error_dry_run: rates.client_error.dry_run,
            users: UserBuckets::default(),
        }
    }

    /// Forgets users who have nobody connected and did nothing for a while, a part of them with each
    /// call.
    pub(crate) fn sweep(&self, now: Duration) {
        self.users.sweep(now);
    }
}

/// The rates of a table of options, in the order of [`Operation::ALL`].
macro_rules! by_operation {
    ($rates:ident, connect: $connect:expr) => {
        [
            $connect,
            $rates.subscribe,
            $rates.unsubscribe,
            $rates.publish,
            $rates.presence,
            $rates.presence_stats,
            $rates.history,
            $rates.rpc,
            $rates.send,
            $rates.refresh,
            $rates.sub_refresh,
        ]
    };
}

impl Rates {
    fn of_clients(rates: &ClientCommandRates, room: usize) -> Self {
        let of = by_operation!(rates, connect: None);
        Self::new(rates.enabled, rates.dry_run, of, rates.total, room)
    }

    fn of_users(rates: &UserCommandRates, room: usize) -> Self {
        let of = by_operation!(rates, connect: rates.connect);
        Self::new(rates.enabled, rates.dry_run, of, rates.total, room)
    }

    fn new(
        enabled: bool,
        dry_run: bool,
        of: [Option<Rate>; Operation::COUNT],
        total: Option<Rate>,
        room: usize,
    ) -> Self {
        let mut buckets = 0;
        let mut place = |rate: Rate| {
            buckets += 1;
            (rate, buckets - 1)
        };
        let total = total.filter(|_| enabled);
        let total = total.map(|rate| place(rate.at_once(room)));
        let mut places = [None; Operation::COUNT];
        for operation in Operation::ALL {
            let rate = of[operation.index()].filter(|_| enabled);
            let is_of_a_channel = matches!(
                operation,
                Operation::Subscribe | Operation::Unsubscribe | Operation::SubRefresh
            );
            let rate = rate.map(|rate| {
                if is_of_a_channel {
                    rate.at_once(room)
                } else {
                    rate
                }
            });
            places[operation.index()] = rate.map(&mut place);
        }
        Self {
            dry_run,
            of: places,
            total,
            buckets,
        }
    }

    /// Takes what an operation costs: a token of its kind, and then one of all. Whether it was there.
    fn take(
        &self,
        operation: Operation,
        mut take: impl FnMut(usize, &Rate) -> Result<(), Duration>,
    ) -> bool {
        let mut has = |limit: Option<(Rate, usize)>| {
            limit.is_none_or(|(rate, place)| take(place, &rate).is_ok())
        };
        has(self.of[operation.index()]) && has(self.total)
    }
}

/// The buckets of one session.
#[derive(Debug)]
pub(crate) struct SessionBuckets {
    own: Box<[Bucket]>,
    errors: Bucket,
    user: Option<Arc<[SharedBucket]>>,
}

impl SessionBuckets {
    fn new(limits: &Limits, user: &Arc<str>) -> Self {
        Self {
            own: std::iter::repeat_with(Bucket::default)
                .take(limits.client.buckets)
                .collect(),
            errors: Bucket::default(),
            user: limits.users.get(user, limits.user.buckets),
        }
    }
}

impl SessionBuckets {
    /// Whether new ones would do as well.
    fn are_full(&self, now: Duration) -> bool {
        self.errors.is_full(now) && self.own.iter().all(|bucket| bucket.is_full(now))
    }
}

impl Conduct {
    /// Lets go of what says nothing. Whether nothing is left.
    pub(crate) fn rest(&mut self, now: Duration) -> bool {
        if self
            .buckets
            .as_ref()
            .is_some_and(|buckets| buckets.are_full(now))
        {
            self.buckets = None;
        }
        self.buckets.is_none() && self.capabilities.is_none() && self.seat.is_none()
    }
}

/// The buckets of all users. They outlive their users' connections until they are full again, so that
/// nobody gets new ones by connecting anew.
#[derive(Debug)]
struct UserBuckets {
    shards: [Mutex<BucketsByUser>; SHARDS],
    /// Which of them is swept next.
    swept: AtomicUsize,
    hasher: foldhash::fast::RandomState,
}

type BucketsByUser = HashMap<Arc<str>, Arc<[SharedBucket]>, foldhash::fast::RandomState>;

impl Default for UserBuckets {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            swept: AtomicUsize::new(0),
            hasher: foldhash::fast::RandomState::default(),
        }
    }
}

impl UserBuckets {
    /// Those of a user; `None` for the anonymous one, and where nothing is limited.
    fn get(&self, user: &Arc<str>, count: usize) -> Option<Arc<[SharedBucket]>> {
        use std::hash::BuildHasher as _;
        if user.is_empty() || count == 0 {
            return None;
        }
        let shard = self.hasher.hash_one(&**user) as usize % SHARDS;
        let mut users = self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let buckets = users.entry_ref(user).or_insert_with(|| {
            std::iter::repeat_with(SharedBucket::default)
                .take(count)
                .collect()
        });
        Some(buckets.clone())
    }

    fn sweep(&self, now: Duration) {
        let shard = self.swept.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut users = self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        users.retain(|_, buckets| {
            Arc::strong_count(buckets) > 1 || !buckets.iter().all(|bucket| bucket.is_full(now))
        });
        if users.len() < users.capacity() / 4 {
            users.shrink_to_fit();
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| shard.lock().unwrap().len()).sum()
    }
}

impl Hub {
    /// Whether a session may do something (again) now. Whatever comes of it, it counts.
    pub(super) fn charge(
        &mut self,
        now: Now,
        id: SessionId,
        operation: Operation,
    ) -> Result<(), Refusal> {
        let limits = &self.config.limits;
        let Some(connected) = self.sessions.connected_mut(id) else {
            return Ok(());
        };
        let user = &connected.info.user;
        let buckets = connected
            .conduct
            .get_or_insert_default()
            .buckets
            .get_or_insert_with(|| SessionBuckets::new(limits, user));
        let SessionBuckets { own, user, .. } = buckets;
        let now = now.monotonic;
        let by_client = limits.client.take(operation, |place, rate| {
            own.get_mut(place)
                .map_or(Ok(()), |bucket| bucket.take(now, rate))
        });
        let counts = &mut self.counters.over_limit;
        if !by_client {
            counts.client_command[operation.index()] += 1;
            if !limits.client.dry_run {
                return self.over_limit(now, id, operation);
            }
        }
        let by_user = user
            .as_ref()
            .is_none_or(|user| take_of_user(&limits.user, user, operation, now));
        if !by_user {
            counts.user_command[operation.index()] += 1;
            if !limits.user.dry_run {
                return self.over_limit(now, id, operation);
            }
        }
        Ok(())
    }

    /// Whether a user may have a new connection now.
    pub(super) fn charge_connection(&mut self, now: Now, user: &Arc<str>) -> Result<(), ErrorCode> {
        let limits = &self.config.limits;
        if limits.user.of[Operation::Connect.index()].is_none() {
            return Ok(());
        }
        let operation = Operation::Connect;
        let buckets = limits.users.get(user, limits.user.buckets);
        let is_fine = buckets
            .is_none_or(|buckets| take_of_user(&limits.user, &buckets, operation, now.monotonic));
        if is_fine {
            return Ok(());
        }
        self.counters.over_limit.user_command[operation.index()] += 1;
        if limits.user.dry_run {
            Ok(())
        } else {
            Err(ErrorCode::TooManyRequests)
        }
    }

    /// What becomes of a command beyond its rate.
    fn over_limit(
        &mut self,
        now: Duration,
        id: SessionId,
        operation: Operation,
    ) -> Result<(), Refusal> {
        match operation {
            // It makes less work than a client that connects anew because it was refused.
            Operation::Unsubscribe if self.may_err(now, id) => Ok(()),
            Operation::Unsubscribe => Err(Disconnect::TOO_MANY_ERRORS.into()),
            // There is no answer to refuse it with.
            Operation::Send => Err(Disconnect::TOO_MANY_REQUESTS.into()),
            _ => Err(ErrorCode::TooManyRequests.into()),
        }
    }

    /// Counts an error of a session. Whether it may live on.
    pub(super) fn may_err(&mut self, now: Duration, id: SessionId) -> bool {
        let limits = &self.config.limits;
        let (Some(rate), Some(connected)) = (&limits.error, self.sessions.connected_mut(id)) else {
            return true;
        };
        let user = &connected.info.user;
        let buckets = connected
            .conduct
            .get_or_insert_default()
            .buckets
            .get_or_insert_with(|| SessionBuckets::new(limits, user));
        if buckets.errors.take(now, rate).is_ok() {
            return true;
        }
        self.counters.over_limit.client_error += 1;
        limits.error_dry_run
    }
}

fn take_of_user(
    rates: &Rates,
    buckets: &[SharedBucket],
    operation: Operation,
    now: Duration,
) -> bool {
    rates.take(operation, |place, rate| {
        buckets
            .get(place)
            .map_or(Ok(()), |bucket| bucket.take(now, rate))
    })
}

/// Enough for two connects at the same time hardly ever to meet.
const SHARDS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_where_they_say() {
        for (index, operation) in Operation::ALL.iter().enumerate() {
            assert_eq!(operation.index(), index, "{}", operation.name());
        }
    }

    #[test]
    fn what_is_off_costs_nothing() {
        let mut options = ClientOptions::default();
        options.rate_limit.client_command.enabled = false;
        options.rate_limit.user_command.total = None;
        options.rate_limit.client_error.enabled = false;
        let limits = Limits::new(&options);
        assert_eq!((limits.client.buckets, limits.user.buckets), (0, 0));
        assert_eq!(limits.error, None);
        assert!(limits.users.get(&"42".into(), 0).is_none());
        assert_eq!(limits.users.len(), 0);
    }

    #[test]
    fn who_does_nothing_for_a_while_has_no_buckets() {
        let limits = Limits::new(&ClientOptions::default());
        let at = Duration::from_secs;
        let mut conduct = Conduct {
            buckets: Some(SessionBuckets::new(&limits, &"42".into())),
            capabilities: None,
            seat: None,
        };
        if let Some(SessionBuckets { own, .. }) = &mut conduct.buckets {
            own[1].take(at(10), &Rate::per_second(1)).unwrap();
        }
        assert!(!conduct.rest(at(10)), "a token is missing");
        assert!(conduct.rest(at(12)) && conduct.buckets.is_none());
    }

    #[test]
    fn buckets_of_users_stay_until_they_are_full_again() {
        let (users, rate) = (UserBuckets::default(), Rate::per_second(1));
        let at = Duration::from_secs;
        assert!(users.get(&"".into(), 1).is_none(), "nobody in particular");
        let buckets = users.get(&"42".into(), 1).unwrap();
        buckets[0].take(at(10), &rate).unwrap();
        let sweep = |now| {
            for _ in 0..SHARDS {
                users.sweep(now);
            }
        };
        sweep(at(20));
        assert_eq!(users.len(), 1, "somebody is connected");
        drop(buckets);
        sweep(at(10));
        assert_eq!(users.len(), 1, "a token is missing");
        assert!(
            users.get(&"42".into(), 1).unwrap()[0]
                .take(at(10), &rate)
                .is_err()
        );
        sweep(at(11));
        assert_eq!(users.len(), 0);
    }
}

//! How often sessions and users do things, and what becomes of those who do them too often.
//!
//! A session has a bucket for each kind of command that is limited, made with its first command, and
//! some for each namespace with rates of its own. The buckets of users and of channels are shared by all hubs of a
//! process; those of a user are taken from without a lock.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tautline_protocol::message::Error;
use tautline_protocol::{Disconnect, ErrorCode};

use super::channel_name::explained;
use super::dispatch::Refusal;
use super::operation::{CHANNEL_OPERATIONS, Operation};
use super::sessions::{Conduct, Connected};
use super::shared_buckets::SharedBuckets;
use super::{Hub, SessionId};
use crate::Now;
use crate::config::{
    ChannelOptions, ClientCommandRates, ClientOptions, InputRate, MAX_CHANNELS, UserCommandRates,
};
use crate::outbox::Outbox;
use crate::rate::{Bucket, Rate, SharedBucket};

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
    input: Option<InputRate>,
    /// They outlive a configuration with the same rates.
    users: Arc<SharedBuckets>,
    /// Whether any namespace limits it in its channels, by [`Operation::index`].
    tolled: [bool; Operation::COUNT],
    /// They outlive a configuration, too.
    pub(super) channels: Arc<SharedBuckets>,
    /// How many channels a connection may subscribe to, and so at once.
    room: usize,
}

impl Limits {
    pub(crate) fn new(options: &ClientOptions, channel: &ChannelOptions) -> Self {
        let rates = &options.rate_limit;
        // A client that comes back subscribes to everything at once, and may be refused for all of it.
        let room = options.channel_limit.saturating_add(1);
        let error = rates.client_error.total.map(|rate| rate.at_once(room));
        let mut limits = Self {
            client: Rates::of_clients(&rates.client_command, room),
            user: Rates::of_users(&rates.user_command, room),
            error: error.filter(|_| rates.client_error.enabled),
            error_dry_run: rates.client_error.dry_run,
            input: Some(rates.client_input).filter(|rate| rate.enabled),
            users: Arc::new(SharedBuckets::new(usize::MAX)),
            tolled: [false; Operation::COUNT],
            channels: Arc::new(SharedBuckets::new(MAX_RATED_CHANNELS)),
            room,
        };
        limits.tolled = Operation::ALL.map(|operation| {
            let mut namespaces = channel.all();
            namespaces.any(|options| !limits.toll(operation, options).is_nothing())
        });
        limits
    }

    /// Whether any namespace limits an operation in its channels.
    pub(super) fn is_tolled(&self, operation: Operation) -> bool {
        self.tolled[operation.index()]
    }

    /// A rate for something of which a client that comes back does a lot at once: subscribing.
    pub(super) fn for_many(&self, operation: Operation, rate: Rate) -> Rate {
        match operation {
            Operation::Subscribe => rate.at_once(self.room),
            _ => rate,
        }
    }

    /// Goes on with the buckets of users and channels as others have left them, which must have the same rates.
    pub(crate) fn inherit(&mut self, before: &Self) {
        self.users = Arc::clone(&before.users);
        self.channels = Arc::clone(&before.channels);
    }

    /// Forgets users who have nobody connected and did nothing for a while, and channels in which nothing
    /// was done, a part of them with each call.
    pub(crate) fn sweep(&self, now: Duration) {
        self.users.sweep(now);
        self.channels.sweep(now);
    }

    /// The buckets of a user; `None` for the anonymous one, and where nothing is limited.
    fn of_user(&self, now: Duration, user: &Arc<str>) -> Option<Arc<[SharedBucket]>> {
        if user.is_empty() || self.user.buckets == 0 {
            return None;
        }
        self.users.get(now, user, self.user.buckets)
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

    /// Takes what an operation costs: a token of its kind, and then one of all.
    ///
    /// # Errors
    ///
    /// What was missing: the name of the option, and its rate.
    fn take(
        &self,
        operation: Operation,
        mut take: impl FnMut(usize, &Rate) -> Result<(), Duration>,
    ) -> Result<(), (&'static str, Rate)> {
        let mut take = |name, limit: Option<(Rate, usize)>| match limit {
            Some((rate, place)) => take(place, &rate).map_err(|_| (name, rate)),
            None => Ok(()),
        };
        take(operation.name(), self.of[operation.index()])?;
        take("total", self.total)
    }
}

/// What there was too much of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Over {
    /// The rates of connections: the option's name.
    Client(&'static str, Rate),
    /// Those of users.
    User(&'static str, Rate),
    /// Those of a namespace, for each of its clients.
    InNamespace(Operation, Rate),
    /// Those of a namespace, for all of a channel.
    InChannel(Operation, Rate),
    /// What publications in a channel come to, in a second.
    Deliveries(u64),
    /// What joins and leaves come to there.
    JoinLeave(u64),
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Deliveries(most) = self {
            return write!(
                f,
                "more for the channel's subscribers than the namespace's client_deliveries_per_second allows ({most}); \
                 try again later"
            );
        }
        if let Self::JoinLeave(most) = self {
            return write!(
                f,
                "more for the channel's subscribers than the namespace's join_leave_deliveries_per_second allows ({most}): who \
                 came and left is told later"
            );
        }
        f.write_str("more often than ")?;
        // Presence and its stats have one rate.
        let kind = |operation: &Operation| match operation {
            Operation::PresenceStats => Operation::Presence.name(),
            other => other.name(),
        };
        let rate = match self {
            Self::Client(option, rate) => {
                write!(f, "client.rate_limit.client_command.{option}")?;
                rate
            }
            Self::User(option, rate) => {
                write!(f, "client.rate_limit.user_command.{option}")?;
                rate
            }
            Self::InNamespace(operation, rate) => {
                write!(f, "the namespace's {}_rate_for_client", kind(operation))?;
                rate
            }
            Self::InChannel(operation, rate) => {
                write!(f, "the namespace's {}_rate_for_channel", kind(operation))?;
                rate
            }
            Self::Deliveries(_) | Self::JoinLeave(_) => return Ok(()),
        };
        write!(f, " allows ({rate}); try again later")
    }
}

/// The buckets of one session.
#[derive(Debug)]
pub(crate) struct SessionBuckets {
    own: Box<[Bucket]>,
    errors: Bucket,
    input: InputBucket,
    user: Option<Arc<[SharedBucket]>>,
    /// By name of the namespace: of those with rates of their own in which it did something.
    namespaces: Vec<(Box<str>, [Bucket; CHANNEL_OPERATIONS])>,
}

impl SessionBuckets {
    /// Those of a session, which are made when they are first needed.
    pub(super) fn of<'c>(
        connected: &'c mut Connected,
        now: Duration,
        limits: &Limits,
    ) -> &'c mut Self {
        let user = &connected.info.user;
        let conduct = connected.conduct.get_or_insert_default();
        let buckets = &mut conduct.buckets;
        buckets.get_or_insert_with(|| Self::new(now, limits, user))
    }

    fn new(now: Duration, limits: &Limits, user: &Arc<str>) -> Self {
        Self {
            own: std::iter::repeat_with(Bucket::default)
                .take(limits.client.buckets)
                .collect(),
            errors: Bucket::default(),
            input: InputBucket::default(),
            user: limits.of_user(now, user),
            namespaces: Vec::new(),
        }
    }

    /// Whether new ones would do as well.
    fn are_full(&self, now: Duration) -> bool {
        let namespaces = self.namespaces.iter().flat_map(|(_, buckets)| buckets);
        let mut all = self.own.iter().chain(namespaces).chain([&self.errors]);
        all.all(|bucket| bucket.is_full(now)) && self.input.is_full(now)
    }

    pub(super) fn in_namespace(&mut self, name: &str) -> &mut [Bucket; CHANNEL_OPERATIONS] {
        let known = self
            .namespaces
            .iter()
            .position(|(known, _)| **known == *name);
        let place = known.unwrap_or_else(|| {
            self.namespaces.push((name.into(), Default::default()));
            self.namespaces.len() - 1
        });
        &mut self.namespaces[place].1
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
        self.buckets.is_none() && self.capabilities.is_none() && self.number.is_none()
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
        let now = now.monotonic;
        let limits = &self.config.limits;
        let Some(connected) = self.sessions.connected_mut(id) else {
            return Ok(());
        };
        let SessionBuckets { own, user, .. } = SessionBuckets::of(connected, now, limits);
        let by_client = limits.client.take(operation, |place, rate| {
            own.get_mut(place)
                .map_or(Ok(()), |bucket| bucket.take(now, rate))
        });
        let by_user = match &user {
            Some(user) if by_client.is_ok() || limits.client.dry_run => {
                take_of_user(&limits.user, user, operation, now)
            }
            _ => Ok(()),
        };
        let is_tried = (limits.client.dry_run, limits.user.dry_run);
        let counts = &mut self.counters.over_limit;
        if let Err((option, rate)) = by_client {
            counts.client_command[operation.index()] += 1;
            self.over_limit(
                now,
                id,
                operation,
                (Over::Client(option, rate), is_tried.0),
                None,
            )?;
        }
        if let Err((option, rate)) = by_user {
            let counts = &mut self.counters.over_limit;
            counts.user_command[operation.index()] += 1;
            self.over_limit(
                now,
                id,
                operation,
                (Over::User(option, rate), is_tried.1),
                None,
            )?;
        }
        Ok(())
    }

    /// Whether a user may have a new connection now.
    pub(super) fn charge_connection(
        &mut self,
        now: Now,
        id: SessionId,
        user: &Arc<str>,
    ) -> Result<(), Error> {
        let limits = &self.config.limits;
        if limits.user.of[Operation::Connect.index()].is_none() {
            return Ok(());
        }
        let operation = Operation::Connect;
        let buckets = limits.of_user(now.monotonic, user);
        let taken = buckets.map_or(Ok(()), |buckets| {
            take_of_user(&limits.user, &buckets, operation, now.monotonic)
        });
        let (Err((option, rate)), dry_run) = (taken, limits.user.dry_run) else {
            return Ok(());
        };
        self.counters.over_limit.user_command[operation.index()] += 1;
        if dry_run {
            self.observe_over_limit(id, None, &Over::User(option, rate));
            Ok(())
        } else {
            let over = Over::User(option, rate);
            let error = explained(ErrorCode::TooManyRequests, over);
            Err(self.because_of(over, error))
        }
    }

    /// What becomes of a command beyond a rate, which may be tried out only.
    pub(super) fn over_limit(
        &mut self,
        now: Duration,
        id: SessionId,
        operation: Operation,
        (over, dry_run): (Over, bool),
        channel: Option<&str>,
    ) -> Result<(), Refusal> {
        if dry_run {
            self.observe_over_limit(id, channel, &over);
            return Ok(());
        }
        match operation {
            // It makes less work than a client that connects anew because it was refused.
            Operation::Unsubscribe if self.may_err(now, id) => Ok(()),
            Operation::Unsubscribe => {
                Err(self.because_of(over, Disconnect::TOO_MANY_ERRORS.into()))
            }
            // There is no answer to refuse it with.
            Operation::Send => Err(self.because_of(over, Disconnect::TOO_MANY_REQUESTS.into())),
            _ => {
                let error = explained(ErrorCode::TooManyRequests, over);
                Err(self.because_of(over, error.into()))
            }
        }
    }

    /// A connection, or a request beside it, has brought so many bytes. Whether the session goes on: one that sends more
    /// than [`client_input`](crate::config::RateLimitOptions::client_input) allows is ended with code 3013. A few bytes
    /// don't count, and nothing does before the session is connected.
    pub fn charge_input<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        bytes: usize,
        out: &mut O,
    ) -> bool {
        let limits = &self.config.limits;
        let Some(rate) = limits.input.filter(|_| bytes >= WORTH_COUNTING) else {
            return true;
        };
        let Some(connected) = self.sessions.connected_mut(id) else {
            return true;
        };
        let buckets = SessionBuckets::of(connected, now.monotonic, limits);
        if buckets.input.take(now.monotonic, &rate, bytes) {
            return true;
        }
        self.counters.over_limit.input[usize::from(rate.dry_run)] += 1;
        let why = format_args!(
            "more than client.rate_limit.client_input allows ({} bytes a second, {} at once)",
            rate.bytes_per_second, rate.burst
        );
        if rate.dry_run {
            self.observe_over_limit(id, None, &why);
            return true;
        }
        self.because_of(why, ());
        self.end(now, id, &Disconnect::TOO_MANY_REQUESTS, out);
        false
    }

    /// How many channels a connection may have: with `limits.dry_run`, as many as could be asked for.
    pub(super) fn most_channels(&self) -> usize {
        if self.config.dry_run {
            MAX_CHANNELS
        } else {
            self.config.client.channel_limit
        }
    }

    /// Whether a connection may have so many channels. Counts it if `client.channel_limit` allows fewer.
    pub(super) fn allows_channels(&self, count: usize) -> bool {
        if count <= self.config.client.channel_limit {
            return true;
        }
        let goes_on = count <= self.most_channels();
        let mut over = self.over_subscriptions.get();
        over[usize::from(goes_on)] += 1;
        self.over_subscriptions.set(over);
        goes_on
    }

    /// The rates are others: what sessions have taken so far says nothing any more.
    pub(super) fn forget_buckets(&mut self) {
        for id in self.sessions.ids() {
            if let Some(connected) = self.sessions.connected_mut(id)
                && let Some(conduct) = &mut connected.conduct
            {
                conduct.buckets = None;
            }
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
            .get_or_insert_with(|| SessionBuckets::new(now, limits, user));
        if buckets.errors.take(now, rate).is_ok() {
            return true;
        }
        self.counters.over_limit.client_error += 1;
        limits.error_dry_run
    }
}

/// What a session may send, as a bucket of bytes.
#[derive(Clone, Copy, Debug, Default)]
struct InputBucket {
    /// When it is full again, in nanoseconds on the monotonic clock.
    full_at: u64,
}

impl InputBucket {
    /// Takes so many; `false`, and nothing was taken, if there are not as many.
    fn take(&mut self, now: Duration, rate: &InputRate, bytes: usize) -> bool {
        let time = |bytes: u64| {
            let nanos =
                u128::from(bytes) * 1_000_000_000 / u128::from(rate.bytes_per_second.max(1));
            u64::try_from(nanos).unwrap_or(u64::MAX)
        };
        let now = nanos(now);
        let next = self.full_at.max(now).saturating_add(time(bytes as u64));
        let has_them = next <= now.saturating_add(time(rate.burst));
        if has_them {
            self.full_at = next;
        }
        has_them
    }

    fn is_full(&self, now: Duration) -> bool {
        self.full_at <= nanos(now)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn take_of_user(
    rates: &Rates,
    buckets: &[SharedBucket],
    operation: Operation,
    now: Duration,
) -> Result<(), (&'static str, Rate)> {
    rates.take(operation, |place, rate| {
        buckets
            .get(place)
            .map_or(Ok(()), |bucket| bucket.take(now, rate))
    })
}

/// Fewer bytes in one read are not what a flood is made of: whoever sends fast is read a lot at a time.
const WORTH_COUNTING: usize = 256;

/// In how many channels, at the most, something was done so lately that the rates of their namespaces
/// remember it.
const MAX_RATED_CHANNELS: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_off_costs_nothing() {
        let mut options = ClientOptions::default();
        options.rate_limit.client_command.enabled = false;
        options.rate_limit.user_command.enabled = false;
        options.rate_limit.client_error.enabled = false;
        let limits = Limits::new(&options, &ChannelOptions::default());
        assert_eq!((limits.client.buckets, limits.user.buckets), (0, 0));
        assert_eq!(limits.error, None);
        assert!(limits.of_user(Duration::ZERO, &"42".into()).is_none());
        assert_eq!(limits.users.len(), 0);
    }

    #[test]
    fn who_does_nothing_for_a_while_has_no_buckets() {
        let limits = Limits::new(&ClientOptions::default(), &ChannelOptions::default());
        let at = Duration::from_secs;
        let mut conduct = Conduct {
            buckets: Some(SessionBuckets::new(at(10), &limits, &"42".into())),
            capabilities: None,
            number: None,
        };
        if let Some(SessionBuckets { own, .. }) = &mut conduct.buckets {
            own[1].take(at(10), &Rate::per_second(1)).unwrap();
        }
        assert!(!conduct.rest(at(10)), "a token is missing");
        assert!(conduct.rest(at(12)) && conduct.buckets.is_none());
    }
}

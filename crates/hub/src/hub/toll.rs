//! What clients do in the channels of a namespace, by the namespace's own limits: how often each of them, how often all
//! of them together in one channel, and what their publications come to there.
//!
//! What is on by default costs a publication two looks into tables that all hubs share, each under a lock that hardly
//! anybody else wants, and a session nothing; so it does where joins and leaves are told. Else reading and subscribing cost
//! nothing where no option asks for it.

use std::time::Duration;

use super::channel_name::ChannelName;
use super::dispatch::Refusal;
use super::limit::{Limits, Over, SessionBuckets};
use super::operation::{CHANNEL_OPERATIONS, Operation};
use super::{Hub, SessionId};
use crate::Now;
use crate::config::NamespaceOptions;
use crate::rate::{Rate, SharedBucket};

/// What an operation costs in the channels of a namespace.
#[derive(Debug, Default)]
pub(super) struct Toll {
    /// For each connection: the namespace that it is for, too.
    for_client: Option<(Rate, Box<str>)>,
    for_channel: Option<Rate>,
    /// How many deliveries publications may come to in a second.
    deliveries: Option<u64>,
    dry_run: bool,
}

impl Toll {
    pub(super) fn is_nothing(&self) -> bool {
        self.for_client.is_none() && self.for_channel.is_none() && self.deliveries.is_none()
    }
}

impl Limits {
    /// What an operation costs in channels with these options.
    pub(super) fn toll(&self, operation: Operation, options: &NamespaceOptions) -> Toll {
        let (for_client, for_channel) = options.rates(operation);
        let for_client = for_client.map(|rate| self.for_many(operation, rate));
        let deliveries = options.client_deliveries_per_second;
        let is_publish = operation == Operation::Publish;
        Toll {
            for_client: for_client.map(|rate| (rate, options.name.as_str().into())),
            for_channel,
            deliveries: Some(deliveries).filter(|most| is_publish && *most > 0),
            dry_run: options.rates_dry_run,
        }
    }
}

impl Hub {
    /// Whether a session may do something (again) now in a channel in which it may do it, by the limits of the
    /// channel's namespace.
    pub(super) fn charge_in(
        &mut self,
        now: Now,
        id: SessionId,
        operation: Operation,
        channel: &str,
    ) -> Result<(), Refusal> {
        if !self.config.limits.is_tolled(operation) {
            return Ok(());
        }
        let name = ChannelName::parse(&self.config, channel)?;
        let toll = self.config.limits.toll(operation, name.options);
        self.pay(now, id, operation, &toll, channel)
    }

    /// The same where it is known already what it costs.
    pub(super) fn pay(
        &mut self,
        now: Now,
        id: SessionId,
        operation: Operation,
        toll: &Toll,
        channel: &str,
    ) -> Result<(), Refusal> {
        let (Some(place), false) = (operation.in_channels(), toll.is_nothing()) else {
            return Ok(());
        };
        let now = now.monotonic;
        if let Some((rate, namespace)) = &toll.for_client
            && let Some(connected) = self.sessions.connected_mut(id)
        {
            let buckets = SessionBuckets::of(connected, now, &self.config.limits);
            let bucket = &mut buckets.in_namespace(namespace)[place];
            if bucket.take(now, rate).is_err() {
                self.counters.over_limit.namespace[operation.index()] += 1;
                let over = (Over::InNamespace(operation, *rate), toll.dry_run);
                self.over_limit(now, id, operation, over, Some(channel))?;
            }
        }
        let subscribers = toll.deliveries.map(|_| self.config.rooms.all(channel));
        let taken = self.pay_for_channel(now, place, toll, subscribers.unwrap_or(0), channel);
        match taken {
            Ok(()) => Ok(()),
            Err(Wanting::Turn(rate)) => {
                self.counters.over_limit.channel[operation.index()] += 1;
                let over = (Over::InChannel(operation, rate), toll.dry_run);
                self.over_limit(now, id, operation, over, Some(channel))
            }
            Err(Wanting::Deliveries(most)) => {
                self.counters.over_limit.deliveries[usize::from(toll.dry_run)] += 1;
                let over = (Over::Deliveries(most), toll.dry_run);
                self.over_limit(now, id, operation, over, Some(channel))
            }
        }
    }

    /// Takes what it costs to tell a channel's subscribers that somebody came or left, where so many deliveries of that may be
    /// made in a second; 0 for any number.
    ///
    /// # Errors
    ///
    /// How long it is until that may be.
    pub(super) fn pay_for_join_leave(
        &self,
        now: Duration,
        most: u64,
        channel: &str,
    ) -> Result<(), Duration> {
        let subscribers = match most {
            0 => 0,
            _ => self.config.rooms.all(channel),
        };
        if subscribers == 0 {
            return Ok(());
        }
        let take = |buckets: &[SharedBucket]| {
            let bucket = buckets.get(JOIN_LEAVE);
            bucket.map_or(Ok(()), |bucket| {
                bucket.take_time(now, time_of(subscribers, most), AT_ONCE)
            })
        };
        let buckets = &self.config.limits.channels;
        let shared = || self.shared_name(channel);
        let taken = buckets.with(now, channel, shared, BUCKETS, take);
        // Without room for its name there is soon some again.
        taken.unwrap_or(Err(Duration::ZERO))
    }

    /// Takes what an operation costs its channel.
    fn pay_for_channel(
        &self,
        now: Duration,
        place: usize,
        toll: &Toll,
        subscribers: u64,
        channel: &str,
    ) -> Result<(), Wanting> {
        if toll.for_channel.is_none() && subscribers == 0 {
            return Ok(());
        }
        let take = |buckets: &[SharedBucket]| {
            if let (Some(rate), Some(bucket)) = (toll.for_channel, buckets.get(place))
                && bucket.take(now, &rate).is_err()
            {
                return Err(Wanting::Turn(rate));
            }
            if let (Some(most), Some(bucket)) = (toll.deliveries, buckets.get(DELIVERIES))
                && bucket
                    .take_time(now, time_of(subscribers, most), AT_ONCE)
                    .is_err()
            {
                return Err(Wanting::Deliveries(most));
            }
            Ok(())
        };
        let buckets = &self.config.limits.channels;
        let shared = || self.shared_name(channel);
        let taken = buckets.with(now, channel, shared, BUCKETS, take);
        taken.unwrap_or_else(|| match (toll.for_channel, toll.deliveries) {
            (Some(rate), _) => Err(Wanting::Turn(rate)),
            (None, most) => Err(Wanting::Deliveries(most.unwrap_or(0))),
        })
    }
}

/// What a channel has no more of for the moment.
enum Wanting {
    Turn(Rate),
    Deliveries(u64),
}

/// How much of the time something takes up that goes to so many, where so many may be reached in a second.
fn time_of(subscribers: u64, per_second: u64) -> Duration {
    let nanos = u128::from(subscribers) * 1_000_000_000 / u128::from(per_second.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// The buckets of a channel: for each kind of operation; behind them for deliveries of publications, and of joins and leaves.
const BUCKETS: usize = CHANNEL_OPERATIONS + 2;
const DELIVERIES: usize = CHANNEL_OPERATIONS;
const JOIN_LEAVE: usize = CHANNEL_OPERATIONS + 1;

/// For so long a channel may have had nothing, and have all of it at once.
const AT_ONCE: Duration = Duration::from_secs(2);

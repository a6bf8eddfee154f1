//! How many connections the node takes, and how many new ones in a second.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use http::StatusCode;
use http::header::{self, HeaderValue};
use tautline_hub::rate::{Rate, SharedBucket};
use tautline_websocket::proto::handshake::Refusal;

use super::entry::Refused;
use crate::http::respond;

/// What all workers of a node count together: clients' connections, by whatever door they came.
#[derive(Debug)]
pub(crate) struct Admission {
    /// 0 for any number.
    limit: AtomicUsize,
    rate: RwLock<Option<Rate>>,
    count: AtomicUsize,
    bucket: SharedBucket,
    start: Instant,
    refused: [AtomicU64; TooMany::ALL.len()],
}

/// Why a connection isn't taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooMany {
    Connections,
    AtOnce,
}

impl TooMany {
    pub(crate) const ALL: [Self; 2] = [Self::Connections, Self::AtOnce];

    /// What to call it where it is counted.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::AtOnce => "rate",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Connections => {
                "The server has as many connections as it takes (client.connection_limit). Try again later.\n"
            }
            Self::AtOnce => {
                "More connections come than the server takes at a time (client.connection_rate_limit). Try again \
                 later.\n"
            }
        }
    }
}

/// A connection's place among all of the node's; free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Admission>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    /// `limit` is 0 for any number, `rate` `None` for as many as come.
    pub(crate) fn new(limit: usize, rate: Option<Rate>) -> Self {
        Self {
            limit: AtomicUsize::new(limit),
            rate: RwLock::new(rate),
            count: AtomicUsize::new(0),
            bucket: SharedBucket::default(),
            start: Instant::now(),
            refused: Default::default(),
        }
    }

    /// Takes another number, and as many in a second, from now on. Those who are here stay.
    pub(crate) fn reconfigure(&self, limit: usize, rate: Option<Rate>) {
        self.limit.store(limit, Ordering::Relaxed);
        *self.rate.write().unwrap_or_else(PoisonError::into_inner) = rate;
    }

    /// A place for one more connection, if there is one. They are counted where there is no limit, too: there may be
    /// one later.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Option<Permit>, TooMany> {
        let entered = self.try_enter();
        if let Err(too_many) = &entered {
            self.refused[*too_many as usize].fetch_add(1, Ordering::Relaxed);
        }
        entered
    }

    fn try_enter(self: &Arc<Self>) -> Result<Option<Permit>, TooMany> {
        let limit = match self.limit.load(Ordering::Relaxed) {
            0 => usize::MAX,
            limit => limit,
        };
        let one_more = |count: usize| (count < limit).then_some(count + 1);
        self.count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .map_err(|_| TooMany::Connections)?;
        let permit = Permit(Arc::clone(self));
        let rate = *self.rate.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(rate) = rate {
            let taken = self.bucket.take(self.start.elapsed(), &rate);
            taken.map_err(|_| TooMany::AtOnce)?;
        }
        Ok(Some(permit))
    }

    /// How many were refused so far.
    pub(crate) fn refused(&self, why: TooMany) -> u64 {
        self.refused[why as usize].load(Ordering::Relaxed)
    }
}

/// In how many seconds a client should try again.
const RETRY_AFTER: &str = "5";

impl From<TooMany> for Refusal {
    fn from(too_many: TooMany) -> Self {
        Self::new(503, too_many.text()).with_header("Retry-After", RETRY_AFTER)
    }
}

impl From<TooMany> for Refused {
    fn from(too_many: TooMany) -> Self {
        let response = respond::text(StatusCode::SERVICE_UNAVAILABLE, too_many.text());
        let after = HeaderValue::from_static(RETRY_AFTER);
        respond::with_header(response, header::RETRY_AFTER, after).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_connection_is_over() {
        let admission = Arc::new(Admission::new(2, None));
        let (one, other) = (admission.enter(), admission.enter());
        assert!(one.is_ok() && other.is_ok());
        assert_eq!(admission.enter().err(), Some(TooMany::Connections));
        drop(one);
        let third = admission.enter();
        assert!(third.is_ok());
        assert_eq!(admission.enter().err(), Some(TooMany::Connections));
        assert_eq!(admission.refused(TooMany::Connections), 2);
        assert_eq!(admission.refused(TooMany::AtOnce), 0);
    }

    #[test]
    fn who_comes_too_fast_takes_no_place() {
        // None comes back in the time of a test.
        let rate = Rate::parse("2/1h").unwrap();
        let admission = Arc::new(Admission::new(3, Some(rate)));
        let (_one, _other) = (admission.enter().unwrap(), admission.enter().unwrap());
        for _ in 0..5 {
            assert_eq!(admission.enter().err(), Some(TooMany::AtOnce));
        }
        assert_eq!(admission.count.load(Ordering::Relaxed), 2);
        assert_eq!(admission.refused(TooMany::AtOnce), 5);
        let any = Arc::new(Admission::new(0, None));
        let all: Vec<_> = (0..1000).map(|_| any.enter()).collect();
        assert!(all.iter().all(Result::is_ok));
        any.reconfigure(1000, None);
        assert_eq!(any.enter().err(), Some(TooMany::Connections));
        drop(all);
        assert!(any.enter().is_ok());
    }
}

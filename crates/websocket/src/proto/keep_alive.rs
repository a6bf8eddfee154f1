//! Keep-alive: when to ping a peer that is silent, when to give it up, and when a connection on
//! which nothing is said has been open for long enough.
//!
//! A policy and nothing else: time is an argument, and what is to be done comes out. Whatever is heard sets
//! a flag, which is looked at when a deadline passes. So no clock is read for a message and
//! no timer is moved; in return, what is to happen after a time happens after once to twice that.

use std::time::{Duration, Instant};

/// How a peer is watched.
///
/// ```
/// use std::time::Duration;
/// use tautline_websocket::proto::KeepAliveOptions;
///
/// // Behind a proxy that ends connections on which nothing was sent for a minute.
/// let options = KeepAliveOptions {
///     ping_after: Some(Duration::from_secs(25)),
///     ..KeepAliveOptions::default()
/// };
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAliveOptions {
    /// How long nothing may come from the peer before it is pinged, `None` for no pings. The ping
    /// leaves after once to twice this time. Default 25 s: proxies commonly end connections after
    /// 60 s of silence, and so does the mapping of some address translators.
    pub ping_after: Option<Duration>,
    /// How long after a ping something must have come, be it the pong or anything else; if not,
    /// the peer is dead. Default 20 s.
    pub pong_timeout: Duration,
    /// How long no message may go in either direction before the connection is closed; control
    /// frames don't count. It is closed after once to twice this time. `None`, the default, is for ever.
    pub idle_timeout: Option<Duration>,
}

impl Default for KeepAliveOptions {
    fn default() -> Self {
        Self {
            ping_after: Some(Duration::from_secs(25)),
            pong_timeout: Duration::from_secs(20),
            idle_timeout: None,
        }
    }
}

/// The watch over one connection.
///
/// ```
/// use std::time::{Duration, Instant};
/// use tautline_websocket::proto::{KeepAlive, KeepAliveDue, KeepAliveOptions};
///
/// let start = Instant::now();
/// let mut keep_alive = KeepAlive::new(KeepAliveOptions::default(), start);
/// let deadline = keep_alive.next_deadline().expect("pings are on");
/// let KeepAliveDue::Ping(payload) = keep_alive.on_deadline(deadline) else {
///     panic!("nothing was heard");
/// };
/// // Goes into `Connection::ping`; then the pong comes.
/// keep_alive.heard();
/// keep_alive.pong(&payload, deadline + Duration::from_millis(20));
/// assert_eq!(keep_alive.round_trip(), Some(Duration::from_millis(20)));
/// ```
#[derive(Debug)]
pub struct KeepAlive {
    options: KeepAliveOptions,
    heard: bool,
    active: bool,
    /// When to look whether something was heard.
    check_at: Option<Instant>,
    /// When to look whether a message went either way.
    idle_at: Option<Instant>,
    /// When the last ping was sent, until its pong comes.
    pinged_at: Option<Instant>,
    /// Whether the check is about the answer to a ping.
    waits: bool,
    /// Tells pings apart.
    number: u32,
    round_trip: Option<Duration>,
}

/// What a deadline has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeepAliveDue {
    /// Nothing; there is a new deadline.
    Nothing,
    /// A ping with this payload is to be sent.
    Ping([u8; 4]),
    /// The peer is dead: nothing has come since the last ping.
    Dead,
    /// No message went either way for too long: the connection is to be closed.
    Idle,
}

impl KeepAlive {
    /// A watch that begins now.
    pub fn new(options: KeepAliveOptions, now: Instant) -> Self {
        Self {
            options,
            heard: false,
            active: false,
            check_at: options.ping_after.and_then(|after| now.checked_add(after)),
            idle_at: options.idle_timeout.and_then(|idle| now.checked_add(idle)),
            pinged_at: None,
            waits: false,
            number: 0,
            round_trip: None,
        }
    }

    /// Something came from the peer.
    #[inline]
    pub fn heard(&mut self) {
        self.heard = true;
    }

    /// A message came from the peer, or was sent to it.
    #[inline]
    pub fn active(&mut self) {
        self.active = true;
    }

    /// When [`on_deadline`](Self::on_deadline) should be called next, `None` for never.
    pub fn next_deadline(&self) -> Option<Instant> {
        match (self.check_at, self.idle_at) {
            (Some(check), Some(idle)) => Some(check.min(idle)),
            (check, idle) => check.or(idle),
        }
    }

    /// Says what is to be done now. Called too early, that is nothing.
    pub fn on_deadline(&mut self, now: Instant) -> KeepAliveDue {
        if let (Some(at), Some(timeout)) = (self.idle_at, self.options.idle_timeout)
            && at <= now
        {
            if !std::mem::take(&mut self.active) {
                self.idle_at = None;
                return KeepAliveDue::Idle;
            }
            self.idle_at = now.checked_add(timeout);
        }
        let (Some(at), Some(after)) = (self.check_at, self.options.ping_after) else {
            return KeepAliveDue::Nothing;
        };
        if at > now {
            return KeepAliveDue::Nothing;
        }
        if std::mem::take(&mut self.heard) {
            self.waits = false;
            self.check_at = now.checked_add(after);
            return KeepAliveDue::Nothing;
        }
        if self.waits {
            self.check_at = None;
            return KeepAliveDue::Dead;
        }
        self.waits = true;
        self.check_at = now.checked_add(self.options.pong_timeout);
        self.pinged_at = Some(now);
        self.number = self.number.wrapping_add(1);
        KeepAliveDue::Ping(self.number.to_be_bytes())
    }

    /// Whether this is the payload of the pong that is waited for. Asked first, so that a clock is
    /// only read for that one.
    pub fn expects_pong(&self, payload: &[u8]) -> bool {
        self.pinged_at.is_some() && payload == self.number.to_be_bytes()
    }

    /// A pong came. If it answers the last ping, the time between them is the round trip.
    pub fn pong(&mut self, payload: &[u8], now: Instant) {
        if self.expects_pong(payload)
            && let Some(at) = self.pinged_at.take()
        {
            self.round_trip = Some(now.saturating_duration_since(at));
        }
    }

    /// How long the last ping that was answered took, there and back. Includes the time for which
    /// the peer, and this side, were busy with other things.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn watch(idle: Option<Duration>) -> (KeepAlive, Instant) {
        let now = Instant::now();
        let options = KeepAliveOptions {
            ping_after: Some(10 * SECOND),
            pong_timeout: 3 * SECOND,
            idle_timeout: idle,
        };
        (KeepAlive::new(options, now), now)
    }

    /// Goes on to the next deadline.
    fn step(watch: &mut KeepAlive, start: Instant) -> (u64, KeepAliveDue) {
        let at = watch.next_deadline().expect("a deadline");
        ((at - start).as_secs(), watch.on_deadline(at))
    }

    #[test]
    fn a_silent_peer_is_pinged_and_then_given_up() {
        let (mut watch, start) = watch(None);
        assert_eq!(watch.on_deadline(start + 9 * SECOND), KeepAliveDue::Nothing);
        assert_eq!(
            step(&mut watch, start),
            (10, KeepAliveDue::Ping([0, 0, 0, 1]))
        );
        assert_eq!(step(&mut watch, start), (13, KeepAliveDue::Dead));
        assert_eq!(watch.next_deadline(), None);
    }

    #[test]
    fn anything_that_is_heard_is_life() {
        let (mut watch, start) = watch(None);
        watch.heard();
        assert_eq!(step(&mut watch, start), (10, KeepAliveDue::Nothing));
        assert_eq!(
            step(&mut watch, start),
            (20, KeepAliveDue::Ping([0, 0, 0, 1]))
        );
        watch.heard();
        assert_eq!(step(&mut watch, start), (23, KeepAliveDue::Nothing));
        assert_eq!(
            step(&mut watch, start),
            (33, KeepAliveDue::Ping([0, 0, 0, 2]))
        );
    }

    #[test]
    fn only_the_pong_for_the_last_ping_is_timed() {
        let (mut watch, start) = watch(None);
        watch.pong(&[0; 4], start);
        assert_eq!(watch.round_trip(), None);
        step(&mut watch, start);
        watch.pong(&[0, 0, 0, 9], start + 11 * SECOND);
        assert_eq!(watch.round_trip(), None);
        watch.pong(&[0, 0, 0, 1], start + 12 * SECOND);
        assert_eq!(watch.round_trip(), Some(2 * SECOND));
        watch.pong(&[0, 0, 0, 1], start + 50 * SECOND);
        assert_eq!(
            watch.round_trip(),
            Some(2 * SECOND),
            "it was answered already"
        );
    }

    #[test]
    fn an_idle_connection_is_closed_though_pongs_come() {
        let (mut watch, start) = watch(Some(15 * SECOND));
        watch.active();
        assert_eq!(step(&mut watch, start).0, 10);
        watch.heard();
        assert_eq!(step(&mut watch, start), (13, KeepAliveDue::Nothing));
        assert_eq!(step(&mut watch, start), (15, KeepAliveDue::Nothing));
        watch.heard();
        assert_eq!(step(&mut watch, start), (23, KeepAliveDue::Nothing));
        assert_eq!(step(&mut watch, start), (30, KeepAliveDue::Idle));
    }

    #[test]
    fn nothing_is_watched_without_times() {
        let options = KeepAliveOptions {
            ping_after: None,
            ..KeepAliveOptions::default()
        };
        let watch = KeepAlive::new(options, Instant::now());
        assert_eq!(watch.next_deadline(), None);
    }
}

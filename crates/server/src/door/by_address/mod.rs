//! Who may come in, as far as that is a matter of how much comes from their address, and of the process's memory. What
//! the node has room for is [`super::admission`]'s.
//!
//! All workers share it. A connection takes a [`Place`] when it is accepted, before anything was read or any TLS spoken;
//! a session that shares its connection with others (behind a proxy that is trusted, over HTTP/2, or by the doors
//! of plain HTTP) takes one for its client's address.

pub(crate) mod memory;
mod table;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode, header};
use tautline_hub::rate::Rate;
use tautline_websocket::proto::handshake::Refusal;

use self::memory::MemoryGauge;
use self::table::{Entry, Key, Table};
use crate::client_address::Trust;
use crate::http::respond;
use crate::network::Networks;

/// What the operator allows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rules {
    pub(crate) trust: Trust,
    /// Connections from proxies that are trusted begin with the PROXY protocol.
    pub(crate) proxy_protocol: bool,
    pub(crate) exempt: Networks,
    pub(crate) exempt_loopback: bool,
    /// Nobody is refused, but counted and told.
    pub(crate) dry_run: bool,
    /// 0 for any number.
    pub(crate) connections: usize,
    /// 0 for any number.
    pub(crate) handshakes: usize,
    pub(crate) connects: Option<Rate>,
    pub(crate) requests: Option<Rate>,
    pub(crate) failures: Option<Rate>,
    pub(crate) max_addresses: usize,
    /// Bytes; `None` for no ceiling.
    pub(crate) memory: Option<u64>,
    pub(crate) memory_dry_run: bool,
    pub(crate) memory_interval: Duration,
}

impl Rules {
    fn is_exempt(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        (self.exempt_loopback && address.is_loopback()) || self.exempt.contains(address)
    }
}

/// What there may be only so much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Connections,
    Handshakes,
    Connects,
    Requests,
    Authentication,
    Memory,
}

impl Limit {
    /// All of them.
    const ALL: [Self; 6] = [
        Self::Connections,
        Self::Handshakes,
        Self::Connects,
        Self::Requests,
        Self::Authentication,
        Self::Memory,
    ];

    /// The option.
    fn option(self) -> &'static str {
        match self {
            Self::Connections => "limits.address.connections",
            Self::Handshakes => "limits.address.handshakes",
            Self::Connects => "limits.address.connect",
            Self::Requests => "limits.address.requests",
            Self::Authentication => "limits.address.failed_authentications",
            Self::Memory => "limits.memory",
        }
    }

    /// In metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Handshakes => "handshakes",
            Self::Connects => "connect",
            Self::Requests => "requests",
            Self::Authentication => "authentication",
            Self::Memory => "memory",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// Somebody is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    limit: Limit,
    /// In seconds.
    retry_after: u64,
}

impl Refused {
    fn new(limit: Limit, wait: Duration) -> Self {
        let retry_after = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self { limit, retry_after }
    }

    pub(crate) fn status(self) -> StatusCode {
        match self.limit {
            Limit::Memory => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// What to tell a person.
    pub(crate) fn text(self) -> String {
        let what = match self.limit {
            Limit::Connections => "There are too many connections from your address",
            Limit::Handshakes => "Too many connections from your address have said nothing yet",
            Limit::Connects => "Connections from your address come too fast",
            Limit::Requests => "Requests from your address come too fast",
            Limit::Authentication => "Too many keys or tokens from your address were wrong",
            Limit::Memory => "The server has no memory left for new clients",
        };
        let (option, seconds) = (self.limit.option(), self.retry_after);
        format!("{what} ({option}). Try again in {seconds} s.\n")
    }

    pub(crate) fn response(self) -> respond::Response {
        let response = respond::text(self.status(), self.text());
        respond::with_header(
            response,
            header::RETRY_AFTER,
            HeaderValue::from(self.retry_after),
        )
    }

    /// The same, for who wanted to open a WebSocket over HTTP/2.
    pub(crate) fn refusal(self) -> Refusal {
        Refusal::new(self.status().as_u16(), self.text())
            .with_header("Retry-After", &self.retry_after.to_string())
    }

    /// The same, for a connection that is closed behind it.
    pub(crate) fn http1(self) -> Vec<u8> {
        let (status, text) = (self.status(), self.text());
        format!(
            "HTTP/1.1 {} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nRetry-After: {}\r\n\
             Connection: close\r\n\r\n{text}",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            text.len(),
            self.retry_after
        )
        .into_bytes()
    }
}

/// Looks after all of it.
pub(crate) struct AddressLimits {
    start: Instant,
    rules: RwLock<Arc<Rules>>,
    table: Table,
    pub(crate) memory: MemoryGauge,
    /// By limit: those that were refused, and those that would have been.
    counts: [[AtomicU64; 2]; Limit::ALL.len()],
    /// When a refusal was last told, and how many were not since.
    told: Mutex<(Option<Duration>, u64)>,
    /// How many are being told that they are refused.
    goodbyes: AtomicUsize,
}

impl AddressLimits {
    pub(crate) fn new(rules: Arc<Rules>) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            rules: RwLock::new(rules),
            table: Table::new(),
            memory: MemoryGauge::default(),
            counts: Default::default(),
            told: Mutex::default(),
            goodbyes: AtomicUsize::new(0),
        })
    }

    /// What holds at the moment.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes by other rules from now on. Who is here stays, and counts as before.
    pub(crate) fn reconfigure(&self, rules: Arc<Rules>) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// The time, as all else here has it.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// A place for a connection that was accepted from an address; `None` for one that doesn't count.
    ///
    /// # Errors
    ///
    /// Whatever there is too much of.
    pub(crate) fn connection(
        self: &Arc<Self>,
        now: Duration,
        address: IpAddr,
    ) -> Result<Option<Place>, Refused> {
        self.enter(now, address, true)
    }

    /// A place for a session.
    ///
    /// # Errors
    ///
    /// As for a connection.
    pub(crate) fn session(
        self: &Arc<Self>,
        now: Duration,
        address: IpAddr,
    ) -> Result<Option<Place>, Refused> {
        self.enter(now, address, false)
    }

    fn enter(
        self: &Arc<Self>,
        now: Duration,
        address: IpAddr,
        handshakes: bool,
    ) -> Result<Option<Place>, Refused> {
        let rules = self.rules();
        if rules.is_exempt(address) {
            return Ok(None);
        }
        if rules.memory.is_some() && self.memory.is_over() {
            let refused = Refused::new(Limit::Memory, MEMORY_PAUSE);
            self.refuse(now, Some(address), refused, rules.memory_dry_run)?;
        }
        let key = Key::from(address);
        let verdict = self.table.with(key, now, rules.max_addresses, |entry| {
            let verdict = check(entry, &rules, now, handshakes);
            if verdict.is_ok() || rules.dry_run {
                entry.connections += 1;
                entry.handshakes += usize::from(handshakes);
            }
            verdict
        });
        if let Err(refused) = verdict {
            self.refuse(now, Some(address), refused, rules.dry_run)?;
        }
        Ok(Some(Place(Box::new(Held {
            admission: Arc::clone(self),
            key,
            handshakes,
        }))))
    }

    /// A request for one of the doors.
    ///
    /// # Errors
    ///
    /// When they come too fast.
    pub(crate) fn request(&self, now: Duration, address: IpAddr) -> Result<(), Refused> {
        let rules = self.rules();
        let Some(rate) = rules.requests.filter(|_| !rules.is_exempt(address)) else {
            return Ok(());
        };
        let taken = self
            .table
            .with(Key::from(address), now, rules.max_addresses, |entry| {
                entry.requests.take(now, &rate)
            });
        match taken {
            Ok(()) => Ok(()),
            Err(wait) => self.refuse(
                now,
                Some(address),
                Refused::new(Limit::Requests, wait),
                rules.dry_run,
            ),
        }
    }

    /// Whether somebody may try (again) to prove who they are. It takes nothing: only what fails counts.
    fn attempt(&self, now: Duration, key: Key, user: Option<&str>) -> Result<(), Refused> {
        let rules = self.rules();
        let Some(rate) = rules.failures else {
            return Ok(());
        };
        for key in [Some(key), user.map(|user| self.table.user(user))] {
            let look = |entry: &mut Entry| entry.failures.peek(now, &rate);
            if let Some(Err(wait)) = key.and_then(|key| self.table.with_known(key, look)) {
                let refused = Refused::new(Limit::Authentication, wait);
                let address = key.and_then(Key::address);
                self.refuse(now, address, refused, rules.dry_run)?;
            }
        }
        Ok(())
    }

    fn failure(&self, now: Duration, key: Key, user: Option<&str>) {
        let rules = self.rules();
        let Some(rate) = rules.failures else { return };
        for key in [Some(key), user.map(|user| self.table.user(user))]
            .into_iter()
            .flatten()
        {
            self.table.with(key, now, rules.max_addresses, |entry| {
                // One that is empty already stays so.
                let _ = entry.failures.take(now, &rate);
            });
        }
    }

    /// Whether an API key that comes from an address may be looked at. Where a right one came from not long ago is the
    /// application's backend, which one of its parts with a wrong key must not shut out.
    ///
    /// # Errors
    ///
    /// When too many were wrong.
    pub(crate) fn key_attempt(&self, now: Duration, address: IpAddr) -> Result<(), Refused> {
        if self.rules().is_exempt(address) {
            return Ok(());
        }
        let key = Key::from(address);
        let is_backend = self
            .table
            .with_known(key, |entry| entry.backend_until > now);
        if is_backend == Some(true) {
            return Ok(());
        }
        self.attempt(now, key, None)
    }

    /// An API key was looked at that came from an address.
    pub(crate) fn key_tried(&self, now: Duration, address: IpAddr, is_right: bool) {
        let rules = self.rules();
        if rules.failures.is_none() || rules.is_exempt(address) {
            return;
        }
        let key = Key::from(address);
        if is_right {
            self.table.with(key, now, rules.max_addresses, |entry| {
                entry.backend_until = now + BACKEND_TIME;
            });
        } else {
            self.failure(now, key, None);
        }
    }

    /// Counts somebody who is refused, or would be.
    fn refuse(
        &self,
        now: Duration,
        address: Option<IpAddr>,
        refused: Refused,
        dry_run: bool,
    ) -> Result<(), Refused> {
        let counts = &self.counts[refused.limit.index()];
        counts[usize::from(dry_run)].fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told
            .0
            .is_some_and(|last| now.saturating_sub(last) < TELL_AGAIN)
        {
            told.1 += 1;
        } else {
            let left_out = std::mem::take(&mut told.1);
            told.0 = Some(now);
            tracing::warn!(
                target: "tautline::limits",
                address = address.map(tracing::field::display),
                limit = refused.limit.option(), dry_run, left_out,
                "over a limit; if many clients come from this address, and it is a proxy's, it belongs into \
                 http_server.trusted_proxies, and otherwise into limits.exempt"
            );
        }
        if dry_run { Ok(()) } else { Err(refused) }
    }

    /// Those that were refused, by limit and mode.
    pub(crate) fn refusals(&self) -> Vec<(&'static str, &'static str, u64)> {
        let mut all = Vec::new();
        for limit in Limit::ALL {
            for (mode, count) in ["enforced", "dry_run"]
                .into_iter()
                .zip(&self.counts[limit.index()])
            {
                all.push((limit.name(), mode, count.load(Ordering::Relaxed)));
            }
        }
        all
    }

    /// How many addresses are known.
    pub(crate) fn addresses(&self) -> usize {
        self.table.len()
    }

    /// Leave to tell somebody of a refusal; `None` where so many are being told that others are just dropped.
    pub(crate) fn goodbye(self: &Arc<Self>) -> Option<Goodbye> {
        let before = self.goodbyes.fetch_add(1, Ordering::Relaxed);
        let goodbye = Goodbye(Arc::clone(self));
        (before < MAX_GOODBYES).then_some(goodbye)
    }

    /// Measures memory, again and again. Never ends.
    pub(crate) async fn watch_memory(&self) {
        loop {
            let rules = self.rules();
            if let Some(used) = memory::resident() {
                let ceiling = rules.memory.unwrap_or(0);
                let is_changed = self.memory.observe(used, ceiling);
                if is_changed && rules.memory.is_some() {
                    if self.memory.is_over() {
                        tracing::warn!(used, ceiling, "there is no memory left for new clients");
                    } else {
                        tracing::info!(used, ceiling, "there is memory for new clients again");
                    }
                }
            }
            tokio::time::sleep(rules.memory_interval).await;
        }
    }
}

fn check(entry: &mut Entry, rules: &Rules, now: Duration, handshakes: bool) -> Result<(), Refused> {
    let is_reached = |limit: usize, count: usize| limit > 0 && count >= limit;
    if is_reached(rules.connections, entry.connections) {
        return Err(Refused::new(Limit::Connections, PAUSE));
    }
    if handshakes && is_reached(rules.handshakes, entry.handshakes) {
        return Err(Refused::new(Limit::Handshakes, PAUSE));
    }
    if let Some(rate) = &rules.connects {
        let taken = entry.connects.take(now, rate);
        taken.map_err(|wait| Refused::new(Limit::Connects, wait))?;
    }
    Ok(())
}

/// A connection's or a session's, until it is dropped.
pub(crate) struct Place(Box<Held>);

struct Held {
    admission: Arc<AddressLimits>,
    key: Key,
    handshakes: bool,
}

impl Place {
    /// It is known now what the connection wants.
    pub(crate) fn begun(&mut self) {
        if std::mem::take(&mut self.0.handshakes) {
            let table = &self.0.admission.table;
            table.with_known(self.0.key, |entry| entry.handshakes -= 1);
        }
    }

    /// Whether somebody from there may try who they are; and `user`, where that is known.
    pub(crate) fn may_authenticate(&self, user: Option<&str>) -> bool {
        let limits = &self.0.admission;
        limits.attempt(limits.now(), self.0.key, user).is_ok()
    }

    /// Somebody from there has tried in vain.
    pub(crate) fn note_failed_authentication(&self, user: Option<&str>) {
        let limits = &self.0.admission;
        limits.failure(limits.now(), self.0.key, user);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.admission.table.with_known(self.key, |entry| {
            entry.connections -= 1;
            entry.handshakes -= usize::from(self.handshakes);
        });
    }
}

/// Somebody who is told of a refusal.
pub(crate) struct Goodbye(Arc<AddressLimits>);

impl Drop for Goodbye {
    fn drop(&mut self) {
        self.0.goodbyes.fetch_sub(1, Ordering::Relaxed);
    }
}

/// After which clients may try again where no time is known.
const PAUSE: Duration = Duration::from_secs(5);
const MEMORY_PAUSE: Duration = Duration::from_secs(10);
/// A refusal in that time is told in the log.
const TELL_AGAIN: Duration = Duration::from_secs(1);
const MAX_GOODBYES: usize = 1000;
/// For how long an address is the backend's after a call with a right key.
const BACKEND_TIME: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            connections: 3,
            handshakes: 2,
            max_addresses: 1000,
            ..Rules::default()
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const NOW: Duration = Duration::from_secs(1);

    #[test]
    fn places_are_counted_by_address_and_given_back() {
        let admission = AddressLimits::new(Arc::new(rules()));
        let enter = |text| admission.connection(NOW, ip(text));
        let mut first = enter("192.0.2.1").unwrap().unwrap();
        let second = enter("192.0.2.1").unwrap();
        assert_eq!(enter("192.0.2.1").err().unwrap().limit, Limit::Handshakes);
        first.begun();
        first.begun();
        let third = enter("192.0.2.1").unwrap();
        let refused = enter("::ffff:192.0.2.1").err().unwrap();
        assert_eq!(
            (refused.limit, refused.status()),
            (Limit::Connections, StatusCode::TOO_MANY_REQUESTS)
        );
        assert!(admission.session(NOW, ip("192.0.2.1")).is_err());
        assert!(enter("192.0.2.2").is_ok());
        drop((first, second, third));
        let again: Vec<_> = (0..2).map(|_| enter("192.0.2.1").unwrap()).collect();
        drop(again);
        assert!(
            admission
                .refusals()
                .contains(&("connections", "enforced", 2))
        );
    }

    #[test]
    fn a_dry_run_refuses_nobody_and_counts() {
        let admission = AddressLimits::new(Arc::new(Rules {
            dry_run: true,
            requests: Some(Rate::per_second(1)),
            ..rules()
        }));
        let places: Vec<_> = (0..10)
            .map(|_| admission.session(NOW, ip("2001:db8::1")).unwrap())
            .collect();
        drop(places);
        for _ in 0..4 {
            admission.request(NOW, ip("2001:db8::1")).unwrap();
        }
        assert!(
            admission
                .refusals()
                .contains(&("connections", "dry_run", 7))
        );
        assert!(admission.refusals().contains(&("requests", "dry_run", 3)));
    }

    #[test]
    fn rates_tell_when_to_come_again() {
        let admission = AddressLimits::new(Arc::new(Rules {
            connects: Some(Rate::new(2, Duration::from_secs(10))),
            requests: Some(Rate::new(1, Duration::from_secs(3))),
            exempt: Networks::parse(&["198.51.100.0/24"]).unwrap(),
            exempt_loopback: true,
            ..Rules::default()
        }));
        let enter = |now, text| admission.session(now, ip(text)).map(|_| ());
        assert!(enter(NOW, "192.0.2.1").is_ok() && enter(NOW, "192.0.2.1").is_ok());
        let refused = enter(NOW, "192.0.2.1").err().unwrap();
        assert_eq!((refused.limit, refused.retry_after), (Limit::Connects, 5));
        let text = String::from_utf8(refused.http1()).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 429 Too Many Requests\r\n")
                && text.contains("\r\nRetry-After: 5\r\n")
        );
        assert!(enter(NOW + Duration::from_secs(5), "192.0.2.1").is_ok());
        assert!(admission.request(NOW, ip("192.0.2.1")).is_ok());
        assert_eq!(
            admission
                .request(NOW, ip("192.0.2.1"))
                .err()
                .unwrap()
                .retry_after,
            3
        );
        for address in ["198.51.100.7", "127.0.0.1", "::1"] {
            for _ in 0..9 {
                assert!(enter(NOW, address).is_ok() && admission.request(NOW, ip(address)).is_ok());
            }
        }
    }

    #[test]
    fn who_fails_too_often_has_to_wait_and_others_do_not() {
        let limits = AddressLimits::new(Arc::new(Rules {
            failures: Some(Rate::new(2, Duration::from_secs(10))),
            exempt: Networks::parse(&["198.51.100.0/24"]).unwrap(),
            max_addresses: 1000,
            ..Rules::default()
        }));
        let key = |text| Key::from(ip(text));
        let may = |now, text, user| limits.attempt(now, key(text), user).is_ok();
        assert!(may(NOW, "192.0.2.1", None));
        limits.failure(NOW, key("192.0.2.1"), Some("ann"));
        assert!(may(NOW, "192.0.2.1", None));
        limits.failure(NOW, key("192.0.2.1"), Some("ann"));
        assert!(!may(NOW, "192.0.2.1", None) && may(NOW, "192.0.2.2", None));
        // Nor by another address, nor does that stand for another user.
        assert!(!may(NOW, "192.0.2.2", Some("ann")) && may(NOW, "192.0.2.2", Some("bob")));
        let later = NOW + Duration::from_secs(5);
        assert!(may(later, "192.0.2.1", None) && may(later, "192.0.2.2", Some("ann")));
        let refused = limits.key_attempt(NOW, ip("192.0.2.1")).err().unwrap();
        assert_eq!((refused.status().as_u16(), refused.retry_after), (429, 5));
        assert!(
            limits
                .refusals()
                .contains(&("authentication", "enforced", 3))
        );
        for _ in 0..9 {
            limits.key_tried(NOW, ip("198.51.100.7"), false);
        }
        assert!(limits.key_attempt(NOW, ip("198.51.100.7")).is_ok());
    }

    #[test]
    fn the_backend_is_not_shut_out_by_a_part_of_it_with_a_wrong_key() {
        let limits = AddressLimits::new(Arc::new(Rules {
            failures: Some(Rate::new(2, Duration::from_secs(10))),
            max_addresses: 1000,
            ..Rules::default()
        }));
        let (backend, stranger) = (ip("192.0.2.1"), ip("192.0.2.2"));
        limits.key_tried(NOW, backend, true);
        for _ in 0..5 {
            limits.key_tried(NOW, backend, false);
            limits.key_tried(NOW, stranger, false);
        }
        assert!(limits.key_attempt(NOW, backend).is_ok());
        assert!(limits.key_attempt(NOW, stranger).is_err());
        // It is the backend's no longer than that.
        let late = NOW + BACKEND_TIME;
        for _ in 0..2 {
            limits.key_tried(late, backend, false);
        }
        assert!(limits.key_attempt(late, backend).is_err());
    }

    #[test]
    fn without_memory_nobody_new_comes_in() {
        let admission = AddressLimits::new(Arc::new(Rules {
            memory: Some(1000),
            exempt_loopback: true,
            ..Rules::default()
        }));
        let before = admission.session(NOW, ip("192.0.2.1")).unwrap();
        admission.memory.observe(1001, 1000);
        let refused = admission.session(NOW, ip("192.0.2.1")).err().unwrap();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        // Whoever looks after the server gets in.
        assert!(admission.session(NOW, ip("127.0.0.1")).is_ok());
        admission.memory.observe(900, 1000);
        assert!(admission.session(NOW, ip("192.0.2.1")).is_ok());
        drop(before);
    }
}

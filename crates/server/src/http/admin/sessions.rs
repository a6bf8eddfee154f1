//! Who is logged in, and who tries to be too often.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tautline_auth::KeyDigest;
use tautline_hub::Entropy;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Those of one process; all workers know of the same.
pub struct Sessions {
    inner: Mutex<Inner>,
    /// Passwords that are being compared with a slow hash, and those that wait for that too.
    pending: Arc<Semaphore>,
    comparing: Arc<Semaphore>,
}

/// Leave to compare a password with a slow hash, until it is dropped.
pub(super) struct Turn(
    #[expect(dead_code, reason = "dropping them is what they are for")] [OwnedSemaphorePermit; 2],
);

struct Inner {
    entropy: Box<dyn Entropy + Send>,
    /// The oldest first.
    open: VecDeque<Session>,
    /// By address: since when, and how often.
    attempts: HashMap<IpAddr, (Instant, u32)>,
}

struct Session {
    /// Of what the browser has: who reads this memory can't log in with it.
    token: KeyDigest,
    /// Of the password that it was opened with.
    fingerprint: String,
    until: Instant,
}

impl Sessions {
    /// Nobody is logged in.
    pub fn new(entropy: Box<dyn Entropy + Send>) -> Self {
        Self {
            inner: Mutex::new(Inner {
                entropy,
                open: VecDeque::new(),
                attempts: HashMap::new(),
            }),
            pending: Arc::new(Semaphore::new(MOST_PENDING)),
            comparing: Arc::new(Semaphore::new(1)),
        }
    }

    /// Counts an attempt.
    ///
    /// # Errors
    ///
    /// How long to wait, if there were too many from that address.
    pub(super) fn attempt(&self, now: Instant, address: Option<IpAddr>) -> Result<(), Duration> {
        let attempts = &mut self.lock().attempts;
        let key = network(address);
        if attempts.len() >= MOST_ADDRESSES && !attempts.contains_key(&key) {
            attempts.retain(|_, (since, _)| now.saturating_duration_since(*since) < WINDOW);
            if attempts.len() >= MOST_ADDRESSES {
                return Err(WINDOW);
            }
        }
        let (since, count) = attempts.entry(key).or_insert((now, 0));
        let passed = now.saturating_duration_since(*since);
        if passed >= WINDOW {
            (*since, *count) = (now, 0);
        }
        if *count >= MOST_ATTEMPTS {
            return Err(WINDOW.saturating_sub(passed));
        }
        *count += 1;
        Ok(())
    }

    /// Waits until a password may be compared with a slow hash: one at a time, or whoever has many addresses to try from
    /// would have all processors work on that. `None` where as many wait as may.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the place up.
    pub(super) async fn turn(&self) -> Option<Turn> {
        let pending = Arc::clone(&self.pending).try_acquire_owned().ok()?;
        let comparing = Arc::clone(&self.comparing).acquire_owned().await.ok()?;
        Some(Turn([pending, comparing]))
    }

    /// Opens a session for whoever has typed the password, and returns what its browser is to send.
    pub(super) fn open(
        &self,
        now: Instant,
        address: Option<IpAddr>,
        fingerprint: String,
    ) -> String {
        let inner = &mut *self.lock();
        inner.attempts.remove(&network(address));
        let mut random = [0; 32];
        inner.entropy.fill(&mut random);
        let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        inner.open.retain(|session| session.until > now);
        if inner.open.len() >= MOST_SESSIONS {
            inner.open.pop_front();
        }
        inner.open.push_back(Session {
            token: KeyDigest::of(token.as_bytes()),
            fingerprint,
            until: now + TTL,
        });
        token
    }

    /// Whether what a browser sent is a session that was opened with that password.
    pub(super) fn knows(&self, now: Instant, token: &str, fingerprint: &str) -> bool {
        let inner = self.lock();
        let mut known = false;
        // All of them are looked at: the time says nothing about which it is.
        for session in &inner.open {
            let is_it = session.token.matches(token.as_bytes());
            known |= is_it && session.until > now && session.fingerprint == fingerprint;
        }
        known
    }

    /// Ends a session. Returns whether there was one.
    pub(super) fn close(&self, now: Instant, token: &str) -> bool {
        let open = &mut self.lock().open;
        let mut was_open = false;
        open.retain(|session| {
            let is_it = session.token.matches(token.as_bytes());
            was_open |= is_it && session.until > now;
            !is_it
        });
        was_open
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sessions")
    }
}

/// Whoever has one address of a network in IPv6 has them all.
fn network(address: Option<IpAddr>) -> IpAddr {
    match address {
        Some(IpAddr::V6(address)) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            Ipv6Addr::from(network).into()
        }
        Some(address) => address,
        None => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// How long a session lasts.
pub(super) const TTL: Duration = Duration::from_secs(12 * 3600);
/// A further one ends the oldest.
const MOST_SESSIONS: usize = 64;
/// Attempts of an address within the window.
const MOST_ATTEMPTS: u32 = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// Passwords that may be under comparison with a slow hash, those that wait for it included.
const MOST_PENDING: usize = 16;
/// Addresses whose attempts are counted; others are refused when there are that many.
const MOST_ADDRESSES: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    struct Counting(u8);

    impl Entropy for Counting {
        fn fill(&mut self, bytes: &mut [u8]) {
            self.0 += 1;
            bytes.fill(self.0);
        }
    }

    fn sessions() -> Sessions {
        Sessions::new(Box::new(Counting(0)))
    }

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn a_session_lasts_until_its_time_its_end_or_another_password() {
        let (sessions, now) = (sessions(), Instant::now());
        let one = sessions.open(now, None, "pw".into());
        let other = sessions.open(now, None, "pw".into());
        assert_ne!(one, other);
        assert!(sessions.knows(now, &one, "pw") && sessions.knows(now, &other, "pw"));
        assert!(!sessions.knows(now, &one, "another") && !sessions.knows(now, "", "pw"));
        assert!(!sessions.knows(now, &one[1..], "pw"));
        let end = now + TTL;
        assert!(sessions.knows(end - Duration::from_millis(1), &one, "pw"));
        assert!(!sessions.knows(end, &one, "pw"));
        assert!(!sessions.close(now, "") && !sessions.close(now, &one[1..]));
        assert!(sessions.close(now, &one) && !sessions.close(now, &one));
        assert!(!sessions.knows(now, &one, "pw") && sessions.knows(now, &other, "pw"));
        for _ in 0..MOST_SESSIONS {
            sessions.open(now, None, "pw".into());
        }
        assert!(!sessions.knows(now, &other, "pw"), "the oldest had to go");
    }

    #[test]
    fn who_guesses_has_to_wait_and_others_do_not() {
        let (sessions, now) = (sessions(), Instant::now());
        for _ in 0..MOST_ATTEMPTS {
            assert_eq!(sessions.attempt(now, address(1)), Ok(()));
        }
        let wait = sessions.attempt(now + Duration::from_secs(20), address(1));
        assert_eq!(wait, Err(Duration::from_secs(40)));
        assert_eq!(sessions.attempt(now, address(2)), Ok(()));
        assert_eq!(sessions.attempt(now + WINDOW, address(1)), Ok(()));
        // Who knows it has a clean slate.
        for _ in 0..3 * MOST_ATTEMPTS {
            assert_eq!(sessions.attempt(now, address(3)), Ok(()));
            sessions.open(now, address(3), String::new());
        }
        // A network of IPv6 is one.
        let neighbours = |last: u16| Some(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]));
        let refused = (0..20).filter(|last| sessions.attempt(now, neighbours(*last)).is_err());
        assert_eq!(refused.count(), 15);
    }

    #[test]
    fn attempts_from_everywhere_are_bounded() {
        let (sessions, now) = (sessions(), Instant::now());
        let from = |index: u32| Some(IpAddr::from(index.to_be_bytes()));
        let taken = (0..20_000).filter(|index| sessions.attempt(now, from(*index)).is_ok());
        assert_eq!(taken.count(), MOST_ADDRESSES);
        assert!(sessions.attempt(now + WINDOW, from(19_999)).is_ok());
        assert_eq!(sessions.lock().attempts.len(), 1);
    }

    fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn slow_passwords_are_compared_one_after_the_other() {
        let sessions = sessions();
        let first = sessions.turn().await.expect("nobody compares");
        let mut waiting: Vec<_> = (1..MOST_PENDING)
            .map(|_| Box::pin(sessions.turn()))
            .collect();
        for turn in &mut waiting {
            assert!(poll(turn).is_pending(), "one at a time");
        }
        let mut further = Box::pin(sessions.turn());
        let refused = matches!(poll(&mut further), Poll::Ready(None));
        assert!(refused, "and so many wait");
        drop(first);
        assert!(matches!(poll(&mut waiting[0]), Poll::Ready(Some(_))));
        // Who has given up makes room for another.
        drop(waiting);
        assert!(sessions.turn().await.is_some());
    }
}

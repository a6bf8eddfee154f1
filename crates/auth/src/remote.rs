//! Keys that are fetched: what is known of them, and when to fetch them again.
//!
//! The crate fetches nothing itself. Whoever does so waits until it is [asked](RemoteKeys::new),
//! fetches the set, and hands it over with [`replace`](RemoteKeys::replace) or tells of the failure
//! with [`failed`](RemoteKeys::failed).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use crate::jwks::JwkSet;

/// Keys from elsewhere, shared between verifiers and whoever fetches them.
///
/// A key that isn't known may be a new one: then the set is asked for again. However many tokens ask,
/// there is one fetch at a time, and none sooner than `pause` after the last one: until it is over
/// such tokens are [`Unavailable`](crate::TokenError::Unavailable), and after it those whose key is
/// still not there are invalid. So strangers who make up key ids cost one fetch for each `pause`. A
/// token that says that it was issued (`iat`) since the set was fetched may be the first of a new key
/// all the same: it is `Unavailable`, until a fetch is newer than it.
pub struct RemoteKeys {
    set: RwLock<Arc<JwkSet>>,
    state: Mutex<State>,
    pause: Duration,
    max_age: Duration,
    ask: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    /// A fetch was asked for and isn't over.
    asked: bool,
    /// Unix time at which the last one was over, successful or not.
    ended_at: Option<Duration>,
    /// Unix time of the last successful one.
    fetched_at: Option<Duration>,
}

/// How far the clock of who issues tokens may be ahead.
const CLOCKS_APART: Duration = Duration::from_secs(60);

impl RemoteKeys {
    /// No keys yet. `ask` is called when the set should be fetched; it must not block. It is called
    /// once for each fetch, the first time when the first token comes or
    /// [`refresh`](Self::refresh) is called.
    ///
    /// `pause` is the least time between two fetches, `max_age` how old a set may get before it is
    /// asked for again; it is used until there is a newer one.
    pub fn new(pause: Duration, max_age: Duration, ask: Box<dyn Fn() + Send + Sync>) -> Self {
        Self {
            set: RwLock::default(),
            state: Mutex::default(),
            pause,
            max_age,
            ask,
        }
    }

    /// Goes on with what others know, and when they asked last.
    pub fn inherit(&self, before: &Self) {
        let set = before.set();
        *self.set.write().unwrap_or_else(PoisonError::into_inner) = set;
        let State {
            ended_at,
            fetched_at,
            ..
        } = *before.state();
        let mut state = self.state();
        (state.ended_at, state.fetched_at) = (ended_at, fetched_at);
    }

    /// The set was fetched.
    pub fn replace(&self, set: JwkSet, now_unix: Duration) {
        *self.set.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
        let mut state = self.state();
        state.asked = false;
        state.ended_at = Some(now_unix);
        state.fetched_at = Some(now_unix);
    }

    /// The set couldn't be fetched. What was known stays known.
    pub fn failed(&self, now_unix: Duration) {
        let mut state = self.state();
        state.asked = false;
        state.ended_at = Some(now_unix);
    }

    /// Asks for the set if it is too old, or was never fetched: worth calling now and then, so that
    /// a new key is there before the first token that is signed with it.
    pub fn refresh(&self, now_unix: Duration) {
        let is_old = {
            let fetched_at = self.state().fetched_at;
            fetched_at.is_none_or(|at| now_unix >= at.saturating_add(self.max_age))
        };
        if is_old {
            self.want(now_unix, None);
        }
    }

    /// The keys as they are known at the moment.
    pub(crate) fn set(&self) -> Arc<JwkSet> {
        Arc::clone(&self.set.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a fetch was asked for that isn't over.
    pub(crate) fn is_awaited(&self) -> bool {
        self.state().asked
    }

    /// Whether there is no key.
    pub(crate) fn is_empty(&self) -> bool {
        self.set().is_empty()
    }

    /// Asks for the set, unless that was done a moment ago. Whether it may come to something: whether
    /// a fetch is under way that was, or is now, asked for, or one that is still to be asked for may find the
    /// key of a token that was issued then (Unix time), by its own word.
    pub(crate) fn want(&self, now_unix: Duration, issued_at: Option<Duration>) -> bool {
        let mut state = self.state();
        if state.asked {
            return true;
        }
        // A clock that was set back must not stop fetches for as long as it was.
        let is_soon = |ended: Duration| now_unix >= ended && now_unix < ended + self.pause;
        if state.ended_at.is_some_and(is_soon) {
            // After a failure nothing is known of the key, but that it may be there next time.
            return match state.fetched_at {
                Some(at) if Some(at) == state.ended_at => {
                    // By the second, as tokens say it. What can't be, nobody waits for.
                    let newest = now_unix.saturating_add(CLOCKS_APART);
                    issued_at.is_some_and(|iat| iat.as_secs() >= at.as_secs() && iat <= newest)
                }
                _ => true,
            };
        }
        state.asked = true;
        drop(state);
        (self.ask)();
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteKeys")
            .field("set", &self.set())
            .finish_non_exhaustive()
    }
}

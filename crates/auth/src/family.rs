//! Key sets of many: one for each tenant of an identity provider, where issuer or audience of a token says
//! whose it is.
//!
//! Whose token it is has to be known before its signature can be checked, so strangers choose among the
//! sets. What that can cost is bounded: how many sets there are, and how many are waited for that were
//! never seen. What they make up pushes out nothing that is of use.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::Deserialize;

use crate::claims::{Audience, object};
use crate::error::{InvalidToken, TokenError};
use crate::pattern::{Groups, Pattern};
use crate::remote::RemoteKeys;
use crate::url_template::{UrlTemplate, UrlTemplateError};

/// Key sets at URLs that tokens fill in, shared between verifiers and whoever fetches them.
///
/// The named groups of the regular expressions for issuer and audience are what a [`UrlTemplate`] is filled
/// with. A token that they don't match, or that would fill in what can't stand there, is invalid, and
/// nothing is fetched for it.
///
/// There are at most [`MAX_KEY_SETS`] sets, of which at most [`MAX_AWAITED_KEY_SETS`] were never fetched and
/// are waited for; tokens of further ones are [`Unavailable`](TokenError::Unavailable). When room is needed,
/// sets without keys go first, then those whose keys verified nothing yet, then that which wasn't used for
/// longest; and each that nobody named for a day.
pub struct RemoteKeyFamily {
    template: UrlTemplate,
    issuer: Option<Pattern>,
    audience: Option<Pattern>,
    pause: Duration,
    max_age: Duration,
    ask: Arc<dyn Fn(&str) + Send + Sync>,
    sets: RwLock<HashMap<String, Arc<Member>>>,
    pushed_out: AtomicU64,
    refused: AtomicU64,
}

/// One of the sets.
pub(crate) struct Member {
    pub(crate) keys: Arc<RemoteKeys>,
    /// Unix seconds at which a token named it last.
    named: AtomicU64,
    /// Unix seconds at which a key of it last verified a token; 0 for never.
    used: AtomicU64,
}

impl Member {
    /// A key of it has verified a token.
    pub(crate) fn note_use(&self, now_unix: Duration) {
        self.used.store(now_unix.as_secs(), Ordering::Relaxed);
    }
}

/// What is read of a token before anybody has verified it.
#[derive(Deserialize)]
struct Claimed {
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    aud: Option<Audience>,
}

impl RemoteKeyFamily {
    /// No sets yet. `ask` is called with the URL of a set that should be fetched; it must not block. Whoever
    /// fetches it hands it over to the [`set`](Self::set) of that URL. `pause` and `max_age` are those of
    /// [`RemoteKeys::new`], for each set.
    ///
    /// # Errors
    ///
    /// If a name in the template is no named group of either expression, or one of both.
    pub fn new(
        template: UrlTemplate,
        issuer: Option<Pattern>,
        audience: Option<Pattern>,
        pause: Duration,
        max_age: Duration,
        ask: Arc<dyn Fn(&str) + Send + Sync>,
    ) -> Result<Self, UrlTemplateError> {
        let has = |pattern: &Option<Pattern>, name: &str| {
            let pattern = pattern.as_ref();
            pattern.is_some_and(|pattern| pattern.has_group(name))
        };
        for name in template.names() {
            match (has(&issuer, name), has(&audience, name)) {
                (false, false) => return Err(UrlTemplateError::Unknown(name.to_owned())),
                (true, true) => return Err(UrlTemplateError::Ambiguous(name.to_owned())),
                _ => {}
            }
        }
        Ok(Self {
            template,
            issuer,
            audience,
            pause,
            max_age,
            ask,
            sets: RwLock::default(),
            pushed_out: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Where the sets are.
    pub fn template(&self) -> &UrlTemplate {
        &self.template
    }

    /// The set at a URL, if it is (still) of interest.
    pub fn set(&self, url: &str) -> Option<Arc<RemoteKeys>> {
        let sets = self.sets.read().unwrap_or_else(PoisonError::into_inner);
        sets.get(url).map(|member| Arc::clone(&member.keys))
    }

    /// Goes on with the sets that others know, if they are at the same places.
    pub fn inherit(&self, before: &Self) {
        if self.template != before.template {
            return;
        }
        for (own, known) in [
            (&self.pushed_out, &before.pushed_out),
            (&self.refused, &before.refused),
        ] {
            own.store(known.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        let known = before.sets.read().unwrap_or_else(PoisonError::into_inner);
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        for (url, member) in known.iter() {
            let keys = self.keys_at(url);
            keys.inherit(&member.keys);
            let own = Member {
                keys: Arc::new(keys),
                named: AtomicU64::new(member.named.load(Ordering::Relaxed)),
                used: AtomicU64::new(member.used.load(Ordering::Relaxed)),
            };
            sets.insert(url.clone(), Arc::new(own));
        }
    }

    fn keys_at(&self, url: &str) -> RemoteKeys {
        let (ask, asked) = (Arc::clone(&self.ask), url.to_owned());
        RemoteKeys::new(self.pause, self.max_age, Box::new(move || ask(&asked)))
    }

    /// How many sets there are.
    pub fn len(&self) -> usize {
        let sets = self.sets.read().unwrap_or_else(PoisonError::into_inner);
        sets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many sets had to go so far because there was no room for another ([`MAX_KEY_SETS`]).
    pub fn pushed_out(&self) -> u64 {
        self.pushed_out.load(Ordering::Relaxed)
    }

    /// For how many tokens there was no room for their set so far ([`MAX_AWAITED_KEY_SETS`]).
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The set whose keys may have signed a token with these claims, if it is known already; nothing is asked for.
    ///
    /// # Errors
    ///
    /// As [`member`](Self::member), and [`TokenError::Unavailable`] for one that isn't known.
    pub(crate) fn known_member(&self, claims: &[u8]) -> Result<Arc<Member>, TokenError> {
        let url = self.url(claims)?;
        let sets = self.sets.read().unwrap_or_else(PoisonError::into_inner);
        sets.get(&url).cloned().ok_or(TokenError::Unavailable)
    }

    /// The set whose keys may have signed a token with these claims.
    pub(crate) fn member(&self, claims: &[u8], now: Duration) -> Result<Arc<Member>, TokenError> {
        let url = self.url(claims)?;
        let known = {
            let sets = self.sets.read().unwrap_or_else(PoisonError::into_inner);
            sets.get(&url).cloned()
        };
        let member = match known {
            Some(member) => member,
            None => self.add(url, now).ok_or(TokenError::Unavailable)?,
        };
        member.named.store(now.as_secs(), Ordering::Relaxed);
        Ok(member)
    }

    fn url(&self, claims: &[u8]) -> Result<String, InvalidToken> {
        let claimed: Option<Claimed> =
            object(claims).and_then(|text| serde_json::from_str(text).ok());
        let problem =
            "expected a JSON object, in which `iss` is a text and `aud` one or a list of them";
        let claimed = claimed.ok_or_else(|| InvalidToken::Claims(problem.into()))?;
        let issuer = match &self.issuer {
            None => None,
            Some(pattern) => {
                let found = claimed.iss.as_deref().and_then(|text| pattern.groups(text));
                Some(found.ok_or(InvalidToken::Issuer)?)
            }
        };
        let audience = match &self.audience {
            None => None,
            Some(pattern) => {
                let texts = claimed.aud.iter().flat_map(Audience::texts);
                let found = texts.filter_map(|text| pattern.groups(text)).next();
                Some(found.ok_or(InvalidToken::Audience)?)
            }
        };
        // They have no name in common that the template uses.
        let mut groups: Vec<Groups<'_>> = Vec::new();
        groups.extend(issuer);
        groups.extend(audience);
        self.template
            .fill(|name| groups.iter().find_map(|groups| groups.get(name)))
            .ok_or(InvalidToken::KeySet)
    }

    /// A set that is new, if there is room for it.
    fn add(&self, url: String, now: Duration) -> Option<Arc<Member>> {
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = sets.get(&url) {
            return Some(Arc::clone(member));
        }
        let oldest = now.saturating_sub(FORGOTTEN_AFTER).as_secs();
        sets.retain(|_, member| {
            member.keys.is_awaited() || member.named.load(Ordering::Relaxed) >= oldest
        });
        let awaited = sets.values().filter(|member| {
            let keys = &member.keys;
            keys.is_awaited() && keys.is_empty()
        });
        if awaited.count() >= MAX_AWAITED_KEY_SETS {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if sets.len() >= MAX_KEY_SETS {
            let idle = sets.iter().filter(|(_, member)| !member.keys.is_awaited());
            let least = idle.min_by_key(|(_, member)| {
                let (used, named) = (&member.used, &member.named);
                let has_keys = !member.keys.is_empty();
                (
                    has_keys,
                    used.load(Ordering::Relaxed),
                    named.load(Ordering::Relaxed),
                )
            });
            let least = least.map(|(url, _)| url.clone())?;
            sets.remove(&least);
            self.pushed_out.fetch_add(1, Ordering::Relaxed);
        }
        let keys = self.keys_at(&url);
        let member = Arc::new(Member {
            keys: Arc::new(keys),
            named: AtomicU64::new(now.as_secs()),
            used: AtomicU64::new(0),
        });
        sets.insert(url, Arc::clone(&member));
        // Before anybody else looks: what is asked for isn't pushed out.
        member.keys.refresh(now);
        Some(member)
    }
}

impl fmt::Debug for RemoteKeyFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteKeyFamily")
            .field("template", &self.template)
            .field("sets", &self.len())
            .finish_non_exhaustive()
    }
}

/// How many key sets a [`RemoteKeyFamily`] keeps.
pub const MAX_KEY_SETS: usize = 1000;

/// How many sets a [`RemoteKeyFamily`] waits for that were never there.
pub const MAX_AWAITED_KEY_SETS: usize = 100;

/// A set that no token named for so long is forgotten when another comes.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

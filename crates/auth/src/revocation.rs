//! Tokens that count no more although their time is not over: by the id that they have, or by whom they are for, maybe in
//! which channel, and when they were issued.
//!
//! How many there are is limited, and each ends when nobody can come with such a token any more. Where they are
//! kept is somebody else's business.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use thiserror::Error;

/// What a token is known by: its `jti`, or for one without, what was signed. Kept as a part of a digest, so that all are
/// equally short; two tokens don't share one but by a collision of SHA-256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId([u8; LEN]);

impl TokenId {
    /// That of tokens with this `jti` (RFC 7519, section 4.1.7).
    ///
    /// ```
    /// use tautline_auth::TokenId;
    ///
    /// let id = TokenId::of_jti("9f2c");
    /// assert_eq!(TokenId::from_hex(&id.to_hex()), Some(id));
    /// ```
    pub fn of_jti(jti: &str) -> Self {
        Self::digest(b"jti", jti)
    }

    /// That of a token without one: of its header and payload, as they stand in it.
    pub(crate) fn of_signed(message: &str) -> Self {
        Self::digest(b"jws", message)
    }

    fn digest(kind: &[u8], text: &str) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(kind);
        context.update(text.as_bytes());
        let mut id = [0; LEN];
        let digest = context.finish();
        for (byte, from) in id.iter_mut().zip(digest.as_ref()) {
            *byte = *from;
        }
        Self(id)
    }

    /// 24 lower case hexadecimal digits.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads what [`to_hex`](Self::to_hex) writes; `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 2 * LEN {
            return None;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let mut id = [0; LEN];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            // Two digits make a byte.
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Some(Self(id))
    }
}

/// What a revocation of a token can be about. Whoever has let somebody in by a token keeps it, and finds out by it whether
/// the token counts still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenMark {
    id: TokenId,
    /// Unix seconds; 0 for a token that doesn't say. Every session has one, so it is no longer than it must be: the year
    /// 2106 can be told from those before.
    issued_at: u32,
}

impl TokenMark {
    /// That of no token.
    pub const NONE: Self = Self {
        id: TokenId([0; LEN]),
        issued_at: 0,
    };

    /// A token's. `issued_at` is its `iat` (RFC 7519, section 4.1.6), in whole seconds; `None` for a token without, which
    /// counts as issued before all others.
    pub fn new(id: TokenId, issued_at: Option<u64>) -> Self {
        Self {
            id,
            issued_at: u32::try_from(issued_at.unwrap_or_default()).unwrap_or(u32::MAX),
        }
    }

    /// Whether there is no token.
    pub fn is_none(&self) -> bool {
        self.id == TokenId::default()
    }

    /// The token's id.
    pub fn id(&self) -> TokenId {
        self.id
    }
}

/// Tokens that are to count no more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Revocation {
    /// One.
    Token {
        /// Which.
        id: TokenId,
        /// When this need not be known any more, in Unix seconds; `None` for never.
        expire_at: Option<u64>,
    },
    /// All of a user that were issued before a time.
    User {
        /// Whose.
        user: String,
        /// The time, in Unix seconds.
        issued_before: u64,
        /// When this need not be known any more, in Unix seconds; `None` for never.
        expire_at: Option<u64>,
    },
    /// All subscription tokens of a user for one channel that were issued before a time. Those for connections count on.
    UserChannel {
        /// Whose.
        user: String,
        /// The channel, as the tokens name it.
        channel: String,
        /// The time, in Unix seconds.
        issued_before: u64,
        /// When this need not be known any more, in Unix seconds; `None` for never.
        expire_at: Option<u64>,
    },
}

/// There are as many revocations as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{limit} revocations are known, and no more may be")]
pub struct TooManyRevocations {
    /// How many may be.
    pub limit: usize,
}

/// All revocations. Any number of threads may ask; as long as there are none, that costs next to nothing.
///
/// ```
/// use std::time::Duration;
/// use tautline_auth::{Revocation, Revocations, TokenId, TokenMark};
///
/// let (revocations, now) = (Revocations::new(1000), Duration::from_secs(1_800_000_000));
/// let token = TokenMark::new(TokenId::of_jti("9f2c"), Some(1_799_999_000));
/// assert!(!revocations.has(&token, "42", now));
/// revocations.add(
///     &Revocation::User {
///         user: "42".into(),
///         issued_before: 1_800_000_000,
///         expire_at: None,
///     },
///     now,
/// )?;
/// assert!(revocations.has(&token, "42", now) && !revocations.has(&token, "43", now));
/// # Ok::<(), tautline_auth::TooManyRevocations>(())
/// ```
#[derive(Debug)]
pub struct Revocations {
    limit: AtomicUsize,
    /// How many there are: with none, nobody needs the lock.
    count: AtomicUsize,
    tables: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    tokens: HashMap<TokenId, End>,
    users: HashMap<Box<str>, Cut>,
    /// By user, then by channel.
    channels: HashMap<Box<str>, HashMap<Box<str>, Cut>>,
    /// How many those are, over all users.
    channel_count: usize,
}

/// Unix seconds from which on a revocation is forgotten.
type End = u64;

#[derive(Clone, Copy, Debug)]
struct Cut {
    issued_before: u64,
    end: End,
}

impl Cut {
    fn has(&self, token: &TokenMark, now: u64) -> bool {
        self.end > now && u64::from(token.issued_at) < self.issued_before
    }

    /// Adds another to the one there is, if there is one: both count.
    fn enter(known: &mut HashMap<Box<str>, Self>, of: &str, issued_before: u64, end: End) {
        let cut = known.entry(of.into()).or_insert(Self {
            issued_before: 0,
            end,
        });
        cut.issued_before = cut.issued_before.max(issued_before);
        cut.end = cut.end.max(end);
    }
}

impl Default for Revocations {
    fn default() -> Self {
        Self::new(DEFAULT_LIMIT)
    }
}

impl Revocations {
    /// None, and room for `limit` of them.
    pub fn new(limit: usize) -> Self {
        Self {
            limit: AtomicUsize::new(limit),
            count: AtomicUsize::new(0),
            tables: RwLock::default(),
        }
    }

    /// Has room for `limit` from now on. Those that are known stay.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Adds one. Where the same is known already, both count: the later of the times.
    ///
    /// # Errors
    ///
    /// [`TooManyRevocations`] if there is no room for it, after those that have ended were forgotten.
    pub fn add(&self, revocation: &Revocation, now: Duration) -> Result<(), TooManyRevocations> {
        let limit = self.limit.load(Ordering::Relaxed);
        let mut tables = self.write();
        if tables.len() >= limit && !tables.knows(revocation) {
            tables.forget(now.as_secs());
            if tables.len() >= limit {
                self.count.store(tables.len(), Ordering::Release);
                return Err(TooManyRevocations { limit });
            }
        }
        tables.enter(revocation);
        self.count.store(tables.len(), Ordering::Release);
        Ok(())
    }

    /// Adds one that was known before, whether or not there is room: what was revoked once must not count again
    /// for want of it.
    pub fn restore(&self, revocation: &Revocation) {
        let mut tables = self.write();
        tables.enter(revocation);
        self.count.store(tables.len(), Ordering::Release);
    }

    /// Whether a token of `user` counts no more.
    pub fn has(&self, token: &TokenMark, user: &str, now: Duration) -> bool {
        self.finds(token, user, None, now)
    }

    /// Whether a subscription token of `user` for `channel` counts no more.
    pub fn has_subscription(
        &self,
        token: &TokenMark,
        user: &str,
        channel: &str,
        now: Duration,
    ) -> bool {
        self.finds(token, user, Some(channel), now)
    }

    fn finds(&self, token: &TokenMark, user: &str, channel: Option<&str>, now: Duration) -> bool {
        if self.is_empty() || token.is_none() {
            return false;
        }
        let (tables, now) = (self.read(), now.as_secs());
        let is_revoked = tables.tokens.get(&token.id).is_some_and(|end| *end > now);
        let of_user = tables.users.get(user);
        let of_channel = || tables.channels.get(user)?.get(channel?);
        is_revoked
            || of_user.is_some_and(|cut| cut.has(token, now))
            || of_channel().is_some_and(|cut| cut.has(token, now))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// How many there are of tokens, and of users, in one channel or in all.
    pub fn count(&self) -> (usize, usize) {
        let tables = self.read();
        let users = tables.users.len() + tables.channel_count;
        (tables.tokens.len(), users)
    }

    /// Forgets those that have ended. To be called now and then.
    pub fn forget_ended(&self, now: Duration) {
        if !self.is_empty() {
            let mut tables = self.write();
            tables.forget(now.as_secs());
            self.count.store(tables.len(), Ordering::Release);
        }
    }

    /// All that have not ended, in no order.
    pub fn all(&self, now: Duration) -> Vec<Revocation> {
        let (tables, now) = (self.read(), now.as_secs());
        let expire_at = |end: End| (end != NEVER).then_some(end);
        let tokens = tables.tokens.iter().map(|(id, end)| {
            let token = Revocation::Token {
                id: *id,
                expire_at: expire_at(*end),
            };
            (*end, token)
        });
        let users = tables.users.iter().map(|(user, cut)| {
            let user = Revocation::User {
                user: user.to_string(),
                issued_before: cut.issued_before,
                expire_at: expire_at(cut.end),
            };
            (cut.end, user)
        });
        let channels = tables.channels.iter().flat_map(|(user, channels)| {
            channels.iter().map(move |(channel, cut)| {
                let channel = Revocation::UserChannel {
                    user: user.to_string(),
                    channel: channel.to_string(),
                    issued_before: cut.issued_before,
                    expire_at: expire_at(cut.end),
                };
                (cut.end, channel)
            })
        });
        let all = tokens
            .chain(users)
            .chain(channels)
            .filter(|(end, _)| *end > now);
        all.map(|(_, revocation)| revocation).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        // Nobody panics between two changes that belong together.
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn len(&self) -> usize {
        self.tokens.len() + self.users.len() + self.channel_count
    }

    fn knows(&self, revocation: &Revocation) -> bool {
        match revocation {
            Revocation::Token { id, .. } => self.tokens.contains_key(id),
            Revocation::User { user, .. } => self.users.contains_key(&**user),
            Revocation::UserChannel { user, channel, .. } => {
                let of_user = self.channels.get(&**user);
                of_user.is_some_and(|channels| channels.contains_key(&**channel))
            }
        }
    }

    fn enter(&mut self, revocation: &Revocation) {
        match revocation {
            Revocation::Token { id, expire_at } => {
                let end = self.tokens.entry(*id).or_default();
                *end = (*end).max(expire_at.unwrap_or(NEVER));
            }
            Revocation::User {
                user,
                issued_before,
                expire_at,
            } => {
                let end = expire_at.unwrap_or(NEVER);
                Cut::enter(&mut self.users, user, *issued_before, end);
            }
            Revocation::UserChannel {
                user,
                channel,
                issued_before,
                expire_at,
            } => {
                let end = expire_at.unwrap_or(NEVER);
                let of_user = self.channels.entry(user.as_str().into()).or_default();
                let before = of_user.len();
                Cut::enter(of_user, channel, *issued_before, end);
                self.channel_count += of_user.len() - before;
            }
        }
    }

    fn forget(&mut self, now: u64) {
        self.tokens.retain(|_, end| *end > now);
        self.users.retain(|_, cut| cut.end > now);
        self.channel_count = 0;
        self.channels.retain(|_, channels| {
            channels.retain(|_, cut| cut.end > now);
            self.channel_count += channels.len();
            !channels.is_empty()
        });
    }
}

const NEVER: End = u64::MAX;
const LEN: usize = 12;
/// A hundred bytes each, or so.
const DEFAULT_LIMIT: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn token(jti: &str, expire_at: Option<u64>) -> Revocation {
        Revocation::Token {
            id: TokenId::of_jti(jti),
            expire_at,
        }
    }

    fn user(user: &str, issued_before: u64, expire_at: Option<u64>) -> Revocation {
        Revocation::User {
            user: user.into(),
            issued_before,
            expire_at,
        }
    }

    fn channel(
        user: &str,
        channel: &str,
        issued_before: u64,
        expire_at: Option<u64>,
    ) -> Revocation {
        Revocation::UserChannel {
            user: user.into(),
            channel: channel.into(),
            issued_before,
            expire_at,
        }
    }

    fn mark(jti: &str, issued_at: u64) -> TokenMark {
        TokenMark::new(TokenId::of_jti(jti), Some(issued_at))
    }

    #[test]
    fn a_token_is_revoked_by_its_id_until_that_is_forgotten() {
        let all = Revocations::new(10);
        all.add(&token("a", Some(1_010)), NOW).unwrap();
        let at = |seconds| all.has(&mark("a", 990), "ann", Duration::from_secs(seconds));
        assert!(at(1_000) && at(1_009));
        assert!(!at(1_010), "its time is over anyway");
        assert!(!all.has(&mark("b", 990), "ann", NOW));
        assert!(!all.has(&TokenMark::NONE, "ann", NOW), "no token at all");
    }

    #[test]
    fn a_users_tokens_are_revoked_by_the_time_of_their_issue() {
        let all = Revocations::new(10);
        all.add(&user("ann", 950, None), NOW).unwrap();
        for (who, issued_at, expected) in [
            ("ann", 949, true),
            ("ann", 950, false),
            // Nobody knows when.
            ("ann", 0, true),
            ("bob", 949, false),
            ("", 949, false),
        ] {
            let has = all.has(&mark("x", issued_at), who, NOW);
            assert_eq!(has, expected, "{who} {issued_at}");
        }
        assert!(!all.has(&TokenMark::NONE, "ann", NOW), "no token at all");
    }

    #[test]
    fn a_users_tokens_for_one_channel_are_revoked_without_the_others() {
        let all = Revocations::new(10);
        all.add(&channel("ann", "a", 950, Some(1_010)), NOW)
            .unwrap();
        let token = mark("x", 949);
        for (who, channel, issued_at, expected) in [
            ("ann", "a", 949, true),
            ("ann", "a", 950, false),
            ("ann", "a", 0, true),
            ("ann", "b", 949, false),
            ("bob", "a", 949, false),
        ] {
            let token = mark("x", issued_at);
            let is_revoked = all.has_subscription(&token, who, channel, NOW);
            assert_eq!(is_revoked, expected, "{who} {channel} {issued_at}");
        }
        assert!(!all.has(&token, "ann", NOW), "connections go on");
        let later = Duration::from_secs(1_010);
        assert!(!all.has_subscription(&token, "ann", "a", later));
        // The later of the times, and one of all channels is one of each.
        all.add(&channel("ann", "a", 940, None), NOW).unwrap();
        assert!(all.has_subscription(&token, "ann", "a", later));
        all.add(&user("bob", 950, None), NOW).unwrap();
        assert!(all.has_subscription(&token, "bob", "z", NOW));
        assert!(!all.has_subscription(&TokenMark::NONE, "ann", "a", NOW));
    }

    #[test]
    fn those_for_channels_count_among_all_and_make_room() {
        let all = Revocations::new(3);
        for (who, name) in [("ann", "a"), ("ann", "b"), ("bob", "a")] {
            all.add(&channel(who, name, 950, Some(1_010)), NOW).unwrap();
            all.add(&channel(who, name, 960, Some(1_010)), NOW).unwrap();
        }
        assert_eq!(all.count(), (0, 3));
        let another = channel("bob", "b", 950, None);
        let full = TooManyRevocations { limit: 3 };
        assert_eq!(all.add(&another, NOW), Err(full));
        all.add(&channel("ann", "b", 950, Some(1_020)), NOW)
            .unwrap();
        let later = Duration::from_secs(1_010);
        all.add(&another, later).unwrap();
        assert_eq!(all.count(), (0, 2));
        let token = mark("x", 949);
        for (who, channel, expected) in
            [("ann", "a", false), ("ann", "b", true), ("bob", "b", true)]
        {
            let is_revoked = all.has_subscription(&token, who, channel, NOW);
            assert_eq!(is_revoked, expected, "{who} {channel}");
        }
        all.forget_ended(Duration::from_secs(1_020));
        assert_eq!(all.count(), (0, 1));
        assert_eq!(all.all(later), [another]);
    }

    #[test]
    fn of_two_that_are_about_the_same_both_count() {
        let all = Revocations::new(2);
        all.add(&token("a", Some(2_000)), NOW).unwrap();
        all.add(&token("a", Some(1_500)), NOW).unwrap();
        all.add(&user("ann", 950, Some(2_000)), NOW).unwrap();
        all.add(&user("ann", 900, Some(1_500)), NOW).unwrap();
        all.add(&user("ann", 940, None), NOW).unwrap();
        let late = Duration::from_secs(1_999);
        assert!(all.has(&mark("a", 990), "bob", late));
        assert!(all.has(&mark("x", 949), "ann", late));
        assert!(all.has(&mark("x", 949), "ann", Duration::from_secs(9_999)));
        assert_eq!(all.count(), (1, 1));
    }

    #[test]
    fn there_are_only_so_many_and_those_that_have_ended_make_room() {
        let all = Revocations::new(2);
        all.add(&token("a", Some(1_010)), NOW).unwrap();
        all.add(&user("ann", 950, Some(1_020)), NOW).unwrap();
        let full = TooManyRevocations { limit: 2 };
        assert_eq!(all.add(&token("b", None), NOW), Err(full));
        assert!(!all.has(&mark("b", 990), "bob", NOW));
        // What is known already needs no room.
        all.add(&token("a", Some(1_011)), NOW).unwrap();
        let later = Duration::from_secs(1_011);
        all.add(&token("b", None), later).unwrap();
        assert!(all.has(&mark("b", 990), "bob", later));
        assert!(all.has(&mark("x", 949), "ann", later), "it has not ended");
        // What was known before has room in any case.
        all.restore(&token("c", None));
        assert_eq!(all.count(), (2, 1));
        all.set_limit(4);
        all.add(&token("d", None), later).unwrap();
        all.forget_ended(Duration::from_secs(1_020));
        assert_eq!(all.count(), (3, 0));
    }

    #[test]
    fn all_of_them_can_be_told_and_are_the_same_again() {
        let all = Revocations::new(10);
        let given = [
            token("a", Some(1_010)),
            token("b", None),
            user("ann", 950, None),
            user("bob", 951, Some(1_001)),
            channel("ann", "a", 952, None),
        ];
        for one in &given {
            all.add(one, NOW).unwrap();
        }
        let told = all.all(NOW);
        assert_eq!(told.len(), given.len());
        assert!(given.iter().all(|one| told.contains(one)));
        let told = all.all(Duration::from_secs(1_005));
        assert!(told.len() == 4 && !told.contains(&given[3]));
        let again = Revocations::new(0);
        told.iter().for_each(|one| again.restore(one));
        assert!(again.has(&mark("b", 1), "", NOW) && again.has(&mark("x", 949), "ann", NOW));
        assert!(again.has_subscription(&mark("x", 951), "ann", "a", NOW));
        assert!(!Revocations::new(1).has(&mark("b", 1), "", NOW));
    }

    #[test]
    fn ids_are_told_apart_and_written_down() {
        let id = TokenId::of_jti("a");
        assert_ne!(id, TokenId::of_jti("b"));
        assert_ne!(id, TokenId::of_signed("a"));
        assert_eq!(TokenId::from_hex(&id.to_hex()), Some(id));
        assert_eq!(size_of::<TokenMark>(), 16);
        for text in [
            "",
            "0",
            &"g".repeat(24),
            &"0".repeat(25),
            "é0000000000000000000000",
        ] {
            assert_eq!(TokenId::from_hex(text), None, "{text}");
        }
    }
}

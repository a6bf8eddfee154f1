//! What a token says: the claims as they stand in it, and what they come to.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::value::RawValue;

use crate::capabilities::{Allowed, Capabilities, RawRule};
use crate::error::{InvalidToken, TokenError};
use crate::pattern::Pattern;
use crate::revocation::{TokenId, TokenMark};

/// What a connection token grants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectClaims {
    /// User id (`sub`); empty for an anonymous user.
    pub user: String,
    /// When the connection ends unless it is refreshed, in Unix seconds; `None` for never. That
    /// is `expire_at` if the token has it (there, 0 means never) and `exp` otherwise.
    pub expire_at: Option<u64>,
    /// What others are shown about the connection: one JSON value, as the bytes that stood in
    /// `info` (or decoded from `b64info`).
    pub info: Option<Vec<u8>>,
    /// Server-side subscriptions, by channel: `subs`, or `channels` where `subs` is empty.
    pub subs: BTreeMap<String, SubscriptionOptions>,
    /// For the application's own backend, never shown to clients: one JSON value.
    pub meta: Option<Vec<u8>>,
    /// What the user may do in channels (`caps`), beside what their namespaces say; `None` if the token
    /// says nothing of it.
    pub caps: Option<Capabilities>,
    /// What a revocation of the token can be about.
    pub mark: TokenMark,
}

/// What a subscription token grants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscribeClaims {
    /// User id (`sub`). The caller compares it with the connection's.
    pub user: String,
    /// The channel, never empty. The caller compares it with the one that was asked for.
    pub channel: String,
    /// The only connection that may use the token, where it says so (an old way to bind tokens).
    pub client: Option<String>,
    /// When the subscription ends unless it is refreshed; as in [`ConnectClaims::expire_at`].
    pub expire_at: Option<u64>,
    /// Information about the subscriber, data for it, and changed channel options.
    pub options: SubscriptionOptions,
    /// What a revocation of the token can be about.
    pub mark: TokenMark,
}

/// What a token may say about one subscription.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscriptionOptions {
    /// What others in the channel are shown about the subscriber: one JSON value.
    pub info: Option<Vec<u8>>,
    /// Comes back in the subscribe result: one JSON value.
    pub data: Option<Vec<u8>>,
    /// Options of the namespace that are different for this subscription.
    pub overrides: Overrides,
    /// What the subscriber may do in the channel (`allow`), beside what its namespace says.
    pub allow: Allowed,
    /// Of which publications the subscriber may know (`server_tags_filter`): a tags filter, as the JSON
    /// text that stood in the token. What it says is another crate's business.
    pub tags_filter: Option<Box<str>>,
}

/// Namespace options that a token changes for one subscription; `None` leaves them as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `presence`: whether the subscriber is listed.
    pub presence: Option<bool>,
    /// `join_leave`: whether it makes join and leave events.
    pub join_leave: Option<bool>,
    /// `force_push_join_leave`: whether it gets those of others without asking.
    pub force_push_join_leave: Option<bool>,
    /// `force_positioning`: whether it is watched for gaps.
    pub force_positioning: Option<bool>,
    /// `force_recovery`: whether it may recover.
    pub force_recovery: Option<bool>,
}

/// The claims of either kind of token, as written. Claims that are not listed are ignored.
#[derive(Deserialize)]
pub(crate) struct RawClaims {
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    exp: Option<NumericDate>,
    #[serde(default)]
    nbf: Option<NumericDate>,
    /// Whatever it is: a token without one is as good.
    #[serde(default)]
    iat: Option<Box<RawValue>>,
    #[serde(default)]
    jti: Option<Box<RawValue>>,
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    aud: Option<Audience>,
    #[serde(default)]
    expire_at: Option<u64>,
    #[serde(default)]
    channels: Option<Vec<String>>,
    #[serde(default)]
    subs: Option<BTreeMap<String, RawSubscription>>,
    #[serde(default)]
    meta: Option<Box<RawValue>>,
    #[serde(default)]
    channel: Option<String>,
    #[serde(default)]
    client: Option<String>,
    #[serde(default)]
    info: Option<Box<RawValue>>,
    #[serde(default)]
    b64info: Option<String>,
    #[serde(default)]
    data: Option<Box<RawValue>>,
    #[serde(default)]
    b64data: Option<String>,
    #[serde(default, rename = "override")]
    overrides: Option<RawOverrides>,
    #[serde(default)]
    caps: Option<Vec<RawRule>>,
    #[serde(default)]
    allow: Option<Vec<String>>,
    #[serde(default)]
    server_tags_filter: Option<Box<RawValue>>,
    /// That of the token where it has no `jti`.
    #[serde(skip)]
    pub(crate) own_id: TokenId,
}

#[derive(Default, Deserialize)]
struct RawSubscription {
    #[serde(default)]
    info: Option<Box<RawValue>>,
    #[serde(default)]
    b64info: Option<String>,
    #[serde(default)]
    data: Option<Box<RawValue>>,
    #[serde(default)]
    b64data: Option<String>,
    #[serde(default, rename = "override")]
    overrides: Option<RawOverrides>,
    #[serde(default)]
    allow: Option<Vec<String>>,
    #[serde(default)]
    server_tags_filter: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
struct RawOverrides {
    #[serde(default)]
    presence: Option<RawOverride>,
    #[serde(default)]
    join_leave: Option<RawOverride>,
    #[serde(default)]
    force_push_join_leave: Option<RawOverride>,
    #[serde(default)]
    force_positioning: Option<RawOverride>,
    #[serde(default)]
    force_recovery: Option<RawOverride>,
}

#[derive(Deserialize)]
struct RawOverride {
    value: bool,
}

/// What `iss` or `aud` has to be.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    Text(String),
    Pattern(Pattern),
}

impl Expected {
    fn is(&self, text: &str) -> bool {
        match self {
            Self::Text(expected) => expected == text,
            Self::Pattern(pattern) => pattern.is_match(text),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    /// All that are named.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        let texts = match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        };
        texts.iter().map(String::as_str)
    }
}

/// Seconds since 1970, possibly with a fraction (RFC 7519 §2). Times before 1970 and beyond any
/// calendar are clamped: they are compared with the present, nothing else.
struct NumericDate(Duration);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        if let Some(seconds) = number.as_u64() {
            return Ok(Self(Duration::from_secs(seconds)));
        }
        let seconds = number
            .as_f64()
            .ok_or_else(|| D::Error::custom("expected a time in seconds since 1970"))?;
        let limit = if seconds < 0.0 {
            Duration::ZERO
        } else {
            Duration::MAX
        };
        Ok(Self(Duration::try_from_secs_f64(seconds).unwrap_or(limit)))
    }
}

impl RawClaims {
    pub(crate) fn from_json(json: &[u8]) -> Result<Self, InvalidToken> {
        let text = object(json)
            .ok_or_else(|| InvalidToken::Claims("expected a JSON object, in UTF-8".into()))?;
        serde_json::from_str(text).map_err(|error| {
            // The text may quote a value of the token; a log line has to end somewhere.
            let text = error.to_string();
            InvalidToken::Claims(text.chars().take(MAX_ERROR_CHARS).collect())
        })
    }

    /// Takes the user id from another claim than `sub`.
    pub(crate) fn take_user_from(&mut self, claim: &str, json: &[u8]) -> Result<(), InvalidToken> {
        let invalid = |problem: String| InvalidToken::Claims(problem);
        let claims: BTreeMap<String, &RawValue> =
            serde_json::from_slice(json).map_err(|error| invalid(error.to_string()))?;
        let user = claims
            .get(claim)
            .map(|user| serde_json::from_str(user.get()));
        let user = user.transpose();
        self.sub = user.map_err(|_| invalid(format!("`{claim}` is not a text")))?;
        Ok(())
    }

    pub(crate) fn check_issuer(&self, expected: Option<&Expected>) -> Result<(), InvalidToken> {
        let is_fine = |expected: &Expected| {
            let issuer = self.iss.as_deref();
            issuer.is_some_and(|issuer| expected.is(issuer))
        };
        if expected.is_none_or(is_fine) {
            Ok(())
        } else {
            Err(InvalidToken::Issuer)
        }
    }

    pub(crate) fn check_audience(&self, expected: Option<&Expected>) -> Result<(), InvalidToken> {
        let Some(expected) = expected else {
            return Ok(());
        };
        let mut named = self.aud.iter().flat_map(Audience::texts);
        if named.any(|one| expected.is(one)) {
            Ok(())
        } else {
            Err(InvalidToken::Audience)
        }
    }

    pub(crate) fn into_connect(
        self,
        now: Duration,
        leeway: Duration,
    ) -> Result<ConnectClaims, TokenError> {
        if self
            .channel
            .as_deref()
            .is_some_and(|channel| !channel.is_empty())
        {
            return Err(InvalidToken::UnexpectedChannel.into());
        }
        let (expire_at, mark) = (self.expiry(), self.mark());
        let valid = self.check_time(now, leeway);
        let mut subs = BTreeMap::new();
        for (channel, raw) in self.subs.unwrap_or_default() {
            subs.insert(channel, subscription_options(raw)?);
        }
        if subs.is_empty() {
            let channels = self.channels.unwrap_or_default().into_iter();
            subs = channels
                .map(|channel| (channel, SubscriptionOptions::default()))
                .collect();
        }
        let claims = ConnectClaims {
            user: self.sub.unwrap_or_default(),
            expire_at,
            info: payload(self.info, self.b64info, "b64info")?,
            subs,
            meta: self.meta.map(into_bytes),
            caps: self.caps.map(Capabilities::from_rules).transpose()?,
            mark,
        };
        valid.map(|()| claims)
    }

    pub(crate) fn into_subscribe(
        self,
        now: Duration,
        leeway: Duration,
    ) -> Result<SubscribeClaims, TokenError> {
        let (expire_at, mark) = (self.expiry(), self.mark());
        let valid = self.check_time(now, leeway);
        let channel = self.channel.filter(|channel| !channel.is_empty());
        let claims = SubscribeClaims {
            user: self.sub.unwrap_or_default(),
            channel: channel.ok_or(InvalidToken::MissingChannel)?,
            client: self.client.filter(|client| !client.is_empty()),
            expire_at,
            options: subscription_options(RawSubscription {
                info: self.info,
                b64info: self.b64info,
                data: self.data,
                b64data: self.b64data,
                overrides: self.overrides,
                allow: self.allow,
                server_tags_filter: self.server_tags_filter,
            })?,
            mark,
        };
        valid.map(|()| claims)
    }

    /// RFC 7519 §4.1.4 and §4.1.5: not *on or after* `exp`, not before `nbf`.
    fn check_time(&self, now: Duration, leeway: Duration) -> Result<(), TokenError> {
        let is_over = |exp: &NumericDate| now >= exp.0.saturating_add(leeway);
        let is_early = |nbf: &NumericDate| now.saturating_add(leeway) < nbf.0;
        if self.exp.as_ref().is_some_and(is_over) {
            return Err(TokenError::Expired);
        }
        if self.nbf.as_ref().is_some_and(is_early) {
            return Err(TokenError::NotYet);
        }
        Ok(())
    }

    /// Whether the token says itself what it is known by.
    pub(crate) fn has_id(&self) -> bool {
        self.jti.is_some()
    }

    /// `jti` is a text, and `iat` a number (RFC 7519, section 4.1). What is something else has never kept a token from being
    /// good: it counts as it stands, or as not there.
    fn mark(&self) -> TokenMark {
        let id = self.jti.as_ref().map_or(self.own_id, |jti| {
            let text = serde_json::from_str::<String>(jti.get());
            TokenId::of_jti(text.as_deref().unwrap_or(jti.get()))
        });
        let issued_at = self.iat.as_deref().and_then(time_of);
        TokenMark::new(id, issued_at.map(|iat| iat.as_secs()))
    }

    fn expiry(&self) -> Option<u64> {
        match (self.expire_at, &self.exp) {
            (Some(0), _) | (None, None) => None,
            (Some(at), _) => Some(at),
            (None, Some(exp)) => Some(exp.0.as_secs()),
        }
    }
}

/// The claim `iat` of a payload, where it is a number.
pub(crate) fn issued_at(payload: &[u8]) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Issued<'a> {
        #[serde(borrow)]
        iat: Option<&'a RawValue>,
    }
    let issued: Issued<'_> = serde_json::from_slice(payload).ok()?;
    issued.iat.and_then(time_of)
}

fn time_of(claim: &RawValue) -> Option<Duration> {
    let date = serde_json::from_str::<NumericDate>(claim.get());
    date.ok().map(|date| date.0)
}

fn subscription_options(raw: RawSubscription) -> Result<SubscriptionOptions, InvalidToken> {
    let overrides = raw.overrides.unwrap_or_default();
    let value = |raw: Option<RawOverride>| raw.map(|raw| raw.value);
    Ok(SubscriptionOptions {
        info: payload(raw.info, raw.b64info, "b64info")?,
        data: payload(raw.data, raw.b64data, "b64data")?,
        overrides: Overrides {
            presence: value(overrides.presence),
            join_leave: value(overrides.join_leave),
            force_push_join_leave: value(overrides.force_push_join_leave),
            force_positioning: value(overrides.force_positioning),
            force_recovery: value(overrides.force_recovery),
        },
        allow: Allowed::from_names(&raw.allow.unwrap_or_default()),
        tags_filter: raw.server_tags_filter.map(Into::into),
    })
}

/// A payload, from its base64 twin where that has one. Readers of JSON are shown it, too, so what
/// comes out of base64 has to be a JSON value: anything else would break every frame that it is
/// written into.
fn payload(
    json: Option<Box<RawValue>>,
    base64: Option<String>,
    claim: &str,
) -> Result<Option<Vec<u8>>, InvalidToken> {
    let Some(base64) = base64.filter(|text| !text.is_empty()) else {
        return Ok(json.map(into_bytes));
    };
    let bytes = STANDARD
        .decode(base64)
        .map_err(|_| InvalidToken::Claims(format!("`{claim}` is not standard base64")))?;
    serde_json::from_slice::<&RawValue>(&bytes)
        .map_err(|_| InvalidToken::Claims(format!("`{claim}` does not hold a JSON value")))?;
    Ok(Some(bytes))
}

fn into_bytes(json: Box<RawValue>) -> Vec<u8> {
    String::from(Box::<str>::from(json)).into_bytes()
}

/// The text of what is an object, if it is valid JSON at all. Asked first, because serde would also take a list for a
/// struct, its elements for the fields in the order of the declaration; and bytes that are no UTF-8 in the fields that
/// it passes over, where RFC 7515 §5.2 refuses them.
pub(crate) fn object(json: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(json).ok()?;
    text.trim_ascii_start().starts_with('{').then_some(text)
}

const MAX_ERROR_CHARS: usize = 160;

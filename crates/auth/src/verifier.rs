//! Decides whether to believe a token.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::algorithm::{Algorithm, Method};
use crate::claims::{self, ConnectClaims, Expected, RawClaims, SubscribeClaims, object};
use crate::error::{InvalidToken, KeyError, TokenError};
use crate::family::{Member, RemoteKeyFamily};
use crate::key::KeySet;
use crate::pattern::Pattern;
use crate::public_key::PublicKey;
use crate::remote::RemoteKeys;
use crate::revocation::TokenId;
use crate::secret::Secret;

/// Longest token that is looked at, in bytes. Anything longer is refused before any work is done
/// for it. Enough for some hundred server-side subscriptions.
pub const MAX_TOKEN_LEN: usize = 16 * 1024;

/// What a [`Verifier`] believes.
#[derive(Clone, Debug, Default)]
pub struct VerifierConfig {
    /// Secret for HS256, HS384 and HS512. Without any key, every token is invalid.
    pub hmac_secret: Option<Secret>,
    /// The secret before the last change of `hmac_secret`, so that tokens made with it still work.
    pub hmac_previous_secret: Option<Secret>,
    /// Unix time after which `hmac_previous_secret` is not tried any more; `None` for no end.
    pub hmac_previous_secret_valid_until: Option<Duration>,
    /// Keys for RS, PS, ES and EdDSA. Each of those that are for a token's algorithm is tried.
    pub public_keys: Vec<PublicKey>,
    /// By how much clocks may disagree: a token is believed for so much longer, and so much earlier.
    pub leeway: Duration,
    /// If set, `aud` must be this, or a list that has it.
    pub audience: Option<String>,
    /// If set, and `audience` isn't, it must be found in `aud`, or in one of the entries of its list.
    pub audience_regex: Option<Pattern>,
    /// If set, `iss` must be this.
    pub issuer: Option<String>,
    /// If set, and `issuer` isn't, it must be found in `iss`.
    pub issuer_regex: Option<Pattern>,
    /// The claim that has the user id, if that isn't `sub`.
    pub user_id_claim: Option<String>,
    /// Believes what tokens say, whoever made them: no signature is checked. For tests only.
    pub skip_signature: bool,
}

/// Verifies tokens. See the [crate's documentation](crate) for what is checked and in which order.
pub struct Verifier {
    keys: KeySet,
    remote: Option<Remote>,
    skip_signature: bool,
    leeway: Duration,
    audience: Option<Expected>,
    issuer: Option<Expected>,
    user_id_claim: Option<String>,
}

/// Whether keys that are missing are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fetch {
    Wanted,
    Never,
}

/// Where keys come from that are fetched.
enum Remote {
    One(Arc<RemoteKeys>),
    Many(Arc<RemoteKeyFamily>),
}

impl Verifier {
    /// Takes the keys.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if a key can't be used, such as an empty secret.
    pub fn new(config: VerifierConfig) -> Result<Self, KeyError> {
        Ok(Self {
            keys: KeySet::new(
                config.hmac_secret.as_ref(),
                config.hmac_previous_secret.as_ref(),
                config.hmac_previous_secret_valid_until,
                config.public_keys,
            )?,
            remote: None,
            skip_signature: config.skip_signature,
            leeway: config.leeway,
            audience: expected(config.audience, config.audience_regex),
            issuer: expected(config.issuer, config.issuer_regex),
            user_id_claim: config.user_id_claim,
        })
    }

    /// Believes the keys of a key set, too, for tokens that name one of them (`kid`).
    #[must_use]
    pub fn with_remote_keys(self, keys: Arc<RemoteKeys>) -> Self {
        Self {
            remote: Some(Remote::One(keys)),
            ..self
        }
    }

    /// The same for key sets of which issuer or audience of a token say which it is. Only tokens that name
    /// a key have one looked for.
    #[must_use]
    pub fn with_remote_key_family(self, family: Arc<RemoteKeyFamily>) -> Self {
        Self {
            remote: Some(Remote::Many(family)),
            ..self
        }
    }

    /// Verifies a connection token at `now_unix`, the time since 1970-01-01 UTC. An empty token is
    /// invalid; whether clients may come without one is the caller's question.
    ///
    /// # Errors
    ///
    /// [`TokenError::Invalid`] if the token can't be believed, [`TokenError::Expired`] or
    /// [`TokenError::NotYet`] if it could be at another time, [`TokenError::Unavailable`] if its key
    /// is being fetched.
    pub fn verify_connect(
        &self,
        token: &str,
        now_unix: Duration,
    ) -> Result<ConnectClaims, TokenError> {
        self.verified_claims(token, now_unix, Fetch::Wanted)?
            .into_connect(now_unix, self.leeway)
    }

    /// The same by the keys that are here: none is asked for, and a token of a key that isn't here is refused. For
    /// tokens of those who have sent too many bad ones.
    ///
    /// # Errors
    ///
    /// As [`verify_connect`](Self::verify_connect).
    pub fn recheck_connect(
        &self,
        token: &str,
        now_unix: Duration,
    ) -> Result<ConnectClaims, TokenError> {
        self.verified_claims(token, now_unix, Fetch::Never)?
            .into_connect(now_unix, self.leeway)
    }

    /// Verifies a subscription token at `now_unix`. That the token's user, channel and client are
    /// those of the subscription is left to the caller, who knows them.
    ///
    /// # Errors
    ///
    /// As [`verify_connect`](Self::verify_connect).
    pub fn verify_subscribe(
        &self,
        token: &str,
        now_unix: Duration,
    ) -> Result<SubscribeClaims, TokenError> {
        self.verified_claims(token, now_unix, Fetch::Wanted)?
            .into_subscribe(now_unix, self.leeway)
    }

    /// As [`recheck_connect`](Self::recheck_connect), for a subscription token.
    ///
    /// # Errors
    ///
    /// As [`verify_connect`](Self::verify_connect).
    pub fn recheck_subscribe(
        &self,
        token: &str,
        now_unix: Duration,
    ) -> Result<SubscribeClaims, TokenError> {
        self.verified_claims(token, now_unix, Fetch::Never)?
            .into_subscribe(now_unix, self.leeway)
    }

    /// The claims of a token that has the right signature, issuer and audience. The time is not
    /// checked yet. The signature is verified before the claims are parsed, so that a stranger's
    /// bytes reach as little code as possible; where issuer or audience choose the key, those two are read
    /// before.
    fn verified_claims(
        &self,
        token: &str,
        now: Duration,
        fetch: Fetch,
    ) -> Result<RawClaims, TokenError> {
        if token.len() > MAX_TOKEN_LEN {
            return Err(InvalidToken::TooLong {
                len: token.len(),
                max: MAX_TOKEN_LEN,
            }
            .into());
        }
        let not_three = InvalidToken::Encoding("expected three parts, joined by dots");
        let Some((message, signature)) = token.rsplit_once('.') else {
            return Err(not_three.into());
        };
        let Some((header, payload)) = message.split_once('.') else {
            return Err(not_three.into());
        };
        if payload.contains('.') {
            return Err(not_three.into());
        }

        let header = Header::decode(header)?;
        if !self.skip_signature {
            let signature = URL_SAFE_NO_PAD
                .decode(signature)
                .map_err(|_| InvalidToken::Signature)?;
            self.check_signature(&header, message, payload, &signature, (now, fetch))?;
        }
        let payload = decode_payload(payload)?;
        let mut claims = RawClaims::from_json(&payload)?;
        if let Some(claim) = &self.user_id_claim {
            claims.take_user_from(claim, &payload)?;
        }
        claims.check_issuer(self.issuer.as_ref())?;
        claims.check_audience(self.audience.as_ref())?;
        if !claims.has_id() {
            claims.own_id = TokenId::of_signed(message);
        }
        Ok(claims)
    }

    /// The key that the token names decides, if the key set has it; otherwise the keys which need no
    /// name.
    fn check_signature(
        &self,
        header: &Header,
        message: &str,
        payload: &str,
        signature: &[u8],
        (now, fetch): (Duration, Fetch),
    ) -> Result<(), TokenError> {
        let algorithm = header.algorithm()?;
        let message = message.as_bytes();
        let source = match algorithm.method() {
            Method::Public(_) => self.remote.as_ref(),
            // Nobody publishes secrets.
            Method::Hmac(_) => None,
        };
        let id = header.kid.as_deref();
        let member: Option<Arc<Member>> = match (source, id) {
            (Some(Remote::Many(family)), Some(_)) => {
                let claims = decode_payload(payload)?;
                Some(match fetch {
                    Fetch::Wanted => family.member(&claims, now)?,
                    Fetch::Never => family.known_member(&claims)?,
                })
            }
            _ => None,
        };
        let remote = match (source, &member) {
            (Some(Remote::One(keys)), _) => Some(keys),
            (_, member) => member.as_ref().map(|member| &member.keys),
        };
        if let (Some(remote), Some(id)) = (remote, id) {
            if fetch == Fetch::Wanted {
                remote.refresh(now);
            }
            if let Some(key) = remote.set().get(id) {
                return match key.verifies(algorithm, message, signature) {
                    true => {
                        if let Some(member) = member {
                            member.note_use(now);
                        }
                        Ok(())
                    }
                    false if key.is_for(algorithm) => Err(InvalidToken::Signature.into()),
                    false => Err(InvalidToken::KeyAlgorithm(algorithm.name()).into()),
                };
            }
        }
        let verified = self.keys.verify(algorithm, message, signature, now);
        match (verified, remote, id) {
            (Err(_), Some(remote), Some(_))
                if fetch == Fetch::Wanted && remote.want(now, issued_at(payload)) =>
            {
                Err(TokenError::Unavailable)
            }
            (Err(InvalidToken::NoKey(_)), Some(_), Some(_)) => Err(InvalidToken::UnknownKey.into()),
            (Err(InvalidToken::NoKey(_)), _, None) if source.is_some() => {
                Err(InvalidToken::NoKeyId.into())
            }
            (verified, _, _) => verified.map_err(TokenError::from),
        }
    }
}

/// When a token was issued (`iat`), by its own word, which nobody has vouched for yet.
fn issued_at(payload: &str) -> Option<Duration> {
    claims::issued_at(&decode_payload(payload).ok()?)
}

fn decode_payload(payload: &str) -> Result<Vec<u8>, InvalidToken> {
    URL_SAFE_NO_PAD
        .decode(payload)
        .map_err(|_| InvalidToken::Encoding("the payload is not base64url without padding"))
}

fn expected(text: Option<String>, pattern: Option<Pattern>) -> Option<Expected> {
    text.map(Expected::Text).or(pattern.map(Expected::Pattern))
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("audience", &self.audience)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

/// The parts of the JOSE header that matter; the rest is ignored, as RFC 7515 §4 wants it.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

impl Header {
    fn decode(part: &str) -> Result<Self, InvalidToken> {
        let json = URL_SAFE_NO_PAD
            .decode(part)
            .map_err(|_| InvalidToken::Encoding("the header is not base64url without padding"))?;
        object(&json)
            .and_then(|text| serde_json::from_str(text).ok())
            .ok_or(InvalidToken::Encoding(
                "the header is not a JSON object with an `alg`",
            ))
    }

    fn algorithm(&self) -> Result<Algorithm, InvalidToken> {
        if self.crit.is_some() {
            return Err(InvalidToken::CriticalHeader);
        }
        Algorithm::from_name(&self.alg)
    }
}

//! Tokens as an application's backend signs them, and the memory of when each expires.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tautline_hub::engine::testkit::Seeded;

use crate::support::{START, sign_claims};
use crate::{CHANNELS, SERVER_SIDE, TICKET, TOKEN_SUBSCRIBED};

/// Whoever signs tokens.
pub(crate) struct Mint {
    /// Whether tokens expire.
    expiry: bool,
    random: Seeded,
    /// When tokens expire, in seconds of Unix time.
    expiries: BTreeMap<String, u64>,
}

impl Mint {
    pub(crate) fn new(seed: u64, expiry: bool) -> Self {
        Self {
            expiry,
            random: Seeded::new(seed ^ 0x746f_6b65_6e73),
            expiries: BTreeMap::new(),
        }
    }

    /// A connection token.
    pub(crate) fn connection(&mut self, user: &str, now: Duration) -> String {
        let mut claims = json!({"sub": user});
        if user == TOKEN_SUBSCRIBED {
            claims["channels"] = json!([CHANNELS[SERVER_SIDE]]);
        }
        self.sign(claims, now)
    }

    /// A token for the channel that needs one.
    pub(crate) fn subscription(&mut self, user: &str, now: Duration) -> String {
        self.sign(json!({"sub": user, "channel": CHANNELS[TICKET]}), now)
    }

    /// Whether a token is over; none is if it never expires.
    pub(crate) fn is_over(&self, token: &Value, now: Duration) -> bool {
        let token = token.as_str().expect("a token");
        let expires = self.expiries.get(token);
        expires.is_some_and(|expires| START + now >= Duration::from_secs(*expires))
    }

    /// Now and then one that is over already: of the application's cache.
    fn sign(&mut self, mut claims: Value, now: Duration) -> String {
        if !self.expiry {
            return sign_claims(&claims);
        }
        let now = (START + now).as_secs();
        let expires = if self.random.chance(5) {
            now - 1
        } else {
            now + 2 + self.random.below(25) as u64
        };
        claims["exp"] = json!(expires);
        let token = sign_claims(&claims);
        self.expiries.insert(token.clone(), expires);
        token
    }
}

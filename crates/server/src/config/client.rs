//! The options of `[client]` that are the server's: the hub's table has the others.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IntoDeserializer as _;
use tautline_hub::config::duration;
use tautline_hub::rate::{self, Rate};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::uni::DisconnectTransforms;

/// What the server itself has to know of connections.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ConnectionOptions {
    /// Whose pages may connect: origins such as `https://app.example.com`, in which `*` stands for anything but
    /// `/`; `*` alone for any. Default: none, which means the server's own origin.
    pub allowed_origins: Vec<String>,
    /// The header field in which a proxy in front says who the user is that it has authenticated, such as
    /// `X-User-Id`: clients need no token then, and one that they have goes before. Only where everybody comes
    /// through that proxy, and it removes the field from what clients send: anybody else is whom they say. A
    /// request with two such fields has none. Default: empty, nobody is believed.
    pub user_id_http_header: String,
    /// Tokens are believed whoever made them: no signature is checked, so everybody can be anybody. Only for tests
    /// behind a closed door. Default: no.
    pub insecure_skip_token_signature_verify: bool,
    /// How many connections clients may have on this node, by whatever door: those that share one (HTTP/2, sessions of the
    /// doors of plain HTTP) count each; what is beyond gets 503. 0 for any number. Default: 1,000,000.
    pub connection_limit: usize,
    /// How many new ones this node takes; what is beyond gets 503. Default: `10000/s, burst 100000`, which is more than
    /// handshakes leave processors for.
    #[serde(deserialize_with = "rate::deserialize")]
    pub connection_rate_limit: Option<Rate>,
    /// How long what others publish may wait for more of its kind, so that it leaves in one write; at most 1s. Worth
    /// a try where many messages a second go to many clients each: there are fewer writes then. A client's own commands are answered at once all the same. Default: 0s, nothing waits.
    #[serde(deserialize_with = "duration::deserialize")]
    pub write_delay: Duration,
    /// How unidirectional connections end that come to nothing.
    pub connect_code_to_unidirectional_disconnect: DisconnectTransforms,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            allowed_origins: Vec::new(),
            user_id_http_header: String::new(),
            insecure_skip_token_signature_verify: false,
            connection_limit: 1_000_000,
            connection_rate_limit: Some(Rate::per_second(10_000).at_once(100_000)),
            write_delay: Duration::ZERO,
            connect_code_to_unidirectional_disconnect: DisconnectTransforms::default(),
        }
    }
}

impl ConnectionOptions {
    /// Their names.
    pub(super) const KEYS: [&str; 7] = [
        "allowed_origins",
        "user_id_http_header",
        "insecure_skip_token_signature_verify",
        "connection_limit",
        "connection_rate_limit",
        "write_delay",
        "connect_code_to_unidirectional_disconnect",
    ];

    /// Takes them out of the table.
    pub(super) fn take(client: Option<&mut DeTable<'_>>) -> Result<Self, toml::de::Error> {
        let Some(client) = client else {
            return Ok(Self::default());
        };
        let mut own = DeTable::new();
        for key in Self::KEYS {
            if let Some((key, value)) = client.remove_entry(key) {
                own.insert(key, value);
            }
        }
        let own = Spanned::new(0..0, DeValue::Table(own));
        Self::deserialize(own.into_deserializer())
    }
}

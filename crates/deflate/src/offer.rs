//! Negotiating the extension: the `Sec-WebSocket-Extensions` header of both sides (RFC 6455,
//! section 9.1; RFC 7692, sections 5 and 7.1).

use std::fmt;

use thiserror::Error;

//= rfc6455 9.1-3
const NAME: &str = "permessage-deflate";

/// How many extensions and parameters of a header are looked at; what comes behind is ignored.
const MAX_ELEMENTS: usize = 16;

/// What both sides agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Messages of the server stand for themselves.
    pub server_no_context_takeover: bool,
    /// Messages of the client stand for themselves.
    pub client_no_context_takeover: bool,
    /// The server's messages refer back at most `2^n` bytes.
    pub server_max_window_bits: u8,
    /// The client's messages refer back at most `2^n` bytes.
    pub client_max_window_bits: u8,
}

/// What a server wants of the extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Compress each message by itself, whatever the client would take.
    pub server_no_context_takeover: bool,
    /// Have clients compress each message by itself, so that nothing is kept for receiving.
    pub client_no_context_takeover: bool,
    /// Window for sending, 9 to 15.
    pub server_max_window_bits: u8,
    /// Window for receiving, 8 to 15: `2^n` bytes are kept for a connection whose client takes
    /// context over. A client that can't be told so (it didn't offer `client_max_window_bits`) is asked for no takeover,
    /// unless this is 15.
    pub client_max_window_bits: u8,
}

impl Default for ServerConfig {
    /// Context is taken over both ways, in windows of 32 KiB for sending and 1 KiB for receiving.
    fn default() -> Self {
        Self {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_max_window_bits: 15,
            //= rfc7692 7.3-1
            client_max_window_bits: 10,
        }
    }
}

/// What a client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Ask the server to compress each message by itself, so that nothing is kept for receiving.
    pub server_no_context_takeover: bool,
    /// Say that this client compresses each message by itself.
    pub client_no_context_takeover: bool,
    /// Ask for a window for receiving, 8 to 15; `None` leaves it to the server. Some gateways fail on seeing
    /// the parameter.
    pub server_max_window_bits: Option<u8>,
    /// Let the server choose the window for sending.
    pub offer_client_max_window_bits: bool,
}

impl Default for ClientConfig {
    /// `permessage-deflate; client_max_window_bits`, which is what browsers offer.
    fn default() -> Self {
        Self {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_max_window_bits: None,
            offer_client_max_window_bits: true,
        }
    }
}

/// Why a server's answer can't be accepted. The client has to fail the connection (RFC 7692,
/// section 7.1).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerError {
    /// An extension that was not offered, or the same one twice.
    #[error("the server's answer has an extension that was not offered, or one twice: {0:?}")]
    NotOffered(String),
    /// The header is not a list of extensions.
    #[error("the server's Sec-WebSocket-Extensions header is malformed")]
    Malformed,
    /// A parameter that isn't one, or with a value that it can't have.
    #[error("the server's answer has an unknown, repeated or invalid parameter: {0}")]
    InvalidParameter(String),
    /// The parameter goes against what was offered.
    #[error("the server's answer goes against the offer: {0}")]
    AgainstOffer(&'static str),
}

impl ServerConfig {
    /// The first of a client's offers that can be accepted. `headers` are the values of its
    /// `Sec-WebSocket-Extensions` headers, in order.
    ///
    /// `None` means: answer without the extension, which is always right.
    //= rfc7692 5-2, 5-4
    pub fn accept<'a>(&self, headers: impl IntoIterator<Item = &'a str>) -> Option<Agreement> {
        headers
            .into_iter()
            .flat_map(|header| split(header, ',').take(MAX_ELEMENTS))
            .filter_map(|offer| Parameters::parse(offer)?.ok())
            .find_map(|offer| self.accept_offer(&offer))
    }

    //= rfc6455 9-3, 9.1-4
    fn accept_offer(&self, offer: &Parameters) -> Option<Agreement> {
        let server_bits = match offer.server_max_window_bits {
            // In an offer the parameter has a value (section 7.1.2.1). A window of 8 is one that
            // compressors of zlib's family can't keep to.
            //= rfc7692 7-4, 7.1.2.1-3
            Some(None | Some(8)) => return None,
            Some(Some(bits)) => bits.min(self.server_max_window_bits),
            None => self.server_max_window_bits,
        };
        //= rfc7692 7.1.2.2-2, 7.1.2.2-3
        let (client_bits, can_say_so) = match offer.client_max_window_bits {
            Some(bits) => (bits.unwrap_or(15).min(self.client_max_window_bits), true),
            None => (15, self.client_max_window_bits == 15),
        };
        Some(Agreement {
            //= rfc7692 7.1.1.1-4
            server_no_context_takeover: self.server_no_context_takeover
                || offer.server_no_context_takeover,
            //= rfc7692 7.1.1.2-3
            client_no_context_takeover: self.client_no_context_takeover
                || offer.client_no_context_takeover
                || !can_say_so,
            server_max_window_bits: server_bits,
            client_max_window_bits: client_bits,
        })
    }
}

/// The value of the server's `Sec-WebSocket-Extensions` header.
impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)?;
        if self.server_no_context_takeover {
            f.write_str("; server_no_context_takeover")?;
        }
        if self.client_no_context_takeover {
            f.write_str("; client_no_context_takeover")?;
        }
        if self.server_max_window_bits < 15 {
            write!(
                f,
                "; server_max_window_bits={}",
                self.server_max_window_bits
            )?;
        }
        //= rfc7692 7.1.2.2-3
        // Below 15 only when the client offered to be told (section 7.1.2.2).
        if self.client_max_window_bits < 15 {
            write!(
                f,
                "; client_max_window_bits={}",
                self.client_max_window_bits
            )?;
        }
        Ok(())
    }
}

impl ClientConfig {
    /// Checks a server's answer, the values of its `Sec-WebSocket-Extensions` headers. `Ok(None)`
    /// when the server doesn't want the extension.
    ///
    /// # Errors
    ///
    /// [`AnswerError`]: the client has to fail the connection.
    pub fn check<'a>(
        &self,
        headers: impl IntoIterator<Item = &'a str>,
    ) -> Result<Option<Agreement>, AnswerError> {
        let mut agreed = None;
        for answer in headers
            .into_iter()
            .flat_map(|header| split(header, ',').take(MAX_ELEMENTS))
        {
            let answer = match Parameters::parse(answer) {
                Some(Ok(answer)) if agreed.is_none() => answer,
                //= rfc7692 7-5, 7-6, 7-7
                Some(Err(parameter)) => return Err(AnswerError::InvalidParameter(parameter)),
                //= rfc7692 5-3, 5-5
                _ => return Err(AnswerError::NotOffered(answer.trim().to_owned())),
            };
            agreed = Some(self.check_answer(&answer)?);
        }
        Ok(agreed)
    }

    //= rfc7692 7-8
    fn check_answer(&self, answer: &Parameters) -> Result<Agreement, AnswerError> {
        if self.server_no_context_takeover && !answer.server_no_context_takeover {
            return Err(AnswerError::AgainstOffer(
                "server_no_context_takeover was asked for and is missing",
            ));
        }
        let server_bits = match (answer.server_max_window_bits, self.server_max_window_bits) {
            (Some(None), _) => {
                return Err(AnswerError::AgainstOffer(
                    "server_max_window_bits has no value",
                ));
            }
            (None, Some(asked)) if asked < 15 => {
                return Err(AnswerError::AgainstOffer(
                    "server_max_window_bits was asked for and is missing",
                ));
            }
            (Some(Some(bits)), Some(asked)) if bits > asked => {
                return Err(AnswerError::AgainstOffer(
                    "server_max_window_bits is larger than asked for",
                ));
            }
            (Some(Some(bits)), _) => bits,
            (None, _) => 15,
        };
        let client_bits = match answer.client_max_window_bits {
            Some(_) if !self.offer_client_max_window_bits => {
                return Err(AnswerError::AgainstOffer(
                    "client_max_window_bits was not offered",
                ));
            }
            Some(None) => {
                return Err(AnswerError::AgainstOffer(
                    "client_max_window_bits has no value",
                ));
            }
            Some(Some(bits)) => bits,
            None => 15,
        };
        Ok(Agreement {
            server_no_context_takeover: answer.server_no_context_takeover,
            client_no_context_takeover: self.client_no_context_takeover
                || answer.client_no_context_takeover,
            server_max_window_bits: server_bits,
            client_max_window_bits: client_bits,
        })
    }
}

/// The value of the client's `Sec-WebSocket-Extensions` header.
impl fmt::Display for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)?;
        if self.server_no_context_takeover {
            f.write_str("; server_no_context_takeover")?;
        }
        if self.client_no_context_takeover {
            f.write_str("; client_no_context_takeover")?;
        }
        if let Some(bits) = self.server_max_window_bits {
            write!(f, "; server_max_window_bits={bits}")?;
        }
        if self.offer_client_max_window_bits {
            f.write_str("; client_max_window_bits")?;
        }
        Ok(())
    }
}

/// The parameters of one offer or answer, as they were written. The outer `Option` of a window says
/// whether the parameter is there, the inner one whether it has a value.
#[derive(Debug, Default)]
struct Parameters {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<Option<u8>>,
    client_max_window_bits: Option<Option<u8>>,
}

impl Parameters {
    /// `None` when the element is another extension; `Err` names a parameter that makes an offer
    /// one to be declined (section 7.1: unknown, repeated, or with an invalid value).
    //= rfc7692 7-1, 7-2, 7-3
    fn parse(element: &str) -> Option<Result<Self, String>> {
        let mut parts = split(element, ';').map(str::trim);
        // Extension names are tokens; the registered ones are compared as written.
        if parts.next() != Some(NAME) {
            return None;
        }
        let mut parameters = Self::default();
        for (count, part) in parts.enumerate() {
            if count >= MAX_ELEMENTS || parameters.set(part).is_none() {
                return Some(Err(part.to_owned()));
            }
        }
        Some(Ok(parameters))
    }

    fn set(&mut self, part: &str) -> Option<()> {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(unquote(value.trim_start())?)),
            None => (part, None),
        };
        match (name, value) {
            ("server_no_context_takeover", None) if !self.server_no_context_takeover => {
                self.server_no_context_takeover = true;
            }
            ("client_no_context_takeover", None) if !self.client_no_context_takeover => {
                self.client_no_context_takeover = true;
            }
            ("server_max_window_bits", value) if self.server_max_window_bits.is_none() => {
                self.server_max_window_bits = Some(window_bits(value)?);
            }
            ("client_max_window_bits", value) if self.client_max_window_bits.is_none() => {
                self.client_max_window_bits = Some(window_bits(value)?);
            }
            _ => return None,
        }
        Some(())
    }
}

/// The value of a window parameter, if it has one: a decimal number from 8 to 15 without leading
/// zeros. `None` when it is anything else.
//= rfc7692 7.1.2.1-1
fn window_bits(value: Option<&str>) -> Option<Option<u8>> {
    match value {
        None => Some(None),
        Some("8" | "9" | "10" | "11" | "12" | "13" | "14" | "15") => value?.parse().ok().map(Some),
        Some(_) => None,
    }
}

/// A parameter's value may be a quoted string, whose content must be a token (RFC 6455, section
/// 9.1). None of our tokens has a character that would be escaped.
fn unquote(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"'),
        None => Some(value),
    }
}

/// Splits at `separator`, but not inside quoted strings.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(config: ServerConfig, header: &str) -> Option<String> {
        config
            .accept([header])
            .map(|agreement| agreement.to_string())
    }

    //= rfc7692 5-2, 5-4, 7-1, 7-2, 7-3, 7-4, 7.1.1.1-2, 7.1.1.1-4, 7.1.2.1-1, 7.1.2.1-3
    #[test]
    fn a_server_answers_offers() {
        let open = ServerConfig {
            client_max_window_bits: 15,
            ..ServerConfig::default()
        };
        for (offer, answer) in [
            ("permessage-deflate", Some("permessage-deflate")),
            (
                "permessage-deflate; client_max_window_bits",
                Some("permessage-deflate"),
            ),
            (
                "permessage-deflate; client_max_window_bits=12",
                Some("permessage-deflate; client_max_window_bits=12"),
            ),
            (
                "permessage-deflate;server_max_window_bits=10",
                Some("permessage-deflate; server_max_window_bits=10"),
            ),
            (
                "permessage-deflate; server_max_window_bits=\"10\"",
                Some("permessage-deflate; server_max_window_bits=10"),
            ),
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
                Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
            ),
            // The first that can be accepted wins; an offer with anything wrong in it can't.
            (
                "x-webkit-deflate-frame, permessage-deflate",
                Some("permessage-deflate"),
            ),
            (
                "permessage-deflate; server_max_window_bits=8, permessage-deflate",
                Some("permessage-deflate"),
            ),
            (
                "permessage-deflate; unknown, permessage-deflate; server_no_context_takeover",
                Some("permessage-deflate; server_no_context_takeover"),
            ),
            ("permessage-deflate; server_max_window_bits", None),
            ("permessage-deflate; server_max_window_bits=16", None),
            ("permessage-deflate; server_max_window_bits=7", None),
            ("permessage-deflate; server_max_window_bits=010", None),
            ("permessage-deflate; server_max_window_bits=\"10", None),
            ("permessage-deflate; server_no_context_takeover=1", None),
            (
                "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
                None,
            ),
            (
                "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
                None,
            ),
            ("permessage-deflate;", None),
            ("", None),
            (",,;,=", None),
        ] {
            assert_eq!(accept(open, offer).as_deref(), answer, "{offer}");
        }
    }

    //= rfc7692 7.1.2.2-2, 7.1.2.2-3
    #[test]
    fn a_server_that_wants_a_small_window_asks_for_it_or_for_no_takeover() {
        let config = ServerConfig {
            client_max_window_bits: 10,
            ..ServerConfig::default()
        };
        assert_eq!(
            accept(config, "permessage-deflate; client_max_window_bits").as_deref(),
            Some("permessage-deflate; client_max_window_bits=10")
        );
        assert_eq!(
            accept(config, "permessage-deflate; client_max_window_bits=9").as_deref(),
            Some("permessage-deflate; client_max_window_bits=9")
        );
        // Section 7.1.2.2: without the offer the answer must not have the parameter.
        assert_eq!(
            accept(config, "permessage-deflate").as_deref(),
            Some("permessage-deflate; client_no_context_takeover")
        );
    }

    //= rfc7692 5-3, 5-5, 7-5, 7-6, 7-7, 7-8, 7.1.1.2-3
    #[test]
    fn a_client_checks_answers() {
        let browser = ClientConfig::default();
        assert_eq!(
            browser.to_string(),
            "permessage-deflate; client_max_window_bits"
        );
        assert_eq!(browser.check([]), Ok(None));
        let agreed = browser
            .check(["permessage-deflate; client_max_window_bits=11; server_no_context_takeover"])
            .unwrap()
            .unwrap();
        assert_eq!(
            (agreed.client_max_window_bits, agreed.server_max_window_bits),
            (11, 15)
        );
        assert!(agreed.server_no_context_takeover && !agreed.client_no_context_takeover);
        for wrong in [
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; client_max_window_bits=17",
            "permessage-deflate; what",
            "permessage-deflate, permessage-deflate",
            "x-other",
            "",
        ] {
            assert!(browser.check([wrong]).is_err(), "{wrong}");
        }
        let strict = ClientConfig {
            server_no_context_takeover: true,
            server_max_window_bits: Some(10),
            offer_client_max_window_bits: false,
            ..ClientConfig::default()
        };
        assert_eq!(
            strict.to_string(),
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=10"
        );
        assert!(
            strict
                .check(["permessage-deflate; server_no_context_takeover; server_max_window_bits=9"])
                .is_ok()
        );
        for wrong in [
            "permessage-deflate; server_max_window_bits=10",
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=11",
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=10; client_max_window_bits=10",
        ] {
            assert!(strict.check([wrong]).is_err(), "{wrong}");
        }
    }
}

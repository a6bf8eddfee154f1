//! Why a client with no SDK gets nothing, in the words of HTTP and of WebSockets.

use http::header::HeaderValue;
use http::{StatusCode, header};
use tautline_protocol::Disconnect;

use super::super::entry::Refused;
use crate::http::respond;

/// What a command was answered with, or a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The protocol's: errors from 100, ends of connections from 3000.
    pub(crate) code: u32,
    pub(crate) message: String,
}

/// Seconds after which what is temporary may be over.
const RETRY_AFTER: &str = "1";

/// The codes with which a WebSocket is closed for an error begin behind this.
const ERRORS_FROM: u32 = 4000;

impl Refusal {
    pub(crate) fn new(code: u32, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    /// As the end of the connection.
    pub(crate) fn to_disconnect(&self) -> Disconnect {
        let is_end = self.code >= 3000;
        Disconnect {
            code: if is_end {
                self.code
            } else {
                ERRORS_FROM + self.code
            },
            reason: self.message.clone().into(),
        }
    }

    fn status(&self) -> StatusCode {
        match self.code {
            101 | 109 | 110 | 3005 | 3500 | 3501 => StatusCode::UNAUTHORIZED,
            103 | 3503 | 3507 => StatusCode::FORBIDDEN,
            102 | 104 => StatusCode::NOT_FOUND,
            105..=108 | 3505 | 3508 => StatusCode::BAD_REQUEST,
            112 => StatusCode::GONE,
            111 | 3013 | 3504 => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// As the answer to a request.
    pub(crate) fn to_response(&self) -> Refused {
        let status = self.status();
        let hint = match status {
            StatusCode::UNAUTHORIZED => {
                "A token is needed: as ?token=…, as `Authorization: Bearer …`, or in the cookie \
                 tautline_token.\n"
            }
            StatusCode::SERVICE_UNAVAILABLE => "Try again later.\n",
            _ => "",
        };
        let body = format!("{} ({})\n{hint}", self.message, self.code);
        let mut response = respond::text(status, body);
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110, section 15.5.2: what would help has to be told.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.into()
    }
}

impl From<&Disconnect> for Refusal {
    fn from(disconnect: &Disconnect) -> Self {
        // Who sends no token where one is needed breaks the protocol, as SDKs see it.
        let message = match disconnect.code {
            3501 => "the server lets nobody in without a token",
            _ => &*disconnect.reason,
        };
        Self::new(disconnect.code, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_statuses_and_close_codes() {
        for (code, status, close) in [
            (103, 403, 4103),
            (102, 404, 4102),
            (109, 401, 4109),
            (111, 429, 4111),
            (112, 410, 4112),
            (100, 503, 4100),
            (3500, 401, 3500),
            (3001, 503, 3001),
        ] {
            let refusal = Refusal::new(code, "why");
            assert_eq!(refusal.to_response().status().as_u16(), status, "{code}");
            assert_eq!(refusal.to_disconnect().code, close, "{code}");
        }
    }
}

//! In development, only answer to the names of the loopback interface.
//!
//! The development server needs no secret, because only the machine's own programs reach it. A
//! browser is such a program, and may be running a stranger's page: one from `evil.example`, whose
//! DNS then says that `evil.example` is 127.0.0.1 (DNS rebinding), is of the same origin as this
//! server in the browser's eyes. It gives itself away by the name in `Host`.

use std::net::Ipv4Addr;

use http::{HeaderMap, StatusCode, header};
use thiserror::Error;

use super::origin::split_port;

/// Checks that every `Host` header of a request is a name of the loopback interface. A request
/// without any is from no browser, and passes.
///
/// # Errors
///
/// [`HostRefusal`], whose text is made to be the body of the answer.
pub fn check_loopback_host(headers: &HeaderMap) -> Result<(), HostRefusal> {
    check_loopback_host_values(
        headers
            .get_all(header::HOST)
            .iter()
            .map(http::HeaderValue::as_bytes),
    )
}

/// [`check_loopback_host`] for a door with its own head parser: all values of `Host`.
///
/// # Errors
///
/// As [`check_loopback_host`].
pub fn check_loopback_host_values<'a>(
    hosts: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(), HostRefusal> {
    for host in hosts {
        if !std::str::from_utf8(host).is_ok_and(is_loopback) {
            let shown = String::from_utf8_lossy(host);
            let shown = shown
                .chars()
                .take(MAX_SHOWN_CHARS)
                .flat_map(char::escape_debug)
                .collect();
            return Err(HostRefusal { host: shown });
        }
    }
    Ok(())
}

/// The answer to a request for a host that this server is not.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "The development server answers on this machine only.\n\
     came:     Host: {host}\n\
     expected: localhost, 127.0.0.1 or [::1]\n\
     for more: `tautline serve` serves other hosts, with keys and tokens of your own.\n"
)]
pub struct HostRefusal {
    host: String,
}

impl HostRefusal {
    /// The status to answer with: the request was meant for somebody else (RFC 9110 §15.5.20).
    pub const STATUS: StatusCode = StatusCode::MISDIRECTED_REQUEST;
}

fn is_loopback(host: &str) -> bool {
    let (name, _port) = split_port(host);
    name.eq_ignore_ascii_case("localhost")
        || name == "[::1]"
        || name
            .parse::<Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
}

const MAX_SHOWN_CHARS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_pass() {
        for (host, allowed) in [
            ("localhost", true),
            ("LocalHost:8000", true),
            ("127.0.0.1:8000", true),
            ("127.1.2.3", true),
            ("[::1]:8000", true),
            ("[::1]", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:8000", false),
            ("evil.example:127.0.0.1", false),
            ("128.0.0.1", false),
            ("0.0.0.0:8000", false),
            ("192.168.1.2:8000", false),
            ("[::2]:8000", false),
            ("[::ffff:127.0.0.1]", false),
            ("", false),
            (":8000", false),
        ] {
            let result = check_loopback_host_values([host.as_bytes()]);
            assert_eq!(result.is_ok(), allowed, "{host}");
        }
        assert_eq!(check_loopback_host_values([]), Ok(()));
        assert!(check_loopback_host_values([&b"localhost"[..], b"evil.example"]).is_err());
        assert!(check_loopback_host_values([&b"localhost\xff"[..]]).is_err());
    }

    #[test]
    fn the_refusal_says_what_to_do() {
        let refusal = check_loopback_host_values([&b"evil.example"[..]]).unwrap_err();
        let text = refusal.to_string();
        assert!(
            text.contains("Host: evil.example") && text.contains("tautline serve"),
            "{text}"
        );
    }
}

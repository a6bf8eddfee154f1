//! Which address a client has: that of its connection, unless a proxy in front that is trusted says otherwise.
//!
//! A proxy says it by the PROXY protocol ([`crate::proxy_protocol`]) for a connection, or by a field of the header for
//! a request: `X-Forwarded-For`, or `Forwarded` (RFC 7239). Anybody can write such a field, so it counts only as far as
//! it was written by proxies that are trusted: it is read from its end, which the nearest proxy has written, to
//! the first address that is none of theirs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderMap, HeaderValue};
use serde::Deserialize;

use crate::http::fields::fields;
use crate::network::Networks;

/// The field in which proxies tell the addresses that a request came by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`: addresses, with commas between.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239): what its `for=` says.
    Forwarded,
}

impl ForwardedHeader {
    fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }
}

/// Whom the server believes where an address is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// The proxies in front.
    pub proxies: Networks,
    /// What they say it by.
    pub header: ForwardedHeader,
}

/// How it is known whom a request is from: what `tautline doctor` asks for, who can't see it from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Seen {
    /// By its connection: no proxy has said anything.
    Direct,
    /// By what a trusted proxy has said.
    Believed,
    /// A proxy has said it that isn't trusted.
    NotTrusted,
    /// A trusted proxy hasn't said it.
    NotTold,
    /// By what the client itself has written, which no proxy should have left to be the last word.
    Forged,
    /// The same, with a trusted proxy's address behind it: either who asks is that himself, or what is in front of a proxy
    /// leaves it to clients what they say.
    ForgedBehindTrusted,
}

impl Seen {
    /// For the doctor.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Believed => "believed",
            Self::NotTrusted => "not-trusted",
            Self::NotTold => "not-told",
            Self::Forged => "forged",
            Self::ForgedBehindTrusted => "forged-behind-trusted",
        }
    }
}

/// What the doctor writes where a proxy would: an address that nobody has (RFC 5737).
pub(crate) const FORGED: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 113));

impl Trust {
    /// Whether a connection is from a proxy that is trusted.
    pub(crate) fn has(&self, connection: IpAddr) -> bool {
        self.proxies.contains(connection.to_canonical())
    }

    /// How it is known whom a request is from.
    pub(crate) fn seen(&self, connection: IpAddr, headers: &HeaderMap) -> Seen {
        let is_told = ["x-forwarded-for", "forwarded"].map(|name| headers.contains_key(name));
        if !self.proxies.contains(connection.to_canonical()) {
            return match is_told {
                [false, false] => Seen::Direct,
                _ => Seen::NotTrusted,
            };
        }
        if self.client(connection, fields(headers)) == FORGED {
            let mut values = headers.get_all(self.header.name()).iter();
            let last = values.next_back().map(HeaderValue::as_bytes);
            let last = last.and_then(|list| last_element(list, self.header).1);
            return match last.and_then(|element| self.header.address(element)) {
                Some(FORGED) => Seen::Forged,
                _ => Seen::ForgedBehindTrusted,
            };
        }
        if headers.contains_key(self.header.name()) {
            Seen::Believed
        } else {
            Seen::NotTold
        }
    }

    /// Where a request came from, over a connection from `connection`. `fields` are those of its header.
    pub fn client<'a>(
        &self,
        connection: IpAddr,
        fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> IpAddr {
        let connection = connection.to_canonical();
        if !self.proxies.contains(connection) {
            return connection;
        }
        let name = self.header.name();
        let fields = fields.filter(|(found, _)| found.eq_ignore_ascii_case(name));
        let values: Vec<_> = fields.map(|(_, value)| value).collect();
        let mut client = connection;
        for value in values.into_iter().rev() {
            let mut rest = value;
            loop {
                let (before, element) = last_element(rest, self.header);
                let Some(address) = element.and_then(|element| self.header.address(element)) else {
                    // Nobody knows what was before that.
                    return client;
                };
                client = address;
                if !self.proxies.contains(address) {
                    return client;
                }
                match before {
                    Some(before) => rest = before,
                    None => break,
                }
            }
        }
        client
    }
}

impl ForwardedHeader {
    /// The address that an element of the list tells.
    fn address(self, element: &[u8]) -> Option<IpAddr> {
        let element = std::str::from_utf8(element).ok()?.trim();
        let node = match self {
            Self::XForwardedFor => element,
            Self::Forwarded => {
                let mut pairs = element.split(';');
                let is_for = |pair: &&str| {
                    let name = pair.split('=').next().unwrap_or_default();
                    name.trim().eq_ignore_ascii_case("for")
                };
                let pair = pairs.find(is_for)?;
                // RFC 7239, section 4: each once.
                if pairs.any(|pair| is_for(&pair)) {
                    return None;
                }
                pair.split_once('=')?.1.trim()
            }
        };
        let node = match node.strip_prefix('"') {
            Some(node) => node.strip_suffix('"')?,
            None => node,
        };
        node_address(node)
    }
}

/// An address, with a port or without. One of IPv6 is in brackets where there is a port, and may be elsewhere.
fn node_address(node: &str) -> Option<IpAddr> {
    let address = if let Some(rest) = node.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let is_port = port.is_empty() || port.starts_with(':');
        if !is_port || !address.contains(':') {
            return None;
        }
        address
    } else if node.matches(':').count() == 1 {
        node.split_once(':')?.0
    } else {
        node
    };
    address
        .parse()
        .ok()
        .map(|address: IpAddr| address.to_canonical())
}

/// The last element of a list, and what is before its comma. It is looked for from the end, so that what a client
/// has written in front can't change how that is read which a proxy has added. `None` for an element that has a backslash:
/// no address needs one, and with one it can't be told from behind where a quoted text begins.
fn last_element(list: &[u8], header: ForwardedHeader) -> (Option<&[u8]>, Option<&[u8]>) {
    let mut is_quoted = false;
    for (index, byte) in list.iter().enumerate().rev() {
        match byte {
            b'"' if header == ForwardedHeader::Forwarded => is_quoted = !is_quoted,
            b'\\' if header == ForwardedHeader::Forwarded => return (None, None),
            b',' if !is_quoted => return (Some(&list[..index]), Some(&list[index + 1..])),
            _ => {}
        }
    }
    (None, (!is_quoted).then_some(list))
}

/// Where a connection comes from, in the form in which addresses are compared.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROXIES: [&str; 2] = ["10.0.0.0/8", "fd00::/8"];

    fn client(header: ForwardedHeader, from: &str, fields: &[&str]) -> String {
        let trust = Trust {
            proxies: Networks::parse(&PROXIES).unwrap(),
            header,
        };
        let name = match header {
            ForwardedHeader::XForwardedFor => "X-Forwarded-For",
            ForwardedHeader::Forwarded => "FORWARDED",
        };
        let fields = fields.iter().map(|value| (name, value.as_bytes()));
        trust.client(from.parse().unwrap(), fields).to_string()
    }

    #[test]
    fn the_last_address_that_is_no_proxys_is_the_clients() {
        for (from, fields, expected) in [
            // Whom nobody trusts is where the connection is from.
            ("192.0.2.1", &["198.51.100.9"][..], "192.0.2.1"),
            ("10.0.0.1", &["198.51.100.9"], "198.51.100.9"),
            ("::ffff:10.0.0.1", &["198.51.100.9"], "198.51.100.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            // What the client has written itself is before what the proxy has.
            ("10.0.0.1", &["203.0.113.66, 198.51.100.9"], "198.51.100.9"),
            (
                "10.0.0.1",
                &["203.0.113.66", "198.51.100.9"],
                "198.51.100.9",
            ),
            ("10.0.0.1", &["nonsense\", 198.51.100.9"], "198.51.100.9"),
            // A chain of proxies.
            (
                "10.0.0.1",
                &["203.0.113.66, 198.51.100.9, 10.0.0.2"],
                "198.51.100.9",
            ),
            (
                "10.0.0.1",
                &["198.51.100.9, 10.0.0.3", "fd00::2"],
                "198.51.100.9",
            ),
            ("10.0.0.1", &["10.0.0.7, 10.0.0.2"], "10.0.0.7"),
            // Behind what can't be read nothing counts.
            ("10.0.0.1", &["198.51.100.9, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["198.51.100.9,"], "10.0.0.1"),
            // With ports, as some proxies have it.
            ("10.0.0.1", &["198.51.100.9:4711"], "198.51.100.9"),
            ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["::ffff:198.51.100.9"], "198.51.100.9"),
        ] {
            let found = client(ForwardedHeader::XForwardedFor, from, fields);
            assert_eq!(found, expected, "{fields:?} from {from}");
        }
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_has_it() {
        for (fields, expected) in [
            (&["for=198.51.100.9"][..], "198.51.100.9"),
            (
                &["For=\"198.51.100.9:80\";proto=https;by=10.0.0.1"],
                "198.51.100.9",
            ),
            (&["proto=http; for=\"[2001:db8::17]:4711\""], "2001:db8::17"),
            (
                &["for=203.0.113.66, for=198.51.100.9, for=10.0.0.2"],
                "198.51.100.9",
            ),
            (&["for=203.0.113.66", "for=198.51.100.9"], "198.51.100.9"),
            (&["for=\"_hidden\""], "10.0.0.1"),
            (&["for=unknown"], "10.0.0.1"),
            (&["proto=https"], "10.0.0.1"),
            (&["for=198.51.100.9;for=198.51.100.10"], "10.0.0.1"),
            (
                &["for=203.0.113.66;host=\"a,b\", for=198.51.100.9;host=\"c,d\""],
                "198.51.100.9",
            ),
            // What a proxy repeats of the client's can't pass for an element: better no address than that one.
            (
                &["for=198.51.100.9;host=\"\\\", for=203.0.113.66;x=\\\"\""],
                "10.0.0.1",
            ),
            // A quoted text that a client left open doesn't swallow what a proxy has added.
            (&["for=\"203.0.113.66, for=198.51.100.9"], "198.51.100.9"),
            (&["for=\"x\\\", for=198.51.100.9"], "198.51.100.9"),
            (&["for=\"198.51.100.9\\\""], "10.0.0.1"),
        ] {
            let found = client(ForwardedHeader::Forwarded, "10.0.0.1", fields);
            assert_eq!(found, expected, "{fields:?}");
        }
    }

    #[test]
    fn the_doctor_is_told_how_it_is_known() {
        let trust = Trust {
            proxies: Networks::parse(&PROXIES).unwrap(),
            header: ForwardedHeader::XForwardedFor,
        };
        for (from, name, value, expected) in [
            ("192.0.2.1", "", "", Seen::Direct),
            (
                "192.0.2.1",
                "x-forwarded-for",
                "198.51.100.9",
                Seen::NotTrusted,
            ),
            (
                "192.0.2.1",
                "forwarded",
                "for=198.51.100.9",
                Seen::NotTrusted,
            ),
            ("10.0.0.1", "", "", Seen::NotTold),
            // It says so by what isn't read.
            ("10.0.0.1", "forwarded", "for=198.51.100.9", Seen::NotTold),
            (
                "10.0.0.1",
                "x-forwarded-for",
                "198.51.100.9",
                Seen::Believed,
            ),
            (
                "10.0.0.1",
                "x-forwarded-for",
                "192.0.2.113, 198.51.100.9",
                Seen::Believed,
            ),
            ("10.0.0.1", "x-forwarded-for", "192.0.2.113", Seen::Forged),
            (
                "10.0.0.1",
                "x-forwarded-for",
                "192.0.2.113, 10.0.0.2",
                Seen::ForgedBehindTrusted,
            ),
        ] {
            let mut headers = HeaderMap::new();
            if !name.is_empty() {
                headers.insert(name, value.parse().unwrap());
            }
            let seen = trust.seen(from.parse().unwrap(), &headers);
            assert_eq!(seen, expected, "{value:?} from {from}");
        }
    }

    proptest! {
        /// Whatever a client writes in front, what the proxy adds is what counts.
        #[test]
        fn nothing_in_front_changes_what_a_proxy_has_added(forged in "[ -~]{0,60}", split: bool) {
            for (header, own) in [
                (ForwardedHeader::XForwardedFor, "198.51.100.9"),
                (ForwardedHeader::Forwarded, "for=198.51.100.9"),
                (ForwardedHeader::Forwarded, "for=\"198.51.100.9:80\""),
            ] {
                let joined = format!("{forged}, {own}");
                let fields: &[&str] = if split { &[&forged, own] } else { &[&joined] };
                prop_assert_eq!(client(header, "10.0.0.1", fields), "198.51.100.9");
            }
        }
    }
}

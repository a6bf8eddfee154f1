//! Whom a request is from; and that it comes through a proxy whom nobody trusts, which the operator should know: the limits
//! by address don't tell the clients behind it apart.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Admission, Rules};

/// What came through proxies whom nobody trusts.
#[derive(Debug, Default)]
pub(super) struct UnknownProxies {
    requests: AtomicU64,
    /// When it was last told of in the log.
    told: Mutex<Option<Duration>>,
}

impl Admission {
    /// Whom a request is from that came over a connection from `peer`, with these fields in its header.
    pub(crate) fn client_address<'a>(
        &self,
        peer: IpAddr,
        mut fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> IpAddr {
        let rules = self.rules();
        let peer = peer.to_canonical();
        if rules.trust.proxies.contains(peer) {
            return rules.trust.client(peer, fields);
        }
        if is_near(peer) && fields.any(|(name, _)| is_forwarded(name)) {
            self.note_unknown_proxy(self.now(), peer, &rules);
        }
        peer
    }

    /// How many requests came through proxies whom nobody trusts.
    pub(crate) fn unknown_proxy_requests(&self) -> u64 {
        self.unknown_proxies.requests.load(Ordering::Relaxed)
    }

    fn note_unknown_proxy(&self, now: Duration, proxy: IpAddr, rules: &Rules) {
        let UnknownProxies { requests, told } = &self.unknown_proxies;
        requests.fetch_add(1, Ordering::Relaxed);
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|last| now.saturating_sub(last) < TELL_AGAIN) {
            return;
        }
        *told = Some(now);
        let what = if rules.address.is_exempt(proxy) {
            "limits.address is for none of its clients"
        } else {
            "all of its clients together have the limits of one address"
        };
        tracing::warn!(
            target: "tautline::limits",
            "requests come through a proxy at {proxy} that is not in http_server.trusted_proxies: {what}"
        );
    }
}

/// Whether a proxy in front could have this address: one of this machine, or of a private network.
fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            // 100.64.0.0/10 (RFC 6598): pods of some clouds.
            let [first, second, ..] = address.octets();
            let is_shared = first == 100 && second & 0xC0 == 64;
            address.is_loopback() || address.is_private() || is_shared
        }
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local(),
    }
}

/// Whether proxies say by this field whom a request is from.
fn is_forwarded(name: &str) -> bool {
    name.eq_ignore_ascii_case("x-forwarded-for") || name.eq_ignore_ascii_case("forwarded")
}

/// At most one such request in that time is told of in the log.
const TELL_AGAIN: Duration = Duration::from_secs(60);

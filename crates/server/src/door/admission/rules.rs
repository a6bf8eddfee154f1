//! What the operator allows: what of the options decides who may come in.

use std::net::IpAddr;
use std::time::Duration;

use tautline_hub::rate::Rate;

use crate::client_address::Trust;
use crate::network::Networks;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rules {
    /// Who is believed to know addresses.
    pub(crate) trust: Trust,
    /// Connections from proxies that are trusted begin with the PROXY protocol.
    pub(crate) proxy_protocol: bool,
    /// Nobody is refused for want of room on the node, but counted.
    pub(crate) dry_run: bool,
    /// Connections that are open, whatever they are for; 0 for what there are descriptors for.
    pub(crate) sockets: usize,
    /// Clients on this node, by whatever door; 0 for any number.
    pub(crate) clients: usize,
    /// How many come; `None` for as many as there are.
    pub(crate) new_clients: Option<Rate>,
    /// Sessions whose messages leave in the bodies of HTTP responses.
    pub(crate) http_sessions: usize,
    pub(crate) address: AddressRules,
    pub(crate) memory: MemoryRules,
}

/// What may come from an address.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AddressRules {
    /// Whom neither these are for, nor the ceiling of memory.
    pub(crate) exempt: Networks,
    pub(crate) exempt_loopback: bool,
    /// Nobody is refused, but counted and told.
    pub(crate) dry_run: bool,
    /// 0 for any number.
    pub(crate) connections: usize,
    /// 0 for any number.
    pub(crate) handshakes: usize,
    pub(crate) connects: Option<Rate>,
    pub(crate) requests: Option<Rate>,
    pub(crate) failures: Option<Rate>,
    pub(crate) max_addresses: usize,
}

impl AddressRules {
    /// Whether an address is one of those that none of it is for.
    pub(crate) fn is_exempt(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        (self.exempt_loopback && address.is_loopback()) || self.exempt.contains(address)
    }
}

/// For how much there is memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MemoryRules {
    /// Bytes; `None` for no ceiling.
    pub(crate) ceiling: Option<u64>,
    /// Nobody is refused, but counted and told.
    pub(crate) dry_run: bool,
    pub(crate) check_interval: Duration,
}

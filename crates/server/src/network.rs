//! Networks of IP addresses, as operators write them: `10.0.0.0/8`, `2001:db8::/32`, or one address.

use std::net::IpAddr;

use thiserror::Error;

/// Some networks; an address may be in one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    /// The bits of its addresses that are the same, the others are 0.
    first: u128,
    mask: u128,
    is_v6: bool,
}

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{0}` is no network: expected an IP address, with `/` and the length of the prefix behind it if it is for many, \
     such as 10.0.0.0/8 or 2001:db8::/32"
)]
pub struct NetworkError(String);

impl Networks {
    /// Reads a list.
    ///
    /// # Errors
    ///
    /// For the first that is no network, such as one with bits behind its prefix: that is a mistake more
    /// often than not.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, NetworkError> {
        let parse = |text: &T| {
            let text = text.as_ref();
            network(text).ok_or_else(|| NetworkError(text.chars().take(60).collect()))
        };
        texts.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Whether an address is in one of them. An IPv4 address that is written as one of IPv6 (`::ffff:a.b.c.d`) is
    /// the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (bits, is_v6) = bits(address.to_canonical());
        let mut networks = self.0.iter();
        networks.any(|network| network.is_v6 == is_v6 && bits & network.mask == network.first)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn network(text: &str) -> Option<Network> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let (first, is_v6) = bits(address);
    let width: u32 = if is_v6 { 128 } else { 32 };
    let prefix = match prefix {
        Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => prefix.parse().ok()?,
        Some(_) => return None,
        None => width,
    };
    let host_bits = width.checked_sub(prefix)?;
    let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
    (first & mask == first).then_some(Network { first, mask, is_v6 })
}

fn bits(address: IpAddr) -> (u128, bool) {
    match address {
        IpAddr::V4(address) => (u32::from(address).into(), false),
        IpAddr::V6(address) => (address.into(), true),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        let networks = Networks::parse(&[network]).expect(network);
        networks.contains(address.parse().expect(address))
    }

    #[test]
    fn an_address_is_in_its_networks() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "a00::1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "1.2.3.4", false),
            ("2001:db8::/32", "2001:db8:ffff::", true),
            ("2001:db8::/32", "2001:db9::", false),
        ] {
            assert_eq!(
                contains(network, address),
                expected,
                "{address} in {network}"
            );
        }
    }

    #[test]
    fn anything_else_is_no_network() {
        for text in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.1/8",
            "::/129",
            "localhost",
            "10.0.0.0/8/8",
            "10.0.0",
            "[::1]",
        ] {
            let error = Networks::parse(&[text]).expect_err(text).to_string();
            assert!(error.contains("10.0.0.0/8"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_prefix_is_what_a_naive_comparison_says(
            address: u128, other: u128, same in 0_u32..=128, prefix in 0_u32..=128,
        ) {
            // Mostly addresses with something in common.
            let mask = u128::MAX.checked_shl(128 - same).unwrap_or(0);
            let other = address & mask | other & !mask;
            let first = address & u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            let first = std::net::Ipv6Addr::from(first);
            let other = std::net::Ipv6Addr::from(other);
            prop_assume!(other.to_ipv4_mapped().is_none());
            let networks = Networks::parse(&[format!("{first}/{prefix}")]).unwrap();
            let bit = |address: std::net::Ipv6Addr, index: u32| u128::from(address) >> (127 - index) & 1;
            let expected = (0..prefix).all(|index| bit(first, index) == bit(other, index));
            prop_assert_eq!(networks.contains(other.into()), expected);
        }
    }
}

//! From where calls may come.

use std::net::IpAddr;
use std::sync::Arc;

/// From where calls may come: addresses that are in every list. No list: everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Origins(Arc<[Arc<[Network]>]>);

/// A range of addresses, as in `10.0.0.0/8`; a single address is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    address: u128,
    /// Bits that count, of 128.
    prefix: u8,
}

// === impl Origins ===

impl Origins {
    /// What several lists of networks allow together; empty lists say nothing, and what is no network nobody is in.
    pub fn lists<'a>(lists: impl IntoIterator<Item = &'a [String]>) -> Self {
        let said = lists.into_iter().filter(|list| !list.is_empty());
        Self(said.map(|list| list.iter().filter_map(|text| Network::parse(text)).collect()).collect())
    }

    /// Whether everybody may call, from wherever.
    pub fn everywhere(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether calls may come from an address.
    pub fn hold(&self, address: IpAddr) -> bool {
        self.0.iter().all(|list| list.iter().any(|network| network.holds(address)))
    }
}

// === impl Network ===

impl Network {
    /// Reads `10.0.0.0/8`, `2001:db8::/32` or a single address. Bits beyond the prefix must be zero.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address.parse::<IpAddr>().ok()?, Some(bits.parse::<u8>().ok()?)),
            None => (text.parse::<IpAddr>().ok()?, None),
        };
        let (whole, ahead) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        let bits = bits.unwrap_or(whole);
        if bits > whole {
            return None;
        }
        let network = Self { address: wide(address), prefix: ahead + bits };
        (network.address & !network.mask() == 0).then_some(network)
    }

    /// Whether an address lies in it. An IPv4 address written as IPv6 is the IPv4 address.
    pub fn holds(self, address: IpAddr) -> bool {
        wide(address.to_canonical()) & self.mask() == self.address
    }

    const fn mask(self) -> u128 {
        if self.prefix == 0 { 0 } else { u128::MAX << (128 - self.prefix) }
    }
}

/// As a number of 128 bits, IPv4 in its place within IPv6.
fn wide(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(four) => u128::from(four.to_ipv6_mapped()),
        IpAddr::V6(six) => u128::from(six),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_comes_from_where_every_list_lets_it() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (office, host) = (list(&["10.0.0.0/8"]), list(&["10.0.0.7", "192.0.2.1"]));
        let origins = Origins::lists([&office[..], &host[..]]);
        assert!(origins.hold("10.0.0.7".parse().unwrap()) && !origins.hold("192.0.2.1".parse().unwrap()));
        assert!(!origins.everywhere() && Origins::lists([&[][..]]).everywhere());
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        let check = |network: &str, address: &str| Network::parse(network).unwrap().holds(address.parse().unwrap());
        assert!(check("10.0.0.0/8", "10.1.2.3") && check("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(!check("10.0.0.0/8", "11.0.0.0") && !check("10.0.0.0/8", "::1"));
        assert!(check("192.0.2.7", "192.0.2.7") && !check("192.0.2.7", "192.0.2.8"));
        assert!(check("2001:db8::/32", "2001:db8:1::1") && !check("2001:db8::/32", "2001:db9::"));
        assert!(check("0.0.0.0/0", "203.0.113.9") && !check("0.0.0.0/0", "2001:db8::1"));
        assert!(check("::/0", "203.0.113.9"), "every address");
        for text in ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "::/129", "10.0.0/8", "x"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}

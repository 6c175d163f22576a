//! `ip_filter`: who may come in at all, by address.
//!
//! Which addresses a tenant or a key may call from stands with them and is judged when they are known; this gate is for
//! everybody, and before anything is spent on a request.

use std::net::IpAddr;

use kernel::error::Kind as ErrorKind;
use kernel::settings::Findings;
use kernel::{Error, Kind, Network, Origin, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Entry, Passed, Row, Work};

pub(super) const KIND: Kind<Row> = Kind {
    name: "ip_filter",
    about: "Refuses requests from addresses that `ip_filter` does not let in, with 403.",
    build: Row { work: Work::Head(pass), after: &[] },
};

/// Who may come in, by address. The address is that of the connection, or where that is a trusted peer's, the one it
/// names last in `x-forwarded-for`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IpFilterSettings {
    /// Only these may, as in `10.0.0.0/8`. Default: everybody.
    pub allow: Vec<String>,
    /// These may not, even if they are allowed.
    pub deny: Vec<String>,
}

/// The same, read.
#[derive(Debug, Default)]
pub struct IpFilter {
    allow: Vec<Network>,
    deny: Vec<Network>,
}

impl IpFilterSettings {
    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        for (name, list) in [("allow", &self.allow), ("deny", &self.deny)] {
            networks(list, &format!("{path}.{name}"), findings);
        }
    }
}

/// Finds what is no network.
pub fn networks(list: &[String], path: &str, findings: &mut Findings) {
    for (i, text) in list.iter().enumerate() {
        let message = "must be an address or a range of them, as in 10.0.0.0/8, with zeros behind the prefix";
        findings.require(Network::parse(text).is_some(), format!("{path}[{i}]"), message);
    }
}

impl IpFilter {
    /// The filter of validated settings.
    pub fn new(settings: &IpFilterSettings) -> Self {
        let read = |list: &[String]| list.iter().filter_map(|text| Network::parse(text)).collect();
        Self { allow: read(&settings.allow), deny: read(&settings.deny) }
    }

    /// Whether an address may come in.
    fn lets_in(&self, address: IpAddr) -> bool {
        let among = |list: &[Network]| list.iter().any(|network| network.holds(address));
        !among(&self.deny) && (self.allow.is_empty() || among(&self.allow))
    }
}

fn pass<'a>(entry: &mut Entry<'a>) -> Result<Passed<'a>> {
    let filter = &entry.machine.ip_filter;
    // Where the address is not known, nobody could be told from those who are denied.
    let open = filter.allow.is_empty() && filter.deny.is_empty();
    if open || entry.visit.address.is_some_and(|address| filter.lets_in(address)) {
        return Ok(Passed::On);
    }
    Err(Error::new(ErrorKind::Forbidden, Origin::Caller, "Requests from this address are not let in."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_denied_stay_out_even_if_they_are_allowed() {
        let settings = IpFilterSettings { allow: vec!["10.0.0.0/8".into()], deny: vec!["10.9.0.0/16".into()] };
        let filter = IpFilter::new(&settings);
        let check = |address: &str| filter.lets_in(address.parse().unwrap());
        assert!(check("10.1.1.1") && check("::ffff:10.1.1.1"));
        assert!(!check("10.9.1.1") && !check("192.0.2.1") && !check("::1"));
        let nobody = IpFilter::new(&IpFilterSettings { allow: vec![], deny: vec!["0.0.0.0/0".into()] });
        assert!(!nobody.lets_in("192.0.2.1".parse().unwrap()) && nobody.lets_in("2001:db8::1".parse().unwrap()));
    }
}

//! A host and a port.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Format;

const WORDS: &str = "an address such as 127.0.0.1:8080, localhost:8080 or [::1]:8080";

pub(super) const FORMAT: Format =
    Format { name: "address", words: WORDS, check: |text| text.parse::<Address>().map(|_| ()) };

/// A host, by name or by number, and a port: `0.0.0.0:8080`, `localhost:8080`, `[::1]:8080`.
///
/// Names are kept as they are; whoever listens or connects looks them up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

// === impl Address ===

impl Address {
    /// The host's name or number, an IPv6 number without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether only this machine can reach it. A name other than `localhost` is not looked up: no.
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(number) => number.to_canonical().is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let refuse = || format!("expected {WORDS}");
        let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(number) => number.parse::<IpAddr>().ok().filter(IpAddr::is_ipv6).map(|_| number),
            None => Some(host).filter(|host| is_name(host)),
        };
        // `parse` alone would take "+80".
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse().ok().filter(|_| digits);
        let (Some(host), Some(port)) = (host, port) else {
            return Err(refuse());
        };
        let host = host.to_owned();
        Ok(Address { host, port })
    }
}

fn is_name(host: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !host.is_empty() && host.chars().all(part)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Address {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": FORMAT.name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_and_nothing_else() {
        let cases = [
            ("0.0.0.0:8080", "0.0.0.0", 8080, false),
            ("127.0.0.1:0", "127.0.0.1", 0, true),
            ("LocalHost:80", "LocalHost", 80, true),
            ("[::1]:8090", "::1", 8090, true),
            ("[::ffff:127.0.0.1]:1", "::ffff:127.0.0.1", 1, true),
            ("[::]:1", "::", 1, false),
            ("gw_1.example.com:65535", "gw_1.example.com", 65535, false),
        ];
        for (text, host, port, loopback) in cases {
            let address: Address = text.parse().expect(text);
            assert_eq!((address.host(), address.port()), (host, port));
            assert_eq!(address.is_loopback(), loopback, "{text}");
            assert_eq!(address.to_string(), text);
        }
        let wrong =
            ["", "8080", ":8080", "a:", "a:65536", "a:+1", "::1:80", "[a]:1", "[1.2.3.4]:1", "a b:1", "http://a:1"];
        for text in wrong {
            assert_eq!(text.parse::<Address>(), Err(format!("expected {WORDS}")), "{text}");
        }
    }
}

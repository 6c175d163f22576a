//! What a tenant is promised and what it costs, in the words of configs, stores and bills alike.

use std::net::IpAddr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::Findings;
use crate::{Currency, ModelName, Money};

/// How much may be asked for per time. What is not set is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests per second; a burst of one second's worth is let through at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rps: Option<u32>,
    /// Requests per minute; a burst of one minute's worth is let through at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpm: Option<u32>,
    /// Tokens per minute, read and generated together; a burst of one minute's worth is let through at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpm: Option<u64>,
    /// Calls at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
}

/// Limits for calls to some models.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelLimits {
    /// Which: a name, or with `*` at its end all names that begin so. Each model has counters of its own.
    pub model: String,
    /// How much.
    #[serde(default)]
    pub limits: Limits,
}

/// How much may be spent per period.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// The most that may be spent, in the plan's currency.
    pub limit: Money,
    /// After which it starts anew; periods are those of the calendar, in UTC.
    pub per: Period,
    /// Whether calls are refused with 402, and streams cut off, once it is spent. A soft one only tells.
    #[serde(default = "yes")]
    pub hard: bool,
    /// Whose spending counts.
    #[serde(default)]
    pub scope: BudgetScope,
    /// Only calls to these models count: names, or with `*` at the end all names that begin so. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
}

/// A span of the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// From the first to the last of a month.
    Month,
    /// For ever.
    Total,
}

/// Whose spending a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BudgetScope {
    /// The tenant's as a whole.
    #[default]
    Tenant,
    /// Each of its keys on its own.
    Key,
}

/// How calls are charged. Nothing set: by the token, at the catalogue's prices.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Billing {
    /// In which currency; prices are taken from the catalogue in this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    /// For each answered call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_call: Option<Money>,
    /// Whether the catalogue's prices are charged. Default: yes, unless `per_call` or `monthly` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_token: Option<bool>,
    /// What the catalogue's prices are multiplied by, in percent: `120` adds a fifth. At most 100000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub markup_percent: Option<u32>,
    /// A monthly fee with tokens included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monthly: Option<Monthly>,
    /// Whether calls are paid from a balance that was paid in before: without any left, calls are refused with 402.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub prepaid: bool,
    /// What an answer from the cache costs, in percent of what the model would have. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_percent: Option<u32>,
}

/// A monthly fee, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Monthly {
    /// For each calendar month that a subscription touches, by the day.
    pub fee: Money,
    /// Tokens that cost nothing more, read and generated together.
    #[serde(default)]
    pub included_tokens: u64,
    /// For each thousand beyond them; default: the catalogue's prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overage_per_1k_tokens: Option<Money>,
}

/// What a model costs from some day on. What is not set costs nothing, but for the classes that say otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// The model: a name, or with `*` at its end all names that begin so. A whole name goes before a beginning, a longer
    /// beginning before a shorter one.
    pub model: String,
    /// From which day on, at midnight UTC, as in `2026-01-01`. The latest that has begun is in force.
    pub from: String,
    /// In which currency.
    #[serde(default)]
    pub currency: Currency,
    /// For a million tokens read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_per_1m_tokens: Option<Money>,
    /// For a million tokens read that the backend had in its cache. Default: as any other read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input_per_1m_tokens: Option<Money>,
    /// For a million tokens written to the backend's cache. Default: as any other read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_per_1m_tokens: Option<Money>,
    /// For a million tokens generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_per_1m_tokens: Option<Money>,
    /// For a million tokens the model spent thinking. Default: as any other generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_per_1m_tokens: Option<Money>,
    /// For a million tokens of sound read. Default: as any other read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_input_per_1m_tokens: Option<Money>,
    /// For a million tokens of sound generated. Default: as any other generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_output_per_1m_tokens: Option<Money>,
    /// For each image generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_image: Option<Money>,
    /// For each answered call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_call: Option<Money>,
    /// For each second of each GPU that the instance has: its node's share as in `needs.gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_gpu_second: Option<Money>,
}

/// What is made of requests before they are passed on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Preprocess {
    /// Fields that are set where a request does not have them, with their values.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub defaults: serde_json::Map<String, serde_json::Value>,
    /// The most tokens an answer may have: a request that asks for more, or does not say, asks for this many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Put before the messages of every chat, as one of the role `system`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
    /// The fields a request may have, beside those every one needs (`model`, `messages`, `prompt`, `input`, `stream`,
    /// `stream_options`). Default: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// What becomes of other fields.
    #[serde(skip_serializing_if = "OtherFields::is_default")]
    pub other_fields: OtherFields,
}

/// What becomes of fields a request may not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OtherFields {
    /// The request is refused with 400, naming the field.
    #[default]
    Refuse,
    /// They are taken out.
    Drop,
}

/// What a credential may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Calling models.
    Inference,
    /// Reading the tenant's usage and invoices.
    Usage,
    /// Managing the tenant's keys.
    Admin,
}

/// How a caller shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// An API key.
    ApiKey,
    /// A signed token of an issuer the tenant trusts.
    Jwt,
    /// A token that its issuer is asked about.
    Oauth2,
    /// A certificate shown on the connection.
    Mtls,
    /// A signature over the request, made with a key's secret.
    Signature,
}

/// Which models may be called: those that every list names. No list: all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Allow(Arc<[Arc<[Box<str>]>]>);

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

/// Fields every request may have: they say where it goes and what it is about.
pub const ROUTING: [&str; 6] = ["model", "messages", "prompt", "input", "stream", "stream_options"];

/// Bound: a thousand times the catalogue's price.
const MARKUP_MAX: u32 = 100_000;

const fn yes() -> bool {
    true
}

/// Whether a name is what a pattern means: the name itself, or with `*` at its end its beginning.
pub fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |beginning| name.starts_with(beginning))
}

// === impl Limits ===

impl Limits {
    /// Whether anything is limited.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    /// These where they say something, else `others`.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            rps: self.rps.or(others.rps),
            rpm: self.rpm.or(others.rpm),
            tpm: self.tpm.or(others.tpm),
            concurrency: self.concurrency.or(others.concurrency),
        }
    }

    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        let zero = [
            ("rps", self.rps == Some(0)),
            ("rpm", self.rpm == Some(0)),
            ("tpm", self.tpm == Some(0)),
            ("concurrency", self.concurrency == Some(0)),
        ];
        for (name, zero) in zero {
            let message = "must be at least 1: leave it out for no limit, or suspend the tenant";
            findings.require(!zero, format!("{path}.{name}"), message);
        }
    }
}

// === impl Budget ===

impl Budget {
    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        findings.require(self.limit >= Money::ZERO, format!("{path}.limit"), "must not be less than 0");
    }

    /// Whether spending on a model counts.
    pub fn counts(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|pattern| matches(pattern, model))
    }
}

// === impl Billing ===

impl Billing {
    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        let mut amount = |name: &str, money: Option<Money>| {
            let fits = money.is_none_or(|money| money >= Money::ZERO);
            findings.require(fits, format!("{path}.{name}"), "must not be less than 0");
        };
        amount("per_call", self.per_call);
        let monthly = self.monthly.as_ref();
        amount("monthly.fee", monthly.map(|monthly| monthly.fee));
        amount("monthly.overage_per_1k_tokens", monthly.and_then(|monthly| monthly.overage_per_1k_tokens));
        if let Some(overage) = monthly.and_then(|monthly| monthly.overage_per_1k_tokens) {
            let path = format!("{path}.monthly.overage_per_1k_tokens");
            findings.require(overage.per(1000).is_some(), path, "has more than 9 decimals");
        }
        let fits = self.markup_percent.is_none_or(|percent| percent <= MARKUP_MAX);
        findings.require(fits, format!("{path}.markup_percent"), format!("must be at most {MARKUP_MAX}"));
        let fits = self.cache_percent.is_none_or(|percent| percent <= 100);
        findings.require(fits, format!("{path}.cache_percent"), "must be at most 100");
    }

    /// In which currency.
    pub fn currency(&self) -> Currency {
        self.currency.unwrap_or_default()
    }

    /// Whether the catalogue's prices are charged.
    pub fn by_token(&self) -> bool {
        self.per_token.unwrap_or(self.per_call.is_none() && self.monthly.is_none())
    }
}

// === impl Preprocess ===

impl Preprocess {
    /// Whether it does anything.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    /// What the schema cannot say.
    pub fn validate(&self, path: &str, findings: &mut Findings) {
        let fits = self.max_tokens != Some(0);
        findings.require(fits, format!("{path}.max_tokens"), "must be at least 1");
        for name in self.defaults.keys().filter(|name| ROUTING.contains(&name.as_str())) {
            let message = "cannot have a default: it says where a request goes, or what it is about";
            findings.add(format!("{path}.defaults.{name}"), message);
        }
    }
}

impl OtherFields {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

// === impl Scope ===

impl Scope {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Inference, Self::Usage, Self::Admin];

    /// The word used in configs and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Usage => "usage",
            Self::Admin => "admin",
        }
    }
}

// === impl CredentialKind ===

impl CredentialKind {
    /// The word used in configs and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Jwt => "jwt",
            Self::Oauth2 => "oauth2",
            Self::Mtls => "mtls",
            Self::Signature => "signature",
        }
    }
}

// === impl Allow ===

impl Allow {
    /// What several lists of patterns allow together; empty lists say nothing.
    pub fn lists<'a>(lists: impl IntoIterator<Item = &'a [String]>) -> Self {
        let said = lists.into_iter().filter(|list| !list.is_empty());
        Self(said.map(|list| list.iter().map(|pattern| pattern.as_str().into()).collect()).collect())
    }

    /// Whether a model may be called.
    pub fn allows(&self, model: &ModelName) -> bool {
        self.0.iter().all(|list| list.iter().any(|pattern| matches(pattern, model.as_str())))
    }
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
    fn a_pattern_is_a_name_or_a_beginning() {
        assert!(matches("gpt-4o", "gpt-4o") && matches("gpt-*", "gpt-4o") && matches("*", "x"));
        assert!(!matches("gpt-4", "gpt-4o") && !matches("gpt-*", "gp") && !matches("", "x"));
    }

    #[test]
    fn what_is_allowed_stands_in_every_list() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (plan, key) = (list(&["gpt-*", "llama"]), list(&["gpt-4o"]));
        let both = Allow::lists([&plan[..], &[], &key[..]]);
        let check = |name: &str| both.allows(&ModelName::new(name));
        assert!(check("gpt-4o") && !check("llama") && !check("gpt-5"));
        assert!(Allow::lists([]).allows(&ModelName::new("x")) && Allow::default().allows(&ModelName::new("x")));
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

//! Which price is in force: for a model, in a currency, at a time.
//!
//! A catalogue is built whole from prices of the config and the store and published as a snapshot; a call looks its price
//! up once, when it begins, and is rated by it however it ends. Prices never change and have ids made of what they say,
//! so that a bill can be reproduced from its ids.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use kernel::settings::Findings;
use kernel::{Currency, Money, Price, Timestamp};

use crate::rating::Rates;

/// One price with what is worked out of it once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: Arc<str>,
    /// The price.
    pub price: Price,
    /// From when on it is in force.
    pub from: Timestamp,
    /// What it makes of one of each.
    pub rates: Rates,
}

/// All prices, as one immutable snapshot.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// By whole name, the latest first.
    names: HashMap<Box<str>, Vec<Arc<Listed>>>,
    /// By beginning, the longest first; of each the latest first.
    beginnings: Vec<(Box<str>, Vec<Arc<Listed>>)>,
}

/// Tokens that prices are given for.
const PER: u64 = 1_000_000;
/// Bound: longer names no model has.
const MODEL_MAX: usize = 256;

// === impl Catalogue ===

impl Catalogue {
    /// The catalogue of validated prices. What cannot be read is left out.
    pub fn new(prices: impl IntoIterator<Item = Price>) -> Self {
        let mut catalogue = Self::default();
        let mut beginnings: HashMap<Box<str>, Vec<Arc<Listed>>> = HashMap::new();
        for price in prices {
            let Some(from) = midnight(&price.from) else { continue };
            let listed = Arc::new(Listed { id: id(&price).into(), from, rates: Rates::of(&price), price });
            match listed.price.model.strip_suffix('*') {
                Some(beginning) => beginnings.entry(beginning.into()).or_default().push(listed),
                None => catalogue.names.entry(listed.price.model.as_str().into()).or_default().push(listed),
            }
        }
        catalogue.beginnings = beginnings.into_iter().collect();
        catalogue.beginnings.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        let lists = catalogue.names.values_mut().chain(catalogue.beginnings.iter_mut().map(|(_, list)| list));
        for list in lists {
            // Where two begin at the same time, the same one wins on every node.
            list.sort_by(|a, b| b.from.cmp(&a.from).then_with(|| a.id.cmp(&b.id)));
        }
        catalogue
    }

    /// The price in force; `None` where the model has none in this currency yet.
    pub fn find(&self, model: &str, currency: Currency, at: Timestamp) -> Option<&Arc<Listed>> {
        let begun = |list: &'_ [Arc<Listed>]| {
            list.iter().position(|listed| listed.price.currency == currency && listed.from <= at)
        };
        if let Some(list) = self.names.get(model)
            && let Some(found) = begun(list).and_then(|nth| list.get(nth))
        {
            return Some(found);
        }
        let fitting = self.beginnings.iter().filter(|(beginning, _)| model.starts_with(&**beginning));
        fitting.into_iter().find_map(|(_, list)| begun(list).and_then(|nth| list.get(nth)))
    }

    /// Every price.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Listed>> {
        self.names.values().chain(self.beginnings.iter().map(|(_, list)| list)).flatten()
    }
}

/// The id of a price: 16 hexadecimal digits of the BLAKE3 hash of its JSON, in which amounts and fields have one form.
pub fn id(price: &Price) -> String {
    let json = serde_json::to_vec(price).unwrap_or_default();
    blake3::hash(&json).to_hex().chars().take(16).collect()
}

/// What the schema cannot say about a price.
pub fn validate(price: &Price, path: &str, findings: &mut Findings) {
    let name = price.model.strip_suffix('*').unwrap_or(&price.model);
    let fits = !price.model.is_empty() && !name.contains('*') && price.model.len() <= MODEL_MAX;
    findings.require(fits, format!("{path}.model"), "must be a name, or the beginning of one with `*` at its end");
    findings.require(
        midnight(&price.from).is_some(),
        format!("{path}.from"),
        format!("`{}` is no day: write it as 2026-01-31", price.from),
    );
    let mut check = |key: &str, amount: Option<Money>, whole: u64, advice: &str| {
        let Some(amount) = amount else { return };
        let path = format!("{path}.{key}");
        findings.require(amount >= Money::ZERO, path.clone(), "must not be below zero");
        findings.require(amount.per(whole).is_some(), path, advice);
    };
    let tokens = "has too many decimals: a price for a million tokens can have six, so that one token costs a whole number \
                  of millionths of a millionth";
    check("input_per_1m_tokens", price.input_per_1m_tokens, PER, tokens);
    check("cached_input_per_1m_tokens", price.cached_input_per_1m_tokens, PER, tokens);
    check("cache_write_per_1m_tokens", price.cache_write_per_1m_tokens, PER, tokens);
    check("output_per_1m_tokens", price.output_per_1m_tokens, PER, tokens);
    check("reasoning_per_1m_tokens", price.reasoning_per_1m_tokens, PER, tokens);
    check("audio_input_per_1m_tokens", price.audio_input_per_1m_tokens, PER, tokens);
    check("audio_output_per_1m_tokens", price.audio_output_per_1m_tokens, PER, tokens);
    check("per_image", price.per_image, 1, "");
    check("per_call", price.per_call, 1, "");
    let seconds = "has too many decimals: a price for a second can have nine, so that a millisecond has a whole price";
    check("per_gpu_second", price.per_gpu_second, 1000, seconds);
}

/// Midnight UTC of a day written as `2026-01-31`.
fn midnight(day: &str) -> Option<Timestamp> {
    // The parser takes more forms; a price has one, so that its id does.
    let date = (day.len() == 10).then(|| day.parse::<Date>().ok()).flatten()?;
    Some(Timestamp(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(json: &str) -> Price {
        serde_json::from_str(json).unwrap()
    }

    fn catalogue() -> Catalogue {
        Catalogue::new(
            [
                r#"{"model":"*","from":"2020-01-01","per_call":"1"}"#,
                r#"{"model":"gpt-*","from":"2020-01-01","per_call":"2"}"#,
                r#"{"model":"gpt-4*","from":"2020-01-01","per_call":"3"}"#,
                r#"{"model":"gpt-4o","from":"2026-01-01","per_call":"4"}"#,
                r#"{"model":"gpt-4o","from":"2026-03-01","per_call":"5"}"#,
                r#"{"model":"gpt-4o","from":"2026-02-01","currency":"eur","per_call":"6"}"#,
            ]
            .map(price),
        )
    }

    #[test]
    fn a_whole_name_goes_before_a_beginning_and_the_latest_that_has_begun_is_in_force() {
        let catalogue = catalogue();
        let check = |model: &str, code: &str, day: &str, expected: Option<&str>| {
            let found = catalogue.find(model, Currency::parse(code).unwrap(), midnight(day).unwrap());
            let cost = found.map(|listed| listed.price.per_call.unwrap().to_string());
            assert_eq!(cost.as_deref(), expected, "{model} {code} {day}");
        };
        check("gpt-4o", "usd", "2026-02-28", Some("4"));
        check("gpt-4o", "usd", "2026-03-01", Some("5"));
        check("gpt-4o", "usd", "2025-12-31", Some("3"));
        check("gpt-4o", "eur", "2026-02-01", Some("6"));
        check("gpt-4o", "eur", "2026-01-31", None);
        check("gpt-4o-mini", "usd", "2026-03-01", Some("3"));
        check("gpt-3", "usd", "2026-03-01", Some("2"));
        check("llama", "usd", "2026-03-01", Some("1"));
        check("llama", "usd", "2019-12-31", None);
    }

    #[test]
    fn the_same_price_has_the_same_id_however_it_is_written() {
        let a = price(r#"{"model":"m","from":"2026-01-01","input_per_1m_tokens":"0.60"}"#);
        let b = price(r#"{"input_per_1m_tokens":"0.6","currency":"USD","model":"m","from":"2026-01-01"}"#);
        assert_eq!(id(&a), id(&b));
        assert!(id(&a).len() == 16 && id(&a).bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(id(&a), id(&price(r#"{"model":"m","from":"2026-01-01","input_per_1m_tokens":"0.61"}"#)));
    }

    #[test]
    fn a_price_that_could_not_be_charged_exactly_is_refused() {
        let check = |json: &str, expected: &[&str]| {
            let mut findings = Findings::default();
            validate(&price(json), "p", &mut findings);
            let paths: Vec<_> = findings.0.iter().map(|finding| finding.path.as_str()).collect();
            assert_eq!(paths, expected, "{json}");
        };
        check(
            r#"{"model":"m","from":"2026-01-01","input_per_1m_tokens":"0.000001","per_gpu_second":"0.000000001"}"#,
            &[],
        );
        check(r#"{"model":"m","from":"2026-01-01","input_per_1m_tokens":"0.0000001"}"#, &["p.input_per_1m_tokens"]);
        check(r#"{"model":"m","from":"2026-01-01","per_gpu_second":"0.0000000001"}"#, &["p.per_gpu_second"]);
        check(r#"{"model":"m","from":"2026-02-30","per_call":"-1"}"#, &["p.from", "p.per_call"]);
        check(r#"{"model":"","from":"20260101"}"#, &["p.model", "p.from"]);
        check(r#"{"model":"a*b","from":"2026-01-01T00"}"#, &["p.model", "p.from"]);
    }
}

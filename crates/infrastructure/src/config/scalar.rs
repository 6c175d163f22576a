//! What a plain YAML scalar means: the core schema of YAML 1.2.
//!
//! `yes`, `no`, `on` and `010` mean what they say here (text, text, text, ten): the readings of YAML 1.1
//! that turned country codes into booleans are gone. Quoted scalars never come here; they are text.

use serde_json::{Number, Value};

/// The value of a plain scalar; `Err` with the reason for the numbers that no setting can hold.
pub(super) fn resolve(text: &str) -> Result<Value, &'static str> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    if let Some(number) = whole(text) {
        return Ok(Value::Number(number));
    }
    if !is_decimal(text) {
        return if is_endless(text) {
            Err("infinity and not-a-number are no values for a setting")
        } else {
            Ok(Value::String(text.to_owned()))
        };
    }
    let number = text.parse().ok().and_then(Number::from_f64);
    let number = number.ok_or("this number is too large")?;
    Ok(Value::Number(number))
}

/// `-?[0-9]+`, `0x…`, `0o…`, where it fits 64 bits; larger ones are left to be decimals.
fn whole(text: &str) -> Option<Number> {
    let radix = |digits: &str, radix| {
        let plain = digits.chars().all(|c| c.is_digit(radix));
        plain.then(|| u64::from_str_radix(digits, radix).ok())?
    };
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16).map(Number::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8).map(Number::from);
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let unsigned = text.parse::<u64>().map(Number::from);
    unsigned.or_else(|_| text.parse::<i64>().map(Number::from)).ok()
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_decimal(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_fits = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    digits(before) && digits(after) && !(before.is_empty() && after.is_empty()) && exponent_fits
}

fn is_endless(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_scalars_follow_the_core_schema_of_yaml_1_2() {
        let cases = [
            ("", json!(null)),
            ("~", json!(null)),
            ("null", json!(null)),
            ("nULL", json!("nULL")),
            ("true", json!(true)),
            ("FALSE", json!(false)),
            ("yes", json!("yes")),
            ("no", json!("no")),
            ("on", json!("on")),
            ("12", json!(12)),
            ("-12", json!(-12)),
            ("+12", json!(12)),
            ("010", json!(10)),
            ("0o17", json!(15)),
            ("0xfF", json!(255)),
            ("0x", json!("0x")),
            ("0x+1", json!("0x+1")),
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("18446744073709551616", json!(18446744073709551616.0)),
            ("1.5", json!(1.5)),
            ("1.", json!(1.0)),
            (".5", json!(0.5)),
            ("-1e-3", json!(-0.001)),
            ("1e3", json!(1000.0)),
            (".", json!(".")),
            ("-", json!("-")),
            ("1e", json!("1e")),
            ("1_000", json!("1_000")),
            ("1.2.3", json!("1.2.3")),
            ("inf", json!("inf")),
            ("12:30", json!("12:30")),
            ("2026-01-01", json!("2026-01-01")),
        ];
        for (text, expected) in cases {
            assert_eq!(resolve(text), Ok(expected), "{text:?}");
        }
        for text in [".inf", "-.INF", ".nan", "1e999"] {
            assert!(resolve(text).is_err(), "{text:?}");
        }
    }
}

//! Ranges of numbers and lengths.

use serde_json::Value;

type IsBroken = fn(f64, f64) -> bool;

/// The limit of the schema that a number or a text breaks, as the object of "expected".
pub(super) fn broken(value: &Value, schema: &Value) -> Option<String> {
    match value {
        Value::Number(number) => {
            let number = number.as_f64()?;
            broken_range(number, schema).or_else(|| broken_width(number, schema))
        }
        Value::String(text) => broken_length(text.chars().count(), schema, "Length"),
        _ => None,
    }
}

/// The limit that a length breaks; `of` is the keyword's ending: `Length`, `Items`, `Properties`.
pub(super) fn broken_length(length: usize, schema: &Value, of: &str) -> Option<String> {
    let unit = match of {
        "Length" => "characters",
        "Items" => "items",
        _ => "keys",
    };
    let limit = |word: &str| {
        let limit = schema.get(format!("{word}{of}"))?.as_u64()?;
        usize::try_from(limit).ok()
    };
    let (least, most) = (limit("min"), limit("max"));
    if least.is_some_and(|least| length < least) {
        return least.map(|least| format!("at least {least} {unit}"));
    }
    most.filter(|most| length > *most).map(|most| format!("at most {most} {unit}"))
}

fn broken_range(number: f64, schema: &Value) -> Option<String> {
    let breaks: [(&str, &str, IsBroken); 4] = [
        ("minimum", "at least", |number, limit| number < limit),
        ("maximum", "at most", |number, limit| number > limit),
        ("exclusiveMinimum", "more than", |number, limit| number <= limit),
        ("exclusiveMaximum", "less than", |number, limit| number >= limit),
    ];
    breaks.into_iter().find_map(|(word, words, is_broken)| {
        let limit = schema.get(word)?;
        let is_broken = is_broken(number, limit.as_f64()?);
        is_broken.then(|| format!("{words} {limit}"))
    })
}

/// schemars writes the range of the narrow integers only as a format.
fn broken_width(number: f64, schema: &Value) -> Option<String> {
    let (least, most) = match schema.get("format")?.as_str()? {
        "int32" => (f64::from(i32::MIN), f64::from(i32::MAX)),
        "uint32" => (0.0, f64::from(u32::MAX)),
        "int64" | "int" => (i64::MIN as f64, i64::MAX as f64),
        _ => return None,
    };
    if number < least {
        return Some(format!("at least {least}"));
    }
    (number > most).then(|| format!("at most {most}"))
}

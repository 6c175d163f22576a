//! Settings as JSON: read from what people send, kept in rows, read back.
//!
//! What people send is read strictly: a field nobody knows is refused by its name. What stands in a row is read so that an
//! older Sluice understands what a newer one wrote: it passes over the fields it does not know.

use schemars::{JsonSchema, schema_for};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::Refused;

/// Reads what was sent.
///
/// # Errors
/// Naming the field at fault.
pub fn read<T: DeserializeOwned>(value: Value) -> Result<T, Refused> {
    serde_path_to_error::deserialize(value).map_err(|fault| {
        let message = fault.inner().to_string();
        let path = fault.path().to_string();
        let within = if path == "." || path == "?" { "" } else { path.trim_end_matches(".?") };
        // serde names a field that is not known, or is not there, in its words only.
        let named = ["unknown field `", "missing field `"]
            .iter()
            .find_map(|words| message.strip_prefix(words)?.split_once('`'))
            .map(|(name, _)| name);
        let field = match (within, named) {
            ("", Some(name)) => name.to_owned(),
            (within, Some(name)) if !within.ends_with(name) => format!("{within}.{name}"),
            (within, _) => within.to_owned(),
        };
        Refused::Invalid { field, message }
    })
}

/// The fields of some settings that say something: those that differ from settings in which nothing is said. So a row stays
/// the same when a later Sluice knows more fields.
pub fn said<T: Serialize>(settings: &T, nothing: &T, without: &[&str]) -> Map<String, Value> {
    let object = |settings: &T| match serde_json::to_value(settings) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let nothing = object(nothing);
    let fields = object(settings).into_iter();
    fields
        .filter(|(name, value)| {
            !without.contains(&name.as_str()) && !value.is_null() && nothing.get(name) != Some(value)
        })
        .collect()
}

/// Reads a row's settings; `more` are the fields that have columns of their own.
///
/// # Errors
/// In the operator's words.
pub fn kept<T: DeserializeOwned + JsonSchema>(terms: &str, more: Map<String, Value>) -> Result<T, String> {
    let mut fields = object(terms)?;
    fields.extend(more);
    match serde_json::from_value(Value::Object(fields.clone())) {
        Ok(settings) => Ok(settings),
        Err(_) => {
            let schema = schema_for!(T);
            let known = schema.get("properties").and_then(Value::as_object);
            fields.retain(|name, _| known.is_some_and(|known| known.contains_key(name)));
            serde_json::from_value(Value::Object(fields)).map_err(|fault| fault.to_string())
        }
    }
}

/// A row's settings as they are.
///
/// # Errors
/// In the operator's words.
pub fn object(terms: &str) -> Result<Map<String, Value>, String> {
    if terms.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(terms).map_err(|fault| fault.to_string())
}

/// Puts a patch over some fields: `null` takes a field away, an object is put over the one that is there (RFC 7396).
pub fn patch(fields: &mut Map<String, Value>, changes: Map<String, Value>) {
    for (name, change) in changes {
        match change {
            Value::Null => drop(fields.remove(&name)),
            Value::Object(deeper) => {
                let there = fields.entry(name).or_insert_with(|| Value::Object(Map::new()));
                if !there.is_object() {
                    *there = Value::Object(Map::new());
                }
                if let Value::Object(there) = there {
                    patch(there, deeper);
                }
            }
            other => drop(fields.insert(name, other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    struct Sample {
        name: Option<String>,
        weight: u32,
        inner: Inner,
    }

    #[derive(Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    struct Inner {
        rps: Option<u32>,
    }

    #[test]
    fn the_field_at_fault_is_named_by_its_path() {
        let check = |value: Value, field: &str| match read::<Sample>(value) {
            Err(Refused::Invalid { field: found, message }) => assert_eq!(found, field, "{message}"),
            other => panic!("{other:?}"),
        };
        check(json!({ "nme": "x" }), "nme");
        check(json!({ "weight": "x" }), "weight");
        check(json!({ "inner": { "rps": -1 } }), "inner.rps");
        check(json!({ "inner": { "rpm": 1 } }), "inner.rpm");
    }

    #[test]
    fn a_row_written_by_a_later_version_is_read_by_an_older_one() {
        let settings: Sample = kept(r#"{"weight":3,"colour":"red"}"#, Map::new()).unwrap();
        assert_eq!(settings, Sample { weight: 3, ..Sample::default() });
        assert!(kept::<Sample>(r#"{"weight":"x"}"#, Map::new()).is_err());
    }

    #[test]
    fn only_what_is_said_is_kept() {
        let settings = Sample { weight: 3, name: Some("x".into()), ..Sample::default() };
        let fields = said(&settings, &Sample::default(), &["name"]);
        assert_eq!(Value::Object(fields), json!({ "weight": 3 }));
    }

    #[test]
    fn a_patch_changes_what_it_names_and_null_takes_away() {
        let mut fields = object(r#"{"a":1,"b":{"c":1,"d":2},"e":3}"#).unwrap();
        patch(&mut fields, object(r#"{"a":null,"b":{"c":null,"x":1},"e":{"f":1}}"#).unwrap());
        assert_eq!(Value::Object(fields), json!({ "b": { "d": 2, "x": 1 }, "e": { "f": 1 } }));
    }
}

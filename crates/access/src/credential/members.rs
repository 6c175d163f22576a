//! A JSON object in which no name stands twice: of two readers one takes the first, the other the last, and between
//! them a token means two things.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

/// The members of an object from outside.
#[derive(Debug, Clone, Default)]
pub(super) struct Members(Map<String, Value>);

impl Members {
    /// Reads an object; `None` for anything else, and where a name stands twice in it.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// A member.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A member that is a text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// A member that is a point in time, in whole seconds since 1970 (RFC 7519 §2 allows fractions).
    pub(super) fn seconds(&self, name: &str) -> Option<i64> {
        /// Bound: what a double holds exactly; no clock gets there.
        const MOST: f64 = 9_007_199_254_740_992.0;
        let value = self.get(name)?;
        value.as_i64().or_else(|| value.as_f64().filter(|at| at.abs() < MOST).map(|at| at.floor() as i64))
    }

    /// The texts of a member that is one or a list of them; `None` where anything in it is no text.
    pub(super) fn texts(&self, name: &str) -> Option<Vec<&str>> {
        match self.get(name)? {
            Value::String(one) => Some(vec![one]),
            Value::Array(many) => many.iter().map(Value::as_str).collect(),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Map<String, Value>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = from.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name stands twice"));
                    }
                }
                Ok(members)
            }
        }
        from.deserialize_map(Reader).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_with_a_name_twice_is_none() {
        assert!(Members::read(br#"{"a":1,"b":2}"#).is_some());
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, "[]", "\"x\"", "{", "{}x", ""] {
            assert!(Members::read(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn times_are_whole_seconds_and_nothing_else_is_a_time() {
        let at = |text: &str| Members::read(format!("{{\"exp\":{text}}}").as_bytes()).unwrap().seconds("exp");
        assert_eq!((at("12"), at("12.9"), at("-1.5")), (Some(12), Some(12), Some(-2)));
        assert_eq!((at("1e300"), at("\"12\""), at("null"), at("[12]"), at("true")), (None, None, None, None, None));
    }
}

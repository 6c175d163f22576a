//! Fields of settings from the command line: `--set limits.rps=10`, `--file plan.json`.

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Map, Value};

use crate::cli::SettingsArgs;

impl SettingsArgs {
    /// The fields: those of the file first, then each that is set.
    pub(super) fn fields(&self) -> anyhow::Result<Map<String, Value>> {
        let mut fields = match &self.file {
            None => Map::new(),
            Some(path) => read(path)?,
        };
        for text in &self.set {
            let Some((path, value)) = text.split_once('=') else {
                bail!("--set {text} has no `=`: write FIELD=VALUE, as in limits.rps=10");
            };
            put(&mut fields, path, value_of(value));
        }
        Ok(fields)
    }

    /// The same for a change: what is unset is `null`.
    pub(super) fn changes(&self, unset: &[String]) -> anyhow::Result<Map<String, Value>> {
        let mut fields = self.fields()?;
        for path in unset {
            put(&mut fields, path, Value::Null);
        }
        Ok(fields)
    }
}

/// Puts a field that a flag of its own gives.
pub(super) fn flag(fields: &mut Map<String, Value>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        fields.insert(name.into(), value.into());
    }
}

/// Puts a list that a repeated flag gives.
pub(super) fn list(fields: &mut Map<String, Value>, name: &str, values: &[String]) {
    if !values.is_empty() {
        fields.insert(name.into(), values.into());
    }
}

fn read(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        text
    } else {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => bail!("{} holds no JSON object", path.display()),
        Err(fault) => bail!("{} is no JSON: {fault}", path.display()),
    }
}

/// JSON where it is some, else the text itself.
fn value_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

fn put(fields: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => drop(fields.insert(path.into(), value)),
        Some((first, rest)) => {
            let inner = fields.entry(first).or_insert_with(|| Value::Object(Map::new()));
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_set_by_path_as_json_or_as_text() {
        let set = ["limits.rps=10", "limits.tpm=5", "plan=gold", r#"models=["a","b*"]"#, "note=a=b"];
        let args = SettingsArgs { set: set.map(str::to_owned).to_vec(), file: None };
        let expected = json!({
            "limits": { "rps": 10, "tpm": 5, "x": null }, "plan": "gold", "models": ["a", "b*"], "note": "a=b",
        });
        assert_eq!(Value::Object(args.changes(&["limits.x".into()]).unwrap()), expected);
        let wrong = SettingsArgs { set: vec!["plan".into()], file: None };
        assert!(wrong.fields().is_err());
    }
}

//! One configuration file, parsed: to be read as a type, and asked where things are.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use super::Lookup;
use super::check;
use super::compose;
use super::fault::{Fault, Faults, Position};
use super::node::{Node, Readings};
use super::source::Source;
use super::trail::Step;

// Bound: ten thousand models in the long form are 2 MiB; more is not a configuration.
pub(super) const FILE_MAX: usize = 4 << 20;

/// A parsed configuration file.
///
/// Faults of single values found while parsing (an unset variable, a key twice) wait here until
/// [`Document::read`] reports them together with those of the types.
pub struct Document {
    source: Arc<Source>,
    root: Node,
    faults: Vec<Fault>,
}

// === impl Document ===

impl Document {
    /// Reads and parses the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is too large, is not UTF-8, or is not YAML.
    pub fn open(path: &Path, lookup: Lookup<'_>) -> Result<Document, Faults> {
        let file = path.display().to_string();
        let refuse =
            |message: String, position, text: &str| refused(&file, text, vec![Fault::new("", position, message)]);
        let mut bytes = Vec::new();
        // Bound: one byte over is enough to know that it is too large.
        let read = File::open(path).and_then(|file| file.take(FILE_MAX as u64 + 1).read_to_end(&mut bytes));
        if let Err(error) = read {
            return Err(refuse(format!("cannot be read: {error}"), None, ""));
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) => Document::parse(&file, text, lookup),
            Err(_) if bytes.len() > FILE_MAX => Err(refuse(too_large(), None, "")),
            Err(error) => {
                let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
                let text = String::from_utf8_lossy(valid);
                let at = Source::new(&file, &text).position(text.len());
                let message = "not UTF-8 from here on".to_owned();
                Err(refuse(message, Some(at), &text))
            }
        }
    }

    /// Parses `text`; `file` is only its name in faults. Variables are found with `lookup`.
    ///
    /// # Errors
    /// The text is too large or not YAML, so that nothing can be said about its settings.
    pub fn parse(file: &str, text: &str, lookup: Lookup<'_>) -> Result<Document, Faults> {
        if text.len() > FILE_MAX {
            return Err(refused(file, "", vec![Fault::new("", None, too_large())]));
        }
        let source = Arc::new(Source::new(file, text));
        if let Some(fault) = unprintable(&source) {
            return Err(refused(file, text, vec![fault]));
        }
        match compose::compose(&source, lookup) {
            Ok((root, faults)) => Ok(Document { source, root, faults }),
            Err(faults) => Err(refused(file, text, faults)),
        }
    }

    /// The whole document as a `T`.
    ///
    /// # Errors
    /// Everything that is wrong with it: values that could not be read, keys that `T` does not know or
    /// lacks, wrong types, values out of range. Only if there is nothing of the sort: the one thing
    /// that `T`'s own `Deserialize` still refuses.
    pub fn read<T: DeserializeOwned + JsonSchema>(&self) -> Result<T, Faults> {
        let schema = SchemaGenerator::default().into_root_schema_for::<T>();
        let mut verdict = check::check(&self.root, schema.as_value());
        verdict.faults.extend(self.faults.iter().cloned());
        self.refuse(verdict.faults)?;
        let value = self.root.value(&verdict.readings);
        serde_path_to_error::deserialize(value).map_err(|error| {
            let steps: Vec<Step> = error.path().iter().map_while(step).collect();
            let position = Some(self.root.locate(&steps));
            let message = self.discreet(error.inner().to_string());
            self.refused(vec![Fault::new(Step::write(&steps), position, message)])
        })
    }

    /// A short digest of every value, environment included: two documents that mean the same have the same.
    pub fn fingerprint(&self) -> String {
        let value = self.root.value(&Readings::default());
        blake3::hash(value.to_string().as_bytes()).to_hex().chars().take(8).collect()
    }

    /// Where the setting at `path` (`models[0].endpoint`) is written, or its nearest ancestor that is;
    /// `None` only if `path` is not a path.
    pub fn locate(&self, path: &str) -> Option<Position> {
        Some(self.root.locate(&Step::parse(path)?))
    }

    /// A fault at `path`, with its position: for what only the owner of the type can judge.
    pub fn fault(&self, path: &str, message: impl Into<String>) -> Fault {
        Fault::new(path, self.locate(path), message)
    }

    /// `Err` with all these faults, or `Ok` if there are none.
    ///
    /// # Errors
    /// `faults` is not empty.
    pub fn refuse(&self, faults: Vec<Fault>) -> Result<(), Faults> {
        Faults::unless_empty(&self.source, faults)
    }

    /// The message without what the environment brought in, which may be secret.
    fn discreet(&self, mut message: String) -> String {
        let mut substituted = Vec::new();
        self.root.substituted(&mut substituted);
        // Replacing every `1` would leave no message readable, and nothing this short is a secret.
        substituted.retain(|(value, _)| value.len() >= 4);
        // The longest first: a short value may be a part of a long one.
        substituted.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
        for (value, written) in substituted {
            let escaped = value.escape_debug().to_string();
            for form in [value, &escaped] {
                message = message.replace(form, written);
            }
        }
        message
    }

    fn refused(&self, faults: Vec<Fault>) -> Faults {
        Faults::of(&self.source, faults)
    }
}

fn refused(file: &str, text: &str, faults: Vec<Fault>) -> Faults {
    Faults::of(&Arc::new(Source::new(file, text)), faults)
}

fn too_large() -> String {
    format!("larger than {} MiB", FILE_MAX >> 20)
}

/// YAML allows no control characters, and the parser would take the first NUL for the end of the file.
fn unprintable(source: &Source) -> Option<Fault> {
    let control = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    let (offset, found) = source.text().char_indices().find(|(_, c)| control(*c))?;
    let message = format!("the control character U+{:04X} is not allowed", found as u32);
    Some(Fault::new("", Some(source.position(offset)), message))
}

fn step(segment: &Segment) -> Option<Step> {
    match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Enum { variant } => Some(Step::Key(variant.clone())),
        Segment::Unknown => None,
    }
}

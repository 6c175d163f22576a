//! What is wrong with a configuration, and where.
//!
//! A fault is written for the person who has the file open: its place, its path, one sentence, and the
//! nearest right word where there is one. Faults are collected, never thrown one at a time.

use std::fmt;
use std::sync::Arc;

use super::source::Source;

// Bound: nobody reads past the first screens, and a hostile file must not fill memory with complaints.
pub(super) const FAULTS_MAX: usize = 1_000;

// Bound: enough to recognise one's own value by.
const SHOWN_CHARS: usize = 40;

/// A place in a file. Both numbers start at 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which setting: `models[0].instances[1].endpoint`; empty for the file as a whole.
    pub path: String,
    /// Where it is written; `None` where the file could not be read at all.
    pub position: Option<Position>,
    /// What is wrong, as a sentence without its full stop.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

/// Every fault of one file, at least one, in the order of the file.
///
/// `Display` is for logs: one line a fault, and never the content of the file. [`Faults::render`] is for
/// a terminal and quotes the lines.
#[derive(Clone)]
pub struct Faults {
    source: Arc<Source>,
    faults: Vec<Fault>,
}

// === impl Fault ===

impl Fault {
    /// A fault without a suggestion.
    pub fn new(path: impl Into<String>, position: Option<Position>, message: impl Into<String>) -> Fault {
        Fault { path: path.into(), position, message: message.into(), suggestion: None }
    }

    /// The same fault with what was probably meant.
    #[must_use]
    pub fn suggesting(self, suggestion: Option<String>) -> Fault {
        Fault { suggestion, ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " (did you mean `{suggestion}`?)"),
            None => Ok(()),
        }
    }
}

// === impl Faults ===

impl Faults {
    /// `Err` with all of them, or `Ok` if there are none.
    pub(super) fn unless_empty(source: &Arc<Source>, faults: Vec<Fault>) -> Result<(), Faults> {
        if faults.is_empty() {
            return Ok(());
        }
        Err(Faults::of(source, faults))
    }

    /// These faults, of which there is at least one, in the order of the file.
    pub(super) fn of(source: &Arc<Source>, mut faults: Vec<Fault>) -> Faults {
        faults.sort_by(|a, b| (a.position, &a.path).cmp(&(b.position, &b.path)));
        faults.dedup();
        if faults.len() > FAULTS_MAX {
            faults.truncate(FAULTS_MAX);
            let last = faults.last().and_then(|fault| fault.position);
            let message = format!("more than {FAULTS_MAX} faults; the rest are not listed");
            faults.push(Fault::new("", last, message));
        }
        let source = Arc::clone(source);
        Faults { source, faults }
    }

    /// The file's name as it was given.
    pub fn file(&self) -> &str {
        self.source.file()
    }

    /// The faults in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.faults.iter()
    }

    /// The text for a terminal: each fault with its line of the file and a caret under the column.
    ///
    /// Quotes the file, which may hold secrets: not for logs.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for fault in &self.faults {
            text.push_str(&self.headline(fault));
            text.push('\n');
            if let Some((line, caret)) = fault.position.and_then(|at| self.source.quote(at)) {
                let number = fault.position.map_or(0, |at| at.line);
                text.push_str(&format!("{number:>5} | {line}\n      | {caret}^\n"));
            }
        }
        text
    }

    fn headline(&self, fault: &Fault) -> String {
        let file = self.source.file();
        match fault.position {
            Some(Position { line, column }) => format!("{file}:{line}:{column}: {fault}"),
            None => format!("{file}: {fault}"),
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.headline(fault))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Faults {
    // The derived form would print the whole file, secrets included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.faults).finish()
    }
}

impl std::error::Error for Faults {}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A part of a file as a fault may repeat it.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

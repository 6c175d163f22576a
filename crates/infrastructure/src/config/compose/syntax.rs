//! What the parser could not read, in words for whoever wrote it.

use super::super::fault::{Fault, Position};
use super::super::source::Source;

/// The fault for a parser's complaint; most are improved by looking at the line.
pub(super) fn fault(source: &Source, at: Position, info: &str) -> Fault {
    // Of a scalar that goes on over several lines only the first is named.
    let last = if info.contains("tab") { usize::MAX } else { at.line };
    let tab = (at.line..=last)
        .map_while(|number| Some((number, source.line(number)?)))
        .find_map(|(number, line)| Some((number, tab_in_indentation(line)?)));
    if let Some((line, column)) = tab {
        let at = Position { line, column };
        let message = "a tab in the indentation; YAML is indented with spaces";
        return Fault::new("", Some(at), message);
    }
    let line = source.line(at.line).unwrap_or_default();
    let fault = Fault::new("", Some(at), format!("not YAML: {info}"));
    // In `{ key: ${VAR} }` the braces of the variable are taken for YAML's own, and the first is where
    // the parser stops.
    let dollar = at.column.checked_sub(2);
    let rest: String = line.chars().skip(dollar.unwrap_or(usize::MAX)).collect();
    let variable = rest.strip_prefix("${").and_then(|rest| rest.split_once('}'));
    fault.suggesting(variable.map(|(inside, _)| format!("\"${{{inside}}}\"")))
}

/// The column of the first tab before anything else on a line.
fn tab_in_indentation(line: &str) -> Option<usize> {
    let blank = line.split(|c| c != ' ' && c != '\t').next()?;
    Some(blank.find('\t')? + 1)
}

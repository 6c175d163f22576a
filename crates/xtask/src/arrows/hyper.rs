//! Who may name hyper.
//!
//! hyper's HTTP/1.1 is to be replaced one day. That stays a change of a few files for as long as its types do not
//! leave them: a type of its own at the edge of each file is what the rest of the crate sees.

use std::fs;
use std::path::Path;

use anyhow::Context;

use super::Violation;

/// The only files that may.
const ALLOWED: &[&str] = &[
    "crates/access/src/listener/connection.rs",
    "crates/infrastructure/src/fetch.rs",
    "crates/models/src/connection.rs",
    "crates/sim/src/server.rs",
];

/// One source file: its path from the workspace's root, and its text.
pub(super) type Source = (String, String);

/// Every Rust file of every crate, but for this crate's: it has no such dependency and must write the name to check it.
pub(super) fn sources(root: &Path) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut folders = vec![root.join("crates")];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
            if path.is_dir() && name != "crates/xtask" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
                sources.push((name, text));
            }
        }
    }
    sources.sort();
    Ok(sources)
}

/// The files that name hyper and may not: one violation each, at the first line that does.
pub(super) fn strays(sources: &[Source]) -> Vec<Violation> {
    let barred = sources.iter().filter(|(path, _)| !ALLOWED.contains(&path.as_str()));
    let found = barred.filter_map(|(path, text)| {
        let line = text.lines().position(names_hyper)?;
        Some(Violation {
            place: format!("{path}:{}", line + 1),
            what: "names hyper".into(),
            remedy: format!(
                "wrap what is needed in a type of its own in one of: {}. Or decide otherwise: a line in ALLOWED \
                 (crates/xtask/src/arrows/hyper.rs)",
                ALLOWED.join(", ")
            ),
        })
    });
    found.collect()
}

fn names_hyper(line: &str) -> bool {
    let code = line.split_once("//").map_or(line, |(code, _)| code);
    code.match_indices("hyper").any(|(at, word)| {
        let before = code.get(..at).and_then(|text| text.chars().next_back());
        let after = code.get(at + word.len()..).unwrap_or_default();
        let whole = before.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        whole && (after.starts_with("::") || after.starts_with("_util") || after.starts_with(" as "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str) -> Vec<String> {
        strays(&[(path.into(), text.into())]).into_iter().map(|violation| violation.place).collect()
    }

    #[test]
    fn hyper_in_a_file_that_may_not_name_it_is_found_with_its_line() {
        for line in ["use hyper::body::Incoming;", "    x: hyper_util::rt::TokioIo<T>,", "use hyper as h;"] {
            let found = check("crates/access/src/door.rs", &format!("//! The door.\n\n{line}\n"));
            assert_eq!(found, ["crates/access/src/door.rs:3"], "{line}");
        }
    }

    #[test]
    fn hyper_where_it_is_allowed_or_only_talked_about_is_no_violation() {
        assert!(check("crates/models/src/connection.rs", "use hyper::body::Incoming;").is_empty());
        for line in ["/// As in `hyper::Error`.", "let hyperbola = superhyper::x();", "x(); // hyper::Error here"] {
            assert!(check("crates/access/src/door.rs", line).is_empty(), "{line}");
        }
    }

    #[test]
    fn every_file_that_may_name_hyper_exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for path in ALLOWED {
            assert!(root.join(path).is_file(), "{path} is gone: strike it from ALLOWED");
        }
    }
}

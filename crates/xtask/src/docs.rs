//! The reference under docs/reference, written from the binary itself: its schema, its help, its metrics, its API.
//!
//! Nothing here knows a config key, a flag or a metric by name; what is wrong in a page is mended in the doc comment
//! it comes from.

mod binary;
mod cli;
mod config;
mod markdown;
mod metrics;
mod openapi;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use binary::Binary;

/// Where the pages are, from the workspace's root.
const FOLDER: &str = "docs/reference";

/// The first line of every page.
const NOTICE: &str = "<!-- Written by `cargo xtask docs`. Edit the doc comments in the code, not this page. -->";

/// What was asked for.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Change nothing; fail if a page is stale.
    pub(crate) check: bool,
    /// Use this binary instead of building one.
    pub(crate) sluice: Option<PathBuf>,
}

struct Page {
    name: &'static str,
    text: String,
}

/// Writes the pages, or compares them with what is there.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let root = workspace()?;
    let binary = match &options.sluice {
        Some(path) => Binary::at(path)?,
        None => Binary::build(&root)?,
    };
    let folder = root.join(FOLDER);
    let pages = pages(&binary)?;
    if options.check {
        return Ok(check(&folder, &pages));
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for page in &pages {
        let path = folder.join(page.name);
        let said = if page.is_fresh(&folder) { "unchanged" } else { "written" };
        fs::write(&path, &page.text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("docs: {FOLDER}/{} {said}", page.name);
    }
    Ok(ExitCode::SUCCESS)
}

fn check(folder: &Path, pages: &[Page]) -> ExitCode {
    let stale: Vec<&Page> = pages.iter().filter(|page| !page.is_fresh(folder)).collect();
    for page in &stale {
        eprintln!("docs: {FOLDER}/{} is stale: run `cargo xtask docs` and commit what it writes", page.name);
    }
    if stale.is_empty() {
        println!("docs: {} pages up to date", pages.len());
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn pages(binary: &Binary) -> anyhow::Result<Vec<Page>> {
    let schema = serde_json::from_str(&binary.output(&["schema"])?).context("`sluice schema` wrote no JSON")?;
    Ok(vec![
        Page { name: "config.md", text: config::page(&schema)? },
        Page { name: "cli.md", text: cli::page(|arguments| binary.output(arguments))? },
        Page { name: "metrics.md", text: metrics::page(&metrics::scrape(binary)?)? },
        Page { name: "openapi.json", text: openapi::page(binary)? },
    ])
}

/// The root of the workspace this was started in.
fn workspace() -> anyhow::Result<PathBuf> {
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec().context("cannot read the workspace")?;
    Ok(metadata.workspace_root.into_std_path_buf())
}

impl Page {
    fn is_fresh(&self, folder: &Path) -> bool {
        fs::read_to_string(folder.join(self.name)).is_ok_and(|found| found == self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_missing_or_differs_is_stale() {
        let folder = tempfile::tempdir().unwrap();
        let page = Page { name: "x.md", text: "new\n".into() };
        assert!(!page.is_fresh(folder.path()));
        fs::write(folder.path().join("x.md"), "old\n").unwrap();
        assert!(!page.is_fresh(folder.path()));
        fs::write(folder.path().join("x.md"), "new\n").unwrap();
        assert!(page.is_fresh(folder.path()));
    }
}

//! The report of a run: a table to read in the terminal, JSON for machines, one HTML file to send round.

mod html;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::bench::Bench;
use crate::figures::{Outcome, Section};
use crate::proc;

/// A target as it was configured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Configured {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    pub(crate) about: String,
}

/// Everything one run found, and where.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) when: String,
    pub(crate) machine: String,
    pub(crate) kernel: String,
    pub(crate) open_files: u64,
    pub(crate) quick: bool,
    pub(crate) targets: Vec<Configured>,
    pub(crate) sections: Vec<Section>,
}

// === impl Report ===

impl Report {
    pub(crate) fn new(bench: &Bench, quick: bool) -> Result<Self> {
        let targets = bench.kinds.iter().map(|kind| {
            Ok(Configured { name: kind.name, version: kind.version(&bench.site)?, about: kind.about.to_owned() })
        });
        Ok(Self {
            when: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            machine: proc::processor(),
            kernel: proc::kernel(),
            open_files: proc::open_files_limit()?.0,
            quick,
            targets: targets.collect::<Result<_>>()?,
            sections: Vec::new(),
        })
    }

    /// Adds a section, showing it at once: a long run should not be silent.
    pub(crate) fn add(&mut self, section: Section) {
        println!("{}", text::section(&section));
        self.sections.push(section);
    }

    /// Whether every demand was met.
    pub(crate) fn all_met(&self) -> bool {
        self.sections.iter().flat_map(|section| &section.verdicts).all(|verdict| verdict.outcome == Outcome::Met)
    }

    /// Writes NAME.json, NAME.txt and NAME.html into `directory`.
    pub(crate) fn write(&self, directory: &Path, name: &str) -> Result<PathBuf> {
        fs::create_dir_all(directory)?;
        let page = directory.join(format!("{name}.html"));
        fs::write(directory.join(format!("{name}.json")), serde_json::to_vec_pretty(self)?)?;
        fs::write(directory.join(format!("{name}.txt")), text::whole(self))?;
        fs::write(&page, html::page(self)).with_context(|| format!("cannot write {}", page.display()))?;
        Ok(page)
    }

    /// The demands and what became of them, as text.
    pub(crate) fn verdicts(&self) -> String {
        text::verdicts(self)
    }
}

/// Names in the order they first come.
fn in_order<'a, T: PartialEq>(names: impl Iterator<Item = &'a T>) -> Vec<&'a T> {
    let mut seen: Vec<&T> = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

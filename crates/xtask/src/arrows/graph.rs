//! The workspace's dependencies as `cargo metadata` tells them.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// The crates of the house, and what every package pulls in.
#[derive(Debug)]
pub(crate) struct Graph {
    /// The workspace's folder.
    pub(crate) root: PathBuf,
    /// The crates of the house.
    pub(super) members: Vec<Member>,
    /// By package name: its normal dependencies on this platform, with the features the workspace turns on.
    reach: BTreeMap<String, Vec<String>>,
}

/// One crate of the house.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) uses: Vec<Use>,
}

/// One crate of the house used by another.
#[derive(Debug)]
pub(super) struct Use {
    pub(super) on: String,
    pub(super) for_tests: bool,
}

impl Graph {
    /// Reads the workspace at `root`, or the one around the current folder.
    pub(crate) fn read(root: Option<&Path>) -> anyhow::Result<Self> {
        let mut command = MetadataCommand::new();
        if let Some(root) = root {
            command.current_dir(root);
        }
        // Without this, the packages of every other platform would have to be downloaded.
        command.other_options(["--filter-platform".to_owned(), host()?]);
        let metadata = command.exec().context("cannot read the workspace")?;
        let reach = reach(&metadata)?;
        let members = metadata.workspace_packages();
        let names: Vec<&str> = members.iter().map(|package| package.name.as_str()).collect();
        let uses = |package: &cargo_metadata::Package| {
            let of_the_house = package.dependencies.iter().filter(|on| names.contains(&on.name.as_str()));
            // Declared dependencies, not resolved ones: an arrow for another platform is an arrow too.
            of_the_house
                .map(|on| Use { on: on.name.to_string(), for_tests: on.kind == DependencyKind::Development })
                .collect()
        };
        let mut members: Vec<Member> =
            members.iter().map(|package| Member { name: package.name.to_string(), uses: uses(package) }).collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { root: metadata.workspace_root.clone().into_std_path_buf(), members, reach })
    }

    /// The shortest way from a package to each of `targets` it reaches, both ends included.
    pub(super) fn ways(&self, from: &str, targets: &[&str]) -> Vec<Vec<&str>> {
        let Some((from, _)) = self.reach.get_key_value(from) else { return Vec::new() };
        let mut came_from: BTreeMap<&str, Option<&str>> = BTreeMap::from([(from.as_str(), None)]);
        let mut next = VecDeque::from([from.as_str()]);
        while let Some(package) = next.pop_front() {
            for on in self.reach.get(package).into_iter().flatten() {
                if !came_from.contains_key(on.as_str()) {
                    came_from.insert(on, Some(package));
                    next.push_back(on);
                }
            }
        }
        let back = |target: &str| {
            let (target, _) = came_from.get_key_value(target)?;
            let mut way: Vec<&str> =
                std::iter::successors(Some(*target), |at| came_from.get(at).copied().flatten()).collect();
            way.reverse();
            Some(way)
        };
        targets.iter().filter_map(|target| back(target)).collect()
    }

    #[cfg(test)]
    pub(super) fn of(reach: &[(&str, &[&str])]) -> Self {
        let list = |on: &&[&str]| on.iter().map(ToString::to_string).collect();
        let reach = reach.iter().map(|(name, on)| ((*name).to_owned(), list(on))).collect();
        Self { root: PathBuf::new(), members: Vec::new(), reach }
    }
}

impl Member {
    pub(super) fn manifest(&self) -> String {
        format!("crates/{}/Cargo.toml", self.name)
    }
}

/// Who depends on whom, by name. Two versions of a package count as one: what matters here is what is reached.
fn reach(metadata: &Metadata) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let resolve = metadata.resolve.as_ref().context("cargo resolved no dependencies")?;
    let names: BTreeMap<_, _> = metadata.packages.iter().map(|package| (&package.id, package.name.as_str())).collect();
    let mut reach: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in &resolve.nodes {
        let Some(name) = names.get(&node.id) else { continue };
        let shipped = node.deps.iter().filter(|on| on.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
        let on = shipped.filter_map(|on| names.get(&on.pkg)).map(ToString::to_string);
        reach.entry((*name).to_owned()).or_default().extend(on);
    }
    Ok(reach)
}

/// The platform rustc builds for here, such as `x86_64-unknown-linux-gnu`.
fn host() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot run rustc")?;
    ensure!(output.status.success(), "`rustc -vV` failed");
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).context("`rustc -vV` names no host")?;
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Writes a workspace of crates without code, given their manifests' dependency sections.
    fn workspace(crates: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("Cargo.toml"), "[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\n").unwrap();
        for (name, sections) in crates {
            let folder = root.path().join("crates").join(name);
            fs::create_dir_all(folder.join("src")).unwrap();
            fs::write(folder.join("src/lib.rs"), "").unwrap();
            let manifest = format!("[package]\nname = \"{name}\"\nedition = \"2024\"\n{sections}");
            fs::write(folder.join("Cargo.toml"), manifest).unwrap();
        }
        root
    }

    #[test]
    fn arrows_of_every_kind_are_read_from_a_real_workspace() {
        let root = workspace(&[
            ("kernel", ""),
            ("wire", "[dependencies]\nkernel = { path = \"../kernel\" }\n"),
            ("models", "[target.'cfg(windows)'.dependencies]\nwire = { path = \"../wire\" }\n"),
            ("sim", "[build-dependencies]\nkernel = { path = \"../kernel\" }\n"),
            ("access", "[dev-dependencies]\nw = { package = \"wire\", path = \"../wire\" }\n"),
        ]);
        let graph = Graph::read(Some(root.path())).unwrap();
        let read: Vec<String> = graph
            .members
            .iter()
            .flat_map(|member| member.uses.iter().map(|arrow| (&member.name, &arrow.on, arrow.for_tests)))
            .map(|(name, on, for_tests)| format!("{name} → {on}{}", if for_tests { " in tests" } else { "" }))
            .collect();
        assert_eq!(read, ["access → wire in tests", "models → wire", "sim → kernel", "wire → kernel"]);
        assert_eq!(graph.ways("wire", &["kernel", "sim"]), [["wire", "kernel"]]);
        assert!(graph.ways("access", &["wire", "kernel"]).is_empty(), "what tests use is not shipped");
    }
}

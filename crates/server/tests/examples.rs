//! What we show people to copy is good: the files in examples/ and the configs in the READMEs pass `sluice check`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Stands for every variable a file takes from the environment. Long enough for a key.
const VALUE: &str = "stand-in-for-a-value-from-the-environment";
const READMES: [&str; 2] = ["README.md", "README.zh-CN.md"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Runs `sluice check` on a file, with every variable set that it needs and nothing else in the environment.
fn check(path: &Path) -> Result<(), String> {
    let text = fs::read_to_string(path).unwrap();
    let variables = needed(&text).into_iter().map(|name| (name, VALUE));
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    let output = command.args(["check", "--config"]).arg(path).env_clear().envs(variables).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// The names in `${NAME}`; what has a default (`${NAME:-default}`) must do without.
fn needed(text: &str) -> Vec<&str> {
    let insides = text.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
    insides.map(|(inside, _)| inside).filter(|inside| !inside.contains(":-")).collect()
}

/// The text between ```` ```yaml ```` and ```` ``` ````, with the line it begins on.
fn yaml_blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.trim_start().starts_with("```yaml") {
            let indent = line.len() - line.trim_start().len();
            let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```");
            let block = inside.map(|line| line.get(indent..).unwrap_or_default().to_owned() + "\n").collect();
            blocks.push((number + 2, block));
        }
    }
    blocks
}

fn scratch(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn every_example_is_a_good_config() {
    let folder = root().join("examples");
    let entries = fs::read_dir(&folder).unwrap_or_else(|fault| panic!("{}: {fault}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"));
    assert!(!files.is_empty(), "{} has no example", folder.display());
    files.sort();
    let faults: Vec<String> = files.iter().filter_map(|path| check(path).err()).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// A block that is no whole config goes without the word `yaml`.
#[test]
fn every_yaml_block_of_the_readmes_is_a_good_config() {
    let mut faults = Vec::new();
    for name in READMES {
        let text = fs::read_to_string(root().join(name)).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        for (line, block) in yaml_blocks(&text) {
            if let Err(fault) = check(&scratch(&format!("{name}-{line}.yaml"), &block)) {
                faults.push(format!("{name}, the block at line {line}: {fault}"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_bad_config_is_told_from_a_good_one() {
    let good = "models: [ { model_name: m, endpoint: \"${WHERE:-http://127.0.0.1:9}\", api_key: \"${SECRET}\" } ]\n";
    assert_eq!(check(&scratch("good.yaml", good)), Ok(()));
    let fault = check(&scratch("bad.yaml", &good.replace("endpoint", "endpiont"))).unwrap_err();
    assert!(fault.contains("endpiont"), "{fault}");
}

#[test]
fn yaml_blocks_are_found_with_the_line_they_begin_on() {
    let text = "Text\n```yaml\na: 1\n```\n```console\n$ x\n```\n1. So:\n\n   ```yaml\n   b:\n     c: 2\n   ```\n";
    assert_eq!(yaml_blocks(text), [(3, "a: 1\n".to_owned()), (11, "b:\n  c: 2\n".to_owned())]);
}

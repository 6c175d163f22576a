//! What commands do when nobody reads what they print, or it cannot be written.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails by panicking")]

use std::fs::File;
use std::process::{Command, Output, Stdio};

/// The number that shells show for a program ended by a pipe that nobody reads.
const NOBODY_READS: i32 = 141;

fn run(words: &[&str], out: Stdio) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command
        .args(words)
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(Stdio::piped());
    command.env_clear().env("SLUICE_KEY_PEPPER", "a pepper").spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn a_command_whose_reader_has_gone_ends_without_a_word() {
    for words in [&["schema"][..], &["completions", "bash"], &["key", "create", "--offline", "--tenant", "acme"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = run(words, writer.into());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((said.as_str(), output.status.code()), ("", Some(NOBODY_READS)), "{words:?}");
    }
}

#[test]
fn a_command_that_cannot_write_says_why() {
    for words in [&["schema"][..], &["completions", "bash"]] {
        let output = run(words, File::create("/dev/full").unwrap().into());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(said.starts_with("sluice: cannot write to standard output: No space left"), "{said}");
    }
}

#[test]
fn a_gateway_starts_where_nobody_reads_what_it_says() {
    let (reader, broken) = std::io::pipe().unwrap();
    drop(reader);
    for said in [Stdio::from(File::create("/dev/full").unwrap()), Stdio::from(broken)] {
        let home = testkit::Sluice::launch();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.args(["serve", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"]).arg(home.data_dir());
        let mut gateway = command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_secs(2));
        assert!(gateway.try_wait().unwrap().is_none(), "it has ended");
        gateway.kill().unwrap();
        gateway.wait().unwrap();
    }
}

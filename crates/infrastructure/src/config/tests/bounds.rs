//! What is too much, and what holds for every text.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::{Document, Position};
use super::{Config, faults, lookup, read};

#[test]
fn a_small_file_cannot_become_a_large_tree() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let uses = format!("*a{}, ", level - 1).repeat(9);
        laughs.push_str(&format!("a{level}: &a{level} [{uses}]\n"));
    }
    let told = faults(&laughs);
    assert!(told.contains(": more than 100000 values, counting what aliases repeat"), "{told}");

    let long = format!("a: &a {}\nb: [{}]", "x".repeat(1 << 20), "*a, ".repeat(1000));
    let told = faults(&long);
    assert!(told.contains(": more than 16 MiB of text"), "{told}");
}

#[test]
fn depth_size_and_the_number_of_faults_are_bounded() {
    let deep = format!("log: {}{}", "[".repeat(65), "]".repeat(65));
    assert!(faults(&deep).ends_with(": more than 64 levels deep"));
    let ladder: String = (1..80).map(|n| format!("a{n}: &a{n} [*a{}]\n", n - 1)).collect();
    let ladder = format!("a0: &a0 x\n{ladder}");
    assert!(faults(&ladder).contains(": more than 64 levels deep"));

    let large = "#".repeat((4 << 20) + 1);
    assert_eq!(faults(&large), "sluice.yaml: larger than 4 MiB");

    let many: String = (0..5000).map(|n| format!("k{n}: 1\n")).collect();
    let told = read(&many).unwrap_err();
    assert_eq!(told.iter().count(), 1001);
    assert!(told.to_string().ends_with(": more than 1000 faults; the rest are not listed"));
}

#[test]
fn a_hostile_line_is_read_in_time_that_grows_with_its_length() {
    let size = 2 << 20;
    let cases = [
        format!("backends: [{}]", "a,".repeat(size / 2)),
        format!("log: {}", "${NOPE}".repeat(size / 7)),
        format!("log: '{}'", "${".repeat(size / 2)),
        format!("retries: {{ {} }}", "k: ${NOPE:-x}, ".repeat(size / 15)),
        "[".repeat(size),
    ];
    for text in cases {
        let began = Instant::now();
        let told = read(&text).unwrap_err().render();
        // Bound: each takes well under a second; with a look along the line for every value, minutes.
        assert!(began.elapsed() < Duration::from_secs(15), "{}", &told[..80]);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sluice.yaml");
    let open = |path| Document::open(path, &lookup).err().map(|faults| faults.to_string());
    let name = path.display();
    let missing = format!("{name}: cannot be read: No such file or directory (os error 2)");
    assert_eq!(open(&path), Some(missing));
    std::fs::write(&path, b"log: text\nratio: \xff").unwrap();
    assert_eq!(open(&path), Some(format!("{name}:2:8: not UTF-8 from here on")));
    std::fs::write(&path, "log: text").unwrap();
    assert_eq!(open(&path), None);
}

/// Text that looks enough like YAML to get past the first line.
fn yamlish() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "models",
        "model_name",
        "log",
        "headers",
        "cache",
        "type",
        "strategy",
        ": ",
        ":",
        "- ",
        "? ",
        "\n",
        "\r\n",
        "\r",
        "\n  ",
        "\n    ",
        "\t",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "'",
        "\"",
        "|\n",
        ">-\n",
        "&a ",
        "*a",
        "!!str ",
        "!x ",
        "#",
        " # c",
        "${KEY}",
        "${NOPE}",
        "${",
        "$${",
        "}",
        "x",
        "1",
        "0x",
        "~",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "<<",
        "\u{feff}",
        "名",
        "\u{2028}",
        "\u{85}",
        "\\",
        "\\u12",
        "@",
        "`",
        "%",
    ]);
    let piece = prop_oneof![8 => word.prop_map(str::to_owned), 1 => any::<String>()];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn is_inside(text: &str, at: Position) -> bool {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.split("\r\n").flat_map(|part| part.split(['\n', '\r'])).collect();
    let width = at.line.checked_sub(1).and_then(|line| lines.get(line)).map(|line| line.chars().count());
    width.is_some_and(|width| (1..=width + 1).contains(&at.column))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_makes_it_panic_and_every_place_is_inside_the_file(text in yamlish()) {
        let document = match Document::parse("f", &text, &lookup) {
            Err(faults) => {
                for fault in &faults {
                    prop_assert!(is_inside(&text, fault.position.unwrap()), "{:?}", fault);
                }
                return Ok(());
            }
            Ok(document) => document,
        };
        if let Err(faults) = document.read::<Config>() {
            faults.render();
            for fault in &faults {
                prop_assert!(is_inside(&text, fault.position.unwrap()), "{:?}", fault);
                let located = document.locate(&fault.path);
                prop_assert!(located.is_some_and(|at| is_inside(&text, at)), "{:?}", fault);
            }
        }
    }
}

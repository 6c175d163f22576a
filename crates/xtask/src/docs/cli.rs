//! The command line, as `--help` tells it.

use std::collections::VecDeque;
use std::fmt::Write;

use super::NOTICE;
use super::markdown::link;

/// More commands than this and something reads its own output.
const COMMANDS_MAX: usize = 200;

/// The page. `sluice` runs the binary with arguments and returns what it wrote.
pub(super) fn page(sluice: impl Fn(&[&str]) -> anyhow::Result<String>) -> anyhow::Result<String> {
    let mut sections = Vec::new();
    let mut next = VecDeque::from([Vec::new()]);
    while let Some(command) = next.pop_front() {
        anyhow::ensure!(sections.len() < COMMANDS_MAX, "more than {COMMANDS_MAX} commands");
        let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = sluice(&arguments)?;
        // Depth first: what belongs to a command comes right after it.
        for name in subcommands(&help).into_iter().rev() {
            let mut deeper: Vec<String> = command.clone();
            deeper.push(name);
            next.push_front(deeper);
        }
        sections.push((title(&command), help));
    }
    let mut out = format!("{NOTICE}\n\n# The command line\n\n");
    for (title, _) in &sections {
        let _ = writeln!(out, "- {}", link(title));
    }
    for (title, help) in &sections {
        let _ = write!(out, "\n## `{title}`\n\n```text\n{}\n```\n", tidy(help));
    }
    Ok(out)
}

fn title(command: &[String]) -> String {
    let words = std::iter::once("sluice").chain(command.iter().map(String::as_str));
    words.collect::<Vec<_>>().join(" ")
}

/// The names under `Commands:`, but for `help`, which every level has.
fn subcommands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A name is indented by two; further lines of its description are indented to their column.
    let names = listed.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

fn tidy(help: &str) -> String {
    help.trim_end().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: &str = "Does things.

Usage: sluice <COMMAND>

Commands:
  serve  Run the gateway,
         for long
  key    Manage keys
  help   Print this message

Options:
  -h, --help  Print help
";

    #[test]
    fn every_command_has_a_section_below_the_one_it_belongs_to() {
        let page = page(|arguments| {
            Ok(match arguments {
                ["--help"] => TOP.into(),
                ["key", "--help"] => "Commands:\n  create  Make one   \n  help    Print this\n".into(),
                other => format!("help of {}\n\n", other.join(" ")),
            })
        })
        .unwrap();
        let titles: Vec<&str> = page.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(titles, ["## `sluice`", "## `sluice serve`", "## `sluice key`", "## `sluice key create`"]);
        assert!(page.contains("```text\nhelp of key create --help\n```\n"), "{page}");
        assert!(page.contains("  create  Make one\n"), "no spaces at the end of a line");
    }
}

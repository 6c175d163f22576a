//! Which crate may use which.
//!
//! The layers of Sluice do not name each other; they meet in `kernel` and are joined in `server`. The table below is
//! that drawing, and this check is what keeps it true. It says nothing about how crates use each other.

mod graph;
mod hyper;

use std::fmt;
use std::process::ExitCode;

pub(crate) use graph::Graph;
use graph::{Member, Use};

/// The allowed arrows, for normal and build dependencies. A new one needs a decision record in docs/decisions/.
const ARROWS: &[(&str, &[&str])] = &[
    ("access", &["kernel", "tenancy", "wire"]),
    ("bench", &["kernel", "models", "scheduling"]),
    ("infrastructure", &["kernel"]),
    ("kernel", &[]),
    ("models", &["kernel", "sim", "wire"]),
    ("orchestration", &["kernel"]),
    ("scheduling", &["kernel"]),
    (
        "server",
        &["access", "infrastructure", "kernel", "models", "orchestration", "scheduling", "sim", "tenancy", "wire"],
    ),
    ("sim", &[]),
    ("tenancy", &["kernel"]),
    ("testkit", &["kernel"]),
    ("wire", &["kernel"]),
    ("xtask", &[]),
];

/// What tests of any crate may use besides its row: dev-dependencies only.
const FOR_TESTS: &[&str] = &["testkit"];

/// What must not be in a crate's normal dependencies, nor in those of its dependencies: these crates do no I/O.
const PURE: &[(&str, &[&str])] = &[
    ("kernel", &["h2", "http", "http-body", "hyper", "hyper-util", "tokio"]),
    ("wire", &["h2", "hyper", "hyper-util", "tokio"]),
];

/// One thing that is not as it should be, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    place: String,
    what: String,
    remedy: String,
}

/// Checks everything and prints what is wrong.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let graph = Graph::read(None)?;
    let sources = hyper::sources(&graph.root)?;
    let mut violations = forbidden(&graph.members);
    violations.extend(impure(&graph));
    violations.extend(hyper::strays(&sources));
    if violations.is_empty() {
        let arrows: usize = graph.members.iter().map(|member| member.uses.len()).sum();
        println!("arrows: {} crates, {arrows} arrows, all allowed", graph.members.len());
        return Ok(ExitCode::SUCCESS);
    }
    for violation in &violations {
        eprintln!("{violation}");
    }
    eprintln!("arrows: {} not allowed", violations.len());
    Ok(ExitCode::FAILURE)
}

/// The arrows that are not in the table, and the crates that have no row in it.
fn forbidden(members: &[Member]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for member in members {
        match ARROWS.iter().find(|(name, _)| *name == member.name) {
            Some((_, allowed)) => {
                violations.extend(member.uses.iter().filter_map(|arrow| judge(member, arrow, allowed)));
            }
            None => violations.push(Violation {
                place: member.manifest(),
                what: format!("`{}` has no row in the table of arrows", member.name),
                remedy: "add one to ARROWS in crates/xtask/src/arrows.rs, with as few arrows as it needs".into(),
            }),
        }
    }
    violations
}

fn judge(member: &Member, arrow: &Use, allowed: &[&str]) -> Option<Violation> {
    let on = arrow.on.as_str();
    if allowed.contains(&on) || arrow.for_tests && FOR_TESTS.contains(&on) {
        return None;
    }
    let (kind, remedy) = if FOR_TESTS.contains(&on) {
        ("", format!("`{on}` is for tests: move it to [dev-dependencies]"))
    } else {
        let list = if allowed.is_empty() { "nothing of the house".into() } else { allowed.join(", ") };
        let kind = if arrow.for_tests { " (in tests)" } else { "" };
        (
            kind,
            format!(
                "`{}` may use: {list}. Drop the dependency: what two layers share belongs in `kernel`, and they are \
                 joined in `server`. Or decide otherwise: a row in ARROWS (crates/xtask/src/arrows.rs) and a record \
                 in docs/decisions/",
                member.name
            ),
        )
    };
    Some(Violation {
        place: member.manifest(),
        what: format!("`{}` → `{on}`{kind} is not an allowed arrow", member.name),
        remedy,
    })
}

/// The pure crates that reach a runtime or a protocol library, by whatever way.
fn impure(graph: &Graph) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, banned) in PURE {
        for way in graph.ways(name, banned) {
            violations.push(Violation {
                place: format!("crates/{name}/Cargo.toml"),
                what: format!("`{name}` must stay free of I/O but has {}", way.join(" → ")),
                remedy: "drop the dependency, or the feature that brings it in; what needs it belongs in another crate"
                    .into(),
            });
        }
    }
    violations
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    {}", self.place, self.what, self.remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, on: &str, for_tests: bool) -> Vec<String> {
        let uses = vec![Use { on: on.into(), for_tests }];
        forbidden(&[Member { name: name.into(), uses }]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_forbidden_arrow_is_found_and_says_what_is_allowed() {
        let found = check("scheduling", "models", false).join("\n");
        assert!(found.starts_with("crates/scheduling/Cargo.toml: `scheduling` → `models` is not an allowed arrow\n"));
        assert!(found.contains("`scheduling` may use: kernel."), "{found}");
    }

    #[test]
    fn an_allowed_arrow_is_no_violation() {
        for (name, on) in [("scheduling", "kernel"), ("models", "sim"), ("server", "access"), ("access", "tenancy")] {
            assert_eq!(check(name, on, false), Vec::<String>::new(), "{name} → {on}");
        }
    }

    #[test]
    fn tests_may_use_testkit_but_nothing_else_beyond_their_row() {
        assert_eq!(check("server", "testkit", true), Vec::<String>::new());
        let shipped = check("server", "testkit", false).join("\n");
        assert!(shipped.contains("move it to [dev-dependencies]"), "{shipped}");
        let beyond = check("scheduling", "models", true).join("\n");
        assert!(beyond.contains("`scheduling` → `models` (in tests)"), "{beyond}");
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        let found = check("manager", "kernel", false).join("\n");
        assert!(found.contains("`manager` has no row"), "{found}");
    }

    #[test]
    fn what_a_pure_crate_reaches_through_another_is_found_with_the_way_there() {
        let graph = Graph::of(&[("kernel", &["bytes"]), ("bytes", &["tokio"]), ("tokio", &[]), ("wire", &["kernel"])]);
        let found: Vec<String> = impure(&graph).into_iter().map(|violation| violation.what).collect();
        assert_eq!(
            found,
            [
                "`kernel` must stay free of I/O but has kernel → bytes → tokio",
                "`wire` must stay free of I/O but has wire → kernel → bytes → tokio",
            ]
        );
    }

    #[test]
    fn every_row_names_only_crates_that_have_a_row() {
        for (name, allowed) in ARROWS {
            for on in *allowed {
                assert!(ARROWS.iter().any(|(row, _)| row == on), "{name} → {on}");
            }
        }
    }
}

//! The report as plain text: for each scenario a table with one column per target.

use std::fmt::Write as _;

use super::{Report, in_order};
use crate::figures::{Figure, Section, show};

pub(super) fn whole(report: &Report) -> String {
    let mut text = format!(
        "Sluice bench, {}{}\n{}, {}, {} open files per process\n\n",
        report.when,
        if report.quick { " (quick: too short to be quoted)" } else { "" },
        report.machine,
        report.kernel,
        report.open_files
    );
    for target in &report.targets {
        writeln!(text, "{}: {}. {}", target.name, target.version, target.about).ok();
    }
    for section in &report.sections {
        writeln!(text, "\n{}", self::section(section)).ok();
    }
    text.push_str(&verdicts(report));
    text
}

pub(super) fn section(section: &Section) -> String {
    let targets = in_order(section.figures.iter().map(|figure| &figure.target));
    let names = in_order(section.figures.iter().map(|figure| &figure.name));
    let mut rows = vec![{
        let mut head = vec!["median (min to max)".to_owned()];
        head.extend(targets.iter().map(|target| (*target).clone()));
        head
    }];
    for name in names {
        let of = |target: &String| {
            let mut figures = section.figures.iter();
            figures.find(|figure| figure.name == *name && figure.target == *target)
        };
        let unit = section.figures.iter().find(|figure| figure.name == *name).map_or("", |figure| figure.unit);
        let label = if unit.is_empty() { (*name).to_owned() } else { format!("{name}, {unit}") };
        let mut row = vec![label];
        row.extend(targets.iter().map(|target| of(target).map_or_else(String::new, cell)));
        rows.push(row);
    }
    let mut text = format!("== {}\n", section.title);
    text.push_str(&aligned(&rows));
    for note in &section.notes {
        writeln!(text, "  note: {note}").ok();
    }
    text
}

pub(super) fn verdicts(report: &Report) -> String {
    let mut text = String::new();
    for verdict in report.sections.iter().flat_map(|section| &section.verdicts) {
        let word = verdict.outcome.word().to_uppercase();
        writeln!(text, "{word:9}  {}: {}", verdict.demand, verdict.measured).ok();
    }
    text
}

/// A figure as a table shows it.
pub(super) fn cell(figure: &Figure) -> String {
    if figure.rounds.len() == 1 || figure.min == figure.max {
        return show(figure.median);
    }
    format!("{} ({} to {})", show(figure.median), show(figure.min), show(figure.max))
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, " {cell:width$} ").ok();
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

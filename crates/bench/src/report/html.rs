//! The report as one HTML file without scripts or outside references: tables, and a bar for each median with
//! a whisker from the least to the greatest round.

use std::fmt::Write as _;

use super::{Report, in_order, text};
use crate::figures::{Figure, Section};

const STYLE: &str = "
body{font:15px/1.45 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}p,li{max-width:52rem}
table{border-collapse:collapse;margin:.8rem 0}td,th{padding:.25rem .8rem;text-align:left;border-bottom:1px solid #d8dee4}
td{font-variant-numeric:tabular-nums;white-space:nowrap}.met{color:#116329}.missed{color:#a40e26;font-weight:600}
.note{color:#57606a}.plots{display:flex;flex-wrap:wrap;gap:1rem 2rem}figure{margin:0}figcaption{font-size:.85rem;color:#57606a}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}td,th{border-color:#30363d}.met{color:#3fb950}
.missed{color:#f85149}.note,figcaption{color:#8d96a0}svg text{fill:#e6edf3}}
";

/// Width of the longest bar and height of one, in pixels.
const BAR_WIDTH: f64 = 260.0;
const BAR_HEIGHT: usize = 18;

/// Figures that are context, not results, and get no plot.
const UNPLOTTED: [&str; 4] = ["noise", "load client", "stub upstream", "of it"];

/// A colour for each target that has one of its own.
const COLOURS: [(&str, &str); 3] = [("direct", "#8c959f"), ("nginx", "#2da44e"), ("sluice", "#0969da")];

pub(super) fn page(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Sluice bench, {when}</title>\
         <style>{STYLE}</style><h1>Sluice bench, {when}</h1><p>{}, {}, {} open files per process.{}</p>",
        escaped(&report.machine),
        escaped(&report.kernel),
        report.open_files,
        if report.quick { " <b>A quick run: too short to be quoted.</b>" } else { "" },
        when = escaped(&report.when),
    );
    page.push_str("<ul>");
    for target in &report.targets {
        let (version, about) = (escaped(&target.version), escaped(&target.about));
        write!(page, "<li><b>{}</b> ({version}): {about}</li>", target.name).ok();
    }
    page.push_str("</ul>");
    page.push_str(&verdicts(report));
    for section in &report.sections {
        page.push_str(&whole_section(section));
    }
    page
}

fn verdicts(report: &Report) -> String {
    let verdicts: Vec<_> = report.sections.iter().flat_map(|section| &section.verdicts).collect();
    if verdicts.is_empty() {
        return String::new();
    }
    let mut html = String::from("<h2>Demands</h2><table><tr><th>demand<th>measured<th></tr>");
    for verdict in verdicts {
        let word = verdict.outcome.word();
        let (demand, measured) = (escaped(&verdict.demand), escaped(&verdict.measured));
        write!(html, "<tr><td>{demand}<td>{measured}<td class=\"{word}\">{word}</tr>").ok();
    }
    html + "</table>"
}

fn whole_section(section: &Section) -> String {
    let targets = in_order(section.figures.iter().map(|figure| &figure.target));
    let names = in_order(section.figures.iter().map(|figure| &figure.name));
    let mut html = format!(
        "<h2>{}</h2><p>{}</p><table><tr><th>median (min to max)",
        escaped(&section.title),
        escaped(&section.about)
    );
    for target in &targets {
        write!(html, "<th>{target}").ok();
    }
    html.push_str("</tr>");
    let mut plots = String::new();
    for name in names {
        let figures: Vec<&Figure> = section.figures.iter().filter(|figure| figure.name == *name).collect();
        let unit = figures.first().map_or("", |figure| figure.unit);
        write!(html, "<tr><td>{name}{}{unit}", if unit.is_empty() { "" } else { ", " }).ok();
        for target in &targets {
            let figure = figures.iter().find(|figure| figure.target == **target);
            write!(html, "<td>{}", figure.map_or_else(String::new, |figure| text::cell(figure))).ok();
        }
        html.push_str("</tr>");
        if !unit.is_empty() && !UNPLOTTED.iter().any(|start| name.starts_with(start)) {
            plots.push_str(&plot(name, unit, &figures));
        }
    }
    write!(html, "</table><div class=\"plots\">{plots}</div>").ok();
    for note in &section.notes {
        write!(html, "<p class=\"note\">{}</p>", escaped(note)).ok();
    }
    html
}

fn plot(name: &str, unit: &str, figures: &[&Figure]) -> String {
    let longest = figures.iter().map(|figure| figure.max).fold(f64::MIN_POSITIVE, f64::max);
    let scale = BAR_WIDTH / longest;
    let height = figures.len() * BAR_HEIGHT;
    let mut bars = String::new();
    for (row, figure) in figures.iter().enumerate() {
        let colour =
            COLOURS.iter().find(|(target, _)| *target == figure.target).map_or("#8250df", |(_, colour)| colour);
        let (top, middle) = (row * BAR_HEIGHT + 3, row * BAR_HEIGHT + 9);
        // A difference can be negative in a noisy round; a bar cannot.
        let [low, mid, high] = [figure.min, figure.median, figure.max].map(|value| 60.0 + (value * scale).max(0.0));
        write!(
            bars,
            "<text x=\"0\" y=\"{}\" font-size=\"12\">{}</text>\
             <rect x=\"60\" y=\"{top}\" width=\"{:.1}\" height=\"12\" fill=\"{colour}\"/>\
             <path d=\"M{low:.1} {middle}H{high:.1}\" stroke=\"#1b1f24\" stroke-width=\"1.5\"/>",
            middle + 4,
            escaped(&figure.target),
            mid - 60.0
        )
        .ok();
    }
    format!(
        "<figure><figcaption>{name}, {unit}</figcaption><svg width=\"{:.0}\" height=\"{height}\" role=\"img\" \
         aria-label=\"{name}\">{bars}</svg></figure>",
        BAR_WIDTH + 70.0
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

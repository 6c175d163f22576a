//! The picture of a trace: for each load the p99 of the time to the first token, a bar per policy, and how much was reused.
//!
//! Everything is written to a `String`, which cannot fail: that is what is behind each `.ok()`.

use std::fmt::Write as _;

use super::Row;
use super::policy::OURS;

const LEFT: f64 = 184.0;
const PANEL: f64 = 190.0;
const BAR: f64 = 110.0;
const ROW: f64 = 26.0;
const TOP: f64 = 92.0;

const STYLE: &str = "
    .paper { fill: #ffffff; stroke: #d0d7de; }
    .name { fill: #1f2328; font-size: 14px; font-weight: 600; }
    .text { fill: #1f2328; font-size: 12px; }
    .faint { fill: #59636e; font-size: 12px; }
    .other { fill: #8c959f; }
    .ours { fill: #0969da; }
    .line { stroke: #9a6700; stroke-width: 1.5; stroke-dasharray: 4 3; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0d1117; stroke: #3d444d; }
      .name, .text { fill: #f0f6fc; }
      .faint { fill: #9198a1; }
      .other { fill: #656c76; }
      .ours { fill: #4493f8; }
      .line { stroke: #d29922; }
    }
";

/// A column of bars.
struct Panel<'a> {
    title: String,
    rows: Vec<&'a Row>,
    value: fn(&Row) -> f64,
    show: fn(f64) -> String,
    /// A value marked by a line.
    mark: Option<f64>,
}

/// Draws the rows of one trace, which have one memory and any number of loads.
pub(super) fn draw(name: &str, about: &str, rows: &[&Row]) -> String {
    let groups: Vec<Vec<&Row>> = rows.chunk_by(|a, b| a.load == b.load).map(<[&Row]>::to_vec).collect();
    let mut panels: Vec<Panel<'_>> = groups
        .iter()
        .map(|rows| Panel {
            title: format!("p99 TTFT, load {}", rows.first().map_or(f64::NAN, |row| row.load)),
            rows: rows.clone(),
            value: |row| row.ttft_p99_s,
            show: |seconds| format!("{seconds:.1} s"),
            mark: rows.first().map(|row| row.floor_p99_s),
        })
        .collect();
    panels.extend(groups.last().map(|rows| Panel {
        title: format!("reused, load {}", rows.first().map_or(f64::NAN, |row| row.load)),
        rows: rows.clone(),
        value: |row| 100.0 * row.hit,
        show: |percent| format!("{percent:.1} %"),
        mark: rows.first().map(|row| 100.0 * row.ceiling),
    }));
    let policies: Vec<&str> = groups.first().into_iter().flatten().map(|row| row.policy).collect();
    let (width, height) = (LEFT + PANEL * panels.len() as f64 + 20.0, TOP + ROW * policies.len() as f64 + 44.0);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-labelledby="title desc" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif">
  <title id="title">Ways of routing on the trace {name}</title>
  <desc id="desc">Bars compare the 99th percentile of the time to the first token, and the share of prompts reused, of {} ways of routing.</desc>
  <style>{STYLE}  </style>
  <rect class="paper" x="0.5" y="0.5" width="{}" height="{}" rx="6"/>
  <text class="name" x="20" y="28">{name}</text>
  <text class="faint" x="20" y="48">{about}</text>
"#,
        policies.len(),
        width - 1.0,
        height - 1.0
    );
    for (at, policy) in policies.iter().enumerate() {
        let class = if *policy == OURS { "name" } else { "text" };
        writeln!(svg, r#"  <text class="{class}" font-size="12" x="20" y="{}">{policy}</text>"#, baseline(at)).ok();
    }
    for (at, panel) in panels.iter().enumerate() {
        panel.draw(&mut svg, LEFT + PANEL * at as f64);
    }
    let foot = "8 workers with GPU and host memory. Dashed: what no routing can beat (TTFT: every call alone, all reused; reuse: one cache without an end).";
    writeln!(svg, "  <text class=\"faint\" x=\"20\" y=\"{}\">{foot}</text>\n</svg>", height - 16.0).ok();
    svg
}

fn baseline(at: usize) -> f64 {
    TOP + ROW * at as f64 + 16.0
}

// === impl Panel ===

impl Panel<'_> {
    fn draw(&self, svg: &mut String, left: f64) {
        let values = self.rows.iter().map(|row| (self.value)(row));
        let most = values.chain(self.mark).fold(f64::MIN_POSITIVE, f64::max);
        writeln!(svg, r#"  <text class="text" x="{left}" y="{}">{}</text>"#, TOP - 10.0, self.title).ok();
        for (at, row) in self.rows.iter().enumerate() {
            let value = (self.value)(row);
            let (wide, y) = (value / most * BAR, TOP + ROW * at as f64 + 4.0);
            let class = if row.policy == OURS { "ours" } else { "other" };
            writeln!(svg, r#"  <rect class="{class}" x="{left}" y="{y}" width="{wide:.1}" height="16" rx="2"/>"#).ok();
            let (x, shown) = (left + wide + 6.0, (self.show)(value));
            writeln!(svg, r#"  <text class="text" x="{x:.1}" y="{}">{shown}</text>"#, baseline(at)).ok();
        }
        if let Some(mark) = self.mark {
            let (x, bottom) = (left + mark / most * BAR, TOP + ROW * self.rows.len() as f64);
            writeln!(svg, r#"  <line class="line" x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{bottom}"/>"#).ok();
        }
    }
}

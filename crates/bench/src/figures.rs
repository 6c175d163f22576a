//! Figures, how they are gathered over rounds, and what is demanded of them.

use serde::Serialize;

/// One quantity of one target, measured once per round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    pub(crate) target: String,
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) rounds: Vec<f64>,
}

/// The figure that says how noisy a round was: what every target's measurement ends with.
pub(crate) const NOISE: &str = "noise: CPU used by others";

/// Bound: a round is quiet if others used no more of the machine than this while any target was measured.
/// Above it, percentiles tell more about the others than about the proxy.
const QUIET_PERCENT: f64 = 10.0;

/// Whether a demand was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Met,
    Missed,
    /// No round was quiet enough to say.
    Undecided,
}

/// A demand on Sluice and what became of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Verdict {
    pub(crate) demand: String,
    pub(crate) measured: String,
    pub(crate) outcome: Outcome,
}

/// What one scenario found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Section {
    pub(crate) id: &'static str,
    pub(crate) title: String,
    pub(crate) about: String,
    pub(crate) figures: Vec<Figure>,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) notes: Vec<String>,
}

/// The middle of the values; the mean of the two middle ones where their number is even; NaN without values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle).copied().unwrap_or(f64::NAN);
    if sorted.len() % 2 == 1 {
        return upper;
    }
    let lower = sorted.get(middle.saturating_sub(1)).copied().unwrap_or(f64::NAN);
    f64::midpoint(lower, upper)
}

// === impl Outcome ===

impl Outcome {
    pub(crate) fn of(met: bool) -> Self {
        if met { Self::Met } else { Self::Missed }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Undecided => "undecided",
        }
    }
}

// === impl Figure ===

impl Figure {
    fn new(target: &str, name: &'static str, unit: &'static str) -> Self {
        Self {
            target: target.to_owned(),
            name,
            unit,
            median: f64::NAN,
            min: f64::NAN,
            max: f64::NAN,
            rounds: Vec::new(),
        }
    }

    fn push(&mut self, value: f64) {
        self.rounds.push(value);
        self.median = median(&self.rounds);
        self.min = self.rounds.iter().copied().fold(f64::INFINITY, f64::min);
        self.max = self.rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    }
}

// === impl Section ===

impl Section {
    pub(crate) fn new(id: &'static str, title: impl Into<String>, about: impl Into<String>) -> Self {
        Self {
            id,
            title: title.into(),
            about: about.into(),
            figures: Vec::new(),
            verdicts: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds one round's value.
    pub(crate) fn put(&mut self, target: &str, name: &'static str, unit: &'static str, value: f64) {
        let known = self.figures.iter().position(|figure| figure.target == target && figure.name == name);
        if known.is_none() {
            self.figures.push(Figure::new(target, name, unit));
        }
        let last = self.figures.len().saturating_sub(1);
        if let Some(figure) = self.figures.get_mut(known.unwrap_or(last)) {
            figure.push(value);
        }
    }

    /// The values of a figure, round by round; empty where it was not measured.
    pub(crate) fn rounds(&self, target: &str, name: &str) -> &[f64] {
        let found = self.figures.iter().find(|figure| figure.target == target && figure.name == name);
        found.map_or(&[], |figure| &figure.rounds)
    }

    /// Adds, for each round, what `combine` makes of the two targets' values in that round. Comparing within
    /// a round is what makes a slow minute of the machine harmless: it hits both.
    pub(crate) fn compare(
        &mut self,
        name: &'static str,
        (of, to): (&str, &str),
        (label, unit): (&'static str, &'static str),
        combine: fn(f64, f64) -> f64,
    ) {
        let of_rounds = self.rounds(of, name);
        let to_rounds = self.rounds(to, name);
        let combined: Vec<f64> =
            of_rounds.iter().zip(to_rounds).map(|(of_value, to_value)| combine(*of_value, *to_value)).collect();
        for value in combined {
            self.put(of, label, unit, value);
        }
    }

    /// Demands that the median of a figure of Sluice over the quiet rounds is at most `limit`. Nothing is
    /// demanded of what was not measured.
    pub(crate) fn demand_at_most(&mut self, name: &str, limit: f64) {
        self.demand(name, ("≤", limit), |value, limit| value <= limit);
    }

    /// Demands that the median of a figure of Sluice over the quiet rounds is at least `limit`.
    pub(crate) fn demand_at_least(&mut self, name: &str, limit: f64) {
        self.demand(name, ("≥", limit), |value, limit| value >= limit);
    }

    /// Demands that a count of failures is zero in every round, quiet or not.
    pub(crate) fn demand_none(&mut self, name: &str) {
        let rounds = self.rounds("sluice", name);
        if rounds.is_empty() {
            return;
        }
        let sum: f64 = rounds.iter().sum();
        self.verdicts.push(Verdict {
            demand: format!("{}: no {name}", self.id),
            measured: show(sum),
            outcome: Outcome::of(sum == 0.0),
        });
    }

    fn demand(&mut self, name: &str, (sign, limit): (&str, f64), holds: fn(f64, f64) -> bool) {
        let Some(figure) = self.figures.iter().find(|figure| figure.target == "sluice" && figure.name == name) else {
            return;
        };
        let unit = if figure.unit.is_empty() { String::new() } else { format!(" {}", figure.unit) };
        let mut quiet = Figure::new(&figure.target, figure.name, figure.unit);
        for (round, value) in figure.rounds.iter().enumerate() {
            if self.is_quiet(round) {
                quiet.push(*value);
            }
        }
        let (all, kept) = (figure.rounds.len(), quiet.rounds.len());
        let span = if all > 1 { format!(" ({} to {})", show(quiet.min), show(quiet.max)) } else { String::new() };
        let rounds = if kept < all { format!(", {kept} of {all} rounds were quiet") } else { String::new() };
        let (measured, outcome) = if kept == 0 {
            (format!("{}{unit}, but no round was quiet", show(figure.median)), Outcome::Undecided)
        } else {
            (format!("{}{unit}{span}{rounds}", show(quiet.median)), Outcome::of(holds(quiet.median, limit)))
        };
        self.verdicts.push(Verdict { demand: format!("{}: {name} {sign} {limit}{unit}", self.id), measured, outcome });
    }

    /// Whether others left the machine alone in this round. Where noise was not measured, all rounds count.
    fn is_quiet(&self, round: usize) -> bool {
        let mut noise = self.figures.iter().filter(|figure| figure.name == NOISE);
        noise.all(|figure| figure.rounds.get(round).is_none_or(|percent| *percent <= QUIET_PERCENT))
    }
}

/// A number as people write it: three digits or so.
pub(crate) fn show(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "–".to_owned(),
        size if size >= 100.0 || value == value.trunc() => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_not_moved_by_one_wild_round() {
        assert_eq!(median(&[3.0, 1000.0, 1.0]), 3.0);
        assert_eq!(median(&[4.0, 2.0]), 3.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn ratios_are_taken_within_each_round() {
        let mut section = Section::new("x", "", "");
        for (ours, theirs) in [(10.0, 10.0), (40.0, 20.0), (15.0, 10.0)] {
            section.put("sluice", "cost", "µs", ours);
            section.put("nginx", "cost", "µs", theirs);
        }
        section.compare("cost", ("sluice", "nginx"), ("ratio", "×"), |of, to| of / to);
        assert_eq!(section.rounds("sluice", "ratio"), [1.0, 2.0, 1.5]);
        section.demand_at_most("ratio", 1.4);
        section.demand_at_least("ratio", 1.5);
        section.demand_at_most("never measured", 1.0);
        let outcomes: Vec<Outcome> = section.verdicts.iter().map(|verdict| verdict.outcome).collect();
        assert_eq!(outcomes, [Outcome::Missed, Outcome::Met]);
    }

    #[test]
    fn noisy_rounds_decide_nothing_but_excuse_no_failure() {
        let mut section = Section::new("x", "", "");
        for (noise, cost, failed) in [(50.0, 9.0, 1.0), (2.0, 1.0, 0.0), (3.0, 1.0, 0.0)] {
            section.put("direct", NOISE, "%", noise);
            section.put("sluice", "cost", "µs", cost);
            section.put("sluice", "failed", "", failed);
        }
        section.put("sluice", "loud", "µs", 1.0);
        section.demand_at_most("cost", 1.0);
        section.demand_none("failed");
        section.demand_at_most("loud", 1.0);
        let outcomes: Vec<Outcome> = section.verdicts.iter().map(|verdict| verdict.outcome).collect();
        assert_eq!(outcomes, [Outcome::Met, Outcome::Missed, Outcome::Undecided]);
    }
}

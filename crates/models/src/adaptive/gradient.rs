//! The limit as a state machine: grows while answers begin as quickly as ever, shrinks when they do not.
//!
//! After the published ideas of TCP Vegas (Brakmo and Peterson 1995) and of Netflix's concurrency limits (gradient of the
//! time an answer takes to the time it takes without a queue), with what is known of their weaknesses:
//!
//! - *Long prompts take long.* What is compared is the lower quartile of a window of calls: a queue in the backend delays
//!   every call, a long prompt only itself. (Dividing by the prompt's length is no better: cached prefixes make long
//!   prompts quick.)
//! - *The base drifts upwards* where it is an average under constant load: a queue that is always there becomes normal.
//!   Here it learns only from windows without a sign of a queue, and from time to time the limit is lowered to see
//!   whether answers come quicker with less to do. If they do there was a queue, and the limit stays where it is.
//! - *Slower work is no queue.* When a lowered limit makes nothing quicker, the work itself has become slower: that is the
//!   new base, and the limit goes back.
//! - *A limit that is not in use teaches nothing.* It then neither grows nor shrinks; with half of it in use there is no
//!   queue of our making, and the base is learned for free.
//! - *A limit takes time to act.* Only calls that began under the present limit count.
//!
//! Reads no clock and holds no lock.

use std::time::Duration;

use kernel::Moment;

use super::Awaited;
use crate::settings::AdaptiveSettings;

/// What is known of one instance.
#[derive(Debug)]
pub(super) struct Gradient {
    limit: f64,
    /// Up to here the limit grows quickly: the last one known to be too high, a step down from it.
    familiar: f64,
    /// How long a first piece and a whole answer take without a queue, in seconds.
    base: [Option<f64>; 2],
    window: Window,
    /// The limit is lower than it might be, to see what comes of it.
    trial: Option<Trial>,
    /// Windows since the last trial or valley.
    windows: u32,
    /// When the limit last changed.
    changed: Moment,
}

/// Calls that began under the present limit.
#[derive(Debug)]
struct Window {
    since: Moment,
    /// Seconds waited, by what for.
    waits: [Vec<f64>; 2],
    failures: usize,
    /// The most calls the instance had at once.
    peak: u32,
}

/// How it was before the limit was lowered.
#[derive(Debug, Clone, Copy)]
struct Trial {
    limit: f64,
    slowness: f64,
    /// Whether nothing was wrong.
    probe: bool,
}

/// Bound: calls in a window, as many as the limit within these. Fewer make a quartile of chance, more make a slow start.
const WINDOW: (f64, f64) = (12.0, 32.0);
/// So many whole answers tell as much as one first piece: how long they are is mostly chance.
const WHOLES: usize = 4;
/// Bound: no window is shorter; what happens within a second is one event.
const WINDOW_TIME: Duration = Duration::from_secs(1);
/// Bound: calls kept of each kind in a window, enough to fill it; at more than that in a second the first tell enough.
const KEPT: usize = 160;
/// A limit is in use from this share of it, as long as there are whole calls.
const IN_USE: f64 = 0.9;
/// Up to this share of it there is no queue of our making.
const VALLEY: f64 = 0.5;
/// How far a limit is lowered at the first sign of a queue, when it is most likely just beyond the knee.
const NUDGE: f64 = 0.9;
/// How far at each further sign, after failures, and for a trial. Bound: with a queue, three quarters of the calls wait at
/// most three quarters of the time, whatever the limit: enough to be told from chance.
const STEP: f64 = 0.75;
/// How far it is lowered, step by step, before slowness is believed to be no queue. Bound: a wrong belief makes a queue the
/// base, so it takes more than the trial when nothing was wrong.
const PROOF: f64 = 0.6;
/// A trial has helped when answers come so many times as quickly: where nothing was wrong, and where there was. With a queue
/// it would be 1 / `STEP` and 1 / `PROOF` at the least.
const HELPS: (f64, f64) = (1.2, 1.3);
/// A trial after so many windows in use. Bound: it costs a quarter of one window's calls, so less than a hundredth.
const TRIAL_EVERY: u32 = 40;
/// How quickly the base follows windows without a queue, and those with nothing to do.
const FOLLOW: (f64, f64) = (0.1, 0.5);
/// Below the familiar limit, and while there is none, each window adds half. From there on half a root, at least one call:
/// as Gradient2 does, which adds a whole one, but a backend that works on 64 notices eight more.
const FAST: f64 = 1.5;
/// A share of failures that is no accident any more.
const FAILING: f64 = 0.2;

// === impl Gradient ===

impl Gradient {
    pub(super) fn new(rules: &AdaptiveSettings) -> Self {
        Self {
            limit: f64::from(rules.initial),
            familiar: f64::INFINITY,
            base: [None; 2],
            window: Window::new(Moment::default()),
            trial: None,
            // Where it begins may be too high already: looked into at once.
            windows: TRIAL_EVERY,
            changed: Moment::default(),
        }
    }

    /// The limit in whole calls, within the rules.
    pub(super) fn limit(&self, rules: &AdaptiveSettings) -> u32 {
        (self.limit as u32).clamp(rules.min, rules.max.max(rules.min))
    }

    /// What was awaited came after so long, while the instance had `busy` calls.
    pub(super) fn succeeded(
        &mut self,
        rules: &AdaptiveSettings,
        (awaited, took): (Awaited, Duration),
        busy: u32,
        now: Moment,
    ) {
        if now.since(self.changed) < took {
            return;
        }
        self.window.peak = self.window.peak.max(busy);
        let [pieces, wholes] = &mut self.window.waits;
        let waits = if awaited == Awaited::FirstPiece { pieces } else { wholes };
        if waits.len() < KEPT {
            waits.push(took.as_secs_f64());
        }
        self.close(rules, now);
    }

    /// A call failed; `overloaded` where the instance said, or showed, that it was too much.
    pub(super) fn failed(&mut self, rules: &AdaptiveSettings, overloaded: bool, now: Moment) {
        self.window.failures += 1;
        // One event is answered once: those that fail meanwhile began under the limit that was too high.
        if overloaded && now.since(self.changed) >= WINDOW_TIME {
            self.cut(rules, now);
        } else {
            self.close(rules, now);
        }
    }

    /// Draws its conclusions once the window is full.
    fn close(&mut self, rules: &AdaptiveSettings, now: Moment) {
        let wanted = self.limit.clamp(WINDOW.0, WINDOW.1) as usize;
        if self.window.worth() < wanted || now.since(self.window.since) < WINDOW_TIME {
            return;
        }
        let window = std::mem::replace(&mut self.window, Window::new(now));
        if window.failures as f64 >= FAILING * window.calls() as f64 {
            return self.cut(rules, now);
        }
        match window.slowness(&self.base) {
            Some(slowness) => self.judge(rules, &window, slowness, now),
            None => self.learn(&window, 1.0),
        }
        // What is new has no base yet.
        self.learn(&window, 0.0);
    }

    fn judge(&mut self, rules: &AdaptiveSettings, window: &Window, slowness: f64, now: Moment) {
        let (peak, limit) = (f64::from(window.peak), f64::from(self.limit(rules)));
        if peak < (IN_USE * limit).ceil() {
            if peak <= VALLEY * limit {
                self.learn(window, FOLLOW.1);
                self.windows = 0;
            }
            if let Some(Trial { limit, probe: true, .. }) = self.trial.take() {
                self.set(rules, limit, now);
            }
            return;
        }
        self.windows += 1;
        let tolerance = 1.0 + f64::from(rules.tolerance_percent) / 100.0;
        let step = if self.trial.is_some() { STEP } else { NUDGE };
        if let Some(trial) = self.trial.filter(|trial| trial.is_due(self.limit, rules)) {
            self.trial = None;
            if !trial.has_helped(slowness) {
                // Less to do has made nothing quicker.
                self.learn(window, 1.0);
                return self.set(rules, trial.limit, now);
            }
            if trial.probe {
                // There was a queue, and there may still be one: look again at once.
                self.learn(window, 1.0);
                self.familiar = self.limit;
                return self.lower(rules, STEP, Trial { limit: self.limit, slowness: 1.0, probe: true }, now);
            }
        }
        if slowness > tolerance {
            let mut trial = self.trial.unwrap_or(Trial { limit: self.limit, slowness, probe: false });
            // A queue that was still growing when it was noticed tells less than the one it has become.
            trial.slowness = trial.slowness.max(slowness);
            self.lower(rules, step, trial, now);
            self.familiar = self.limit;
            return;
        }
        self.trial = None;
        self.learn(window, FOLLOW.0);
        if self.windows >= TRIAL_EVERY {
            return self.lower(rules, STEP, Trial { limit: self.limit, slowness, probe: true }, now);
        }
        let slow = self.limit + (self.limit.sqrt() / 2.0).max(1.0);
        let fast = (self.limit * FAST).min(self.familiar);
        self.set(rules, fast.max(slow), now);
    }

    fn lower(&mut self, rules: &AdaptiveSettings, step: f64, trial: Trial, now: Moment) {
        self.windows = if trial.probe { 0 } else { self.windows };
        self.trial = Some(trial);
        self.set(rules, self.limit * step, now);
    }

    /// It was too much, or nothing works: fewer.
    fn cut(&mut self, rules: &AdaptiveSettings, now: Moment) {
        if self.familiar.is_infinite() {
            self.familiar = self.limit * STEP;
        }
        self.trial = None;
        self.set(rules, self.limit * STEP, now);
    }

    fn set(&mut self, rules: &AdaptiveSettings, limit: f64, now: Moment) {
        let before = self.limit(rules);
        self.limit = limit.clamp(f64::from(rules.min), f64::from(rules.max.max(rules.min)));
        if self.limit(rules) != before {
            self.changed = now;
            self.window = Window::new(now);
        }
    }

    /// Moves the base so far towards what the window showed; all the way where there was none.
    fn learn(&mut self, window: &Window, so_far: f64) {
        for (base, waits) in self.base.iter_mut().zip(&window.waits) {
            // A few calls make no quartile.
            if (waits.len() as f64) < WINDOW.0 / 2.0 {
                continue;
            }
            if let Some(seen) = quartile(waits.clone()) {
                *base = Some(base.map_or(seen, |base| base + so_far * (seen - base)));
            }
        }
    }
}

// === impl Trial ===

impl Trial {
    /// Whether the limit is low enough by now to tell.
    fn is_due(&self, limit: f64, rules: &AdaptiveSettings) -> bool {
        let depth = if self.probe { STEP } else { PROOF };
        limit <= (self.limit * depth * 1.001).max(f64::from(rules.min))
    }

    /// Whether answers come so much quicker that there must have been a queue.
    fn has_helped(&self, slowness: f64) -> bool {
        self.slowness >= slowness * if self.probe { HELPS.0 } else { HELPS.1 }
    }
}

// === impl Window ===

impl Window {
    fn new(since: Moment) -> Self {
        Self { since, waits: Default::default(), failures: 0, peak: 0 }
    }

    fn calls(&self) -> usize {
        self.waits.iter().map(Vec::len).sum::<usize>() + self.failures
    }

    /// How many calls it is worth.
    fn worth(&self) -> usize {
        let [pieces, wholes] = &self.waits;
        pieces.len() + wholes.len() / WHOLES + self.failures
    }

    /// How many times as long as without a queue it took; `None` while that is unknown.
    fn slowness(&self, base: &[Option<f64>; 2]) -> Option<f64> {
        let known = self.waits.iter().zip(base).filter_map(|(waits, base)| Some((waits, (*base)?)));
        quartile(known.flat_map(|(waits, base)| waits.iter().map(move |wait| wait / base)).collect())
    }
}

/// The value a quarter lies below.
fn quartile(mut values: Vec<f64>) -> Option<f64> {
    let at = values.len() / 4;
    (at < values.len()).then(|| *values.select_nth_unstable_by(at, f64::total_cmp).1)
}

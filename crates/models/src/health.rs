//! Whether an instance can be trusted with a call, from four witnesses.
//!
//! *Passive*: calls that failed (nginx's `max_fails` / `fail_timeout`, exactly). *Breaker*: the share of
//! failures over a window. *Active*: a path asked regularly. *Rest*: a backend that said `Retry-After` is
//! left alone that long. An instance is usable when none objects. Coming back it starts slowly.

pub(crate) mod active;
pub(crate) mod breaker;
pub(crate) mod passive;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kernel::Moment;

use self::breaker::Breaker;
use self::passive::Passive;
use crate::settings::HealthSettings;

/// Bound: no backend may send itself to rest for longer than this.
const REST_MAX: Duration = Duration::from_secs(300);

/// What is known of one instance's health. All methods take `now` and never wait.
#[derive(Debug)]
pub struct Health(Mutex<State>);

#[derive(Debug)]
struct State {
    passive: Passive,
    breaker: Breaker,
    /// Set while active checks fail.
    active_down: bool,
    /// Active checks failed in a row.
    active_fails: u32,
    rests_until: Moment,
    /// When it last came back from being unusable.
    returned: Option<Moment>,
    /// Whether the last look found it usable; to notice a return.
    was_usable: bool,
}

/// How an instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may be called.
    Usable,
    /// Calls to it failed lately.
    Failing,
    /// Its circuit breaker is open.
    Broken,
    /// Active checks fail.
    Unreachable,
    /// It asked to be left alone.
    Resting,
}

impl Standing {
    /// Whether it may yet be wrong: what calls and checks found is an inference, what a breaker or the backend itself
    /// decided is not.
    pub const fn is_doubt(self) -> bool {
        matches!(self, Self::Failing | Self::Unreachable)
    }

    /// The word used in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Usable => "usable",
            Self::Failing => "failing",
            Self::Broken => "broken",
            Self::Unreachable => "unreachable",
            Self::Resting => "resting",
        }
    }
}

impl Default for Health {
    /// The health of an instance nothing is known of: good.
    fn default() -> Self {
        Self(Mutex::new(State {
            passive: Passive::default(),
            breaker: Breaker::default(),
            active_down: false,
            active_fails: 0,
            rests_until: Moment::default(),
            returned: None,
            was_usable: true,
        }))
    }
}

impl Health {
    /// How it stands now. `alone` says that its pool has no other instance: like nginx, the passive count
    /// then never disables it.
    pub fn standing(&self, rules: &HealthSettings, alone: bool, now: Moment) -> Standing {
        self.look(rules, alone, now).0
    }

    /// How it stands now, and the part of its slots and weight it may use, in 0.1..=1.0 (slow start).
    pub fn look(&self, rules: &HealthSettings, alone: bool, now: Moment) -> (Standing, f64) {
        let mut state = self.lock();
        let standing = state.standing(rules, alone, now);
        let usable = standing == Standing::Usable;
        if usable && !state.was_usable {
            state.returned = Some(now);
        }
        state.was_usable = usable;
        let slow_start = rules.slow_start_ms.duration();
        let ramp = match state.returned {
            Some(returned) if !slow_start.is_zero() && now.since(returned) < slow_start => {
                (now.since(returned).as_secs_f64() / slow_start.as_secs_f64()).max(0.1)
            }
            _ => 1.0,
        };
        (standing, ramp)
    }

    /// It is among those a choice is made from: the share of its weight that failures have left it, in 0.0..=1.0, a
    /// little more each time.
    pub fn considered(&self) -> f64 {
        self.lock().passive.considered()
    }

    /// It was chosen for a call.
    pub fn chosen(&self, rules: &HealthSettings, now: Moment) {
        let mut state = self.lock();
        state.passive.chosen(rules.fail_timeout_ms.duration(), now);
        state.breaker.chosen(&rules.breaker, now);
    }

    /// A call to it succeeded.
    pub fn succeeded(&self, rules: &HealthSettings, now: Moment) {
        let mut state = self.lock();
        state.passive.succeeded();
        state.breaker.record(&rules.breaker, true, now);
    }

    /// A call to it failed by its own fault; `rest` is the `Retry-After` it gave.
    pub fn failed(&self, rules: &HealthSettings, rest: Option<Duration>, now: Moment) {
        let mut state = self.lock();
        state.passive.failed(rules.max_fails, now);
        state.breaker.record(&rules.breaker, false, now);
        if let Some(rest) = rest {
            state.rests_until = state.rests_until.max(now + rest.min(REST_MAX));
        }
    }

    /// A call ended without a verdict, or after it. If it was a probe whose client has left, the next may probe.
    pub fn abandoned(&self, rules: &HealthSettings) {
        let mut state = self.lock();
        state.breaker.abandoned();
        state.passive.abandoned(rules);
    }

    /// An active check ended. Tells whether that changed the verdict.
    pub fn checked(&self, rules: &HealthSettings, healthy: bool) -> bool {
        let mut state = self.lock();
        state.active_fails = if healthy { 0 } else { state.active_fails.saturating_add(1) };
        let down = state.active_fails >= rules.fall.max(1);
        if healthy && state.active_down {
            // The backend proves itself alive again: what calls suffered before is history.
            state.passive = Passive::default();
            state.breaker = Breaker::default();
        }
        std::mem::replace(&mut state.active_down, down) != down
    }

    /// Forgets the verdict of active checks; for when they are switched off.
    pub fn unchecked(&self) {
        let mut state = self.lock();
        (state.active_down, state.active_fails) = (false, 0);
    }

    /// How long until it may be called again, as far as that is known.
    pub fn back_in(&self, rules: &HealthSettings, now: Moment) -> Duration {
        let state = self.lock();
        let rest = state.rests_until.since(now);
        rest.max(state.passive.back_in(rules, now)).max(state.breaker.back_in(now))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn standing(&self, rules: &HealthSettings, alone: bool, now: Moment) -> Standing {
        if self.active_down {
            Standing::Unreachable
        } else if self.rests_until > now {
            Standing::Resting
        } else if !self.breaker.allows(now) {
            Standing::Broken
        } else if !alone && !self.passive.eligible(rules, now) {
            Standing::Failing
        } else {
            Standing::Usable
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::settings::Millis;

    const fn at(millis: u64) -> Moment {
        Moment::from_micros(1_000_000_000 + millis * 1000)
    }

    #[test]
    fn a_backend_that_asks_for_rest_gets_it() {
        let (health, rules) = (Health::default(), HealthSettings::default());
        health.failed(&rules, Some(Duration::from_secs(2)), at(0));
        assert_eq!(health.standing(&rules, false, at(1_999)), Standing::Resting);
        assert_eq!(health.standing(&rules, false, at(2_001)), Standing::Usable);
    }

    #[test]
    fn active_checks_take_it_out_after_fall_failures_and_back_after_one_success() {
        let (health, rules) = (Health::default(), HealthSettings { fall: 2, ..HealthSettings::default() });
        assert!(!health.checked(&rules, false));
        assert_eq!(health.standing(&rules, false, at(0)), Standing::Usable);
        assert!(health.checked(&rules, false));
        assert_eq!(health.standing(&rules, false, at(0)), Standing::Unreachable);
        assert!(health.checked(&rules, true));
        assert_eq!(health.standing(&rules, false, at(0)), Standing::Usable);
    }

    #[test]
    fn slow_start_grows_from_a_tenth_to_the_whole_and_never_applies_at_process_start() {
        let rules = HealthSettings { slow_start_ms: Millis(1_000), fall: 1, ..HealthSettings::default() };
        let health = Health::default();
        assert_eq!(health.look(&rules, false, at(0)).1, 1.0);
        health.checked(&rules, false);
        health.standing(&rules, false, at(1));
        health.checked(&rules, true);
        for (millis, part) in [(1_000, 0.1), (1_500, 0.5), (2_000, 1.0)] {
            assert_eq!(health.look(&rules, false, at(millis)), (Standing::Usable, part));
        }
    }
}

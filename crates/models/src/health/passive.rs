//! nginx's passive checks: `max_fails` and `fail_timeout`, as `ngx_http_upstream_round_robin.c` does them.
//!
//! Consequences people trip over, kept on purpose: failures do not age by themselves (three failures nine
//! seconds apart reach `max_fails=3` under `fail_timeout=10s`); while disabled, one call per `fail_timeout`
//! probes; only a probe's success clears the count. Differs in one point: the clock is finer than a second.

use std::time::Duration;

use kernel::Moment;

use crate::settings::HealthSettings;

/// One peer's state, in nginx's own words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Passive {
    fails: u32,
    accessed: Moment,
    checked: Moment,
    /// `effective_weight` over `weight`.
    trust: f64,
}

impl Default for Passive {
    fn default() -> Self {
        Self { fails: 0, accessed: Moment::default(), checked: Moment::default(), trust: 1.0 }
    }
}

impl Passive {
    /// Whether it may be tried.
    pub(crate) fn eligible(&self, rules: &HealthSettings, now: Moment) -> bool {
        let disabled = rules.max_fails > 0 && self.fails >= rules.max_fails;
        !(disabled && now.since(self.checked) <= rules.fail_timeout_ms.duration())
    }

    /// It was picked. When its time is over, this call is the probe, and the next one waits for another period.
    pub(crate) fn chosen(&mut self, fail_timeout: Duration, now: Moment) {
        if now.since(self.checked) > fail_timeout {
            self.checked = now;
        }
    }

    /// A call succeeded. Only a probe (picked since the last failure, after its time) clears the count.
    pub(crate) fn succeeded(&mut self) {
        if self.accessed < self.checked {
            self.fails = 0;
        }
    }

    /// A call failed.
    pub(crate) fn failed(&mut self, max_fails: u32, now: Moment) {
        self.fails = self.fails.saturating_add(1);
        (self.accessed, self.checked) = (now, now);
        if max_fails > 0 {
            self.trust = (self.trust - 1.0 / f64::from(max_fails)).max(0.0);
        }
    }

    /// A call ended without telling how it went: were it the probe, the next call is.
    pub(crate) fn abandoned(&mut self, rules: &HealthSettings) {
        if rules.max_fails > 0 && self.fails >= rules.max_fails {
            self.checked = self.accessed;
        }
    }

    /// The share of its weight that is left. nginx gives one unit of weight back whenever the peer is looked at; weights
    /// here are shares, so it is a tenth.
    pub(crate) fn considered(&mut self) -> f64 {
        let trust = self.trust;
        self.trust = (trust + 0.1).min(1.0);
        trust
    }

    /// How long until it may be tried again.
    pub(crate) fn back_in(&self, rules: &HealthSettings, now: Moment) -> Duration {
        if self.eligible(rules, now) {
            Duration::ZERO
        } else {
            (self.checked + rules.fail_timeout_ms.duration()).since(now)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::settings::Millis;
    use proptest::prelude::*;

    fn rules(max_fails: u32, fail_timeout_ms: u64) -> HealthSettings {
        HealthSettings { max_fails, fail_timeout_ms: Millis(fail_timeout_ms), ..HealthSettings::default() }
    }

    const fn at(secs: u64) -> Moment {
        Moment::from_micros(100_000_000 + secs * 1_000_000)
    }

    #[test]
    fn failures_do_not_age_by_themselves() {
        let (rules, mut peer) = (rules(3, 10_000), Passive::default());
        for secs in [0, 9, 18] {
            peer.chosen(rules.fail_timeout_ms.duration(), at(secs));
            assert!(peer.eligible(&rules, at(secs)));
            peer.failed(3, at(secs));
        }
        assert!(!peer.eligible(&rules, at(19)));
    }

    #[test]
    fn while_disabled_one_probe_goes_out_per_fail_timeout_and_its_success_clears_the_count() {
        let (rules, mut peer) = (rules(1, 10_000), Passive::default());
        peer.failed(1, at(0));
        assert!(!peer.eligible(&rules, at(10)));
        assert!(peer.eligible(&rules, at(11)));
        peer.chosen(rules.fail_timeout_ms.duration(), at(11));
        assert!(!peer.eligible(&rules, at(12)), "the probe is out: nobody else may try");
        peer.succeeded();
        assert!(peer.eligible(&rules, at(12)));
        assert_eq!(peer.fails, 0);
    }

    #[test]
    fn a_success_that_was_no_probe_clears_nothing() {
        let (rules, mut peer) = (rules(2, 10_000), Passive::default());
        peer.failed(2, at(0));
        peer.chosen(rules.fail_timeout_ms.duration(), at(5));
        peer.succeeded();
        peer.failed(2, at(6));
        assert!(!peer.eligible(&rules, at(7)));
    }

    #[test]
    fn max_fails_zero_never_disables() {
        let (rules, mut peer) = (rules(0, 10_000), Passive::default());
        (0..50).for_each(|secs| peer.failed(0, at(secs)));
        assert!(peer.eligible(&rules, at(50)));
    }

    /// An independent model of the nginx state machine in whole seconds, as its source states it.
    #[derive(Default)]
    struct Oracle {
        fails: u64,
        accessed: u64,
        checked: u64,
    }

    impl Oracle {
        fn eligible(&self, max_fails: u64, timeout: u64, now: u64) -> bool {
            !(max_fails > 0 && self.fails >= max_fails && now - self.checked <= timeout)
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_nginx_on_every_history(
            max_fails in 0u32..4, timeout in 1u64..12, events in proptest::collection::vec((0u64..8, any::<bool>()), 1..200)
        ) {
            let rules = rules(max_fails, timeout * 1000);
            let (mut peer, mut oracle, mut now) = (Passive::default(), Oracle::default(), 100u64);
            for (pause, succeeds) in events {
                now += pause;
                let moment = Moment::from_micros(now * 1_000_000);
                let allowed = oracle.eligible(u64::from(max_fails), timeout, now);
                prop_assert_eq!(peer.eligible(&rules, moment), allowed);
                if !allowed {
                    continue;
                }
                peer.chosen(rules.fail_timeout_ms.duration(), moment);
                if now - oracle.checked > timeout {
                    oracle.checked = now;
                }
                if succeeds {
                    peer.succeeded();
                    if oracle.accessed < oracle.checked {
                        oracle.fails = 0;
                    }
                } else {
                    peer.failed(max_fails, moment);
                    oracle.fails += 1;
                    (oracle.accessed, oracle.checked) = (now, now);
                }
            }
        }
    }
}

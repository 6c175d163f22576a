//! What nginx makes of a pool, recorded from nginx 1.22.1 on loopback, and what is made of the same pool here.
//!
//! One letter is one upstream asked, one word one request; `ab` is a request that failed on a and went on to b.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kernel::call::{Call, Operation, Payload};
use kernel::fleet::{Ask, Choice};
use kernel::settings::Millis;
use kernel::{Attempt, ModelName, Moment, Permit, TenantId, Tokens};

use super::{Fleet, State};
use crate::settings::{BalanceName, InstanceSettings, ModelSettings, VersionSettings};

/// A deployment whose instances never answer: only choices are looked at.
struct Pool {
    fleet: Fleet,
    now: Moment,
    /// Calls under way, by instance.
    held: Vec<(usize, Permit)>,
}

impl Pool {
    fn new(balance: &str, weights: &[u32], max_fails: u32) -> Self {
        let instance = |(nth, weight): (usize, &u32)| InstanceSettings {
            endpoint: Some(format!("http://127.0.0.1:{}", nth + 1)),
            name: None,
            weight: *weight,
            max_concurrency: None,
            kv_tokens: None,
            node: None,
            needs: Default::default(),
            api_key: None,
        };
        let instances = weights.iter().enumerate().map(instance).collect();
        let mut model = ModelSettings::short("m", None, "openai");
        model.versions = vec![VersionSettings { version: "v".into(), weight: 1, upstream_model: None, instances }];
        model.balance = BalanceName(balance.into());
        (model.health.max_fails, model.health.fail_timeout_ms) = (max_fails, Millis(2_000));
        // nginx has no breaker.
        model.health.breaker.failure_percent = 0;
        let fleet = Fleet::new(&[model], &[], &State::default());
        Self { fleet, now: Moment::from_micros(1_000_000_000), held: Vec::new() }
    }

    /// One request, a hundredth of a second after the last, tried until an instance that is none of `down` has it.
    fn ask(&mut self, down: &str) -> String {
        self.now = self.now + Duration::from_millis(10);
        let (mut attempt, mut asked) = (attempt(&self.fleet), String::new());
        let tenant = TenantId::new("t");
        loop {
            let ask = Ask { tenant: &tenant, tokens: Tokens(0), insists: false, below: None };
            let group = &self.fleet.groups[0];
            let Choice::Taken(id, permit) = group.choose(&attempt, &ask, self.now, &mut |_| {}) else {
                panic!("{asked}: nobody is left")
            };
            let at = id.0 as usize;
            asked.push(letter(at));
            let instance = &self.fleet.instances[at];
            if down.contains(letter(at)) {
                instance.vitals.health.failed(&instance.rules, None, self.now);
                attempt.tried.push(id);
            } else {
                instance.vitals.health.succeeded(&instance.rules, self.now);
                self.held.push((at, permit));
                return asked;
            }
        }
    }

    /// So many requests, each answered before the next comes.
    fn sequence(&mut self, requests: usize, down: &str) -> String {
        let one = |_| {
            let asked = self.ask(down);
            self.held.clear();
            asked
        };
        (0..requests).map(one).collect::<Vec<_>>().join(" ")
    }

    /// So many requests whose answers do not end.
    fn hold(&mut self, requests: usize) -> String {
        (0..requests).map(|_| self.ask("")).collect()
    }
}

fn letter(at: usize) -> char {
    char::from(b'a' + u8::try_from(at).unwrap())
}

fn attempt(fleet: &Fleet) -> Attempt {
    let payload = Payload {
        bytes: Bytes::new(),
        model: 0..0,
        prompt: 0..0,
        tools: 0..0,
        force_usage: None,
        blocks: std::sync::OnceLock::new(),
    };
    let call = Call {
        model: ModelName::new("m"),
        operation: Operation::Chat,
        stream: false,
        wants_usage: false,
        payload: Arc::new(payload),
        affinity: None,
        output_max: None,
        choices: 1,
        forward: Arc::new([]),
        plain: None,
    };
    let deployment = Arc::clone(&fleet.roster.models[&ModelName::new("m")].deployments[0]);
    Attempt { call, deployment, tried: Vec::new(), deadline: Moment::from_micros(u64::MAX) }
}

#[test]
fn weighted_round_robin_gives_the_sequences_of_nginx() {
    const RECORDED: [(&[u32], &str); 10] = [
        (&[1, 1], "abab"),
        (&[5, 1, 1], "aabacaaaabacaa"),
        (&[4, 2, 1], "abacabaabacaba"),
        (&[3, 2], "ababaababa"),
        (&[1, 2, 3], "cbacbccbacbc"),
        (&[7, 3, 1], "abaacabaabaabaacabaaba"),
        (&[1, 1, 1], "abcabc"),
        (&[2, 5], "babbbabbabbbab"),
        (&[10, 1], "aaaaabaaaaaaaaaabaaaaa"),
        (&[6, 4, 3, 2, 1], "abcadbaceabadcbaabcadbaceabadcba"),
    ];
    for (weights, recorded) in RECORDED {
        let mut pool = Pool::new("weighted_round_robin", weights, 0);
        assert_eq!(pool.sequence(recorded.len(), "").replace(' ', ""), recorded, "{weights:?}");
    }
}

#[test]
fn least_connections_gives_the_sequences_of_nginx() {
    // While nobody is busy; then with calls that do not end; then once a's have ended.
    const RECORDED: [(&[u32], [&str; 3]); 4] = [
        (&[1, 1, 1], ["abcabcabcabcab", "abccbaabccbaab", "aaaacacbaabccb"]),
        (&[2, 1], ["abaabaabaabaab", "ababaaabaababa", "aaaaaaaaaaabaa"]),
        (&[5, 1, 1], ["aabacaaaabacaa", "abcaaaaacbaaaa", "aaaaaaaaaabaca"]),
        (&[3, 2], ["ababaababaabab", "abababaabaabab", "aaaaaaaaabaaba"]),
    ];
    for (weights, [idle, held, released]) in RECORDED {
        let mut pool = Pool::new("least_connections", weights, 0);
        assert_eq!(pool.sequence(idle.len(), "").replace(' ', ""), idle, "{weights:?}");
        let mut pool = Pool::new("least_connections", weights, 0);
        assert_eq!(pool.hold(held.len()), held, "{weights:?}");
        pool.held.retain(|(at, _)| *at != 0);
        assert_eq!(pool.hold(released.len()), released, "{weights:?}, a idle again");
    }
}

/// a answers, then fails for 14 requests, then answers again after 3.2 s of silence; `fail_timeout=2s`.
struct Failing {
    weights: &'static [u32],
    max_fails: u32,
    before: &'static str,
    /// While a fails, and when it is back: nginx's, then ours.
    during: [&'static str; 2],
    after: [&'static str; 2],
}

/// While a fails nothing differs but who stands in for it. When it is back ours returns more slowly, on purpose: nginx
/// gives a peer one unit of weight back each time it is looked at, so a weight of 1 is whole after one look, whatever
/// `max_fails` said it had lost; and of a weight below `max_fails` it takes nothing at all (1 / 3 is 0 in whole
/// numbers). Weights of 1 are the rule here, so trust is a share of the weight: lost by `1 / max_fails`, regained by
/// tenths.
const FAILING: [Failing; 4] = [
    Failing {
        weights: &[1, 1, 1],
        max_fails: 1,
        before: "a b c",
        during: ["ab c b c b c b c b c b c b c", "ab c b c b c b c b c b c b c"],
        after: ["b c b c a b c a b c a b c a b c", "b c b c b c b c a b c a b c a b"],
    },
    Failing {
        weights: &[1, 1, 1],
        max_fails: 3,
        before: "a b c",
        during: ["ab c b c ab c b ac b c b c b c", "ab c b c ab c b c ab c b c b c"],
        after: ["b c a b c a b c a b c a b c a b", "b c b a c b a c b a c b a c b a"],
    },
    Failing {
        weights: &[5, 1, 1],
        max_fails: 1,
        before: "a a b a c a a",
        during: ["ab c b c b c b c b c b c b c", "ab c b c b c b c b c b c b c"],
        after: ["b c b a a c a a b a a a c a a b", "b c b c a b a a c a a b a a c a"],
    },
    Failing {
        weights: &[2, 1],
        max_fails: 1,
        before: "a b a",
        during: ["ab b b b b b b b b b b b b b", "ab b b b b b b b b b b b b b"],
        after: ["b b a b a a b a a b a a b a a b", "b b b b a b a b a a b a a b a a"],
    },
];

#[test]
fn a_failing_peer_is_asked_as_often_as_nginx_asks_it_and_comes_back_more_gently() {
    for row in FAILING {
        let mut pool = Pool::new("weighted_round_robin", row.weights, row.max_fails);
        let before = pool.sequence(row.before.split(' ').count(), "");
        let during = pool.sequence(14, "a");
        pool.now = pool.now + Duration::from_millis(3_200);
        let after = pool.sequence(16, "");
        assert_eq!([&*before, &*during, &*after], [row.before, row.during[1], row.after[1]], "{:?}", row.weights);
        let tries = |text: &str| text.matches('a').count();
        assert_eq!(tries(&during), tries(row.during[0]), "{:?}", row.weights);
        assert!(tries(&after) <= tries(row.after[0]), "{:?}", row.weights);
    }
}

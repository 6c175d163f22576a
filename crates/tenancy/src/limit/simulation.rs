//! The limiter against an oracle that keeps no state of its kind, and against clients who believe what they are told, on
//! a virtual clock.
//!
//! `SLUICE_SEEDS=n cargo test --release -p tenancy limit::simulation` plays n times as much: with 1000, ten million events
//! against the oracle, and a million calls of obeying clients.

use std::collections::BinaryHeap;
use std::time::Duration;

use kernel::random::Random;
use kernel::{Limits, Terms};

use super::cell::{Cell, Rate};
use super::*;

/// Events against the oracle per unit of `SLUICE_SEEDS`, and calls of clients.
const EVENTS: u64 = 10_000;
const CALLS: u64 = 1_000;
/// Calls a client has in flight at most.
const FAN: u64 = 8;
/// Units played by `cargo test`.
const UNITS: u64 = 30;

#[expect(clippy::disallowed_methods, reason = "how a developer asks for more; nothing of it is in the product")]
fn units() -> u64 {
    std::env::var("SLUICE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(UNITS)
}

/// Says for any stretch of time whether more passed in it than a burst and what comes back meanwhile. After the
/// definition, over all stretches at once: the most that any stretch ending now is short of or over it.
#[derive(Default)]
struct Oracle {
    passed: i128,
    /// The most of `rate × from − passed before it` over all beginnings.
    worst: Option<i128>,
}

impl Oracle {
    /// Whether a unit may pass now: in no stretch ending now there would be too many.
    fn allows(&mut self, rate: Rate, now: Moment) -> bool {
        let (units, period) = (i128::from(rate.units()), i128::from(rate.period()));
        let gone = i128::from(now.as_micros()) * units;
        let begin = gone - self.passed * period;
        let worst = self.worst.map_or(begin, |worst| worst.max(begin));
        self.worst = Some(worst);
        (self.passed + 1) * period - gone + worst <= units * period
    }

    fn pass(&mut self) {
        self.passed += 1;
    }
}

#[test]
fn no_event_passes_that_must_not_and_none_is_held_up_that_may() {
    let (mut passed, mut held) = (0u64, 0u64);
    for seed in 0..units() {
        let random = Random::seeded(seed);
        let period = if random.below(2) == 0 { Rate::SECOND } else { Rate::MINUTE };
        let rate = Rate::new(1 + random.below(997) as u64, period);
        // Around the rate: now slower, now faster, now many at once.
        let mean = period / rate.units();
        let (mut cell, mut oracle, mut now) = (Cell::default(), Oracle::default(), 7u64);
        for _ in 0..EVENTS {
            now += match random.below(8) {
                0..4 => 0,
                4..7 => random.below(2 * mean as usize + 1) as u64,
                _ => random.below(5 * mean as usize + 1) as u64,
            };
            let at = Moment::from_micros(now);
            let passes = cell.wait(rate, at).is_zero();
            assert_eq!(passes, oracle.allows(rate, at), "seed {seed}, at {now}");
            if passes {
                cell.add(rate, 1, at);
                oracle.pass();
            } else {
                let wait = cell.wait(rate, at);
                assert!(
                    cell.wait(rate, at + (wait - Duration::from_micros(1))) > Duration::ZERO,
                    "seed {seed}: too long"
                );
                assert!(cell.wait(rate, at + wait).is_zero(), "seed {seed}: too short");
            }
            (passed, held) = (passed + u64::from(passes), held + u64::from(!passes));
        }
    }
    assert!(passed > EVENTS && held > EVENTS, "both happened: {passed}, {held}");
}

/// A client that does what its answers say, whenever they come: with what it has in flight it stays below what is left, and
/// where nothing is left and nothing in flight it waits for the reset.
struct Client {
    caller: Caller,
    limits: Limits,
    /// As last told; where nothing was told yet, it sends one call and looks.
    left: (u64, u64),
    wait: Moment,
    /// Of the calls that were answered, which was sent last.
    last: u64,
    /// Tokens, at most, of all calls answered so far.
    done: u64,
    /// Calls, and as many tokens as they can take at most: a quarter of their bytes, and what they may be answered.
    flight: (u64, u64),
    sent: u64,
    tokens: u64,
}

/// A call in flight. Its answer leaves with what the limiter says then, and arrives later.
struct Flight {
    at: Moment,
    client: usize,
    sent: u64,
    /// What its client had done when it was sent.
    done: u64,
    most: u64,
    usage: Usage,
    /// Until the answer leaves; then with what it tells.
    taken: Option<Taken>,
    told: View,
}

impl PartialEq for Flight {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Flight {}
impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Flight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.at.cmp(&self.at)
    }
}

impl Client {
    fn new(at: usize, limits: Limits) -> Self {
        let terms = Terms { limits, ..Terms::default() };
        let caller = Caller { tenant: TenantId::new(format!("c{at}")), key: None, terms: Arc::new(terms) };
        Self {
            caller,
            limits,
            left: (1, 1),
            wait: Moment::default(),
            last: 0,
            done: 0,
            flight: (0, 0),
            sent: 0,
            tokens: 0,
        }
    }

    /// Goes by an answer's headers: those of the call sent last say the most, and those of others can only say less is left.
    /// What was answered since it was sent may have taken more than was thought after it was told what is left.
    fn read(&mut self, (sent, done): (u64, u64), view: &View, now: Moment) {
        let of =
            |gauge: Option<Gauge>| gauge.map_or((u64::MAX, Duration::ZERO), |gauge| (gauge.remaining, gauge.reset));
        let ((requests, first), (tokens, second)) = (of(view.requests), of(view.tokens));
        let spent = [(requests, first), (tokens, second)].into_iter().filter(|(left, _)| *left == 0);
        let wait = spent.map(|(_, reset)| now + reset).max().unwrap_or_default();
        if sent < self.last {
            self.left = (requests.min(self.left.0), tokens.min(self.left.1));
            self.wait = wait.max(self.wait);
        } else {
            let sure = tokens.saturating_sub(self.done - done);
            (self.last, self.left, self.wait) = (sent, (requests, sure), wait);
            if sure == 0 {
                self.wait = wait.max(now + second);
            }
        }
    }

    /// Whether it may send now.
    fn may(&mut self, now: Moment) -> bool {
        if self.flight.0 == 0 && self.wait != Moment::default() && self.wait <= now {
            // As many are left again as there can be, of what was spent.
            self.wait = Moment::default();
            let requests = self.limits.rps.into_iter().chain(self.limits.rpm).map(u64::from).min();
            let whole = |left: u64, limit: Option<u64>| if left == 0 { limit.unwrap_or(u64::MAX) } else { left };
            self.left = (whole(self.left.0, requests), whole(self.left.1, self.limits.tpm));
        }
        self.left.0 > self.flight.0 && self.left.1 > self.flight.1
    }
}

/// Plays clients until `calls` calls were answered; gives how many were refused, and each client with how much of the
/// tightest of its limits it got.
fn play(seed: u64, calls: u64) -> (u64, Vec<(Limits, f64)>) {
    let random = Random::seeded(seed);
    let limiter = Arc::new(Limiter::default());
    let kinds = [
        Limits { rps: Some(20), ..Limits::default() },
        Limits { rpm: Some(300), ..Limits::default() },
        Limits { tpm: Some(60_000), ..Limits::default() },
        Limits { rps: Some(10), rpm: Some(240), ..Limits::default() },
        Limits { rpm: Some(600), tpm: Some(90_000), ..Limits::default() },
    ];
    let mut clients: Vec<Client> = kinds.iter().enumerate().map(|(at, limits)| Client::new(at, *limits)).collect();
    let mut flights: BinaryHeap<Flight> = BinaryHeap::new();
    let (start, mut now) = (Moment::from_micros(1_000_000), Moment::from_micros(1_000_000));
    let (mut refused, mut answered, mut sends) = (0, 0, 0);
    let model = ModelName::new("m");
    while answered < calls {
        for (at, client) in clients.iter_mut().enumerate() {
            while client.flight.0 < FAN && client.may(now) {
                let (bytes, most) = (random.below(2000) as u64, 1 + random.below(400) as u64);
                let ask = Ask { bytes, output_max: Some(Tokens(most)), answered: true, choices: 1 };
                match limiter.admit(&client.caller, &model, ask, now) {
                    Ok(taken) => {
                        let input = bytes / 5 + random.below(bytes as usize / 20 + 1) as u64;
                        let output = 1 + random.below(most as usize) as u64;
                        let usage = Usage { input: Tokens(input), output: Tokens(output), ..Usage::default() };
                        let most = bytes / 4 + 1 + most;
                        client.flight = (client.flight.0 + 1, client.flight.1 + most);
                        let leaves = now + Duration::from_micros(1 + random.below(200_000) as u64);
                        sends += 1;
                        flights.push(Flight {
                            at: leaves,
                            client: at,
                            sent: sends,
                            done: client.done,
                            most,
                            usage,
                            taken,
                            told: View::default(),
                        });
                    }
                    Err(told) => {
                        refused += 1;
                        client.left = (0, 0);
                        client.wait = now + told.error.retry_after.unwrap();
                    }
                }
            }
        }
        let waits = clients.iter().filter(|client| client.flight.0 == 0).map(|client| client.wait);
        now = waits.chain(flights.peek().map(|flight| flight.at)).min().unwrap().max(now);
        while flights.peek().is_some_and(|flight| flight.at <= now) {
            let flight = flights.pop().unwrap();
            if let Some(mut taken) = flight.taken {
                taken.correct(&flight.usage, now);
                let told = taken.view(now);
                taken.leave(now);
                let arrives = now + Duration::from_micros(1 + random.below(50_000) as u64);
                flights.push(Flight { at: arrives, taken: None, told, ..flight });
                continue;
            }
            let client = &mut clients[flight.client];
            client.read((flight.sent, flight.done), &flight.told, now);
            client.done += flight.most;
            client.flight = (client.flight.0 - 1, client.flight.1 - flight.most);
            client.sent += 1;
            client.tokens += flight.usage.total().0;
            answered += 1;
        }
    }
    let seconds = now.since(start).as_secs_f64();
    let got = |client: &Client| {
        let limits = client.limits;
        let share = |done: u64, rate: Option<f64>| rate.map_or(0.0, |rate| done as f64 / (rate * seconds));
        let requests = share(client.sent, limits.rps.map(f64::from));
        let minutes = share(client.sent, limits.rpm.map(|rpm| f64::from(rpm) / 60.0));
        let tokens = share(client.tokens, limits.tpm.map(|tpm| tpm as f64 / 60.0));
        (limits, requests.max(minutes).max(tokens))
    };
    (refused, clients.iter().map(got).collect())
}

#[test]
fn a_client_that_goes_by_what_it_is_told_is_never_refused_and_gets_all_its_limit_lets() {
    let calls = CALLS * units();
    let (refused, got) = play(1, calls);
    assert_eq!(refused, 0, "of {calls} calls");
    for (limits, share) in got {
        assert!(share >= 0.98, "{limits:?}: {share}");
    }
}

//! Several processes with one limit, on a virtual clock: the leases against the limit itself.

use std::time::Duration;

use kernel::random::Random;
use kernel::share::{Grant, Wish};
use kernel::{Limits, Terms};

use super::cell::{Cell, Rate};
use super::*;

const RATE: u32 = 400;
/// Between two looks at what is to be exchanged.
const STEP: Duration = Duration::from_millis(5);

/// Where the counter is kept.
#[derive(Default)]
struct Kept {
    cell: Cell,
    exchanges: u64,
}

impl Kept {
    fn exchange(&mut self, wish: Wish, now: Moment) -> Grant {
        let Wish::Rate { units, period, want, owed } = wish else { panic!("{wish:?}") };
        let rate = Rate::new(units, period);
        self.exchanges += 1;
        self.cell.add(rate, owed, now);
        let granted = want.min(self.cell.stand(rate, now).left);
        self.cell.add(rate, i64::try_from(granted).unwrap(), now);
        let stand = self.cell.stand(rate, now);
        Grant { units: granted, left: stand.left, next: stand.next }
    }
}

struct World {
    random: Random,
    kept: Kept,
    nodes: Vec<Arc<Limiter>>,
    caller: Caller,
    now: Moment,
    offered: u64,
    passed: u64,
}

impl World {
    fn new(nodes: u32, seed: u64) -> Self {
        let terms = Terms { limits: Limits { rps: Some(RATE), ..Limits::default() }, ..Terms::default() };
        let all = (0..nodes).map(|_| {
            let limiter = Arc::new(Limiter::default());
            limiter.standing.together(nodes);
            limiter
        });
        Self {
            random: Random::seeded(seed),
            kept: Kept::default(),
            nodes: all.collect(),
            caller: Caller { tenant: TenantId::new("t"), key: None, terms: Arc::new(terms) },
            now: Moment::from_micros(10_000_000),
            offered: 0,
            passed: 0,
        }
    }

    /// So many calls per second at each process for some time; those of `lost` reach nothing that is shared, and their
    /// answers come in only half the cases.
    fn run(&mut self, per_second: &[f64], lasting: Duration, lost: &[usize]) {
        let ends = self.now + lasting;
        let model = ModelName::new("m");
        while self.now < ends {
            for (at, rate) in per_second.iter().enumerate() {
                let calls = rate * STEP.as_secs_f64();
                let calls = calls.floor() as u64 + u64::from(self.random.unit() < calls.fract());
                for _ in 0..calls {
                    let taken = self.nodes[at].admit(&self.caller, &model, Ask::default(), self.now);
                    self.offered += 1;
                    self.passed += u64::from(taken.is_ok());
                    taken.into_iter().flatten().for_each(|taken| taken.leave(self.now));
                }
            }
            for (at, node) in self.nodes.iter().enumerate() {
                let nodes = u32::try_from(self.nodes.len()).unwrap();
                for round in node.standing.rounds(nodes, self.now) {
                    let reached = !lost.contains(&at) || self.random.below(2) == 0;
                    let answered = !lost.contains(&at);
                    let exchange = |order: &kernel::share::Order| self.kept.exchange(order.wish, self.now);
                    let grants: Vec<Grant> =
                        if reached { round.orders().iter().map(exchange).collect() } else { Vec::new() };
                    round.settle(if answered { &grants } else { &[] }, nodes, self.now);
                }
            }
            self.now = self.now + STEP;
        }
    }

    fn on_lease(&self) -> f64 {
        let mut sum = 0;
        for node in &self.nodes {
            for shard in &node.shards {
                lock(shard).values().for_each(|account| account.lock().bounds(&mut |_, bound| sum += bound));
            }
        }
        sum as f64
    }
}

#[test]
fn more_than_the_limit_never_passes_and_nearly_all_of_it_does_however_calls_are_spread() {
    for seed in 0..4 {
        for spread in [[150.0; 4], [600.0, 0.0, 0.0, 0.0], [350.0, 150.0, 40.0, 10.0], [110.0; 4]] {
            let mut world = World::new(4, seed);
            world.run(&spread, Duration::from_secs(2), &[]);
            let (since, before) = (world.now, world.passed);
            world.run(&spread, Duration::from_secs(30), &[]);
            let limit = f64::from(RATE) * world.now.since(since).as_secs_f64();
            let passed = (world.passed - before) as f64;
            let story = format!("seed {seed}, {spread:?}: {passed} of {limit}, {} on lease", world.on_lease());
            assert!(passed <= limit * 1.005 + f64::from(RATE) && passed >= limit * 0.995, "{story}");
            let all = f64::from(RATE) * (world.now.as_micros() - 10_000_000) as f64 / 1e6 + f64::from(RATE);
            assert!(world.passed as f64 <= all + world.on_lease(), "{story}");
            assert!(world.kept.exchanges as f64 <= 0.05 * world.offered as f64, "{story}: {}", world.kept.exchanges);
        }
    }
}

#[test]
fn below_the_limit_nobody_is_refused_wherever_calls_come_in() {
    for seed in 0..4 {
        let mut world = World::new(4, seed);
        for spread in [[80.0; 4], [320.0, 0.0, 0.0, 0.0], [0.0, 0.0, 320.0, 0.0], [0.0; 4], [5.0, 300.0, 5.0, 5.0]] {
            world.run(&spread, Duration::from_secs(4), &[]);
        }
        assert_eq!(world.passed, world.offered, "seed {seed}");
    }
}

#[test]
fn answers_that_are_lost_cost_something_and_never_let_more_through() {
    for seed in 0..4 {
        let mut world = World::new(4, seed);
        let all = |world: &World| f64::from(RATE) * (1.0 + (world.now.as_micros() - 10_000_000) as f64 / 1e6);
        world.run(&[150.0; 4], Duration::from_secs(5), &[]);
        world.run(&[150.0; 4], Duration::from_secs(5), &[1, 2]);
        assert!(world.passed as f64 <= all(&world) + world.on_lease(), "seed {seed}");
        // The process counts as cut off, and comes back.
        world.nodes[1].standing.apart();
        world.run(&[150.0; 4], Duration::from_secs(5), &[2]);
        world.nodes[1].standing.together(4);
        world.run(&[150.0; 4], Duration::from_secs(20), &[]);
        // Cut off it kept to its part, which the others could not know.
        let part = f64::from(RATE) / 4.0 * 6.0;
        assert!(world.passed as f64 <= all(&world) + part, "seed {seed}: {}", world.passed);
    }
}

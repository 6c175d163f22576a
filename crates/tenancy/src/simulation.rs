//! The money path, crashed between any two of its steps.
//!
//! The real meter, purse and bookkeeper work on a disk and a ledger that live in memory. A seed decides what happens
//! next: calls begin, flow, end, break off; the ledger goes away, takes a batch and does not say so; the process dies
//! before or after anything that it writes down, and begins anew. After each step no limit may be exceeded; in the end
//! the ledger must hold the truth, once.

mod breakdown;
mod disk;
mod world;

use world::World;

/// Deaths of the process that are tried.
const CRASHES: usize = 10_000;
/// Deaths in the life of one world.
const PER_WORLD: usize = 10;

#[test]
fn nothing_is_lost_and_nothing_counts_twice_wherever_the_process_dies() {
    #[expect(clippy::disallowed_methods, reason = "a failing seed is replayed by hand")]
    let asked = std::env::var("SLUICE_SEED").ok().and_then(|seed| seed.parse().ok());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let seeds = asked.map_or(0..(CRASHES / PER_WORLD) as u64, |seed: u64| seed..seed + 1);
    let (mut crashes, mut charges, mut cut_off, mut killed) = (0, 0, 0, 0);
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| runtime.block_on(World::live(seed, PER_WORLD)));
        match std::panic::catch_unwind(run) {
            Ok(tally) => {
                crashes += tally.crashes;
                charges += tally.charges;
                cut_off += tally.cut_off;
                killed += tally.killed;
            }
            Err(why) => {
                eprintln!("again with: SLUICE_SEED={seed} cargo test -p tenancy simulation");
                std::panic::resume_unwind(why);
            }
        }
    }
    if asked.is_none() {
        // A check of the check: all of it must have happened.
        assert!(crashes >= CRASHES && charges > CRASHES, "{crashes} crashes, {charges} charges");
        assert!(cut_off > 20 && killed > 1000, "{cut_off} cut off, {killed} killed");
    }
}

//! Who has probably read which beginning of a prompt.
//!
//! A table like a processor's cache: a block's hash says which eight places it may have, and the one used longest ago
//! makes room. So it never grows, never pauses to be rebuilt, and needs no lists. What it says is a guess: a backend
//! forgets by its own rules, and a wrong guess costs a cache miss there.

use kernel::Moment;

use super::landmarks;

/// Instances it can tell apart: a bit each.
pub(super) const SLOTS: usize = u128::BITS as usize;
/// Places a block may have.
const WAYS: usize = 8;
/// Bytes a place takes in all the columns.
const PLACE_BYTES: usize = size_of::<u64>() + size_of::<u32>() + 2 * size_of::<u128>();
/// Bound: table look-ups for one match. A hundred instances that left the same conversation at a hundred different depths
/// need more; the rest of them are then told somewhat short.
const PROBES_MAX: usize = 128;

/// A set of instances, a bit each.
pub(super) type Set = u128;

/// Who read a block in the era it was last used in, and who in the one before: an instance is forgotten one to two eras
/// after it last read the block, whoever else goes on reading it.
type Readers = [Set; 2];

/// The table, in columns: they are all zeros at first, which an allocator hands out without touching memory.
#[derive(Debug)]
pub(super) struct Index {
    keys: Vec<[u64; WAYS]>,
    used: Vec<[u32; WAYS]>,
    readers: Vec<[Readers; WAYS]>,
    /// Ticks in an era.
    era: u32,
}

/// One block's place.
#[derive(Debug, Clone, Copy)]
struct Place {
    row: usize,
    way: usize,
}

// === impl Index ===

impl Index {
    /// A table of at most so many bytes, that forgets after one to two eras. Memory is taken as it is first written to.
    pub(super) fn new(bytes: usize, era: std::time::Duration) -> Self {
        let rows = (bytes / (PLACE_BYTES * WAYS)).max(1);
        Self {
            keys: vec![[0; WAYS]; rows],
            used: vec![[0; WAYS]; rows],
            readers: vec![[[0; 2]; WAYS]; rows],
            era: tick(Moment::default() + era).max(1),
        }
    }

    /// The instance with this number has been sent a prompt of these blocks.
    pub(super) fn add(&mut self, blocks: &[u64], slot: usize, now: Moment) {
        let (bit, now) = (1 << slot, tick(now));
        for depth in landmarks::up_to(blocks.len()) {
            if let Some(key) = blocks.get(depth - 1) {
                self.touch(*key, bit, now);
            }
        }
    }

    /// Calls `found` with sets of instances and how many blocks of the prompt they have, until all of `asked` are told.
    pub(super) fn depths(&self, blocks: &[u64], asked: Set, now: Moment, mut found: impl FnMut(Set, usize)) {
        let marks: smallvec::SmallVec<[usize; 256]> = landmarks::up_to(blocks.len()).collect();
        let now = tick(now);
        let depth = |count: usize| count.checked_sub(1).and_then(|at| marks.get(at)).copied().unwrap_or(0);
        let holders = |count: usize| {
            let key = depth(count).checked_sub(1).and_then(|at| blocks.get(at));
            key.map_or(0, |key| self.holders(*key, now))
        };
        // Invariant: all of `set` have the first `low` landmarks, and none has more than `high`. Who has a landmark has
        // those before it, so halving finds where each stops; whoever stops at the same one is found together.
        let mut open: smallvec::SmallVec<[(Set, usize, usize); 32]> = smallvec::smallvec![(asked, 0, marks.len())];
        let mut probes = 0;
        while let Some((set, low, high)) = open.pop() {
            if low == high || probes == PROBES_MAX {
                found(set, depth(low));
                continue;
            }
            // Most have nothing or everything: these are asked for first.
            let middle = match (low, high) {
                (0, _) => 1,
                (1, high) if high == marks.len() => high,
                (low, high) => low + (high - low).div_ceil(2),
            };
            probes += 1;
            let further = holders(middle) & set;
            for (set, low, high) in [(set & !further, low, middle - 1), (further, middle, high)] {
                if set != 0 {
                    open.push((set, low, high));
                }
            }
        }
    }

    /// Bytes the table takes at most.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.keys) + size_of_val(&*self.used) + size_of_val(&*self.readers)
    }

    fn holders(&self, key: u64, now: u32) -> Set {
        let row = self.row(key);
        let Some(way) = self.way(row, key) else { return 0 };
        let at = Place { row, way };
        let [young, old] = get(&self.readers, at);
        match self.eras(get(&self.used, at), now) {
            0 => young | old,
            1 => young,
            _ => 0,
        }
    }

    fn touch(&mut self, key: u64, bit: Set, now: u32) {
        let row = self.row(key);
        let found = self.way(row, key);
        let at = Place { row, way: found.unwrap_or_else(|| self.stalest(row)) };
        let [young, old] = get(&self.readers, at);
        let [young, old] = match found.map(|_| self.eras(get(&self.used, at), now)) {
            Some(0) => [young, old],
            Some(1) => [0, young],
            _ => [0, 0],
        };
        set(&mut self.keys, at, key);
        set(&mut self.used, at, now);
        set(&mut self.readers, at, [young | bit, old]);
    }

    /// How many eras lie between.
    fn eras(&self, then: u32, now: u32) -> u32 {
        (now / self.era).saturating_sub(then / self.era)
    }

    fn row(&self, key: u64) -> usize {
        // Multiply-shift instead of a modulo: any number of rows will do.
        ((u128::from(key) * self.keys.len() as u128) >> 64) as usize
    }

    fn way(&self, row: usize, key: u64) -> Option<usize> {
        self.keys.get(row)?.iter().position(|other| *other == key)
    }

    fn stalest(&self, row: usize) -> usize {
        let used = self.used.get(row).into_iter().flatten().enumerate();
        used.min_by_key(|(_, used)| **used).map_or(0, |(way, _)| way)
    }
}

/// Coarse time: 65 ms a tick, so that 32 bits last for nine years.
fn tick(at: Moment) -> u32 {
    u32::try_from(at.as_micros() >> 16).unwrap_or(u32::MAX)
}

fn get<T: Copy + Default>(column: &[[T; WAYS]], at: Place) -> T {
    column.get(at.row).and_then(|row| row.get(at.way)).copied().unwrap_or_default()
}

fn set<T>(column: &mut [[T; WAYS]], at: Place, value: T) {
    if let Some(place) = column.get_mut(at.row).and_then(|row| row.get_mut(at.way)) {
        *place = value;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use kernel::random::mix;
    use proptest::prelude::*;

    use super::*;

    const ERA: Duration = Duration::from_secs(600);

    fn at(seconds: u64) -> Moment {
        Moment::from_micros(seconds * 1_000_000)
    }

    /// The chain of a prompt whose blocks are these words.
    fn chain(words: &[u8]) -> Vec<u64> {
        let link = |link: &mut u64, word: &u8| {
            *link = mix(*link ^ u64::from(*word));
            Some(*link)
        };
        words.iter().scan(7, link).collect()
    }

    fn depths(index: &Index, blocks: &[u64], slots: usize, now: Moment) -> Vec<usize> {
        let mut depths = vec![usize::MAX; slots];
        index.depths(blocks, (1 << slots) - 1, now, |set, depth| {
            for slot in (0..slots).filter(|slot| set >> slot & 1 == 1) {
                assert_eq!(depths[slot], usize::MAX, "told twice");
                depths[slot] = depth;
            }
        });
        depths
    }

    #[test]
    fn an_instance_is_forgotten_after_two_eras_though_others_go_on_reading() {
        let (mut index, blocks) = (Index::new(1 << 16, ERA), chain(&[1; 40]));
        index.add(&blocks, 0, at(10));
        for minute in 0..40 {
            index.add(&blocks, 1, at(60 * minute));
            let first = if minute < 20 { 40 } else { 0 };
            assert_eq!(depths(&index, &blocks, 2, at(60 * minute)), [first, 40], "minute {minute}");
        }
        assert_eq!(depths(&index, &blocks, 2, at(9000)), [0, 0]);
    }

    #[test]
    fn a_full_table_forgets_the_oldest_and_stays_as_large_as_it_was() {
        let mut index = Index::new(100_000, ERA);
        let prompts: Vec<Vec<u64>> = (0..1000u64).map(|n| (0..20).map(|block| mix(n << 8 | block)).collect()).collect();
        let before = index.bytes();
        for (second, prompt) in prompts.iter().enumerate() {
            index.add(prompt, 0, at(second as u64 / 10));
        }
        let remembered = |n: usize| depths(&index, &prompts[n], 1, at(100))[0];
        assert!((990..1000).all(|n| remembered(n) == 20));
        assert!((0..500).all(|n| remembered(n) == 0));
        assert!(index.bytes() == before && before <= 100_000);
    }

    proptest! {
        #[test]
        fn a_table_never_takes_more_than_its_bound(bytes in 400usize..1_000_000) {
            prop_assert!(Index::new(bytes, ERA).bytes() <= bytes);
        }

        #[test]
        fn a_match_is_the_true_one_to_a_32nd_and_never_longer(
            sent in proptest::collection::vec((proptest::collection::vec(0u8..2, 0..80), 0usize..12), 0..30),
            asked in proptest::collection::vec(0u8..2, 0..80),
        ) {
            let mut index = Index::new(4 << 20, ERA);
            let mut truth: HashMap<usize, usize> = HashMap::new();
            for (words, slot) in &sent {
                index.add(&chain(words), *slot, at(1));
                let shared = words.iter().zip(&asked).take_while(|(a, b)| a == b).count();
                let best = truth.entry(*slot).or_default();
                *best = shared.max(*best);
            }
            for (slot, depth) in depths(&index, &chain(&asked), 12, at(2)).into_iter().enumerate() {
                let true_depth = truth.get(&slot).copied().unwrap_or(0);
                prop_assert!(depth <= true_depth && (true_depth - depth) * 32 <= true_depth, "{depth} of {true_depth}");
            }
        }
    }
}

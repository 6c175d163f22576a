//! Which blocks of a prompt are remembered and looked for.
//!
//! All of them would mean a thousand entries for a long prompt. Depths that are the same for every prompt are as good,
//! as long as they lie close to each other compared to how deep they are.

/// Landmarks between one power of two and the next. Bound: a match is told short by less than a 32nd of its length,
/// which is less than what a hash of raw text misjudges anyway; a prompt of 1,000 blocks has 191 of them.
const PER_OCTAVE: usize = 32;

/// Every remembered depth up to `depth`, in blocks, rising; the first is 1.
pub(super) fn up_to(depth: usize) -> impl Iterator<Item = usize> {
    let next = |at: &usize| Some(at + step(*at));
    std::iter::successors(Some(1), next).take_while(move |at| *at <= depth)
}

fn step(at: usize) -> usize {
    (at.next_power_of_two() / (2 * PER_OCTAVE)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_depth_is_a_32nd_away_from_the_landmark_below_it() {
        let all: Vec<usize> = up_to(4096).collect();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1] && (pair[1] - 1 - pair[0]) * PER_OCTAVE < pair[1]));
        assert_eq!(all[..PER_OCTAVE], (1..=PER_OCTAVE).collect::<Vec<_>>());
        assert_eq!(up_to(1000).count(), 191);
    }

    #[test]
    fn a_longer_prompt_has_the_landmarks_of_a_shorter_one_and_more() {
        let long: Vec<usize> = up_to(4096).collect();
        for depth in 0..1000 {
            let short: Vec<usize> = up_to(depth).collect();
            assert_eq!(short, long[..short.len()]);
        }
    }
}

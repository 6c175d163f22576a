//! Sharing a model's traffic among its versions by weight.

use std::sync::Arc;

use kernel::fleet::Deployment;
use kernel::random::{self, Random};

/// The versions of a model in the order in which a call tries them: the first by lot, weighted; the others after it by
/// weight, for when the first has nobody who can answer. A session always draws the same lot.
pub(crate) fn order(deployments: &[Arc<Deployment>], affinity: Option<u64>, random: &Random) -> Vec<Arc<Deployment>> {
    if let [only] = deployments {
        return vec![Arc::clone(only)];
    }
    let mut left: Vec<&Arc<Deployment>> = deployments.iter().filter(|deployment| deployment.weight > 0).collect();
    left.sort_by_key(|deployment| std::cmp::Reverse(deployment.weight));
    let total: u64 = left.iter().map(|deployment| u64::from(deployment.weight)).sum();
    let lot = affinity.map_or_else(|| random.next(), random::mix);
    let mut lot = ((u128::from(lot) * u128::from(total)) >> 64) as u64;
    let first = left.iter().position(|deployment| {
        let weight = u64::from(deployment.weight);
        let hit = lot < weight;
        lot = lot.saturating_sub(weight);
        hit
    });
    let first = first.filter(|at| *at < left.len()).map(|at| left.remove(at));
    first.into_iter().chain(left).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::{ModelName, Version};

    fn deployments(weights: &[u32]) -> Vec<Arc<Deployment>> {
        let one = |(index, weight): (usize, &u32)| {
            let version = format!("v{index}");
            let label = format!("m@{version}").into();
            Arc::new(Deployment {
                index,
                model: ModelName::new("m"),
                version: Version::new(version),
                weight: *weight,
                instances: Vec::new(),
                names: Vec::new(),
                gpus: Vec::new(),
                label,
            })
        };
        weights.iter().enumerate().map(one).collect()
    }

    #[test]
    fn traffic_is_shared_by_weight() {
        let (pool, random) = (deployments(&[95, 5]), Random::seeded(1));
        let second = (0..20_000).filter(|_| order(&pool, None, &random)[0].index == 1).count();
        assert!((850..1150).contains(&second), "{second} of 20000");
    }

    #[test]
    fn weight_zero_gets_nothing_and_every_other_version_is_a_fallback() {
        let (pool, random) = (deployments(&[0, 3, 1]), Random::seeded(1));
        for _ in 0..100 {
            let mut indices: Vec<usize> = order(&pool, None, &random).iter().map(|d| d.index).collect();
            indices.sort_unstable();
            assert_eq!(indices, [1, 2]);
        }
    }

    #[test]
    fn a_session_stays_with_its_version() {
        let (pool, random) = (deployments(&[50, 50]), Random::seeded(1));
        for session in 0..50 {
            let first = order(&pool, Some(session), &random)[0].index;
            assert!((0..10).all(|_| order(&pool, Some(session), &random)[0].index == first));
        }
    }
}

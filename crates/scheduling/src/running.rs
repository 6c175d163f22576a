//! Calls at a backend of which nothing has been sent to a client yet, and which more urgent ones may put back.

use std::sync::{Mutex, PoisonError};

use kernel::{InstanceId, Moment, Priority, TenantId};
use slab::Slab;
use tokio::sync::oneshot;

use crate::quota::{Blocked, Quotas};

/// Every call that may be put back. Most never are here: only low ones, and those under a quota.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<Slab<Entry>>);

#[derive(Debug)]
struct Entry {
    deployment: usize,
    instance: InstanceId,
    class: Priority,
    tenant: TenantId,
    /// Tokens of quota it holds.
    tokens: u64,
    since: Moment,
    stop: oneshot::Sender<()>,
}

/// What a call at a backend is told: to go back to where it waited.
#[derive(Debug)]
pub(crate) struct Stop<'a> {
    running: &'a Running,
    at: usize,
    pub(crate) told: oneshot::Receiver<()>,
}

/// A call that waits, and for which others may be put back.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) class: Priority,
    pub(crate) tenant: TenantId,
    /// Tokens it needs of its quota.
    pub(crate) tokens: u64,
    /// Instances that have failed it.
    pub(crate) tried: Vec<InstanceId>,
}

/// One who may be put back: class, how much its tenant has borrowed, since when it runs, its entry, what it frees.
type Victim = (Priority, f64, Moment, usize, [u64; 2]);

impl Running {
    /// A call was placed.
    pub(crate) fn enter(
        &self,
        (deployment, instance): (usize, InstanceId),
        (class, tenant): (Priority, &TenantId),
        tokens: u64,
        since: Moment,
    ) -> Stop<'_> {
        let (stop, told) = oneshot::channel();
        let entry = Entry { deployment, instance, class, tenant: tenant.clone(), tokens, since, stop };
        Stop { running: self, at: self.lock().insert(entry), told }
    }

    /// Puts back as few calls as will do for one that waits, and tells how many.
    ///
    /// Where its tenant's own quota is lent out, those who have borrowed it. Else one that holds a slot of its deployment,
    /// on an instance that has not failed it: a low call for a high one; for one within its quota, one no more urgent that
    /// borrows in the same tree.
    pub(crate) fn put_back(&self, deployment: usize, wish: &Wish, quotas: &Quotas) -> usize {
        let Wish { class, tenant, tokens, tried } = wish;
        let lacking = match quotas.would(tenant, *class, *tokens) {
            // No slot would help before that is back.
            Some(Blocked::Lent) => Some(quotas.lacking(tenant, *class, *tokens)),
            Some(_) => return 0,
            None => None,
        };
        let high = *class == Priority::High;
        let within = quotas.covers(tenant, *class) && quotas.within(tenant, *class, *tokens);
        if lacking.is_none() && !high && !within {
            return 0;
        }
        let borrows = |entry: &Entry| {
            let related = || quotas.related((&entry.tenant, entry.class), (tenant, *class));
            entry.tenant != *tenant && related() && quotas.borrowed(&entry.tenant, entry.class) > 0.0
        };
        self.choose(lacking, quotas, |entry| match lacking {
            Some(_) => borrows(entry),
            None => {
                let there = entry.deployment == deployment && !tried.contains(&entry.instance);
                let low = high && entry.class == Priority::Low;
                there && (low || (within && entry.class <= *class && borrows(entry)))
            }
        })
    }

    /// Puts back those of whom `fits` says that they may go: one, or as few as have what is `lacking`. The least urgent
    /// goes first, then who has borrowed most, then the youngest, which loses the least work.
    fn choose(&self, lacking: Option<[u64; 2]>, quotas: &Quotas, fits: impl Fn(&Entry) -> bool) -> usize {
        let mut running = self.lock();
        let mut victims: Vec<Victim> = Vec::new();
        for (at, entry) in running.iter().filter(|(_, entry)| fits(entry)) {
            let borrowed = quotas.borrowed(&entry.tenant, entry.class);
            let frees = quotas.frees(&entry.tenant, entry.class, entry.tokens);
            victims.push((entry.class, borrowed, entry.since, at, frees));
        }
        victims.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)).then(b.2.cmp(&a.2)));
        let chosen = match lacking {
            None => victims.first().map(|victim| victim.3).into_iter().collect(),
            Some(lacking) => fewest(victims.iter().map(|victim| (victim.3, victim.4)), lacking),
        };
        let mut told = 0;
        for at in chosen {
            if let Some(entry) = running.try_remove(at) {
                told += usize::from(entry.stop.send(()).is_ok());
            }
        }
        told
    }

    /// Whether there is nobody.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Slab<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first victims that free what is lacking together, less those that are not needed after all. None where all
/// together would not do.
fn fewest(victims: impl Iterator<Item = (usize, [u64; 2])>, lacking: [u64; 2]) -> Vec<usize> {
    let does = |sum: [u64; 2]| sum.iter().zip(lacking).all(|(has, lacks)| *has >= lacks);
    let (mut chosen, mut sum) = (Vec::new(), [0u64; 2]);
    for (at, frees) in victims {
        chosen.push((at, frees));
        sum = [sum[0].saturating_add(frees[0]), sum[1].saturating_add(frees[1])];
        if does(sum) {
            // The later ones were the worse victims, so they are spared first.
            for index in (0..chosen.len()).rev() {
                let Some((_, frees)) = chosen.get(index) else { continue };
                let rest = [sum[0] - frees[0], sum[1] - frees[1]];
                if chosen.len() > 1 && does(rest) {
                    chosen.remove(index);
                    sum = rest;
                }
            }
            return chosen.into_iter().map(|(at, _)| at).collect();
        }
    }
    Vec::new()
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        // Invariant: entries are taken out and told under this lock, so one that was not told is still there.
        if matches!(self.told.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            running.try_remove(self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_put_back_than_needed() {
        let of = |tokens: &[u64], lacking| fewest(tokens.iter().map(|tokens| [1, *tokens]).enumerate(), lacking);
        assert_eq!(of(&[10, 20, 30], [1, 5]), [0]);
        assert_eq!(of(&[10, 20, 30], [0, 30]), [0, 1]);
        assert_eq!(of(&[10, 20, 30], [1, 40]), [0, 2], "the twenty were not needed after all");
        assert_eq!(of(&[10, 20, 30], [2, 5]), [0, 1], "two calls are lacking");
        assert_eq!(of(&[10, 20], [1, 40]), [] as [usize; 0], "all together would not do");
        assert_eq!(of(&[0, 0], [1, 0]), [0], "where only the call counts, one");
    }

    #[tokio::test]
    async fn the_youngest_low_call_of_the_deployment_goes_back_for_a_high_one() {
        let (running, quotas) = (Running::default(), Quotas::default());
        let tenant = TenantId::new("t");
        let at = |micros| Moment::from_micros(micros);
        let mut old = running.enter((1, InstanceId(0)), (Priority::Low, &tenant), 0, at(1));
        let mut young = running.enter((1, InstanceId(1)), (Priority::Low, &tenant), 0, at(2));
        let mut other = running.enter((2, InstanceId(0)), (Priority::Low, &tenant), 0, at(3));
        let wish = |class, tried: &[u32]| Wish {
            class,
            tenant: tenant.clone(),
            tokens: 0,
            tried: tried.iter().map(|id| InstanceId(*id)).collect(),
        };
        let slot = wish(Priority::High, &[]);
        assert_eq!(running.put_back(1, &wish(Priority::High, &[0, 1]), &quotas), 0, "it could not go there");
        assert_eq!(running.put_back(1, &wish(Priority::Normal, &[]), &quotas), 0, "it is not urgent enough");
        assert_eq!(running.put_back(1, &slot, &quotas), 1);
        assert!(young.told.try_recv().is_ok());
        assert!(old.told.try_recv().is_err() && other.told.try_recv().is_err());
        drop(young);
        assert_eq!(running.lock().len(), 2);
        drop((old, other));
        assert!(running.is_empty());
        assert_eq!(running.put_back(1, &slot, &quotas), 0);
    }
}

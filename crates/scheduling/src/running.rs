//! Calls at a backend of which nothing has been sent to a client yet, and which more urgent ones may put back.

use std::sync::{Mutex, PoisonError};

use kernel::{InstanceId, Moment, Priority, TenantId};
use slab::Slab;
use tokio::sync::oneshot;

use crate::quota::Quotas;

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

/// Who may be put back for a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Victims<'a> {
    /// It needs a slot of its own deployment, on an instance that has not failed it: a low call's if it is high, or one
    /// that borrows if it is within its quota.
    Slot { high: bool, within: bool, tried: &'a [InstanceId] },
    /// It needs so many tokens, and a call, of a quota that others have borrowed.
    Quota { tokens: u64, class: Priority, tenant: &'a TenantId },
}

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

    /// Puts back as few calls as will do, and tells how many. Of those that may go the least urgent goes first, then who
    /// has borrowed most, then the youngest, which loses the least work.
    pub(crate) fn put_back(&self, deployment: usize, tenant: &TenantId, who: Victims<'_>, quotas: &Quotas) -> usize {
        let mut running = self.lock();
        let mut victims: Vec<(Priority, f64, Moment, usize)> = Vec::new();
        for (at, entry) in &*running {
            let borrowed = || quotas.borrowed(&entry.tenant, entry.class);
            let fits = match who {
                Victims::Slot { high, within, tried } => {
                    let low = high && entry.class == Priority::Low;
                    let borrows = || within && entry.tenant != *tenant && borrowed() > 0.0;
                    let helps = entry.deployment == deployment && !tried.contains(&entry.instance);
                    helps && (low || borrows())
                }
                Victims::Quota { class, tenant, .. } => {
                    let related = || quotas.related((&entry.tenant, entry.class), (tenant, class));
                    entry.tenant != *tenant && related() && borrowed() > 0.0
                }
            };
            if fits {
                victims.push((entry.class, borrowed(), entry.since, at));
            }
        }
        victims.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)).then(b.2.cmp(&a.2)));
        let tokens = |at: usize| running.get(at).map_or(0, |entry| entry.tokens);
        let chosen: Vec<usize> = match who {
            Victims::Slot { .. } => victims.first().map(|victim| victim.3).into_iter().collect(),
            Victims::Quota { tokens: wanted, .. } => {
                fewest(victims.iter().map(|victim| (victim.3, tokens(victim.3))), wanted)
            }
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

/// The first victims that hold `wanted` tokens together (at least one), less those that are not needed after all. None
/// where all together would not do.
fn fewest(victims: impl Iterator<Item = (usize, u64)>, wanted: u64) -> Vec<usize> {
    let (mut chosen, mut sum) = (Vec::new(), 0u64);
    for (at, tokens) in victims {
        chosen.push((at, tokens));
        sum += tokens;
        if sum >= wanted {
            // The later ones were the worse victims, so they are spared first.
            for index in (0..chosen.len()).rev() {
                let spare = chosen.len() > 1 && chosen.get(index).is_some_and(|(_, tokens)| sum - tokens >= wanted);
                if spare {
                    sum -= chosen.remove(index).1;
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
        let of = |tokens: &[u64], wanted| fewest(tokens.iter().copied().enumerate(), wanted);
        assert_eq!(of(&[10, 20, 30], 5), [0]);
        assert_eq!(of(&[10, 20, 30], 30), [0, 1]);
        assert_eq!(of(&[10, 20, 30], 40), [0, 2], "the twenty were not needed after all");
        assert_eq!(of(&[10, 20], 40), [] as [usize; 0], "all together would not do");
        assert_eq!(of(&[0, 0], 0), [0], "where only the call counts, one");
    }

    #[tokio::test]
    async fn the_youngest_low_call_of_the_deployment_goes_back_for_a_high_one() {
        let (running, quotas) = (Running::default(), Quotas::default());
        let tenant = TenantId::new("t");
        let at = |micros| Moment::from_micros(micros);
        let mut old = running.enter((1, InstanceId(0)), (Priority::Low, &tenant), 0, at(1));
        let mut young = running.enter((1, InstanceId(1)), (Priority::Low, &tenant), 0, at(2));
        let mut other = running.enter((2, InstanceId(0)), (Priority::Low, &tenant), 0, at(3));
        let slot = Victims::Slot { high: true, within: false, tried: &[] };
        let tried = [InstanceId(0), InstanceId(1)];
        let nowhere = Victims::Slot { high: true, within: false, tried: &tried };
        assert_eq!(running.put_back(1, &tenant, nowhere, &quotas), 0, "it could not go there");
        assert_eq!(running.put_back(1, &tenant, slot, &quotas), 1);
        assert!(young.told.try_recv().is_ok());
        assert!(old.told.try_recv().is_err() && other.told.try_recv().is_err());
        drop(young);
        assert_eq!(running.lock().len(), 2);
        drop((old, other));
        assert!(running.is_empty());
        assert_eq!(running.put_back(1, &tenant, slot, &quotas), 0);
    }
}

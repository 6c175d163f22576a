//! Sluice's own: the very rows of `models::balance`, given what a deployment's group gives them.

use std::collections::HashMap;

use kernel::random::mix;
use kernel::{Kind, Moment, Permit, Room, Slots, Tokens};
use models::balance::{self, Balance, Candidate};

use super::{Build, Policy, Seen, Wanted};

pub(super) const PREFIX_AWARE: Kind<Build> = Kind {
    name: "sluice prefix_aware",
    about: "Sluice's balance: prefix_aware, the code that ships",
    build: |workers| Box::new(House::new("prefix_aware", workers)),
};

pub(super) const LEAST_LOAD: Kind<Build> = Kind {
    name: "sluice least_load",
    about: "Sluice's default, the code that ships",
    build: |workers| Box::new(House::new("least_load", workers)),
};

struct House {
    balance: Option<Box<dyn Balance>>,
    slots: Vec<Slots>,
    held: HashMap<usize, Permit>,
}

impl House {
    fn new(name: &str, workers: usize) -> Self {
        let balance = kernel::kind::find(balance::KINDS, name).map(|kind| (kind.build)());
        Self { balance, slots: (0..workers).map(|_| Slots::new(None)).collect(), held: HashMap::new() }
    }

    fn candidate(&self, seen: &Seen) -> Candidate {
        Candidate {
            index: seen.worker,
            identity: mix(seen.worker as u64),
            weight: 1.0,
            busy: seen.busy,
            limit: None,
            unread: Tokens(self.slots.get(seen.worker).map_or(0, Slots::unread)),
            micros: 30_000.0,
            score: f64::NAN,
            told: None,
        }
    }
}

impl Policy for House {
    fn choose(&mut self, wanted: &Wanted<'_>, seen: &[Seen], now: u64) -> usize {
        let mut candidates: Vec<Candidate> = seen.iter().map(|one| self.candidate(one)).collect();
        let Some(balance) = &self.balance else { return 0 };
        let blocks = if balance.reads_prompts() { wanted.chain } else { &[] };
        // The length of the answer is not known before; neither balance looks at it.
        let asked = balance::Wanted { affinity: None, tokens: Tokens(wanted.call.input), blocks };
        let now = Moment::from_micros(now);
        let pick = balance.pick(&mut candidates, &asked, now);
        let Some(chosen) = candidates.get(pick.position) else { return 0 };
        balance.placed(chosen.identity, &asked, now);
        let room = Room { ceiling: u32::MAX, tokens: 0, unread: pick.unread.0 };
        let permit = self.slots.get(chosen.index).and_then(|slots| slots.try_take(room));
        self.held.extend(permit.map(|permit| (wanted.number, permit)));
        chosen.index
    }

    fn begun(&mut self, number: usize) {
        if let Some(permit) = self.held.get_mut(&number) {
            permit.begun();
        }
    }

    fn ended(&mut self, number: usize) {
        self.held.remove(&number);
    }
}

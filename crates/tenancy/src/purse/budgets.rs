//! How a tenant's budgets stand, for people to see: also those that nobody has called under since the start.

use std::time::Duration;

use kernel::contract::Budget;
use kernel::{Caller, KeyId, Moment, Money, Timestamp};

use super::{Purse, period};

/// Bound: who looks waits so long for the ledger to tell what was spent.
const WITHIN: Duration = Duration::from_secs(1);
/// How often it is looked whether it has, should nobody tell.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One budget, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetStanding {
    /// The keys in force that spend it; `None`: the tenant itself, by whichever credential.
    pub keys: Option<Vec<KeyId>>,
    /// What may be spent of which models, and per what.
    pub budget: Budget,
    /// What is spent in this period, as far as this process knows.
    pub spent: Money,
    /// What calls under way have set aside.
    pub reserved: Money,
    /// When it starts anew, as in `2026-12-01T00:00:00Z`; `None`: never.
    pub renews: Option<String>,
    /// Whether the ledger has told what was spent.
    pub known: bool,
}

impl BudgetStanding {
    /// What is neither spent nor set aside; not less than nothing.
    pub fn left(&self) -> Money {
        (self.budget.limit - self.spent - self.reserved).max(Money::ZERO)
    }
}

impl Purse {
    /// The budgets of one tenant: its own where a caller has no key, and for each other caller those of its key. Waits a
    /// second at most for the ledger to tell what was spent.
    pub async fn budgets(&self, callers: &[Caller]) -> Vec<BudgetStanding> {
        let until = Moment::now() + WITHIN;
        loop {
            let standings = self.look(callers, Timestamp::now());
            let left = until.remaining();
            if standings.iter().all(|standing| standing.known) || left.is_zero() || !self.will_know() {
                return standings;
            }
            self.loaded(left.min(LOOK_EVERY)).await;
        }
    }

    pub(super) fn look(&self, callers: &[Caller], now: Timestamp) -> Vec<BudgetStanding> {
        let mut standings: Vec<(Option<KeyId>, BudgetStanding)> = Vec::new();
        for Caller { tenant, key, terms } in callers {
            let account = self.account(tenant);
            let mut books = account.lock();
            let line = key.as_ref().filter(|_| terms.counts_keys()).map(|key| books.line(key, &terms.kin));
            let own = terms.key_budgets.iter().map(|budget| (budget, true));
            for (budget, own) in terms.budgets.iter().map(|budget| (budget, false)).chain(own) {
                let Some(place) = books.place(budget, own, line.as_ref(), now) else { continue };
                // Those of the tenant are told where the tenant is asked about.
                if key.is_some() != place.key {
                    continue;
                }
                let same = |(other, standing): &&mut (Option<KeyId>, BudgetStanding)| {
                    *other == line && standing.keys.is_some() && standing.budget == *budget
                };
                if let Some((_, known)) = standings.iter_mut().find(same) {
                    known.keys.iter_mut().for_each(|keys| keys.extend(key.clone().filter(|key| !keys.contains(key))));
                    continue;
                }
                let Some(counter) = books.counter_at(place, line.as_ref()) else { continue };
                let standing = BudgetStanding {
                    keys: key.clone().map(|key| vec![key]),
                    budget: budget.clone(),
                    spent: counter.spent(),
                    reserved: counter.pending,
                    renews: period::renews(budget.per, now),
                    known: counter.spending.now().loaded,
                };
                standings.push((line.clone(), standing));
            }
            let wanting = books.unloaded;
            drop(books);
            account.touched.store(true, std::sync::atomic::Ordering::Relaxed);
            self.want(wanting, &account);
        }
        standings.into_iter().map(|(_, standing)| standing).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kernel::{ModelName, TenantId, Terms, Usage};

    use super::super::tests::{EVENING, ask, caller, fixed, purse};
    use super::*;

    fn shown(purse: &Purse, callers: &[Caller]) -> Vec<(Vec<String>, [String; 4], bool)> {
        let of = |standing: BudgetStanding| {
            let keys = standing.keys.iter().flatten().map(|key| key.as_str().to_owned()).collect();
            let money = [standing.budget.limit, standing.spent, standing.reserved, standing.left()];
            (keys, money.map(|money| money.to_string()), standing.known)
        };
        purse.look(callers, EVENING).into_iter().map(of).collect()
    }

    #[test]
    fn each_budget_is_shown_once_with_what_is_spent_reserved_and_left() {
        let purse = purse();
        let first = caller(
            r#"[{"limit":"10","per":"month"},{"limit":"5","per":"day","models":["gpt-*"]},{"limit":"3","per":"day","scope":"key"}]"#,
            r#"[{"limit":"2","per":"total"}]"#,
            "{}",
        );
        let with = |key: &str, kin: &[&str]| {
            let kin = kin.iter().copied().map(KeyId::new).collect();
            let terms = Arc::new(Terms { kin, ..(*first.terms).clone() });
            Caller { key: Some(KeyId::new(key)), terms, ..first.clone() }
        };
        let model = ModelName::new("m");
        let held = purse.reserve(&ask(&first, &model), fixed).unwrap();
        held.settle(&Usage::default(), Money::from_units(1), EVENING, None);
        let _under_way = purse.reserve(&ask(&with("new", &["k"]), &model), fixed).unwrap();
        let itself = Caller { key: None, ..first.clone() };
        let callers = [itself, first.clone(), with("new", &["k"]), with("other", &[])];
        let row = |keys: &[&str], money: [&str; 4]| {
            (keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>(), money.map(str::to_owned), false)
        };
        let expected = [
            row(&[], ["10", "1", "1", "8"]),
            row(&[], ["5", "0", "0", "5"]),
            row(&["k", "new"], ["3", "1", "1", "1"]),
            row(&["k", "new"], ["2", "1", "1", "0"]),
            row(&["other"], ["3", "0", "0", "3"]),
            row(&["other"], ["2", "0", "0", "2"]),
        ];
        assert_eq!(shown(&purse, &callers), expected);
        assert_eq!(purse.unknown(), 1, "the ledger is asked what was spent");
        let renews: Vec<_> = purse.look(&callers, EVENING).into_iter().map(|standing| standing.renews).collect();
        assert_eq!(renews[0].as_deref(), Some("2026-12-01T00:00:00Z"));
        assert_eq!((renews[2].as_deref(), &renews[3]), (Some("2026-12-01T00:00:00Z"), &None));
        let nobody = Caller { tenant: TenantId::new("x"), key: None, terms: Arc::default() };
        assert!(purse.look(&[nobody], EVENING).is_empty());
    }
}

//! What is asked about charges and transfers.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernel::store::ledger::{Account, Batch, Charge, Dimension, Filter, Sum, SumPage, Transfer};
use kernel::time::Timestamp;
use kernel::{Currency, KeyId, ModelName, Money, TenantId, Tokens};

use super::Shared;
use super::posting::{batch, charge, transfer};
use super::tenants::at;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// Calls, estimated ones, input tokens, GPU milliseconds, and what it costs.
type Summed = (u64, u64, u64, u64, Money);

/// Forty charges of two tenants, keys, models and tags over some months.
fn varied() -> Vec<Charge> {
    let one = |number: i64| {
        let odd = number % 2 == 1;
        let mut charge = charge(if odd { "acme" } else { "lab" }, number * 17 * HOUR * 3);
        charge.key = (number % 3 != 0).then(|| KeyId::new(format!("k{}", number % 3)));
        charge.model = ModelName::new(if number % 4 < 2 { "small" } else { "large" });
        charge.tag = (number % 5 != 0).then(|| Arc::from(format!("t{}", number % 5)));
        charge.price = (number % 6 != 0).then(|| Arc::from(format!("p{}", number % 6)));
        charge.plan = (number % 7 != 0).then(|| Arc::from(format!("pro@{}", number % 7)));
        charge.currency = if number % 8 == 0 { Currency::parse("eur").unwrap() } else { Currency::USD };
        charge.usage.input = Tokens(u64::try_from(number).unwrap());
        charge.usage.estimated = number % 9 == 0;
        charge.amount = Money::from_pico(i128::from(number) * 999_999_999_999);
        charge
    };
    (0..40).map(one).collect()
}

/// The word a charge is summed up under, computed without the store.
fn word(charge: &Charge, by: Dimension) -> Option<String> {
    let millis = charge.at.millis();
    let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
    match by {
        Dimension::Tenant => Some(charge.tenant.to_string()),
        Dimension::Key => charge.key.as_ref().map(ToString::to_string),
        Dimension::Model => Some(charge.model.to_string()),
        Dimension::Tag => text(&charge.tag),
        Dimension::Price => text(&charge.price),
        Dimension::Plan => text(&charge.plan),
        Dimension::Hour => Some((millis - millis % HOUR).to_string()),
        Dimension::Day => Some((millis - millis % DAY).to_string()),
        Dimension::Month => Some(month(millis)),
    }
}

/// `2026-11`, by counting days.
fn month(millis: i64) -> String {
    let (mut year, mut days) = (1970, millis / DAY);
    loop {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let february = if leap { 29 } else { 28 };
        for (month, length) in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter().enumerate() {
            if days < length {
                return format!("{year}-{:02}", month + 1);
            }
            days -= length;
        }
        year += 1;
    }
}

pub(super) async fn sums_are_split_by_every_dimension(one: Shared, two: Shared) {
    use Dimension::{Day, Hour, Key, Model, Month, Plan, Price, Tag, Tenant};
    let charges = varied();
    one.post(&batch(charges.clone())).await.unwrap();
    let splits: [&[Dimension]; 12] = [
        &[],
        &[Tenant],
        &[Key],
        &[Model],
        &[Tag],
        &[Price],
        &[Plan],
        &[Hour],
        &[Day],
        &[Month],
        &[Month, Tenant, Model],
        &[Tenant, Key, Model, Tag, Price, Plan, Hour],
    ];
    for by in splits {
        let mut expected: BTreeMap<(Vec<Option<String>>, Currency), Summed> = BTreeMap::new();
        for charge in &charges {
            let of = by.iter().map(|by| word(charge, *by)).collect();
            let sum = expected.entry((of, charge.currency)).or_default();
            sum.0 += 1;
            sum.1 += u64::from(charge.usage.estimated);
            sum.2 += charge.usage.input.0;
            sum.3 += charge.gpu_millis;
            sum.4 += charge.amount;
        }
        let mut seen = BTreeMap::new();
        for sum in two.sums(&Filter::default(), by).await.unwrap() {
            assert!(!sum.usage.estimated);
            let row = (sum.calls, sum.estimated, sum.usage.input.0, sum.gpu_millis, sum.amount);
            assert_eq!(seen.insert((sum.of, sum.currency), row), None, "one row each");
        }
        assert_eq!(seen, expected, "{by:?}");
        // As budgets ask: of some tenants, in whole days.
        let tenants = ["acme", "lab"].map(TenantId::new).into();
        let days =
            Filter { tenants, from: Some(Timestamp(3 * DAY)), until: Some(Timestamp(60 * DAY)), ..Filter::default() };
        let all = Filter { tenants: Vec::new(), ..days.clone() };
        let sorted = |mut sums: Vec<Sum>| {
            sums.sort_by(|one, other| (&one.of, one.currency).cmp(&(&other.of, other.currency)));
            sums
        };
        assert_eq!(sorted(two.sums(&days, by).await.unwrap()), sorted(two.sums(&all, by).await.unwrap()), "{by:?}");
    }
}

pub(super) async fn sums_come_in_pages_in_order_however_they_are_split(one: Shared, two: Shared) {
    use Dimension::{Day, Hour, Key, Model, Month, Plan, Price, Tag, Tenant};
    let mut charges = varied();
    // Bytes decide, not a language; what is missing comes before what is empty.
    for (nth, tag) in ["", "a", "B", "é", "ab", "a b", "Z%_'\""].into_iter().enumerate() {
        charges.push(Charge { tag: Some(tag.into()), ..charge("acme", nth as i64) });
    }
    one.post(&batch(charges.clone())).await.unwrap();
    let end = charges.iter().map(|charge| charge.at.millis()).max().unwrap();
    let filter =
        Filter { from: Some(Timestamp(0)), until: Some(Timestamp(end / HOUR * HOUR + HOUR)), ..Filter::default() };
    let splits: [&[Dimension]; 9] = [
        &[],
        &[Tag],
        &[Key, Tag],
        &[Hour],
        &[Day, Model],
        &[Month],
        &[Tag, Month],
        &[Price, Plan, Tenant],
        &[Key, Day, Tag],
    ];
    for by in splits {
        let mut expected = one.sums(&filter, by).await.unwrap();
        // Times of these have as many digits.
        expected.sort_by_key(|sum| {
            let of = by.iter().zip(&sum.of).map(|(by, of)| match by {
                Hour | Day => (of.as_deref().map(|at| at.parse::<i64>().unwrap()), None),
                _ => (None, of.clone()),
            });
            (of.collect::<Vec<_>>(), sum.currency)
        });
        for most in [1, 3, 1_000] {
            let mut seen = Vec::new();
            let mut page = SumPage { filter: filter.clone(), by: by.to_vec(), after: None, most };
            loop {
                let sums = two.sums_page(&page).await.unwrap();
                assert!(sums.len() <= most as usize);
                let Some(last) = sums.last() else { break };
                page.after = Some((last.of.clone(), last.currency));
                seen.extend(sums);
            }
            assert_eq!(seen, expected, "{by:?}, {most} at a time");
        }
    }
}

pub(super) async fn sums_and_charges_are_what_a_filter_lets_through(one: Shared, _: Shared) {
    let charges = varied();
    one.post(&batch(charges.clone())).await.unwrap();
    let tenth = charges[10].at.millis();
    let hour = Timestamp(tenth - tenth % HOUR);
    let later = Timestamp(hour.millis() + 40 * DAY);
    let filters = [
        Filter::default(),
        Filter { tenant: Some(TenantId::new("acme")), ..Filter::default() },
        Filter { key: Some(KeyId::new("k1")), model: Some(ModelName::new("small")), ..Filter::default() },
        Filter { tag: Some("t2".into()), ..Filter::default() },
        Filter { from: Some(hour), ..Filter::default() },
        Filter { until: Some(hour), ..Filter::default() },
        Filter { from: Some(hour), until: Some(later), tenant: Some(TenantId::new("lab")), ..Filter::default() },
        Filter { tenant: Some(TenantId::new("nobody")), ..Filter::default() },
        Filter { tenants: vec![TenantId::new("lab"), TenantId::new("nobody")], ..Filter::default() },
        Filter { tenants: ["acme", "lab"].map(TenantId::new).into(), from: Some(hour), ..Filter::default() },
    ];
    for filter in filters {
        let through = |charge: &&Charge| {
            filter.tenant.as_ref().is_none_or(|tenant| *tenant == charge.tenant)
                && (filter.tenants.is_empty() || filter.tenants.contains(&charge.tenant))
                && filter.key.as_ref().is_none_or(|key| Some(key) == charge.key.as_ref())
                && filter.model.as_ref().is_none_or(|model| *model == charge.model)
                && filter.tag.as_deref().is_none_or(|tag| Some(tag) == charge.tag.as_deref())
                && filter.from.is_none_or(|from| charge.at >= from)
                && filter.until.is_none_or(|until| charge.at < until)
        };
        let expected: Vec<Charge> = charges.iter().filter(through).cloned().collect();
        assert_eq!(one.charges(&filter, None, 100).await.unwrap(), expected, "{filter:?}");
        let sums = one.sums(&filter, &[]).await.unwrap();
        assert_eq!(sums.iter().map(|sum| sum.calls).sum::<u64>(), expected.len() as u64, "{filter:?}");
        let amount: Money = expected.iter().map(|charge| charge.amount).sum();
        assert_eq!(sums.iter().map(|sum| sum.amount).sum::<Money>(), amount, "{filter:?}");
    }
}

pub(super) async fn what_has_no_tag_is_not_what_has_an_empty_one(one: Shared, _: Shared) {
    let tagged = |tag: Option<&str>| Charge { tag: tag.map(Arc::from), ..charge("acme", 0) };
    one.post(&batch(vec![tagged(None), tagged(Some("")), tagged(None)])).await.unwrap();
    let mut sums = one.sums(&Filter::default(), &[Dimension::Tag]).await.unwrap();
    sums.sort_by_key(|sum| sum.calls);
    let seen: Vec<_> = sums.into_iter().map(|sum| (sum.of, sum.calls)).collect();
    assert_eq!(seen, [(vec![Some(String::new())], 1), (vec![None], 2)]);
}

pub(super) async fn charges_and_transfers_come_in_pages_by_time_and_id(one: Shared, two: Shared) {
    // Many in the same millisecond, posted out of order.
    let mut charges: Vec<Charge> = (0..50).map(|number| charge("acme", number / 10)).collect();
    charges.reverse();
    let acme = Account::Tenant(TenantId::new("acme"));
    let mut batch = batch(charges.clone());
    batch.transfers.push(transfer(Account::Cash, acme.clone(), 2, "5"));
    batch.transfers.push(transfer(acme.clone(), acme.clone(), 3, "1"));
    batch.transfers.push(transfer(Account::Cash, Account::Revenue, 3, "1"));
    one.post(&batch).await.unwrap();
    charges.sort_by_key(|charge| (charge.at, charge.id));
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = two.charges(&Filter::default(), after, 7).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 7);
        after = Some((last.at, last.id));
        seen.extend(page);
    }
    assert_eq!(seen, charges);
    let mut expected: Vec<Transfer> =
        batch.transfers.iter().filter(|one| one.debit == acme || one.credit == acme).cloned().collect();
    expected.sort_by_key(|transfer| (transfer.at, transfer.id));
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = two.transfers(&acme, after, 7).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.at, last.id));
        seen.extend(page);
    }
    assert_eq!(seen, expected);
}

pub(super) async fn accounts_balance_to_the_last_part_of_a_unit(one: Shared, two: Shared) {
    let acme = Account::Tenant(TenantId::new("acme"));
    let mut transfers = Vec::new();
    for (number, amount) in
        (0..).zip(["0.999999999999", "0.000000000001", "1.5", "0.500000000001", "123456789012345.25"])
    {
        transfers.push(transfer(acme.clone(), Account::Revenue, number, amount));
        transfers.push(transfer(Account::Cash, acme.clone(), number, amount));
    }
    let euros = Currency::parse("eur").unwrap();
    transfers.push(Transfer { currency: euros, ..transfer(Account::Grants, acme.clone(), 9, "3") });
    for one_of_them in &transfers {
        one.post(&Batch { transfers: vec![one_of_them.clone()], ..Batch::default() }).await.unwrap();
    }
    let total = Money::parse("123456789012348.250000000001").unwrap();
    let balance = two.balance(&acme, Currency::USD).await.unwrap();
    assert_eq!((balance.debits, balance.credits), (total, total));
    let some = [acme.clone(), Account::Tenant(TenantId::new("nobody"))];
    let of: Vec<_> = two.balances().await.unwrap().into_iter().filter(|(account, ..)| *account == acme).collect();
    assert!(!of.is_empty());
    assert_eq!(two.balances_of(&some).await.unwrap(), of);
    assert_eq!(two.balances_of(&[]).await.unwrap(), []);
    let balances = two.balances().await.unwrap();
    let accounts: Vec<_> =
        balances.iter().map(|(account, currency, _)| (account.name(), currency.to_string())).collect();
    let expected =
        [("cash", "usd"), ("grants", "eur"), ("revenue", "usd"), ("tenant/acme", "eur"), ("tenant/acme", "usd")];
    assert_eq!(accounts, expected.map(|(account, currency)| (account.to_owned(), currency.to_owned())));
    let debits: Money = balances.iter().map(|(_, _, balance)| balance.debits).sum();
    let credits: Money = balances.iter().map(|(_, _, balance)| balance.credits).sum();
    assert_eq!(debits, credits);
    let none = one.balance(&Account::Rounding, Currency::USD).await.unwrap();
    assert_eq!((none.debits, none.credits), (Money::ZERO, Money::ZERO));
    assert_eq!(at(0).millis() % DAY, 0);
}

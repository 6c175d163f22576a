//! Charges and transfers, once each.

use std::sync::Arc;

use kernel::store::Fault;
use kernel::store::ledger::{Account, Batch, Cause, Charge, Dimension, Ending, Filter, PostingId, Sum, Transfer};
use kernel::{Currency, KeyId, ModelName, Money, RequestId, TenantId, Tokens, Usage, Version};

use super::Shared;
use super::tenants::at;

/// A charge of a tenant at a moment, with something in every field.
pub fn charge(tenant: &str, millis: i64) -> Charge {
    Charge {
        id: PostingId::new(),
        at: at(millis),
        request: RequestId::new("request"),
        tenant: TenantId::new(tenant),
        key: Some(KeyId::new("key")),
        model: ModelName::new("model"),
        version: Version::new("v1"),
        operation: "chat",
        tag: Some(Arc::from("tag")),
        usage: Usage {
            input: Tokens(100),
            cached: Tokens(40),
            cache_write: Tokens(10),
            audio_input: Tokens(5),
            output: Tokens(50),
            reasoning: Tokens(20),
            audio_output: Tokens(3),
            images: 2,
            estimated: false,
        },
        gpu_millis: 1_234,
        ending: Ending::Complete,
        plan: Some(Arc::from("pro@a")),
        price: Some(Arc::from("price")),
        currency: Currency::USD,
        amount: Money::parse("0.000000000007").unwrap(),
    }
}

pub(super) fn transfer(debit: Account, credit: Account, millis: i64, amount: &str) -> Transfer {
    Transfer {
        id: PostingId::new(),
        at: at(millis),
        cause: Cause::TopUp,
        debit,
        credit,
        amount: Money::parse(amount).unwrap(),
        currency: Currency::USD,
        reverses: None,
        invoice: None,
        note: None,
    }
}

/// Charges with the transfers they cause.
pub(super) fn batch(charges: Vec<Charge>) -> Batch {
    let transfers = charges.iter().filter_map(Charge::transfer).collect();
    Batch { charges, transfers }
}

/// Everything, in one sum for each currency.
pub(super) async fn whole(books: &Shared) -> Vec<Sum> {
    books.sums(&Filter::default(), &[]).await.unwrap()
}

async fn all_charges(books: &Shared) -> Vec<Charge> {
    books.charges(&Filter::default(), None, 10_000).await.unwrap()
}

pub(super) async fn what_is_posted_is_read_back_exactly(one: Shared, two: Shared) {
    let mut charges: Vec<Charge> =
        Ending::ALL.into_iter().zip(0..).map(|(ending, millis)| Charge { ending, ..charge("acme", millis) }).collect();
    charges.push(Charge {
        key: None,
        tag: None,
        plan: None,
        price: None,
        operation: "a kind of work from the future",
        usage: Usage { estimated: true, ..Usage::default() },
        amount: Money::ZERO,
        currency: Currency::parse("jpy").unwrap(),
        ..charge("acme", 100)
    });
    charges.push(Charge { amount: Money::parse("999999999999999.999999999999").unwrap(), ..charge("acme", 101) });
    let mut batch = batch(charges);
    for (cause, millis) in Cause::ALL.into_iter().zip(200..) {
        let noted = transfer(Account::Cash, Account::Tenant(TenantId::new("acme")), millis, "12.5");
        batch.transfers.push(Transfer { cause, note: Some("why".into()), invoice: Some("2026-1".into()), ..noted });
    }
    let new = one.post(&batch).await.unwrap();
    assert_eq!(new, (batch.charges.len() as u64, batch.transfers.len() as u64));
    assert_eq!(all_charges(&two).await, batch.charges);
    let seen = two.transfers(&Account::Tenant(TenantId::new("acme")), None, 1_000).await.unwrap();
    assert_eq!(seen, batch.transfers);
}

pub(super) async fn what_is_posted_again_counts_for_nothing(one: Shared, two: Shared) {
    let posted = batch((0..700).map(|millis| charge("acme", millis)).collect());
    assert_eq!(one.post(&posted).await.unwrap(), (700, 700));
    let (sums, balances) = (whole(&one).await, one.balances().await.unwrap());
    assert_eq!(sums[0].calls, 700);
    assert_eq!(sums[0].amount, Money::from_pico(7 * 700));
    // The same again, by somebody else.
    assert_eq!(two.post(&posted).await.unwrap(), (0, 0));
    // In another order, the same thing twice in one batch, with another amount under a known id.
    let mut shuffled = posted.clone();
    shuffled.charges.reverse();
    shuffled.transfers.rotate_left(350);
    shuffled.charges.extend_from_within(..10);
    shuffled.charges[0].amount = Money::from_units(1_000);
    shuffled.transfers[0].amount = Money::from_units(1_000);
    assert_eq!(one.post(&shuffled).await.unwrap(), (0, 0));
    assert_eq!((whole(&two).await, two.balances().await.unwrap()), (sums, balances));
    // One new among the old, and it is in there twice.
    let fresh = charge("acme", 5_000);
    let mut mixed = posted.clone();
    mixed.charges.insert(300, fresh.clone());
    mixed.charges.push(Charge { amount: Money::from_units(5), ..fresh.clone() });
    mixed.transfers.insert(0, fresh.transfer().unwrap());
    assert_eq!(two.post(&mixed).await.unwrap(), (1, 1));
    let seen = whole(&one).await;
    assert_eq!((seen[0].calls, seen[0].amount), (701, Money::from_pico(7 * 701)));
    assert_eq!(all_charges(&one).await.len(), 701);
}

pub(super) async fn what_many_post_at_once_counts_once(one: Shared, two: Shared) {
    const POSTERS: usize = 8;
    let tenants = ["a", "b", "c", "d", "e"];
    let charges: Vec<Charge> = (0..600).map(|number| charge(tenants[number % 5], 7_000 * number as i64)).collect();
    let posting: Vec<_> = (0..POSTERS)
        .map(|who| {
            // Each posts most of them, in an order of its own, in batches of its own size.
            let mut mine: Vec<Charge> =
                charges.iter().enumerate().filter(|(at, _)| at % POSTERS != who).map(|(_, one)| one.clone()).collect();
            mine.rotate_left(who * 70);
            if who % 3 == 0 {
                mine.reverse();
            }
            let books = if who % 2 == 0 { one.clone() } else { two.clone() };
            tokio::spawn(async move {
                let mut new = (0, 0);
                for part in mine.chunks(37 + who * 11) {
                    let (charges, transfers) = books.post(&batch(part.to_vec())).await.unwrap();
                    new = (new.0 + charges, new.1 + transfers);
                }
                new
            })
        })
        .collect();
    let mut new = (0, 0);
    for poster in posting {
        let (charges, transfers) = poster.await.unwrap();
        new = (new.0 + charges, new.1 + transfers);
    }
    assert_eq!(new, (600, 600), "each was new to one of them");
    let sums = one.sums(&Filter::default(), &[Dimension::Tenant]).await.unwrap();
    assert_eq!(sums.len(), 5);
    assert!(sums.iter().all(|sum| sum.calls == 120 && sum.amount == Money::from_pico(7 * 120)), "{sums:?}");
    let revenue = two.balance(&Account::Revenue, Currency::USD).await.unwrap();
    assert_eq!((revenue.debits, revenue.credits), (Money::ZERO, Money::from_pico(7 * 600)));
}

pub(super) async fn an_empty_batch_is_no_trouble(one: Shared, _: Shared) {
    assert_eq!(one.post(&Batch::default()).await.unwrap(), (0, 0));
    assert_eq!(whole(&one).await, []);
    assert_eq!(one.balances().await.unwrap(), []);
}

pub(super) async fn a_batch_that_cannot_be_taken_leaves_nothing_behind(one: Shared, two: Shared) {
    let mut bad = batch((0..40).map(|millis| charge("acme", millis)).collect());
    bad.transfers.last_mut().unwrap().amount = Money::ZERO;
    let outcome = one.post(&bad).await;
    assert!(matches!(outcome, Err(Fault::Broken(_))), "{outcome:?}");
    let mut bad = batch(vec![charge("acme", 1)]);
    bad.charges[0].amount = Money::MAX;
    let outcome = one.post(&bad).await;
    assert!(matches!(outcome, Err(Fault::Broken(_))), "{outcome:?}");
    assert_eq!((all_charges(&two).await, whole(&two).await), (Vec::new(), Vec::new()));
    assert_eq!(two.balances().await.unwrap(), []);
    assert_eq!(one.post(&batch(vec![charge("acme", 1)])).await.unwrap(), (1, 1), "and it goes on");
}

pub(super) async fn odd_text_and_absurd_counts_stop_no_batch(one: Shared, two: Shared) {
    let odd = "'; DROP TABLE charges;-- \0 \u{1F600} \"$1\"";
    let kept = odd.replace('\0', "\u{fffd}");
    let strange = Charge {
        request: RequestId::new(odd),
        model: ModelName::new(odd),
        tag: Some(Arc::from(odd)),
        usage: Usage { input: Tokens(u64::MAX), images: u32::MAX, ..charge("acme", 0).usage },
        gpu_millis: u64::MAX,
        ..charge(odd, 0)
    };
    let other = Charge { id: PostingId::new(), ..strange.clone() };
    assert_eq!(one.post(&batch(vec![strange, other, charge("acme", 1)])).await.unwrap(), (3, 3));
    let filter = Filter { tag: Some(kept.clone()), ..Filter::default() };
    let sums = two.sums(&filter, &[Dimension::Tenant, Dimension::Tag]).await.unwrap();
    assert_eq!(sums.len(), 1);
    assert_eq!((sums[0].calls, &sums[0].of), (2, &vec![Some(kept.clone()), Some(kept.clone())]));
    assert_eq!(two.charges(&filter, None, 10).await.unwrap()[0].model.as_str(), kept);
}

pub(super) async fn a_transfer_is_taken_back_at_most_once(one: Shared, two: Shared) {
    let acme = Account::Tenant(TenantId::new("acme"));
    let paid = transfer(Account::Cash, acme.clone(), 0, "10");
    let back = |millis| Transfer {
        cause: Cause::Reversal,
        reverses: Some(paid.id),
        ..transfer(acme.clone(), Account::Cash, millis, "10")
    };
    one.post(&Batch { transfers: vec![paid.clone()], ..Batch::default() }).await.unwrap();
    let (first, second) = (back(1), back(2));
    let both = [&one, &two].map(|books| {
        let (books, first, second) = (books.clone(), first.clone(), second.clone());
        tokio::spawn(async move { books.post(&Batch { transfers: vec![first, second], ..Batch::default() }).await })
    });
    let mut new = 0;
    for posted in both {
        new += posted.await.unwrap().unwrap().1;
    }
    assert_eq!(new, 1);
    let balance = one.balance(&acme, Currency::USD).await.unwrap();
    assert_eq!((balance.debits, balance.credits), (Money::from_units(10), Money::from_units(10)));
    assert_eq!(two.transfers(&acme, None, 10).await.unwrap().len(), 2);
}

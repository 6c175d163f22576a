//! A tenant's months, made up at random from a seed: plans with every way of billing, prices, changes of plan in the
//! middle of days, and thousands of calls.

use std::sync::Arc;

use kernel::store::ledger::{Batch, Charge, Ending, PostingId};
use kernel::store::registry::{PlanRow, PriceRow, Source, SubscriptionRow, TenantRow};
use kernel::store::{Ledger, Registry};
use kernel::{
    Billing, Currency, KeyId, ModelName, Money, Price, RequestId, TenantId, Timestamp, Tokens, Usage, Version,
};
use serde_json::json;
use uuid::Uuid;

use super::shelf::Shelf;
use crate::invoice::{Books, Day, Month, Period};

/// The tenant.
pub(crate) struct World {
    pub shelf: Arc<Shelf>,
    pub books: Books,
    pub tenant: TenantId,
    chance: Chance,
    /// What plans and prices say, by id.
    billing: Vec<(String, Billing)>,
    catalogue: Vec<(String, Price)>,
}

/// SplitMix64: the same numbers from the same seed.
pub(crate) struct Chance(pub u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    /// An amount of at most so many decimals.
    fn amount(&mut self, below: u64, decimals: u32) -> String {
        Money::from_pico(i128::from(self.below(below)) * 10_i128.pow(12 - decimals)).to_string()
    }
}

pub(crate) fn month(text: &str) -> Period {
    Month::parse(text).unwrap().period()
}

pub(crate) fn at(day: &str) -> Timestamp {
    Day::parse(day).unwrap().start()
}

impl World {
    /// On plans and prices, but without calls.
    pub(crate) fn new(seed: u64) -> Self {
        let shelf = Arc::new(Shelf::default());
        let books = Books::new(Arc::clone(&shelf) as Arc<dyn Ledger>, Arc::clone(&shelf) as Arc<dyn Registry>);
        let mut world = Self {
            shelf,
            books,
            tenant: TenantId::new("acme"),
            chance: Chance(seed),
            billing: Vec::new(),
            catalogue: Vec::new(),
        };
        let rows: Vec<_> = (0..4).map(|nth| world.plan(nth)).collect();
        let prices: Vec<_> = (0..5).map(|nth| world.price(nth)).collect();
        let billing = |row: &PlanRow| {
            let terms: serde_json::Value = serde_json::from_str(&row.terms).unwrap();
            (row.id.clone(), serde_json::from_value(terms["billing"].clone()).unwrap())
        };
        world.billing = rows.iter().map(billing).collect();
        world.catalogue =
            prices.iter().map(|row| (row.id.clone(), serde_json::from_str(&row.terms).unwrap())).collect();
        let subscriptions = world.subscriptions();
        let tenant = tenant(&world.tenant, subscriptions.last().map(|on| on.plan.clone()));
        world.shelf.change(|shelf| {
            shelf.tenants.push(tenant);
            shelf.plans = rows;
            shelf.prices = prices;
            shelf.subscriptions = subscriptions;
        });
        world
    }

    /// Two plans of two versions each.
    fn plan(&mut self, nth: u64) -> PlanRow {
        let chance = &mut self.chance;
        let name = if nth < 2 { "pro" } else { "max" };
        let mut billing = json!({});
        if chance.one_in(2) {
            let mut monthly = json!({ "fee": chance.amount(100_000, 2), "included_tokens": chance.below(2_000_000) });
            if chance.one_in(2) {
                monthly["overage_per_1k_tokens"] = chance.amount(10_000, 6).into();
            }
            billing["monthly"] = monthly;
        }
        if chance.one_in(3) {
            billing["per_call"] = chance.amount(5_000, 6).into();
        }
        if chance.one_in(3) {
            billing["per_token"] = chance.one_in(2).into();
        }
        if chance.one_in(3) {
            billing["markup_percent"] = chance.below(250).into();
        }
        if chance.one_in(6) {
            billing["currency"] = "jpy".into();
        }
        let created = at("2026-09-01").0 + i64::try_from(chance.below(90 * 86_400_000)).unwrap();
        PlanRow {
            id: format!("{name}@{nth}"),
            name: name.into(),
            source: Source::Api,
            terms: json!({ "name": name, "weight": 3, "billing": billing }).to_string(),
            created: if nth.is_multiple_of(2) { at("2026-01-01") } else { Timestamp(created) },
            again: if nth.is_multiple_of(2) && self.chance.one_in(2) {
                vec![Timestamp(created + 1)]
            } else {
                Vec::new()
            },
            retired: None,
        }
    }

    fn price(&mut self, nth: u64) -> PriceRow {
        let chance = &mut self.chance;
        let mut price = json!({ "model": "m", "from": "2026-01-01" });
        for field in ["input", "cached_input", "cache_write", "output", "reasoning", "audio_input", "audio_output"] {
            if chance.one_in(2) {
                price[format!("{field}_per_1m_tokens")] = chance.amount(20_000_000, 6).into();
            }
        }
        if chance.one_in(3) {
            price["per_image"] = chance.amount(100_000, 6).into();
        }
        if chance.one_in(3) {
            price["per_call"] = chance.amount(10_000, 7).into();
        }
        if chance.one_in(3) {
            price["per_gpu_second"] = chance.amount(10_000, 7).into();
        }
        PriceRow {
            id: format!("price-{nth}"),
            source: Source::Api,
            terms: price.to_string(),
            created: at("2026-01-01"),
            withdrawn: None,
        }
    }

    fn subscriptions(&mut self) -> Vec<SubscriptionRow> {
        let mut rows = Vec::new();
        let mut from = at("2026-09-20").0;
        while from < at("2026-12-31").0 {
            let length = 1 + i64::try_from(self.chance.below(40 * 86_400_000)).unwrap();
            let plan = if self.chance.one_in(2) { "pro" } else { "max" };
            if !self.chance.one_in(5) {
                rows.push(SubscriptionRow {
                    tenant: self.tenant.clone(),
                    plan: plan.into(),
                    from: Timestamp(from),
                    until: Some(Timestamp(from + length)),
                });
            }
            from += length;
        }
        rows
    }

    /// Calls at random points of a time, rated and posted.
    pub(crate) async fn calls(&mut self, count: u64, period: Period) -> Vec<Charge> {
        let charges: Vec<_> = (0..count).map(|_| self.call(period)).collect();
        let transfers = charges.iter().filter_map(Charge::transfer).collect();
        let batch = Batch { charges: charges.clone(), transfers };
        self.shelf.post(&batch).await.unwrap();
        charges
    }

    fn call(&mut self, period: Period) -> Charge {
        let span = u64::try_from(period.end().0 - period.start().0).unwrap();
        let at = Timestamp(period.start().0 + i64::try_from(self.chance.below(span)).unwrap());
        let chance = &mut self.chance;
        let plan = (!chance.one_in(6)).then(|| chance.pick(&self.billing));
        let price = (!chance.one_in(8)).then(|| chance.pick(&self.catalogue));
        let usage = usage(chance);
        let gpu_millis = if chance.one_in(3) { chance.below(100_000) } else { 0 };
        let ending = *chance.pick(&Ending::ALL);
        let billing = plan.map_or_else(Billing::default, |(_, billing)| billing.clone());
        let id = Uuid::from_u64_pair(chance.next(), chance.next());
        Charge {
            id: PostingId(id),
            at,
            request: RequestId::new(format!("r{}", chance.below(1000))),
            tenant: self.tenant.clone(),
            key: chance.one_in(2).then(|| KeyId::new("k1")),
            model: ModelName::new(*chance.pick(&["gpt", "llama", "qwen"])),
            version: Version::new("v1"),
            operation: "chat",
            tag: chance.one_in(3).then(|| "=tag".into()),
            usage,
            gpu_millis,
            ending,
            plan: plan.map(|(id, _)| id.as_str().into()),
            price: price.map(|(id, _)| id.as_str().into()),
            currency: billing.currency(),
            amount: rate(&usage, gpu_millis, ending, &billing, price.map(|(_, price)| price)),
        }
    }
}

fn usage(chance: &mut Chance) -> Usage {
    if chance.one_in(10) {
        return Usage::default();
    }
    let (input, output) = (chance.below(50_000), chance.below(4_000));
    let part = |chance: &mut Chance, whole: u64| if chance.one_in(3) { chance.below(whole / 4 + 1) } else { 0 };
    Usage {
        input: Tokens(input),
        cached: Tokens(part(chance, input)),
        cache_write: Tokens(part(chance, input)),
        audio_input: Tokens(part(chance, input)),
        output: Tokens(output),
        reasoning: Tokens(part(chance, output)),
        audio_output: Tokens(part(chance, output)),
        images: if chance.one_in(10) { 2 } else { 0 },
        estimated: chance.one_in(7),
    }
}

/// What a call costs, as the gateway rates it.
fn rate(usage: &Usage, gpu_millis: u64, ending: Ending, billing: &Billing, price: Option<&Price>) -> Money {
    let answered = crate::rating::answered(ending, usage);
    crate::rating::rate(
        &crate::rating::Consumed { usage, gpu_millis, answered, cached: false },
        billing,
        price.map(crate::rating::Rates::of).as_ref(),
    )
}

pub(crate) fn tenant(id: &TenantId, plan: Option<String>) -> TenantRow {
    TenantRow {
        id: id.clone(),
        source: Source::Api,
        plan,
        suspended: false,
        terms: "{}".into(),
        created: at("2026-01-01"),
        updated: at("2026-01-01"),
    }
}

/// All currencies that worlds have.
pub(crate) fn currencies() -> [Currency; 2] {
    [Currency::USD, Currency::parse("jpy").unwrap()]
}

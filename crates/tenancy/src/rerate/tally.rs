//! All charges of a time, read one by one and rated anew, and the lines they come to.

use std::collections::{BTreeMap, HashMap};

use kernel::store::Ledger;
use kernel::store::ledger::{Charge, Ending, Filter};
use kernel::{TenantId, Timestamp};

use super::paper::{Amount, Group, Key};
use super::ratio::{FINE, Ratio};
use super::terms::{TOKENS, Terms};
use super::{Difference, Trouble, too_large};

/// Read at once; some hundred KiB.
const PAGE: u32 = 1000;

/// What a time comes to.
#[derive(Default)]
pub(super) struct Tally {
    pub groups: BTreeMap<Group, Totals>,
    pub charges: u64,
    pub differences: Vec<Difference>,
}

/// What charges of one group come to together.
pub(super) struct Totals {
    pub calls: u64,
    answered: u64,
    /// As reported, by class of tokens; of `input` and `output` the whole.
    tokens: [u128; 7],
    images: u128,
    gpu_millis: u128,
    charged: Ratio,
}

impl Tally {
    /// Reads every charge of a tenant in a time and currency.
    pub(super) async fn read(
        ledger: &dyn Ledger,
        terms: &Terms,
        tenant: &TenantId,
        (from, until): (Timestamp, Timestamp),
        currency: &str,
    ) -> Result<Self, Trouble> {
        let filter = Filter { tenant: Some(tenant.clone()), from: Some(from), until: Some(until), ..Filter::default() };
        let (mut tally, mut after) = (Self::default(), None);
        loop {
            let page = ledger.charges(&filter, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(tally) };
            after = Some((last.at, last.id));
            for charge in page.iter().filter(|charge| charge.currency.as_str() == currency) {
                tally.take(terms, charge).ok_or_else(too_large)?;
            }
        }
    }

    fn take(&mut self, terms: &Terms, charge: &Charge) -> Option<()> {
        self.charges += 1;
        let charged = Ratio::parse(&charge.amount.to_string())?;
        let rated = rated(terms, charge)?;
        if rated != charged {
            self.differences.push(Difference {
                what: "charge",
                id: charge.id.to_string(),
                about: format!("request {}, model {}", charge.request, charge.model),
                billed: charged.to_string(),
                rerated: rated.to_string(),
            });
        }
        let group = Group {
            month: super::calendar::month(charge.at.0),
            plan: charge.plan.as_deref().map(str::to_owned),
            model: Some(charge.model.to_string()),
            price: charge.price.as_deref().map(str::to_owned),
        };
        let nothing = Totals { calls: 0, answered: 0, tokens: [0; 7], images: 0, gpu_millis: 0, charged: Ratio::ZERO };
        let totals = self.groups.entry(group).or_insert(nothing);
        totals.calls += 1;
        totals.answered += u64::from(was_answered(charge));
        for (sum, tokens) in totals.tokens.iter_mut().zip(reported(charge)) {
            *sum += u128::from(tokens);
        }
        totals.images += u128::from(charge.usage.images);
        totals.gpu_millis += u128::from(charge.gpu_millis);
        totals.charged = totals.charged.plus(charged)?;
        Some(())
    }

    /// The lines about usage: what each comes to, exact to 10⁻¹².
    pub(super) fn lines(&self, terms: &Terms, included: &HashMap<String, u128>) -> Option<HashMap<Key, Amount>> {
        let mut lines = HashMap::new();
        for (group, totals) in &self.groups {
            totals.charged_lines(terms, group, &mut lines)?;
        }
        for (month, included) in included {
            let key = Key { earlier: None, group: month_only(month), kind: "included".into(), class: None };
            let tokens: u128 = self.coverable(terms, month).map(|(_, totals)| totals.read_and_generated()).sum();
            if *included > 0 {
                lines.insert(key, Amount { quantity: tokens.min(*included), exact: Ratio::ZERO });
            }
        }
        let months: std::collections::BTreeSet<_> = self.groups.keys().map(|group| group.month.as_str()).collect();
        for month in months {
            self.beyond(terms, month, included.get(month).copied().unwrap_or(0), &mut lines)?;
        }
        Some(lines)
    }

    /// Groups of a month whose tokens a monthly fee may cover.
    fn coverable<'a>(&'a self, terms: &'a Terms, month: &'a str) -> impl Iterator<Item = (&'a Group, &'a Totals)> {
        self.groups.iter().filter(move |(group, _)| {
            let plan = group.plan.as_deref();
            group.month == month && !terms.by_token(plan) && terms.billing(plan, "monthly").is_object()
        })
    }

    /// Tokens beyond those included: as many as there are too many, the cheapest of them.
    fn beyond(&self, terms: &Terms, month: &str, included: u128, lines: &mut HashMap<Key, Amount>) -> Option<()> {
        // What a token costs, how many there are, and the line they stand in.
        let mut kinds: BTreeMap<(Group, usize), (Ratio, u128, Key, Ratio)> = BTreeMap::new();
        for (group, totals) in self.coverable(terms, month) {
            let plan = group.plan.as_deref();
            let line = |price: &Option<String>, class: Option<&str>| Key {
                earlier: None,
                group: Group { price: price.clone(), ..group.clone() },
                kind: "overage".into(),
                class: class.map(str::to_owned),
            };
            if let Some(price) = terms.amount(plan, "monthly/overage_per_1k_tokens") {
                let key = line(&None, None);
                let kind = (price.times(Ratio::new(1, 1000)?)?, 0, key.clone(), price);
                kinds.entry((key.group, 0)).or_insert(kind).1 += totals.read_and_generated();
                continue;
            }
            for (nth, (class, tokens)) in totals.split().into_iter().enumerate() {
                let (_, field, or) = TOKENS.get(nth)?;
                let price = unit(terms, group, field, or)?;
                let each = price.times(Ratio::new(1, 1_000_000)?)?;
                kinds.insert((group.clone(), nth), (each, tokens, line(&group.price, Some(class)), price));
            }
        }
        let total: u128 = kinds.values().map(|(_, tokens, ..)| tokens).sum();
        let mut over = total.saturating_sub(included);
        // Of the same price, what stands further down on the invoice is left over first.
        let mut cheapest: Vec<_> = kinds.into_iter().rev().collect();
        cheapest.sort_by(|(_, (a, ..)), (_, (b, ..))| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
        for (_, (each, tokens, key, _)) in cheapest {
            let here = tokens.min(over);
            over -= here;
            if here > 0 {
                let exact = each.times(Ratio::whole(here)?)?.round(FINE)?;
                lines.insert(key, Amount { quantity: here, exact });
            }
        }
        Some(())
    }
}

impl Totals {
    const fn read_and_generated(&self) -> u128 {
        let [input, _, _, _, output, ..] = self.tokens;
        input + output
    }

    /// Tokens of each class, each counted once.
    const fn split(&self) -> [(&'static str, u128); 7] {
        let [input, cached, cache_write, audio_input, output, reasoning, audio_output] = self.tokens;
        [
            ("input", input.saturating_sub(cached + cache_write + audio_input)),
            ("cached", cached),
            ("cache_write", cache_write),
            ("audio_input", audio_input),
            ("output", output.saturating_sub(reasoning + audio_output)),
            ("reasoning", reasoning),
            ("audio_output", audio_output),
        ]
    }

    fn charged_lines(&self, terms: &Terms, group: &Group, lines: &mut HashMap<Key, Amount>) -> Option<()> {
        let plan = group.plan.as_deref();
        let mut left = self.charged;
        let mut put = |class: &str, price: &Option<String>, quantity: u128, each: Ratio| {
            let exact = each.times(Ratio::whole(quantity)?)?.round(FINE)?;
            left = left.minus(exact)?;
            let group = Group { price: price.clone(), ..group.clone() };
            let key = Key { earlier: None, group, kind: "usage".into(), class: Some(class.into()) };
            let line = lines.entry(key).or_insert(Amount::NONE);
            *line = line.plus(Amount { quantity, exact })?;
            Some(())
        };
        if terms.by_token(plan) {
            for (nth, (class, tokens)) in self.split().into_iter().enumerate().filter(|(_, (_, tokens))| *tokens > 0) {
                let (_, field, or) = TOKENS.get(nth)?;
                let each = unit(terms, group, field, or)?.times(Ratio::new(1, 1_000_000)?)?;
                put(class, &group.price, tokens, each)?;
            }
            if self.images > 0 {
                put("images", &group.price, self.images, unit(terms, group, "per_image", "per_image")?)?;
            }
            let gpu = unit(terms, group, "per_gpu_second", "per_gpu_second")?;
            if self.gpu_millis > 0 && !gpu.is_zero() {
                put("gpu", &group.price, self.gpu_millis, gpu.times(Ratio::new(1, 1000)?)?)?;
            }
            let call = unit(terms, group, "per_call", "per_call")?;
            if self.answered > 0 && !call.is_zero() {
                put("calls", &group.price, self.answered.into(), call)?;
            }
        }
        if let Some(call) = terms.amount(plan, "per_call").filter(|call| self.answered > 0 && !call.is_zero()) {
            put("calls", &None, self.answered.into(), call)?;
        }
        if !left.is_zero() {
            let key = Key { earlier: None, group: group.clone(), kind: "adjustment".into(), class: None };
            lines.insert(key, Amount { quantity: 0, exact: left });
        }
        Some(())
    }
}

/// What a unit costs a group, as the price gives it, with the plan's markup.
fn unit(terms: &Terms, group: &Group, field: &str, or: &str) -> Option<Ratio> {
    let listed = terms.price(group.price.as_deref(), field, or);
    match terms.markup(group.plan.as_deref()) {
        None => Some(listed),
        Some(factor) => listed.times(factor)?.round(FINE),
    }
}

/// What one charge should be.
fn rated(terms: &Terms, charge: &Charge) -> Option<Ratio> {
    let (plan, price) = (charge.plan.as_deref(), charge.price.as_deref());
    let answered = was_answered(charge);
    let mut cost = Ratio::ZERO;
    if terms.by_token(plan) {
        let field = |field: &str| terms.price(price, field, field);
        for ((_, field, or), tokens) in TOKENS.iter().zip(believed(charge)) {
            let part = terms.price(price, field, or).times(Ratio::new(tokens.into(), 1_000_000)?)?;
            cost = cost.plus(part)?;
        }
        cost = cost.plus(field("per_image").times(Ratio::whole(charge.usage.images.into())?)?)?;
        cost = cost.plus(field("per_gpu_second").times(Ratio::new(charge.gpu_millis.into(), 1000)?)?)?;
        if answered {
            cost = cost.plus(field("per_call"))?;
        }
        if let Some(factor) = terms.markup(plan) {
            // Below 10⁻¹² nothing is charged.
            cost = cost.times(factor)?.truncate(FINE)?;
        }
    }
    if answered && let Some(call) = terms.amount(plan, "per_call") {
        cost = cost.plus(call)?;
    }
    Some(cost)
}

/// Whether what is charged per call was due: the client got an answer, or a part of one.
fn was_answered(charge: &Charge) -> bool {
    charge.ending == Ending::Complete || charge.usage.output.0 > 0 || charge.usage.images > 0
}

/// Tokens as reported, by class; of `input` and `output` the whole.
const fn reported(charge: &Charge) -> [u64; 7] {
    let usage = &charge.usage;
    [
        usage.input.0,
        usage.cached.0,
        usage.cache_write.0,
        usage.audio_input.0,
        usage.output.0,
        usage.reasoning.0,
        usage.audio_output.0,
    ]
}

/// Tokens of one call by class, each once. Of parts that are larger than the whole, those first in line are believed.
fn believed(charge: &Charge) -> [u64; 7] {
    let [input, cached, cache_write, audio_input, output, reasoning, audio_output] = reported(charge);
    let cached = cached.min(input);
    let cache_write = cache_write.min(input - cached);
    let audio_input = audio_input.min(input - cached - cache_write);
    let audio_output = audio_output.min(output);
    let reasoning = reasoning.min(output - audio_output);
    let plain = (input - cached - cache_write - audio_input, output - reasoning - audio_output);
    [plain.0, cached, cache_write, audio_input, plain.1, reasoning, audio_output]
}

pub(super) fn month_only(month: &str) -> Group {
    Group { month: month.to_owned(), plan: None, model: None, price: None }
}

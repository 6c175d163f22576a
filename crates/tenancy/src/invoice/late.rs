//! What became known only after its invoice was issued.
//!
//! A charge belongs to the time it ended in, but one that waited in a daybook while a gateway was down is posted later.
//! So every invoice looks back at those before it, asks the ledger what they would be made of now, and takes over what
//! none of them has.

use std::collections::BTreeMap;

use kernel::Money;

use super::item::{Count, Item, Items, Kind};
use super::{Consumption, Invoice};

/// What an earlier invoice's time comes to now, less what it and the invoices after it have charged of it already.
pub(crate) fn late(id: &str, now: &Items, issued: &[Invoice]) -> Items {
    let mut charged: BTreeMap<Item, (u64, Money)> = BTreeMap::new();
    for invoice in issued {
        for line in &invoice.lines {
            let own = invoice.id.as_deref() == Some(id) && line.item.earlier.is_none();
            if own || line.item.earlier.as_deref() == Some(id) {
                let item = Item { earlier: None, ..line.item.clone() };
                let (quantity, exact) = charged.entry(item).or_default();
                *quantity += line.count.quantity;
                *exact += line.count.exact;
            }
        }
    }
    let mut late = Items::new();
    for (item, count) in now {
        let (quantity, exact) = charged.get(item).copied().unwrap_or_default();
        let more = Count { quantity: count.quantity.saturating_sub(quantity), exact: count.exact - exact, ..*count };
        // How many of the included tokens are used says nothing to a later month.
        if item.kind != Kind::Included && (more.quantity > 0 || !more.exact.is_zero()) {
            late.insert(Item { earlier: Some(id.to_owned()), ..item.clone() }, more);
        }
    }
    // An adjustment can come to nothing once more is known: what was charged of it is given back.
    for (item, (_, exact)) in charged {
        if item.kind == Kind::Adjustment && !now.contains_key(&item) && !exact.is_zero() {
            late.insert(Item { earlier: Some(id.to_owned()), ..item }, Count::amount(-exact));
        }
    }
    late
}

/// The same of what calls consumed.
pub(crate) fn late_usage(id: &str, now: Vec<Consumption>, issued: &[Invoice]) -> Vec<Consumption> {
    let told = |more: &Consumption| {
        let of = issued.iter().flat_map(|invoice| invoice.usage.iter().map(move |usage| (invoice, usage)));
        of.filter(|(invoice, usage)| usage.earlier.as_deref().or(invoice.id.as_deref()) == Some(id) && usage.same(more))
            .map(|(_, usage)| usage.clone())
            .collect::<Vec<_>>()
    };
    let less = |mut more: Consumption| {
        for told in told(&more) {
            more.calls = more.calls.saturating_sub(told.calls);
            more.estimated = more.estimated.saturating_sub(told.estimated);
            more.input_tokens = more.input_tokens.saturating_sub(told.input_tokens);
            more.output_tokens = more.output_tokens.saturating_sub(told.output_tokens);
            more.images = more.images.saturating_sub(told.images);
            more.gpu_ms = more.gpu_ms.saturating_sub(told.gpu_ms);
            more.charged -= told.charged;
        }
        more.earlier = Some(id.to_owned());
        more
    };
    now.into_iter().map(less).filter(|more| more.calls > 0).collect()
}

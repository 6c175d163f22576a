//! A store in memory, for tests: rows in vectors, questions answered by looking at all of them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use kernel::store::ledger::{
    Account, Balance, Batch, Cause, Charge, Dimension, Filter, InvoiceRow, PostingId, Sum, SumPage, Transfer,
};
use kernel::store::registry::{KeyRow, Part, PlanRow, PriceRow, Seed, SubscriptionRow, TenantRow};
use kernel::store::{Fault, Ledger, Registry, Stored};
use kernel::{Currency, KeyId, Money, TenantId, Timestamp};

use crate::invoice::Day;

/// Everything.
#[derive(Debug, Default)]
pub(crate) struct Shelf(pub(crate) Mutex<Rows>);

#[derive(Debug, Default, Clone)]
pub(crate) struct Rows {
    pub tenants: Vec<TenantRow>,
    pub plans: Vec<PlanRow>,
    pub prices: Vec<PriceRow>,
    pub subscriptions: Vec<SubscriptionRow>,
    pub charges: Vec<Charge>,
    pub transfers: Vec<Transfer>,
    pub invoices: Vec<InvoiceRow>,
    /// How often sums, balances and subscriptions were asked for.
    pub questions: u64,
    /// How long a sum takes for each of some tenants.
    pub slow: BTreeMap<TenantId, Duration>,
    /// Whether it answers nothing at all.
    pub away: bool,
}

fn now<'a, T: Send + 'a>(answer: Result<T, Fault>) -> Stored<'a, T> {
    Box::pin(std::future::ready(answer))
}

fn fits(charge: &Charge, filter: &Filter) -> bool {
    filter.tenant.as_ref().is_none_or(|tenant| *tenant == charge.tenant)
        && (filter.tenants.is_empty() || filter.tenants.contains(&charge.tenant))
        && filter.key.as_ref().is_none_or(|key| charge.key.as_ref() == Some(key))
        && filter.model.as_ref().is_none_or(|model| *model == charge.model)
        && filter.tag.as_deref().is_none_or(|tag| charge.tag.as_deref() == Some(tag))
        && filter.from.is_none_or(|from| charge.at >= from)
        && filter.until.is_none_or(|until| charge.at < until)
}

fn part(charge: &Charge, by: Dimension) -> Option<String> {
    let floor = |span: i64| Some((charge.at.millis().div_euclid(span) * span).to_string());
    match by {
        Dimension::Tenant => Some(charge.tenant.to_string()),
        Dimension::Key => charge.key.as_ref().map(ToString::to_string),
        Dimension::Model => Some(charge.model.to_string()),
        Dimension::Tag => charge.tag.as_deref().map(str::to_owned),
        Dimension::Price => charge.price.as_deref().map(str::to_owned),
        Dimension::Plan => charge.plan.as_deref().map(str::to_owned),
        Dimension::Hour => floor(3_600_000),
        Dimension::Day => floor(86_400_000),
        Dimension::Month => Some(Day::of(charge.at).month().to_string()),
    }
}

impl Shelf {
    fn asked(&self) {
        self.change(|rows| rows.questions += 1);
    }

    /// Never, while it is away.
    async fn answers(&self) {
        if self.change(|rows| rows.away) {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Rows) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }
}

impl Rows {
    fn take(&mut self, transfer: &Transfer) -> Result<u64, Fault> {
        if self.transfers.iter().any(|there| there.id == transfer.id) {
            return Ok(0);
        }
        assert!(transfer.amount.is_positive(), "a transfer moves something: {transfer:?}");
        if transfer.reverses.is_some() && self.transfers.iter().any(|there| there.reverses == transfer.reverses) {
            return Err(Fault::Conflict("taken back before"));
        }
        self.transfers.push(transfer.clone());
        Ok(1)
    }
}

impl Shelf {
    /// Transfers of an account after one, of those that count at most so many.
    fn touching(
        &self,
        account: &Account,
        after: Option<(Timestamp, PostingId)>,
        most: u32,
        counts: impl Fn(&Transfer) -> bool,
    ) -> Vec<Transfer> {
        let touches = |transfer: &&Transfer| {
            (transfer.debit == *account || transfer.credit == *account)
                && after.is_none_or(|at| (transfer.at, transfer.id) > at)
                && counts(transfer)
        };
        let mut found: Vec<_> = self.change(|rows| rows.transfers.iter().filter(touches).cloned().collect());
        found.sort_by_key(|transfer| (transfer.at, transfer.id));
        found.truncate(most as usize);
        found
    }
}

impl Ledger for Shelf {
    fn post<'a>(&'a self, batch: &'a Batch) -> Stored<'a, (u64, u64)> {
        now(self.change(|rows| {
            let (mut charges, mut transfers) = (0, 0);
            for charge in &batch.charges {
                if !rows.charges.iter().any(|there| there.id == charge.id) {
                    rows.charges.push(charge.clone());
                    charges += 1;
                }
            }
            for transfer in &batch.transfers {
                transfers += rows.take(transfer)?;
            }
            Ok((charges, transfers))
        }))
    }

    fn sums<'a>(&'a self, filter: &'a Filter, by: &'a [Dimension]) -> Stored<'a, Vec<Sum>> {
        self.asked();
        let mut sums: BTreeMap<(Vec<Option<String>>, Currency), Sum> = BTreeMap::new();
        self.change(|rows| {
            for charge in rows.charges.iter().filter(|charge| fits(charge, filter)) {
                let of: Vec<_> = by.iter().map(|by| part(charge, *by)).collect();
                let sum = sums.entry((of.clone(), charge.currency)).or_insert(Sum {
                    of,
                    calls: 0,
                    estimated: 0,
                    usage: kernel::Usage::default(),
                    gpu_millis: 0,
                    currency: charge.currency,
                    amount: Money::ZERO,
                });
                sum.calls += 1;
                sum.estimated += u64::from(charge.usage.estimated);
                sum.usage.input.0 += charge.usage.input.0;
                sum.usage.cached.0 += charge.usage.cached.0;
                sum.usage.cache_write.0 += charge.usage.cache_write.0;
                sum.usage.audio_input.0 += charge.usage.audio_input.0;
                sum.usage.output.0 += charge.usage.output.0;
                sum.usage.reasoning.0 += charge.usage.reasoning.0;
                sum.usage.audio_output.0 += charge.usage.audio_output.0;
                sum.usage.images += charge.usage.images;
                sum.gpu_millis += charge.gpu_millis;
                sum.amount += charge.amount;
            }
        });
        let takes = self.change(|rows| {
            let asked = rows.slow.iter().filter(|(tenant, _)| filter.tenants.contains(*tenant));
            asked.map(|(_, takes)| *takes).sum::<Duration>()
        });
        Box::pin(async move {
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            self.answers().await;
            Ok(sums.into_values().collect())
        })
    }

    fn sums_page<'a>(&'a self, page: &'a SumPage) -> Stored<'a, Vec<Sum>> {
        Box::pin(async move {
            let mut sums = self.sums(&page.filter, &page.by).await?;
            let after = page.after.as_ref();
            sums.retain(|sum| after.is_none_or(|(of, currency)| (&sum.of, &sum.currency) > (of, currency)));
            sums.truncate(page.most as usize);
            Ok(sums)
        })
    }

    fn charges<'a>(
        &'a self,
        filter: &'a Filter,
        after: Option<(Timestamp, PostingId)>,
        most: u32,
    ) -> Stored<'a, Vec<Charge>> {
        let mut found: Vec<_> = self.change(|rows| {
            let fits = |charge: &&Charge| fits(charge, filter) && after.is_none_or(|at| (charge.at, charge.id) > at);
            rows.charges.iter().filter(fits).cloned().collect()
        });
        found.sort_by_key(|charge| (charge.at, charge.id));
        found.truncate(most as usize);
        now(Ok(found))
    }

    fn transfers<'a>(
        &'a self,
        account: &'a Account,
        after: Option<(Timestamp, PostingId)>,
        most: u32,
    ) -> Stored<'a, Vec<Transfer>> {
        now(Ok(self.touching(account, after, most, |_| true)))
    }

    fn moves<'a>(
        &'a self,
        account: &'a Account,
        after: Option<(Timestamp, PostingId)>,
        most: u32,
    ) -> Stored<'a, Vec<Transfer>> {
        now(Ok(self.touching(account, after, most, |transfer| transfer.cause != Cause::Call)))
    }

    fn transfer(&self, id: PostingId) -> Stored<'_, Option<Transfer>> {
        now(Ok(self.change(|rows| rows.transfers.iter().find(|transfer| transfer.id == id).cloned())))
    }

    fn balance<'a>(&'a self, account: &'a Account, currency: Currency) -> Stored<'a, Balance> {
        let balance = self.change(|rows| {
            let mut balance = Balance::default();
            for transfer in rows.transfers.iter().filter(|transfer| transfer.currency == currency) {
                if transfer.debit == *account {
                    balance.debits += transfer.amount;
                }
                if transfer.credit == *account {
                    balance.credits += transfer.amount;
                }
            }
            balance
        });
        now(Ok(balance))
    }

    fn balances_of<'a>(&'a self, accounts: &'a [Account]) -> Stored<'a, Vec<(Account, Currency, Balance)>> {
        Box::pin(async move {
            self.asked();
            self.answers().await;
            let mut found = Vec::new();
            for account in accounts {
                found.push((account.clone(), Currency::USD, self.balance(account, Currency::USD).await?));
            }
            Ok(found)
        })
    }

    fn balances(&self) -> Stored<'_, Vec<(Account, Currency, Balance)>> {
        now(Ok(Vec::new()))
    }

    fn issue<'a>(&'a self, invoice: &'a InvoiceRow, transfers: &'a [Transfer]) -> Stored<'a, ()> {
        now(self.change(|rows| {
            let clash = rows.invoices.iter().any(|there| {
                there.id == invoice.id
                    || (there.tenant == invoice.tenant
                        && there.currency == invoice.currency
                        && there.from < invoice.until
                        && invoice.from < there.until)
            });
            if clash {
                return Err(Fault::Conflict("there is an invoice"));
            }
            rows.invoices.push(invoice.clone());
            for transfer in transfers {
                rows.take(transfer)?;
            }
            Ok(())
        }))
    }

    fn invoices<'a>(&'a self, tenant: Option<&'a TenantId>) -> Stored<'a, Vec<InvoiceRow>> {
        let of = |row: &&InvoiceRow| tenant.is_none_or(|tenant| *tenant == row.tenant);
        let mut found: Vec<_> = self.change(|rows| rows.invoices.iter().filter(of).cloned().collect());
        found.sort_by_key(|row| std::cmp::Reverse(row.from));
        now(Ok(found))
    }

    fn invoice<'a>(&'a self, id: &'a str) -> Stored<'a, Option<InvoiceRow>> {
        now(Ok(self.change(|rows| rows.invoices.iter().find(|row| row.id == id).cloned())))
    }

    fn audit(&self) -> Stored<'_, Vec<String>> {
        now(Ok(Vec::new()))
    }
}

/// Only what invoices ask for is answered; the rest nobody calls.
impl Registry for Shelf {
    fn parts<'a>(&'a self, _: Option<i64>, _: &'a (dyn Fn(Part) + Sync)) -> Stored<'a, Option<i64>> {
        unreachable!("no invoice asks for it")
    }

    fn seed(&self, _: Seed) -> Stored<'_, Vec<String>> {
        unreachable!("no invoice asks for it")
    }

    fn make_tenant(&self, tenant: TenantRow) -> Stored<'_, ()> {
        self.change(|rows| rows.tenants.push(tenant));
        now(Ok(()))
    }

    fn change_tenant(&self, _: TenantRow, _: Timestamp) -> Stored<'_, ()> {
        unreachable!("no invoice asks for it")
    }

    fn make_key(&self, _: KeyRow) -> Stored<'_, ()> {
        unreachable!("no invoice asks for it")
    }

    fn change_key(&self, _: KeyRow) -> Stored<'_, ()> {
        unreachable!("no invoice asks for it")
    }

    fn revoke_key<'a>(&'a self, _: &'a TenantId, _: &'a KeyId, _: Timestamp) -> Stored<'a, ()> {
        unreachable!("no invoice asks for it")
    }

    fn used<'a>(&'a self, _: &'a [(KeyId, Timestamp)]) -> Stored<'a, ()> {
        unreachable!("no invoice asks for it")
    }

    fn enter_plan(&self, plan: PlanRow) -> Stored<'_, ()> {
        self.change(|rows| rows.plans.push(plan));
        now(Ok(()))
    }

    fn retire_plan<'a>(&'a self, _: &'a str, _: Timestamp) -> Stored<'a, ()> {
        unreachable!("no invoice asks for it")
    }

    fn enter_price(&self, price: PriceRow) -> Stored<'_, ()> {
        self.change(|rows| rows.prices.push(price));
        now(Ok(()))
    }

    fn withdraw_price<'a>(&'a self, _: &'a str, _: Timestamp) -> Stored<'a, ()> {
        unreachable!("no invoice asks for it")
    }

    fn keys<'a>(&'a self, _: &'a TenantId) -> Stored<'a, Vec<KeyRow>> {
        unreachable!("no invoice asks for it")
    }

    fn tenant<'a>(&'a self, id: &'a TenantId) -> Stored<'a, Option<TenantRow>> {
        now(Ok(self.change(|rows| rows.tenants.iter().find(|row| row.id == *id).cloned())))
    }

    fn tenants<'a>(&'a self, _: Option<&'a TenantId>, _: u32) -> Stored<'a, Vec<TenantRow>> {
        unreachable!("no invoice asks for it")
    }

    fn plans(&self) -> Stored<'_, Vec<PlanRow>> {
        now(Ok(self.change(|rows| rows.plans.clone())))
    }

    fn prices(&self) -> Stored<'_, Vec<PriceRow>> {
        now(Ok(self.change(|rows| rows.prices.clone())))
    }

    fn subscriptions<'a>(&'a self, tenant: &'a TenantId) -> Stored<'a, Vec<SubscriptionRow>> {
        let of = |row: &&SubscriptionRow| row.tenant == *tenant;
        now(Ok(self.change(|rows| rows.subscriptions.iter().filter(of).cloned().collect())))
    }

    fn subscriptions_of<'a>(&'a self, tenants: &'a [TenantId]) -> Stored<'a, Vec<SubscriptionRow>> {
        self.asked();
        let of = |row: &&SubscriptionRow| tenants.contains(&row.tenant);
        now(Ok(self.change(|rows| rows.subscriptions.iter().filter(of).cloned().collect())))
    }
}

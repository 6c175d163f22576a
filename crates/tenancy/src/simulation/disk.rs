//! What outlives the process: a daybook and a ledger in memory, that can stop at any moment.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use kernel::random::Random;
use kernel::store::daybook::{Backlog, Daybook, Entry, Full, Page, Progress};
use kernel::store::ledger::{
    Account, Balance, Batch, Charge, Dimension, Filter, InvoiceRow, Ledger, PostingId, Sum, SumPage, Transfer,
};
use kernel::store::{Fault, Stored};
use kernel::{Currency, Money, TenantId, Timestamp, Tokens, Usage};

const CORES: usize = 3;

/// One core's log.
#[derive(Default)]
struct Log {
    /// With the page each was read in, in this life.
    entries: Vec<(Entry, Option<u64>)>,
    /// How many were posted.
    posted: usize,
}

#[derive(Default)]
struct Kept {
    past: Vec<Log>,
    present: Vec<Log>,
    mark: u64,
    charges: BTreeMap<PostingId, Charge>,
    transfers: BTreeMap<PostingId, Transfer>,
    /// What moved on each account: the sums of `transfers`.
    moved: BTreeMap<Account, Balance>,
    /// Times a charge was posted that was there already.
    again: u64,
    /// Things that are written until the process dies.
    fuse: u64,
    dead: bool,
    down: bool,
    full: bool,
    /// Batches, and pages, over which whoever posts or reads them breaks down.
    breaks: (u64, u64),
}

impl Kept {
    /// Once, by its id.
    fn transfer(&mut self, transfer: &Transfer) {
        if self.transfers.insert(transfer.id, transfer.clone()).is_none() {
            self.moved.entry(transfer.debit.clone()).or_default().debits += transfer.amount;
            self.moved.entry(transfer.credit.clone()).or_default().credits += transfer.amount;
        }
    }
}

/// Shared by all lives of the process.
pub(super) struct Disk {
    kept: Mutex<Kept>,
    random: Random,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { kept: Mutex::default(), random: Random::seeded(seed) })
    }

    /// A process begins that dies after so many things were written.
    pub(super) fn begin(&self, fuse: u64) {
        let mut kept = self.kept.lock().unwrap();
        let left: Vec<Log> = kept.present.drain(..).collect();
        kept.past.extend(left);
        kept.past.iter_mut().flat_map(|log| &mut log.entries).for_each(|(_, read)| *read = None);
        kept.present = (0..CORES).map(|_| Log::default()).collect();
        (kept.fuse, kept.dead, kept.mark) = (fuse, false, 0);
    }

    pub(super) fn dead(&self) -> bool {
        self.kept.lock().unwrap().dead
    }

    pub(super) fn set(&self, down: bool, full: bool) {
        let mut kept = self.kept.lock().unwrap();
        (kept.down, kept.full) = (down, full);
    }

    /// Whether something that is written now is kept, and whether the process lives to know.
    fn strike(&self, kept: &mut Kept) -> (bool, bool) {
        if kept.dead {
            return (false, false);
        }
        kept.fuse = kept.fuse.saturating_sub(1);
        if kept.fuse > 0 {
            return (true, true);
        }
        kept.dead = true;
        (self.random.below(2) == 0, false)
    }

    /// The next so many batches and pages break down whoever posts or reads them.
    pub(super) fn break_down(&self, posts: u64, pages: u64) {
        self.kept.lock().unwrap().breaks = (posts, pages);
    }

    fn write(&self, core: usize, entry: Entry) {
        let mut kept = self.kept.lock().unwrap();
        if self.strike(&mut kept).0 {
            kept.present[core % CORES].entries.push((entry, None));
        }
    }

    /// The core of an attempt; its end and its copies may come from another.
    fn core(&self, id: PostingId, ends: bool) -> usize {
        if ends { self.random.below(CORES) } else { (id.0.as_u128() % 7) as usize }
    }

    pub(super) fn pay(&self, tenant: &TenantId, amount: Money) {
        let transfer = Transfer {
            id: PostingId::new(),
            at: Timestamp(0),
            cause: kernel::store::ledger::Cause::TopUp,
            debit: Account::Cash,
            credit: Account::Tenant(tenant.clone()),
            amount,
            currency: Currency::USD,
            reverses: None,
            invoice: None,
            note: None,
        };
        self.kept.lock().unwrap().transfer(&transfer);
    }

    pub(super) fn charges(&self) -> Vec<Charge> {
        self.kept.lock().unwrap().charges.values().cloned().collect()
    }

    /// What moved on an account.
    pub(super) fn moved(&self, account: &Account) -> Balance {
        self.kept.lock().unwrap().moved.get(account).copied().unwrap_or_default()
    }

    /// Entries that were not deleted, and batches that came twice.
    pub(super) fn left(&self) -> (usize, u64) {
        let kept = self.kept.lock().unwrap();
        (kept.past.iter().chain(&kept.present).map(|log| log.entries.len()).sum(), kept.again)
    }
}

impl Daybook for Disk {
    fn open(&self, draft: &Charge) -> Result<(), Full> {
        if self.kept.lock().unwrap().full {
            return Err(Full);
        }
        self.write(self.core(draft.id, false), Entry::Opened(Box::new(draft.clone())));
        Ok(())
    }

    fn progress(&self, progress: &Progress) {
        self.write(self.core(progress.id, false), Entry::Progress(*progress));
    }

    fn close(&self, charge: &Charge) {
        self.write(self.core(charge.id, true), Entry::Closed(Box::new(charge.clone())));
    }

    fn void(&self, id: PostingId) {
        self.write(self.core(id, true), Entry::Void(id));
    }

    fn unopened(&self, charge: &Charge) {
        self.close(charge);
    }

    fn carry(&self, draft: &Charge, progress: Option<&Progress>) -> Result<(), Full> {
        let core = self.core(draft.id, true);
        self.write(core, Entry::Carried(Box::new(draft.clone())));
        if let Some(progress) = progress {
            self.write(core, Entry::Progress(*progress));
        }
        Ok(())
    }

    fn read(&self, _: usize) -> io::Result<Page> {
        let mut kept = self.kept.lock().unwrap();
        if kept.breaks.1 > 0 {
            kept.breaks.1 -= 1;
            drop(kept);
            panic!("a page breaks down");
        }
        kept.mark += 1;
        let unread = |logs: &[Log]| logs.iter().any(|log| log.entries.iter().any(|(_, read)| read.is_none()));
        let (mark, past) = (kept.mark, unread(&kept.past));
        let mut page = Page { mark, past, ..Page::default() };
        let first = self.random.below(CORES);
        let logs = if past { &mut kept.past } else { &mut kept.present };
        let count = logs.len();
        for nth in 0..count {
            let log = &mut logs[(first + nth) % count];
            let mut most = self.random.below(6);
            for (at, (entry, read)) in log.entries.iter_mut().enumerate() {
                if most == 0 || read.is_some() {
                    continue;
                }
                (most, *read) = (most - 1, Some(mark));
                page.entries.push(match entry {
                    Entry::Closed(charge) if past && at < log.posted => Entry::Void(charge.id),
                    other => other.clone(),
                });
            }
        }
        Ok(page)
    }

    fn posted(&self, mark: u64) -> io::Result<()> {
        let mut kept = self.kept.lock().unwrap();
        if self.strike(&mut kept).0 {
            let Kept { past, present, .. } = &mut *kept;
            for log in past.iter_mut().chain(present) {
                log.posted = log.entries.iter().take_while(|(_, read)| read.is_some_and(|page| page <= mark)).count();
            }
        }
        Ok(())
    }

    fn release(&self, mark: u64) -> io::Result<()> {
        let mut kept = self.kept.lock().unwrap();
        if self.strike(&mut kept).0 {
            let Kept { past, present, .. } = &mut *kept;
            for log in past.iter_mut().chain(present) {
                let done = log.entries.iter().take_while(|(_, read)| read.is_some_and(|page| page <= mark)).count();
                let done = done.min(log.posted);
                log.entries.drain(..done);
                log.posted -= done;
            }
        }
        Ok(())
    }

    fn backlog(&self) -> Backlog {
        // Now and then it says that there is little room, so that open attempts are carried on.
        Backlog { bytes: 0, files: self.random.below(5) as u64, most: 12 }
    }
}

impl Ledger for Disk {
    fn post<'a>(&'a self, batch: &'a Batch) -> Stored<'a, (u64, u64)> {
        let mut kept = self.kept.lock().unwrap();
        if kept.breaks.0 > 0 {
            kept.breaks.0 -= 1;
            drop(kept);
            panic!("a batch breaks down");
        }
        let (lands, known) = self.strike(&mut kept);
        // Gone before, or after it has done what it was asked; or so slow that it counts as hung.
        let (lands, known) = if kept.down { (lands && self.random.below(2) == 0, false) } else { (lands, known) };
        let hung = kept.down && self.random.below(4) == 0;
        if lands {
            for charge in &batch.charges {
                kept.again += u64::from(kept.charges.contains_key(&charge.id));
                kept.charges.entry(charge.id).or_insert_with(|| charge.clone());
            }
            for transfer in &batch.transfers {
                kept.transfer(transfer);
            }
        }
        drop(kept);
        Box::pin(async move {
            if hung {
                std::future::pending::<()>().await;
            }
            if known { Ok((0, 0)) } else { Err(Fault::Down("gone".into())) }
        })
    }

    fn sums<'a>(&'a self, filter: &'a Filter, _: &'a [Dimension]) -> Stored<'a, Vec<Sum>> {
        let kept = self.kept.lock().unwrap();
        if kept.down || kept.dead {
            return Box::pin(std::future::ready(Err(Fault::Down("gone".into()))));
        }
        let within = |charge: &&Charge| {
            filter.tenants.contains(&charge.tenant)
                && filter.from.is_none_or(|from| charge.at >= from)
                && filter.until.is_none_or(|until| charge.at < until)
        };
        let sums = kept.charges.values().filter(within).map(|charge| Sum {
            of: vec![
                Some(charge.tenant.to_string()),
                charge.key.as_ref().map(ToString::to_string),
                Some(charge.model.to_string()),
            ],
            calls: 1,
            estimated: 0,
            usage: Usage { input: Tokens(0), ..charge.usage },
            gpu_millis: 0,
            currency: charge.currency,
            amount: charge.amount,
        });
        let sums = sums.collect();
        Box::pin(std::future::ready(Ok(sums)))
    }

    fn sums_page<'a>(&'a self, _: &'a SumPage) -> Stored<'a, Vec<Sum>> {
        unreachable!("nobody asks for it here")
    }

    fn balances_of<'a>(&'a self, accounts: &'a [Account]) -> Stored<'a, Vec<(Account, Currency, Balance)>> {
        let gone = {
            let kept = self.kept.lock().unwrap();
            kept.down || kept.dead
        };
        let moved = accounts.iter().map(|account| (account.clone(), Currency::USD, self.moved(account))).collect();
        Box::pin(std::future::ready(if gone { Err(Fault::Down("gone".into())) } else { Ok(moved) }))
    }

    fn balance<'a>(&'a self, _: &'a Account, _: Currency) -> Stored<'a, Balance> {
        unreachable!("nobody asks for it here")
    }

    fn charges<'a>(&'a self, _: &'a Filter, _: Option<(Timestamp, PostingId)>, _: u32) -> Stored<'a, Vec<Charge>> {
        unreachable!("nobody asks for it here")
    }

    fn transfers<'a>(&'a self, _: &'a Account, _: Option<(Timestamp, PostingId)>, _: u32) -> Stored<'a, Vec<Transfer>> {
        unreachable!("nobody asks for it here")
    }

    fn moves<'a>(&'a self, _: &'a Account, _: Option<(Timestamp, PostingId)>, _: u32) -> Stored<'a, Vec<Transfer>> {
        unreachable!("nobody asks for it here")
    }

    fn transfer(&self, _: PostingId) -> Stored<'_, Option<Transfer>> {
        unreachable!("nobody asks for it here")
    }

    fn balances(&self) -> Stored<'_, Vec<(Account, Currency, Balance)>> {
        unreachable!("nobody asks for it here")
    }

    fn issue<'a>(&'a self, _: &'a InvoiceRow, _: &'a [Transfer]) -> Stored<'a, ()> {
        unreachable!("nobody asks for it here")
    }

    fn invoices<'a>(&'a self, _: Option<&'a TenantId>) -> Stored<'a, Vec<InvoiceRow>> {
        unreachable!("nobody asks for it here")
    }

    fn invoice<'a>(&'a self, _: &'a str) -> Stored<'a, Option<InvoiceRow>> {
        unreachable!("nobody asks for it here")
    }

    fn audit(&self) -> Stored<'_, Vec<String>> {
        unreachable!("nobody asks for it here")
    }
}

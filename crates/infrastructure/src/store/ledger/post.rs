//! Posting: what is new goes in, once.

use std::collections::HashSet;

use kernel::store::ledger::{Batch, PostingId, Transfer};

use super::rows::{CHARGES, NEW_CHARGES, NEW_TRANSFERS, TRANSFERS, bind_charge, bind_transfer};
use super::totals::{add_charges, add_transfers};
use crate::store::Store;
use crate::store::bulk::Bulk;
use crate::store::columns::Columns;
use crate::store::failure::Failure;
use crate::store::session::{Session, Statement};

impl Store {
    pub(super) async fn post_batch(&self, batch: &Batch) -> Result<(u64, u64), Failure> {
        // Nearly always all of it is new. Then nothing need be returned, which takes half the time.
        let task = self.short("post");
        let mut session = self.writing(task).await?;
        let charges = distinct(&batch.charges, |charge| charge.id);
        let transfers = distinct(&batch.transfers, |transfer| transfer.id);
        if enter_new(&mut session, &NEW_CHARGES, &charges, bind_charge).await?
            && enter_new(&mut session, &NEW_TRANSFERS, &transfers, bind_transfer).await?
        {
            add_charges(&mut session, charges.iter().copied()).await?;
            add_transfers(&mut session, transfers.iter().copied()).await?;
            session.commit().await?;
            return Ok((charges.len() as u64, transfers.len() as u64));
        }
        session.rollback().await?;
        let mut session = self.writing(task).await?;
        let charges = enter(&mut session, &CHARGES, charges, |charge| charge.id, bind_charge).await?;
        add_charges(&mut session, charges.iter().copied()).await?;
        let transfers = post_transfers(&mut session, transfers).await?;
        session.commit().await?;
        Ok((charges.len() as u64, transfers))
    }
}

/// Posts transfers, in order of id; returns how many were new.
pub(super) async fn post_transfers(session: &mut Session<'_>, transfers: Vec<&Transfer>) -> Result<u64, Failure> {
    let transfers = enter(session, &TRANSFERS, transfers, |transfer| transfer.id, bind_transfer).await?;
    add_transfers(session, transfers.iter().copied()).await?;
    Ok(transfers.len() as u64)
}

/// Inserts what is not there yet; whether that was all.
async fn enter_new<T: Sync>(
    session: &mut Session<'_>,
    bulk: &'static Bulk,
    postings: &[&T],
    bind: impl for<'q> Fn(Statement<'q>, &T) -> Result<Statement<'q>, Failure>,
) -> Result<bool, Failure> {
    for (statement, group) in bulk.over(session.engine(), postings) {
        let statement = group.iter().try_fold(statement, |statement, posting| bind(statement, posting))?;
        if session.run(statement).await? != group.len() as u64 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// In order of id, so that who posts the same at once waits and does not deadlock; of two with one id, the first.
pub(super) fn distinct<T>(postings: &[T], id: impl Fn(&T) -> PostingId) -> Vec<&T> {
    let mut postings: Vec<&T> = postings.iter().collect();
    postings.sort_by_key(|posting| id(posting));
    postings.dedup_by_key(|posting| id(posting));
    postings
}

/// Inserts what is not there yet; returns what was not.
async fn enter<'p, T: Sync>(
    session: &mut Session<'_>,
    bulk: &'static Bulk,
    postings: Vec<&'p T>,
    id: impl Fn(&T) -> PostingId,
    bind: impl for<'q> Fn(Statement<'q>, &T) -> Result<Statement<'q>, Failure>,
) -> Result<Vec<&'p T>, Failure> {
    let mut entered = Vec::with_capacity(postings.len());
    for (mut statement, group) in bulk.over(session.engine(), &postings) {
        for posting in group {
            statement = bind(statement, posting)?;
        }
        let rows = session.rows(statement).await?;
        if rows.len() == group.len() {
            entered.extend_from_slice(group);
            continue;
        }
        let mut new = HashSet::with_capacity(rows.len());
        for row in &rows {
            new.insert(Columns::of(row).posting()?);
        }
        entered.extend(group.iter().filter(|posting| new.contains(&id(posting))));
    }
    Ok(entered)
}

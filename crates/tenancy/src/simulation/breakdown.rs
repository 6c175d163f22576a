//! Faults of the program itself while charges are posted.

use std::sync::Arc;
use std::time::Duration;

use kernel::store::ledger::{Charge, Ending, PostingId};
use kernel::store::{Daybook, Ledger};
use kernel::{Currency, ModelName, Money, RequestId, TenantId, Timestamp, Usage, Version};

use super::disk::Disk;
use crate::{Bookkeeper, Purse};

const CHARGES: usize = 20;

/// A disk with charges in its daybook, and a bookkeeper over it.
fn desk() -> (Arc<Disk>, Arc<Bookkeeper>) {
    let disk = Disk::new(7);
    disk.begin(u64::MAX);
    for nth in 0..CHARGES {
        disk.close(&Charge {
            id: PostingId(uuid::Uuid::from_u128(nth as u128)),
            at: Timestamp(1),
            request: RequestId::new("r"),
            tenant: TenantId::new("t"),
            key: None,
            model: ModelName::new("m"),
            version: Version::new("v"),
            operation: "chat",
            tag: None,
            usage: Usage::default(),
            gpu_millis: 0,
            ending: Ending::Complete,
            plan: None,
            price: None,
            currency: Currency::USD,
            amount: Money::from_units(1),
        });
    }
    let keeper = keeper(&disk);
    (disk, keeper)
}

fn keeper(disk: &Arc<Disk>) -> Arc<Bookkeeper> {
    let (daybook, ledger) = (Arc::clone(disk) as Arc<dyn Daybook>, Arc::clone(disk) as Arc<dyn Ledger>);
    Bookkeeper::new(daybook, ledger, Purse::new(|_| {}))
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_breaks_down_is_posted_all_the_same() {
    let (disk, keeper) = desk();
    disk.break_down(3, 0);
    keeper.run(tokio::time::sleep(Duration::from_secs(60))).await;
    assert_eq!((disk.charges().len(), disk.left()), (CHARGES, (0, 0)), "each once, and the daybook is empty");
}

#[tokio::test(start_paused = true)]
async fn a_page_that_breaks_down_is_left_to_the_next_start() {
    let (disk, first) = desk();
    disk.break_down(0, 1);
    let ended = tokio::spawn(async move { first.run(std::future::pending()).await }).await;
    assert!(ended.is_err_and(|fault| fault.is_panic()), "whoever runs it is told");
    disk.begin(u64::MAX);
    keeper(&disk).run(tokio::time::sleep(Duration::from_secs(60))).await;
    assert_eq!(disk.charges().len(), CHARGES);
}

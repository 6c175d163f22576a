//! What calls are charged with, put together once: the purse, the daybook, and whoever keeps the ledger.

use std::io;
use std::path::Path;
use std::sync::Arc;

use infrastructure::daybook::Daybook;
use infrastructure::store::{OnLoss, StorageSettings};
use kernel::sight::{Gauges, Sample};
use kernel::store::{Ledger, Registry};
use tenancy::tokens::Reading;
use tenancy::{Bookkeeper, Catalogue, Purse, Register, Till};

/// Purse and daybook, and who posts what is in it.
#[derive(Clone)]
pub(crate) struct Money {
    pub(crate) till: Arc<Till>,
    pub(crate) purse: Arc<Purse>,
    pub(crate) keeper: Arc<Bookkeeper>,
}

/// Where words are in the dialect that backends speak.
const READING: Reading = Reading { prompt: wire::openai::words::prompt, answer: wire::openai::words::answer };

impl Money {
    /// For so many cores: what calls cost is written down in the data directory, and then posted.
    ///
    /// # Errors
    /// When the daybook's files cannot be made.
    pub(crate) fn open(
        settings: &StorageSettings,
        data_dir: &Path,
        cores: usize,
        ledger: Arc<dyn Ledger>,
        registry: Arc<dyn Registry>,
    ) -> io::Result<Self> {
        let daybook = Arc::new(Daybook::open(data_dir, cores, settings.daybook_max.bytes())?);
        let purse = purse();
        purse.set_strict(settings.on_store_loss == OnLoss::Refuse);
        purse.expect_ledger();
        purse.expect_fees(registry);
        if settings.redis.is_some() {
            purse.expect_others();
        }
        // Who was last used when is the register's to tell.
        let keeper = Bookkeeper::new(Arc::clone(&daybook) as _, ledger, Arc::clone(&purse));
        Ok(Self { till: Till::new(Arc::clone(&purse), daybook, READING), purse, keeper })
    }
}

impl Money {
    /// Puts the prices in force that the register knows.
    pub(crate) fn price(&self, register: &Register) {
        self.till.catalogue.store(Arc::new(Catalogue::new(register.in_force())));
    }

    /// The same whenever they change. Never returns.
    pub(crate) async fn follow(&self, register: &Register) {
        let mut changes = register.changes();
        loop {
            self.price(register);
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Gauges for Money {
    fn show(&self, to: &mut dyn FnMut(Sample)) {
        self.till.show(to);
        self.keeper.show(to);
    }
}

fn purse() -> Arc<Purse> {
    Purse::new(|notice| {
        let whose = if notice.key { "a key of the tenant" } else { "the tenant" };
        tracing::warn!(tenant = %notice.tenant, limit = %notice.limit, spent = %notice.spent, "a soft budget of {whose} is spent");
    })
}

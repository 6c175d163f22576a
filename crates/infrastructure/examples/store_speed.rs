//! How fast the store is: charges posted per second, and how long a gateway's start waits for the registry.
//!
//!     cargo run --release -p infrastructure --example store_speed [URL]
//!
//! Without a URL: SQLite in a temporary directory. It prints figures and judges none.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use infrastructure::store::{StorageSettings, StorageUrl, Store};
use kernel::store::ledger::{Batch, Charge};
use kernel::store::registry::{KeyRow, Seed, Source, TenantRow};
use kernel::store::{Ledger, Registry};
use kernel::{KeyId, ModelName, TenantId};
use testkit::contract::{charge, tenant};

const CHARGES: usize = 200_000;
const BATCH: usize = 4_000;
/// Whose they are: a batch touches each of them a few times.
const TENANTS: usize = 1_000;
const REGISTERED: usize = 100_000;
const KEYS_EACH: usize = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "sqlite:sluice.db".into());
    let home = tempfile::tempdir()?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        let settings = StorageSettings { url: StorageUrl::new(url), ..StorageSettings::default() };
        let store = Store::open(&settings, home.path()).await?;
        post(&store).await?;
        register(&store).await?;
        store.close().await;
        start(&settings, home.path()).await
    })
}

/// Processor time this process has used: on a busy machine it says more than the clock.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<u64> =
        text.rsplit(") ").next().unwrap_or_default().split(' ').map(|field| field.parse().unwrap_or(0)).collect();
    // User and system time, in hundredths of a second.
    Duration::from_millis(10 * (fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0)))
}

async fn post(store: &Arc<Store>) -> Result<(), Box<dyn std::error::Error>> {
    let tenants: Vec<TenantId> = (0..TENANTS).map(|number| TenantId::new(format!("tenant-{number}"))).collect();
    let models = ["small", "large"].map(ModelName::new);
    let mut batches = Vec::new();
    for number in 0..CHARGES / BATCH {
        let one = |at: usize| Charge {
            tenant: tenants.get(at * 7 % TENANTS).cloned().unwrap_or_else(|| TenantId::new("tenant")),
            model: models.get(at % 2).cloned().unwrap_or_else(|| ModelName::new("model")),
            ..charge("tenant", (number * BATCH + at) as i64)
        };
        let charges: Vec<Charge> = (0..BATCH).map(one).collect();
        let transfers = charges.iter().filter_map(Charge::transfer).collect();
        batches.push(Batch { charges, transfers });
    }
    let (since, used) = (Instant::now(), cpu());
    let mut slowest = since.elapsed();
    for batch in &batches {
        let began = Instant::now();
        store.post(batch).await?;
        slowest = slowest.max(began.elapsed());
    }
    let took = since.elapsed().as_secs_f64();
    println!(
        "post      {:>9.0} charges/s, each with its transfer ({CHARGES} in batches of {BATCH}, slowest batch {} ms); \
         {:.0} per second of processor time",
        CHARGES as f64 / took,
        slowest.as_millis(),
        CHARGES as f64 / (cpu() - used).as_secs_f64()
    );
    let (since, used) = (Instant::now(), cpu());
    let found = store.audit().await?;
    println!(
        "audit     {:>9} ms ({} ms cpu), {} findings",
        since.elapsed().as_millis(),
        (cpu() - used).as_millis(),
        found.len()
    );
    Ok(())
}

async fn register(store: &Arc<Store>) -> Result<(), Box<dyn std::error::Error>> {
    let mut seed = Seed::default();
    for number in 0..REGISTERED {
        let id = format!("tenant-{number:06}");
        let terms = r#"{"plan":"pro","weight":2,"rps":100,"budgets":[{"limit":"50","per":"month","hard":true}]}"#;
        seed.tenants.push(TenantRow { source: Source::Config, terms: terms.into(), ..tenant(&id) });
        for key in 0..KEYS_EACH {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&((number * KEYS_EACH + key) as u64).to_le_bytes());
            seed.keys.push(KeyRow {
                id: KeyId::new(format!("k{number:06}{key}")),
                tenant: TenantId::new(id.as_str()),
                source: Source::Config,
                name: format!("key {key}"),
                hash,
                terms: r#"{"scopes":["inference"]}"#.into(),
                created: kernel::Timestamp(1),
                expires: None,
                revoked: None,
                replaces: None,
                used: None,
            });
        }
    }
    let (since, used) = (Instant::now(), cpu());
    store.seed(seed.clone()).await?;
    println!(
        "seed      {:>9} ms ({} ms cpu) for {REGISTERED} tenants with {KEYS_EACH} keys each",
        since.elapsed().as_millis(),
        (cpu() - used).as_millis()
    );
    let (since, used) = (Instant::now(), cpu());
    store.seed(seed).await?;
    println!(
        "re-seed   {:>9} ms ({} ms cpu), nothing changed",
        since.elapsed().as_millis(),
        (cpu() - used).as_millis()
    );
    Ok(())
}

async fn start(settings: &StorageSettings, data_dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let (since, used) = (Instant::now(), cpu());
    let store = Store::open(settings, data_dir).await?;
    println!("open      {:>9} ms ({} ms cpu)", since.elapsed().as_millis(), (cpu() - used).as_millis());
    let (since, used) = (Instant::now(), cpu());
    let snapshot = store.snapshot(None).await?.ok_or("no snapshot")?;
    println!(
        "snapshot  {:>9} ms ({} ms cpu) for {} tenants, {} keys",
        since.elapsed().as_millis(),
        (cpu() - used).as_millis(),
        snapshot.tenants.len(),
        snapshot.keys.len()
    );
    let since = Instant::now();
    let again = store.snapshot(Some(snapshot.revision)).await?;
    println!("unchanged {:>9} µs ({})", since.elapsed().as_micros(), if again.is_none() { "none" } else { "changed" });
    Ok(())
}

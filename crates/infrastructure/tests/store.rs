//! The store against what every store promises, on SQLite and on a real PostgreSQL.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod places;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use infrastructure::store::Store;
use kernel::store::{Fault, Ledger, Registry};
use places::{open, settings};
use tempfile::TempDir;
use testkit::Postgres;
use testkit::contract::{Shared, uphold};

/// Two stores on one new file, which must outlive them.
async fn two_on_a_file() -> (TempDir, Arc<Store>, Arc<Store>) {
    let home = tempfile::tempdir().expect("a temporary directory");
    // Both at once: two processes that start on an empty directory.
    let (one, two) = tokio::join!(open("sqlite:sluice.db", home.path()), open("sqlite:sluice.db", home.path()));
    (home, one, two)
}

/// Two stores on one database.
async fn two_on_a_server(url: &str) -> (Arc<Store>, Arc<Store>) {
    tokio::join!(open(url, Path::new("/")), open(url, Path::new("/")))
}

/// Runs statements past the store.
async fn meddle(url: &str, sql: &'static str) {
    use sqlx::Connection;
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(url).await.expect("a connection");
    sqlx::raw_sql(sql).execute(&mut connection).await.expect("good SQL");
    connection.close().await.expect("a goodbye");
}

/// What a version after this one may add: a table, and columns that may be NULL or have a default.
const LATER: &str = "INSERT INTO migrations (version, name, applied) VALUES (9001, 'later', 0); \
    CREATE TABLE later (id TEXT NOT NULL PRIMARY KEY, what BIGINT); \
    ALTER TABLE tenants ADD COLUMN region TEXT; \
    ALTER TABLE keys ADD COLUMN region TEXT; \
    ALTER TABLE plans ADD COLUMN region TEXT; \
    ALTER TABLE prices ADD COLUMN region TEXT; \
    ALTER TABLE subscriptions ADD COLUMN region TEXT; \
    ALTER TABLE charges ADD COLUMN region TEXT; \
    ALTER TABLE charges ADD COLUMN retries BIGINT NOT NULL DEFAULT 0; \
    ALTER TABLE sums ADD COLUMN retries BIGINT NOT NULL DEFAULT 0; \
    ALTER TABLE transfers ADD COLUMN region TEXT; \
    ALTER TABLE accounts ADD COLUMN region TEXT; \
    ALTER TABLE invoices ADD COLUMN region TEXT";

fn shared(one: Arc<Store>, two: Arc<Store>) -> (Shared, Shared) {
    (one, two)
}

/// Runs the contract on files; `prepare` is told each file's URL once the schema is there.
async fn uphold_on_files(later: bool) {
    let homes: Mutex<Vec<TempDir>> = Mutex::default();
    uphold(|| async {
        let (home, one, two) = two_on_a_file().await;
        let url = format!("sqlite://{}/sluice.db", home.path().display());
        if later {
            one.close().await;
            two.close().await;
            meddle(&url, LATER).await;
        }
        let stores = if later {
            (open("sqlite:sluice.db", home.path()).await, open("sqlite:sluice.db", home.path()).await)
        } else {
            (one, two)
        };
        homes.lock().unwrap().push(home);
        shared(stores.0, stores.1)
    })
    .await;
}

async fn uphold_on_a_server(later: bool) {
    let postgres = Postgres::start();
    uphold(|| async {
        let url = postgres.database();
        let (one, two) = two_on_a_server(&url).await;
        if later {
            meddle(&url, LATER).await;
            // Begun before, still running, and begun after: both must cope.
            return shared(one, open(&url, Path::new("/")).await);
        }
        shared(one, two)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_every_promise() {
    uphold_on_files(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_every_promise_on_the_schema_of_a_later_version() {
    uphold_on_files(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_every_promise() {
    uphold_on_a_server(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_every_promise_on_the_schema_of_a_later_version() {
    uphold_on_a_server(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_start_at_once_on_an_empty_store_migrate_it_once() {
    let postgres = Postgres::start();
    let home = tempfile::tempdir().unwrap();
    for url in [postgres.database(), "sqlite:sluice.db".to_owned()] {
        let starts: Vec<_> = (0..8)
            .map(|_| {
                let (url, home) = (url.clone(), home.path().to_owned());
                tokio::spawn(async move {
                    let store = open(&url, &home).await;
                    store.ready().await.unwrap();
                    store.snapshot(None).await.unwrap().unwrap().revision
                })
            })
            .collect();
        for start in starts {
            assert_eq!(start.await.unwrap(), 1);
        }
    }
}

/// Each of these makes the books disagree in one place.
const TAMPERED: [(&str, &str); 7] = [
    ("UPDATE accounts SET credit_pico = credit_pico + 1 WHERE name = 'revenue'", "account revenue"),
    ("UPDATE sums SET input = input + 1", "sum of acme"),
    ("UPDATE charges SET pico = pico + 1", "sum of acme"),
    ("DELETE FROM sums", "have no sum"),
    ("UPDATE spent SET pico = pico + 1", "what acme has spent"),
    ("DELETE FROM spent", "what acme has spent"),
    ("DELETE FROM transfers", "account tenant/acme"),
];

async fn finds_what_was_tampered_with(store: &Store, url: &str, sql: &'static str, word: &str) {
    let charge = testkit::contract::charge("acme", 1);
    let transfers = charge.transfer().into_iter().collect();
    store.post(&kernel::store::ledger::Batch { charges: vec![charge], transfers }).await.unwrap();
    assert_eq!(store.audit().await.unwrap(), Vec::<String>::new());
    meddle(url, sql).await;
    let found = store.audit().await.unwrap().join("\n");
    assert!(found.contains(word), "{sql}: {found:?}");
}

#[tokio::test]
async fn an_audit_finds_what_was_tampered_with() {
    let postgres = Postgres::start();
    for (sql, word) in TAMPERED {
        let home = tempfile::tempdir().unwrap();
        let store = open("sqlite:sluice.db", home.path()).await;
        let file = format!("sqlite://{}/sluice.db", home.path().display());
        finds_what_was_tampered_with(&store, &file, sql, word).await;
        let url = postgres.database();
        finds_what_was_tampered_with(&*open(&url, Path::new("/")).await, &url, sql, word).await;
    }
}

/// As the version before this one posts: it knows no `spent`, and leaves columns it does not know alone.
const BEFORE: &str = "UPDATE sums SET calls = calls + 1, units = units + 5 WHERE tenant = 'acme'; \
    INSERT INTO sums (id, hour, tenant, key, model, tag, price, plan, currency, calls, estimated, input, cached, \
    cache_write, audio_input, output, reasoning, audio_output, images, gpu_millis, units, pico) VALUES \
    ('x', 0, 'lab', NULL, 'm', NULL, NULL, NULL, 'usd', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0)";

#[tokio::test]
async fn what_the_version_before_has_posted_is_spent_as_well() {
    use kernel::store::ledger::{Batch, Dimension, Filter};
    let (postgres, home) = (Postgres::start(), tempfile::tempdir().unwrap());
    let file = format!("sqlite://{}/sluice.db", home.path().display());
    let server = postgres.database();
    for (url, own) in [("sqlite:sluice.db", &file), (server.as_str(), &server)] {
        let store = open(url, home.path()).await;
        let tenants = ["acme", "lab", "other"].map(kernel::TenantId::new);
        let charges = ["acme", "other"].map(|tenant| testkit::contract::charge(tenant, 1));
        let each = charges[0].amount;
        store.post(&Batch { charges: charges.into(), transfers: Vec::new() }).await.unwrap();
        meddle(own, BEFORE).await;
        let filter = Filter { tenants: tenants.into(), ..Filter::default() };
        let mut sums = store.sums(&filter, &[Dimension::Tenant, Dimension::Key]).await.unwrap();
        sums.sort_by(|one, other| one.of.cmp(&other.of));
        let spent: Vec<_> = sums.iter().map(|sum| (sum.of[0].as_deref().unwrap(), sum.amount)).collect();
        let units = kernel::Money::from_units;
        assert_eq!(spent, [("acme", each + units(5)), ("lab", units(7)), ("other", each)]);
    }
}

/// The schema as it was before `spent`.
const WITHOUT: &str = "DROP TABLE spent; DROP INDEX sums_astray; ALTER TABLE sums DROP COLUMN carried; \
                       DELETE FROM migrations WHERE version = 3";

#[tokio::test]
async fn what_was_spent_before_an_upgrade_is_there_after_it() {
    use kernel::store::ledger::{Batch, Charge};
    let (postgres, home) = (Postgres::start(), tempfile::tempdir().unwrap());
    let file = format!("sqlite://{}/sluice.db", home.path().display());
    let server = postgres.database();
    for (url, own) in [("sqlite:sluice.db", &file), (server.as_str(), &server)] {
        let store = open(url, home.path()).await;
        let one = |nth: i64| Charge {
            key: (nth % 3 > 0).then(|| kernel::KeyId::new(format!("k{}", nth % 3))),
            tag: Some(format!("t{nth}").into()),
            amount: kernel::Money::from_pico(999_999_999_999 * i128::from(nth)),
            ..testkit::contract::charge("acme", nth * 3_600_000)
        };
        store.post(&Batch { charges: (0..60).map(one).collect(), transfers: Vec::new() }).await.unwrap();
        store.close().await;
        meddle(own, WITHOUT).await;
        let store = open(url, home.path()).await;
        store.ready().await.unwrap();
        assert_eq!(store.audit().await.unwrap(), Vec::<String>::new());
        store.post(&Batch { charges: (60..70).map(one).collect(), transfers: Vec::new() }).await.unwrap();
        assert_eq!(store.audit().await.unwrap(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn sqlites_files_are_their_owners_alone_and_the_directory_is_made() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("sluice-data");
    let store = open("sqlite:sluice.db", &data).await;
    store.make_tenant(testkit::contract::tenant("acme")).await.unwrap();
    let files: Vec<_> = std::fs::read_dir(&data).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 3, "the database, its log and its index: {files:?}");
    for file in files {
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn what_cannot_be_opened_says_why_at_once() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("folder")).unwrap();
    std::fs::write(home.path().join("text"), "this is no database, it only looks as long as one\n".repeat(100))
        .unwrap();
    for url in ["sqlite:folder", "sqlite:text", "mysql://app:canary@localhost/x", "postgres://app:canary@localhost"] {
        let fault = Store::open(&settings(url), home.path()).await.unwrap_err();
        assert!(matches!(fault, Fault::Broken(_)), "{url}: {fault:?}");
        assert!(!fault.to_string().contains("canary"), "{fault}");
    }
}

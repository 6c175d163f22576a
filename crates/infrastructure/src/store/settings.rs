//! The `storage` section: which database, and how long anybody waits for it.

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use kernel::settings::{Findings, Millis, Secret, Size};
use kernel::store::Fault;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sqlx::any::AnyConnectOptions;

use crate::redis::RedisSettings;

/// Where tenants, keys, prices and the ledger are kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StorageSettings {
    /// `sqlite:FILE`, relative to the data directory, or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`.
    pub url: StorageUrl,
    /// How many connections to PostgreSQL at most.
    #[schemars(range(min = 2, max = 100))]
    pub connections: u32,
    /// How long to wait for a row, a change or a batch of charges before the store counts as down.
    pub timeout_ms: Millis,
    /// How long to wait for what reads or writes much: reports, audits, migrations.
    pub report_timeout_ms: Millis,
    /// How often to look for what others changed: so long another replica's change of a tenant or key takes to be in
    /// force here.
    pub refresh_ms: Millis,
    /// What is written down of calls in the data directory before it is posted here, at most. Beyond it, while this cannot
    /// be reached, calls that cost money are refused with 503.
    pub daybook_max: Size,
    /// What becomes of calls with a hard budget or a balance as long as it is not known what was spent: at a start while
    /// this cannot be reached.
    pub on_store_loss: OnLoss,
    /// Processes with the same one share their limits and the nonces of signed requests. Default: each process counts for
    /// itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisSettings>,
    /// What becomes of signed requests while `redis` does not say whether another process has seen their nonce.
    pub on_redis_loss: OnLoss,
}

/// What becomes of calls that cannot be judged by what other processes know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLoss {
    /// They are let in, and held to what is known here.
    #[default]
    Allow,
    /// They are refused with 503.
    Refuse,
}

/// Bound: some four million calls: more than an hour of full load.
const DAYBOOK_MIB: u64 = 1024;
/// Bound: below it a core could not even keep the sheet it writes on.
const DAYBOOK_MIN: u64 = 16 << 20;

/// A database by its URL. Printing, logging and serialising it shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct StorageUrl(Secret);

/// What a URL means.
pub(super) enum Place {
    /// A file.
    Sqlite(PathBuf),
    /// A server, by its whole URL.
    Postgres(String),
}

/// Bound: enough for the reports of some people beside the bookkeeper, and ten gateways stay within the hundred
/// connections PostgreSQL allows unless told otherwise.
const CONNECTIONS: u32 = 8;
/// Bound: a healthy database answers in milliseconds; a person waits some seconds before trying again.
const TIMEOUT: Millis = Millis(5_000);
/// Bound: sums over years of a large ledger on a slow disk.
const REPORT_TIMEOUT: Millis = Millis(60_000);
/// Bound: one small query per replica and second; a revoked key works elsewhere for no longer.
const REFRESH: Millis = Millis(1_000);
/// Bound: below it replicas would keep the database busy with asking.
const REFRESH_MIN: Millis = Millis(50);
/// Bound: beyond it a revoked key would be in force elsewhere for longer than anybody expects.
const REFRESH_MAX: Millis = Millis(60_000);
/// Bound: below it a busy disk would count as down.
const TIMEOUT_MIN: Millis = Millis(100);
const SHAPES: &str = "must be sqlite:FILE or postgres://USER:PASSWORD@HOST:PORT/DATABASE";

// === impl StorageSettings ===

impl Default for StorageSettings {
    fn default() -> Self {
        Self {
            url: StorageUrl::new("sqlite:sluice.db"),
            connections: CONNECTIONS,
            timeout_ms: TIMEOUT,
            report_timeout_ms: REPORT_TIMEOUT,
            refresh_ms: REFRESH,
            daybook_max: Size::of_mib(DAYBOOK_MIB),
            on_store_loss: OnLoss::default(),
            redis: None,
            on_redis_loss: OnLoss::default(),
        }
    }
}

impl StorageSettings {
    /// Finds what would keep the store from opening; `data_dir` is where a relative file begins.
    pub fn validate(&self, path: &str, data_dir: &Path, findings: &mut Findings) {
        match self.url.place(data_dir) {
            Err(why) => findings.add(format!("{path}.url"), why),
            Ok(Place::Sqlite(file)) => {
                if let Err(why) = writable(&file) {
                    findings.add(format!("{path}.url"), why);
                }
            }
            Ok(Place::Postgres(_)) => {}
        }
        let range = format!("must be 2 to 100, for example {CONNECTIONS}");
        findings.require((2..=100).contains(&self.connections), format!("{path}.connections"), range);
        let long_enough = format!("must be at least {}, for example {}", TIMEOUT_MIN.0, TIMEOUT.0);
        findings.require(self.timeout_ms >= TIMEOUT_MIN, format!("{path}.timeout_ms"), long_enough);
        let fits = (REFRESH_MIN..=REFRESH_MAX).contains(&self.refresh_ms);
        let between = format!("must be {} to {}, for example {}", REFRESH_MIN.0, REFRESH_MAX.0, REFRESH.0);
        findings.require(fits, format!("{path}.refresh_ms"), between);
        self.redis.iter().for_each(|redis| redis.validate(&format!("{path}.redis"), findings));
        let room = self.daybook_max.bytes() >= DAYBOOK_MIN;
        findings.require(room, format!("{path}.daybook_max"), "must be at least 16MiB");
        let longer = format!("must be at least timeout_ms ({}), for example {}", self.timeout_ms.0, REPORT_TIMEOUT.0);
        findings.require(self.report_timeout_ms >= self.timeout_ms, format!("{path}.report_timeout_ms"), longer);
    }
}

// === impl StorageUrl ===

impl StorageUrl {
    /// Takes a URL as it is.
    pub fn new(url: impl Into<String>) -> Self {
        Self(Secret::new(url))
    }

    /// What it means, or what is wrong with it. Never shows what it was given: it may hold a password.
    pub(super) fn place(&self, data_dir: &Path) -> Result<Place, String> {
        let url = self.0.expose();
        if let Some(rest) = url.strip_prefix("sqlite:") {
            let file = rest.strip_prefix("//").unwrap_or(rest);
            if file.is_empty() || file == ":memory:" || file.ends_with('/') {
                return Err("must name a file, as in sqlite:sluice.db".into());
            }
            if file.contains(['?', '#', '%', '\0']) {
                return Err("takes no parameters for SQLite: write sqlite:FILE, without ?, # and %".into());
            }
            return Ok(Place::Sqlite(data_dir.join(file)));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            // Every part of it is looked at, as when connecting.
            let read = url.parse::<sqlx::postgres::PgConnectOptions>();
            let whole = read.is_ok_and(|options| options.get_database().is_some_and(|name| !name.is_empty()));
            return if whole { Ok(Place::Postgres(url.into())) } else { Err(wrong_url()) };
        }
        Err(SHAPES.into())
    }

    /// The URL with a mask in place of its password.
    fn shown(&self) -> String {
        let url = self.0.expose();
        if url.starts_with("sqlite:") {
            return url.to_owned();
        }
        let Ok(AnyConnectOptions { database_url: mut shown, .. }) = url.parse() else { return "***".into() };
        // A password can stand among the parameters too.
        shown.set_query(None);
        let masked = shown.password().is_none() || shown.set_password(Some("***")).is_ok();
        if masked { shown.to_string() } else { "***".into() }
    }
}

fn wrong_url() -> String {
    format!("is not a PostgreSQL URL: it {SHAPES}, special characters of the password written as %XX")
}

impl fmt::Display for StorageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl fmt::Debug for StorageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for StorageUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StorageUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Secret::deserialize(from).map(Self)
    }
}

impl JsonSchema for StorageUrl {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "StorageUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(sqlite:|postgres://|postgresql://)" })
    }
}

// === SQLite's file ===

/// Makes the file if it is not there, for its owner alone: SQLite gives its other files the same mode.
pub(super) fn prepare(file: &Path) -> Result<(), Fault> {
    let wrong = |what: &Path, error: &io::Error| Fault::Broken(format!("cannot write {}: {error}", what.display()));
    if let Some(folder) = file.parent() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| wrong(folder, &error))?;
    }
    let opened = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(file);
    opened.map(drop).map_err(|error| wrong(file, &error))
}

/// The file as sqlx wants it.
pub(super) fn file_url(file: &Path) -> String {
    // Invariant: a place has no character that means something in a URL but for those of the data directory.
    let path = file.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("sqlite://{path}")
}

/// Whether a file could be made or written.
fn writable(file: &Path) -> Result<(), String> {
    let Some(there) = file.ancestors().find(|path| path.exists() || path.as_os_str().is_empty()) else { return Ok(()) };
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    if there == file && there.is_dir() {
        return Err(format!("{} is a directory: name a file in it", there.display()));
    }
    if there != file && !there.is_dir() {
        return Err(format!("{} is a file: the directory of the database cannot be made there", there.display()));
    }
    rustix::fs::access(there, rustix::fs::Access::WRITE_OK).map_err(|error| {
        format!("{} cannot be written ({error}): choose another place, or mend its mode", there.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(url: &str, data_dir: &Path) -> Vec<(String, String)> {
        let settings = StorageSettings { url: StorageUrl::new(url), ..StorageSettings::default() };
        let mut findings = Findings::default();
        settings.validate("storage", data_dir, &mut findings);
        findings.0.into_iter().map(|finding| (finding.path, finding.message)).collect()
    }

    #[test]
    fn what_cannot_be_opened_is_found_and_no_password_is_shown() {
        let home = tempfile::tempdir().unwrap();
        for url in ["sqlite:sluice.db", "sqlite://a/b.db", "postgres://app:canary@localhost/sluice"] {
            assert_eq!(findings(url, home.path()), [], "{url}");
        }
        for url in [
            "",
            "mysql://app:canary@localhost/x",
            "postgres://app:canary@localhost",
            "postgres://app:canary@localhost:port/x",
            "postgres://app:canary@localhost/x?sslmode=canary",
            "sqlite:",
            "sqlite::memory:",
            "sqlite:x?mode=ro",
        ] {
            let found = findings(url, home.path());
            assert_eq!(found.len(), 1, "{url}");
            assert_eq!(found[0].0, "storage.url");
            assert!(!found[0].1.contains("canary"), "{found:?}");
        }
        fs::create_dir(home.path().join("folder")).unwrap();
        assert!(findings("sqlite:folder", home.path())[0].1.contains("is a directory"));
        fs::write(home.path().join("file"), "").unwrap();
        assert!(findings("sqlite:file/sluice.db", home.path())[0].1.contains("is a file"));
    }

    #[test]
    fn a_url_is_shown_without_its_password() {
        let shown = |url: &str| format!("{:?}", StorageUrl::new(url));
        assert_eq!(shown("postgres://app:canary@db:5432/x"), "postgres://app:***@db:5432/x");
        assert_eq!(shown("postgres://db/x?password=canary"), "postgres://db/x");
        assert_eq!(shown("canary"), "***");
        let json = serde_json::to_string(&StorageUrl::new("postgres://app:canary@db/x")).unwrap();
        assert_eq!(json, "\"postgres://app:***@db/x\"");
    }
}

//! What was known last, in a file of the data directory, readable by its owner only.
//!
//! Lines of JSON: the tariff, then tenants, then keys. Hashes of keys, never keys. Only what came by the API: the rest is
//! in the config.

use std::cell::Cell;
use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use kernel::store::registry::{KeyRow, PlanRow, PriceRow, Snapshot, Source, TenantRow};
use kernel::{KeyId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use super::Tariff;
use super::directory::Directory;

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Plan {
        id: String,
        name: String,
        terms: String,
    },
    Price {
        id: String,
        terms: String,
    },
    Tenant {
        id: String,
        plan: Option<String>,
        suspended: bool,
        terms: String,
    },
    Key {
        id: String,
        tenant: String,
        hash: String,
        expires: Option<i64>,
        terms: String,
    },
    /// The last line: without it the file was cut off.
    End {
        lines: usize,
    },
}

/// Writes the file beside and puts it in place in one step.
pub(super) fn write(path: &Path, directory: &Directory, tariff: &Tariff) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let mut out = BufWriter::new(file);
    let lines = Cell::new(0);
    let mut put = |line: Line| {
        lines.set(lines.get() + 1);
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")
    };
    for plan in &tariff.plans {
        put(Line::Plan { id: plan.id.clone(), name: plan.name.clone(), terms: plan.terms.clone() })?;
    }
    for price in &tariff.prices {
        put(Line::Price { id: price.id.clone(), terms: price.terms.clone() })?;
    }
    let text = |place| directory.texts.at(place).to_owned();
    for tenant in directory.tenants.iter().filter(|tenant| tenant.source == Source::Api) {
        let (plan, terms) = (tenant.plan.map(text), text(tenant.text));
        put(Line::Tenant { id: tenant.id.as_str().into(), plan, suspended: tenant.suspended, terms })?;
    }
    for entry in directory.entries.iter().filter(|entry| entry.source == Source::Api) {
        let Some(tenant) = directory.tenants.get(entry.tenant as usize) else { continue };
        put(Line::Key {
            id: entry.id.as_str().into(),
            tenant: tenant.id.as_str().into(),
            hash: crate::key::hex(&entry.hash),
            expires: (entry.expires < i64::MAX).then_some(entry.expires),
            terms: text(entry.text),
        })?;
    }
    put(Line::End { lines: lines.get() })?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&beside, path)
}

/// Reads the file; `None` where there is none.
pub(super) fn read(path: &Path) -> io::Result<Option<Snapshot>> {
    let file = match fs::File::open(path) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut snapshot = Snapshot::default();
    let at = Timestamp::default();
    for (nth, line) in BufReader::new(file).lines().enumerate() {
        match serde_json::from_str(&line?)? {
            Line::Plan { id, name, terms } => {
                let again = Vec::new();
                snapshot.plans.push(PlanRow {
                    id,
                    name,
                    source: Source::Api,
                    terms,
                    created: at,
                    again,
                    retired: None,
                });
            }
            Line::Price { id, terms } => {
                snapshot.prices.push(PriceRow { id, source: Source::Api, terms, created: at, withdrawn: None });
            }
            Line::Tenant { id, plan, suspended, terms } => {
                let id = TenantId::new(id);
                let row = TenantRow { id, source: Source::Api, plan, suspended, terms, created: at, updated: at };
                snapshot.tenants.push(row);
            }
            Line::Key { id, tenant, hash, expires, terms } => {
                let hash = crate::key::unhex(&hash).ok_or_else(|| io::Error::other("a hash is none"))?;
                snapshot.keys.push(KeyRow {
                    id: KeyId::new(id),
                    tenant: TenantId::new(tenant),
                    source: Source::Api,
                    name: String::new(),
                    hash,
                    terms,
                    created: at,
                    expires: expires.map(Timestamp),
                    revoked: None,
                    replaces: None,
                    used: None,
                });
            }
            Line::End { lines } if lines == nth => return Ok(Some(snapshot)),
            Line::End { .. } => break,
        }
    }
    Err(io::Error::other("it was cut off"))
}

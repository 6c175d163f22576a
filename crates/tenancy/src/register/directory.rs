//! Everybody at one moment, packed: who a key belongs to, and what it promises.
//!
//! Made whole from what the config declares and what the store keeps, and never changed but for when keys were last used.
//! A look-up is one keyed hash, one place in a table and one comparison in constant time, however many keys there are.
//! It holds hashes only, and enough of the rows to make the next directory without asking the store again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kernel::settings::Secret;
use kernel::store::registry::Source;
use kernel::{Caller, KeyId, TenantId, Terms, Timestamp};
use subtle::ConstantTimeEq;

use super::Declared;
use super::gather::Gathering;
use super::texts::{Text, Texts};
use crate::key::KEY_MAX;
use crate::{Identities, Pepper};

/// Finds the caller behind a key.
#[derive(Debug, Default)]
pub struct Directory {
    pub(super) pepper: Option<Pepper>,
    /// In order of hash.
    pub(super) entries: Box<[Entry]>,
    /// By the first bits of a hash: where the entries that begin so begin. Hashes are as good as random, so each place has
    /// about one entry.
    starts: Box<[u32]>,
    bits: u32,
    /// Entries in order of key id.
    by_id: Box<[u32]>,
    pub(super) tenants: Box<[Tenant]>,
    pub(super) by_tenant: HashMap<TenantId, u32>,
    pub(super) texts: Texts,
    /// Keys that were taken out of force while this process ran, for a better message.
    pub(super) gone: HashMap<[u8; 32], Rejected>,
    /// Whose tokens and certificates are whose.
    identities: Identities,
    guarded: bool,
}

/// A key.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) hash: [u8; 32],
    pub(super) id: KeyId,
    /// Whose, by place.
    pub(super) tenant: u32,
    pub(super) source: Source,
    pub(super) text: Text,
    /// `None`: the plan is not known, or the settings cannot be understood.
    pub(super) terms: Option<Arc<Terms>>,
    /// Milliseconds since 1970; `i64::MAX`: never.
    pub(super) expires: i64,
    /// Seconds since 1970; 0: not since the start.
    pub(super) used: AtomicU32,
}

/// A tenant.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) id: TenantId,
    pub(super) source: Source,
    pub(super) plan: Option<Text>,
    pub(super) text: Text,
    /// Without a key. `None`: its plan is not known.
    pub(super) terms: Option<Arc<Terms>>,
    pub(super) suspended: bool,
}

/// Why a key does not let anybody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// Nobody's key, as far as is known.
    Unknown,
    /// It was revoked.
    Revoked,
    /// Its time is over.
    Expired,
    /// Its tenant is suspended.
    Suspended,
    /// Its tenant's plan, or the tenant's or the key's settings, cannot be understood here.
    Unplanned,
}

/// Bound: beyond as many revoked keys the newest are remembered as unknown. A hash takes 40 bytes.
const GONE_MAX: usize = 10_000;

// === impl Directory ===

impl Directory {
    /// Packs what was gathered.
    pub(super) fn pack(
        pepper: Option<Pepper>,
        texts: Texts,
        tenants: Vec<Tenant>,
        by_tenant: HashMap<TenantId, u32>,
        (mut entries, identities): (Vec<Entry>, Identities),
        before: &Self,
    ) -> Self {
        // Stable: of two with one hash the one gathered first stays, which is the config's.
        entries.sort_by_key(|entry| entry.hash);
        entries.dedup_by(|later, kept| later.hash == kept.hash);
        bring_together(&mut entries);
        let bits = usize::BITS - entries.len().leading_zeros();
        let mut starts = vec![0u32; (1 << bits) + 1];
        for entry in &entries {
            if let Some(count) = starts.get_mut(place(&entry.hash, bits) + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut by_id: Vec<u32> = (0..u32::try_from(entries.len()).unwrap_or(u32::MAX)).collect();
        by_id.sort_by(|a, b| id_at(&entries, *a).cmp(&id_at(&entries, *b)));
        // Once anybody was known the door stays shut: the last key that is revoked must not open it.
        let guarded = before.guarded || !tenants.is_empty() || !entries.is_empty() || !identities.is_empty();
        let mut directory = Self {
            pepper,
            entries: entries.into(),
            starts: starts.into(),
            bits,
            by_id: by_id.into(),
            tenants: tenants.into(),
            by_tenant,
            texts,
            gone: HashMap::new(),
            identities,
            guarded,
        };
        directory.remember(before);
        directory
    }

    /// The directory of a config alone.
    pub fn of(declared: &Declared, pepper: Pepper) -> Self {
        Gathering::of(declared, &[], Some(&pepper)).pack(Some(pepper), &Self::default())
    }

    /// Whether nobody is known at all, nor was: then a door that says nothing of credentials may stand open.
    pub fn is_empty(&self) -> bool {
        !self.guarded
    }

    /// How many tenants and keys there are.
    pub fn size(&self) -> (usize, usize) {
        (self.tenants.len(), self.entries.len())
    }

    /// The caller a key belongs to.
    ///
    /// # Errors
    /// Why nobody is let in by it.
    pub fn find(&self, key: &str) -> Result<Caller, Rejected> {
        if key.len() > KEY_MAX {
            return Err(Rejected::Unknown);
        }
        let hash = self.pepper.as_ref().ok_or(Rejected::Unknown)?.hash(key);
        let Some(entry) = self.entry(&hash) else {
            return Err(self.gone.get(&hash).copied().unwrap_or(Rejected::Unknown));
        };
        self.caller(entry)
    }

    /// The caller that a key's id stands for. An id is no secret: whoever asks must have proved otherwise whose it is.
    ///
    /// # Errors
    /// Why nobody is let in by it.
    pub fn key(&self, id: &str) -> Result<Caller, Rejected> {
        self.caller(self.entry_of(id).ok_or(Rejected::Unknown)?)
    }

    /// The same of a key that is only looked at: it counts as no use of it. `None`: nobody is let in by it.
    pub fn seen(&self, id: &str) -> Option<Caller> {
        self.behind(self.entry_of(id)?, Timestamp::now().millis()).ok()
    }

    /// A tenant itself, without a key.
    ///
    /// # Errors
    /// Why it is not let in.
    pub fn tenant(&self, id: &str) -> Result<Caller, Rejected> {
        let place = self.by_tenant.get(id).ok_or(Rejected::Unknown)?;
        let tenant = self.tenants.get(*place as usize).ok_or(Rejected::Unknown)?;
        if tenant.suspended {
            return Err(Rejected::Suspended);
        }
        let terms = tenant.terms.clone().ok_or(Rejected::Unplanned)?;
        Ok(Caller { tenant: tenant.id.clone(), key: None, terms })
    }

    /// A caller that was found by other means, as it is today.
    ///
    /// # Errors
    /// Why it is not let in any more.
    pub fn again(&self, caller: &Caller) -> Result<Caller, Rejected> {
        match &caller.key {
            Some(id) if self.entry_of(id.as_str()).is_some() => self.key(id.as_str()),
            // A name out of a token, in place of a key's id.
            _ => self.tenant(caller.tenant.as_str()).map(|_| caller.clone()),
        }
    }

    /// Whose tokens and certificates are whose.
    pub fn identities(&self) -> &Identities {
        &self.identities
    }

    /// What signs requests of a key; made of its id, so that nothing of it need be kept. `None` without any key.
    pub fn signing_secret(&self, id: &str) -> Option<Secret> {
        self.pepper.as_ref().map(|pepper| pepper.signing_secret(id))
    }

    /// When each key was last used, where that was at or after a second since 1970.
    pub(super) fn used_since(&self, since: u32) -> Vec<(KeyId, Timestamp)> {
        let used = self.entries.iter().map(|entry| (entry, entry.used.load(Ordering::Relaxed)));
        let used = used.filter(|(_, at)| *at > 0 && *at >= since);
        used.map(|(entry, at)| (entry.id.clone(), Timestamp(i64::from(at) * 1000))).collect()
    }

    /// When a key was last used, as far as this process knows.
    pub(super) fn used(&self, id: &KeyId) -> Option<Timestamp> {
        let at = self.entry_of(id.as_str())?.used.load(Ordering::Relaxed);
        (at > 0).then_some(Timestamp(i64::from(at) * 1000))
    }

    /// Who comes with a key, which has been used now.
    fn caller(&self, entry: &Entry) -> Result<Caller, Rejected> {
        let now = Timestamp::now().millis();
        let caller = self.behind(entry, now)?;
        let second = u32::try_from(now / 1000).unwrap_or(u32::MAX);
        // A line of cache that is only read stays with all cores: it is written once a second at most.
        if entry.used.load(Ordering::Relaxed) != second {
            entry.used.store(second, Ordering::Relaxed);
        }
        Ok(caller)
    }

    fn behind(&self, entry: &Entry, now: i64) -> Result<Caller, Rejected> {
        if entry.expires <= now {
            return Err(Rejected::Expired);
        }
        let tenant = self.tenants.get(entry.tenant as usize).ok_or(Rejected::Unknown)?;
        if tenant.suspended {
            return Err(Rejected::Suspended);
        }
        let terms = entry.terms.clone().ok_or(Rejected::Unplanned)?;
        Ok(Caller { tenant: tenant.id.clone(), key: Some(entry.id.clone()), terms })
    }

    fn entry_of(&self, id: &str) -> Option<&Entry> {
        let found = self.by_id.binary_search_by(|place| id_at(&self.entries, *place).cmp(&Some(id))).ok()?;
        self.entries.get(*self.by_id.get(found)? as usize)
    }

    fn entry(&self, hash: &[u8; 32]) -> Option<&Entry> {
        let place = place(hash, self.bits);
        let (from, to) = (*self.starts.get(place)?, *self.starts.get(place + 1)?);
        let here = self.entries.get(from as usize..to as usize)?;
        here.iter().find(|entry| bool::from(entry.hash.ct_eq(hash)))
    }

    /// Takes over when keys were last used, and which are gone.
    fn remember(&mut self, before: &Self) {
        let mut gone: HashMap<[u8; 32], Rejected> = before
            .gone
            .iter()
            .filter(|(hash, _)| self.entry(hash).is_none())
            .map(|(hash, why)| (*hash, *why))
            .collect();
        let now = Timestamp::now().millis();
        for old in &before.entries {
            match self.entry(&old.hash) {
                Some(entry) => entry.used.store(old.used.load(Ordering::Relaxed), Ordering::Relaxed),
                None if gone.len() < GONE_MAX => {
                    let why = if old.expires <= now { Rejected::Expired } else { Rejected::Revoked };
                    gone.insert(old.hash, why);
                }
                None => {}
            }
        }
        self.gone = gone;
    }
}

/// Tells keys of those that have taken their place, so that all of a line count what all of it spend.
fn bring_together(entries: &mut [Entry]) {
    let mut lines: HashMap<(u32, KeyId), Vec<KeyId>> = HashMap::new();
    let mut names: HashMap<(u32, KeyId), KeyId> = HashMap::new();
    for entry in entries.iter() {
        let Some(terms) = entry.terms.as_ref() else { continue };
        let Some(first) = terms.kin.first() else { continue };
        let line = lines.entry((entry.tenant, first.clone())).or_default();
        for id in terms.kin.iter().chain([&entry.id]).filter(|id| !line.contains(id)).cloned().collect::<Vec<_>>() {
            names.insert((entry.tenant, id.clone()), first.clone());
            line.push(id);
        }
    }
    if lines.is_empty() {
        return;
    }
    let lines: HashMap<_, Arc<[KeyId]>> = lines.into_iter().map(|(name, ids)| (name, ids.into())).collect();
    for entry in entries {
        let name = names.get(&(entry.tenant, entry.id.clone()));
        let line = name.and_then(|name| lines.get(&(entry.tenant, name.clone())));
        if let (Some(line), Some(terms)) = (line, entry.terms.as_mut()) {
            *terms = Arc::new(Terms { kin: Arc::clone(line), ..Terms::clone(terms) });
        }
    }
}

/// Where the entries with a hash begin, by its first bits.
fn place(hash: &[u8; 32], bits: u32) -> usize {
    let first = hash.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    first.checked_shr(u32::BITS - bits).unwrap_or(0) as usize
}

fn id_at(entries: &[Entry], place: u32) -> Option<&str> {
    entries.get(place as usize).map(|entry| entry.id.as_str())
}

//! The keys of issuers: asked for in good time, kept while the issuer is silent.
//!
//! One task asks; the door only says that a key is missing, and waits for the next answer. So an issuer gets one request
//! at a time from us, however many calls want its keys, and none more often than [`ASK_EVERY`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use kernel::Moment;
use kernel::fetch::{Ask, Fetch, is_safe};
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::keys::Keys;
use crate::credential::IssuerSettings;

/// Bound: how often an issuer is asked because a token names a key that is not here. Anybody can make such tokens.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// After a failure an issuer is asked again this much later, and twice as late each time, up to [`ASK_EVERY`].
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How often it is looked whose keys are due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Bound: how long a call waits for keys.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Bound: how long one request to an issuer may take.
const FETCH_WITHIN: Duration = Duration::from_secs(4);
/// Bound: the largest document taken of an issuer, in bytes.
const DOCUMENT_MAX: usize = 256 << 10;
/// The share of a key set's time after which it is asked for again.
const RENEW_AT: f64 = 0.8;

/// All issuers that were asked for keys.
#[derive(Debug, Default)]
pub(in crate::credential) struct Issuers {
    all: Mutex<HashMap<Box<str>, Arc<Issuer>>>,
    /// Rung when keys are wanted.
    bell: Notify,
}

/// One issuer.
#[derive(Debug)]
pub(in crate::credential) struct Issuer {
    name: Box<str>,
    keys: ArcSwapOption<Held>,
    /// Counts the times a key vanished.
    generation: AtomicU64,
    /// A token names a key that is not here.
    wanted: AtomicBool,
    state: Mutex<Asked>,
    /// Counts the answers, good or bad.
    rounds: watch::Sender<u64>,
}

/// Keys in use.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) keys: Keys,
    /// Goes up when a key vanishes: what was verified before must be verified again.
    pub(super) generation: u64,
}

#[derive(Debug, Default)]
struct Asked {
    answered: Option<Moment>,
    last: Option<Moment>,
    failures: u32,
    asking: bool,
}

/// What of OpenID's discovery document is needed.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

// === impl Issuers ===

impl Issuers {
    /// The issuer of this name, which somebody trusts.
    pub(super) fn get(&self, name: &str) -> Arc<Issuer> {
        let mut all = self.lock();
        match all.get(name) {
            Some(issuer) => Arc::clone(issuer),
            None => Arc::clone(all.entry(name.into()).or_insert_with(|| Arc::new(Issuer::new(name)))),
        }
    }

    /// Says that a key of an issuer is missing, and waits for its next answer if one is to be expected.
    pub(super) async fn renewed(&self, issuer: &Issuer) {
        let mut rounds = issuer.rounds.subscribe();
        if !issuer.want(Moment::now()) {
            return;
        }
        self.bell.notify_one();
        // Whether it came or not, the token is looked at again.
        let _ = tokio::time::timeout(WAIT_MAX, rounds.changed()).await;
    }

    /// Asks for keys whenever they are due. Never returns.
    pub(in crate::credential) async fn look_after(
        &self,
        fetch: Arc<dyn Fetch>,
        settings: impl Fn() -> IssuerSettings,
        trusted: impl Fn() -> Vec<Box<str>>,
    ) {
        let mut rounds = JoinSet::new();
        loop {
            let (names, settings, now) = (trusted(), settings(), Moment::now());
            self.lock().retain(|name, _| names.contains(name));
            for issuer in names.iter().map(|name| self.get(name)) {
                if issuer.due(now, &settings) {
                    let (fetch, settings) = (Arc::clone(&fetch), settings.clone());
                    rounds.spawn(async move { issuer.ask(&*fetch, &settings).await });
                }
            }
            while rounds.try_join_next().is_some() {}
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.bell.notified() => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Issuer>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Issuer ===

impl Issuer {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            keys: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
            state: Mutex::default(),
            rounds: watch::Sender::new(0),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its keys, as long as they may be used.
    pub(super) fn keys(&self) -> Option<Arc<Held>> {
        self.keys.load_full()
    }

    /// Whether the keys are still of this generation.
    pub(super) fn still(&self, generation: u64) -> bool {
        self.keys.load().as_ref().is_some_and(|held| held.generation == generation)
    }

    /// Asks for keys to be fetched; `false` where it was asked too recently for that to happen soon.
    fn want(&self, now: Moment) -> bool {
        let state = self.lock();
        let soon = state.asking || state.last.is_none_or(|last| now.since(last) >= state.rest());
        if soon {
            self.wanted.store(true, Ordering::Release);
        }
        soon
    }

    /// Whether it is to be asked now; then whoever heard it must ask.
    fn due(&self, now: Moment, settings: &IssuerSettings) -> bool {
        let ttl = settings.keys_ttl_ms.duration();
        let mut state = self.lock();
        let age = state.answered.map(|answered| now.since(answered));
        if age.is_some_and(|age| age > ttl + settings.keys_stale_ms.duration()) {
            // Invariant: nothing is verified with keys that nobody has vouched for in so long.
            self.generation.fetch_add(1, Ordering::AcqRel);
            self.keys.store(None);
        }
        let rested = state.last.is_none_or(|last| now.since(last) >= state.rest());
        let old = age.is_none_or(|age| age >= ttl.mul_f64(RENEW_AT));
        let due = !state.asking && rested && (old || self.wanted.load(Ordering::Acquire));
        state.asking |= due;
        due
    }

    async fn ask(&self, fetch: &dyn Fetch, settings: &IssuerSettings) {
        self.wanted.store(false, Ordering::Release);
        let answer = self.fetch(fetch).await;
        let now = Moment::now();
        {
            let mut state = self.lock();
            (state.asking, state.last) = (false, Some(now));
            match answer {
                Ok(keys) => {
                    (state.answered, state.failures) = (Some(now), 0);
                    self.put(keys);
                }
                Err(why) => {
                    state.failures = state.failures.saturating_add(1);
                    let kept = self.keys.load().is_some();
                    let stale = settings.keys_stale_ms.0;
                    tracing::warn!(issuer = %self.name, %why, kept, stale_ms = stale, "an issuer's keys cannot be had");
                }
            }
        }
        self.rounds.send_modify(|rounds| *rounds += 1);
    }

    fn put(&self, keys: Keys) {
        let held = self.keys.load();
        if held.as_ref().is_none_or(|held| held.keys != keys) {
            tracing::info!(issuer = %self.name, "an issuer's keys are new");
        }
        let vanished = held.as_ref().is_none_or(|held| !held.keys.all_in(&keys));
        let generation = self.generation.fetch_add(u64::from(vanished), Ordering::AcqRel) + u64::from(vanished);
        self.keys.store(Some(Arc::new(Held { keys, generation })));
    }

    /// Discovery, then the keys it names.
    async fn fetch(&self, fetch: &dyn Fetch) -> Result<Keys, String> {
        let url = format!("{}/.well-known/openid-configuration", self.name.trim_end_matches('/'));
        let document = get(fetch, url).await?;
        let metadata: Metadata =
            serde_json::from_slice(&document).map_err(|fault| format!("its discovery document is none: {fault}"))?;
        // OpenID Connect Discovery §4.3: exactly, or somebody else answers for it.
        if metadata.issuer != *self.name {
            return Err(format!("its discovery document is of another issuer: {:?}", metadata.issuer));
        }
        let as_safe = !self.name.starts_with("https:") || metadata.jwks_uri.starts_with("https:");
        if !as_safe || !is_safe(&metadata.jwks_uri) {
            return Err(format!("its keys are at no https URL: {:?}", metadata.jwks_uri));
        }
        let document = get(fetch, metadata.jwks_uri).await?;
        Keys::read(&document).ok_or_else(|| "its key set has no key that can be used here".to_owned())
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    /// How long it is left alone after the last time.
    fn rest(&self) -> Duration {
        match self.failures {
            0 => ASK_EVERY,
            failures => AGAIN_AFTER.saturating_mul(1 << failures.min(10)).min(ASK_EVERY),
        }
    }
}

async fn get(fetch: &dyn Fetch, url: String) -> Result<bytes::Bytes, String> {
    let about = url.clone();
    let ask = Ask { url, form: None, basic: None, most: DOCUMENT_MAX, within: FETCH_WITHIN };
    match fetch.fetch(ask).await {
        Ok(fetched) if fetched.status == 200 => Ok(fetched.body),
        Ok(fetched) => Err(format!("{about} answers {}", fetched.status)),
        Err(fault) => Err(format!("{about}: {fault}")),
    }
}

//! Tokens that say nothing themselves: the server that gave them is asked (RFC 7662).
//!
//! Its answer is remembered for a while, a no for less. Of many calls with one new token the first asks and the others
//! wait for it. Who sends made-up tokens makes us ask: so no more than [`ASKING_MAX`] questions are open at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use kernel::error::Kind as ErrorKind;
use kernel::fetch::{Ask, Fetch};
use kernel::settings::Secret;
use kernel::{Caller, CredentialKind, Error, Moment, Origin, Result};
use tenancy::Rejected;
use tokio::sync::watch;

use super::members::Members;
use super::{Desk, Found, IntrospectionSettings, Shown, jwt, refused, seconds};

/// Bound: longer tokens are none.
const TOKEN_MAX: usize = 8 << 10;
/// Bound: questions open at once; beyond it calls are refused with 503.
const ASKING_MAX: usize = 64;
/// Bound: answers remembered; the ones that end first are forgotten first.
const ANSWERS_MAX: usize = 65_536;
/// Bound: the largest answer taken, in bytes.
const ANSWER_MAX: usize = 64 << 10;

/// A server to ask.
pub(super) struct Introspection {
    settings: IntrospectionSettings,
    memory: Arc<Memory>,
    fetch: Arc<dyn Fetch>,
}

/// What servers said, and what they are being asked; it outlives configs.
#[derive(Default)]
pub(super) struct Memory(Mutex<Tokens>);

#[derive(Default)]
struct Tokens {
    answers: HashMap<Print, Answer>,
    asking: HashMap<Print, watch::Receiver<Option<Outcome>>>,
}

/// The hash of a token and of which server was asked.
type Print = [u8; 32];

/// What a server said about a token.
#[derive(Clone)]
struct Answer {
    /// What it said; `None`: no.
    claims: Option<Arc<Members>>,
    /// Until when it is believed, and until when at most if it cannot be asked again.
    fresh: Moment,
    stale: Moment,
    /// When the token ends, in seconds since 1970.
    ends: i64,
}

/// How asking went.
#[derive(Clone)]
enum Outcome {
    Said(Answer),
    Silent,
}

/// Whether a bearer token is for this kind to judge: a server is there to ask, and it is neither a signed token nor a key.
pub(super) fn is_one(token: &str, desk: Desk<'_>) -> bool {
    desk.credentials.introspection.is_some()
        && !jwt::is_one(token, desk)
        && !tenancy::key::is_ours(token)
        && desk.directory.find(token) == Err(Rejected::Unknown)
}

pub(super) fn find<'a>(shown: Shown<'a>, desk: Desk<'a>) -> Found<'a> {
    let Some(server) = &desk.credentials.introspection else { return Found::Absent };
    let Some(token) = shown.bearer.filter(|token| is_one(token, desk)) else { return Found::Absent };
    // RFC 6750 §2.1: what else a token may be made of.
    let plain = token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b));
    if token.len() > TOKEN_MAX || !plain {
        return Found::Refused(not_known());
    }
    let print = server.print(token);
    match server.memory.recall(&print) {
        Some(answer) => match server.owner(&answer, desk) {
            Ok(caller) => Found::Known(caller, None),
            Err(error) => Found::Refused(error),
        },
        None => Found::Asking(Box::pin(async move {
            let answer = server.answer(token, print).await?;
            let caller: Caller = server.owner(&answer, desk)?;
            Ok(Found::Known(caller, Some(CredentialKind::Oauth2)))
        })),
    }
}

// === impl Introspection ===

impl Introspection {
    pub(super) fn new(settings: &IntrospectionSettings, memory: &Arc<Memory>, fetch: &Arc<dyn Fetch>) -> Self {
        Self { settings: settings.clone(), memory: Arc::clone(memory), fetch: Arc::clone(fetch) }
    }

    /// Another server's answer about the same token is another answer.
    fn print(&self, token: &str) -> Print {
        let text = [self.settings.url.as_bytes(), b"\n", self.settings.client_id.as_bytes(), b"\n", token.as_bytes()];
        let mut print = [0; 32];
        print.iter_mut().zip(digest(&SHA256, &text.concat()).as_ref()).for_each(|(to, from)| *to = *from);
        print
    }

    /// Asks, or waits for who asks already.
    async fn answer(self: &Arc<Self>, token: &str, print: Print) -> Result<Answer> {
        let mut outcome = match self.memory.join(print)? {
            Turn::Wait(outcome) => outcome,
            Turn::Ask(tell, outcome) => {
                // Its own task: who asked first may leave, and the others still get their answer.
                let (server, token) = (Arc::clone(self), Secret::new(token));
                tokio::spawn(async move { server.ask(token, print, tell).await });
                outcome
            }
        };
        // A task that broke down has dropped its end.
        let told = outcome.wait_for(Option::is_some).await.map(|told| told.clone()).ok().flatten();
        match told {
            Some(Outcome::Said(answer)) => Ok(answer),
            Some(Outcome::Silent) | None => Err(silent()),
        }
    }

    async fn ask(&self, token: Secret, print: Print, tell: watch::Sender<Option<Outcome>>) {
        let asked = Ask {
            url: self.settings.url.clone(),
            form: Some(vec![("token", token), ("token_type_hint", Secret::new("access_token"))]),
            basic: Some((self.settings.client_id.clone(), self.settings.client_secret.clone())),
            most: ANSWER_MAX,
            within: self.settings.timeout_ms.duration(),
        };
        let said = match self.fetch.fetch(asked).await {
            Ok(fetched) if fetched.status == 200 => {
                Members::read(&fetched.body).ok_or_else(|| "its answer is no JSON object".to_owned())
            }
            Ok(fetched) => Err(format!("it answers {}", fetched.status)),
            Err(fault) => Err(fault.to_string()),
        };
        let outcome = match said {
            Ok(claims) => Outcome::Said(self.judge(claims)),
            Err(why) => {
                tracing::warn!(url = %self.settings.url, %why, "no answer about a token");
                self.memory.last(&print).map_or(Outcome::Silent, Outcome::Said)
            }
        };
        self.memory.put(print, &outcome);
        let _ = tell.send(Some(outcome));
    }

    /// What an answer is worth, and for how long.
    fn judge(&self, claims: Members) -> Answer {
        let (now, wall) = (Moment::now(), seconds());
        let active = claims.get("active").is_some_and(|active| *active == true);
        let same = claims.get("iss").is_none_or(|issuer| *issuer == *self.settings.issuer);
        let begun = claims.get("nbf").is_none() || claims.seconds("nbf").is_some_and(|nbf| nbf <= wall + jwt::LEEWAY);
        let ends = match claims.get("exp") {
            None => Some(i64::MAX),
            Some(_) => claims.seconds("exp"),
        };
        match ends.filter(|ends| *ends > wall && active && same && begun) {
            Some(ends) => {
                let fresh = now + self.settings.ttl_ms.duration();
                let stale = fresh + self.settings.stale_ms.duration();
                Answer { claims: Some(Arc::new(claims)), fresh, stale, ends }
            }
            None => {
                let fresh = now + self.settings.negative_ttl_ms.duration();
                Answer { claims: None, fresh, stale: fresh, ends: i64::MAX }
            }
        }
    }

    /// Whose an answer says the token is.
    fn owner(&self, answer: &Answer, desk: Desk<'_>) -> Result<Caller> {
        let claims = answer.claims.as_ref().ok_or_else(not_known)?;
        let bindings = desk.directory.identities().issuer(&self.settings.issuer);
        jwt::owner(bindings, claims, !self.settings.without_audience)
    }
}

// === impl Memory ===

/// Who of those with one token asks.
enum Turn {
    Ask(watch::Sender<Option<Outcome>>, watch::Receiver<Option<Outcome>>),
    Wait(watch::Receiver<Option<Outcome>>),
}

impl Memory {
    /// An answer that is still believed.
    fn recall(&self, print: &Print) -> Option<Answer> {
        let now = Moment::now();
        self.lock().answers.get(print).filter(|answer| answer.fresh > now && answer.ends > seconds()).cloned()
    }

    /// A yes that is believed while nobody can be asked.
    fn last(&self, print: &Print) -> Option<Answer> {
        let now = Moment::now();
        let good = |answer: &&Answer| answer.claims.is_some() && answer.stale > now && answer.ends > seconds();
        self.lock().answers.get(print).filter(good).cloned()
    }

    fn join(&self, print: Print) -> Result<Turn> {
        let mut tokens = self.lock();
        // One that broke down before it told is no one to wait for.
        if let Some(outcome) = tokens.asking.get(&print).filter(|outcome| outcome.has_changed().is_ok()) {
            return Ok(Turn::Wait(outcome.clone()));
        }
        if tokens.asking.len() >= ASKING_MAX {
            tokens.asking.retain(|_, outcome| outcome.has_changed().is_ok());
        }
        if tokens.asking.len() >= ASKING_MAX {
            return Err(silent());
        }
        let (tell, outcome) = watch::channel(None);
        tokens.asking.insert(print, outcome.clone());
        Ok(Turn::Ask(tell, outcome))
    }

    fn put(&self, print: Print, outcome: &Outcome) {
        let mut tokens = self.lock();
        tokens.asking.remove(&print);
        let Outcome::Said(answer) = outcome else { return };
        if tokens.answers.len() >= ANSWERS_MAX {
            let now = Moment::now();
            tokens.answers.retain(|_, answer| answer.stale > now);
            // Still full of answers that are believed: a part of them is asked for again.
            let mut left = ANSWERS_MAX / 2;
            tokens.answers.retain(|_, _| {
                left = left.saturating_sub(1);
                left > 0
            });
        }
        tokens.answers.insert(print, answer.clone());
    }

    fn lock(&self) -> MutexGuard<'_, Tokens> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_known() -> Error {
    refused("The token is not known, has expired, or was taken back: ask for a new one.")
}

fn silent() -> Error {
    let message = "The server that gave the token cannot be asked about it at the moment.";
    Error::new(ErrorKind::Unavailable, Origin::Gateway, message).after(Duration::from_secs(1))
}

//! Entries as bytes: a kind, then fields one after the other, numbers as short as they are.
//!
//! The format is read by the same version only, or by the next one after an upgrade: a kind or field that is added gets
//! a new kind, and what an old file holds stays readable.

use std::sync::{Mutex, PoisonError};

use kernel::store::daybook::{Entry, Progress};
use kernel::store::ledger::{Charge, Ending, PostingId};
use kernel::{Currency, KeyId, ModelName, Money, Operation, RequestId, TenantId, Timestamp, Tokens, Usage, Version};
use uuid::Uuid;

use super::words::Words;

const OPENED: u8 = 1;
const PROGRESS: u8 = 2;
const CLOSED: u8 = 3;
const VOID: u8 = 4;
const CARRIED: u8 = 5;

/// Bound: words for kinds of work that this process does not know, read from files of another version.
const FOREIGN_MAX: usize = 64;

pub(super) fn opened(to: &mut Vec<u8>, draft: &Charge) {
    to.push(OPENED);
    charge(to, draft);
}

pub(super) fn carried(to: &mut Vec<u8>, draft: &Charge) {
    to.push(CARRIED);
    charge(to, draft);
}

pub(super) fn closed(to: &mut Vec<u8>, closed: &Charge) {
    to.push(CLOSED);
    charge(to, closed);
}

pub(super) fn void(to: &mut Vec<u8>, id: PostingId) {
    to.push(VOID);
    to.extend_from_slice(id.0.as_bytes());
}

pub(super) fn progress(to: &mut Vec<u8>, progress: &Progress) {
    to.push(PROGRESS);
    to.extend_from_slice(progress.id.0.as_bytes());
    usage(to, &progress.usage);
    number(to, progress.gpu_millis);
    to.extend_from_slice(&progress.amount.pico().to_le_bytes());
}

/// Reads one entry; `None` for what this version does not understand.
pub(super) fn read(bytes: &[u8], words: &mut Words) -> Option<Entry> {
    let mut from = Reader(bytes);
    let entry = match from.byte()? {
        OPENED => Entry::Opened(Box::new(from.charge(words)?)),
        CARRIED => Entry::Carried(Box::new(from.charge(words)?)),
        CLOSED => Entry::Closed(Box::new(from.charge(words)?)),
        VOID => Entry::Void(from.id()?),
        PROGRESS => Entry::Progress(Progress {
            id: from.id()?,
            usage: from.usage()?,
            gpu_millis: from.number()?,
            amount: from.amount()?,
        }),
        _ => return None,
    };
    from.0.is_empty().then_some(entry)
}

fn charge(to: &mut Vec<u8>, charge: &Charge) {
    to.extend_from_slice(charge.id.0.as_bytes());
    number(to, u64::try_from(charge.at.millis()).unwrap_or(0));
    text(to, charge.request.as_str());
    text(to, charge.tenant.as_str());
    maybe(to, charge.key.as_ref().map(KeyId::as_str));
    text(to, charge.model.as_str());
    text(to, charge.version.as_str());
    text(to, charge.operation);
    maybe(to, charge.tag.as_deref());
    usage(to, &charge.usage);
    number(to, charge.gpu_millis);
    to.push(Ending::ALL.iter().position(|ending| *ending == charge.ending).unwrap_or(0) as u8);
    maybe(to, charge.plan.as_deref());
    maybe(to, charge.price.as_deref());
    to.extend_from_slice(charge.currency.as_str().as_bytes());
    to.extend_from_slice(&charge.amount.pico().to_le_bytes());
}

fn usage(to: &mut Vec<u8>, usage: &Usage) {
    to.push(u8::from(usage.estimated));
    for tokens in [
        usage.input,
        usage.cached,
        usage.cache_write,
        usage.audio_input,
        usage.output,
        usage.reasoning,
        usage.audio_output,
        Tokens(u64::from(usage.images)),
    ] {
        number(to, tokens.0);
    }
}

/// Seven bits a byte, the lowest first (LEB128).
fn number(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn text(to: &mut Vec<u8>, text: &str) {
    number(to, text.len() as u64);
    to.extend_from_slice(text.as_bytes());
}

/// Its length and one, or zero for none.
fn maybe(to: &mut Vec<u8>, text: Option<&str>) {
    number(to, text.map_or(0, |text| text.len() as u64 + 1));
    to.extend_from_slice(text.unwrap_or_default().as_bytes());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn str(&mut self, len: u64) -> Option<&'a str> {
        std::str::from_utf8(self.take(usize::try_from(len).ok()?)?).ok()
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = self.number()?;
        self.str(len)
    }

    fn maybe(&mut self) -> Option<Option<&'a str>> {
        match self.number()? {
            0 => Some(None),
            len => self.str(len - 1).map(Some),
        }
    }

    fn id(&mut self) -> Option<PostingId> {
        Some(PostingId(Uuid::from_slice(self.take(16)?).ok()?))
    }

    fn amount(&mut self) -> Option<Money> {
        Some(Money::from_pico(i128::from_le_bytes(self.take(16)?.try_into().ok()?)))
    }

    fn usage(&mut self) -> Option<Usage> {
        let estimated = self.byte()? != 0;
        let mut next = || self.number().map(Tokens);
        Some(Usage {
            input: next()?,
            cached: next()?,
            cache_write: next()?,
            audio_input: next()?,
            output: next()?,
            reasoning: next()?,
            audio_output: next()?,
            images: u32::try_from(next()?.0).ok()?,
            estimated,
        })
    }

    fn charge(&mut self, words: &mut Words) -> Option<Charge> {
        let mut share = |text: &str| words.share(text);
        Some(Charge {
            id: self.id()?,
            at: Timestamp(i64::try_from(self.number()?).ok()?),
            request: RequestId::new(self.text()?),
            tenant: TenantId::new(share(self.text()?)),
            key: self.maybe()?.map(&mut share).map(KeyId::new),
            model: ModelName::new(share(self.text()?)),
            version: Version::new(share(self.text()?)),
            operation: word(self.text()?),
            tag: self.maybe()?.map(&mut share),
            usage: self.usage()?,
            gpu_millis: self.number()?,
            ending: *Ending::ALL.get(usize::from(self.byte()?))?,
            plan: self.maybe()?.map(&mut share),
            price: self.maybe()?.map(&mut share),
            currency: Currency::parse(self.str(3)?)?,
            amount: self.amount()?,
        })
    }
}

/// A kind of work as a word that lives as long as the process.
fn word(text: &str) -> &'static str {
    static FOREIGN: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let known =
        [Operation::Chat, Operation::Completion, Operation::Embedding, Operation::Service].map(Operation::as_str);
    if let Some(known) = known.into_iter().find(|known| *known == text) {
        return known;
    }
    let mut foreign = FOREIGN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = foreign.iter().find(|known| **known == text) {
        return known;
    }
    if foreign.len() == FOREIGN_MAX {
        return "other";
    }
    let kept: &'static str = Box::leak(text.into());
    foreign.push(kept);
    kept
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    pub(in crate::daybook) fn charge_of(id: u128, amount: i128) -> Charge {
        Charge {
            id: PostingId(Uuid::from_u128(id)),
            at: Timestamp(1_790_000_000_000),
            request: RequestId::new("r-1"),
            tenant: TenantId::new("acme"),
            key: Some(KeyId::new("k1")),
            model: ModelName::new("m"),
            version: Version::new("v1"),
            operation: "chat",
            tag: None,
            usage: Usage { input: Tokens(12), output: Tokens(300), ..Usage::default() },
            gpu_millis: 0,
            ending: Ending::Complete,
            plan: Some("free@1".into()),
            price: Some("0123456789abcdef".into()),
            currency: Currency::USD,
            amount: Money::from_pico(amount),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            id: u128, at in 0..i64::MAX, tag in proptest::option::of(".{0,9}"), tenant in ".{1,20}", counts: [u64; 7],
            images: u32, estimated: bool, ending in 0usize..6, amount: i128, key in proptest::option::of("[a-z]{0,5}"),
        ) {
            let [input, cached, cache_write, audio_input, output, reasoning, audio_output] = counts.map(Tokens);
            let charge = Charge {
                at: Timestamp(at), tag: tag.map(Arc::from), tenant: TenantId::new(tenant), key: key.map(KeyId::new),
                usage: Usage { input, cached, cache_write, audio_input, output, reasoning, audio_output, images, estimated },
                ending: Ending::ALL[ending], gpu_millis: counts[0], operation: "dreaming", ..charge_of(id, amount)
            };
            let mut bytes = Vec::new();
            closed(&mut bytes, &charge);
            prop_assert_eq!(read(&bytes, &mut Words::default()), Some(Entry::Closed(Box::new(charge.clone()))));
            prop_assert_eq!(read(&bytes[..bytes.len() - 1], &mut Words::default()), None);
            bytes.clear();
            let made = Progress { id: charge.id, usage: charge.usage, gpu_millis: 7, amount: charge.amount };
            progress(&mut bytes, &made);
            prop_assert_eq!(read(&bytes, &mut Words::default()), Some(Entry::Progress(made)));
        }

        #[test]
        fn nonsense_is_refused_and_breaks_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            read(&bytes, &mut Words::default());
        }
    }
}

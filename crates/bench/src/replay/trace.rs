//! A trace: who asked for how much and when, and which beginnings of prompts were the same.

mod condensed;
mod tenants;

use std::collections::HashSet;

use anyhow::{Context, Result};
use kernel::Kind;
use kernel::random::{Random, mix};

pub(crate) use condensed::condense;

/// Tokens in a block of a trace, as Mooncake hashes them.
pub(crate) const BLOCK: u64 = 512;
/// Tokens in a block as the gateway hashes text: 512 bytes of it.
const PIECE: u64 = 128;

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// When it arrives, in microseconds, at the speed at which it was recorded.
    pub(crate) at: u64,
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) tenant: u32,
    /// Its prompt, a number for each 512 tokens; equal numbers mean equal prompts up to there.
    pub(crate) blocks: Vec<u32>,
}

/// Calls in the order of their arrival.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) calls: Vec<Call>,
}

/// Reads the calls of a trace.
pub(crate) type Read = fn() -> Result<Vec<Call>>;

/// Every trace there is.
pub(crate) const KINDS: &[Kind<Read>] = &[
    Kind {
        name: "conversation",
        about: "Mooncake's conversation trace: one hour of a chat service",
        build: || Ok(spread(condensed::read(include_bytes!("../../traces/mooncake_conversation.gz"))?)),
    },
    Kind {
        name: "synthetic",
        about: "Mooncake's synthetic trace: long documents, tool use and chat",
        build: || condensed::read(include_bytes!("../../traces/mooncake_synthetic.gz")),
    },
    Kind {
        name: "tenants",
        about: "Mooncake's conversations, dealt out to 43 tenants who call at the rates of a day of ServeGen's m-small",
        build: || {
            let calls = condensed::read(include_bytes!("../../traces/mooncake_conversation.gz"))?;
            tenants::deal(calls, include_bytes!("../../traces/servegen_m-small_day.csv.gz"))
        },
    },
];

// === impl Trace ===

impl Trace {
    pub(crate) fn read(kind: &Kind<Read>) -> Result<Self> {
        let calls = (kind.build)().with_context(|| format!("trace {}", kind.name))?;
        Ok(Self { name: kind.name, about: kind.about, calls })
    }

    /// Seconds from the first call to the last.
    pub(crate) fn seconds(&self) -> f64 {
        let ends = self.calls.first().zip(self.calls.last());
        ends.map_or(0.0, |(first, last)| (last.at - first.at) as f64 / 1e6)
    }

    /// The share of blocks that one cache without an end would have had.
    pub(crate) fn ceiling(&self) -> f64 {
        let all: usize = self.calls.iter().map(|call| call.blocks.len()).sum();
        self.hits().iter().sum::<usize>() as f64 / all as f64
    }

    /// How many of each call's blocks it would have had.
    pub(crate) fn hits(&self) -> Vec<usize> {
        let mut seen = HashSet::new();
        let hits = self.calls.iter().map(|call| {
            let hits = call.keys().take_while(|key| seen.contains(key)).count();
            seen.extend(call.keys());
            hits
        });
        hits.collect()
    }
}

// === impl Call ===

impl Call {
    /// Its blocks as a model server tells them apart: salted with the tenant.
    pub(crate) fn keys(&self) -> impl DoubleEndedIterator<Item = u64> + '_ {
        let salt = mix(u64::from(self.tenant));
        self.blocks.iter().map(move |block| mix(salt ^ u64::from(*block)))
    }

    /// Its prompt as the gateway sees it: a chain of hashes, one per 128 tokens, the last unfinished piece left out.
    pub(crate) fn chain(&self) -> Vec<u64> {
        let mut link = mix(u64::from(self.tenant));
        let pieces = (self.input / PIECE) as usize;
        let per_block = BLOCK / PIECE;
        let parts = self.blocks.iter().flat_map(|block| (0..per_block).map(move |part| u64::from(*block) << 8 | part));
        let chain = parts.take(pieces).map(|part| {
            link = mix(link ^ mix(part));
            link
        });
        chain.collect()
    }
}

/// The conversation trace has times to three seconds: a dozen calls would arrive in the same instant, which is the
/// clock's doing and not the users'. They are spread evenly at random over their three seconds, in the same order.
fn spread(mut calls: Vec<Call>) -> Vec<Call> {
    const STEP: u64 = 3_000_000;
    let random = Random::seeded(0x5_93_EA_D0);
    let mut first = 0;
    while let Some(at) = calls.get(first).map(|call| call.at) {
        let same = calls.iter().skip(first).take_while(|call| call.at == at).count();
        let mut offsets: Vec<u64> = (0..same).map(|_| random.below(STEP as usize) as u64).collect();
        offsets.sort_unstable();
        calls.iter_mut().skip(first).zip(offsets).for_each(|(call, offset)| call.at += offset);
        first += same;
    }
    calls.sort_by_key(|call| call.at);
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(name: &str) -> Trace {
        Trace::read(kernel::kind::find(KINDS, name).unwrap()).unwrap()
    }

    #[test]
    fn the_traces_are_whole_and_have_the_ceilings_that_are_known_of_them() {
        for (name, calls, ceiling) in [("conversation", 12_031, 0.3664), ("synthetic", 3_993, 0.6396)] {
            let trace = trace(name);
            assert_eq!(trace.calls.len(), calls, "{name}");
            assert!((trace.ceiling() - ceiling).abs() < 0.0001, "{name}: {}", trace.ceiling());
            assert!(trace.calls.is_sorted_by_key(|call| call.at));
        }
    }

    #[test]
    fn dealing_conversations_out_to_tenants_loses_none() {
        let (of, dealt) = (trace("conversation"), trace("tenants"));
        let tokens = |trace: &Trace| trace.calls.iter().map(|call| call.input + call.output).sum::<u64>();
        assert_eq!((of.calls.len(), tokens(&of)), (dealt.calls.len(), tokens(&dealt)));
        assert!(dealt.calls.iter().map(|call| call.tenant).collect::<HashSet<_>>().len() > 20);
        assert!(dealt.calls.is_sorted_by_key(|call| call.at));
        // Tenants share no system prompt and mix their calls differently: there is nearly as much to find.
        assert!((0.34..0.37).contains(&dealt.ceiling()), "{}", dealt.ceiling());
    }

    #[test]
    fn a_chain_is_shared_as_far_as_the_blocks_are() {
        let call = |tenant, blocks: &[u32], input| Call { at: 0, input, output: 1, tenant, blocks: blocks.to_vec() };
        let shared = |a: &Call, b: &Call| a.chain().iter().zip(b.chain()).take_while(|(a, b)| *a == b).count();
        let one = call(1, &[4, 5, 6], 1300);
        assert_eq!((one.chain().len(), shared(&one, &call(1, &[4, 5, 9], 1536))), (10, 8));
        assert_eq!(shared(&one, &call(2, &[4, 5, 6], 1300)), 0);
    }
}

//! A prompt as a chain of hashes: equal chains up to a block mean equal text up to its end.
//!
//! The text is taken as it stands in the body: a conversation that grows keeps the beginning of its raw `messages`, and
//! a backend whose chat template keeps the order of messages keeps its cache as far. No token is counted here; who
//! writes the same conversation with other spaces or key order is not recognised, which costs a cache hit and no more.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;
use kernel::{Payload, TenantId, random};

/// Text per block, in bytes: about 128 tokens of English. Half of it would double the work for a match that is better by
/// 64 tokens, a hundredth of a second of a backend's time; much more, and short system prompts would have no block.
const BLOCK_BYTES: usize = 512;
/// Bound: blocks of a chain. 2 MiB of text are more than the context of any model served today.
const BLOCKS_MAX: usize = 4096;

/// The chain of a payload, made once. It begins with the tenant, so that two tenants never share a block; then come the
/// tools, which models read first, to their end, and the prompt without its last, unfinished block.
pub(crate) fn blocks<'a>(payload: &'a Payload, tenant: &TenantId) -> &'a [u64] {
    payload.blocks.get_or_init(|| {
        let text = |place: &std::ops::Range<usize>| payload.bytes.get(place.clone()).unwrap_or_default();
        let (tools, prompt) = (text(&payload.tools), text(&payload.prompt));
        let mut link = random::hash(tenant.as_str().as_bytes());
        let texts = tools.chunks(BLOCK_BYTES).chain(prompt.chunks_exact(BLOCK_BYTES));
        let chain = texts.take(BLOCKS_MAX).map(|text| {
            let mut hasher = FixedState::with_seed(link).build_hasher();
            hasher.write(text);
            // The length too: tools may end anywhere.
            hasher.write_usize(text.len());
            link = hasher.finish();
            link
        });
        chain.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chain(tenant: &str, tools: &str, prompt: &str) -> Vec<u64> {
        let payload = Payload {
            bytes: format!("{tools}{prompt}").into(),
            model: 0..0,
            prompt: tools.len()..tools.len() + prompt.len(),
            tools: 0..tools.len(),
            force_usage: None,
            blocks: std::sync::OnceLock::new(),
        };
        blocks(&payload, &TenantId::new(tenant)).to_vec()
    }

    fn shared(a: &[u64], b: &[u64]) -> usize {
        a.iter().zip(b).take_while(|(a, b)| a == b).count()
    }

    #[test]
    fn a_conversation_that_grows_keeps_its_beginning() {
        let first = format!(r#"[{{"role":"user","content":"{}"}}"#, "why ".repeat(1000));
        let (before, after) = (format!("{first}]"), format!(r#"{first},{{"role":"user","content":"and then?"}}]"#));
        let (before, after) = (chain("a", "[]", &before), chain("a", "[]", &after));
        assert!(before.len() > 7 && shared(&before, &after) == before.len());
    }

    #[test]
    fn other_tools_make_another_prompt() {
        let prompt = "x".repeat(5 * BLOCK_BYTES);
        assert_eq!(shared(&chain("a", "[1]", &prompt), &chain("a", "[2]", &prompt)), 0);
        assert_eq!(chain("a", "", &prompt).len(), 5);
    }

    #[test]
    fn a_prompt_below_a_block_has_none_and_a_huge_one_has_an_end() {
        assert_eq!(chain("a", "", &"x".repeat(BLOCK_BYTES - 1)), Vec::<u64>::new());
        assert_eq!(chain("a", "", &"x".repeat((BLOCKS_MAX + 9) * BLOCK_BYTES)).len(), BLOCKS_MAX);
    }

    proptest! {
        #[test]
        fn texts_share_exactly_the_blocks_before_their_first_difference(length in 0usize..6000, at in 0usize..6000) {
            let one = vec![b'a'; length];
            let mut other = one.clone();
            if let Some(byte) = other.get_mut(at) { *byte = b'b' }
            let text = |bytes| String::from_utf8(bytes).unwrap();
            let (one, other) = (chain("t", "", &text(one)), chain("t", "", &text(other)));
            prop_assert_eq!(shared(&one, &other), (at / BLOCK_BYTES).min(length / BLOCK_BYTES));
        }

        #[test]
        fn two_tenants_share_nothing(text in "[a-z]{512,3000}") {
            let (one, other) = (chain("a", "", &text), chain("b", "", &text));
            prop_assert!(one.iter().all(|link| !other.contains(link)));
        }
    }
}

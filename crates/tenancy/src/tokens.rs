//! Counting tokens where a backend does not say how many there were.
//!
//! Models that the config names a tokenizer for are counted with it, those of the tiktoken family with theirs, exactly but
//! for a token or two at seams; of any other model an answer has a token per piece that was streamed, and a prompt as many
//! as its length lets expect. How to find the words in a body is a matter of dialects and handed in.

mod own;

use std::sync::Arc;

use bpe_openai::Tokenizer;
use kernel::{Operation, Tokens};

use self::own::Own;
pub use self::own::Tokenizers;

/// Shows each text of a body in turn. For a prompt gives how many messages it has; for an answer nothing is made of it.
pub type Texts = fn(&[u8], &mut dyn FnMut(&str)) -> u64;

/// Where the words of bodies are.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// In a prompt: the value of `messages`, `prompt` or `input`.
    pub prompt: Texts,
    /// In an answer, whole or as the events of a stream.
    pub answer: Texts,
}

/// A tokenizer, read in when it is first asked for.
type Reads = fn() -> &'static Tokenizer;

/// Counts the tokens of one model's texts.
#[derive(Clone)]
pub struct Counting(By);

/// With what.
#[derive(Clone)]
enum By {
    /// Nothing: they are guessed.
    Nothing,
    Family(Reads),
    Own(Arc<Own>),
}

/// The words of an answer that flows, counted before they are many.
#[derive(Debug, Default)]
pub struct Words {
    pending: String,
    counted: u64,
}

/// Which names mean which tokenizer, the longest beginning first.
const FAMILIES: &[(&str, Reads)] = &[
    ("text-embedding-", bpe_openai::cl100k_base),
    ("chatgpt-4o", bpe_openai::o200k_base),
    ("gpt-4o", bpe_openai::o200k_base),
    ("gpt-4.1", bpe_openai::o200k_base),
    ("gpt-4.5", bpe_openai::o200k_base),
    ("gpt-oss", bpe_openai::o200k_base),
    ("gpt-5", bpe_openai::o200k_base),
    ("gpt-4", bpe_openai::cl100k_base),
    ("gpt-3.5", bpe_openai::cl100k_base),
    ("o1", bpe_openai::o200k_base),
    ("o3", bpe_openai::o200k_base),
    ("o4", bpe_openai::o200k_base),
];

/// Bound: words of an answer that are kept uncounted. A seam costs at most a token of the thousand in them.
const PENDING_MAX: usize = 4096;
/// Bound: bytes of a prompt or a whole answer that are counted. Of a longer one the beginning is, and the rest taken to be
/// like it: counting it all would keep a core busy for too long.
const COUNTED_MAX: usize = 256 << 10;
/// Bound: the same with a model's own tokenizer, which is slower: about ten milliseconds.
const COUNTED_BY_OWN_MAX: usize = 32 << 10;
/// Wire: around each message a chat model reads three tokens and the role's, and three before its answer
/// (OpenAI Cookbook, "How to count tokens with tiktoken").
const PER_MESSAGE: u64 = 4;
const PER_CHAT: u64 = 3;

// === impl Counting ===

impl Counting {
    /// How to count for a model, by its name.
    pub fn of(model: &str) -> Self {
        let name = model.rsplit('/').next().unwrap_or(model);
        let family = FAMILIES.iter().find(|(beginning, _)| name.starts_with(beginning));
        Self(family.map_or(By::Nothing, |(_, tokenizer)| By::Family(*tokenizer)))
    }

    /// The same, where a model may have a tokenizer of its own.
    pub fn with(tokenizers: &Tokenizers, model: &str) -> Self {
        tokenizers.of(model).map_or_else(|| Self::of(model), |own| Self(By::Own(own)))
    }

    /// Whether it counts and does not guess.
    pub fn exact(&self) -> bool {
        !matches!(self.0, By::Nothing)
    }

    /// Reads the tokenizer in, which takes some tens of milliseconds the first time.
    pub fn warm(&self) {
        self.text("");
    }

    /// Tokens of a prompt; `None` where they can only be guessed from its length.
    pub fn prompt(&self, prompt: &[u8], operation: Operation, texts: Texts) -> Option<Tokens> {
        let (tokens, messages) = self.body(prompt, texts)?;
        let around = if operation == Operation::Chat { messages * PER_MESSAGE + PER_CHAT } else { 0 };
        Some(Tokens(tokens + around))
    }

    /// Tokens of a whole answer; `None` where they cannot be told.
    pub fn answer(&self, answer: &[u8], texts: Texts) -> Option<Tokens> {
        self.body(answer, texts).map(|(tokens, _)| Tokens(tokens))
    }

    /// Tokens of a body's texts, and what their reader says of it.
    fn body(&self, body: &[u8], texts: Texts) -> Option<(u64, u64)> {
        let most = match self.0 {
            By::Nothing => return None,
            By::Family(_) => COUNTED_MAX,
            By::Own(_) => COUNTED_BY_OWN_MAX,
        };
        let (mut tokens, mut seen, mut all) = (0u64, 0usize, 0usize);
        let said = texts(body, &mut |text| {
            all += text.len();
            let left = most.saturating_sub(seen);
            // Cut between two characters.
            let end = (0..=left.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let part = text.get(..end).unwrap_or_default();
            seen += part.len();
            tokens += self.text(part).unwrap_or(0);
        });
        if seen > 0 && all > seen {
            tokens = (u128::from(tokens) * all as u128 / seen as u128) as u64;
        }
        Some((tokens, said))
    }

    fn text(&self, text: &str) -> Option<u64> {
        match &self.0 {
            By::Nothing => None,
            By::Family(tokenizer) => Some(tokenizer().count(text) as u64),
            By::Own(own) => Some(own.count(text)),
        }
    }
}

// === impl Words ===

impl Words {
    /// The words of a piece that is handed on.
    pub fn add(&mut self, piece: &[u8], counting: &Counting, texts: Texts) {
        if !counting.exact() {
            return;
        }
        texts(piece, &mut |text| self.pending.push_str(text));
        if self.pending.len() > PENDING_MAX {
            // Cut before a word: tokens hardly ever reach over a space.
            let end = self.pending.rfind(' ').filter(|at| *at > 0).unwrap_or(self.pending.len());
            self.counted += counting.text(self.pending.get(..end).unwrap_or_default()).unwrap_or(0);
            self.pending.drain(..end);
        }
    }

    /// Tokens of all of them; `None` where nobody can count them.
    pub fn count(&self, counting: &Counting) -> Option<Tokens> {
        counting.text(&self.pending).map(|rest| Tokens(self.counted + rest))
    }
}

/// Reads the tokenizers of these models in, on a thread of its own.
pub fn warm(models: impl IntoIterator<Item = Arc<str>>) {
    let found: Vec<Counting> = models.into_iter().map(|model| Counting::of(&model)).filter(|it| it.exact()).collect();
    if !found.is_empty() {
        let started = std::thread::Builder::new().name("sluice-tokenizer".into()).spawn(move || {
            found.iter().for_each(Counting::warm);
        });
        // Without it the first count takes longer.
        drop(started);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(body: &[u8], see: &mut dyn FnMut(&str)) -> u64 {
        see(std::str::from_utf8(body).unwrap());
        1
    }

    #[test]
    fn names_tell_the_tokenizer() {
        for (name, exact) in [
            ("gpt-4o-mini", true),
            ("openai/gpt-4-turbo", true),
            ("openai/gpt-oss-120b", true),
            ("o3", true),
            ("qwen2.5-7b", false),
            ("llama-gpt-4", false),
        ] {
            assert_eq!(Counting::of(name).exact(), exact, "{name}");
        }
        // Known lengths: o200k has words that cl100k has not.
        let text = "antidisestablishmentarianism 你好，世界";
        let count = |model| Counting::of(model).answer(text.as_bytes(), plain).unwrap();
        assert_ne!(count("gpt-4o"), count("gpt-4"));
        assert_eq!(Counting::of("gpt-4").answer(b"tiktoken is great!", plain), Some(Tokens(6)));
    }

    #[test]
    fn words_that_flow_are_counted_as_if_they_came_at_once() {
        let text = "The quick brown fox, sluiced through a narrow gate; 水闸在夜里打开了。 fn main() { let x = 42; }\n"
            .repeat(400);
        for model in ["gpt-4o", "gpt-4"] {
            let counting = Counting::of(model);
            let whole = counting.answer(text.as_bytes(), plain).unwrap().0;
            for step in [1, 7, 1000, 20_000] {
                let mut words = Words::default();
                let mut rest = text.as_str();
                while !rest.is_empty() {
                    let (piece, after) =
                        rest.split_at((step.min(rest.len())..).find(|at| rest.is_char_boundary(*at)).unwrap());
                    words.add(piece.as_bytes(), &counting, plain);
                    rest = after;
                    assert!(words.pending.len() <= PENDING_MAX + step + 4);
                }
                let off = words.count(&counting).unwrap().0.abs_diff(whole);
                assert!(off <= (whole / 100).max(2), "{model} in steps of {step}: off by {off} of {whole}");
            }
        }
        let mut words = Words::default();
        words.add(b"abc", &Counting::of("other"), plain);
        assert_eq!((words.count(&Counting::of("other")), words.pending.len()), (None, 0));
    }

    #[test]
    fn a_prompt_counts_its_messages_and_a_huge_one_is_taken_to_be_like_its_beginning() {
        let counting = Counting::of("gpt-4o");
        assert_eq!(counting.prompt(b"hello", Operation::Chat, plain), Some(Tokens(1 + 4 + 3)));
        assert_eq!(counting.prompt(b"hello", Operation::Embedding, plain), Some(Tokens(1)));
        let (small, large) = ("one two three ".repeat(15_000), "one two three ".repeat(60_000));
        let count = |text: &str| counting.prompt(text.as_bytes(), Operation::Completion, plain).unwrap().0;
        let (small, large) = (count(&small), count(&large));
        assert!(large.abs_diff(4 * small) <= large / 100, "{small} {large}");
        assert_eq!(Counting::of("x").prompt(b"hello", Operation::Chat, plain), None);
    }
    #[test]
    fn a_model_with_a_tokenizer_of_its_own_is_counted_with_it() {
        let path = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/tokenizer.json"));
        let own = Tokenizers::read([(0, "gpt-4", path)], &Tokenizers::default(), &mut |_, fault| panic!("{fault}"));
        let counting = Counting::with(&own, "gpt-4");
        let text = "The water went through the sluice.";
        assert_eq!(counting.answer(text.as_bytes(), plain), Some(Tokens(9)));
        assert_eq!(Counting::of("gpt-4").answer(text.as_bytes(), plain), Some(Tokens(8)));
        assert!(!Counting::with(&own, "other").exact());

        let mut words = Words::default();
        text.repeat(300).split_inclusive(' ').for_each(|word| words.add(word.as_bytes(), &counting, plain));
        assert!(words.count(&counting).unwrap().0.abs_diff(9 * 300) <= 4);
        // Of a huge prompt the beginning is counted, and the rest is taken to be like it.
        let huge = counting.prompt(text.repeat(30_000).as_bytes(), Operation::Completion, plain).unwrap().0;
        assert!(huge.abs_diff(9 * 30_000) <= 9 * 300, "{huge}");
    }
}

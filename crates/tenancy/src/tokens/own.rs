//! A served model's own tokenizer, read from the `tokenizer.json` it is published with.
//!
//! Only texts are counted: what the file says about cutting off, filling up and tokens around a text is how others use it.
//! Files are read when the config is, and one that has not changed is kept. What cannot be counted is guessed.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use tokenizers::Tokenizer;

/// Bound: bytes of a file. The largest that are published, of vocabularies of 260,000 words, have half as many; in memory
/// one takes about three times as much.
const FILE_MAX: u64 = 64 << 20;
/// Bound: bytes that are counted in one go. What a tokenizer needs for a text without end can grow with its square.
const PIECE: usize = 4 << 10;
/// Bytes of a token where nothing else is known, as in English prose.
const BYTES_PER_TOKEN: usize = 4;

/// One tokenizer.
pub(super) struct Own(Tokenizer);

/// Those that a config names, by the model's name.
#[derive(Clone, Default)]
pub struct Tokenizers(HashMap<Arc<str>, Kept>);

/// A tokenizer, and the hash of the file that it was read from.
#[derive(Clone)]
struct Kept {
    file: [u8; 32],
    own: Arc<Own>,
}

// === impl Tokenizers ===

impl Tokenizers {
    /// Reads the file of each model; those in `known` that have not changed are taken from there. What is wrong with one is
    /// told with its place in the list.
    pub fn read<'a>(
        named: impl IntoIterator<Item = (usize, &'a str, &'a Path)>,
        known: &Self,
        wrong: &mut dyn FnMut(usize, String),
    ) -> Self {
        let mut read = Self::default();
        for (place, model, path) in named {
            let kept = bytes(path).and_then(|bytes| {
                let file = *blake3::hash(&bytes).as_bytes();
                let same = read.0.values().chain(known.0.values()).find(|kept| kept.file == file).cloned();
                same.map_or_else(|| Own::parse(&bytes).map(|own| Kept { file, own: Arc::new(own) }), Ok)
            });
            match kept {
                Ok(kept) => drop(read.0.insert(model.into(), kept)),
                Err(fault) => wrong(place, format!("`{}` {fault}", path.display())),
            }
        }
        read
    }

    /// Whether both are made of the same files for the same models.
    pub fn same(&self, other: &Self) -> bool {
        let equal = |(model, kept): (&Arc<str>, &Kept)| other.0.get(model).is_some_and(|it| it.file == kept.file);
        self.0.len() == other.0.len() && self.0.iter().all(equal)
    }

    pub(super) fn of(&self, model: &str) -> Option<Arc<Own>> {
        self.0.get(model).map(|kept| Arc::clone(&kept.own))
    }
}

/// What is in a file.
fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |fault: std::io::Error| format!("cannot be read: {fault}");
    // A pipe would be waited for, so what it is comes before it is opened.
    let about = std::fs::metadata(path).map_err(unreadable)?;
    if !about.is_file() {
        return Err("is no file".to_owned());
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(unreadable)?.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(format!("is larger than {} MiB: that is no tokenizer", FILE_MAX >> 20));
    }
    Ok(bytes)
}

// === impl Own ===

impl Own {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        const WHAT: &str = "is no tokenizer.json as Hugging Face writes it";
        let parse = || -> Result<Tokenizer, String> {
            let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|fault| fault.to_string())?;
            tokenizer.with_padding(None).with_truncation(None).map_err(|fault| fault.to_string())?;
            // A word that it has no token for shows whether the parts fit together.
            tokenizer.encode_fast("A 水 word\n", false).map_err(|fault| fault.to_string())?;
            Ok(tokenizer)
        };
        // The file comes from elsewhere, and so does what reads it: it must not take more down than itself.
        match catch_unwind(parse) {
            Ok(Ok(tokenizer)) => Ok(Self(tokenizer)),
            Ok(Err(fault)) => Err(format!("{WHAT}: {fault}")),
            Err(_) => Err(format!("{WHAT}: its parts do not fit together")),
        }
    }

    /// Tokens of a text.
    pub(super) fn count(&self, text: &str) -> u64 {
        let (mut tokens, mut rest) = (0, text);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(seam(rest));
            tokens += self.piece(piece);
            rest = after;
        }
        tokens
    }

    fn piece(&self, text: &str) -> u64 {
        let encode = AssertUnwindSafe(|| self.0.encode_fast(text, false).map(|found| found.len()));
        // A tab is closed with what this gives, also where a call breaks down: it must give something.
        catch_unwind(encode).ok().and_then(Result::ok).unwrap_or(text.len().div_ceil(BYTES_PER_TOKEN)) as u64
    }
}

/// Where the next piece of a text ends: before a space if there is one.
fn seam(text: &str) -> usize {
    if text.len() <= PIECE {
        return text.len();
    }
    let most = (1..=PIECE).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text.get(..most).and_then(|piece| piece.rfind(' ')).filter(|at| *at > 0).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Own {
        Own::parse(include_bytes!("../../testdata/tokenizer.json")).unwrap()
    }

    #[test]
    fn a_models_own_file_is_counted_with_as_its_makers_do() {
        // The numbers are what Hugging Face's own library for Python says: `testdata/tokenizer.py` prints them.
        for (text, tokens) in [
            ("The water went through the sluice.", 9),
            ("水闸 水闸", 3),
            ("a  b\n\n c", 8),
            ("<|end|>", 1),
            ("1234567", 7),
            ("", 0),
        ] {
            assert_eq!(own().count(text), tokens, "{text:?}");
        }
    }

    #[test]
    fn a_text_in_pieces_has_as_many_tokens_as_in_one() {
        let own = own();
        let whole = |text: &str| own.0.encode_fast(text, false).unwrap().len() as u64;
        for text in ["The water went through the sluice. ".repeat(1000), "水闸".repeat(7000), " ".repeat(20_000)] {
            let (pieces, whole) = (own.count(&text), whole(&text));
            assert!(pieces.abs_diff(whole) <= text.len() as u64 / PIECE as u64 * 2, "{pieces} {whole}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_the_reason() {
        let place = tempfile::tempdir().unwrap();
        let fault = |name: &str, content: Option<&[u8]>| {
            let path = place.path().join(name);
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let mut faults = Vec::new();
            let read = Tokenizers::read([(3, "m", path.as_path())], &Tokenizers::default(), &mut |at, fault| {
                faults.push((at, fault));
            });
            assert!(read.of("m").is_none());
            let [(3, fault)] = &faults[..] else { panic!("{faults:?}") };
            assert!(fault.contains(name), "{fault}");
            fault.clone()
        };
        assert!(fault("missing.json", None).contains("cannot be read"));
        assert!(fault("empty.json", Some(b"")).contains("is no tokenizer.json"));
        assert!(fault("other.json", Some(br#"{"model":{"type":"LSTM"}}"#)).contains("is no tokenizer.json"));
        let torn = include_bytes!("../../testdata/tokenizer.json");
        assert!(fault("torn.json", Some(&torn[..torn.len() / 2])).contains("is no tokenizer.json"));
        let mut path = place.path().to_owned();
        path.push("large.json");
        File::create(&path).unwrap().set_len(FILE_MAX + 1).unwrap();
        assert!(fault("large.json", None).contains("larger than 64 MiB"));
        std::fs::create_dir(place.path().join("folder.json")).unwrap();
        assert!(fault("folder.json", None).contains("is no file"));
    }

    #[test]
    fn a_file_that_has_not_changed_is_kept_and_one_that_has_is_read() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("tokenizer.json");
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/tokenizer.json")).unwrap();
        std::fs::write(&path, &text).unwrap();
        let read = |known: &Tokenizers| {
            let named = [(0, "a", path.as_path()), (1, "b", path.as_path())];
            Tokenizers::read(named, known, &mut |_, fault| panic!("{fault}"))
        };
        let first = read(&Tokenizers::default());
        assert!(Arc::ptr_eq(&first.of("a").unwrap(), &first.of("b").unwrap()));
        let second = read(&first);
        assert!(Arc::ptr_eq(&first.of("a").unwrap(), &second.of("a").unwrap()) && second.same(&first));
        std::fs::write(&path, text + "\n").unwrap();
        let third = read(&second);
        assert!(!Arc::ptr_eq(&first.of("a").unwrap(), &third.of("a").unwrap()) && !third.same(&second));
    }
}

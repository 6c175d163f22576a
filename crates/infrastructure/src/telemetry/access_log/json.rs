//! Text inside a JSON string.

const EACH: u64 = 0x0101_0101_0101_0101;
const TOP: u64 = 0x8080_8080_8080_8080;

/// Appends a text as the inside of a JSON string. Nearly every text stands for itself and is copied as it is.
pub(super) fn write_text(to: &mut Vec<u8>, text: &str) {
    let text = text.as_bytes();
    if is_plain(text) {
        to.extend_from_slice(text);
    } else {
        write_escaped(to, text);
    }
}

/// Whether a text needs no escapes. Looks at eight bytes at a time.
fn is_plain(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<8>();
    let found = words.iter().fold(0, |found, word| {
        let word = u64::from_le_bytes(*word);
        // A subtraction sets the top bit of a byte that is smaller than what is taken from it; `below` is zero
        // exactly when no byte is below the limit (limits up to 128).
        let below = |word: u64, limit: u64| word.wrapping_sub(EACH * limit) & !word & TOP;
        let equal = |byte: u8| below(word ^ (EACH * u64::from(byte)), 1);
        found | below(word, 0x20) | equal(b'"') | equal(b'\\')
    });
    found == 0 && !rest.iter().any(|byte| must_escape(*byte))
}

fn must_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

#[cold]
fn write_escaped(to: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b'"' | b'\\' => to.extend_from_slice(&[b'\\', *byte]),
            b'\n' => to.extend_from_slice(b"\\n"),
            b'\r' => to.extend_from_slice(b"\\r"),
            b'\t' => to.extend_from_slice(b"\\t"),
            0..0x20 => {
                let low = match byte & 0xf {
                    digit @ 0..=9 => b'0' + digit,
                    letter => b'a' + letter - 10,
                };
                to.extend_from_slice(&[b'\\', b'u', b'0', b'0', b'0' + (byte >> 4), low]);
            }
            _ => to.push(*byte),
        }
    }
}

//! API keys: how they are made, and what of them may be kept.
//!
//! `sk-sluice-` + 8 characters of public id + `-` + 43 characters of 32 random bytes + 6 of a CRC-32, all base 62. The
//! check sum lets a scanner tell a leaked key from noise, and lets us refuse a mistyped one without a look-up.

use kernel::KeyId;
use kernel::settings::Secret;

use crate::Pepper;

const PREFIX: &str = "sk-sluice-";
const ID_LEN: usize = 8;
/// Bound: ids that a config gives may be longer than ours, but a whole key is none.
const ID_MAX: usize = 64;
const SECRET_LEN: usize = 43;
const CHECK_LEN: usize = 6;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Bound: nobody's key is longer, and hashing what a stranger sends costs time.
pub const KEY_MAX: usize = 512;
/// Bound: a shorter text could be guessed.
pub const KEY_MIN: usize = 16;

/// A key just made: the only time the whole of it can be seen.
#[derive(Debug)]
pub struct NewKey {
    /// Its public part.
    pub id: KeyId,
    /// The whole key, for its owner.
    pub key: Secret,
    /// What to keep of it: `id.hash`, for the config's `hash:`.
    pub hash: String,
}

impl NewKey {
    /// Makes a key.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate(pepper: &Pepper) -> std::io::Result<Self> {
        let id = random_digits(ID_LEN)?;
        let body = format!("{PREFIX}{id}-{}", random_digits(SECRET_LEN)?);
        let key = format!("{body}{}", check_digits(&body));
        let hash = format!("{id}.{}", hex(&pepper.hash(&key)));
        Ok(Self { id: KeyId::new(id), key: Secret::new(key), hash })
    }
}

/// Whether a text is, or was meant to be, a key made here.
pub fn is_ours(key: &str) -> bool {
    key.starts_with(PREFIX)
}

/// Whether a text has the form of one of our keys but a wrong check sum: mistyped or cut off.
pub fn mistyped(key: &str) -> bool {
    let Some(rest) = key.strip_prefix(PREFIX) else { return false };
    let whole = PREFIX.len() + ID_LEN + 1 + SECRET_LEN + CHECK_LEN;
    let split = whole - CHECK_LEN;
    key.len() != whole || !rest.is_ascii() || key.get(split..) != key.get(..split).map(check_digits).as_deref()
}

/// The public part of a key as users may see it: its id, or for a key of another make the first digits of its hash.
pub(crate) fn public_id(key: &str, hash: &[u8; 32]) -> KeyId {
    let own = key.strip_prefix(PREFIX).and_then(|rest| rest.get(..ID_LEN));
    KeyId::new(own.map_or_else(|| hex(hash).chars().take(ID_LEN).collect::<String>(), str::to_owned))
}

/// Whether a text can be a key's id. Neither a key nor a hash is one.
pub(crate) fn is_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=ID_MAX).contains(&text.len()) && text.bytes().all(plain)
}

/// Reads `id.hash` as made by [`NewKey`].
pub(crate) fn parse_hash(text: &str) -> Option<(KeyId, [u8; 32])> {
    let (id, digits) = text.split_once('.')?;
    let hash = unhex(digits).filter(|_| !id.is_empty())?;
    Some((KeyId::new(id), hash))
}

/// Reads 64 hexadecimal digits.
pub(crate) fn unhex(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(hash)
}

fn random_digits(count: usize) -> std::io::Result<String> {
    let mut digits = String::with_capacity(count);
    let mut bytes = [0u8; 64];
    while digits.len() < count {
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        // Taking only bytes below 4 × 62 keeps every digit equally likely.
        let fair = bytes.iter().filter(|byte| **byte < 248).filter_map(|byte| DIGITS.get(usize::from(byte % 62)));
        digits.extend(fair.take(count - digits.len()).map(|digit| char::from(*digit)));
    }
    Ok(digits)
}

fn check_digits(body: &str) -> String {
    let mut sum = crc32fast::hash(body.as_bytes()) as usize;
    let mut digits = ['0'; CHECK_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS.get(sum % 62).map_or('0', |digit| char::from(*digit));
        sum /= 62;
    }
    digits.iter().collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_well_formed_unique_and_its_hash_can_be_read_back() {
        let pepper = Pepper::from_text("p");
        let (a, b) = (NewKey::generate(&pepper).unwrap(), NewKey::generate(&pepper).unwrap());
        assert_ne!(a.key.expose(), b.key.expose());
        assert!(!mistyped(a.key.expose()));
        assert_eq!(a.key.expose().len(), PREFIX.len() + ID_LEN + 1 + SECRET_LEN + CHECK_LEN);
        let (id, hash) = parse_hash(&a.hash).unwrap();
        assert_eq!((id, hash), (a.id.clone(), pepper.hash(a.key.expose())));
        assert_eq!(public_id(a.key.expose(), &hash), a.id);
        assert!(is_id(a.id.as_str()) && ![a.key.expose(), &a.hash, ""].into_iter().any(is_id));
    }

    #[test]
    fn a_mistyped_key_is_told_from_a_foreign_one() {
        let key = NewKey::generate(&Pepper::from_text("p")).unwrap().key;
        let mut wrong = key.expose().to_owned();
        let last = if wrong.pop() == Some('x') { 'y' } else { 'x' };
        wrong.push(last);
        assert!(mistyped(&wrong));
        assert!(mistyped("sk-sluice-short"));
        assert!(mistyped("sk-sluice-é"));
        assert!(!mistyped("sk-some-other-key"));
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        for text in [
            "",
            "abc",
            "id.",
            "id.zz",
            &format!("id.{}", "g".repeat(64)),
            &format!(".{}", "a".repeat(64)),
            &format!("id.{}", "é".repeat(32)),
        ] {
            assert_eq!(parse_hash(text), None, "{text}");
        }
    }
}

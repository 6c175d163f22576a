//! The secret that keyed hashes of API keys are made with.
//!
//! Keys have 256 bits of chance in them, so a fast keyed hash is enough: whoever steals the hashes alone can
//! verify nothing, not even a guess.

use std::io;
use std::path::Path;

use kernel::settings::Secret;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::keep;

/// Its file in the data directory, readable by the owner only.
const FILE: &str = "key-pepper";

/// What signing secrets begin with, so that a scanner knows a leaked one.
const SIGNING_PREFIX: &str = "sk-sign-";
/// Bytes of chance in a signing secret: with the prefix its text fits one block of HMAC-SHA256.
const SIGNING_BYTES: usize = 28;

/// 32 secret bytes.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Pepper([u8; 32]);

impl Pepper {
    /// A pepper made from a text; for replicas that must share one.
    pub fn from_text(text: &str) -> Self {
        Self(blake3::derive_key("sluice 2026-11 api key pepper", text.as_bytes()))
    }

    /// Reads the pepper of a data directory; makes both if they are not there.
    ///
    /// # Errors
    /// When the file can neither be read nor made, or is not what was written.
    pub fn load(data_dir: &Path) -> io::Result<Self> {
        let bytes = keep(data_dir, FILE, || {
            let mut bytes = vec![0; 32];
            getrandom::fill(&mut bytes).map_err(io::Error::other)?;
            Ok(bytes)
        })?;
        let wrong = |_| io::Error::other(format!("{} is not 32 bytes long", data_dir.join(FILE).display()));
        Ok(Self(bytes.try_into().map_err(wrong)?))
    }

    /// What signs requests of a key, by the key's id. Derived and not stored: whoever has the pepper can make it again,
    /// and a stolen store holds nothing that signs. The text itself is the HMAC key.
    pub fn signing_secret(&self, id: &str) -> Secret {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        // The id's length in front keeps what is hashed for one purpose from being what is hashed for another.
        hasher.update(b"request signing\0").update(&(id.len() as u64).to_le_bytes()).update(id.as_bytes());
        let mut secret = Zeroizing::new(String::with_capacity(SIGNING_PREFIX.len() + 64));
        secret.push_str(SIGNING_PREFIX);
        for byte in hasher.finalize().as_bytes().iter().take(SIGNING_BYTES) {
            for half in [byte >> 4, byte & 15] {
                secret.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
            }
        }
        Secret::new(secret.as_str())
    }

    /// The keyed hash of a key.
    pub(crate) fn hash(&self, key: &str) -> [u8; 32] {
        *blake3::keyed_hash(&self.0, key.as_bytes()).as_bytes()
    }
}

impl std::fmt::Debug for Pepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_pepper_is_made_once_and_for_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("new");
        let first = Pepper::load(&data).unwrap();
        assert_eq!(Pepper::load(&data).unwrap().0, first.0);
        assert_eq!(fs::metadata(data.join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn each_key_has_a_signing_secret_of_its_own_and_another_pepper_makes_others() {
        let (a, b) = (Pepper::from_text("a"), Pepper::from_text("b"));
        let secrets = [a.signing_secret("k1"), a.signing_secret("k2"), b.signing_secret("k1")];
        assert_eq!(a.signing_secret("k1"), secrets[0]);
        assert!(secrets[0] != secrets[1] && secrets[0] != secrets[2]);
        assert!(
            secrets.iter().all(|secret| secret.expose().len() == 64 && secret.expose().starts_with(SIGNING_PREFIX))
        );
        // Clients keep it: it must never change for a pepper and an id.
        let known = "sk-sign-b3b56065f2f5e5588c777b318164498abf9acdbb0cd9fc8dc897aed3";
        assert_eq!(secrets[0].expose(), known);
    }

    #[test]
    fn a_damaged_pepper_is_refused_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), b"short").unwrap();
        assert!(Pepper::load(dir.path()).is_err());
        assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), b"short");
    }
}

//! The secret that keyed hashes of API keys are made with.
//!
//! Keys have 256 bits of chance in them, so a fast keyed hash is enough: whoever steals the hashes alone can
//! verify nothing, not even a guess.

use std::io;
use std::path::Path;

use zeroize::ZeroizeOnDrop;

use crate::keep;

/// Its file in the data directory, readable by the owner only.
const FILE: &str = "key-pepper";

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
    fn a_damaged_pepper_is_refused_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), b"short").unwrap();
        assert!(Pepper::load(dir.path()).is_err());
        assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), b"short");
    }
}

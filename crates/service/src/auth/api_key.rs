//! API keys: format, creation, hash.
//!
//! A key is `pnf_` and 58 characters of base32: 256 random bits, then the first 32 bits of the SHA-256 of what precedes them,
//! so that secret scanners, and this service before it queries the database, can recognize a key. The store has the SHA-256 of
//! the whole text: a random key can't be guessed, so a slow hash would add nothing.

use std::fmt;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Prefix of every key.
pub const KEY_PREFIX: &str = "pnf_";

/// Characters of a key that are stored in plain text to identify it: the prefix and 20 bits.
const SHOWN_LEN: usize = KEY_PREFIX.len() + 4;

const RANDOM_LEN: usize = 32;
const CHECKSUM_LEN: usize = 4;

/// An API key. `Debug` hides it; only [`reveal`](Self::reveal) returns it.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// Generates a key; `None` if the system provides no random bytes.
    pub(crate) fn generate() -> Option<Self> {
        let mut random = [0; RANDOM_LEN];
        getrandom::fill(&mut random).ok()?;
        Some(Self::of(&random))
    }

    fn of(random: &[u8; RANDOM_LEN]) -> Self {
        let mut bytes = random.to_vec();
        bytes.extend_from_slice(&checksum(random));
        Self(format!("{KEY_PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()))
    }

    /// Parses a text with the format of a key and a correct checksum.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let code = text.strip_prefix(KEY_PREFIX)?;
        let is_lower = code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if code.len() != 58 || !is_lower {
            return None;
        }
        let bytes = BASE32_NOPAD.decode(code.to_ascii_uppercase().as_bytes()).ok()?;
        let random: [u8; RANDOM_LEN] = bytes.get(..RANDOM_LEN)?.try_into().ok()?;
        (bytes.get(RANDOM_LEN..)? == checksum(&random)).then(|| Self(text.to_owned()))
    }

    /// The key's text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The stored hash, in hexadecimal.
    pub(crate) fn hash(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(self.0.as_bytes()))
    }

    /// The prefix that is stored in plain text.
    pub(crate) fn shown(&self) -> String {
        self.0.chars().take(SHOWN_LEN).collect()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(pnf_…)")
    }
}

/// Compares hashes in constant time.
pub(crate) fn same_hash(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

fn checksum(random: &[u8; RANDOM_LEN]) -> [u8; CHECKSUM_LEN] {
    let digest = Sha256::digest([KEY_PREFIX.as_bytes(), random].concat());
    let mut sum = [0; CHECKSUM_LEN];
    sum.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_recognized_by_its_checksum() {
        let key = ApiKey::generate().unwrap();
        assert_eq!(ApiKey::parse(key.reveal()).unwrap().hash(), key.hash());
        let last = key.reveal().len() - 20;
        let mut typo = key.reveal().to_owned();
        let other = if typo.as_bytes()[last] == b'a' { "b" } else { "a" };
        typo.replace_range(last..=last, other);
        for bad in [typo.as_str(), "", "pnf_", &key.reveal().to_uppercase(), &format!("{}a", key.reveal())] {
            assert!(ApiKey::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn debug_hides_the_key() {
        let key = ApiKey::of(&[7; 32]);
        assert_eq!(format!("{key:?}"), "ApiKey(pnf_…)");
        assert_eq!(key.shown().len(), SHOWN_LEN);
        assert_eq!(key.reveal().len(), 62);
    }
}

//! API keys as secrets: how they look, how they are made, what is kept of them.
//!
//! A key is `pnf_`, then 256 random bits and a checksum of 32 in base62, so that a secret scanner can tell
//! a real key from a word that looks like one. Kept is the SHA-256 of the whole text: a random key can't
//! be guessed, so a slow hash would add nothing.

use std::fmt;

/// What every key begins with.
pub const KEY_PREFIX: &str = "pnf_";

/// An API key. `Debug` hides it; [`reveal`](Self::reveal) is the one way out.
#[derive(Clone)]
pub struct ApiKey(pub(crate) String);

impl ApiKey {
    /// The key's text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(pnf_…)")
    }
}

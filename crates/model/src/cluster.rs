//! Clusters by name: where pins are placed.

use std::fmt;

/// The name of a cluster, such as `cl0-global`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(String);

/// Why a text is not a [`ClusterId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("A cluster id has 1 to {} characters out of a-z, 0-9, '-', '_' and '.'", ClusterId::LEN_MAX)]
pub struct ClusterIdError;

impl ClusterId {
    /// The longest id, in bytes: it is part of the name of every hold.
    pub const LEN_MAX: usize = 64;

    /// Takes an id.
    ///
    /// # Errors
    /// [`ClusterIdError`] if it is empty, too long or has other characters.
    pub fn parse(text: &str) -> Result<Self, ClusterIdError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        let fits = (1..=Self::LEN_MAX).contains(&text.len()) && text.bytes().all(plain);
        if fits { Ok(Self(text.to_owned())) } else { Err(ClusterIdError) }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ClusterId {
    /// `cl0-global`, which pins go to unless they name another.
    fn default() -> Self {
        Self("cl0-global".to_owned())
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_words() {
        assert_eq!(ClusterId::parse("cl0-global").unwrap(), ClusterId::default());
        for bad in ["", "CL0", "a/b", "a b", &"a".repeat(65)] {
            assert!(ClusterId::parse(bad).is_err(), "{bad:?}");
        }
    }
}

//! Identifiers of clusters, on which pins are placed.

use std::fmt;

/// Identifier of a cluster, such as `cl0-global`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(String);

/// The text is not a valid [`ClusterId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("A cluster id has 1 to {} characters out of a-z, 0-9, '-', '_' and '.'", ClusterId::LEN_MAX)]
pub struct ClusterIdError;

impl ClusterId {
    /// Maximum length in bytes. The id is part of the name of every hold.
    pub const LEN_MAX: usize = 64;

    /// Parses an id.
    ///
    /// # Errors
    /// [`ClusterIdError`] if the text is empty, too long or contains other characters.
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
    /// `cl0-global`, the cluster of pins whose request names none.
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
    fn cluster_id_rejects_invalid_text() {
        assert_eq!(ClusterId::parse("cl0-global").unwrap(), ClusterId::default());
        for bad in ["", "CL0", "a/b", "a b", &"a".repeat(65)] {
            assert!(ClusterId::parse(bad).is_err(), "{bad:?}");
        }
    }
}

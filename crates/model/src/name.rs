//! Names of pins.

use std::fmt;

/// Name of a pin: 1 to [`PinName::LEN_MAX`] bytes without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PinName(String);

/// The text is not a valid [`PinName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("A name has 1 to {} bytes and no control characters", PinName::LEN_MAX)]
pub struct NameError;

impl PinName {
    /// Maximum length in bytes. Equals the limit of common file systems and of the Pinning Service API.
    pub const LEN_MAX: usize = 255;

    /// Parses a name, removing surrounding whitespace.
    ///
    /// # Errors
    /// [`NameError`] if the name is empty, too long, or contains control characters.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.trim();
        let fits = (1..=Self::LEN_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        if fits { Ok(Self(text.to_owned())) } else { Err(NameError) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PinName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn invalid_names_are_rejected() {
        assert_eq!(PinName::parse("  Ostern 2026.jpg ").unwrap().as_str(), "Ostern 2026.jpg");
        for bad in ["", "  ", "a\0b", "a\nb", &"a".repeat(256)] {
            assert_eq!(PinName::parse(bad), Err(NameError), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn name_round_trips_through_text(text in "\\PC{0,300}") {
            if let Ok(name) = PinName::parse(&text) {
                prop_assert_eq!(PinName::parse(name.as_str()), Ok(name));
            }
        }
    }
}

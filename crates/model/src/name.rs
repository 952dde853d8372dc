//! The names that people give their pins.

use std::fmt;

/// A pin's name: 1 to [`PinName::LEN_MAX`] bytes without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PinName(String);

/// Why a text is not a [`PinName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("A name has 1 to {} bytes and no control characters", PinName::LEN_MAX)]
pub struct NameError;

impl PinName {
    /// The longest name, in bytes, as file systems and the Pinning Service API have it.
    pub const LEN_MAX: usize = 255;

    /// Takes a name as it is, without blanks around it.
    ///
    /// # Errors
    /// [`NameError`] if nothing is left, it is too long, or it has control characters.
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
    fn names_are_visible_and_short() {
        assert_eq!(PinName::parse("  Ostern 2026.jpg ").unwrap().as_str(), "Ostern 2026.jpg");
        for bad in ["", "  ", "a\0b", "a\nb", &"a".repeat(256)] {
            assert_eq!(PinName::parse(bad), Err(NameError), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_stays_itself(text in "\\PC{0,300}") {
            if let Ok(name) = PinName::parse(&text) {
                prop_assert_eq!(PinName::parse(name.as_str()), Ok(name));
            }
        }
    }
}

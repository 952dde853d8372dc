//! The cursor of the list of the pins of all accounts.

use std::fmt;
use std::str::FromStr;

use crate::{PinId, PlacementId};

/// Position in the list: a page begins after this pin of this placement. The text form is `PLACEMENT-PIN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminPinsCursor {
    pub placement: PlacementId,
    pub pin: PinId,
}

/// The text is not an [`AdminPinsCursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The cursor must be a `nextCursor` of an earlier reply")]
pub struct AdminPinsCursorError;

impl fmt::Display for AdminPinsCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.placement, self.pin)
    }
}

impl FromStr for AdminPinsCursor {
    type Err = AdminPinsCursorError;

    fn from_str(text: &str) -> Result<Self, AdminPinsCursorError> {
        let (placement, pin) = text.split_once('-').ok_or(AdminPinsCursorError)?;
        let placement = placement.parse().map_err(|_| AdminPinsCursorError)?;
        Ok(Self { placement, pin: pin.parse().map_err(|_| AdminPinsCursorError)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_parses_from_its_text() {
        let cursor = AdminPinsCursor { placement: PlacementId(77), pin: PinId(i64::MAX) };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for invalid in ["", "-", "000000000000004d", "000000000000004d-", "-000000000000004d"] {
            assert_eq!(invalid.parse::<AdminPinsCursor>(), Err(AdminPinsCursorError), "{invalid:?}");
        }
    }
}

//! The state machine of placements. A placement is one CID on one cluster; its row is its entry in the work queue.
//!
//! ```text
//!             leased             held
//!   Queued ───────────▶ Pinning ──────▶ Pinned
//!     ▲ ▲                 │ postponed     │
//!     │ └─────────────────┘               │ unwanted (from every state: the last live pin was removed or failed)
//!     │ wanted                            ▼
//!     └──────────── Releasing ◀───────────┘
//!     ▲                 │ released
//!     │ wanted          ▼
//!     └───────────── Unpinned        (the row is deleted once no pin references it)
//! ```
//!
//! A worker leases a placement, performs *one* operation (hold or release) and reports the result. During the operation,
//! pins can be created and removed: this changes the state but not the lease. The result is therefore applied to the
//! state at the time of the report, by [`PlacementState::after`]. For example, if a pin is created again while the
//! blocks are being released, `Releasing` becomes `Queued`; the later `Released` leaves it at `Queued`, and the content
//! is fetched again.

use std::fmt;
use std::str::FromStr;

use crate::UnknownValue;
use crate::pin::string_enum;

string_enum!(
    /// State of a placement.
    PlacementState, "placement state", {
    /// A live pin requires the placement. A worker starts when it is due.
    Queued = "queued",
    /// A worker holds the lease and fetches the blocks.
    Pinning = "pinning",
    /// Every block is held durably.
    Pinned = "pinned",
    /// No live pin requires the placement. Its hold is to be released.
    Releasing = "releasing",
    /// Nothing is held. Only failed pins reference the placement.
    Unpinned = "unpinned",
});

/// An event that changes the state of a placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A live pin requires the placement.
    Wanted,
    /// The last live pin was removed or failed.
    Unwanted,
    /// A worker leased the placement.
    Leased,
    /// The cluster holds every block durably.
    Held,
    /// The attempt did not complete. It is retried later.
    Postponed,
    /// The cluster holds nothing of the placement.
    Released,
}

impl PlacementState {
    /// The state after `event`. Total: an event that has no effect leaves the state as it is.
    #[must_use]
    pub fn after(self, event: Event) -> Self {
        match (self, event) {
            (Self::Queued, Event::Wanted | Event::Postponed | Event::Released) => Self::Queued,
            (Self::Queued, Event::Leased) => Self::Pinning,
            // The pin was removed and created again during the fetch: the blocks are held.
            (Self::Queued, Event::Held) => Self::Pinned,

            (Self::Pinning, Event::Wanted | Event::Leased) => Self::Pinning,
            (Self::Pinning, Event::Held) => Self::Pinned,
            (Self::Pinning, Event::Postponed | Event::Released) => Self::Queued,

            (Self::Pinned, Event::Wanted | Event::Leased | Event::Held | Event::Postponed) => Self::Pinned,
            // Only the holder of a lease can report this, and a pinned placement is not leased. If it happens
            // nevertheless, the content must be fetched again because a live pin requires it.
            (Self::Pinned, Event::Released) => Self::Queued,

            (Self::Releasing, Event::Wanted) => Self::Queued,
            (Self::Releasing, Event::Unwanted | Event::Leased | Event::Held | Event::Postponed) => {
                Self::Releasing
            }
            (Self::Releasing, Event::Released) => Self::Unpinned,

            (Self::Unpinned, Event::Wanted) => Self::Queued,
            (Self::Unpinned, Event::Unwanted | Event::Leased | Event::Postponed | Event::Released) => {
                Self::Unpinned
            }
            (Self::Unpinned, Event::Held) => Self::Releasing,

            // An attempt that was started may have left blocks.
            (Self::Queued | Self::Pinning | Self::Pinned, Event::Unwanted) => Self::Releasing,
        }
    }

    /// Whether no work remains in this state.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Pinned | Self::Unpinned => true,
            Self::Queued | Self::Pinning | Self::Releasing => false,
        }
    }

    /// Whether a live pin requires the placement: it is pinned or will be.
    #[must_use]
    pub fn is_wanted(self) -> bool {
        match self {
            Self::Queued | Self::Pinning | Self::Pinned => true,
            Self::Releasing | Self::Unpinned => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The actual situation, to compare with the state of the row.
    #[derive(Debug, Default)]
    struct Actual {
        wanted: bool,
        held: bool,
    }

    fn step() -> impl Strategy<Value = u8> {
        0_u8..6
    }

    proptest! {
        /// Pins are created and removed at any time, and work is done under a lease. The state is never `Pinned` without
        /// the blocks, and once all work is done it matches the actual situation.
        #[test]
        fn state_converges_to_the_actual_situation(steps in proptest::collection::vec(step(), 0..60)) {
            let mut state = PlacementState::Unpinned;
            let mut actual = Actual::default();
            let mut work: Option<bool> = None;
            for step in steps {
                match (step, work) {
                    (0, _) => { actual.wanted = true; state = state.after(Event::Wanted); }
                    (1, _) => { actual.wanted = false; state = state.after(Event::Unwanted); }
                    (2, None) if !state.is_terminal() => {
                        work = Some(actual.wanted);
                        state = state.after(Event::Leased);
                    }
                    (3, Some(true)) => { actual.held = true; work = None; state = state.after(Event::Held); }
                    (4, Some(true)) => { work = None; state = state.after(Event::Postponed); }
                    (5, Some(false)) => { actual.held = false; work = None; state = state.after(Event::Released); }
                    _ => {}
                }
                prop_assert!(state != PlacementState::Pinned || (actual.held && actual.wanted), "{actual:?}");
                prop_assert_eq!(state.is_wanted(), actual.wanted);
                prop_assert!(!(state == PlacementState::Unpinned && actual.held && work.is_none()));
            }
            for _ in 0..3 {
                let event = match work.take().unwrap_or(actual.wanted) {
                    true => { actual.held = true; Event::Held }
                    false => { actual.held = false; Event::Released }
                };
                if !state.is_terminal() {
                    state = state.after(event);
                }
            }
            prop_assert!(state.is_terminal());
            prop_assert_eq!(state == PlacementState::Pinned, actual.wanted);
        }
    }

    #[test]
    fn pin_requested_during_release_is_fetched_again() {
        let state = PlacementState::Pinned.after(Event::Unwanted).after(Event::Wanted);
        assert_eq!(state.after(Event::Released), PlacementState::Queued);
    }
}

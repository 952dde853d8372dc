//! A placement: one CID in one cluster, and how far it is. Its row is the work queue.
//!
//! ```text
//!             claimed            held
//!   Queued ───────────▶ Pinning ──────▶ Pinned
//!     ▲ ▲                 │ put off       │
//!     │ └─────────────────┘               │ unwanted (from every state: the last live pin went)
//!     │ wanted                            ▼
//!     └──────────── Releasing ◀───────────┘
//!     ▲                 │ released
//!     │ wanted          ▼
//!     └───────────── Unpinned        (row goes once no pin, not even a failed one, names it)
//! ```
//!
//! Whoever works on a placement has its lease, does *one* thing (hold or release) and reports it. Meanwhile
//! wishes may come and go: they change the state but never the lease. So what is reported meets the state
//! of that moment, and [`PlacementState::after`] says what comes of it. That is why nothing is lost when a
//! pin comes back while its blocks are being released: `Releasing` became `Queued`, and `Released` leaves
//! it there, to be fetched once more.

use std::fmt;
use std::str::FromStr;

use crate::UnknownWord;
use crate::pin::words;

words!(
    /// How far a placement is.
    PlacementState, "placement state", {
    /// Wanted; work begins when it is due.
    Queued = "queued",
    /// Somebody has the lease and brings the blocks in.
    Pinning = "pinning",
    /// Every block is durable under the placement's hold.
    Pinned = "pinned",
    /// No live pin wants it; its hold is to be released.
    Releasing = "releasing",
    /// Nothing is held. Only failed pins name it.
    Unpinned = "unpinned",
});

/// What happened to a placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A live pin wants it.
    Wanted,
    /// The last live pin is gone, or has failed.
    Unwanted,
    /// Somebody took the lease.
    Claimed,
    /// The cluster holds every block, durably.
    Held,
    /// Not held this time; there is another try.
    Postponed,
    /// The cluster holds nothing of it.
    Released,
}

impl PlacementState {
    /// The state after `event`. Total: an event that has no effect leaves the state as it is.
    #[must_use]
    pub fn after(self, event: Event) -> Self {
        match (self, event) {
            (Self::Queued, Event::Wanted | Event::Postponed | Event::Released) => Self::Queued,
            (Self::Queued, Event::Claimed) => Self::Pinning,
            // The wish went and came back while the blocks came in: they are here.
            (Self::Queued, Event::Held) => Self::Pinned,

            (Self::Pinning, Event::Wanted | Event::Claimed) => Self::Pinning,
            (Self::Pinning, Event::Held) => Self::Pinned,
            (Self::Pinning, Event::Postponed | Event::Released) => Self::Queued,

            (Self::Pinned, Event::Wanted | Event::Claimed | Event::Held | Event::Postponed) => Self::Pinned,
            // Only a holder of the lease can report this, and nobody has one for a pinned placement; if it
            // happens all the same, what is wanted must be fetched again.
            (Self::Pinned, Event::Released) => Self::Queued,

            (Self::Releasing, Event::Wanted) => Self::Queued,
            (Self::Releasing, Event::Unwanted | Event::Claimed | Event::Held | Event::Postponed) => {
                Self::Releasing
            }
            (Self::Releasing, Event::Released) => Self::Unpinned,

            (Self::Unpinned, Event::Wanted) => Self::Queued,
            (Self::Unpinned, Event::Unwanted | Event::Claimed | Event::Postponed | Event::Released) => {
                Self::Unpinned
            }
            (Self::Unpinned, Event::Held) => Self::Releasing,

            // Whatever was begun may have left blocks.
            (Self::Queued | Self::Pinning | Self::Pinned, Event::Unwanted) => Self::Releasing,
        }
    }

    /// Whether there is nothing to do for it.
    #[must_use]
    pub fn is_settled(self) -> bool {
        match self {
            Self::Pinned | Self::Unpinned => true,
            Self::Queued | Self::Pinning | Self::Releasing => false,
        }
    }

    /// Whether it is on its way to be pinned, or is.
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

    /// A cluster and wishes as they are, beside the state that the row has.
    #[derive(Debug, Default)]
    struct Truth {
        wanted: bool,
        held: bool,
    }

    fn step() -> impl Strategy<Value = u8> {
        0_u8..6
    }

    proptest! {
        /// Wishes come and go at any moment, work is done under a lease: the row never says pinned without
        /// the blocks, and when all work is done it says what is so.
        #[test]
        fn the_row_and_the_truth_meet(steps in proptest::collection::vec(step(), 0..60)) {
            let mut state = PlacementState::Unpinned;
            let mut truth = Truth::default();
            let mut work: Option<bool> = None;
            for step in steps {
                match (step, work) {
                    (0, _) => { truth.wanted = true; state = state.after(Event::Wanted); }
                    (1, _) => { truth.wanted = false; state = state.after(Event::Unwanted); }
                    (2, None) if !state.is_settled() => {
                        work = Some(truth.wanted);
                        state = state.after(Event::Claimed);
                    }
                    (3, Some(true)) => { truth.held = true; work = None; state = state.after(Event::Held); }
                    (4, Some(true)) => { work = None; state = state.after(Event::Postponed); }
                    (5, Some(false)) => { truth.held = false; work = None; state = state.after(Event::Released); }
                    _ => {}
                }
                prop_assert!(state != PlacementState::Pinned || (truth.held && truth.wanted), "{truth:?}");
                prop_assert_eq!(state.is_wanted(), truth.wanted);
                prop_assert!(!(state == PlacementState::Unpinned && truth.held && work.is_none()));
            }
            for _ in 0..3 {
                let event = match work.take().unwrap_or(truth.wanted) {
                    true => { truth.held = true; Event::Held }
                    false => { truth.held = false; Event::Released }
                };
                if !state.is_settled() {
                    state = state.after(event);
                }
            }
            prop_assert!(state.is_settled());
            prop_assert_eq!(state == PlacementState::Pinned, truth.wanted);
        }
    }

    #[test]
    fn a_pin_that_comes_back_during_a_release_is_fetched_again() {
        let state = PlacementState::Pinned.after(Event::Unwanted).after(Event::Wanted);
        assert_eq!(state.after(Event::Released), PlacementState::Queued);
    }
}

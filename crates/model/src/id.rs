//! Numbers that name rows: newtypes, and the source of new ones.
//!
//! An id is 63 bits: 42 of Unix milliseconds, 8 that differ between processes, 13 that count. So ids sort by
//! age, a page of a list needs no other key, and processes that share a database need not talk to each other.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::Timestamp;

/// A text that is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("An id has 16 hexadecimal digits")]
pub struct IdError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let plain = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
                let number = plain.then(|| i64::from_str_radix(text, 16)).ok_or(IdError)?;
                number.map(Self).map_err(|_| IdError)
            }
        }
    };
}

id!(
    /// Names an account.
    AccountId
);
id!(
    /// Names an API key.
    TokenId
);
id!(
    /// Names a session: one login, until its logout.
    SessionId
);
id!(
    /// Names an entry of the audit log.
    AuditId
);
id!(
    /// Names a pin. Its text is the `uploadId` that clients see.
    PinId
);
id!(
    /// Names a placement.
    PlacementId
);
id!(
    /// Names a webhook.
    WebhookId
);
id!(
    /// Names something that happened and is told to a webhook.
    DeliveryId
);

const SHARED_BITS: u32 = 21;
const COUNT_BITS: u32 = 13;
/// The latest time that an id can carry, in the year 2109: later ones must not wrap around.
const MS_MAX: i64 = (1 << (63 - SHARED_BITS)) - 1;

/// Makes ids: unique in one process, and between processes that were given different `salt`s.
#[derive(Debug)]
pub struct IdSource {
    salt: i64,
    last: AtomicI64,
}

impl IdSource {
    /// A source whose ids carry `salt`, which should be random.
    #[must_use]
    pub fn new(salt: u8) -> Self {
        Self { salt: i64::from(salt) << COUNT_BITS, last: AtomicI64::new(0) }
    }

    /// Goes on after `last`, an id from another source: so ids grow also when the clock was set back between
    /// two runs. It goes on a millisecond later and with its own salt, since the other may go on as well.
    #[must_use]
    pub fn after(self, last: i64) -> Self {
        let next = (last >> SHARED_BITS).saturating_add(1).min(MS_MAX) << SHARED_BITS | self.salt;
        Self { last: AtomicI64::new(next.saturating_sub(1).max(last)), ..self }
    }

    /// A new id, larger than every one before. If the clock goes backwards, ids go on from the last.
    pub fn next(&self, now: Timestamp) -> i64 {
        let floor = (now.as_ms().clamp(0, MS_MAX) << SHARED_BITS) | self.salt;
        let next = |last: i64| floor.max(last.saturating_add(1));
        match self.last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last))) {
            Ok(last) | Err(last) => next(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_also_when_the_clock_does_not() {
        let source = IdSource::new(200);
        let first = source.next(Timestamp::from_ms(2_000));
        let second = source.next(Timestamp::from_ms(1_000));
        let third = source.next(Timestamp::from_ms(3_000));
        assert!(first < second && second < third);
    }

    #[test]
    fn ids_go_on_after_those_of_a_run_before() {
        let last = IdSource::new(200).next(Timestamp::from_ms(2_000));
        let source = IdSource::new(7).after(last);
        assert!(source.next(Timestamp::from_ms(1_000)) > last, "the clock was set back between them");
        assert!(source.next(Timestamp::from_ms(3_000)) >> SHARED_BITS == 3_000);
    }

    #[test]
    fn no_time_is_too_late_for_an_id() {
        let source = IdSource::new(255);
        let first = source.next(Timestamp::from_ms(i64::MAX));
        assert!(first > 0 && source.next(Timestamp::from_ms(i64::MAX)) > first);
    }

    #[test]
    fn an_id_reads_what_it_writes() {
        let id = PinId(IdSource::new(7).next(Timestamp::from_ms(1_767_225_600_000)));
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "+00000000000001f", "ffffffffffffffff", "12"] {
            assert_eq!(bad.parse::<PinId>(), Err(IdError), "{bad:?}");
        }
    }
}

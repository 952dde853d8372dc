//! Webhooks: what an account wants to be told of, and where.

use std::fmt;
use std::str::FromStr;

use crate::pin::{UnknownWord, words};
use crate::{AccountId, Timestamp, WebhookId};

words!(
    /// Something that happens to a pin and that a webhook can be told of.
    WebhookEvent, "event", {
    /// Every block is here and durable.
    Pinned = "pin.pinned",
    /// It was given up.
    Failed = "pin.failed",
    /// It ended by itself, at its time.
    Expired = "pin.expired",
    /// Its owner removed it.
    Removed = "pin.removed",
    /// Nothing happened: the owner of the webhook tries it.
    Test = "webhook.test",
});

words!(
    /// How it stands with telling a webhook of an event.
    DeliveryState, "delivery state", {
    /// Not told yet.
    Pending = "pending",
    /// Told: the receiver said so.
    Delivered = "delivered",
    /// Given up.
    Failed = "failed",
});

impl WebhookEvent {
    /// Those that one can ask for; a test is told to whoever tests.
    pub const OF_PINS: [Self; 4] = [Self::Pinned, Self::Failed, Self::Expired, Self::Removed];

    /// Its place in a [`WebhookEvents`], which is stored: it never changes.
    #[must_use]
    pub fn bit(self) -> i64 {
        match self {
            Self::Pinned => 1,
            Self::Failed => 2,
            Self::Expired => 4,
            Self::Removed => 8,
            Self::Test => 0,
        }
    }
}

/// The events that a webhook is told of: one or more of [`WebhookEvent::OF_PINS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebhookEvents(i64);

impl WebhookEvents {
    /// A set; `None` of nothing. A test need not be asked for.
    #[must_use]
    pub fn new(events: impl IntoIterator<Item = WebhookEvent>) -> Option<Self> {
        Self::from_bits(events.into_iter().fold(0, |bits, event| bits | event.bit()))
    }

    /// What [`bits`](Self::bits) gave.
    #[must_use]
    pub fn from_bits(bits: i64) -> Option<Self> {
        (1..16).contains(&bits).then_some(Self(bits))
    }

    /// As it is stored.
    #[must_use]
    pub fn bits(self) -> i64 {
        self.0
    }

    /// The events, in the order of [`WebhookEvent::OF_PINS`].
    pub fn iter(self) -> impl Iterator<Item = WebhookEvent> {
        WebhookEvent::OF_PINS.into_iter().filter(move |event| self.0 & event.bit() != 0)
    }
}

/// What signs the deliveries of a webhook. `Debug` hides it; [`reveal`](Self::reveal) is the one way out.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(String);

impl WebhookSecret {
    /// What every secret begins with.
    pub const PREFIX: &str = "whsec_";

    /// A secret of so much randomness.
    #[must_use]
    pub fn of(random: &[u8; 32]) -> Self {
        let digits = random.iter().map(|byte| format!("{byte:02x}"));
        Self(format!("{}{}", Self::PREFIX, digits.collect::<String>()))
    }

    /// What was stored.
    #[must_use]
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// Its text, whose bytes are the key of the HMAC.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(whsec_…)")
    }
}

/// A webhook without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its number.
    pub id: WebhookId,
    /// Whose it is.
    pub account: AccountId,
    /// Where it is told.
    pub url: String,
    /// A note of its owner.
    pub description: Option<String>,
    /// Of what.
    pub events: WebhookEvents,
    /// Whether it is told at all.
    pub active: bool,
    /// Why it was turned off, if its owner did not do it.
    pub disabled_reason: Option<String>,
    /// Since when no delivery has succeeded, if the last one failed.
    pub failing_since: Option<Timestamp>,
    /// Deliveries that wait.
    pub pending: u64,
    /// Events that were not written down because too many waited.
    pub dropped: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its owner changed it last.
    pub updated_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_shows_itself() {
        let secret = WebhookSecret::of(&[0xa7; 32]);
        assert_eq!(format!("{secret:?}"), "WebhookSecret(whsec_…)");
        assert_eq!(secret.reveal(), format!("whsec_{}", "a7".repeat(32)));
    }

    #[test]
    fn a_set_of_events_reads_what_it_writes() {
        let events =
            WebhookEvents::new([WebhookEvent::Removed, WebhookEvent::Pinned, WebhookEvent::Test]).unwrap();
        assert_eq!(WebhookEvents::from_bits(events.bits()), Some(events));
        assert_eq!(events.iter().collect::<Vec<_>>(), [WebhookEvent::Pinned, WebhookEvent::Removed]);
        assert_eq!(WebhookEvents::new(WebhookEvent::OF_PINS).unwrap().iter().count(), 4);
        assert_eq!(WebhookEvents::new([WebhookEvent::Test]), None, "that is nothing to wait for");
        for strange in [-1, 0, 16, i64::MAX] {
            assert_eq!(WebhookEvents::from_bits(strange), None);
        }
    }
}

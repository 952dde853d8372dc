//! Webhooks: event types, secrets, and the webhook itself.

use std::fmt;
use std::str::FromStr;

use cid::Cid;
use data_encoding::BASE64;

use crate::pin::{UnknownValue, string_enum};
use crate::{
    AccountId, ClusterId, DeliveryId, Failure, PinId, PinKind, PinName, PinState, Timestamp, WebhookId,
};

string_enum!(
    /// Type of an event that is delivered to webhooks.
    WebhookEvent, "event", {
    /// Every block of the pin is verified and durable.
    Pinned = "pin.pinned",
    /// The pin failed, without further attempts.
    Failed = "pin.failed",
    /// The pin ended at its `expires_at`.
    Expired = "pin.expired",
    /// The owner or an operator removed the pin.
    Removed = "pin.removed",
    /// The owner of the webhook requested a test.
    Test = "webhook.test",
});

string_enum!(
    /// State of the delivery of an event to a webhook.
    DeliveryState, "delivery state", {
    Pending = "pending",
    /// The receiver responded with 2xx.
    Delivered = "delivered",
    /// Not delivered, without further attempts.
    Failed = "failed",
});

impl WebhookEvent {
    /// The events that a webhook can subscribe to. Tests are always delivered.
    pub const OF_PINS: [Self; 4] = [Self::Pinned, Self::Failed, Self::Expired, Self::Removed];

    /// Its bit in [`WebhookEvents`]. The bits are stored and must never change.
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

/// The events that a webhook subscribes to: one or more of [`WebhookEvent::OF_PINS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebhookEvents(i64);

impl WebhookEvents {
    /// The set of these events, ignoring [`WebhookEvent::Test`]. `None` if it is empty.
    #[must_use]
    pub fn new(events: impl IntoIterator<Item = WebhookEvent>) -> Option<Self> {
        Self::from_bits(events.into_iter().fold(0, |bits, event| bits | event.bit()))
    }

    /// The inverse of [`bits`](Self::bits). `None` if there is an unknown bit or no bit.
    #[must_use]
    pub fn from_bits(bits: i64) -> Option<Self> {
        (1..16).contains(&bits).then_some(Self(bits))
    }

    /// The stored form.
    #[must_use]
    pub fn bits(self) -> i64 {
        self.0
    }

    /// The events, in the order of [`WebhookEvent::OF_PINS`].
    pub fn iter(self) -> impl Iterator<Item = WebhookEvent> {
        WebhookEvent::OF_PINS.into_iter().filter(move |event| self.0 & event.bit() != 0)
    }
}

/// The key that signs the deliveries of a webhook. Its text form is that of the Standard Webhooks specification:
/// `whsec_` and the base64 of the key. `Debug` hides it; [`reveal`](Self::reveal) shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret([u8; Self::KEY_LEN]);

impl WebhookSecret {
    pub const PREFIX: &str = "whsec_";
    /// In bytes. The specification allows 24 to 64.
    pub const KEY_LEN: usize = 32;

    /// A secret from random bytes.
    #[must_use]
    pub fn new(random: [u8; Self::KEY_LEN]) -> Self {
        Self(random)
    }

    /// Parses what [`reveal`](Self::reveal) returned. `None` if the text is not a secret.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let key = BASE64.decode(text.strip_prefix(Self::PREFIX)?.as_bytes()).ok()?;
        key.try_into().ok().map(Self)
    }

    /// The key of the HMAC.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.0
    }

    /// The text form: `whsec_…`.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{}{}", Self::PREFIX, BASE64.encode(&self.0))
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
    pub id: WebhookId,
    pub account: AccountId,
    pub url: String,
    pub description: Option<String>,
    pub events: WebhookEvents,
    /// Whether events are recorded for it and delivered.
    pub active: bool,
    /// Why it was deactivated, unless its owner did so.
    pub disabled_reason: Option<String>,
    /// When the first of the failures since the last successful attempt occurred.
    pub failing_since: Option<Timestamp>,
    /// Number of pending deliveries.
    pub pending: u64,
    /// Number of events that were not recorded because too many deliveries were pending.
    pub dropped: u64,
    pub created_at: Timestamp,
    /// When its owner last changed it.
    pub updated_at: Timestamp,
}

/// A delivery of an event to a webhook: pending, or finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The same in each attempt.
    pub id: DeliveryId,
    pub event: WebhookEvent,
    /// When the event happened.
    pub at: Timestamp,
    /// The pin after the event; `None` in a test delivery.
    pub pin: Option<DeliveredPin>,
    pub state: DeliveryState,
    /// When the next attempt begins.
    pub due_at: Option<Timestamp>,
    pub attempts: u32,
    /// When the last attempt began.
    pub tried_at: Option<Timestamp>,
    /// The status code that the receiver returned to the last attempt, if it responded.
    pub response_status: Option<u16>,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

/// A pin as it was after an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveredPin {
    pub id: PinId,
    /// The root of the DAG.
    pub cid: Cid,
    pub cluster: ClusterId,
    pub state: PinState,
    pub kind: PinKind,
    /// Bytes that the account was charged for.
    pub bytes: u64,
    pub original_name: Option<PinName>,
    pub custom_name: Option<PinName>,
    pub error: Option<Failure>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_hidden_in_debug_output() {
        let secret = WebhookSecret::new([0xa7; 32]);
        assert_eq!(format!("{secret:?}"), "WebhookSecret(whsec_…)");
        assert_eq!(secret.reveal(), format!("whsec_{}p6c=", "p6en".repeat(10)));
    }

    #[test]
    fn secret_parses_from_its_text() {
        let secret = WebhookSecret::new([0xa7; 32]);
        assert_eq!(WebhookSecret::parse(&secret.reveal()), Some(secret));
        for text in ["", "whsec_", "p6en", "whsec_p6en", "whsec_p6en*", &format!("whsec_{}", "a7".repeat(32))]
        {
            assert_eq!(WebhookSecret::parse(text), None, "{text}");
        }
    }

    #[test]
    fn set_of_events_parses_from_its_bits() {
        let events =
            WebhookEvents::new([WebhookEvent::Removed, WebhookEvent::Pinned, WebhookEvent::Test]).unwrap();
        assert_eq!(WebhookEvents::from_bits(events.bits()), Some(events));
        assert_eq!(events.iter().collect::<Vec<_>>(), [WebhookEvent::Pinned, WebhookEvent::Removed]);
        assert_eq!(WebhookEvents::new(WebhookEvent::OF_PINS).unwrap().iter().count(), 4);
        assert_eq!(WebhookEvents::new([WebhookEvent::Test]), None, "a test is not in the set");
        for invalid in [-1, 0, 16, i64::MAX] {
            assert_eq!(WebhookEvents::from_bits(invalid), None);
        }
    }
}

//! Event streams of a pin: its state and progress as they change.
//!
//! Each event has the complete state of the pin. The stream ends with the last event: pinned, failed or unpinned. A slow
//! reader misses events in between, but never the end; nothing is buffered.
//!
//! The pin's row is read when its placement changes ([`placement_events`](crate::placements::placement_events)), never on a
//! timer. Progress is in memory and is sampled a few times per second.
//!
//! The id of an event is a digest of its content, so that no state is kept between connections: a client that reconnects
//! with the id of the last event it saw, also to another process, gets no event twice, except for the end.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cid::Cid;
use pinfold_model::{AccountId, ClusterId, Failure, FailureCode, PinId, PinState, Timestamp};
use pinfold_store::PinRecord;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep_until};

use super::types::PinProgress;
use super::{Pins, progress};
use crate::error::log_store_error;
use crate::lock::lock;
use crate::placements::Placements;
use crate::placements::placement_events::Subscription;
use crate::{Caller, Error};

/// Time over which a rate is averaged.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// When a client may retry if too many streams are open: some of them have ended by then.
const FULL_RETRY: Duration = Duration::from_secs(10);

/// Identifies an event by its content. Two events with the same id differ in nothing but the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventId {
    pin: PinId,
    state: PinState,
    digest: u64,
}

/// The text is not an [`EventId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("An event id must consist of an upload id, a status and 16 hexadecimal digits, separated by hyphens")]
pub struct EventIdError;

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:016x}", self.pin, self.state, self.digest)
    }
}

impl FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, EventIdError> {
        let mut parts = text.splitn(3, '-');
        let mut next = || parts.next().ok_or(EventIdError);
        let pin = next()?.parse().map_err(|_| EventIdError)?;
        let state = next()?.parse().map_err(|_| EventIdError)?;
        let digits = next()?;
        let is_plain = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let digest = is_plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten().ok_or(EventIdError)?;
        Ok(Self { pin, state, digest })
    }
}

/// What changed since the event before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The state, or an error. The first event is of this kind.
    State,
    /// Only the progress.
    Progress,
    /// The pin is pinned, failed or unpinned: the stream ends.
    End,
}

/// The state of a pin at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinEvent {
    pub id: EventId,
    pub kind: EventKind,
    /// Identifies the pin. Clients know it as `uploadId`.
    pub upload_id: PinId,
    pub cid: Cid,
    /// `None` for a pin that was removed before the stream began.
    pub cluster: Option<ClusterId>,
    pub state: PinState,
    pub progress: PinProgress,
    /// Bytes per second over the last seconds.
    pub rate: u64,
    /// Why the pin failed, or why the last attempt failed.
    pub error: Option<Failure>,
    pub attempts: u32,
    /// When the next attempt begins, if one is scheduled.
    pub next_try_at: Option<Timestamp>,
    /// When the pin is removed automatically.
    pub expires_at: Option<Timestamp>,
}

/// The events of one pin. Dropping it ends the stream.
#[must_use = "events are read with `next`"]
pub struct PinEventStream {
    live: Option<Live>,
    /// The only event of a pin that was removed before the stream began.
    last_event: Option<PinEvent>,
    _slot: StreamSlot,
}

/// The stream of an existing pin.
struct Live {
    placements: Arc<Placements>,
    cid: Cid,
    changes: Subscription,
    /// The pin as it was read last; `None` once it is removed.
    record: Option<PinRecord>,
    id: PinId,
    is_stale: bool,
    /// Whether this process worked on the placement at the last look.
    was_active: bool,
    seen: Option<EventId>,
    sent: Option<PinEvent>,
    quiet_until: Instant,
    step: Duration,
    samples: VecDeque<(Instant, u64)>,
}

impl Pins {
    /// Streams the events of the caller's pin of this CID. `seen` is the last event that the client has received.
    ///
    /// # Errors
    /// [`Error::PinNotFound`], unless `seen` is an event of a pin that was removed since: then the stream has one event
    /// that says so; [`Error::InvalidRequest`] if no cluster is given and the CID is pinned in several;
    /// [`Error::TooManyEventStreams`], [`Error::Unavailable`] if too many streams are open.
    pub async fn events(
        &self,
        caller: &Caller,
        cid: &Cid,
        cluster: Option<&ClusterId>,
        seen: Option<EventId>,
    ) -> Result<PinEventStream, Error> {
        let slot = self.streams.open(caller.account.id, self.placements.clock.now())?;
        let record = match (self.record(caller, cid, cluster).await, seen) {
            (Ok(record), _) => record,
            (Err(Error::PinNotFound), Some(seen)) => {
                let last_event = Some(removed_before(seen, cid));
                return Ok(PinEventStream { live: None, last_event, _slot: slot });
            }
            (Err(error), _) => return Err(error),
        };
        let live = Live {
            placements: Arc::clone(&self.placements),
            cid: *cid,
            // The row is read after this, so that no change is lost.
            changes: self.placements.events.subscribe(record.placement.id),
            id: record.id,
            record: Some(record),
            is_stale: true,
            was_active: false,
            seen,
            sent: None,
            quiet_until: Instant::now(),
            step: self.streams.step,
            samples: VecDeque::new(),
        };
        Ok(PinEventStream { live: Some(live), last_event: None, _slot: slot })
    }
}

impl PinEventStream {
    /// Waits for the next event; `None` after the end. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`] if the store fails.
    pub async fn next(&mut self) -> Result<Option<PinEvent>, Error> {
        let Some(live) = &mut self.live else { return Ok(self.last_event.take()) };
        let event = live.next().await?;
        if event.kind == EventKind::End {
            self.live = None;
        }
        Ok(Some(event))
    }
}

impl Live {
    async fn next(&mut self) -> Result<PinEvent, Error> {
        loop {
            if self.is_stale {
                self.record = self.placements.store.pin(self.id).await.map_err(log_store_error)?;
                self.is_stale = false;
            }
            self.sample();
            let event = self.event();
            let now = Instant::now();
            let is_new = event.kind == EventKind::End || self.seen != Some(event.id);
            if is_new && (event.kind == EventKind::End || now >= self.quiet_until) {
                self.quiet_until = now + self.step;
                self.seen = Some(event.id);
                self.sent = Some(event.clone());
                return Ok(event);
            }
            let look_at = if is_new { self.quiet_until } else { now + self.step };
            tokio::select! {
                () = self.changes.changed() => self.is_stale = true,
                () = sleep_until(look_at) => {}
            }
            // The beginning of the work sends no notification.
            let is_active = self.is_active();
            self.is_stale |= std::mem::replace(&mut self.was_active, is_active) != is_active;
        }
    }

    fn is_active(&self) -> bool {
        self.record.as_ref().is_some_and(|pin| self.placements.progress(pin.placement.id).is_some())
    }

    fn progress(&self) -> PinProgress {
        self.record.as_ref().map(|pin| progress(&self.placements, pin)).unwrap_or_default()
    }

    fn sample(&mut self) {
        let now = Instant::now();
        if !self.record.as_ref().is_some_and(|pin| pin.state() == PinState::Pinning) {
            self.samples.clear();
            return;
        }
        let bytes = self.progress().bytes;
        self.samples.retain(|(at, before)| now.duration_since(*at) <= RATE_WINDOW && *before <= bytes);
        // One sample per step: frequent wake-ups must not make the list long.
        if self.samples.back().is_none_or(|(at, _)| now.duration_since(*at) >= self.step) {
            self.samples.push_back((now, bytes));
        }
    }

    /// Bytes per second between the first and the last sample.
    fn rate(&self) -> u64 {
        let (Some((begin, first)), Some((end, last))) = (self.samples.front(), self.samples.back()) else {
            return 0;
        };
        let milliseconds = u64::try_from(end.duration_since(*begin).as_millis()).unwrap_or(u64::MAX);
        last.saturating_sub(*first).saturating_mul(1_000).checked_div(milliseconds).unwrap_or(0)
    }

    fn event(&self) -> PinEvent {
        let Some(pin) = &self.record else { return self.removed() };
        let state = pin.state();
        let event = PinEvent {
            id: EventId { pin: pin.id, state, digest: 0 },
            kind: EventKind::State,
            upload_id: pin.id,
            cid: self.cid,
            cluster: Some(pin.placement.cluster.clone()),
            state,
            progress: self.progress(),
            rate: self.rate(),
            error: pin.error.clone().or_else(|| pin.placement.error.clone()),
            attempts: pin.placement.attempts,
            next_try_at: pin.placement.due_at.filter(|_| state == PinState::Queued),
            expires_at: pin.expires_at,
        };
        self.with_id(event)
    }

    /// The last event of a pin that was removed during the stream. A failed pin is removed by the request that waited for it.
    fn removed(&self) -> PinEvent {
        let failure = self.changes.last_failure();
        let state = if failure.is_some() { PinState::Failed } else { PinState::Unpinned };
        let event = PinEvent {
            id: EventId { pin: self.id, state, digest: 0 },
            kind: EventKind::End,
            upload_id: self.id,
            cid: self.cid,
            cluster: self.sent.as_ref().and_then(|sent| sent.cluster.clone()),
            state,
            progress: PinProgress::default(),
            rate: 0,
            error: failure,
            attempts: 0,
            next_try_at: None,
            expires_at: None,
        };
        self.with_id(event)
    }

    /// Sets the id and the kind of an event.
    fn with_id(&self, mut event: PinEvent) -> PinEvent {
        event.id.digest = digest(&event);
        event.kind = match (is_end(event.state), &self.sent) {
            (true, _) => EventKind::End,
            (false, Some(sent)) if is_progress(sent, &event) => EventKind::Progress,
            (false, _) => EventKind::State,
        };
        event
    }
}

fn is_end(state: PinState) -> bool {
    match state {
        PinState::Pinned | PinState::Failed | PinState::Unpinned => true,
        PinState::Queued | PinState::Pinning => false,
    }
}

/// Whether two events differ in nothing but the progress.
fn is_progress(before: &PinEvent, now: &PinEvent) -> bool {
    let rest = |event: &PinEvent| {
        (event.state, event.error.clone(), event.attempts, event.next_try_at, event.expires_at)
    };
    rest(before) == rest(now)
}

/// A digest of an event's content except its rate, which is the same in every process.
fn digest(event: &PinEvent) -> u64 {
    let PinProgress { blocks, bytes, total_bytes, peers } = event.progress;
    let error = event.error.as_ref().map(|failure| (failure.code.as_str(), failure.detail.as_str()));
    let times = (event.next_try_at.map(Timestamp::as_ms), event.expires_at.map(Timestamp::as_ms));
    let text = format!("{blocks} {bytes} {total_bytes:?} {peers} {error:?} {} {times:?}", event.attempts);
    let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    hash.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The event for a client that asks for a removed pin: the end that it saw, or that the pin was removed. It contains
/// nothing that the client did not send.
fn removed_before(seen: EventId, cid: &Cid) -> PinEvent {
    let has_failed = seen.state == PinState::Failed;
    let state = if has_failed { PinState::Failed } else { PinState::Unpinned };
    let failure =
        Failure::new(FailureCode::Unavailable, "The pin failed and was removed; no details are available");
    let mut event = PinEvent {
        id: EventId { state, ..seen },
        kind: EventKind::End,
        upload_id: seen.pin,
        cid: *cid,
        cluster: None,
        state,
        progress: PinProgress::default(),
        rate: 0,
        error: has_failed.then_some(failure),
        attempts: 0,
        next_try_at: None,
        expires_at: None,
    };
    if !is_end(seen.state) || seen.state == PinState::Pinned {
        event.id.digest = digest(&event);
    }
    event
}

type OpenStreams = Arc<Mutex<HashMap<AccountId, u32>>>;

/// The open event streams, counted by account, and their limits.
pub(crate) struct EventStreams {
    streams_max: u32,
    per_account_max: u32,
    /// Minimum time between two events of a stream.
    step: Duration,
    open: OpenStreams,
}

/// Counts one open stream, until it is dropped.
struct StreamSlot {
    all: OpenStreams,
    account: AccountId,
}

impl EventStreams {
    pub(crate) fn new(streams_max: u32, per_account_max: u32, events_per_second: u32) -> Self {
        let step = Duration::from_secs(1) / events_per_second.max(1);
        Self { streams_max, per_account_max, step, open: OpenStreams::default() }
    }

    fn open(&self, account: AccountId, now: Timestamp) -> Result<StreamSlot, Error> {
        let mut all = lock(&self.open);
        // There are at most as many entries as streams, so the sum is quick.
        if all.values().sum::<u32>() >= self.streams_max {
            return Err(Error::Unavailable { retry_after: Some(FULL_RETRY) });
        }
        let own = all.entry(account).or_default();
        if *own >= self.per_account_max {
            return Err(Error::TooManyEventStreams { limit: self.per_account_max, at: now });
        }
        *own += 1;
        Ok(StreamSlot { all: Arc::clone(&self.open), account })
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let mut all = lock(&self.all);
        if let Some(own) = all.get_mut(&self.account) {
            *own -= 1;
            if *own == 0 {
                all.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_id_round_trips() {
        for state in PinState::ALL {
            let id = EventId { pin: PinId(77), state: *state, digest: u64::MAX };
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        let good = "000000000000004d-pinned-ffffffffffffffff";
        assert!(good.parse::<EventId>().is_ok());
        for bad in [
            "",
            "1",
            "000000000000004d-pinned",
            "000000000000004d-gone-ffffffffffffffff",
            "000000000000004d-pinned-+fffffffffffffff",
            "000000000000004d-pinned-ffffffffffffffff-",
            "000000000000004d-pinned-ffffffffffffffff\n",
        ] {
            assert_eq!(bad.parse::<EventId>(), Err(EventIdError), "{bad:?}");
        }
    }
}

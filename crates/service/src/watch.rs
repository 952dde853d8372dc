//! Watching a pin: what becomes of it, told as it changes.
//!
//! A watch is a row of *events*, each the whole of what there is to know, and ends with the pin's last one: pinned,
//! failed or gone. Whoever reads slowly misses events in between and never the end, and nothing is kept for them.
//!
//! What the database says is read when a placement changes ([`signals`](crate::signals)), never on a timer. How far a
//! fetch is stands in memory and is looked at some times a second.
//!
//! An event's id is made of what it tells and of nothing else. So it needs no memory: whoever comes back with the id
//! of the last event that they saw, be it to another process, is told nothing that they know already, but for the
//! end, which is always told.

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

use crate::core::{Core, lock, unavailable};
use crate::signals::Subscription;
use crate::{Caller, Error, PinProgress, Pins};

/// How far back a rate looks.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// When to come back if too many watch: some of them will have seen the end by then.
const FULL_RETRY: Duration = Duration::from_secs(10);

/// Names an event by what it tells. Two events with one id say the same, but for the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventId {
    pin: PinId,
    state: PinState,
    digest: u64,
}

/// A text that is no [`EventId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("An event's id has an upload's id, a status and 16 hexadecimal digits, with hyphens between them")]
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

/// What is new about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// How the pin stands; the first event is one.
    State,
    /// How far it is, and nothing else.
    Progress,
    /// It is pinned, has failed, or is gone: nothing follows.
    End,
}

/// How a pin stands at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinEvent {
    /// Its name.
    pub id: EventId,
    /// What is new about it.
    pub kind: EventKind,
    /// The pin; clients know it as `uploadId`.
    pub upload_id: PinId,
    /// The root of the DAG.
    pub cid: Cid,
    /// Where it is; `None` for a pin that was gone before the watch began.
    pub cluster: Option<ClusterId>,
    /// How it stands.
    pub state: PinState,
    /// How far it is.
    pub progress: PinProgress,
    /// The bytes a second that came in the last seconds.
    pub rate: u64,
    /// Why it failed, or why the last try did.
    pub error: Option<Failure>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next, if it waits for that.
    pub next_try_at: Option<Timestamp>,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
}

/// The events of one pin. Dropping it ends the watch.
#[must_use = "events are told to whoever asks for them"]
pub struct PinWatch {
    live: Option<Live>,
    /// What is told next, whatever is known: the end of a pin that was gone before.
    last_word: Option<PinEvent>,
    _place: Place,
}

/// A watch of a pin that is there.
struct Live {
    core: Arc<Core>,
    cid: Cid,
    changes: Subscription,
    /// The pin as it was read last; `None` once it is gone.
    record: Option<PinRecord>,
    id: PinId,
    is_stale: bool,
    /// Whether the last look saw somebody work on it.
    was_active: bool,
    seen: Option<EventId>,
    told: Option<PinEvent>,
    quiet_until: Instant,
    step: Duration,
    samples: VecDeque<(Instant, u64)>,
}

impl Pins {
    /// Watches the caller's pin of this CID. `seen` is the last event that the caller knows.
    ///
    /// # Errors
    /// [`Error::PinNotFound`], unless `seen` tells of a pin that has gone since: then the watch tells just that;
    /// [`Error::InvalidRequest`] when no cluster is given and the CID is pinned in several;
    /// [`Error::TooManyWatches`], [`Error::Unavailable`] when too many watch.
    pub async fn watch(
        &self,
        caller: &Caller,
        cid: &Cid,
        cluster: Option<&ClusterId>,
        seen: Option<EventId>,
    ) -> Result<PinWatch, Error> {
        let place = self.core.watches.take(&self.core, caller.account.id)?;
        let record = match (self.record(caller, cid, cluster).await, seen) {
            (Ok(record), _) => record,
            (Err(Error::PinNotFound), Some(seen)) => {
                let last_word = Some(gone_before(seen, cid));
                return Ok(PinWatch { live: None, last_word, _place: place });
            }
            (Err(error), _) => return Err(error),
        };
        let events_a_second = self.core.settings.watch_events_per_second.max(1);
        let live = Live {
            core: Arc::clone(&self.core),
            cid: *cid,
            // First this, then the look that counts: nothing that happens between is lost.
            changes: self.core.signals.subscribe(record.placement.id),
            id: record.id,
            record: Some(record),
            is_stale: true,
            was_active: false,
            seen,
            told: None,
            quiet_until: Instant::now(),
            step: Duration::from_secs(1) / events_a_second,
            samples: VecDeque::new(),
        };
        Ok(PinWatch { live: Some(live), last_word: None, _place: place })
    }
}

impl PinWatch {
    /// The next event, once there is one; `None` after the end. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`] when the store fails.
    pub async fn next(&mut self) -> Result<Option<PinEvent>, Error> {
        let Some(live) = &mut self.live else { return Ok(self.last_word.take()) };
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
                self.record = self.core.store.pin(self.id).await.map_err(unavailable)?;
                self.is_stale = false;
            }
            self.sample();
            let event = self.event();
            let now = Instant::now();
            let is_new = event.kind == EventKind::End || self.seen != Some(event.id);
            if is_new && (event.kind == EventKind::End || now >= self.quiet_until) {
                self.quiet_until = now + self.step;
                self.seen = Some(event.id);
                self.told = Some(event.clone());
                return Ok(event);
            }
            let look_at = if is_new { self.quiet_until } else { now + self.step };
            tokio::select! {
                () = self.changes.changed() => self.is_stale = true,
                () = sleep_until(look_at) => {}
            }
            // That work began is told to nobody.
            let is_active = self.is_active();
            self.is_stale |= std::mem::replace(&mut self.was_active, is_active) != is_active;
        }
    }

    fn is_active(&self) -> bool {
        self.record.as_ref().is_some_and(|pin| self.core.progress(pin.placement.id).is_some())
    }

    fn progress(&self) -> PinProgress {
        self.record.as_ref().map(|pin| self.core.pin_progress(pin)).unwrap_or_default()
    }

    fn sample(&mut self) {
        let now = Instant::now();
        if !self.record.as_ref().is_some_and(|pin| pin.state() == PinState::Pinning) {
            self.samples.clear();
            return;
        }
        let bytes = self.progress().bytes;
        self.samples.retain(|(at, before)| now.duration_since(*at) <= RATE_WINDOW && *before <= bytes);
        // One sample a step: what wakes it oftener must not make the list long.
        if self.samples.back().is_none_or(|(at, _)| now.duration_since(*at) >= self.step) {
            self.samples.push_back((now, bytes));
        }
    }

    /// The bytes a second between the first and the last sample.
    fn rate(&self) -> u64 {
        let (Some((begin, first)), Some((end, last))) = (self.samples.front(), self.samples.back()) else {
            return 0;
        };
        let milliseconds = u64::try_from(end.duration_since(*begin).as_millis()).unwrap_or(u64::MAX);
        last.saturating_sub(*first).saturating_mul(1_000).checked_div(milliseconds).unwrap_or(0)
    }

    fn event(&self) -> PinEvent {
        let Some(pin) = &self.record else { return self.gone() };
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
        self.named(event)
    }

    /// The event of a pin that went while it was watched. If it failed, who waited for it has removed it.
    fn gone(&self) -> PinEvent {
        let failure = self.changes.last();
        let state = if failure.is_some() { PinState::Failed } else { PinState::Unpinned };
        let event = PinEvent {
            id: EventId { pin: self.id, state, digest: 0 },
            kind: EventKind::End,
            upload_id: self.id,
            cid: self.cid,
            cluster: self.told.as_ref().and_then(|told| told.cluster.clone()),
            state,
            progress: PinProgress::default(),
            rate: 0,
            error: failure,
            attempts: 0,
            next_try_at: None,
            expires_at: None,
        };
        self.named(event)
    }

    /// Gives an event its id and its kind.
    fn named(&self, mut event: PinEvent) -> PinEvent {
        event.id.digest = digest(&event);
        event.kind = match (is_end(event.state), &self.told) {
            (true, _) => EventKind::End,
            (false, Some(told)) if is_progress(told, &event) => EventKind::Progress,
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

/// Whether two events differ in nothing but how far the pin is.
fn is_progress(before: &PinEvent, now: &PinEvent) -> bool {
    let rest = |event: &PinEvent| {
        (event.state, event.error.clone(), event.attempts, event.next_try_at, event.expires_at)
    };
    rest(before) == rest(now)
}

/// All that an event tells, but for its rate, as a number that is the same in every process.
fn digest(event: &PinEvent) -> u64 {
    let PinProgress { blocks, bytes, total_bytes, peers } = event.progress;
    let error = event.error.as_ref().map(|failure| (failure.code.as_str(), failure.detail.as_str()));
    let times = (event.next_try_at.map(Timestamp::as_ms), event.expires_at.map(Timestamp::as_ms));
    let text = format!("{blocks} {bytes} {total_bytes:?} {peers} {error:?} {} {times:?}", event.attempts);
    let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    hash.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// What whoever knows of a pin is told when it is gone: the end that they saw, or that it is gone. Nothing in it comes
/// from anywhere but the question.
fn gone_before(seen: EventId, cid: &Cid) -> PinEvent {
    let has_failed = seen.state == PinState::Failed;
    let state = if has_failed { PinState::Failed } else { PinState::Unpinned };
    let failure = Failure::new(FailureCode::Unavailable, "It failed and was removed; nothing more is known");
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

/// Who watches, so that they are not too many.
#[derive(Default)]
pub(crate) struct Watches(Arc<Mutex<HashMap<AccountId, u32>>>);

/// The right of one to watch; given back when dropped.
struct Place {
    all: Arc<Mutex<HashMap<AccountId, u32>>>,
    account: AccountId,
}

impl Watches {
    fn take(&self, core: &Core, account: AccountId) -> Result<Place, Error> {
        let (most, most_each) = (core.settings.watches_max, core.settings.watches_per_account_max);
        let mut all = lock(&self.0);
        // As many accounts as watches at most: adding them up is quick.
        if all.values().sum::<u32>() >= most {
            return Err(Error::Unavailable { retry_after: Some(FULL_RETRY) });
        }
        let own = all.entry(account).or_default();
        if *own >= most_each {
            return Err(Error::TooManyWatches { limit: most_each, at: core.clock.now() });
        }
        *own += 1;
        Ok(Place { all: Arc::clone(&self.0), account })
    }
}

impl Drop for Place {
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
    fn an_id_reads_what_it_writes() {
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

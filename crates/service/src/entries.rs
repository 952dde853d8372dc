//! What is inside the directories that an account has pinned.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cid::Cid;
use lru::LruCache;
use pinfold_cluster::{ClusterError, Position, WalkEntry, WalkPage, WalkRequest};
use pinfold_model::{ClusterId, PinKind, PinState};
use pinfold_store::PinRecord;
use tokio::sync::Semaphore;

use crate::core::{Core, UNREACHABLE, lock, unavailable};
use crate::{Caller, Error, PinView, Pins};

/// Entries on one page.
const LIMIT_MAX: u32 = 1_000;
/// How many directories deep a listing goes, as deep as paths of uploads may be.
const DEPTH_MAX: u32 = 128;
/// How long it takes to make a page. It ends there, and the next one goes on.
const PAGE_TIME: Duration = Duration::from_secs(3);
/// How long entries are counted. What takes longer has a total that nobody knows.
const COUNT_TIME: Duration = Duration::from_secs(1);
/// Listings at one time; more wait. They read the disk, and fetches want it as well.
const LISTINGS_MAX: usize = 8;
/// Totals that are remembered: a DAG never changes, so they stay right.
const TOTALS_MAX: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// Which entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntriesQuery {
    /// The page, from 1. Ignored when there is a cursor.
    pub page: u32,
    /// Entries on a page, 1 to 1,000; others are moved to the nearer end.
    pub limit: u32,
    /// How many directories deep, 1 to 128: 1 lists what is directly inside.
    pub depth: u32,
    /// Where to go on; a page costs the same wherever it is.
    pub cursor: Option<Position>,
}

impl Default for EntriesQuery {
    fn default() -> Self {
        Self { page: 1, limit: 20, depth: DEPTH_MAX, cursor: None }
    }
}

/// A page of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntriesPage {
    /// The pin that they are in.
    pub pin: PinView,
    /// The entries, each directory before what is in it.
    pub entries: Vec<WalkEntry>,
    /// How many there are on all pages; `None` when they are too many to be counted soon.
    pub total: Option<u64>,
    /// Where the next page begins; `None` on the last. A page may have fewer entries than asked for and not be the
    /// last.
    pub next_cursor: Option<Position>,
}

/// What all listings share.
pub(crate) struct Listings {
    hands: Arc<Semaphore>,
    totals: Mutex<LruCache<(Cid, usize), u64>>,
}

impl Default for Listings {
    fn default() -> Self {
        let totals = Mutex::new(LruCache::new(TOTALS_MAX));
        Self { hands: Arc::new(Semaphore::new(LISTINGS_MAX)), totals }
    }
}

impl Pins {
    /// Lists what is inside a directory that the caller has pinned, nested directories too.
    ///
    /// # Errors
    /// [`Error::PinNotFound`] unless the caller has a pin of this root; [`Error::NotPinned`] when none of them is
    /// pinned; [`Error::InvalidRequest`] when it is no directory, or the page or cursor makes no sense;
    /// [`Error::Unavailable`] when blocks can't be read right now.
    pub async fn entries(
        &self,
        caller: &Caller,
        cid: &Cid,
        cluster: Option<&ClusterId>,
        query: EntriesQuery,
    ) -> Result<EntriesPage, Error> {
        let pin = self.pinned(caller, cid, cluster).await?;
        if pin.placement.kind == PinKind::File {
            return Err(Error::InvalidRequest("This CID is a file, not a directory".to_owned()));
        }
        let limit = query.limit.clamp(1, LIMIT_MAX);
        let skip = match query.cursor {
            Some(_) => 0,
            None => u64::from(query.page.max(1) - 1) * u64::from(limit),
        };
        let depth = query.depth.clamp(1, DEPTH_MAX) as usize;
        let is_from_start = query.cursor.is_none();
        let request = WalkRequest { from: query.cursor, skip, limit: limit as usize, depth, time: PAGE_TIME };
        let page = self.core.walk(&pin, request).await?;
        if page.passed < skip && page.next.is_some() {
            let text = "This page is too far from the first; go on with `nextCursor` instead";
            return Err(Error::InvalidRequest(text.to_owned()));
        }
        let total = match page.next {
            None if is_from_start => Some(page.passed + page.entries.len() as u64),
            Some(_) | None => self.core.total(&pin, depth).await?,
        };
        Ok(EntriesPage { pin: PinView::from(&pin), entries: page.entries, total, next_cursor: page.next })
    }

    /// A pin of this root that is pinned.
    async fn pinned(
        &self,
        caller: &Caller,
        cid: &Cid,
        cluster: Option<&ClusterId>,
    ) -> Result<PinRecord, Error> {
        let mut pins = self.core.store.pins_of_cid(caller.account.id, cid).await.map_err(unavailable)?;
        pins.retain(|pin| cluster.is_none_or(|cluster| pin.placement.cluster == *cluster));
        let state = pins.first().map(PinRecord::state).ok_or(Error::PinNotFound)?;
        pins.retain(|pin| pin.state() == PinState::Pinned);
        pins.into_iter().next().ok_or(Error::NotPinned(state))
    }
}

impl Core {
    async fn walk(self: &Arc<Self>, pin: &PinRecord, request: WalkRequest) -> Result<WalkPage, Error> {
        let (core, cluster, cid) = (Arc::clone(self), pin.placement.cluster.clone(), pin.placement.cid);
        let hand = Arc::clone(&self.listings.hands).acquire_owned().await.map_err(|_| Error::Internal)?;
        // A task of its own: a client that goes away does not free the hand before the work is done.
        let walk = self.tasks.spawn(async move {
            let setup = core.cluster(&cluster).ok_or(Error::UnknownCluster)?;
            let page = setup.driver.entries(&cid, request).await.map_err(refused);
            drop(hand);
            page
        });
        walk.await.map_err(|_| Error::Internal)?
    }

    /// How many entries there are, if that can be counted soon.
    async fn total(self: &Arc<Self>, pin: &PinRecord, depth: usize) -> Result<Option<u64>, Error> {
        let key = (pin.placement.cid, depth);
        if let Some(total) = lock(&self.listings.totals).get(&key) {
            return Ok(Some(*total));
        }
        let request = WalkRequest { from: None, skip: u64::MAX, limit: 0, depth, time: COUNT_TIME };
        let page = self.walk(pin, request).await?;
        if page.next.is_some() {
            return Ok(None);
        }
        lock(&self.listings.totals).put(key, page.passed);
        Ok(Some(page.passed))
    }
}

fn refused(error: ClusterError) -> Error {
    match error {
        ClusterError::Unfit(reason) => Error::InvalidRequest(format!("It can't be listed: {reason}")),
        ClusterError::NotFound
        | ClusterError::Stalled(_)
        | ClusterError::OverLimit
        | ClusterError::Full
        | ClusterError::Source(_)
        | ClusterError::Unavailable(_)
        | ClusterError::Stopping => {
            tracing::warn!(%error, "listing a directory");
            UNREACHABLE
        }
    }
}

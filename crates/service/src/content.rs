//! Content of pins: listing pinned directories.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cid::Cid;
use lru::LruCache;
use pinfold_cluster::{ClusterError, Position, WalkEntry, WalkPage, WalkRequest};
use pinfold_model::{ClusterId, PinKind, PinState};
use pinfold_store::PinRecord;
use tokio::sync::Semaphore;

use crate::error::{UNREACHABLE, log_store_error};
use crate::lock::lock;
use crate::pins::types::PinView;
use crate::placements::Placements;
use crate::{Caller, Error};

/// Maximum entries per page.
const LIMIT_MAX: u32 = 1_000;
/// Maximum depth of a listing, as for paths of uploads.
const DEPTH_MAX: u32 = 128;
/// Time limit of a page. The page ends there, and the next one continues.
const PAGE_TIME: Duration = Duration::from_secs(3);
/// Time limit of counting. If it takes longer, the total is unknown.
const COUNT_TIME: Duration = Duration::from_secs(1);
/// Listings at one time; more of them wait, because they read the disk that fetches need as well.
const LISTINGS_MAX: usize = 8;
/// Totals that are cached: a DAG never changes, so they stay valid.
const TOTALS_MAX: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// Which entries to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntriesQuery {
    /// Page number from 1. Ignored if there is a cursor.
    pub page: u32,
    /// Entries per page; clamped to 1 to 1,000.
    pub limit: u32,
    /// Depth of nested directories, 1 to 128: 1 lists direct entries only.
    pub depth: u32,
    /// Where to continue. A page costs the same wherever it is.
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
    /// The pin of the directory.
    pub pin: PinView,
    /// Each directory precedes its entries.
    pub entries: Vec<WalkEntry>,
    /// Number of entries on all pages; `None` if there are too many to count in time.
    pub total: Option<u64>,
    /// Where the next page begins; `None` on the last page. A page with fewer entries than requested may not be the last.
    pub next_cursor: Option<Position>,
}

/// Permits and cached totals of all listings.
struct Listings {
    permits: Arc<Semaphore>,
    totals: Mutex<LruCache<(Cid, usize), u64>>,
}

impl Default for Listings {
    fn default() -> Self {
        let totals = Mutex::new(LruCache::new(TOTALS_MAX));
        Self { permits: Arc::new(Semaphore::new(LISTINGS_MAX)), totals }
    }
}

/// The content of pins. Cheap to clone.
#[derive(Clone)]
pub struct Content {
    placements: Arc<Placements>,
    listings: Arc<Listings>,
}

impl Content {
    pub(crate) fn new(placements: Arc<Placements>) -> Self {
        Self { placements, listings: Arc::default() }
    }

    /// Lists a directory that the caller has pinned, including nested directories.
    ///
    /// # Errors
    /// [`Error::PinNotFound`] if the caller has no pin of this root; [`Error::NotPinned`] if no such pin is active;
    /// [`Error::InvalidRequest`] if it is not a directory, or the page or cursor is invalid; [`Error::Unavailable`] if
    /// blocks can't be read.
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
        let page = self.walk(&pin, request).await?;
        if page.passed < skip && page.next.is_some() {
            let text = "This page is too far from the first; use `nextCursor` instead of `page`";
            return Err(Error::InvalidRequest(text.to_owned()));
        }
        let total = match page.next {
            None if is_from_start => Some(page.passed + page.entries.len() as u64),
            Some(_) | None => self.total(&pin, depth).await?,
        };
        Ok(EntriesPage { pin: PinView::from(&pin), entries: page.entries, total, next_cursor: page.next })
    }

    /// The caller's active pin of this root.
    async fn pinned(
        &self,
        caller: &Caller,
        cid: &Cid,
        cluster: Option<&ClusterId>,
    ) -> Result<PinRecord, Error> {
        let mut pins =
            self.placements.store.pins_of_cid(caller.account.id, cid).await.map_err(log_store_error)?;
        pins.retain(|pin| cluster.is_none_or(|cluster| pin.placement.cluster == *cluster));
        let state = pins.first().map(PinRecord::state).ok_or(Error::PinNotFound)?;
        pins.retain(|pin| pin.state() == PinState::Pinned);
        pins.into_iter().next().ok_or(Error::NotPinned(state))
    }

    async fn walk(&self, pin: &PinRecord, request: WalkRequest) -> Result<WalkPage, Error> {
        let (cluster, cid) = (pin.placement.cluster.clone(), pin.placement.cid);
        let clusters = self.placements.clusters.clone();
        let permit = Arc::clone(&self.listings.permits).acquire_owned().await.map_err(|_| Error::Internal)?;
        // A task, so that the permit is held until the work is done, also if the client is gone.
        let walk = self.placements.tasks.run_to_end(async move {
            let setup = clusters.get(&cluster).ok_or(Error::UnknownCluster)?;
            let page = setup.driver.entries(&cid, request).await.map_err(refused);
            drop(permit);
            page
        });
        walk.await?
    }

    /// The number of entries, if they can be counted in time.
    async fn total(&self, pin: &PinRecord, depth: usize) -> Result<Option<u64>, Error> {
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
        ClusterError::Unfit(reason) => Error::InvalidRequest(format!("The CID can't be listed: {reason}")),
        ClusterError::NotFound
        | ClusterError::Stalled(_)
        | ClusterError::OverLimit
        | ClusterError::Full
        | ClusterError::Source(_)
        | ClusterError::Unavailable(_)
        | ClusterError::Stopping => {
            tracing::warn!(%error, "failed to list directory");
            UNREACHABLE
        }
    }
}

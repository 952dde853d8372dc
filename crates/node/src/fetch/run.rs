//! One fetch, from the first want to the sealed hold.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use futures::future::{BoxFuture, FutureExt, OptionFuture};
use libp2p::PeerId;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::search::Search;
use super::walk::{Stop, Walk, unfit};
use super::window::Window;
use super::{FetchError, FetchRequest, Fetcher, Progress};
use crate::blocks::HoldId;
use crate::exchange::{Bitswap, Closed, Delivery, Session};
use crate::{Blocks, BlocksError, HoldStats};

/// Links visited before the fetch checks for deliveries and time-outs.
const STEPS: usize = 1024;
/// New bytes after which the hold is committed, so that a restart does not fetch them again.
const COMMIT_BYTES: u64 = 64 * 1024 * 1024;
/// How long new blocks may stay uncommitted.
const COMMIT_TIME: Duration = Duration::from_secs(1);
/// The most peers counted in the progress.
const PEERS_MAX: usize = 1024;

/// Runs a fetch to its end.
pub(super) async fn fetch(
    fetcher: &Fetcher,
    request: FetchRequest,
    progress: Arc<Progress>,
) -> Result<HoldStats, FetchError> {
    let blocks = fetcher.blocks.clone();
    let held = blocks.hold(&request.hold)?.filter(|held| held.sealed);
    if let Some(held) = &held
        && !blocks.is_damaged(&request.hold)?
    {
        progress.set_held(held.stats.blocks, held.stats.bytes);
        return Ok(held.stats);
    }
    let hold = blocks.open(&request.hold)?;
    let mut run = Run {
        session: fetcher.bitswap.session(),
        bitswap: fetcher.bitswap.clone(),
        search: Search::new(fetcher.dial.clone(), fetcher.sources.clone(), &request.origins),
        walk: Some(Walk::new(blocks.clone(), hold, request.root, held.is_some())),
        window: Window::new(),
        commit: Commit::new(blocks.clone(), hold),
        walks: fetcher.walks.clone(),
        peers: HashSet::new(),
        progress_at: None,
        delivered: false,
        blocks,
        hold,
        progress,
        request,
    };
    run.fetch().await
}

/// Walks over local blocks, to the end or for one turn of [`STEPS`] links.
pub(super) async fn hold_local(
    fetcher: &Fetcher,
    request: FetchRequest,
) -> Result<Option<HoldStats>, FetchError> {
    let blocks = &fetcher.blocks;
    if let Some(held) = blocks.hold(&request.hold)?.filter(|held| held.sealed) {
        return Ok((!blocks.is_damaged(&request.hold)?).then_some(held.stats));
    }
    let hold = blocks.open(&request.hold)?;
    let mut walk = Walk::new(blocks.clone(), hold, request.root, false);
    let mut wants = Vec::new();
    if walk.advance(1, STEPS, false, &mut wants)? == Stop::Disk {
        let walked = fetcher.walks.spawn_blocking(move || {
            let stop = walk.advance(1, STEPS, true, &mut wants);
            (walk, wants, stop)
        });
        let stop;
        (walk, wants, stop) = walked.await.map_err(|_| FetchError::Stopping)?;
        stop?;
    }
    if !wants.is_empty() || !walk.is_done() {
        return Ok(None);
    }
    for block in walk.take_known() {
        blocks.put(hold, block).await?;
    }
    let (stats, limits) = (blocks.stats(hold)?, &request.limits);
    if stats.bytes > limits.bytes_max || stats.blocks > limits.blocks_max {
        let (bytes_max, blocks_max) = (limits.bytes_max, limits.blocks_max);
        return Err(FetchError::OverLimit { bytes_max, blocks_max });
    }
    Ok(Some(blocks.seal(hold).await?))
}

struct Run {
    request: FetchRequest,
    progress: Arc<Progress>,
    blocks: Arc<dyn Blocks>,
    hold: HoldId,
    bitswap: Bitswap,
    session: Session,
    search: Search,
    /// `None` only while another thread walks it.
    walk: Option<Walk>,
    window: Window,
    commit: Commit,
    walks: TaskTracker,
    peers: HashSet<PeerId>,
    /// When the last block arrived or the first one was missed; `None` while nothing is missing.
    progress_at: Option<Instant>,
    /// Whether any block arrived.
    delivered: bool,
}

impl Run {
    async fn fetch(&mut self) -> Result<HoldStats, FetchError> {
        loop {
            let stop = self.advance().await?;
            self.check_limits()?;
            let walk = self.walk()?;
            if walk.is_done() {
                break;
            }
            if walk.wanted() == 0 {
                self.progress_at = None;
                tokio::task::yield_now().await;
                continue;
            }
            let deliveries = if stop == Stop::StepLimit {
                tokio::task::yield_now().await;
                self.session.try_take()
            } else {
                self.wait().await?
            };
            self.store(deliveries).await?;
        }
        // The seal makes durable whatever the running commit would.
        self.commit.wait().await?;
        let stats = self.blocks.seal(self.hold).await?;
        self.progress.set_held(stats.blocks, stats.bytes);
        Ok(stats)
    }

    fn walk(&mut self) -> Result<&mut Walk, FetchError> {
        // It is `None` only after a panic on the other thread.
        self.walk.as_mut().ok_or(FetchError::Stopping)
    }

    /// Continues the walk, requests missing blocks, and starts a search when the first block is missed.
    async fn advance(&mut self) -> Result<Stop, FetchError> {
        let mut wants = Vec::new();
        let wanted = self.walk()?.wanted();
        let room = self.window.room(wanted);
        let mut stop = self.walk()?.advance(room, STEPS, false, &mut wants)?;
        if stop == Stop::Disk {
            let mut walk = self.walk.take().ok_or(FetchError::Stopping)?;
            let walked = self.walks.spawn_blocking(move || {
                let stop = walk.advance(room - wants.len(), STEPS, true, &mut wants);
                (walk, wants, stop)
            });
            let (walk, wanted, stopped) = walked.await.map_err(|_| FetchError::Stopping)?;
            self.walk = Some(walk);
            wants = wanted;
            stop = stopped?;
        }
        for block in self.walk()?.take_known() {
            self.commit.added(block.data().len());
            self.blocks.put(self.hold, block).await?;
        }
        if !wants.is_empty() {
            self.session.want(&wants);
            if self.progress_at.is_none() {
                self.progress_at = Some(Instant::now());
                if !self.delivered {
                    self.search.start(&self.request.root);
                }
            }
        }
        Ok(stop)
    }

    /// Waits for blocks, and meanwhile searches, commits and watches the time-outs.
    async fn wait(&mut self) -> Result<VecDeque<Delivery>, FetchError> {
        loop {
            let since = self.progress_at.unwrap_or_else(Instant::now);
            let limits = &self.request.limits;
            let timeout = if self.delivered { limits.stall_time } else { limits.find_time };
            tokio::select! {
                biased;
                taken = self.session.take() => return taken.map_err(|Closed| FetchError::Stopping),
                committed = self.commit.run() => committed?,
                () = self.search.run() => {
                    let missing = self.missing()?;
                    // Providers are more likely to announce the root than any other block.
                    let wanted = if self.search.searches().is_multiple_of(2) { self.request.root } else { missing };
                    self.search.start(&wanted);
                }
                () = tokio::time::sleep_until(since + timeout) => return Err(self.timed_out(timeout)?),
            }
        }
    }

    fn missing(&mut self) -> Result<Cid, FetchError> {
        let root = self.request.root;
        Ok(self.walk()?.missing().unwrap_or(root))
    }

    fn timed_out(&mut self, after: Duration) -> Result<FetchError, FetchError> {
        let missing = self.missing()?;
        Ok(if self.delivered {
            FetchError::Stalled { missing, after }
        } else {
            FetchError::NotFound(missing)
        })
    }

    /// Stores the delivered blocks and continues the walk from them.
    async fn store(&mut self, deliveries: VecDeque<Delivery>) -> Result<(), FetchError> {
        if deliveries.is_empty() {
            return Ok(());
        }
        let mut stored = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            let (block, peer) = match delivery {
                Delivery::Block { block, peer } => (block, peer),
                Delivery::TooLarge { cid, bytes } => {
                    return Err(unfit(&cid, format!("a block of {bytes} bytes is too large")));
                }
            };
            if !self.walk()?.arrived(&block)? {
                continue;
            }
            let bytes = block.data().len();
            stored.push(*block.cid());
            self.window.delivered(bytes);
            if self.peers.len() < PEERS_MAX {
                self.peers.insert(peer);
            }
            if self.walk()?.take_damaged(block.cid()) {
                self.blocks.repair(block).await?;
                continue;
            }
            self.blocks.put(self.hold, block).await?;
            self.commit.added(bytes);
        }
        self.bitswap.notify_stored(&stored);
        self.search.postpone();
        self.delivered = true;
        self.progress_at = Some(Instant::now());
        self.progress.set_peers(self.peers.len() as u64);
        Ok(())
    }

    fn check_limits(&self) -> Result<(), FetchError> {
        let stats = self.blocks.stats(self.hold)?;
        self.progress.set_held(stats.blocks, stats.bytes);
        let (bytes_max, blocks_max) = (self.request.limits.bytes_max, self.request.limits.blocks_max);
        if stats.bytes > bytes_max || stats.blocks > blocks_max {
            return Err(FetchError::OverLimit { bytes_max, blocks_max });
        }
        Ok(())
    }
}

/// Commits the hold from time to time while the fetch continues.
struct Commit {
    blocks: Arc<dyn Blocks>,
    hold: HoldId,
    running: OptionFuture<BoxFuture<'static, Result<HoldStats, BlocksError>>>,
    bytes: u64,
    due_at: Option<Instant>,
}

impl Commit {
    fn new(blocks: Arc<dyn Blocks>, hold: HoldId) -> Self {
        Self { blocks, hold, running: None.into(), bytes: 0, due_at: None }
    }

    /// A block of this many bytes was put.
    fn added(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        let now = Instant::now();
        let due_at = self.due_at.get_or_insert(now + COMMIT_TIME);
        if self.bytes >= COMMIT_BYTES {
            *due_at = now;
        }
    }

    /// Commits when a commit is due, one at a time. Returns after each commit. Cancel-safe.
    async fn run(&mut self) -> Result<(), FetchError> {
        if let Some(committed) = (&mut self.running).await {
            self.running = None.into();
            committed?;
            return Ok(());
        }
        match self.due_at {
            Some(due_at) => tokio::time::sleep_until(due_at).await,
            None => std::future::pending().await,
        }
        self.due_at = None;
        self.bytes = 0;
        let (blocks, hold) = (self.blocks.clone(), self.hold);
        self.running = Some(async move { blocks.commit(hold).await }.boxed()).into();
        Ok(())
    }

    /// Waits for the running commit.
    async fn wait(&mut self) -> Result<(), FetchError> {
        if let Some(committed) = (&mut self.running).await {
            self.running = None.into();
            committed?;
        }
        Ok(())
    }
}

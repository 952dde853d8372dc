//! One fetch, from its first want to the sealed hold.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use futures::future::{BoxFuture, FutureExt, OptionFuture};
use libp2p::PeerId;
use tokio::time::Instant;

use super::search::Search;
use super::walk::{Stop, Walk, unfit};
use super::window::Window;
use super::{FetchError, FetchRequest, Fetcher, Progress};
use crate::blocks::HoldId;
use crate::exchange::{Bitswap, Closed, Delivery, Session};
use crate::{Blocks, BlocksError, HoldStats};

/// Links visited before the fetch looks at its other affairs.
const STEPS: usize = 1024;
/// New bytes after which what came is made durable, so that a restart need not fetch it again.
const COMMIT_BYTES: u64 = 64 * 1024 * 1024;
/// How long new blocks may stay uncommitted.
const COMMIT_TIME: Duration = Duration::from_secs(1);
/// Peers counted in the progress.
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
        peers: HashSet::new(),
        news_at: None,
        delivered: false,
        blocks,
        hold,
        progress,
        request,
    };
    run.fetch().await
}

/// Walks over what is here, to its end or for one long turn.
pub(super) async fn hold_local(
    blocks: Arc<dyn Blocks>,
    request: FetchRequest,
) -> Result<Option<HoldStats>, FetchError> {
    if let Some(held) = blocks.hold(&request.hold)?.filter(|held| held.sealed) {
        return Ok((!blocks.is_damaged(&request.hold)?).then_some(held.stats));
    }
    let hold = blocks.open(&request.hold)?;
    let mut walk = Walk::new(blocks.clone(), hold, request.root, false);
    let mut wants = Vec::new();
    if walk.advance(1, STEPS, false, &mut wants)? == Stop::Disk {
        let walked = tokio::task::spawn_blocking(move || {
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
    for block in walk.take_given() {
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
    /// Absent only while it is walked on another thread.
    walk: Option<Walk>,
    window: Window,
    commit: Commit,
    peers: HashSet<PeerId>,
    /// When the last block came, or the first was missed; `None` while nothing is missing.
    news_at: Option<Instant>,
    /// Whether any block came.
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
                self.news_at = None;
                tokio::task::yield_now().await;
                continue;
            }
            let deliveries = if stop == Stop::Turn {
                tokio::task::yield_now().await;
                self.session.try_take()
            } else {
                self.wait().await?
            };
            self.store(deliveries).await?;
        }
        // The seal makes durable whatever a commit under way would.
        self.commit.wait().await?;
        let stats = self.blocks.seal(self.hold).await?;
        self.progress.set_held(stats.blocks, stats.bytes);
        Ok(stats)
    }

    fn walk(&mut self) -> Result<&mut Walk, FetchError> {
        // It is absent only after a panic on the other thread.
        self.walk.as_mut().ok_or(FetchError::Stopping)
    }

    /// Walks on, wants what is missing, and searches when that is news.
    async fn advance(&mut self) -> Result<Stop, FetchError> {
        let mut wants = Vec::new();
        let wanted = self.walk()?.wanted();
        let room = self.window.room(wanted);
        let mut stop = self.walk()?.advance(room, STEPS, false, &mut wants)?;
        if stop == Stop::Disk {
            let mut walk = self.walk.take().ok_or(FetchError::Stopping)?;
            let walked = tokio::task::spawn_blocking(move || {
                let stop = walk.advance(room - wants.len(), STEPS, true, &mut wants);
                (walk, wants, stop)
            });
            let (walk, wanted, stopped) = walked.await.map_err(|_| FetchError::Stopping)?;
            self.walk = Some(walk);
            wants = wanted;
            stop = stopped?;
        }
        for block in self.walk()?.take_given() {
            self.commit.added(block.data().len());
            self.blocks.put(self.hold, block).await?;
        }
        if !wants.is_empty() {
            self.session.want(&wants);
            if self.news_at.is_none() {
                self.news_at = Some(Instant::now());
                if !self.delivered {
                    self.search.begin(&self.request.root);
                }
            }
        }
        Ok(stop)
    }

    /// Waits for blocks; meanwhile searches, commits, and minds the time.
    async fn wait(&mut self) -> Result<VecDeque<Delivery>, FetchError> {
        loop {
            let since = self.news_at.unwrap_or_else(Instant::now);
            let limits = &self.request.limits;
            let patience = if self.delivered { limits.stall_time } else { limits.find_time };
            tokio::select! {
                biased;
                taken = self.session.take() => return taken.map_err(|Closed| FetchError::Stopping),
                committed = self.commit.run() => committed?,
                () = self.search.run() => {
                    let missing = self.missing()?;
                    // The whole DAG is more likely to be announced than one of its blocks.
                    let wanted = if self.search.searches().is_multiple_of(2) { self.request.root } else { missing };
                    self.search.begin(&wanted);
                }
                () = tokio::time::sleep_until(since + patience) => return Err(self.gave_up(patience)?),
            }
        }
    }

    fn missing(&mut self) -> Result<Cid, FetchError> {
        let root = self.request.root;
        Ok(self.walk()?.missing().unwrap_or(root))
    }

    fn gave_up(&mut self, after: Duration) -> Result<FetchError, FetchError> {
        let missing = self.missing()?;
        Ok(if self.delivered {
            FetchError::Stalled { missing, after }
        } else {
            FetchError::NotFound(missing)
        })
    }

    /// Stores what came and takes it into the walk.
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
        self.bitswap.arrived(&stored);
        self.search.put_off();
        self.delivered = true;
        self.news_at = Some(Instant::now());
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

/// Makes what came durable from time to time, beside the fetch.
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

    /// A block was put.
    fn added(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        let now = Instant::now();
        let due_at = self.due_at.get_or_insert(now + COMMIT_TIME);
        if self.bytes >= COMMIT_BYTES {
            *due_at = now;
        }
    }

    /// Commits when it is due, one commit at a time; returns after each. Cancel-safe.
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

    /// Waits for a commit that is running.
    async fn wait(&mut self) -> Result<(), FetchError> {
        if let Some(committed) = (&mut self.running).await {
            self.running = None.into();
            committed?;
        }
        Ok(())
    }
}

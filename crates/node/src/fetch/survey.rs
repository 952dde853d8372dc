//! A read-only survey of a DAG: how much of it is stored locally, and whether its root can be found.
//!
//! It stores no block and opens no hold. It requests only the root from the network, and only if the DAG is not complete
//! locally. The root stays in memory until the survey ends.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use cid::multihash::Multihash;
use libp2p::Multiaddr;
use tokio::time::Instant;

use super::search::Search;
use super::walk::{check, has_links, links_of, unfit};
use super::{FetchError, Fetcher};
use crate::exchange::{Closed, Delivery};
use crate::{Block, Blocks, BlocksError, dag};

/// Blocks visited between two checks of the time.
const STEPS: usize = 64;

/// What to survey, and within which limits.
#[derive(Debug, Clone)]
pub struct SurveyRequest {
    pub root: Cid,
    /// Addresses of peers that are said to have the content (`/…/p2p/ID`). Dialled if the network is used.
    pub origins: Vec<Multiaddr>,
    /// The most blocks to visit, stored or missing. Each costs some 200 bytes of memory during the survey.
    pub blocks_max: u64,
    /// The time limit, including the network. Some blocks are visited however short it is.
    pub time: Duration,
}

/// The result of a survey.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Survey {
    /// Distinct blocks that are stored locally.
    pub blocks: u64,
    /// Bytes of these blocks.
    pub bytes: u64,
    /// Distinct blocks that are linked to and not stored locally.
    pub missing: u64,
    /// Why the survey ended before all local blocks were visited; `None` if all were.
    pub cut: Option<Cut>,
    /// Where the root was found.
    pub reach: Reach,
    /// The size of the whole DAG in bytes as its root claims it, repeated blocks counted each time. Not verified.
    pub claimed_bytes: Option<u64>,
}

/// Why a survey ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The time limit was reached.
    Time,
    /// The block limit was reached.
    Blocks,
}

/// Where the root of a DAG was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reach {
    /// In the local store.
    Here,
    /// A peer delivered it.
    Delivered,
    /// Providers were found, but none delivered it in time.
    Announced {
        /// At most 256 are counted.
        providers: u64,
    },
    /// No provider was found in time.
    #[default]
    Nowhere,
}

impl Survey {
    /// Whether every block of the DAG is stored locally.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.missing == 0 && self.cut.is_none()
    }
}

/// Runs a survey.
pub(super) async fn survey(fetcher: &Fetcher, request: SurveyRequest) -> Result<Survey, FetchError> {
    let until = Instant::now() + request.time;
    let seen = visit_local(fetcher, &request, None, until).await?;
    if seen.is_whole() || Instant::now() >= until {
        return Ok(seen);
    }
    match (seen.reach, request_root(fetcher, &request, until).await?) {
        (Reach::Here, _) => Ok(seen),
        (_, Answer::Root(block)) => {
            let seen = visit_local(fetcher, &request, Some(block), until).await?;
            Ok(Survey { reach: Reach::Delivered, ..seen })
        }
        (_, Answer::Providers(0)) => Ok(seen),
        (_, Answer::Providers(providers)) => Ok(Survey { reach: Reach::Announced { providers }, ..seen }),
    }
}

enum Answer {
    Root(Block),
    Providers(u64),
}

/// Requests the root from the network until a peer delivers it or the time limit is reached.
async fn request_root(
    fetcher: &Fetcher,
    request: &SurveyRequest,
    until: Instant,
) -> Result<Answer, FetchError> {
    let session = fetcher.bitswap.session();
    session.want(&[request.root]);
    let mut search = Search::new(fetcher.dial.clone(), fetcher.sources.clone(), &request.origins);
    search.start(&request.root);
    loop {
        tokio::select! {
            biased;
            taken = session.take() => {
                match taken.map_err(|Closed| FetchError::Stopping)?.pop_front() {
                    Some(Delivery::Block { block, .. }) => return Ok(Answer::Root(block)),
                    Some(Delivery::TooLarge { cid, bytes }) => {
                        return Err(unfit(&cid, format!("a block of {bytes} bytes is too large")));
                    }
                    None => {}
                }
            }
            () = search.run() => search.start(&request.root),
            () = tokio::time::sleep_until(until) => return Ok(Answer::Providers(search.found())),
        }
    }
}

/// Stops the blocking thread when the survey's future is dropped.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn visit_local(
    fetcher: &Fetcher,
    request: &SurveyRequest,
    root: Option<Block>,
    until: Instant,
) -> Result<Survey, FetchError> {
    let stop = StopOnDrop(Arc::default());
    let traversal = Traversal {
        blocks: fetcher.blocks.clone(),
        blocks_max: usize::try_from(request.blocks_max).unwrap_or(usize::MAX).max(1),
        delivered_root: root,
        seen: HashSet::new(),
        counted: HashSet::new(),
        todo: Vec::new(),
        survey: Survey::default(),
        stop: Arc::clone(&stop.0),
        until,
    };
    let root = request.root;
    let survey = fetcher.walks.spawn_blocking(move || traversal.run(root));
    survey.await.map_err(|_| FetchError::Stopping)?
}

/// The traversal of the local blocks.
struct Traversal {
    blocks: Arc<dyn Blocks>,
    blocks_max: usize,
    /// The root, if a peer delivered it.
    delivered_root: Option<Block>,
    /// All CIDs that were ever added to `todo`.
    seen: HashSet<Cid>,
    /// Counted blocks: CIDs that differ only in version or codec are one block.
    counted: HashSet<Multihash<64>>,
    todo: Vec<(Cid, u32)>,
    survey: Survey,
    stop: Arc<AtomicBool>,
    until: Instant,
}

impl Traversal {
    fn run(mut self, root: Cid) -> Result<Survey, FetchError> {
        self.seen.insert(root);
        self.todo.push((root, 0));
        let mut steps = 0;
        while let Some((cid, depth)) = self.todo.pop() {
            steps += 1;
            if steps % STEPS == 0 && (Instant::now() >= self.until || self.stop.load(Ordering::Relaxed)) {
                self.survey.cut = Some(Cut::Time);
                break;
            }
            check(&cid, depth)?;
            let Some(block) = self.visit(&cid, depth == 0)? else { continue };
            if depth == 0 {
                self.survey.claimed_bytes = claimed_bytes(&block);
            }
            for link in links_of(&block)? {
                if self.seen.len() >= self.blocks_max && !self.seen.contains(&link) {
                    self.survey.cut = Some(Cut::Blocks);
                    break;
                }
                if self.seen.insert(link) {
                    self.todo.push((link, depth + 1));
                }
            }
        }
        Ok(self.survey)
    }

    /// Counts a block as stored or missing, and returns it if its links are to be visited.
    fn visit(&mut self, cid: &Cid, is_root: bool) -> Result<Option<Block>, FetchError> {
        if let Some(block) = Block::inline(cid) {
            self.reach(is_root);
            return Ok(Some(block));
        }
        let here = match self.blocks.size(cid)? {
            Some(bytes) => Some(bytes),
            // The content of the empty block is known.
            None => Block::verify(*cid, Bytes::new()).is_ok().then_some(0),
        };
        let Some(bytes) = here else {
            self.count(cid, None);
            return Ok(self.delivered_root.take().filter(|_| is_root));
        };
        if !has_links(cid) && !is_root {
            self.count(cid, Some(bytes));
            return Ok(None);
        }
        let block = match self.blocks.get(cid) {
            Ok(Some(block)) => Some(block),
            // It was released in the meantime, or is the empty block.
            Ok(None) => Block::verify(*cid, Bytes::new()).ok(),
            Err(BlocksError::Damaged(_)) => None,
            Err(error) => return Err(error.into()),
        };
        self.count(cid, block.as_ref().map(|_| bytes));
        if block.is_some() {
            self.reach(is_root);
        }
        Ok(block)
    }

    fn reach(&mut self, is_root: bool) {
        if is_root {
            self.survey.reach = Reach::Here;
        }
    }

    /// Counts a stored block of this many bytes, or a missing one.
    fn count(&mut self, cid: &Cid, here: Option<u64>) {
        if !self.counted.insert(*cid.hash()) {
            return;
        }
        match here {
            Some(bytes) => {
                self.survey.blocks += 1;
                self.survey.bytes += bytes;
            }
            None => self.survey.missing += 1,
        }
    }
}

/// The bytes of a block and everything below it, if it claims a size for each link.
fn claimed_bytes(block: &Block) -> Option<u64> {
    let links = dag::links(block).ok()?;
    let own = block.data().len() as u64;
    links.iter().try_fold(own, |sum, link| Some(sum.saturating_add(link.size_hint?)))
}

//! A look at a DAG that touches nothing: how much of it is here, and whether anybody has its root.
//!
//! It keeps no block and opens no hold. Of the network it asks for the root alone, and only if the DAG is not whole
//! here; what comes stays in memory until the look ends.

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

/// Blocks visited between two looks at the time.
const STEPS: usize = 64;

/// What to look at, and within which bounds.
#[derive(Debug, Clone)]
pub struct SurveyRequest {
    /// The root of the DAG.
    pub root: Cid,
    /// Peers that are said to have the content (`/…/p2p/ID`); dialled if the network is asked.
    pub origins: Vec<Multiaddr>,
    /// The most blocks to visit, here or missing; each costs some 200 bytes of memory until the look ends.
    pub blocks_max: u64,
    /// How long it may take, the network included. However short it is, some blocks are visited.
    pub time: Duration,
}

/// What was seen of a DAG.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Survey {
    /// Distinct blocks of it that are here.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Distinct blocks that are linked to and are not here.
    pub missing: u64,
    /// Why the look ended before all that is here was visited; `None` if all was.
    pub cut: Option<Cut>,
    /// Where the root is.
    pub reach: Reach,
    /// The bytes of the whole DAG as its root claims them, repeated blocks counted each time. Not to be trusted.
    pub claimed_bytes: Option<u64>,
}

/// Why a look at a DAG ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The time was over.
    Time,
    /// As many blocks were visited as it may be.
    Blocks,
}

/// Where the root of a DAG is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reach {
    /// Here.
    Here,
    /// A peer has sent it.
    Delivered,
    /// So many peers are said to have it, but none has sent it in time.
    Announced {
        /// How many; no more than 256 are counted.
        providers: u64,
    },
    /// Nobody was found in time.
    #[default]
    Nowhere,
}

impl Survey {
    /// Whether every block of it is here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.missing == 0 && self.cut.is_none()
    }
}

/// Looks at a DAG.
pub(super) async fn survey(fetcher: &Fetcher, request: SurveyRequest) -> Result<Survey, FetchError> {
    let until = Instant::now() + request.time;
    let seen = look(fetcher, &request, None, until).await?;
    if seen.is_whole() || Instant::now() >= until {
        return Ok(seen);
    }
    match (seen.reach, ask(fetcher, &request, until).await?) {
        (Reach::Here, _) => Ok(seen),
        (_, Answer::Root(block)) => {
            let seen = look(fetcher, &request, Some(block), until).await?;
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

/// Asks the network for the root until somebody sends it, or the time is over.
async fn ask(fetcher: &Fetcher, request: &SurveyRequest, until: Instant) -> Result<Answer, FetchError> {
    let session = fetcher.bitswap.session();
    session.want(&[request.root]);
    let mut search = Search::new(fetcher.dial.clone(), fetcher.sources.clone(), &request.origins);
    search.begin(&request.root);
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
            () = search.run() => search.begin(&request.root),
            () = tokio::time::sleep_until(until) => return Ok(Answer::Providers(search.found())),
        }
    }
}

/// Tells the thread that looks to stop, once nobody waits for it any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn look(
    fetcher: &Fetcher,
    request: &SurveyRequest,
    root: Option<Block>,
    until: Instant,
) -> Result<Survey, FetchError> {
    let stop = StopOnDrop(Arc::default());
    let look = Look {
        blocks: fetcher.blocks.clone(),
        blocks_max: usize::try_from(request.blocks_max).unwrap_or(usize::MAX).max(1),
        given: root,
        seen: HashSet::new(),
        counted: HashSet::new(),
        todo: Vec::new(),
        survey: Survey::default(),
        stop: Arc::clone(&stop.0),
        until,
    };
    let root = request.root;
    let looked = tokio::task::spawn_blocking(move || look.run(root));
    looked.await.map_err(|_| FetchError::Stopping)?
}

/// A look under way.
struct Look {
    blocks: Arc<dyn Blocks>,
    blocks_max: usize,
    /// The root, if it came from elsewhere.
    given: Option<Block>,
    /// All that was put on the list.
    seen: HashSet<Cid>,
    /// What was counted: CIDs that differ in version or codec alone are one block.
    counted: HashSet<Multihash<64>>,
    todo: Vec<(Cid, u32)>,
    survey: Survey,
    stop: Arc<AtomicBool>,
    until: Instant,
}

impl Look {
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

    /// Counts a block as here or missing, and gives it if it is to be walked into.
    fn visit(&mut self, cid: &Cid, is_root: bool) -> Result<Option<Block>, FetchError> {
        if let Some(block) = Block::inline(cid) {
            self.reach(is_root);
            return Ok(Some(block));
        }
        let here = match self.blocks.size(cid)? {
            Some(bytes) => Some(bytes),
            // The empty block is known to everybody.
            None => Block::verify(*cid, Bytes::new()).is_ok().then_some(0),
        };
        let Some(bytes) = here else {
            self.count(cid, None);
            return Ok(self.given.take().filter(|_| is_root));
        };
        if !has_links(cid) && !is_root {
            self.count(cid, Some(bytes));
            return Ok(None);
        }
        let block = match self.blocks.get(cid) {
            Ok(Some(block)) => Some(block),
            // It was released meanwhile, or is the empty one.
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

    /// Counts a block of so many bytes that is here, or one that is missing.
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

/// What a block and all below it have, if it says so of each link.
fn claimed_bytes(block: &Block) -> Option<u64> {
    let links = dag::links(block).ok()?;
    let own = block.data().len() as u64;
    links.iter().try_fold(own, |sum, link| Some(sum.saturating_add(link.size_hint?)))
}

//! Lists a directory recursively, page by page.
//!
//! The traversal enters each directory where it occurs. It has a stack of *levels*, one for each directory or shard on the
//! path; a [`Position`] is the number of links passed at each level. A DAG never changes, so a position stays valid, and
//! continuing from it reads as many blocks as it has levels.
//!
//! The DAG may be hostile: shared subdirectories that occur exponentially often, blocks with tens of thousands of links or
//! with names of megabytes, very deep trees, wrong sizes. Therefore the blocks read and the time spent are bounded for each
//! page, and so are the levels, the memory, and the bytes of a page. A page that reaches a limit ends there, and the next
//! page continues.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use cid::Cid;

use super::ReadError;
use super::message::{Data, TYPE_DIRECTORY, TYPE_FILE, TYPE_RAW, TYPE_SHARD};
use crate::dag::pb::PbNode;
use crate::dag::{DAG_PB, LINKS_MAX, RAW};
use crate::{Block, Blocks};

/// Blocks read for one page: some seconds on a slow disk.
const NODES_MAX: usize = 20_000;
/// The maximum number of levels. Deeper directories are listed but not entered. A position has one number for each level.
const LEVELS_MAX: usize = 256;
/// Memory of decoded nodes besides the current one. Nodes further up are dropped and read again.
const LOADED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The maximum length in bytes of the path of a directory that is entered, as in most file systems.
const PATH_BYTES_MAX: usize = 4_096;
/// Bytes of all paths of a page, unless its first path is longer.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Links passed between two checks of the time.
const LINKS_A_LOOK: u64 = 1_024;
/// The memory of a link besides its name.
const LINK_BYTES: usize = size_of::<Link>();

/// A position in a listing: the number of links passed at each level, from the root down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position(Vec<u32>);

/// The text is not a valid [`Position`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a position is 1 to {LEVELS_MAX} numbers separated by dots")]
pub struct PositionError;

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, number) in self.0.iter().enumerate() {
            let point = if at == 0 { "" } else { "." };
            write!(f, "{point}{number}")?;
        }
        Ok(())
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let number = |part: &str| {
            let plain = (1..=5).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| part.parse().ok()).flatten().filter(|number| *number as usize <= LINKS_MAX)
        };
        let numbers: Option<Vec<u32>> = text.split('.').take(LEVELS_MAX + 1).map(number).collect();
        numbers.filter(|numbers| numbers.len() <= LEVELS_MAX).map(Self).ok_or(PositionError)
    }
}

/// The requested part of a listing.
#[derive(Debug, Clone)]
pub struct WalkRequest {
    /// The position from which to continue; `None` for the start.
    pub from: Option<Position>,
    /// Entries to skip first.
    pub skip: u64,
    /// The maximum number of entries; with 0, skipped entries are only counted.
    pub limit: usize,
    /// The maximum depth: 1 lists only direct children.
    pub depth: usize,
    /// The time limit.
    pub time: Duration,
}

/// The type of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File,
    /// A directory, plain or sharded.
    Directory,
    /// A symbolic link, metadata, or not UnixFS.
    Other,
}

/// An entry of a recursive listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkEntry {
    /// The path from the root: valid UTF-8, otherwise unrestricted.
    pub path: String,
    pub cid: Cid,
    pub kind: EntryKind,
    /// The size of a file's content as its root claims it; `None` if the root contradicts itself, and for other types.
    pub size_bytes: Option<u64>,
}

/// A part of a listing. A directory precedes its contents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalkPage {
    pub entries: Vec<WalkEntry>,
    /// The number of skipped entries.
    pub passed: u64,
    /// The position of the next page; `None` at the end. A page that reached a limit has fewer entries than requested.
    pub next: Option<Position>,
}

/// Lists a directory recursively. Reads from the disk: async callers run it where blocking is allowed.
///
/// # Errors
/// Any [`ReadError`].
pub fn walk_directory(blocks: &dyn Blocks, root: &Cid, request: &WalkRequest) -> Result<WalkPage, ReadError> {
    let mut walk = Walk::begin(blocks, root, request)?;
    let mut page = WalkPage::default();
    let mut page_bytes = 0;
    while walk.find()? {
        if page.passed < request.skip {
            walk.take(false)?;
            page.passed += 1;
            continue;
        }
        let is_full = page.entries.len() >= request.limit || page_bytes >= PAGE_BYTES_MAX;
        if is_full {
            walk.is_stopped = true;
            break;
        }
        if let Some(entry) = walk.take(true)? {
            page_bytes += entry.path.len();
            page.entries.push(entry);
        }
    }
    page.next = walk.is_stopped.then(|| walk.position());
    Ok(page)
}

/// A link of a directory or shard.
struct Link {
    cid: Cid,
    /// `None` for a link to a shard of the same directory.
    name: Option<Box<str>>,
}

/// A directory or shard on the path.
struct Level {
    cid: Cid,
    /// Whether it is a shard of the directory above it.
    is_inner: bool,
    /// The depth of its entries.
    depth: usize,
    /// The length of the path up to it.
    path_length: usize,
    /// The number of links passed.
    behind: usize,
    /// `None` if the links were dropped from memory.
    links: Option<Vec<Link>>,
}

struct Walk<'a> {
    blocks: &'a dyn Blocks,
    depth_max: usize,
    until: Instant,
    levels: Vec<Level>,
    /// The path of the directory of the last level.
    path: String,
    loaded_bytes: usize,
    nodes: usize,
    links: u64,
    is_stopped: bool,
}

impl<'a> Walk<'a> {
    /// A traversal at the start of the request.
    fn begin(blocks: &'a dyn Blocks, root: &Cid, request: &WalkRequest) -> Result<Self, ReadError> {
        let mut walk = Self {
            blocks,
            depth_max: request.depth,
            until: Instant::now() + request.time,
            levels: Vec::new(),
            path: String::new(),
            loaded_bytes: 0,
            nodes: 0,
            links: 0,
            is_stopped: false,
        };
        walk.enter(*root, false, 1, None)?;
        let position = request.from.as_ref().map_or(&[][..], |position| &position.0);
        for (at, behind) in position.iter().enumerate() {
            walk.restore_level(*behind as usize, at + 1 < position.len())?;
        }
        Ok(walk)
    }

    /// Sets the number of links passed at the last level, and enters the last passed link if there are more levels.
    fn restore_level(&mut self, behind: usize, enters: bool) -> Result<(), ReadError> {
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        let (root, links) = (level.cid, level.links.as_deref().unwrap_or_default());
        let lost = ReadError::Position(root);
        if behind > links.len() {
            return Err(lost);
        }
        level.behind = behind;
        if !enters {
            return Ok(());
        }
        let Some(Link { cid, name }) = behind.checked_sub(1).and_then(|at| links.get(at)) else {
            return Err(lost);
        };
        let (cid, is_inner, depth) = (*cid, name.is_none(), level.depth + usize::from(name.is_some()));
        if let Some(name) = name {
            push(&mut self.path, name);
        }
        match self.enter(cid, is_inner, depth, None) {
            Err(ReadError::Kind { .. }) => Err(lost),
            entered => entered,
        }
    }

    fn position(&self) -> Position {
        Position(self.levels.iter().map(|level| u32::try_from(level.behind).unwrap_or(u32::MAX)).collect())
    }

    /// Advances to the next entry without returning it; false at the end, or when a limit was reached.
    fn find(&mut self) -> Result<bool, ReadError> {
        loop {
            if self.is_over() && !self.levels.is_empty() {
                self.is_stopped = true;
                return Ok(false);
            }
            self.load_last()?;
            let Some(level) = self.levels.last_mut() else { return Ok(false) };
            match level.links.as_deref().unwrap_or_default().get(level.behind) {
                None => self.leave(),
                Some(Link { name: Some(_), .. }) => return Ok(true),
                Some(Link { cid, name: None }) => {
                    let (cid, depth) = (*cid, level.depth);
                    if self.levels.len() == LEVELS_MAX {
                        return Err(ReadError::TooLarge(cid));
                    }
                    self.pass_link();
                    self.enter(cid, true, depth, None)?;
                }
            }
        }
    }

    /// Returns the entry to which [`find`](Self::find) advanced, and enters it if it is a directory.
    fn take(&mut self, is_wanted: bool) -> Result<Option<WalkEntry>, ReadError> {
        let Some(level) = self.levels.last() else { return Ok(None) };
        let Some(Link { cid, name }) = level.links.as_deref().unwrap_or_default().get(level.behind) else {
            return Ok(None);
        };
        let (cid, depth) = (*cid, level.depth);
        let mut path = self.path.clone();
        push(&mut path, name.as_deref().unwrap_or_default());
        self.pass_link();
        let (kind, size_bytes, block) = self.inspect(&cid, is_wanted)?;
        let is_entered = kind == EntryKind::Directory
            && depth < self.depth_max
            && self.levels.len() < LEVELS_MAX
            && path.len() <= PATH_BYTES_MAX;
        if is_entered {
            self.path.clone_from(&path);
            self.enter(cid, false, depth + 1, block)?;
        }
        Ok(is_wanted.then_some(WalkEntry { path, cid, kind, size_bytes }))
    }

    /// The type of an entry, and its block if that had to be read.
    fn inspect(
        &mut self,
        cid: &Cid,
        is_wanted: bool,
    ) -> Result<(EntryKind, Option<u64>, Option<Block>), ReadError> {
        match cid.codec() {
            RAW if !is_wanted => Ok((EntryKind::File, None, None)),
            RAW => {
                let inline = || Block::inline(cid).map(|block| block.data().len() as u64);
                Ok((EntryKind::File, self.blocks.size(cid)?.or_else(inline), None))
            }
            DAG_PB => {
                let block = self.read(cid)?;
                let node =
                    PbNode::decode(block.data()).map_err(|error| ReadError::Node { cid: *cid, error })?;
                let (kind, size_bytes) = kind_of(&node);
                Ok((kind, size_bytes, Some(block)))
            }
            _ => Ok((EntryKind::Other, None, None)),
        }
    }

    fn read(&mut self, cid: &Cid) -> Result<Block, ReadError> {
        self.nodes += 1;
        match Block::inline(cid) {
            Some(block) => Ok(block),
            None => self.blocks.get(cid)?.ok_or(ReadError::Missing(*cid)),
        }
    }

    fn pass_link(&mut self) {
        self.links += 1;
        if let Some(level) = self.levels.last_mut() {
            level.behind += 1;
        }
    }

    /// Whether a limit is reached. Each page advances by at least one link.
    fn is_over(&self) -> bool {
        let looks = self.links % LINKS_A_LOOK == 1;
        self.links > 0
            && (self.nodes >= NODES_MAX || (looks || self.nodes > 0) && Instant::now() >= self.until)
    }

    /// Pushes a level below the last one.
    fn enter(
        &mut self,
        cid: Cid,
        is_inner: bool,
        depth: usize,
        block: Option<Block>,
    ) -> Result<(), ReadError> {
        let block = match block {
            Some(block) => block,
            None => self.read(&cid)?,
        };
        let links = links_of(&block, is_inner)?;
        self.loaded_bytes += bytes_of(&links);
        let (path_length, links) = (self.path.len(), Some(links));
        self.levels.push(Level { cid, is_inner, depth, path_length, behind: 0, links });
        self.drop_links();
        Ok(())
    }

    fn leave(&mut self) {
        if let Some(level) = self.levels.pop() {
            self.loaded_bytes -= level.links.as_deref().map_or(0, bytes_of);
        }
        self.path.truncate(self.levels.last().map_or(0, |level| level.path_length));
    }

    /// Reads the links of the last level again if they were dropped.
    fn load_last(&mut self) -> Result<(), ReadError> {
        let Some(level) = self.levels.last().filter(|level| level.links.is_none()) else { return Ok(()) };
        let (cid, is_inner) = (level.cid, level.is_inner);
        let links = links_of(&self.read(&cid)?, is_inner)?;
        self.loaded_bytes += bytes_of(&links);
        if let Some(level) = self.levels.last_mut() {
            level.links = Some(links);
        }
        self.drop_links();
        Ok(())
    }

    /// Drops links beyond the memory limit, those furthest up first.
    fn drop_links(&mut self) {
        let above = self.levels.len().saturating_sub(1);
        for level in &mut self.levels[..above] {
            if self.loaded_bytes <= LOADED_BYTES_MAX {
                return;
            }
            self.loaded_bytes -= level.links.take().as_deref().map_or(0, bytes_of);
        }
    }
}

fn push(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('/');
    }
    path.push_str(name);
}

fn bytes_of(links: &[Link]) -> usize {
    links.iter().map(|link| LINK_BYTES + link.name.as_deref().map_or(0, str::len)).sum()
}

/// The links of a directory or shard.
fn links_of(block: &Block, is_inner: bool) -> Result<Vec<Link>, ReadError> {
    let cid = *block.cid();
    let none = || ReadError::Kind { cid, wanted: "a directory" };
    if cid.codec() != DAG_PB {
        return Err(none());
    }
    let node = PbNode::decode(block.data()).map_err(|error| ReadError::Node { cid, error })?;
    let prefix = match Data::of(&node) {
        Some(Data { kind: TYPE_DIRECTORY, .. }) if !is_inner => 0,
        Some(Data { kind: TYPE_SHARD, fanout: Some(fanout), .. }) => {
            super::read::shard_prefix(fanout).ok_or_else(none)?
        }
        Some(_) | None => return Err(none()),
    };
    let link = |link: &crate::dag::pb::PbLink<'_>| {
        let name = link.name.unwrap_or_default().get(prefix..).ok_or_else(none)?;
        let is_shard = prefix > 0 && name.is_empty();
        Ok(Link { cid: link.cid, name: (!is_shard).then(|| name.into()) })
    };
    node.links.iter().map(link).collect()
}

/// The type of a node, and the size of a file unless its parts contradict it.
fn kind_of(node: &PbNode<'_>) -> (EntryKind, Option<u64>) {
    match Data::of(node) {
        Some(Data { kind: TYPE_FILE | TYPE_RAW, data, file_size, block_sizes, .. }) => {
            let inline = data.map_or(0, |data| data.len() as u64);
            let sum = block_sizes.iter().try_fold(inline, |sum, size| sum.checked_add(*size));
            let sum = sum.filter(|_| block_sizes.len() == node.links.len());
            (EntryKind::File, sum.filter(|sum| file_size.is_none_or(|size| size == *sum)))
        }
        Some(Data { kind: TYPE_DIRECTORY | TYPE_SHARD, .. }) => (EntryKind::Directory, None),
        Some(_) | None => (EntryKind::Other, None),
    }
}

#[cfg(test)]
mod tests;

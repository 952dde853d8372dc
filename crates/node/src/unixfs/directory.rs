//! Directories: one node with all links, or a tree of shards (HAMT) if there are too many.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;

use super::message::Data;
use super::murmur::murmur3;
use super::profile::DirectorySize;
use super::{ImportError, Imported, Profile};
use crate::dag::pb::{PbLink, PbNode};
use crate::{Block, Blocks, HoldId};

/// The maximum nesting of directories.
pub const PATH_DEPTH_MAX: usize = 128;
/// The maximum length of a name in bytes, as in most file systems.
const NAME_BYTES_MAX: usize = 255;
/// Children of one shard.
const FANOUT: usize = 256;

/// Builds a directory from imported files and directories.
#[derive(Debug, Default)]
pub struct DirectoryBuilder {
    entries: BTreeMap<String, Node>,
}

#[derive(Debug)]
enum Node {
    Leaf(Imported),
    Directory(DirectoryBuilder),
}

/// A child of a directory that is being written.
struct Child {
    name: String,
    imported: Imported,
}

/// The blocks of a directory, children before parents.
type Nodes = Vec<Block>;

impl DirectoryBuilder {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an imported file or directory at a path such as `docs/a.txt`. Creates missing parent directories.
    ///
    /// # Errors
    /// [`ImportError::Path`], [`ImportError::Conflict`].
    pub fn insert(&mut self, path: &str, imported: Imported) -> Result<(), ImportError> {
        let (parent, name) = self.parent(path)?;
        match parent.entries.entry(name.to_owned()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Node::Leaf(imported));
                Ok(())
            }
            Entry::Occupied(_) => Err(ImportError::Conflict(path.to_owned())),
        }
    }

    /// Adds a directory, unless it exists.
    ///
    /// # Errors
    /// [`ImportError::Path`], [`ImportError::Conflict`].
    pub fn insert_directory(&mut self, path: &str) -> Result<(), ImportError> {
        let (parent, name) = self.parent(path)?;
        parent.directory(name).map(|_| ()).ok_or_else(|| ImportError::Conflict(path.to_owned()))
    }

    /// The parent directory of a path, and the last part of the path.
    fn parent<'a>(&mut self, path: &'a str) -> Result<(&mut Self, &'a str), ImportError> {
        let is_name = |part: &str| {
            !matches!(part, "" | "." | "..") && part.len() <= NAME_BYTES_MAX && !part.contains('\0')
        };
        if path.split('/').count() > PATH_DEPTH_MAX || !path.split('/').all(is_name) {
            return Err(ImportError::Path(path.to_owned()));
        }
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut at = self;
        for part in parents.split('/').filter(|part| !part.is_empty()) {
            at = at.directory(part).ok_or_else(|| ImportError::Conflict(path.to_owned()))?;
        }
        Ok((at, name))
    }

    fn directory(&mut self, name: &str) -> Option<&mut Self> {
        let node = self.entries.entry(name.to_owned()).or_insert_with(|| Node::Directory(Self::new()));
        match node {
            Node::Directory(directory) => Some(directory),
            Node::Leaf(_) => None,
        }
    }

    /// Imports the directory tree into `hold`. The caller commits or seals the hold.
    ///
    /// # Errors
    /// [`ImportError::Blocks`], [`ImportError::Block`], [`ImportError::Collision`].
    pub async fn import(
        self,
        profile: Profile,
        blocks: &dyn Blocks,
        hold: HoldId,
    ) -> Result<Imported, ImportError> {
        let (nodes, imported) = self.build(&profile)?;
        for node in nodes {
            blocks.put(hold, node).await?;
        }
        Ok(imported)
    }

    pub(super) fn build(self, profile: &Profile) -> Result<(Nodes, Imported), ImportError> {
        let mut nodes = Vec::new();
        let imported = self.write(profile, &mut nodes)?;
        Ok((nodes, imported))
    }

    /// Recurses at most [`PATH_DEPTH_MAX`] levels deep.
    fn write(self, profile: &Profile, nodes: &mut Nodes) -> Result<Imported, ImportError> {
        let mut children = Vec::with_capacity(self.entries.len());
        for (name, node) in self.entries {
            let imported = match node {
                Node::Leaf(imported) => imported,
                Node::Directory(directory) => directory.write(profile, nodes)?,
            };
            children.push(Child { name, imported });
        }
        let size_bytes = children.iter().map(|child| child.imported.size_bytes).sum();
        let links_bytes: usize =
            children.iter().map(|child| child.name.len() + child.imported.root.encoded_len()).sum();
        // A link takes more bytes in the block than its name and CID, so the block would be larger still.
        if links_bytes > Profile::DIRECTORY_BYTES_MAX {
            return shard(profile, children, nodes).map(|sharded| Imported { size_bytes, ..sharded });
        }
        let links = children.iter().map(|child| link(&child.name, &child.imported)).collect();
        let bytes = PbNode { links, data: Some(&Data::directory().bytes()) }.encode();
        let is_sharded =
            profile.directory_size() == DirectorySize::Block && bytes.len() > Profile::DIRECTORY_BYTES_MAX;
        if is_sharded {
            return shard(profile, children, nodes).map(|sharded| Imported { size_bytes, ..sharded });
        }
        let below = children.iter().map(|child| child.imported.dag_bytes).sum::<u64>();
        finish(profile, bytes, below, size_bytes, nodes)
    }
}

fn link<'a>(name: &'a str, imported: &Imported) -> PbLink<'a> {
    PbLink { cid: imported.root, name: Some(name), tsize: Some(imported.dag_bytes) }
}

fn finish(
    profile: &Profile,
    bytes: Vec<u8>,
    below: u64,
    size_bytes: u64,
    nodes: &mut Nodes,
) -> Result<Imported, ImportError> {
    let dag_bytes = bytes.len() as u64 + below;
    let block = profile.node(bytes.into())?;
    let imported = Imported { root: *block.cid(), size_bytes, dag_bytes };
    nodes.push(block);
    Ok(imported)
}

fn shard(profile: &Profile, children: Vec<Child>, nodes: &mut Nodes) -> Result<Imported, ImportError> {
    let mut hashed: Vec<_> =
        children.into_iter().map(|child| (murmur3(child.name.as_bytes()).to_be_bytes(), child)).collect();
    hashed.sort_unstable_by_key(|(hash, _)| *hash);
    shard_level(profile, &hashed, 0, nodes)
}

/// One shard: children whose hashes share `depth` bytes, placed by the next byte. Recurses at most 8 levels deep.
fn shard_level(
    profile: &Profile,
    hashed: &[([u8; 8], Child)],
    depth: usize,
    nodes: &mut Nodes,
) -> Result<Imported, ImportError> {
    if depth == 8 {
        return Err(ImportError::Collision);
    }
    let mut bitfield = [0_u8; FANOUT / 8];
    let mut named = Vec::new();
    for group in hashed.chunk_by(|(a, _), (b, _)| a[depth] == b[depth]) {
        let [(hash, first), ..] = group else { continue };
        let place = usize::from(hash[depth]);
        bitfield[FANOUT / 8 - 1 - place / 8] |= 1 << (place % 8);
        named.push(match group.len() {
            1 => (format!("{place:02X}{}", first.name), first.imported),
            _ => (format!("{place:02X}"), shard_level(profile, group, depth + 1, nodes)?),
        });
    }
    let zeros = bitfield.iter().take_while(|byte| **byte == 0).count();
    let message = Data::shard(Bytes::copy_from_slice(&bitfield[zeros..]), FANOUT as u64);
    let links = named.iter().map(|(name, imported)| link(name, imported)).collect();
    let bytes = PbNode { links, data: Some(&message.bytes()) }.encode();
    let below = named.iter().map(|(_, imported)| imported.dag_bytes).sum::<u64>();
    finish(profile, bytes, below, 0, nodes)
}

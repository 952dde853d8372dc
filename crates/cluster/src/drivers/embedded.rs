//! The driver for the node in this process.

use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;
use pinfold_node::car::import::{ImportCarError, ImportedCar, import_car};
use pinfold_node::swarm::AGENT;
use pinfold_node::unixfs::{self, DirectoryBuilder, ImportError, Kind, Profile, ReadError};
use pinfold_node::{
    Block, BlocksError, FetchError, FetchLimits, FetchRequest, HoldId, HoldName, Node, Progress,
    SurveyRequest,
};

use super::limited::Limited;
use crate::{
    Body, Cluster, ClusterError, Distinct, Held, HoldOptions, Imported, ImportedKind, PeerInfo, Survey,
    SurveyOptions, Usage, WalkPage, WalkRequest,
};

/// Holds DAGs in the block store of a [`Node`], and fetches them through it.
#[derive(Debug, Clone)]
pub struct Embedded {
    node: Node,
    profile: Profile,
}

impl Embedded {
    /// A cluster of this node. Uploads are imported with this profile.
    #[must_use]
    pub fn new(node: Node, profile: Profile) -> Self {
        Self { node, profile }
    }

    /// Runs work that may block on the disk on a blocking thread.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Node) -> Result<T, BlocksError> + Send + 'static,
    ) -> Result<T, ClusterError> {
        let node = self.node.clone();
        let done = tokio::task::spawn_blocking(move || work(&node)).await;
        Ok(done.map_err(|_| ClusterError::Stopping)??)
    }

    async fn kind(&self, root: &Cid) -> Result<ImportedKind, ClusterError> {
        let root = *root;
        let block = self.blocking(move |node| load(node, &root)).await?;
        Ok(match block.map(|block| unixfs::kind(&block)) {
            Some(Kind::File { .. }) => ImportedKind::File,
            Some(Kind::Directory) => ImportedKind::Directory,
            Some(Kind::Other) | None => ImportedKind::Other,
        })
    }
}

fn request(name: &HoldName, root: &Cid, options: &HoldOptions) -> FetchRequest {
    FetchRequest {
        root: *root,
        hold: name.clone(),
        origins: addresses(&options.origins),
        limits: FetchLimits {
            bytes_max: options.bytes_max,
            blocks_max: options.blocks_max,
            find_time: options.find_time,
            stall_time: options.stall_time,
        },
    }
}

fn addresses<A: FromStr>(origins: &[String]) -> Vec<A> {
    origins.iter().filter_map(|origin| origin.parse().ok()).collect()
}

fn load(node: &Node, cid: &Cid) -> Result<Option<Block>, BlocksError> {
    match Block::inline(cid) {
        Some(block) => Ok(Some(block)),
        None => node.blocks().get(cid),
    }
}

#[async_trait]
impl Cluster for Embedded {
    async fn hold(
        &self,
        name: &HoldName,
        root: &Cid,
        options: &HoldOptions,
        progress: &Arc<Progress>,
    ) -> Result<Held, ClusterError> {
        let stats = self.node.fetch(request(name, root, options), Arc::clone(progress)).await?;
        Ok(Held { bytes: stats.bytes, blocks: stats.blocks, kind: self.kind(root).await? })
    }

    fn has(&self, root: &Cid) -> bool {
        // An error is reported by the operation that follows.
        self.node.blocks().size(root).is_ok_and(|size| size.is_some())
    }

    async fn hold_local(
        &self,
        name: &HoldName,
        root: &Cid,
        options: &HoldOptions,
    ) -> Result<Option<Held>, ClusterError> {
        let request = request(name, root, options);
        let Some(stats) = self.node.hold_local(request).await? else { return Ok(None) };
        Ok(Some(Held { bytes: stats.bytes, blocks: stats.blocks, kind: self.kind(root).await? }))
    }

    async fn survey(&self, root: &Cid, options: &SurveyOptions) -> Result<Survey, ClusterError> {
        let SurveyOptions { blocks_max, time, ref origins } = *options;
        let origins = addresses(origins);
        Ok(self.node.survey(SurveyRequest { root: *root, origins, blocks_max, time }).await?)
    }

    async fn release(&self, name: &HoldName) -> Result<(), ClusterError> {
        Ok(self.node.blocks().release(name).await?)
    }

    async fn import_file(
        &self,
        name: &HoldName,
        bytes_max: u64,
        body: Body<'_>,
    ) -> Result<Imported, ClusterError> {
        let hold = self.node.blocks().open(name)?;
        let imported = self.import_blocks(hold, bytes_max, body).await?;
        self.node.blocks().commit(hold).await?;
        Ok(self.announce(imported))
    }

    /// The blocks become durable with those of all other files, when the directory is created. Blocks that are lost until then,
    /// in a crash or because the disk is full, are found to be missing there.
    async fn import_entry(
        &self,
        name: &HoldName,
        bytes_max: u64,
        body: Body<'_>,
    ) -> Result<Imported, ClusterError> {
        let hold = self.node.blocks().open(name)?;
        let unixfs::Imported { root, size_bytes, dag_bytes } =
            self.import_blocks(hold, bytes_max, body).await?;
        Ok(Imported { root, content_bytes: size_bytes, dag_bytes })
    }

    async fn import_directory(
        &self,
        name: &HoldName,
        files: &[(String, Imported)],
    ) -> Result<Imported, ClusterError> {
        let blocks = self.node.blocks();
        let hold = blocks.open(name)?;
        let mut directory = DirectoryBuilder::new();
        for (path, file) in files {
            let Imported { root, content_bytes, dag_bytes } = *file;
            // A failed write loses all blocks that were added to the hold since its last commit. The root of a file is added
            // last: if it is there, all of the file is.
            if Block::inline(&root).is_none() && !blocks.has_edge(hold, &root)? {
                return Err(ClusterError::Unavailable(format!("{path:?} was imported and is lost")));
            }
            directory.insert(path, unixfs::Imported { root, size_bytes: content_bytes, dag_bytes })?;
        }
        let imported = directory.import(self.profile, blocks.as_ref(), hold).await?;
        blocks.commit(hold).await?;
        let roots: Vec<Cid> = files.iter().map(|(_, file)| file.root).collect();
        self.node.bitswap().notify_stored(&roots);
        Ok(self.announce(imported))
    }

    async fn import_car(
        &self,
        name: &HoldName,
        bytes_max: u64,
        body: Body<'_>,
    ) -> Result<ImportedCar, ClusterError> {
        let blocks = self.node.blocks();
        let hold = blocks.open(name)?;
        let imported = import_car(body, bytes_max, blocks.as_ref(), hold).await?;
        blocks.commit(hold).await?;
        self.node.bitswap().notify_stored(&imported.roots);
        Ok(imported)
    }

    async fn block(&self, cid: &Cid) -> Result<Option<Bytes>, ClusterError> {
        let cid = *cid;
        let block = self.blocking(move |node| load(node, &cid)).await?;
        Ok(block.map(|block| block.into_parts().1))
    }

    async fn entries(&self, root: &Cid, request: WalkRequest) -> Result<WalkPage, ClusterError> {
        let (node, root) = (self.node.clone(), *root);
        let walk = move || unixfs::walk_directory(node.blocks().as_ref(), &root, &request);
        let done = tokio::task::spawn_blocking(walk).await;
        Ok(done.map_err(|_| ClusterError::Stopping)??)
    }

    async fn names(
        &self,
        prefix: &str,
        after: Option<&HoldName>,
        limit: usize,
    ) -> Result<Vec<HoldName>, ClusterError> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        let holds = self.blocking(move |node| node.blocks().holds(&prefix, after.as_ref(), limit)).await?;
        Ok(holds.into_iter().map(|hold| hold.name).collect())
    }

    async fn damaged(&self, limit: usize) -> Result<Vec<(HoldName, u64)>, ClusterError> {
        self.blocking(move |node| node.blocks().damaged_holds(limit)).await
    }

    async fn distinct(&self, names: Vec<HoldName>, mut counted: Distinct) -> Result<Distinct, ClusterError> {
        self.blocking(move |node| {
            names.iter().try_for_each(|name| node.blocks().count(name, &mut counted))?;
            Ok(counted)
        })
        .await
    }

    async fn usage(&self) -> Result<Usage, ClusterError> {
        self.blocking(|node| node.blocks().totals()).await
    }

    async fn peers(&self, limit: usize) -> Result<Vec<PeerInfo>, ClusterError> {
        let me = PeerInfo {
            id: self.node.peer_id().to_string(),
            addresses: texts(&self.node.listen_addresses().await),
            is_self: true,
            connected: true,
            agent: Some(AGENT.to_owned()),
        };
        let others = self.node.peers().await.into_iter().map(|peer| PeerInfo {
            id: peer.peer.to_string(),
            addresses: texts(&peer.addresses),
            is_self: false,
            connected: true,
            agent: peer.agent,
        });
        Ok(std::iter::once(me).chain(others).take(limit).collect())
    }

    async fn health(&self) -> Result<(), ClusterError> {
        self.blocking(|node| node.blocks().holds("", None, 1)).await?;
        Ok(())
    }
}

impl Embedded {
    /// Adds the blocks of a file to a hold, without a commit.
    async fn import_blocks(
        &self,
        hold: HoldId,
        bytes_max: u64,
        body: Body<'_>,
    ) -> Result<unixfs::Imported, ClusterError> {
        let blocks = self.node.blocks();
        let mut limited = Limited::new(body, bytes_max);
        let imported = unixfs::import_file(&mut limited, self.profile, blocks.as_ref(), hold).await;
        imported.map_err(|error| limited.fault().unwrap_or_else(|| error.into()))
    }

    /// Notifies peers that wait for the root.
    fn announce(&self, imported: unixfs::Imported) -> Imported {
        self.node.bitswap().notify_stored(&[imported.root]);
        Imported { root: imported.root, content_bytes: imported.size_bytes, dag_bytes: imported.dag_bytes }
    }
}

fn texts<T: ToString>(addresses: &[T]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

impl From<BlocksError> for ClusterError {
    fn from(error: BlocksError) -> Self {
        match error {
            BlocksError::Full => Self::Full,
            BlocksError::Closed => Self::Stopping,
            BlocksError::Damaged(_) | BlocksError::NoSuchHold | BlocksError::Failed(_) => {
                Self::Unavailable(error.to_string())
            }
        }
    }
}

impl From<ReadError> for ClusterError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Kind { .. }
            | ReadError::Node { .. }
            | ReadError::TooLarge(_)
            | ReadError::Position(_) => Self::Unfit(error.to_string()),
            ReadError::Missing(_) => Self::Unavailable(error.to_string()),
            ReadError::Blocks(error) => error.into(),
            ReadError::Stopped => Self::Stopping,
        }
    }
}

impl From<FetchError> for ClusterError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::NotFound(_) => Self::NotFound,
            FetchError::Stalled { .. } => Self::Stalled(error.to_string()),
            FetchError::OverLimit { .. } => Self::OverLimit,
            FetchError::Unfit { .. } => Self::Unfit(error.to_string()),
            FetchError::Blocks(error) => error.into(),
            FetchError::Stopping => Self::Stopping,
        }
    }
}

impl From<ImportError> for ClusterError {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Source(error) => Self::Source(error.to_string()),
            ImportError::Blocks(error) => error.into(),
            ImportError::Path(_)
            | ImportError::Conflict(_)
            | ImportError::Collision
            | ImportError::Block(_) => Self::Unfit(error.to_string()),
            ImportError::Stopped => Self::Stopping,
        }
    }
}

impl From<ImportCarError> for ClusterError {
    fn from(error: ImportCarError) -> Self {
        match error {
            ImportCarError::Source(error) => Self::Source(error.to_string()),
            ImportCarError::Car(_) | ImportCarError::Block { .. } => Self::Unfit(error.to_string()),
            ImportCarError::OverLimit(_) => Self::OverLimit,
            ImportCarError::Blocks(error) => error.into(),
            ImportCarError::Stopped => Self::Stopping,
        }
    }
}

//! A cluster over the real block engine and an in-memory network: the embedded node without the swarm, with every fault
//! that can occur between two blocks.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;
use pinfold_cluster::{
    Body, Cluster, ClusterError, Distinct, Held, HoldOptions, Imported, ImportedCar, ImportedKind, PeerInfo,
    Progress, Survey, SurveyOptions, Usage, WalkPage, WalkRequest,
};
use pinfold_node::blocks::{SegmentBlocks, SegmentConfig};
use pinfold_node::car::import::import_car;
use pinfold_node::dag::links;
use pinfold_node::unixfs::{self, DirectoryBuilder, ImportError, Kind, Profile};
use pinfold_node::{Block, Blocks, HoldName, HoldStats};
use tokio::io::AsyncReadExt;

use crate::network::{Lost, Network};

/// The cluster of one process.
pub(crate) struct Disk {
    pub(crate) blocks: SegmentBlocks,
    network: Network,
}

impl Disk {
    /// Opens the folder with small segments, so that there are many of them.
    pub(crate) fn open(dir: &Path, network: &Network) -> Self {
        let config = SegmentConfig { segment_bytes: 32 * 1024, reserve_bytes: 0 };
        Self { blocks: SegmentBlocks::open(dir, &config).unwrap(), network: network.clone() }
    }

    /// A block that must be stored.
    pub(crate) fn load(&self, cid: &Cid) -> Block {
        self.blocks.get(cid).unwrap().unwrap_or_else(|| panic!("{cid} was lost"))
    }

    fn held(&self, root: &Cid, stats: HoldStats) -> Held {
        let kind = match unixfs::kind(&self.load(root)) {
            Kind::File { .. } => ImportedKind::File,
            Kind::Directory => ImportedKind::Directory,
            Kind::Other => ImportedKind::Other,
        };
        Held { bytes: stats.bytes, blocks: stats.blocks, kind }
    }
}

fn down() -> ClusterError {
    ClusterError::Unavailable("scripted".to_owned())
}

#[async_trait]
impl Cluster for Disk {
    async fn hold(
        &self,
        name: &HoldName,
        root: &Cid,
        terms: &HoldOptions,
        progress: &Arc<Progress>,
    ) -> Result<Held, ClusterError> {
        if let Some(held) = self.blocks.hold(name)?.filter(|held| held.sealed) {
            return Ok(self.held(root, held.stats));
        }
        let hold = self.blocks.open(name)?;
        let fault = self.network.next_hold_fault(root);
        let (mut fetched, mut seen, mut left) = (0_u64, HashSet::new(), vec![*root]);
        while let Some(cid) = left.pop() {
            if !seen.insert(cid) {
                continue;
            }
            let now = fault.as_ref().filter(|fault| fault.after == seen.len() as u64);
            if let Some(fault) = now.filter(|fault| fault.own) {
                return Err(fault.error.clone());
            }
            let block = if Block::inline(&cid).is_some() || self.blocks.add_edge(hold, &cid)? {
                self.load(&cid)
            } else {
                if let Some(fault) = now {
                    return Err(fault.error.clone());
                }
                let unavailable = || match fetched {
                    0 => ClusterError::NotFound,
                    _ => ClusterError::Stalled(format!("{cid} is missing")),
                };
                let block = self.network.fetch(&cid).ok_or_else(unavailable)?;
                self.blocks.put(hold, block.clone()).await?;
                fetched += 1;
                block
            };
            left.extend(links(&block).unwrap().into_iter().rev().map(|link| link.cid));
            let stats = self.blocks.stats(hold)?;
            progress.set_held(stats.blocks, stats.bytes);
            if stats.bytes > terms.bytes_max || stats.blocks > terms.blocks_max {
                return Err(ClusterError::OverLimit);
            }
            if fetched % 16 == 15 {
                self.blocks.commit(hold).await?;
            }
            tokio::task::yield_now().await;
        }
        let stats = self.blocks.seal(hold).await?;
        match fault.filter(|fault| fault.own && fault.after > seen.len() as u64) {
            Some(_) => Err(down()),
            None => Ok(self.held(root, stats)),
        }
    }

    fn has(&self, root: &Cid) -> bool {
        self.blocks.size(root).unwrap().is_some()
    }

    async fn hold_local(
        &self,
        name: &HoldName,
        root: &Cid,
        terms: &HoldOptions,
    ) -> Result<Option<Held>, ClusterError> {
        if let Some(held) = self.blocks.hold(name)?.filter(|held| held.sealed) {
            return Ok(Some(self.held(root, held.stats)));
        }
        let hold = self.blocks.open(name)?;
        let (mut seen, mut left) = (HashSet::new(), vec![*root]);
        while let Some(cid) = left.pop() {
            if !seen.insert(cid) {
                continue;
            }
            if Block::inline(&cid).is_none() && !self.blocks.add_edge(hold, &cid)? {
                return Ok(None);
            }
            left.extend(links(&self.load(&cid)).unwrap().into_iter().map(|link| link.cid));
            tokio::task::yield_now().await;
        }
        if self.blocks.stats(hold)?.bytes > terms.bytes_max {
            return Ok(None);
        }
        let stats = self.blocks.seal(hold).await?;
        Ok(Some(self.held(root, stats)))
    }

    async fn survey(&self, _root: &Cid, _terms: &SurveyOptions) -> Result<Survey, ClusterError> {
        Ok(Survey::default())
    }

    async fn release(&self, name: &HoldName) -> Result<(), ClusterError> {
        let lost = self.network.next_release_fault();
        tokio::task::yield_now().await;
        if lost == Some(Lost::Request) {
            return Err(down());
        }
        self.blocks.release(name).await?;
        tokio::task::yield_now().await;
        if lost == Some(Lost::Answer) { Err(down()) } else { Ok(()) }
    }

    async fn import_file(
        &self,
        name: &HoldName,
        bytes_max: u64,
        body: Body<'_>,
    ) -> Result<Imported, ClusterError> {
        let hold = self.blocks.open(name)?;
        let mut data = Vec::new();
        let read = body.take(bytes_max.saturating_add(1)).read_to_end(&mut data).await;
        // Blocks that were received before the interruption stay under the hold, as in a large upload.
        let imported =
            unixfs::import_file(&data[..], Profile::default(), &self.blocks, hold).await.map_err(error)?;
        read.map_err(|error| ClusterError::Source(error.to_string()))?;
        if data.len() as u64 > bytes_max {
            return Err(ClusterError::OverLimit);
        }
        tokio::task::yield_now().await;
        self.blocks.commit(hold).await?;
        Ok(to_imported(imported))
    }

    async fn import_directory(
        &self,
        name: &HoldName,
        files: &[(String, Imported)],
    ) -> Result<Imported, ClusterError> {
        let hold = self.blocks.open(name)?;
        let mut directory = DirectoryBuilder::new();
        for (path, file) in files {
            let Imported { root, content_bytes, dag_bytes } = *file;
            let file = unixfs::Imported { root, size_bytes: content_bytes, dag_bytes };
            directory.insert(path, file).map_err(error)?;
        }
        let imported = directory.import(Profile::default(), &self.blocks, hold).await.map_err(error)?;
        tokio::task::yield_now().await;
        self.blocks.commit(hold).await?;
        Ok(to_imported(imported))
    }

    async fn import_car(
        &self,
        name: &HoldName,
        bytes_max: u64,
        body: Body<'_>,
    ) -> Result<ImportedCar, ClusterError> {
        let hold = self.blocks.open(name)?;
        let imported = import_car(body, bytes_max, &self.blocks, hold).await?;
        self.blocks.commit(hold).await?;
        Ok(imported)
    }

    async fn block(&self, cid: &Cid) -> Result<Option<Bytes>, ClusterError> {
        Ok(self.blocks.get(cid)?.map(|block| block.into_parts().1))
    }

    async fn entries(&self, root: &Cid, request: WalkRequest) -> Result<WalkPage, ClusterError> {
        Ok(unixfs::walk_directory(&self.blocks, root, &request)?)
    }

    async fn names(
        &self,
        prefix: &str,
        after: Option<&HoldName>,
        limit: usize,
    ) -> Result<Vec<HoldName>, ClusterError> {
        Ok(self.blocks.holds(prefix, after, limit)?.into_iter().map(|hold| hold.name).collect())
    }

    async fn damaged(&self, limit: usize) -> Result<Vec<(HoldName, u64)>, ClusterError> {
        Ok(self.blocks.damaged_holds(limit)?)
    }

    async fn distinct(&self, names: Vec<HoldName>, mut counted: Distinct) -> Result<Distinct, ClusterError> {
        names.iter().try_for_each(|name| self.blocks.count(name, &mut counted))?;
        Ok(counted)
    }

    async fn usage(&self) -> Result<Usage, ClusterError> {
        Ok(self.blocks.totals()?)
    }

    async fn peers(&self, _limit: usize) -> Result<Vec<PeerInfo>, ClusterError> {
        Ok(Vec::new())
    }

    async fn health(&self) -> Result<(), ClusterError> {
        Ok(())
    }
}

fn to_imported(imported: unixfs::Imported) -> Imported {
    Imported { root: imported.root, content_bytes: imported.size_bytes, dag_bytes: imported.dag_bytes }
}

fn error(error: ImportError) -> ClusterError {
    match error {
        ImportError::Blocks(error) => error.into(),
        ImportError::Source(_)
        | ImportError::Path(_)
        | ImportError::Conflict(_)
        | ImportError::Collision
        | ImportError::Block(_)
        | ImportError::Stopped => panic!("{error}"),
    }
}

//! A cluster in memory for tests, whose operations can be scripted to fail or wait.
//!
//! It has a *network* (content that can be fetched; a test sets the size of each DAG) and *holds*. It outlives the services that
//! tests start and drop, as a disk would.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use cid::{Cid, Version};
use pinfold_node::car::CarReader;
use pinfold_node::car::import::{ImportCarError, ImportedCar, verified};
use pinfold_node::{Block, HoldName, Progress};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use super::limited::Limited;
use crate::{
    Body, Cluster, ClusterError, Distinct, EntryKind, Held, HoldOptions, Imported, ImportedKind, PeerInfo,
    Position, Reach, Survey, SurveyOptions, Usage, WalkEntry, WalkPage, WalkRequest,
};

const RAW: u64 = 0x55;
const SHA2_256: u64 = 0x12;

/// What happens to an operation. Operations after the end of a script succeed.
#[derive(Debug, Clone)]
pub enum Fate {
    Works,
    Fails(ClusterError),
    /// It waits until the gate opens, and then succeeds.
    Waits(Gate),
}

/// A gate that operations wait at.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<(bool, usize)>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new((false, 0))))
    }
}

impl Gate {
    /// Opens the gate for all operations, now and later.
    pub fn open(&self) {
        self.0.send_modify(|state| state.0 = true);
    }

    /// Returns once an operation waits at the gate.
    pub async fn reached(&self) {
        let mut state = self.0.subscribe();
        // The sender exists as long as this gate.
        let _ = state.wait_for(|(_, came)| *came > 0).await;
    }

    async fn pass(&self) {
        self.0.send_modify(|state| state.1 += 1);
        let mut state = self.0.subscribe();
        let _ = state.wait_for(|(open, _)| *open).await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Content {
    held: Held,
}

#[derive(Debug, Default)]
struct State {
    network: HashMap<Cid, Content>,
    /// The DAGs under each name, and whether each is complete.
    holds: BTreeMap<HoldName, HashMap<Cid, (Content, bool)>>,
    /// Number of damaged blocks, until their name is held again.
    damaged: BTreeMap<HoldName, u64>,
    /// The entries of directories.
    directories: HashMap<Cid, Vec<WalkEntry>>,
    hold_fates: HashMap<Cid, Vec<Fate>>,
    survey_fates: HashMap<Cid, Vec<Fate>>,
    release_fates: Vec<Fate>,
    /// Progress of running holds.
    in_progress: HashMap<Cid, Arc<Progress>>,
    /// Data of roots, local or on the network.
    data: HashMap<Cid, Bytes>,
}

/// The scripted cluster. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Scripted(Arc<Mutex<State>>);

impl Scripted {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes a DAG of this size on the network, and returns its root: a block with the bytes of `seed`.
    pub fn publish(&self, seed: &str, bytes: u64) -> Cid {
        let data = Bytes::copy_from_slice(seed.as_bytes());
        let cid = raw_cid(data.clone());
        let held = Held { bytes, blocks: 1 + bytes / (1 << 20), kind: ImportedKind::File };
        let mut state = self.state();
        state.network.insert(cid, Content { held });
        state.data.insert(cid, data);
        cid
    }

    /// Removes a DAG from the network. Holds stay.
    pub fn unpublish(&self, cid: &Cid) {
        self.state().network.remove(cid);
    }

    /// Scripts the next holds of `cid`; later ones succeed.
    pub fn script_hold(&self, cid: &Cid, fates: impl IntoIterator<Item = Fate>) {
        self.state().hold_fates.insert(*cid, fates.into_iter().collect());
    }

    /// Sets the progress of a DAG whose hold waits at a gate, as if peers delivered blocks.
    pub fn bring(&self, cid: &Cid, blocks: u64, bytes: u64, peers: u64) {
        if let Some(progress) = self.state().in_progress.get(cid) {
            progress.set_held(blocks, bytes);
            progress.set_peers(peers);
        }
    }

    /// Scripts the next surveys of `cid`; later ones succeed.
    pub fn script_survey(&self, cid: &Cid, fates: impl IntoIterator<Item = Fate>) {
        self.state().survey_fates.insert(*cid, fates.into_iter().collect());
    }

    /// Damages blocks that are held under a name.
    pub fn damage(&self, name: &str, blocks: u64) {
        if let Some(name) = HoldName::parse(name) {
            self.state().damaged.insert(name, blocks);
        }
    }

    /// Scripts the next releases; later ones succeed.
    pub fn script_release(&self, fates: impl IntoIterator<Item = Fate>) {
        self.state().release_fates = fates.into_iter().collect();
    }

    /// Whether the whole DAG is held under any name.
    #[must_use]
    pub fn has(&self, cid: &Cid) -> bool {
        self.state().whole(cid).is_some()
    }

    /// Whether the whole DAG is held under this name.
    #[must_use]
    pub fn holds(&self, name: &str, cid: &Cid) -> bool {
        let state = self.state();
        let hold = HoldName::parse(name).and_then(|name| state.holds.get(&name));
        hold.and_then(|dags| dags.get(cid)).is_some_and(|(_, whole)| *whole)
    }

    /// Lists all names.
    #[must_use]
    pub fn all_names(&self) -> Vec<String> {
        self.state().holds.keys().map(|name| name.as_str().to_owned()).collect()
    }

    async fn meet(&self, fate: Option<Fate>) -> Result<(), ClusterError> {
        match fate {
            None | Some(Fate::Works) => Ok(()),
            Some(Fate::Fails(error)) => Err(error),
            Some(Fate::Waits(gate)) => {
                gate.pass().await;
                Ok(())
            }
        }
    }
}

impl State {
    fn whole(&self, cid: &Cid) -> Option<Content> {
        self.holds
            .values()
            .find_map(|dags| dags.get(cid).filter(|(_, whole)| *whole).map(|(content, _)| *content))
    }
}

/// The entries of a directory of these files. Each directory precedes its entries.
fn entries_of(
    files: &BTreeMap<&String, &Imported>,
    directories: &HashMap<Cid, Vec<WalkEntry>>,
) -> Vec<WalkEntry> {
    let mut entries = BTreeMap::new();
    for (path, file) in files {
        for (at, _) in path.match_indices('/') {
            let path = path[..at].to_owned();
            let cid = raw_cid(Bytes::from(format!("{path}/")));
            let directory = WalkEntry { path, cid, kind: EntryKind::Directory, size_bytes: None };
            entries.insert(sorting(&directory.path), directory);
        }
        let (path, cid) = ((*path).clone(), file.root);
        let file = match directories.contains_key(&cid) {
            true => WalkEntry { path, cid, kind: EntryKind::Directory, size_bytes: None },
            false => WalkEntry { path, cid, kind: EntryKind::File, size_bytes: Some(file.content_bytes) },
        };
        entries.insert(sorting(&file.path), file);
    }
    entries.into_values().collect()
}

fn sorting(path: &str) -> Vec<String> {
    path.split('/').map(str::to_owned).collect()
}

fn raw_cid(data: Bytes) -> Cid {
    match Block::hash(Version::V1, RAW, SHA2_256, data) {
        Ok(block) => *block.cid(),
        Err(_too_large) => Cid::default(),
    }
}

fn next(fates: &mut Vec<Fate>) -> Option<Fate> {
    if fates.is_empty() { None } else { Some(fates.remove(0)) }
}

#[async_trait]
impl Cluster for Scripted {
    async fn hold(
        &self,
        name: &HoldName,
        root: &Cid,
        options: &HoldOptions,
        progress: &Arc<Progress>,
    ) -> Result<Held, ClusterError> {
        let (fate, content) = {
            let mut state = self.state();
            // Looking through the holds comes last: a test may have many.
            let local = || state.whole(root).filter(|_| !state.damaged.contains_key(name));
            let content = state.network.get(root).copied().or_else(local);
            // A fetch leaves blocks under its name, until it is released.
            let begun = Content { held: Held { bytes: 0, blocks: 0, kind: ImportedKind::Other } };
            state.holds.entry(name.clone()).or_default().entry(*root).or_insert((begun, false));
            state.in_progress.insert(*root, Arc::clone(progress));
            (state.hold_fates.get_mut(root).and_then(next), content)
        };
        self.meet(fate).await?;
        let content = content.ok_or(ClusterError::NotFound)?;
        if content.held.bytes > options.bytes_max || content.held.blocks > options.blocks_max {
            return Err(ClusterError::OverLimit);
        }
        let mut state = self.state();
        // It may have been released while it waited, as with a late reply of a real cluster.
        state.holds.entry(name.clone()).or_default().insert(*root, (content, true));
        state.damaged.remove(name);
        state.in_progress.remove(root);
        progress.set_held(content.held.blocks, content.held.bytes);
        Ok(content.held)
    }

    async fn survey(&self, root: &Cid, options: &SurveyOptions) -> Result<Survey, ClusterError> {
        let (fate, here, there) = {
            let mut state = self.state();
            let here = state.whole(root).map(|content| content.held);
            let there = state.network.get(root).map(|content| content.held);
            (state.survey_fates.get_mut(root).and_then(next), here, there)
        };
        match tokio::time::timeout(options.time, self.meet(fate)).await {
            Ok(met) => met?,
            Err(_over) => return Ok(Survey { missing: 1, ..Survey::default() }),
        }
        Ok(match (here, there) {
            (Some(Held { blocks, bytes, .. }), _) => {
                Survey { blocks, bytes, reach: Reach::Here, ..Survey::default() }
            }
            (None, Some(Held { bytes, .. })) => Survey {
                missing: 1,
                reach: Reach::Delivered,
                claimed_bytes: Some(bytes),
                ..Survey::default()
            },
            (None, None) => Survey { missing: 1, ..Survey::default() },
        })
    }

    async fn release(&self, name: &HoldName) -> Result<(), ClusterError> {
        let fate = next(&mut self.state().release_fates);
        self.meet(fate).await?;
        let mut state = self.state();
        state.holds.remove(name);
        state.damaged.remove(name);
        Ok(())
    }

    async fn import_file(
        &self,
        name: &HoldName,
        bytes_max: u64,
        body: Body<'_>,
    ) -> Result<Imported, ClusterError> {
        let mut limited = Limited::new(body, bytes_max);
        let mut data = Vec::new();
        if let Err(error) = limited.read_to_end(&mut data).await {
            return Err(limited.fault().unwrap_or_else(|| ClusterError::Source(error.to_string())));
        }
        let bytes = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let data = Bytes::from(data);
        let root = raw_cid(data.clone());
        let held = Held { bytes, blocks: 1, kind: ImportedKind::File };
        let mut state = self.state();
        state.data.insert(root, data);
        state.holds.entry(name.clone()).or_default().insert(root, (Content { held }, true));
        Ok(Imported { root, content_bytes: bytes, dag_bytes: bytes })
    }

    async fn import_directory(
        &self,
        name: &HoldName,
        files: &[(String, Imported)],
    ) -> Result<Imported, ClusterError> {
        let mut entries = BTreeMap::new();
        for (path, file) in files {
            if entries.insert(path, file).is_some() {
                return Err(ClusterError::Unfit(format!("{path:?} is in the directory twice")));
            }
        }
        let inside = entries_of(&entries, &self.state().directories);
        let listing: String = entries.iter().map(|(path, file)| format!("{path} {}\n", file.root)).collect();
        let content_bytes = files.iter().map(|(_, file)| file.content_bytes).sum();
        let bytes = u64::try_from(listing.len()).unwrap_or(u64::MAX) + content_bytes;
        let listing = Bytes::from(listing);
        let root = raw_cid(listing.clone());
        let held = Held { bytes, blocks: 1 + files.len() as u64, kind: ImportedKind::Directory };
        let mut state = self.state();
        state.directories.insert(root, inside);
        state.data.insert(root, listing);
        state.holds.entry(name.clone()).or_default().insert(root, (Content { held }, true));
        Ok(Imported { root, content_bytes, dag_bytes: bytes })
    }

    async fn import_car(
        &self,
        name: &HoldName,
        bytes_max: u64,
        body: Body<'_>,
    ) -> Result<ImportedCar, ClusterError> {
        let mut reader = CarReader::open(body).await.map_err(ImportCarError::from)?;
        let mut imported = ImportedCar { roots: reader.roots().to_vec(), blocks: 0, bytes: 0 };
        while let Some((cid, data)) = reader.next_section().await.map_err(ImportCarError::from)? {
            let block = verified(cid, data)?;
            imported.blocks += 1;
            imported.bytes += block.data().len() as u64;
            let held = Held { bytes: block.data().len() as u64, blocks: 1, kind: ImportedKind::File };
            let mut state = self.state();
            state.data.insert(cid, block.data().clone());
            let dags = state.holds.entry(name.clone()).or_default();
            dags.insert(cid, (Content { held }, true));
            if dags.values().map(|(content, _)| content.held.bytes).sum::<u64>() > bytes_max {
                return Err(ClusterError::OverLimit);
            }
        }
        Ok(imported)
    }

    async fn block(&self, cid: &Cid) -> Result<Option<Bytes>, ClusterError> {
        let state = self.state();
        Ok(state.whole(cid).and_then(|_| state.data.get(cid).cloned()))
    }

    async fn entries(&self, root: &Cid, request: WalkRequest) -> Result<WalkPage, ClusterError> {
        let state = self.state();
        if state.whole(root).is_none() {
            return Err(ClusterError::Unavailable(format!("{root} is not local")));
        }
        let entries = state.directories.get(root);
        let entries = entries.ok_or_else(|| ClusterError::Unfit(format!("{root} is not a directory")))?;
        let begin = match &request.from {
            None => Ok(0),
            Some(position) => position.to_string().parse::<usize>(),
        };
        let begin = begin.ok().filter(|begin| *begin <= entries.len());
        let begin = begin.ok_or_else(|| ClusterError::Unfit(format!("no such position in {root}")))?;
        let mut page = WalkPage::default();
        let inside = entries.iter().enumerate().skip(begin);
        for (at, entry) in inside.filter(|(_, entry)| entry.path.split('/').count() <= request.depth) {
            if page.passed < request.skip {
                page.passed += 1;
            } else if page.entries.len() < request.limit {
                page.entries.push(entry.clone());
            } else {
                page.next = at.to_string().parse::<Position>().ok();
                break;
            }
        }
        Ok(page)
    }

    async fn names(
        &self,
        prefix: &str,
        after: Option<&HoldName>,
        limit: usize,
    ) -> Result<Vec<HoldName>, ClusterError> {
        let state = self.state();
        let later = state.holds.keys().filter(|name| after.is_none_or(|after| *name > after));
        Ok(later.filter(|name| name.as_str().starts_with(prefix)).take(limit).cloned().collect())
    }

    async fn damaged(&self, limit: usize) -> Result<Vec<(HoldName, u64)>, ClusterError> {
        let state = self.state();
        Ok(state.damaged.iter().map(|(name, blocks)| (name.clone(), *blocks)).take(limit).collect())
    }

    async fn distinct(&self, names: Vec<HoldName>, mut counted: Distinct) -> Result<Distinct, ClusterError> {
        let state = self.state();
        for (cid, (content, _)) in names.iter().filter_map(|name| state.holds.get(name)).flatten() {
            let number = cid.hash().digest().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            counted.add(number, content.held.bytes);
        }
        Ok(counted)
    }

    async fn usage(&self) -> Result<Usage, ClusterError> {
        let state = self.state();
        let whole = || state.holds.values().flat_map(HashMap::values).map(|(content, _)| content.held);
        let held = (whole().map(|held| held.blocks).sum(), whole().map(|held| held.bytes).sum());
        let damaged_blocks = state.damaged.values().sum();
        let holds = state.holds.len() as u64;
        Ok(Usage { holds, held_blocks: held.0, held_bytes: held.1, damaged_blocks, ..Usage::default() })
    }

    async fn peers(&self, limit: usize) -> Result<Vec<PeerInfo>, ClusterError> {
        let me = PeerInfo {
            id: "scripted".to_owned(),
            addresses: Vec::new(),
            is_self: true,
            connected: true,
            agent: None,
        };
        Ok(std::iter::once(me).take(limit).collect())
    }

    async fn health(&self) -> Result<(), ClusterError> {
        Ok(())
    }
}

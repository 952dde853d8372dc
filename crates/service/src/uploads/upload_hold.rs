//! Holds of running uploads: they keep the blocks until the placement holds them.
//!
//! Dropping an [`UploadHold`] queues its name for release, which the placement worker does. If the process dies, the name
//! remains in the cluster: the next start finds it, and releases it once every placement that was in progress has
//! completed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use data_encoding::HEXLOWER;
use pinfold_cluster::{HoldName, UPLOAD_PREFIX};
use pinfold_model::{ClusterId, PlacementId};

use crate::Error;
use crate::clusters::cluster_set::ClusterSetup;
use crate::error::log_store_error;
use crate::lock::lock;
use crate::placements::Placements;

/// Holds of an earlier run that one start releases; the next start continues.
const LEFTOVERS_MAX: usize = 100_000;

/// The holds of all uploads that are to be released.
pub(crate) struct UploadHolds {
    placements: Arc<Placements>,
    /// At most as many as there were uploads since the last turn of the worker.
    dropped: Mutex<Vec<(ClusterId, HoldName)>>,
    leftovers: Mutex<Option<Leftovers>>,
}

/// Holds of an earlier run.
struct Leftovers {
    names: Vec<(ClusterId, HoldName)>,
    /// The newest placement of that run.
    newest: PlacementId,
}

/// Holds the blocks of an upload until it is dropped.
#[must_use = "dropping it releases the blocks"]
pub(crate) struct UploadHold {
    holds: Arc<UploadHolds>,
    cluster: ClusterId,
    name: HoldName,
    is_left: AtomicBool,
}

impl UploadHold {
    pub(crate) fn name(&self) -> &HoldName {
        &self.name
    }

    pub(crate) fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// The cluster that receives the upload.
    pub(crate) fn setup(&self) -> Result<&ClusterSetup, Error> {
        self.holds.placements.clusters.get(&self.cluster).ok_or(Error::UnknownCluster)
    }

    /// Leaves the hold to the next start, because the service stops.
    pub(crate) fn leave(&self) {
        self.is_left.store(true, Ordering::Relaxed);
    }
}

impl Drop for UploadHold {
    fn drop(&mut self) {
        if !*self.is_left.get_mut() {
            lock(&self.holds.dropped).push((self.cluster.clone(), self.name.clone()));
            self.holds.placements.wake_worker();
        }
    }
}

impl UploadHolds {
    /// Reads the holds that an earlier run left. Call it before the first upload.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`] if the store fails.
    pub(crate) async fn load(placements: Arc<Placements>) -> Result<Self, Error> {
        let newest = placements.store.newest_placement().await.map_err(log_store_error)?;
        let mut names = Vec::new();
        for setup in placements.clusters.iter() {
            match setup.driver.names(UPLOAD_PREFIX, None, LEFTOVERS_MAX).await {
                Ok(found) => names.extend(found.into_iter().map(|name| (setup.info.id.clone(), name))),
                Err(error) => {
                    tracing::warn!(cluster = %setup.info.id, %error, "failed to list unfinished uploads");
                }
            }
        }
        let leftovers = Leftovers { names, newest: newest.unwrap_or(PlacementId(0)) };
        Ok(Self { placements, dropped: Mutex::default(), leftovers: Mutex::new(Some(leftovers)) })
    }

    /// Opens a hold with a new name.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub(crate) fn open(self: &Arc<Self>, cluster: ClusterId) -> Result<UploadHold, Error> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| Error::Internal)?;
        let name = HoldName::parse(format!("{UPLOAD_PREFIX}{}", HEXLOWER.encode(&random)));
        let name = name.ok_or(Error::Internal)?;
        Ok(UploadHold { holds: Arc::clone(self), cluster, name, is_left: AtomicBool::new(false) })
    }

    /// Releases the holds that were dropped, and returns how many. A release that fails is retried by the next call.
    pub(crate) async fn release_dropped(&self) -> usize {
        self.drop_leftovers().await;
        let dropped = std::mem::take(&mut *lock(&self.dropped));
        let mut released = 0;
        for (cluster, name) in dropped {
            let Some(setup) = self.placements.clusters.get(&cluster) else { continue };
            match setup.driver.release(&name).await {
                Ok(()) => released += 1,
                Err(error) => {
                    tracing::warn!(%cluster, name = name.as_str(), %error, "failed to release upload hold");
                    lock(&self.dropped).push((cluster, name));
                }
            }
        }
        released
    }

    /// Drops the holds of an earlier run once its placements have completed.
    async fn drop_leftovers(&self) {
        let newest = lock(&self.leftovers).as_ref().map(|left| left.newest);
        let Some(newest) = newest else { return };
        match self.placements.store.count_in_progress(newest).await {
            Ok(0) => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "failed to count placements in progress");
                return;
            }
        }
        if let Some(left) = lock(&self.leftovers).take() {
            lock(&self.dropped).extend(left.names);
        }
    }
}

//! Guards: what keeps an upload's blocks until its placement has them.
//!
//! A guard is a hold with a name of its own. When it is dropped, its name is put down for release, and the
//! reconciler does it. When the process dies, the name is still in the cluster: the next start finds it
//! and releases it as soon as every placement that was on its way then has settled.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use data_encoding::HEXLOWER;
use pinfold_cluster::{HoldName, UPLOAD_PREFIX};
use pinfold_model::{ClusterId, PlacementId};

use crate::Error;
use crate::core::{Core, lock};

/// Leftover guards that one start looks at; the next one goes on.
const LEFTOVERS_MAX: usize = 100_000;

/// The names that are to be released. As many as there were uploads, and emptied with each turn.
#[derive(Default)]
pub(crate) struct Guards {
    dropped: Mutex<Vec<(ClusterId, HoldName)>>,
    leftovers: Mutex<Option<Leftovers>>,
}

/// What a run before left.
struct Leftovers {
    names: Vec<(ClusterId, HoldName)>,
    /// The youngest placement of that run.
    newest: PlacementId,
}

/// Keeps what was taken in under its name, until it is dropped.
#[must_use = "dropping it releases what was taken in"]
pub(crate) struct Guard {
    core: Arc<Core>,
    cluster: ClusterId,
    name: HoldName,
    leave: AtomicBool,
}

impl Guard {
    /// A guard with a new name.
    pub(crate) fn new(core: &Arc<Core>, cluster: ClusterId) -> Result<Self, Error> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| Error::Internal)?;
        let name = HoldName::parse(format!("{UPLOAD_PREFIX}{}", HEXLOWER.encode(&random)));
        let name = name.ok_or(Error::Internal)?;
        Ok(Self { core: Arc::clone(core), cluster, name, leave: AtomicBool::new(false) })
    }

    pub(crate) fn name(&self) -> &HoldName {
        &self.name
    }

    pub(crate) fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    pub(crate) fn core(&self) -> Arc<Core> {
        Arc::clone(&self.core)
    }

    /// Leaves the name to the next start, because this one is stopping.
    pub(crate) fn leave(&self) {
        self.leave.store(true, Ordering::Relaxed);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !*self.leave.get_mut() {
            lock(&self.core.guards.dropped).push((self.cluster.clone(), self.name.clone()));
            self.core.wake.notify_one();
        }
    }
}

impl Core {
    /// Finds what a run before left. Called once, before the first upload.
    pub(crate) async fn find_leftovers(&self) -> Result<(), Error> {
        let newest = self.store.newest_placement().await.map_err(crate::core::unavailable)?;
        let mut names = Vec::new();
        for setup in &self.clusters {
            match setup.driver.names(UPLOAD_PREFIX, None, LEFTOVERS_MAX).await {
                Ok(found) => names.extend(found.into_iter().map(|name| (setup.info.id.clone(), name))),
                Err(error) => {
                    tracing::warn!(cluster = %setup.info.id, %error, "looking for unfinished uploads");
                }
            }
        }
        let newest = newest.unwrap_or(PlacementId(0));
        *lock(&self.guards.leftovers) = Some(Leftovers { names, newest });
        Ok(())
    }

    /// Releases what guards let go. What can't be released now is tried again on the next turn.
    pub(crate) async fn sweep_guards(&self) -> usize {
        self.free_leftovers().await;
        let dropped = std::mem::take(&mut *lock(&self.guards.dropped));
        let mut released = 0;
        for (cluster, name) in dropped {
            let Some(setup) = self.cluster(&cluster) else { continue };
            match setup.driver.release(&name).await {
                Ok(()) => released += 1,
                Err(error) => {
                    tracing::warn!(%cluster, name = name.as_str(), %error, "releasing an upload");
                    lock(&self.guards.dropped).push((cluster, name));
                }
            }
        }
        released
    }

    async fn free_leftovers(&self) {
        let newest = lock(&self.guards.leftovers).as_ref().map(|left| left.newest);
        let Some(newest) = newest else { return };
        match self.store.count_in_progress(newest).await {
            Ok(0) => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "looking for unfinished placements");
                return;
            }
        }
        if let Some(left) = lock(&self.guards.leftovers).take() {
            lock(&self.guards.dropped).extend(left.names);
        }
    }
}

//! Mending: what a cluster says is damaged is held once more, which brings it again from whoever has it.
//!
//! The clusters say what is damaged; the rows of their placements say so to everybody else, and are the work queue
//! for this as for all other work. What cannot be brought again stays `pinned`, is tried again for as long as a pin
//! wants it, and is told in its status, in the figures, and in the log.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cid::Cid;
use pinfold_cluster::HoldName;
use pinfold_model::{ClusterId, Email, Timestamp};
use pinfold_store::{Damage, PlacementRecord};

use crate::Error;
use crate::core::{Core, unavailable};

/// How often clusters are asked. One without damage answers from memory.
const PAUSE: Duration = Duration::from_secs(5);
/// Damaged blocks of a cluster that are looked at; the others come when these are mended.
const BLOCKS_MAX: usize = 10_000;
/// Damaged placements that are kept in the rows at one time.
const PLACEMENTS_MAX: u32 = 10_000;
/// After this long a placement is mended once more whose damage has not become less by that.
const AGAIN: Duration = Duration::from_mins(10);
/// Accounts that are named for one placement.
const ACCOUNTS_MAX: u32 = 100;

/// The damaged pins. Cheap to clone.
#[derive(Clone)]
pub struct DamagedPins {
    pub(crate) core: Arc<Core>,
}

/// A placement with damaged blocks, and who has pinned it.
#[derive(Debug, Clone)]
pub struct DamagedPin {
    /// The root of the DAG.
    pub cid: Cid,
    /// Where it is.
    pub cluster: ClusterId,
    /// How many of its blocks are damaged.
    pub blocks: u64,
    /// Why the last try to bring them again failed; `None` before the first one.
    pub error: Option<String>,
    /// How often that was tried in vain.
    pub attempts: u32,
    /// The addresses of the accounts that have it pinned; at most 100.
    pub accounts: Vec<Email>,
}

impl DamagedPins {
    /// The pins with damaged blocks, at most 10,000.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`] when the store fails.
    pub async fn list(&self) -> Result<Vec<DamagedPin>, Error> {
        let store = &self.core.store;
        let mut pins = Vec::new();
        for placement in store.damaged_placements(PLACEMENTS_MAX).await.map_err(unavailable)? {
            let owners = store.owner_emails(&placement.cid, &placement.cluster, ACCOUNTS_MAX).await;
            pins.push(DamagedPin {
                cid: placement.cid,
                cluster: placement.cluster,
                blocks: placement.damaged_blocks,
                error: placement.error.map(|failure| failure.detail),
                attempts: placement.attempts,
                accounts: owners.map_err(unavailable)?,
            });
        }
        Ok(pins)
    }
}

/// Asks until the service stops.
pub(crate) async fn run(core: &Core) {
    while core.stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_some() {
        if let Err(error) = look(core).await {
            tracing::warn!(%error, "looking for damage");
        }
    }
}

/// Brings the rows to what the clusters say; returns how many have changed.
pub(crate) async fn look(core: &Core) -> Result<usize, Error> {
    let mut found = HashMap::new();
    let mut silent = Vec::new();
    for setup in &core.clusters {
        match setup.driver.damaged(BLOCKS_MAX).await {
            Ok(holds) => {
                found.extend(holds.into_iter().filter_map(|(name, blocks)| Some((parse(&name)?, blocks))))
            }
            Err(error) => {
                tracing::warn!(cluster = %setup.info.id, %error, "asking for damage");
                silent.push(setup.info.id.clone());
            }
        }
    }
    let known = core.store.damaged_placements(PLACEMENTS_MAX).await.map_err(unavailable)?;
    let now = core.clock.now();
    let known = known.into_iter().filter(|known| !silent.contains(&known.cluster));
    let damage = changes(found, known, now);
    let changed = damage.len();
    if changed > 0 {
        core.store.record_damage(damage, now).await.map_err(unavailable)?;
        core.wake.notify_one();
    }
    Ok(changed)
}

/// What must be written so that the rows say what was found.
fn changes(
    mut found: HashMap<(ClusterId, Cid), u64>,
    known: impl Iterator<Item = PlacementRecord>,
    now: Timestamp,
) -> Vec<Damage> {
    let mut damage = Vec::new();
    let mut room = PLACEMENTS_MAX as usize;
    for PlacementRecord { cluster, cid, damaged_blocks, due_at, updated_at, .. } in known {
        room = room.saturating_sub(1);
        let blocks = found.remove(&(cluster.clone(), cid)).unwrap_or(0);
        // One that nobody will look at was mended, and has as much damage that was found meanwhile.
        let is_left = blocks > 0 && due_at.is_none() && updated_at.after(AGAIN) <= now;
        if blocks != damaged_blocks || is_left {
            damage.push(Damage { cid, cluster, blocks });
        }
    }
    // The others come when there is room: they would be written again with each look.
    for ((cluster, cid), blocks) in found.into_iter().take(room) {
        tracing::error!(%cid, %cluster, blocks, "a pin has damaged blocks; they are fetched again");
        damage.push(Damage { cid, cluster, blocks });
    }
    damage
}

/// The placement that holds under this name: what [`Core::hold_name`] makes.
fn parse(name: &HoldName) -> Option<(ClusterId, Cid)> {
    let (cluster, cid) = name.as_str().strip_prefix("pin/")?.split_once('/')?;
    Some((ClusterId::parse(cluster).ok()?, cid.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use pinfold_model::{Clock as _, ManualClock, PinKind, PlacementId, PlacementState, Timestamp};

    use super::*;

    fn placement(damaged_blocks: u64, due_at: Option<Timestamp>) -> PlacementRecord {
        PlacementRecord {
            id: PlacementId(1),
            cid: cid(),
            cluster: cluster(),
            state: PlacementState::Pinned,
            due_at,
            leased: false,
            attempts: 0,
            error: None,
            blocks: 9,
            bytes: 9,
            kind: PinKind::Unknown,
            damaged_blocks,
            updated_at: now(),
        }
    }

    fn cid() -> Cid {
        "bafkqabtimvwgy3yk".parse().unwrap()
    }

    fn cluster() -> ClusterId {
        ClusterId::parse("cl0-global").unwrap()
    }

    fn now() -> Timestamp {
        ManualClock::default().now()
    }

    #[test]
    fn damage_that_comes_as_other_damage_goes_is_mended_too() {
        let found = || HashMap::from([((cluster(), cid()), 1)]);
        let noted = |placement, now| changes(found(), std::iter::once(placement), now);
        let later = now().after(AGAIN);
        assert_eq!(noted(placement(1, None), later), [Damage { cid: cid(), cluster: cluster(), blocks: 1 }]);
        assert_eq!(noted(placement(1, Some(later)), later), [], "somebody will look at it");
        assert_eq!(noted(placement(1, None), now()), [], "not without a rest");
    }
}

//! Repair: a placement with damaged blocks is held again, which fetches the damaged blocks from other peers.
//!
//! The clusters report the damage. It is recorded in the rows of the placements, which makes them due: they are the work
//! queue for this as for all other work. A placement that can't be repaired stays `pinned` and is retried as long as a pin
//! wants it; its status, the metrics and the log report the damage.

use std::collections::HashMap;
use std::time::Duration;

use cid::Cid;
use pinfold_model::{ClusterId, Email, Timestamp};
use pinfold_store::{Damage, PlacementRecord, Store};

use crate::Error;
use crate::clusters::cluster_set::parse_placement_hold_name;
use crate::error::log_store_error;
use crate::placements::Placements;

/// Wait between two looks. A cluster without damage answers from memory.
const INTERVAL: Duration = Duration::from_secs(5);
/// Damaged blocks of a cluster that are read; the others follow when these are repaired.
const BLOCKS_MAX: usize = 10_000;
/// Placements that are recorded as damaged at one time.
const PLACEMENTS_MAX: u32 = 10_000;
/// Wait before a placement is repaired again whose damage did not decrease.
const RETRY_AFTER: Duration = Duration::from_mins(10);
/// Accounts that are listed for one placement.
const ACCOUNTS_MAX: u32 = 100;

/// Pins with damaged blocks. Cheap to clone.
#[derive(Clone)]
pub struct DamagedPins {
    pub(crate) store: Store,
}

/// A placement with damaged blocks, and the accounts that pin it.
#[derive(Debug, Clone)]
pub struct DamagedPin {
    pub cid: Cid,
    pub cluster: ClusterId,
    /// Number of damaged blocks.
    pub blocks: u64,
    /// Why the last repair failed; `None` before the first one.
    pub error: Option<String>,
    /// Number of failed repairs.
    pub attempts: u32,
    /// E-mail addresses of the accounts that pin it; at most 100.
    pub accounts: Vec<Email>,
}

impl DamagedPins {
    /// Lists the pins with damaged blocks; at most 10,000.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`] if the store fails.
    pub async fn list(&self) -> Result<Vec<DamagedPin>, Error> {
        let store = &self.store;
        let mut pins = Vec::new();
        for placement in store.damaged_placements(PLACEMENTS_MAX).await.map_err(log_store_error)? {
            let owners = store.owner_emails(&placement.cid, &placement.cluster, ACCOUNTS_MAX).await;
            pins.push(DamagedPin {
                cid: placement.cid,
                cluster: placement.cluster,
                blocks: placement.damaged_blocks,
                error: placement.error.map(|failure| failure.detail),
                attempts: placement.attempts,
                accounts: owners.map_err(log_store_error)?,
            });
        }
        Ok(pins)
    }
}

/// Runs until the service stops.
pub(super) async fn run(placements: &Placements) {
    while placements.tasks.sleep(INTERVAL).await {
        if let Err(error) = turn(placements).await {
            tracing::warn!(%error, "failed to look for damaged blocks");
        }
    }
}

/// Records in the rows what the clusters report. Returns how many placements changed.
pub(super) async fn turn(placements: &Placements) -> Result<usize, Error> {
    let mut found = HashMap::new();
    let mut unreachable = Vec::new();
    for setup in placements.clusters.iter() {
        match setup.driver.damaged(BLOCKS_MAX).await {
            Ok(holds) => {
                let placement = |(name, blocks)| Some((parse_placement_hold_name(&name)?, blocks));
                found.extend(holds.into_iter().filter_map(placement));
            }
            Err(error) => {
                tracing::warn!(cluster = %setup.info.id, %error, "failed to list damaged blocks");
                unreachable.push(setup.info.id.clone());
            }
        }
    }
    let known = placements.store.damaged_placements(PLACEMENTS_MAX).await.map_err(log_store_error)?;
    let now = placements.clock.now();
    let known = known.into_iter().filter(|known| !unreachable.contains(&known.cluster));
    let damage = changes(found, known, now);
    let changed = damage.len();
    if changed > 0 {
        placements.store.record_damage(damage, now).await.map_err(log_store_error)?;
        placements.wake_worker();
    }
    Ok(changed)
}

/// The changes that make the rows match what was found.
fn changes(
    mut found: HashMap<(ClusterId, Cid), u64>,
    known: impl Iterator<Item = PlacementRecord>,
    now: Timestamp,
) -> Vec<Damage> {
    let mut damage = Vec::new();
    let mut free = PLACEMENTS_MAX as usize;
    for PlacementRecord { cluster, cid, damaged_blocks, due_at, updated_at, .. } in known {
        free = free.saturating_sub(1);
        let blocks = found.remove(&(cluster.clone(), cid)).unwrap_or(0);
        // A placement that is not due was repaired, and as much new damage was found meanwhile.
        let is_left = blocks > 0 && due_at.is_none() && updated_at.after(RETRY_AFTER) <= now;
        if blocks != damaged_blocks || is_left {
            damage.push(Damage { cid, cluster, blocks });
        }
    }
    // The others follow when there is room: they would be written again with each look.
    for ((cluster, cid), blocks) in found.into_iter().take(free) {
        tracing::error!(%cid, %cluster, blocks, "damaged blocks found in a pin, fetching them again");
        damage.push(Damage { cid, cluster, blocks });
    }
    damage
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
    fn new_damage_of_the_same_size_is_repaired() {
        let found = || HashMap::from([((cluster(), cid()), 1)]);
        let noted = |placement, now| changes(found(), std::iter::once(placement), now);
        let later = now().after(RETRY_AFTER);
        assert_eq!(noted(placement(1, None), later), [Damage { cid: cid(), cluster: cluster(), blocks: 1 }]);
        assert_eq!(noted(placement(1, Some(later)), later), [], "it is due");
        assert_eq!(noted(placement(1, None), now()), [], "not before the wait is over");
    }
}

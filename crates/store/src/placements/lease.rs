//! Leases on placements: which worker processes which placement, and until when.
//!
//! A placement with a `due_at_ms` is scheduled. When it is due, it enters the queue (`ready = 1`), from which leases
//! take it in the order of `queue_ms`. While it is leased, `due_at_ms` is when the lease expires.

use cid::Cid;
use pinfold_model::{ClusterId, PlacementId, Timestamp};
use sqlx::FromRow;

use crate::db::row::number;
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::placements::release;
use crate::placements::release::is_wanted;
use crate::{PlacementRecord, Store, StoreError};

/// The most origins of one leased placement, over all accounts.
pub(crate) const ORIGINS_MAX: usize = 20;

/// The right to process a placement until the lease expires or is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub placement: PlacementId,
    /// Unique among all leases.
    pub number: i64,
}

/// A placement to process.
#[derive(Debug, Clone)]
pub struct LeasedPlacement {
    pub lease: Lease,
    pub placement: PlacementRecord,
    /// Whether a live pin needs the placement. If so it must be held, otherwise released.
    pub wanted: bool,
    /// The largest remaining storage of the accounts that wait for the placement, in bytes.
    pub budget_bytes: u64,
    /// Multiaddrs of peers that may have the content, as the accounts stated them.
    pub origins: Vec<String>,
}

/// How many placements a worker can process at the same time. Pins and releases have separate queues, and do not wait
/// for each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Placements to hold.
    pub pins: u32,
    /// Placements to release.
    pub releases: u32,
}

impl Capacity {
    /// The same number for each kind.
    #[must_use]
    pub const fn each(count: u32) -> Self {
        Self { pins: count, releases: count }
    }
}

#[derive(Debug, FromRow)]
struct KeyRow {
    id: i64,
}

impl Store {
    /// Leases due placements in the order of the queues, as many as `capacity` allows. The leases expire at `until`,
    /// which must be later than `now`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn lease_placements(
        &self,
        capacity: Capacity,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<LeasedPlacement>, StoreError> {
        let numbers = |count: u32| (0..count).map(|_| self.id(now)).collect();
        let (pins, releases) = (numbers(capacity.pins), numbers(capacity.releases));
        self.write(LeaseWrite { pins, releases, now, until }).await
    }

    /// Extends leases until `until`. Returns the leases that are still held, each with whether its placement is wanted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn renew_leases(
        &self,
        leases: Vec<Lease>,
        until: Timestamp,
    ) -> Result<Vec<(Lease, bool)>, StoreError> {
        self.write(Renew { leases, until }).await
    }

    /// Releases all leases and makes their placements due now. Placements due after `latest` also become due now: the
    /// clock was set back, because no placement is postponed that long. Returns the number of leases. Only for a
    /// process that knows that no other process uses the database; otherwise placements would be processed twice.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reset_placement_leases(&self, now: Timestamp, latest: Timestamp) -> Result<u64, StoreError> {
        self.write(ResetLeases { now, latest }).await
    }

    /// Corrects the schedule after the clock was set back to `now`: placements without a lease become due no later than
    /// `now`, leases expire no later than `until`, and no placement is behind a new one in the queue.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn clamp_schedule(&self, now: Timestamp, until: Timestamp) -> Result<(), StoreError> {
        self.write(ClampSchedule { now, until }).await
    }

    /// Whether a live pin needs the placement. For a worker that was notified of a change.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_wanted(&self, id: PlacementId) -> Result<bool, StoreError> {
        let live: Option<i64> = statement::query_scalar(
            "SELECT CAST(1 AS BIGINT) FROM pins WHERE placement_id = $1 AND phase <> 'failed' LIMIT 1",
        )
        .bind(id.0)
        .fetch_optional(&self.readers)
        .await?;
        Ok(live.is_some())
    }
}

/// The most placements that enter the queue with one call, to bound its duration. More than one call leases.
const READY_MAX: i64 = 1_000;

/// Adds due placements to the queue. This is a separate step because no index has the due placements in the order of
/// the queue. Each placement is read once when it becomes due, not with every lease.
pub(crate) const MARK_READY: &str = "UPDATE placements SET ready = 1 WHERE id IN \
     (SELECT id FROM placements WHERE ready = 0 AND due_at_ms IS NOT NULL AND due_at_ms <= $1 \
     ORDER BY due_at_ms LIMIT $2)";

/// Leases the first placement of a queue. The CASE is `PlacementState::after(Event::Leased)`; `tests/it/states.rs`
/// checks that they agree.
macro_rules! lease_first {
    ($queue:literal) => {
        concat!(
            "UPDATE placements SET lease = $1, due_at_ms = $2, updated_at_ms = $3, ",
            "ready = 0, requested = 0, state = CASE state WHEN 'queued' THEN 'pinning' ELSE state END ",
            "WHERE id = (SELECT id FROM placements WHERE ready = 1 AND ",
            $queue,
            " ORDER BY queue_ms, id LIMIT 1) AND ready = 1 RETURNING id"
        )
    };
}

pub(crate) const LEASE_PIN: &str = lease_first!("state <> 'releasing'");
pub(crate) const LEASE_RELEASE: &str = lease_first!("state = 'releasing'");

struct LeaseWrite {
    pins: Vec<i64>,
    releases: Vec<i64>,
    now: Timestamp,
    until: Timestamp,
}

impl Write for LeaseWrite {
    type Out = Vec<LeasedPlacement>;

    async fn run(&self, conn: &mut Conn) -> Result<Vec<LeasedPlacement>, StoreError> {
        statement::query(MARK_READY).bind(self.now.as_ms()).bind(READY_MAX).execute(&mut *conn).await?;
        let mut leased = Vec::new();
        for (sql, numbers) in [(LEASE_PIN, &self.pins), (LEASE_RELEASE, &self.releases)] {
            for number in numbers {
                let Some(placement) = self.next(conn, sql, *number).await? else { break };
                leased.push(placement);
            }
        }
        Ok(leased)
    }
}

impl LeaseWrite {
    async fn next(
        &self,
        conn: &mut Conn,
        sql: &'static str,
        lease: i64,
    ) -> Result<Option<LeasedPlacement>, StoreError> {
        let row: Option<KeyRow> = statement::query_as(sql)
            .bind(lease)
            .bind(self.until.as_ms())
            .bind(self.now.as_ms())
            .fetch_optional(&mut *conn)
            .await?;
        match row {
            Some(row) => read_leased(conn, Lease { placement: PlacementId(row.id), number: lease }).await,
            None => Ok(None),
        }
    }
}

/// Reads what the holder of a new lease needs. `None` if the placement no longer exists.
async fn read_leased(conn: &mut Conn, lease: Lease) -> Result<Option<LeasedPlacement>, StoreError> {
    let id = lease.placement;
    let Some(placement) = release::load(conn, id).await? else { return Ok(None) };
    let wanted = is_wanted(conn, id).await?;
    let (budget_bytes, origins) = match wanted {
        true => (budget(conn, id).await?, origins(conn, id).await?),
        false => (0, Vec::new()),
    };
    Ok(Some(LeasedPlacement { lease, placement, wanted, budget_bytes, origins }))
}

/// The largest remaining storage of the waiting accounts, in bytes. Unlimited if the placement has an active pin,
/// because its size is then already charged.
pub(crate) async fn budget(conn: &mut Conn, id: PlacementId) -> Result<u64, StoreError> {
    let active: Option<i64> = statement::query_scalar(
        "SELECT CAST(1 AS BIGINT) FROM pins WHERE placement_id = $1 AND phase = 'active' LIMIT 1",
    )
    .bind(id.0)
    .fetch_optional(&mut *conn)
    .await?;
    if active.is_some() {
        return Ok(u64::MAX);
    }
    let most: Option<i64> = statement::query_scalar(
        "SELECT MAX(a.storage_limit_bytes - a.used_bytes) FROM pins n JOIN accounts a ON a.id = n.account_id \
         WHERE n.placement_id = $1 AND n.phase = 'pending'",
    )
    .bind(id.0)
    .fetch_one(conn)
    .await?;
    Ok(number(most.unwrap_or(0)))
}

async fn origins(conn: &mut Conn, id: PlacementId) -> Result<Vec<String>, StoreError> {
    let lists: Vec<String> = statement::query_scalar(
        "SELECT origins FROM pins WHERE placement_id = $1 AND phase <> 'failed' AND origins IS NOT NULL LIMIT 20",
    )
    .bind(id.0)
    .fetch_all(conn)
    .await?;
    Ok(lists.iter().flat_map(|list| list.lines()).take(ORIGINS_MAX).map(str::to_owned).collect())
}

struct ResetLeases {
    now: Timestamp,
    latest: Timestamp,
}

impl Write for ResetLeases {
    type Out = u64;

    async fn run(&self, conn: &mut Conn) -> Result<u64, StoreError> {
        let done = statement::query(
            "UPDATE placements SET lease = NULL, due_at_ms = $1 \
             WHERE lease IS NOT NULL AND due_at_ms IS NOT NULL AND due_at_ms > $1",
        )
        .bind(self.now.as_ms())
        .execute(&mut *conn)
        .await?;
        statement::query(
            "UPDATE placements SET due_at_ms = $1 WHERE due_at_ms IS NOT NULL AND due_at_ms > $2 \
             AND lease IS NULL",
        )
        .bind(self.now.as_ms())
        .bind(self.latest.as_ms())
        .execute(conn)
        .await?;
        Ok(done.rows_affected())
    }
}

struct ClampSchedule {
    now: Timestamp,
    until: Timestamp,
}

impl Write for ClampSchedule {
    type Out = ();

    async fn run(&self, conn: &mut Conn) -> Result<(), StoreError> {
        statement::query(
            "UPDATE placements SET due_at_ms = CASE WHEN lease IS NULL THEN CAST($1 AS BIGINT) \
             ELSE CAST($2 AS BIGINT) END WHERE due_at_ms IS NOT NULL AND due_at_ms > $1 \
             AND (lease IS NULL OR due_at_ms > $2)",
        )
        .bind(self.now.as_ms())
        .bind(self.until.as_ms())
        .execute(&mut *conn)
        .await?;
        statement::query("UPDATE placements SET queue_ms = $1 WHERE due_at_ms IS NOT NULL AND queue_ms > $1")
            .bind(self.now.as_ms())
            .execute(conn)
            .await?;
        Ok(())
    }
}

struct Renew {
    leases: Vec<Lease>,
    until: Timestamp,
}

impl Write for Renew {
    type Out = Vec<(Lease, bool)>;

    async fn run(&self, conn: &mut Conn) -> Result<Vec<(Lease, bool)>, StoreError> {
        let mut held = Vec::new();
        for lease in &self.leases {
            let done = statement::query(
                "UPDATE placements SET due_at_ms = $3, ready = 0 WHERE id = $1 AND lease = $2",
            )
            .bind(lease.placement.0)
            .bind(lease.number)
            .bind(self.until.as_ms())
            .execute(&mut *conn)
            .await?;
            if done.rows_affected() > 0 {
                held.push((*lease, is_wanted(conn, lease.placement).await?));
            }
        }
        Ok(held)
    }
}

/// For logs.
impl std::fmt::Display for LeasedPlacement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (cid, cluster): (&Cid, &ClusterId) = (&self.placement.cid, &self.placement.cluster);
        write!(f, "{cid} in {cluster}")
    }
}

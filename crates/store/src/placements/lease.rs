//! Claims: who works on which placement, and for how long.

use cid::Cid;
use pinfold_model::{ClusterId, PlacementId, Timestamp};
use sqlx::FromRow;

use crate::db::row::number;
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::placements::release;
use crate::placements::release::is_wanted;
use crate::{PlacementRecord, Store, StoreError};

/// Origins of one claim: those of all accounts together.
pub(crate) const ORIGINS_MAX: usize = 20;

/// The right to work on a placement, until it runs out or somebody else takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// On which.
    pub placement: PlacementId,
    /// Its number; no two leases have the same.
    pub number: i64,
}

/// A placement to work on.
#[derive(Debug, Clone)]
pub struct LeasedPlacement {
    /// The right to do so.
    pub lease: Lease,
    /// The placement.
    pub placement: PlacementRecord,
    /// Whether a live pin wants it: then it shall be held, else released.
    pub wanted: bool,
    /// The most bytes that one of the accounts that wait for it can be charged.
    pub budget_bytes: u64,
    /// Multiaddrs of peers that are said to have it.
    pub origins: Vec<String>,
}

/// How many placements somebody has hands for: each kind has its own queue, and waits for none of the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Those that are to be held.
    pub pins: u32,
    /// Those that are to be released.
    pub releases: u32,
}

impl Capacity {
    /// As many for each kind.
    #[must_use]
    pub const fn each(hands: u32) -> Self {
        Self { pins: hands, releases: hands }
    }
}

#[derive(Debug, FromRow)]
struct KeyRow {
    id: i64,
}

impl Store {
    /// Claims placements that are due, as many as there are hands for, in the order of the queues, each until
    /// `until`, which is later than `now`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn lease_placements(
        &self,
        hands: Capacity,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<LeasedPlacement>, StoreError> {
        let numbers = |hands: u32| (0..hands).map(|_| self.id(now)).collect();
        let (pins, releases) = (numbers(hands.pins), numbers(hands.releases));
        self.write(LeaseWrite { pins, releases, now, until }).await
    }

    /// Prolongs leases until `until`. Gives, for each that is still held, whether its placement is wanted.
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

    /// Ends every lease, so that what somebody worked on is due now; so is what is due after `latest`, later
    /// than anything is put off, because the clock was set back since. Gives how many leases there were. Only
    /// for a process that knows that it is alone with the database: the work of any other would be done twice.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reset_placement_leases(&self, now: Timestamp, latest: Timestamp) -> Result<u64, StoreError> {
        self.write(TakeOver { now, latest }).await
    }

    /// After the clock was set back to `now`: what nobody works on is due now at the latest, leases end at
    /// `until` at the latest, and nobody stands later in the queue than who comes now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn clamp_schedule(&self, now: Timestamp, until: Timestamp) -> Result<(), StoreError> {
        self.write(ClampSchedule { now, until }).await
    }

    /// Whether a live pin wants the placement; for a worker that was woken.
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

/// Placements that come into the queue with one claim: bounds how long it lasts. More than are ever claimed.
const READY_MAX: i64 = 1_000;

/// What is due comes into the queue. Two steps, because no one index has what is due in the order of the queue:
/// each placement is looked at once when it comes due, and not again with every claim.
pub(crate) const MARK_READY: &str = "UPDATE placements SET ready = 1 WHERE id IN \
     (SELECT id FROM placements WHERE ready = 0 AND due_at_ms IS NOT NULL AND due_at_ms <= $1 \
     ORDER BY due_at_ms LIMIT $2)";

/// Claims the first of a queue. The CASE is `PlacementState::after(Event::Claimed)`; `tests/it/states.rs` holds them
/// together.
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
        let mut claims = Vec::new();
        for (sql, numbers) in [(LEASE_PIN, &self.pins), (LEASE_RELEASE, &self.releases)] {
            for number in numbers {
                let Some(claim) = self.next(conn, sql, *number).await? else { break };
                claims.push(claim);
            }
        }
        Ok(claims)
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
            Some(row) => claimed(conn, Lease { placement: PlacementId(row.id), number: lease }).await,
            None => Ok(None),
        }
    }
}

/// What the holder of a new lease has to know.
async fn claimed(conn: &mut Conn, lease: Lease) -> Result<Option<LeasedPlacement>, StoreError> {
    let id = lease.placement;
    let Some(placement) = release::load(conn, id).await? else { return Ok(None) };
    let wanted = is_wanted(conn, id).await?;
    let (budget_bytes, origins) = match wanted {
        true => (budget(conn, id).await?, origins(conn, id).await?),
        false => (0, Vec::new()),
    };
    Ok(Some(LeasedPlacement { lease, placement, wanted, budget_bytes, origins }))
}

/// The most that one of the waiting accounts has left. A pin that is kept is charged already.
pub(crate) async fn budget(conn: &mut Conn, id: PlacementId) -> Result<u64, StoreError> {
    let kept: Option<i64> = statement::query_scalar(
        "SELECT CAST(1 AS BIGINT) FROM pins WHERE placement_id = $1 AND phase = 'active' LIMIT 1",
    )
    .bind(id.0)
    .fetch_optional(&mut *conn)
    .await?;
    if kept.is_some() {
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

struct TakeOver {
    now: Timestamp,
    latest: Timestamp,
}

impl Write for TakeOver {
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

/// What a claim is for, in logs.
impl std::fmt::Display for LeasedPlacement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (cid, cluster): (&Cid, &ClusterId) = (&self.placement.cid, &self.placement.cluster);
        write!(f, "{cid} in {cluster}")
    }
}

//! Quota accounting: what accounts are charged for their pins.
//!
//! Only this module changes `used_bytes` and `pin_count`. At all times, `used_bytes` is the sum of `charged_bytes` of the
//! pins of the account. Each statement that changes `used_bytes` also sets `dedup_state`, so that the deduplicated usage
//! is counted again (`dedup_usage.rs`).

use pinfold_model::{AccountId, Failure, FailureCode, PinPhase};
use sqlx::FromRow;

use crate::db::row::{column, number};
use crate::db::statement;
use crate::db::write_queue::Conn;
use crate::statistics::PinSumChanges;
use crate::webhooks::outbox::watched;
use crate::{PlacementRecord, StoreError};

/// Message of pins that fail because the quota is exceeded.
pub(crate) const OVER_QUOTA: &str = "The content is larger than the remaining storage of the account";

/// Result of a successful charge.
#[derive(Debug, FromRow)]
pub(crate) struct Charged {
    /// 1 if a webhook subscribes to events of the account, otherwise 0.
    pub(crate) watched: i64,
}

/// A pin whose phase changed from pending to active or failed.
#[derive(Debug, FromRow)]
pub(crate) struct CompletedPin {
    pub(crate) id: i64,
    pub(crate) account_id: i64,
    /// 1 if a webhook subscribes to its events, otherwise 0.
    pub(crate) watched: i64,
}

/// Charges `bytes` to the account and adds `new_pins` to its pin count. `None`, without changes, if less storage is left
/// or the account is being removed.
pub(crate) async fn charge(
    conn: &mut Conn,
    account: AccountId,
    new_pins: usize,
    bytes: u64,
) -> Result<Option<Charged>, StoreError> {
    let charged = statement::query_as(concat!(
        "UPDATE accounts SET used_bytes = used_bytes + $2, pin_count = pin_count + $3, dedup_state = 1 ",
        "WHERE id = $1 AND used_bytes + $2 <= storage_limit_bytes AND removing_since_ms IS NULL RETURNING ",
        watched!("accounts.id"),
    ));
    Ok(charged.bind(account.0).bind(column(bytes)).bind(column(new_pins as u64)).fetch_optional(conn).await?)
}

/// Adds pins of unknown size to the pin count. Returns the remaining bytes; `None`, without changes, if no storage is
/// left or the account is being removed.
pub(crate) async fn add_pending_pins(
    conn: &mut Conn,
    account: AccountId,
    pins: usize,
) -> Result<Option<u64>, StoreError> {
    let room: Option<i64> = statement::query_scalar(
        "UPDATE accounts SET pin_count = pin_count + $2 \
         WHERE id = $1 AND used_bytes < storage_limit_bytes AND removing_since_ms IS NULL \
         RETURNING storage_limit_bytes - used_bytes",
    )
    .bind(account.0)
    .bind(column(pins as u64))
    .fetch_optional(conn)
    .await?;
    Ok(room.map(number))
}

/// The remaining bytes; `None` if there are none or the account is being removed.
pub(crate) async fn room(conn: &mut Conn, account: AccountId) -> Result<Option<u64>, StoreError> {
    let room: Option<i64> = statement::query_scalar(
        "SELECT storage_limit_bytes - used_bytes FROM accounts \
         WHERE id = $1 AND used_bytes < storage_limit_bytes AND removing_since_ms IS NULL",
    )
    .bind(account.0)
    .fetch_optional(conn)
    .await?;
    Ok(room.map(number))
}

/// Subtracts removed pins and their total charge from the account.
pub(crate) async fn remove_pins(
    conn: &mut Conn,
    account: AccountId,
    pins: u64,
    bytes: u64,
) -> Result<(), StoreError> {
    statement::query(
        "UPDATE accounts SET used_bytes = used_bytes - $2, pin_count = pin_count - $3, dedup_state = 1 \
         WHERE id = $1",
    )
    .bind(account.0)
    .bind(column(bytes))
    .bind(column(pins))
    .execute(conn)
    .await?;
    Ok(())
}

/// Fails the pending pins whose account lacks the storage. Looks up the account of each pending pin, so that it does not
/// scan all accounts that are full.
pub(crate) const FAIL_OVER_QUOTA: &str = concat!(
    "UPDATE pins SET phase = 'failed', error_code = $3, error_detail = $4 \
     WHERE placement_id = $1 AND phase = 'pending' AND EXISTS (SELECT 1 FROM accounts a \
     WHERE a.id = pins.account_id AND a.used_bytes + $2 > a.storage_limit_bytes) RETURNING id, account_id, ",
    watched!("pins.account_id")
);

/// Completes all pending pins of a placement that is held: charges and activates the pins whose account has enough
/// storage left, and fails the others. Returns the active pins, then the failed ones. An account has at most one pin of a
/// placement, so each statement charges it at most once.
pub(crate) async fn activate_pending(
    conn: &mut Conn,
    placement: &PlacementRecord,
    bytes: u64,
) -> Result<(Vec<CompletedPin>, Vec<CompletedPin>), StoreError> {
    let bytes = column(bytes);
    let failed: Vec<CompletedPin> = statement::query_as(FAIL_OVER_QUOTA)
        .bind(placement.id.0)
        .bind(bytes)
        .bind(FailureCode::QuotaExceeded.as_str())
        .bind(OVER_QUOTA)
        .fetch_all(&mut *conn)
        .await?;
    statement::query(
        "UPDATE accounts SET used_bytes = used_bytes + $2, dedup_state = 1 WHERE id IN \
         (SELECT account_id FROM pins WHERE placement_id = $1 AND phase = 'pending')",
    )
    .bind(placement.id.0)
    .bind(bytes)
    .execute(&mut *conn)
    .await?;
    let active = statement::query_as(concat!(
        "UPDATE pins SET phase = 'active', charged_bytes = $2 ",
        "WHERE placement_id = $1 AND phase = 'pending' RETURNING id, account_id, ",
        watched!("pins.account_id")
    ));
    let active: Vec<CompletedPin> = active.bind(placement.id.0).bind(bytes).fetch_all(&mut *conn).await?;
    move_pending(conn, placement, bytes, active.len(), failed.len()).await?;
    Ok((active, failed))
}

/// Fails all pending pins of a placement, and returns them.
pub(crate) async fn fail_pending(
    conn: &mut Conn,
    placement: &PlacementRecord,
    failure: &Failure,
) -> Result<Vec<CompletedPin>, StoreError> {
    let failed = statement::query_as(concat!(
        "UPDATE pins SET phase = 'failed', error_code = $2, error_detail = $3 ",
        "WHERE placement_id = $1 AND phase = 'pending' RETURNING id, account_id, ",
        watched!("pins.account_id")
    ));
    let failed = failed.bind(placement.id.0).bind(failure.code.as_str()).bind(&failure.detail);
    let failed: Vec<CompletedPin> = failed.fetch_all(&mut *conn).await?;
    move_pending(conn, placement, 0, 0, failed.len()).await?;
    Ok(failed)
}

/// Moves pins of a placement in the sums: from pending to active, each with `bytes`, and to failed.
async fn move_pending(
    conn: &mut Conn,
    placement: &PlacementRecord,
    bytes: i64,
    active: usize,
    failed: usize,
) -> Result<(), StoreError> {
    let (cluster, active, failed) = (placement.cluster.as_str(), signed(active), signed(failed));
    let mut sums = PinSumChanges::default();
    sums.add(cluster, PinPhase::Pending, -active - failed, 0);
    sums.add(cluster, PinPhase::Active, active, active.saturating_mul(bytes));
    sums.add(cluster, PinPhase::Failed, failed, 0);
    sums.write(conn).await
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

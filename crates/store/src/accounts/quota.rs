//! The books: what accounts are charged for their pins.
//!
//! Every statement that moves `used_bytes` or `pin_count` stands here. `used_bytes` is at all times the sum of
//! `charged_bytes` of the account's pins. Each of them also marks the account, to be counted anew without what its pins
//! share ([`crate::distinct`]).

use pinfold_model::{AccountId, Failure, FailureCode, PinPhase};
use sqlx::FromRow;

use crate::db::row::{column, number};
use crate::db::statement;
use crate::db::write_queue::Conn;
use crate::statistics::PinSumChanges;
use crate::webhooks::outbox::watched;
use crate::{PlacementRecord, StoreError};

/// What is said to accounts that can't pay.
pub(crate) const OVER_QUOTA: &str = "It is larger than what is left of your storage";

/// An account that was charged.
#[derive(Debug, FromRow)]
pub(crate) struct Charged {
    /// 1 if a webhook watches its pins.
    pub(crate) watched: i64,
}

/// A pin that waited, and does no more.
#[derive(Debug, FromRow)]
pub(crate) struct CompletedPin {
    pub(crate) id: i64,
    pub(crate) account_id: i64,
    /// 1 if a webhook watches it.
    pub(crate) watched: i64,
}

/// Charges pins, if that much is left; `None`, and nothing is changed, if not. `new_pins` of them are not counted yet.
/// Nothing is left of an account that is on its way out.
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

/// Counts new pins of unknown size, if anything is left at all, and gives how many bytes are.
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

/// How many bytes are left, if any are.
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

/// Takes so many pins, and what they were charged together, out of the books.
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

/// Each waiting pin's account is looked up; the accounts are not searched for those that are full.
pub(crate) const FAIL_OVER_QUOTA: &str = concat!(
    "UPDATE pins SET phase = 'failed', error_code = $3, error_detail = $4 \
     WHERE placement_id = $1 AND phase = 'pending' AND EXISTS (SELECT 1 FROM accounts a \
     WHERE a.id = pins.account_id AND a.used_bytes + $2 > a.storage_limit_bytes) RETURNING id, account_id, ",
    watched!("pins.account_id")
);

/// Settles every waiting pin of a placement that is held now: those whose account has that much left are charged and
/// kept, the others fail. Gives the kept ones, then the failed ones. An account has at most one pin of a placement, so
/// each statement counts it once.
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
    let kept = statement::query_as(concat!(
        "UPDATE pins SET phase = 'active', charged_bytes = $2 ",
        "WHERE placement_id = $1 AND phase = 'pending' RETURNING id, account_id, ",
        watched!("pins.account_id")
    ));
    let kept: Vec<CompletedPin> = kept.bind(placement.id.0).bind(bytes).fetch_all(&mut *conn).await?;
    move_pending(conn, placement, bytes, kept.len(), failed.len()).await?;
    Ok((kept, failed))
}

/// Gives every waiting pin of a placement up, and gives them.
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

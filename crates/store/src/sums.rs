//! Sums of accounts and pins, for statistics. They move in the transaction of what they count, so that they are exact
//! at all times and asking for them counts nothing.

use pinfold_model::{PlacementId, PlanCode, Standing};
use sqlx::QueryBuilder;

use crate::StoreError;
use crate::row::{column, push_list};
use crate::writer::Conn;

/// Adds accounts; a negative number takes them away.
pub(crate) async fn accounts(
    conn: &mut Conn,
    plan: &PlanCode,
    disabled: bool,
    accounts: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO account_sums (plan, disabled, accounts) VALUES ($1, $2, $3) ON CONFLICT (plan, disabled) \
         DO UPDATE SET accounts = account_sums.accounts + excluded.accounts",
    )
    .bind(plan.as_str())
    .bind(i64::from(disabled))
    .bind(accounts)
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds pins of a placement, each charged with `bytes`; a negative number of them takes them away.
pub(crate) async fn pins(
    conn: &mut Conn,
    placement: PlacementId,
    standing: Standing,
    pins: i64,
    bytes: u64,
) -> Result<(), StoreError> {
    if pins == 0 {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO pin_sums (cluster, standing, pins, bytes) SELECT cluster, $2, $3, $4 FROM placements \
         WHERE id = $1 ON CONFLICT (cluster, standing) \
         DO UPDATE SET pins = pin_sums.pins + excluded.pins, bytes = pin_sums.bytes + excluded.bytes",
    )
    .bind(placement.0)
    .bind(standing.as_str())
    .bind(pins)
    .bind(column(bytes).saturating_mul(pins))
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes pins away whose rows are about to go, at most [`LIST_MAX`](crate::row::LIST_MAX) of them.
pub(crate) async fn without_pins(conn: &mut Conn, pins: &[i64]) -> Result<(), StoreError> {
    let mut query = QueryBuilder::new(
        "INSERT INTO pin_sums (cluster, standing, pins, bytes) \
         SELECT p.cluster, n.standing, -COUNT(*), CAST(-SUM(n.charged_bytes) AS BIGINT) \
         FROM pins n JOIN placements p ON p.id = n.placement_id WHERE n.id IN ",
    );
    push_list(&mut query, pins).push(
        " GROUP BY p.cluster, n.standing ON CONFLICT (cluster, standing) \
         DO UPDATE SET pins = pin_sums.pins + excluded.pins, bytes = pin_sums.bytes + excluded.bytes",
    );
    query.build().execute(conn).await?;
    Ok(())
}

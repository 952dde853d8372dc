//! The audit log: who did what, kept with the change itself.

use pinfold_model::{AccountId, Timestamp};

use crate::StoreError;
use crate::writer::Conn;

/// Adds an entry, in the transaction of the change that it tells of.
pub(crate) async fn log(
    conn: &mut Conn,
    id: i64,
    account: AccountId,
    now: Timestamp,
    action: &'static str,
    subject: &str,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO audit (id, account_id, at_ms, action, subject) VALUES ($1, $2, $3, $4, $5)")
        .bind(id)
        .bind(account.0)
        .bind(now.as_ms())
        .bind(action)
        .bind(subject)
        .execute(conn)
        .await?;
    Ok(())
}

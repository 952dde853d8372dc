//! Referrals: the referral code of an account, and the accounts that were created with it.

use pinfold_model::{AccountId, Referral, Timestamp};
use sqlx::FromRow;

use crate::db::row::number;
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::{Store, StoreError};

/// A page of referrals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrals {
    /// Newest first.
    pub referrals: Vec<Referral>,
    /// Total number of referrals, up to the `count_max` of the query.
    pub total: u64,
}

#[derive(Debug, FromRow)]
struct ReferralRow {
    id: i64,
    created_at_ms: i64,
}

impl Store {
    /// The referral code of the account. An account without a code gets `fresh`. `None` if another account has the code
    /// `fresh`, or if there is no such account.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn referral_code(
        &self,
        account: AccountId,
        fresh: String,
    ) -> Result<Option<String>, StoreError> {
        let known: Option<Option<String>> =
            statement::query_scalar("SELECT referral_code FROM accounts WHERE id = $1")
                .bind(account.0)
                .fetch_optional(&self.readers)
                .await?;
        match known.flatten() {
            Some(known) => Ok(Some(known)),
            None => self.write(SetReferralCode { account, fresh }).await,
        }
    }

    /// Records that the account was referred by the account with this code. False, without changes, if the code is
    /// unknown or is its own, or if the account already has a referrer.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_referrer(&self, account: AccountId, code: String) -> Result<bool, StoreError> {
        self.write(SetReferrer { account, code }).await
    }

    /// Up to `limit` accounts referred by this account, newest first, after skipping `skip`. The total is counted up to
    /// `count_max`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn referrals(
        &self,
        account: AccountId,
        skip: u64,
        limit: u32,
        count_max: u32,
    ) -> Result<Referrals, StoreError> {
        let rows: Vec<ReferralRow> = statement::query_as(
            "SELECT id, created_at_ms FROM accounts WHERE referred_by = $1 ORDER BY id DESC \
             LIMIT $2 OFFSET $3",
        )
        .bind(account.0)
        .bind(i64::from(limit))
        .bind(crate::db::row::column(skip))
        .fetch_all(&self.readers)
        .await?;
        let total: i64 = statement::query_scalar(
            "SELECT COUNT(*) FROM (SELECT 1 FROM accounts WHERE referred_by = $1 LIMIT $2) counted",
        )
        .bind(account.0)
        .bind(i64::from(count_max))
        .fetch_one(&self.readers)
        .await?;
        let referral = |row: ReferralRow| Referral {
            account: AccountId(row.id),
            at: Timestamp::from_ms(row.created_at_ms),
        };
        Ok(Referrals { referrals: rows.into_iter().map(referral).collect(), total: number(total) })
    }
}

struct SetReferralCode {
    account: AccountId,
    fresh: String,
}

impl Write for SetReferralCode {
    type Out = Option<String>;

    async fn run(&self, conn: &mut Conn) -> Result<Option<String>, StoreError> {
        let code: Option<Option<String>> = statement::query_scalar(
            "UPDATE accounts SET referral_code = COALESCE(referral_code, $2) WHERE id = $1 \
             AND (referral_code IS NOT NULL OR NOT EXISTS (SELECT 1 FROM accounts WHERE referral_code = $2)) \
             RETURNING referral_code",
        )
        .bind(self.account.0)
        .bind(&self.fresh)
        .fetch_optional(conn)
        .await?;
        Ok(code.flatten())
    }
}

struct SetReferrer {
    account: AccountId,
    code: String,
}

impl Write for SetReferrer {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        let done = statement::query(
            "UPDATE accounts SET referred_by = (SELECT id FROM accounts WHERE referral_code = $2) \
             WHERE id = $1 AND referred_by IS NULL \
             AND EXISTS (SELECT 1 FROM accounts WHERE referral_code = $2 AND id <> $1)",
        )
        .bind(self.account.0)
        .bind(&self.code)
        .execute(conn)
        .await?;
        Ok(done.rows_affected() > 0)
    }
}

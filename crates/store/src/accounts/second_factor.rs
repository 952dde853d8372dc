//! The second factor of accounts: its secret, the codes that were used, and how often codes may be tried.

use std::time::Duration;

use pinfold_model::{AccountId, Actor, AuditEvent, Timestamp};
use sqlx::FromRow;

use crate::audit::Journal;
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::{Store, StoreError};

/// An account's second factor.
#[derive(Clone)]
pub struct SecondFactor {
    /// The secret, in base32.
    pub secret: String,
    /// Whether it is in force; before that it is only set up.
    pub is_on: bool,
    /// The time step of the last code that was taken.
    pub last_step: i64,
}

#[derive(FromRow)]
struct SecondFactorRow {
    totp_secret: String,
    totp_enabled: i64,
    totp_step: i64,
}

impl std::fmt::Debug for SecondFactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecondFactor(is_on: {}, last_step: {})", self.is_on, self.last_step)
    }
}

/// A code that was found to be right: to be used up, unless somebody else was faster.
#[derive(Clone)]
pub struct TotpCode {
    /// The secret that it belongs to, in base32.
    pub secret: String,
    /// Its time step.
    pub step: i64,
    /// The tries that it counted in: it gives its own one back.
    pub bucket: AttemptBucket,
}

/// How often codes may be tried: `tries` at once, then one more each `refill`. It is never empty for longer, so that
/// nobody is locked out of an account for good.
#[derive(Debug, Clone, Copy)]
pub struct AttemptBucket {
    /// The tries of a full bucket.
    pub tries: u32,
    /// How long until one try is given back.
    pub refill: Duration,
}

impl AttemptBucket {
    fn refill_ms(self) -> i64 {
        i64::try_from(self.refill.as_millis()).unwrap_or(i64::MAX)
    }

    /// Takes a try out of a bucket that will be full at `full_at_ms`: gives when it will be full then, or how long
    /// to wait for a try. A time that no number of tries leads to is that of a clock that was set back since.
    fn take(self, full_at_ms: i64, now_ms: i64) -> Result<i64, Duration> {
        let refill = self.refill_ms();
        let whole = refill.saturating_mul(i64::from(self.tries));
        let missing = full_at_ms.saturating_sub(now_ms).max(0);
        let missing = if missing > whole { 0 } else { missing };
        let after = missing.saturating_add(refill);
        if after <= whole {
            return Ok(now_ms.saturating_add(after));
        }
        Err(Duration::from_millis(u64::try_from(after - whole).unwrap_or(0)))
    }
}

impl Store {
    /// The account's second factor, if one was set up.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn second_factor(&self, account: AccountId) -> Result<Option<SecondFactor>, StoreError> {
        let query = statement::query_as(
            "SELECT totp_secret, totp_enabled, totp_step FROM accounts \
             WHERE id = $1 AND totp_secret IS NOT NULL",
        );
        let row: Option<SecondFactorRow> = query.bind(account.0).fetch_optional(&self.readers).await?;
        Ok(row.map(|row| SecondFactor {
            secret: row.totp_secret,
            is_on: row.totp_enabled != 0,
            last_step: row.totp_step,
        }))
    }

    /// Sets a second factor up, in place of one that is not in force; false when one is in force.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_up_second_factor(
        &self,
        account: AccountId,
        secret: String,
        by: Actor,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(SetUp { account, secret, by, now, journal: self.journal() }).await
    }

    /// Puts the second factor in force that a right code was shown for, and uses the code up; false when it is in
    /// force already, or another one was set up meanwhile.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn enable_second_factor(
        &self,
        account: AccountId,
        code: TotpCode,
        by: Actor,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(TurnOn { account, code, by, now, journal: self.journal() }).await
    }

    /// Removes a second factor; false when none was in force. With a code, only if that was not used up before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn disable_second_factor(
        &self,
        account: AccountId,
        code: Option<TotpCode>,
        by: Actor,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(TurnOff { account, code, by, now, journal: self.journal() }).await
    }

    /// Counts a try of a code, before the code is looked at; gives how long to wait when there were too many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_code_attempt(
        &self,
        account: AccountId,
        bucket: AttemptBucket,
        now: Timestamp,
    ) -> Result<Option<Duration>, StoreError> {
        self.write(TakeTry { account, bucket, now }).await
    }

    /// Uses a code up; false when it, or a later one, was used before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn consume_code(&self, account: AccountId, code: TotpCode) -> Result<bool, StoreError> {
        self.write(UseCode { account, code }).await
    }
}

/// Counts a try inside a transaction.
pub(crate) async fn take_try(
    conn: &mut Conn,
    account: AccountId,
    bucket: AttemptBucket,
    now: Timestamp,
) -> Result<Option<Duration>, StoreError> {
    let query = statement::query_scalar("SELECT totp_full_at_ms FROM accounts WHERE id = $1").bind(account.0);
    let full_at_ms: i64 = query.fetch_optional(&mut *conn).await?.unwrap_or(0);
    match bucket.take(full_at_ms, now.as_ms()) {
        Err(wait) => Ok(Some(wait)),
        Ok(full_at_ms) => {
            let query = statement::query("UPDATE accounts SET totp_full_at_ms = $2 WHERE id = $1");
            query.bind(account.0).bind(full_at_ms).execute(conn).await?;
            Ok(None)
        }
    }
}

/// Uses a code up inside a transaction, and gives its try back.
pub(crate) async fn use_code(
    conn: &mut Conn,
    account: AccountId,
    code: &TotpCode,
) -> Result<bool, StoreError> {
    let done = statement::query(
        "UPDATE accounts SET totp_step = $3, totp_full_at_ms = totp_full_at_ms - $4 \
         WHERE id = $1 AND totp_secret = $2 AND totp_enabled = 1 AND totp_step < $3",
    )
    .bind(account.0)
    .bind(&code.secret)
    .bind(code.step)
    .bind(code.bucket.refill_ms())
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

struct SetUp {
    account: AccountId,
    secret: String,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for SetUp {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        let done = statement::query(
            "UPDATE accounts SET totp_secret = $2, totp_step = 0 WHERE id = $1 AND totp_enabled = 0",
        )
        .bind(self.account.0)
        .bind(&self.secret)
        .execute(&mut *conn)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        self.journal.log(conn, &AuditEvent::new(self.account, self.by, "2fa.setup", ""), self.now).await?;
        Ok(true)
    }
}

struct TurnOn {
    account: AccountId,
    code: TotpCode,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for TurnOn {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        let done = statement::query(
            "UPDATE accounts SET totp_enabled = 1, totp_step = $3, totp_full_at_ms = totp_full_at_ms - $4 \
             WHERE id = $1 AND totp_secret = $2 AND totp_enabled = 0",
        )
        .bind(self.account.0)
        .bind(&self.code.secret)
        .bind(self.code.step)
        .bind(self.code.bucket.refill_ms())
        .execute(&mut *conn)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        self.journal.log(conn, &AuditEvent::new(self.account, self.by, "2fa.enable", ""), self.now).await?;
        Ok(true)
    }
}

struct TurnOff {
    account: AccountId,
    code: Option<TotpCode>,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for TurnOff {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        if let Some(code) = &self.code
            && !use_code(conn, self.account, code).await?
        {
            return Ok(false);
        }
        let done = statement::query(
            "UPDATE accounts SET totp_enabled = 0, totp_secret = NULL, totp_step = 0 WHERE id = $1 AND totp_enabled = 1",
        )
        .bind(self.account.0)
        .execute(&mut *conn)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        self.journal.log(conn, &AuditEvent::new(self.account, self.by, "2fa.disable", ""), self.now).await?;
        Ok(true)
    }
}

struct TakeTry {
    account: AccountId,
    bucket: AttemptBucket,
    now: Timestamp,
}

impl Write for TakeTry {
    type Out = Option<Duration>;

    async fn run(&self, conn: &mut Conn) -> Result<Option<Duration>, StoreError> {
        take_try(conn, self.account, self.bucket, self.now).await
    }
}

struct UseCode {
    account: AccountId,
    code: TotpCode,
}

impl Write for UseCode {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        use_code(conn, self.account, &self.code).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUCKET: AttemptBucket = AttemptBucket { tries: 3, refill: Duration::from_secs(60) };

    #[test]
    fn a_bucket_gives_its_tries_and_then_one_each_refill() {
        let mut full_at_ms = 0;
        for _ in 0..3 {
            full_at_ms = BUCKET.take(full_at_ms, 1_000).unwrap();
        }
        assert_eq!(BUCKET.take(full_at_ms, 1_000), Err(Duration::from_secs(60)));
        assert_eq!(BUCKET.take(full_at_ms, 41_000), Err(Duration::from_secs(20)));
        assert_eq!(BUCKET.take(full_at_ms, 61_000), Ok(full_at_ms + 60_000));
    }

    #[test]
    fn a_clock_that_was_set_back_locks_nobody_out() {
        assert_eq!(BUCKET.take(i64::MAX, 1_000), Ok(61_000));
    }
}

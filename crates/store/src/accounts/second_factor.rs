//! The second factor (TOTP) of accounts: its secret, the last consumed code, and the limit of attempts.

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
    /// In base32.
    pub secret: String,
    /// Whether logins require a code. False after the setup until it is enabled with a code.
    pub is_on: bool,
    /// Time step of the last consumed code.
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

/// A verified code that is to be consumed. Consuming fails if a concurrent request consumed it first.
#[derive(Clone)]
pub struct TotpCode {
    /// The secret with which it was verified, in base32.
    pub secret: String,
    /// Time step of the code.
    pub step: i64,
    /// The bucket that the attempt was taken from. Consuming the code returns the attempt.
    pub bucket: AttemptBucket,
}

/// Limit of attempts as a token bucket: up to `tries` attempts at once, then one for each `refill`. The wait is at most
/// one `refill`, so that an account is never locked out permanently.
#[derive(Debug, Clone, Copy)]
pub struct AttemptBucket {
    /// Number of attempts of a full bucket.
    pub tries: u32,
    /// Time after which one attempt is added.
    pub refill: Duration,
}

impl AttemptBucket {
    fn refill_ms(self) -> i64 {
        i64::try_from(self.refill.as_millis()).unwrap_or(i64::MAX)
    }

    /// Takes an attempt from a bucket that will be full at `full_at_ms`. Returns the new time at which it will be full,
    /// or how long to wait for an attempt. A `full_at_ms` that is too far ahead for any number of attempts was written
    /// before the clock was set back, and counts as a full bucket.
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

    /// Sets up a second factor, replacing one that is not enabled. False, without changes, if one is enabled.
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

    /// Enables the second factor for which the code was verified, and consumes the code. False, without changes, if it is
    /// already enabled, or another one was set up since.
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
        self.write(Enable { account, code, by, now, journal: self.journal() }).await
    }

    /// Deletes the second factor. False, without changes, if none was enabled, or if the given code was consumed before.
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
        self.write(Disable { account, code, by, now, journal: self.journal() }).await
    }

    /// Counts an attempt. Called before the code is verified. Returns how long to wait if there were too many attempts.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_code_attempt(
        &self,
        account: AccountId,
        bucket: AttemptBucket,
        now: Timestamp,
    ) -> Result<Option<Duration>, StoreError> {
        self.write(TakeAttempt { account, bucket, now }).await
    }

    /// Consumes a code. False if it or a later one was consumed before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn consume_code(&self, account: AccountId, code: TotpCode) -> Result<bool, StoreError> {
        self.write(ConsumeCode { account, code }).await
    }
}

/// Counts an attempt inside a transaction.
pub(crate) async fn take_attempt(
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

/// Consumes a code and returns its attempt to the bucket, inside a transaction.
pub(crate) async fn consume_code(
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

struct Enable {
    account: AccountId,
    code: TotpCode,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for Enable {
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

struct Disable {
    account: AccountId,
    code: Option<TotpCode>,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for Disable {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        if let Some(code) = &self.code
            && !consume_code(conn, self.account, code).await?
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

struct TakeAttempt {
    account: AccountId,
    bucket: AttemptBucket,
    now: Timestamp,
}

impl Write for TakeAttempt {
    type Out = Option<Duration>;

    async fn run(&self, conn: &mut Conn) -> Result<Option<Duration>, StoreError> {
        take_attempt(conn, self.account, self.bucket, self.now).await
    }
}

struct ConsumeCode {
    account: AccountId,
    code: TotpCode,
}

impl Write for ConsumeCode {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        consume_code(conn, self.account, &self.code).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUCKET: AttemptBucket = AttemptBucket { tries: 3, refill: Duration::from_secs(60) };

    #[test]
    fn bucket_allows_its_attempts_and_then_one_for_each_refill() {
        let mut full_at_ms = 0;
        for _ in 0..3 {
            full_at_ms = BUCKET.take(full_at_ms, 1_000).unwrap();
        }
        assert_eq!(BUCKET.take(full_at_ms, 1_000), Err(Duration::from_secs(60)));
        assert_eq!(BUCKET.take(full_at_ms, 41_000), Err(Duration::from_secs(20)));
        assert_eq!(BUCKET.take(full_at_ms, 61_000), Ok(full_at_ms + 60_000));
    }

    #[test]
    fn clock_that_was_set_back_does_not_lock_out_the_account() {
        assert_eq!(BUCKET.take(i64::MAX, 1_000), Ok(61_000));
    }
}

//! Requests that their clients gave a name, and what was answered, so that a second try gets the same answer.
//!
//! A request is reserved before it runs, under a lease that whoever runs it renews. What it was answered is written
//! when it is over; or the reservation is let go, as if it had never been. A reservation whose lease ran out is
//! that of a process that is gone: the next request with its name runs.

use pinfold_model::{AccountId, StoredResponse, Timestamp};
use sqlx::FromRow;

use crate::db::row::{column, number};
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::{Store, StoreError};

/// Requests that are forgotten to make room for a new one: more than one comes at a time.
const DELETE_STEP: i64 = 20;

/// A request with a name.
#[derive(Debug, Clone)]
pub struct IdempotentRequest {
    /// Whose it is.
    pub account: AccountId,
    /// The hash of its name and of what its credential may do.
    pub name_hash: String,
    /// The hash of what it asks for, without its body.
    pub head_hash: String,
    /// The hash of its body, if that is known before it runs.
    pub body_hash: Option<String>,
}

/// What all named requests of an account may take.
#[derive(Debug, Clone, Copy)]
pub struct RequestBounds {
    /// So many.
    pub requests_max: u64,
    /// The bytes of their answers.
    pub bytes_max: u64,
    /// Those made before are forgotten.
    pub made_after: Timestamp,
}

/// The right to run a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    id: i64,
    lease: i64,
}

/// What came of a [`Store::reserve`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReserveOutcome {
    /// It is the first of its name: run it.
    Acquired(Reservation),
    /// One of this name is running.
    InProgress,
    /// Another request has this name.
    Mismatch,
    /// It was answered so, if its body is the same.
    Completed(StoredResponse),
}

#[derive(Debug, FromRow)]
struct RequestRow {
    id: i64,
    head_hash: String,
    body_hash: Option<String>,
    lease: Option<i64>,
    lease_until_ms: Option<i64>,
    status: Option<i64>,
    headers: Option<String>,
    body: Option<String>,
    created_at_ms: i64,
}

impl RequestRow {
    fn answer(self) -> Option<StoredResponse> {
        let lines = self.headers.as_deref().unwrap_or_default().lines();
        let headers = lines.filter_map(|line| line.split_once(": "));
        Some(StoredResponse {
            code: u16::try_from(self.status?).ok()?,
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            body: self.body,
            request_body_hash: self.body_hash?,
        })
    }
}

impl Store {
    /// Reserves a request under its name until `lease_until`, if none of this name is known. The oldest of the
    /// account are forgotten for it when there are too many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reserve(
        &self,
        request: IdempotentRequest,
        bounds: RequestBounds,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<ReserveOutcome, StoreError> {
        let (id, lease) = (self.id(now), self.id(now));
        self.write(Reserve { id, lease, request, bounds, lease_until, now }).await
    }

    /// Prolongs a reservation; false if somebody else has it now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn renew_reservation(
        &self,
        reservation: Reservation,
        lease_until: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(Renew { reservation, lease_until }).await
    }

    /// Keeps what a reserved request was answered; false if somebody else has the reservation now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn store_response(
        &self,
        reservation: Reservation,
        answer: StoredResponse,
    ) -> Result<bool, StoreError> {
        self.write(Keep { reservation, answer }).await
    }

    /// Lets a reservation go: the next request of its name runs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn release_reservation(&self, reservation: Reservation) -> Result<(), StoreError> {
        self.write(Release { reservation }).await
    }

    /// Ends every reservation that somebody has, after which their requests may run again. Only for a process that
    /// knows that it is alone with the database.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reset_reservations(&self) -> Result<u64, StoreError> {
        self.write(TakeOver).await
    }

    /// Forgets up to `limit` named requests that were made before `before`, and gives how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_expired_requests(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.write(Sweep { before, limit }).await
    }
}

struct Reserve {
    id: i64,
    lease: i64,
    request: IdempotentRequest,
    bounds: RequestBounds,
    lease_until: Timestamp,
    now: Timestamp,
}

impl Write for Reserve {
    type Out = ReserveOutcome;

    async fn run(&self, conn: &mut Conn) -> Result<ReserveOutcome, StoreError> {
        let known: Option<RequestRow> = statement::query_as(
            "SELECT id, head_hash, body_hash, lease, lease_until_ms, status, headers, body, created_at_ms \
             FROM idempotent_requests WHERE account_id = $1 AND name_hash = $2",
        )
        .bind(self.request.account.0)
        .bind(&self.request.name_hash)
        .fetch_optional(&mut *conn)
        .await?;
        if let Some(known) = known {
            if known.created_at_ms >= self.bounds.made_after.as_ms() && !self.is_dead(&known) {
                return Ok(self.compare(known));
            }
            forget(conn, &[known.id]).await?;
        }
        self.make_room(conn).await?;
        self.insert(conn).await?;
        Ok(ReserveOutcome::Acquired(Reservation { id: self.id, lease: self.lease }))
    }
}

impl Reserve {
    /// Whether it is the reservation of a process that is gone.
    fn is_dead(&self, known: &RequestRow) -> bool {
        known.lease.is_some() && known.lease_until_ms.is_none_or(|until| until <= self.now.as_ms())
    }

    fn compare(&self, known: RequestRow) -> ReserveOutcome {
        let differs =
            |one: &Option<String>, other: &Option<String>| one.is_some() && other.is_some() && one != other;
        if known.head_hash != self.request.head_hash || differs(&known.body_hash, &self.request.body_hash) {
            return ReserveOutcome::Mismatch;
        }
        if known.lease.is_some() {
            return ReserveOutcome::InProgress;
        }
        known.answer().map_or(ReserveOutcome::Mismatch, ReserveOutcome::Completed)
    }

    /// Forgets the oldest answers if there are too many.
    async fn make_room(&self, conn: &mut Conn) -> Result<(), StoreError> {
        let account = self.request.account.0;
        let sums: Option<(i64, i64)> =
            statement::query_as("SELECT requests, bytes FROM idempotent_request_sums WHERE account_id = $1")
                .bind(account)
                .fetch_optional(&mut *conn)
                .await?;
        let (requests, bytes) = sums.unwrap_or((0, 0));
        if number(requests) < self.bounds.requests_max && number(bytes) < self.bounds.bytes_max {
            return Ok(());
        }
        let oldest: Vec<i64> = statement::query_scalar(
            "SELECT id FROM idempotent_requests WHERE account_id = $1 AND lease IS NULL \
             ORDER BY created_at_ms, id LIMIT $2",
        )
        .bind(account)
        .bind(DELETE_STEP)
        .fetch_all(&mut *conn)
        .await?;
        forget(conn, &oldest).await
    }

    async fn insert(&self, conn: &mut Conn) -> Result<(), StoreError> {
        let request = &self.request;
        statement::query(
            "INSERT INTO idempotent_requests (id, account_id, name_hash, head_hash, body_hash, lease, lease_until_ms, \
             created_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(self.id)
        .bind(request.account.0)
        .bind(&request.name_hash)
        .bind(&request.head_hash)
        .bind(&request.body_hash)
        .bind(self.lease)
        .bind(self.lease_until.as_ms())
        .bind(self.now.as_ms())
        .execute(&mut *conn)
        .await?;
        statement::query(
            "INSERT INTO idempotent_request_sums (account_id, requests, bytes) VALUES ($1, 1, 0) \
             ON CONFLICT (account_id) DO UPDATE SET requests = idempotent_request_sums.requests + 1",
        )
        .bind(request.account.0)
        .execute(conn)
        .await?;
        Ok(())
    }
}

/// Deletes rows and takes them out of the sums.
async fn forget(conn: &mut Conn, ids: &[i64]) -> Result<(), StoreError> {
    for id in ids {
        let row: Option<(i64, i64)> = statement::query_as(
            "DELETE FROM idempotent_requests WHERE id = $1 RETURNING account_id, body_bytes",
        )
        .bind(id)
        .fetch_optional(&mut *conn)
        .await?;
        let Some((account, bytes)) = row else { continue };
        statement::query(
            "UPDATE idempotent_request_sums SET requests = requests - 1, bytes = bytes - $2 WHERE account_id = $1",
        )
        .bind(account)
        .bind(bytes)
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

struct Renew {
    reservation: Reservation,
    lease_until: Timestamp,
}

impl Write for Renew {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        let done = statement::query(
            "UPDATE idempotent_requests SET lease_until_ms = $3 WHERE id = $1 AND lease = $2",
        )
        .bind(self.reservation.id)
        .bind(self.reservation.lease)
        .bind(self.lease_until.as_ms())
        .execute(conn)
        .await?;
        Ok(done.rows_affected() > 0)
    }
}

struct Keep {
    reservation: Reservation,
    answer: StoredResponse,
}

impl Write for Keep {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        let answer = &self.answer;
        let headers: Vec<_> = answer.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let headers = headers.join("\n");
        let bytes = column((answer.body.as_ref().map_or(0, String::len) + headers.len()) as u64);
        let account: Option<i64> = statement::query_scalar(
            "UPDATE idempotent_requests SET status = $3, headers = $4, body = $5, body_hash = $6, body_bytes = $7, \
             lease = NULL, lease_until_ms = NULL WHERE id = $1 AND lease = $2 RETURNING account_id",
        )
        .bind(self.reservation.id)
        .bind(self.reservation.lease)
        .bind(i64::from(answer.code))
        .bind(headers)
        .bind(&answer.body)
        .bind(&answer.request_body_hash)
        .bind(bytes)
        .fetch_optional(&mut *conn)
        .await?;
        let Some(account) = account else { return Ok(false) };
        statement::query("UPDATE idempotent_request_sums SET bytes = bytes + $2 WHERE account_id = $1")
            .bind(account)
            .bind(bytes)
            .execute(conn)
            .await?;
        Ok(true)
    }
}

struct Release {
    reservation: Reservation,
}

impl Write for Release {
    type Out = ();

    async fn run(&self, conn: &mut Conn) -> Result<(), StoreError> {
        let held: Option<i64> =
            statement::query_scalar("SELECT id FROM idempotent_requests WHERE id = $1 AND lease = $2")
                .bind(self.reservation.id)
                .bind(self.reservation.lease)
                .fetch_optional(&mut *conn)
                .await?;
        match held {
            Some(id) => forget(conn, &[id]).await,
            None => Ok(()),
        }
    }
}

struct TakeOver;

impl Write for TakeOver {
    type Out = u64;

    async fn run(&self, conn: &mut Conn) -> Result<u64, StoreError> {
        let done =
            statement::query("UPDATE idempotent_requests SET lease_until_ms = NULL WHERE lease IS NOT NULL");
        Ok(done.execute(conn).await?.rows_affected())
    }
}

struct Sweep {
    before: Timestamp,
    limit: u32,
}

pub(crate) const OLD_REQUESTS: &str =
    "SELECT id FROM idempotent_requests WHERE created_at_ms < $1 ORDER BY created_at_ms, id LIMIT $2";

impl Write for Sweep {
    type Out = u64;

    async fn run(&self, conn: &mut Conn) -> Result<u64, StoreError> {
        let old: Vec<i64> = statement::query_scalar(OLD_REQUESTS)
            .bind(self.before.as_ms())
            .bind(i64::from(self.limit))
            .fetch_all(&mut *conn)
            .await?;
        forget(conn, &old).await?;
        Ok(old.len() as u64)
    }
}

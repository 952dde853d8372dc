//! Requests with an idempotency key and their responses, so that a retry gets the same response.
//!
//! A request is reserved before it runs, under a lease that its process renews. When it completes, its response is
//! stored, or the reservation is released as if it had never existed. If the lease of a reservation has expired, its
//! process has stopped, and the next request with the key runs.

use pinfold_model::{AccountId, StoredResponse, Timestamp};
use sqlx::FromRow;

use crate::db::row::{column, number};
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::{Store, StoreError};

/// Requests that are deleted to make room for a new one. More than one, so that the number falls below its limit.
const DELETE_STEP: i64 = 20;

/// A request with an idempotency key.
#[derive(Debug, Clone)]
pub struct IdempotentRequest {
    pub account: AccountId,
    /// Hash of the idempotency key and of the permissions of the credential.
    pub name_hash: String,
    /// Hash of the request without its body.
    pub head_hash: String,
    /// Hash of the body, if known before the request runs.
    pub body_hash: Option<String>,
}

/// Limits on the stored requests of an account.
#[derive(Debug, Clone, Copy)]
pub struct RequestBounds {
    pub requests_max: u64,
    /// The total size of the stored responses.
    pub bytes_max: u64,
    /// Requests from before this time are ignored and deleted.
    pub made_after: Timestamp,
}

/// The right to run a request, until its lease expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    id: i64,
    lease: i64,
}

/// The result of [`Store::reserve`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReserveOutcome {
    /// The key is new. The caller runs the request.
    Acquired(Reservation),
    /// A request with this key is running.
    InProgress,
    /// A different request has used this key.
    Mismatch,
    /// The stored response. It applies only if the bodies of the requests have the same hash.
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
    fn response(self) -> Option<StoredResponse> {
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
    /// Reserves the idempotency key of a request until `lease_until`, unless it is in use. Deletes the oldest requests
    /// of the account if there are too many.
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

    /// Extends a reservation. False if it was lost.
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

    /// Stores the response to a reserved request. False if the reservation was lost.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn store_response(
        &self,
        reservation: Reservation,
        response: StoredResponse,
    ) -> Result<bool, StoreError> {
        self.write(StoreResponse { reservation, response }).await
    }

    /// Releases a reservation. The next request with the key runs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn release_reservation(&self, reservation: Reservation) -> Result<(), StoreError> {
        self.write(Release { reservation }).await
    }

    /// Expires all reservations, so that their requests can run again. Returns their number. Only for a process that
    /// knows that no other process uses the database.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reset_reservations(&self) -> Result<u64, StoreError> {
        self.write(ResetReservations).await
    }

    /// Deletes up to `limit` requests from before `before`. Returns their number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_expired_requests(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.write(DeleteExpired { before, limit }).await
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
            if known.created_at_ms >= self.bounds.made_after.as_ms() && !self.has_expired(&known) {
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
    /// Whether the lease of the reservation has expired, because its process has stopped.
    fn has_expired(&self, known: &RequestRow) -> bool {
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
        known.response().map_or(ReserveOutcome::Mismatch, ReserveOutcome::Completed)
    }

    /// Deletes the oldest responses if there are too many.
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

/// Deletes requests and subtracts them from the sums.
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

struct StoreResponse {
    reservation: Reservation,
    response: StoredResponse,
}

impl Write for StoreResponse {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        let response = &self.response;
        let headers: Vec<_> =
            response.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let headers = headers.join("\n");
        let bytes = column((response.body.as_ref().map_or(0, String::len) + headers.len()) as u64);
        let account: Option<i64> = statement::query_scalar(
            "UPDATE idempotent_requests SET status = $3, headers = $4, body = $5, body_hash = $6, body_bytes = $7, \
             lease = NULL, lease_until_ms = NULL WHERE id = $1 AND lease = $2 RETURNING account_id",
        )
        .bind(self.reservation.id)
        .bind(self.reservation.lease)
        .bind(i64::from(response.code))
        .bind(headers)
        .bind(&response.body)
        .bind(&response.request_body_hash)
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

struct ResetReservations;

impl Write for ResetReservations {
    type Out = u64;

    async fn run(&self, conn: &mut Conn) -> Result<u64, StoreError> {
        let done =
            statement::query("UPDATE idempotent_requests SET lease_until_ms = NULL WHERE lease IS NOT NULL");
        Ok(done.execute(conn).await?.rows_affected())
    }
}

struct DeleteExpired {
    before: Timestamp,
    limit: u32,
}

pub(crate) const OLD_REQUESTS: &str =
    "SELECT id FROM idempotent_requests WHERE created_at_ms < $1 ORDER BY created_at_ms, id LIMIT $2";

impl Write for DeleteExpired {
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

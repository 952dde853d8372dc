//! Idempotency keys: a request with a key runs once, and a repeated request gets the stored response.
//!
//! A key is known for a day, per account and set of scopes. The same request with the key gets the stored response; another
//! request is refused; a request that arrives while the first one is running is refused with a time to
//! retry. A running request has a lease, so that its key becomes free if its process dies: then the request runs again.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use pinfold_model::{Clock, IdempotencyKey, StoredResponse};
use pinfold_store::{IdempotentRequest, RequestBounds, Reservation, ReserveOutcome, Store};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use crate::error::log_store_error;
use crate::tasks::Tasks;
use crate::{Caller, Error, IdempotencyError};

/// How long a key is known.
const KEEP_TIME: Duration = Duration::from_hours(24);
/// Lease duration of a running request.
const LEASE: Duration = Duration::from_secs(60);
/// When to retry while the first request is running.
const RETRY: Duration = Duration::from_secs(2);
/// Keys of one account that are stored; then the oldest are deleted.
const REQUESTS_MAX: u64 = 50_000;
/// Maximum size in bytes of all stored responses of one account.
const BYTES_MAX: u64 = 64 << 20;
/// Maximum size of a stored response in bytes: that of a directory with some hundred files.
const RESPONSE_BYTES_MAX: usize = 256 << 10;
/// Keys that are deleted in one transaction.
const CLEANUP_STEP: u32 = 500;

/// Wait between two looks for old keys.
const CLEANUP_INTERVAL: Duration = Duration::from_mins(1);

/// The idempotency keys of all accounts. Cheap to clone.
#[derive(Clone)]
pub struct Idempotency {
    store: Store,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
}

/// Hashes of a request. Requests with the same hashes are the same request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFingerprint {
    /// Hash of everything except the body.
    pub head: String,
    /// Hash of the body, if it is read before the request runs.
    pub body: Option<String>,
}

/// What to do with a request that has a key.
#[derive(Debug)]
pub enum Begun {
    /// It is the first with this key: run it.
    First(Running),
    /// The stored response of an earlier request, which applies if the body has the same hash. A response without a text
    /// contained a secret.
    Again(StoredResponse),
}

/// A running request with a key. Dropping it frees the key.
#[must_use]
pub struct Running {
    idempotency: Idempotency,
    reservation: Option<Reservation>,
}

impl Idempotency {
    /// Maximum size of a stored response in bytes.
    pub const RESPONSE_BYTES_MAX: usize = RESPONSE_BYTES_MAX;

    pub(crate) fn new(store: Store, clock: Arc<dyn Clock>, tasks: Tasks) -> Self {
        Self { store, clock, tasks }
    }

    /// Begins a request with a key.
    ///
    /// # Errors
    /// [`IdempotencyError`].
    pub async fn begin(
        &self,
        caller: &Caller,
        key: &IdempotencyKey,
        print: RequestFingerprint,
    ) -> Result<Begun, Error> {
        let now = self.clock.now();
        // A caller with fewer scopes must not get the responses of others.
        let name = format!("{}\n{}", caller.scopes, key.as_str());
        let request = IdempotentRequest {
            account: caller.account.id,
            name_hash: HEXLOWER.encode(&Sha256::digest(name)),
            head_hash: print.head,
            body_hash: print.body,
        };
        let bounds = RequestBounds {
            requests_max: REQUESTS_MAX,
            bytes_max: BYTES_MAX,
            made_after: now.before(KEEP_TIME),
        };
        match self.store.reserve(request, bounds, now.after(LEASE), now).await.map_err(log_store_error)? {
            ReserveOutcome::Acquired(reservation) => {
                Ok(Begun::First(Running { idempotency: self.clone(), reservation: Some(reservation) }))
            }
            ReserveOutcome::InProgress => {
                Err(Error::Idempotency(IdempotencyError::Running { retry_after: RETRY }))
            }
            ReserveOutcome::Mismatch => Err(Error::Idempotency(IdempotencyError::Reused)),
            ReserveOutcome::Completed(answer) => Ok(Begun::Again(answer)),
        }
    }

    /// Runs a request to its end, also if the client goes away, so that the next request with the key gets its response.
    ///
    /// # Errors
    /// [`Error::Internal`] if the work panics.
    pub async fn run_to_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        self.tasks.run_to_end(work).await
    }
}

impl Running {
    /// Runs the request, and renews the lease of the key meanwhile.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(LEASE / 3) => self.renew().await,
            }
        }
    }

    async fn renew(&self) {
        let Some(reservation) = self.reservation else { return };
        let until = self.idempotency.clock.now().after(LEASE);
        match self.idempotency.store.renew_reservation(reservation, until).await {
            Ok(true) => {}
            Ok(false) => tracing::warn!("lease of an idempotency key lost while its request was running"),
            Err(error) => tracing::warn!(%error, "failed to renew the lease of an idempotency key"),
        }
    }

    /// Stores the response. If that fails, the key becomes free when its lease expires.
    pub async fn complete(mut self, response: StoredResponse) {
        let Some(reservation) = self.reservation.take() else { return };
        if let Err(error) = self.idempotency.store.store_response(reservation, response).await {
            tracing::warn!(%error, "failed to store the response of a request with an idempotency key");
        }
    }

    /// Frees the key: the next request with it runs.
    pub async fn release(mut self) {
        if let Some(reservation) = self.reservation.take() {
            self.idempotency.release(reservation).await;
        }
    }
}

impl Drop for Running {
    /// The client went away, or the server stops: frees the key in the background.
    fn drop(&mut self) {
        let (Some(reservation), Ok(runtime)) = (self.reservation.take(), Handle::try_current()) else {
            return;
        };
        let idempotency = self.idempotency.clone();
        let tasks = idempotency.tasks.clone();
        tasks.spawn_on(async move { idempotency.release(reservation).await }, &runtime);
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Running").field(&self.reservation).finish()
    }
}

impl Idempotency {
    async fn release(&self, reservation: Reservation) {
        if let Err(error) = self.store.release_reservation(reservation).await {
            tracing::warn!(%error, "failed to release an idempotency key");
        }
    }

    /// Deletes old keys until the service stops.
    pub(crate) async fn run_cleanup(&self) {
        while self.tasks.sleep(CLEANUP_INTERVAL).await {
            if let Err(error) = self.delete_expired().await {
                tracing::warn!(%error, "failed to delete old idempotency keys");
            }
        }
    }

    /// Deletes old keys, in steps.
    pub(crate) async fn delete_expired(&self) -> Result<(), Error> {
        let before = self.clock.now().before(KEEP_TIME);
        while !self.tasks.is_stopping()
            && self.store.delete_expired_requests(before, CLEANUP_STEP).await.map_err(log_store_error)? > 0
        {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

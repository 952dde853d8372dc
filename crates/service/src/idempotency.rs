//! Requests that their clients gave a name: done once, and answered again as they were.
//!
//! A name is known in its account for a day, among the credentials that may do the same. The same request under it is
//! answered as before; another is refused; one that comes while the first still runs is to come again. What runs
//! has a lease, so that a name does not stay taken when its process is gone: then the request runs again.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use pinfold_model::IdempotencyKey;
use pinfold_store::{IdempotentRequest, RequestBounds, Reservation, ReserveOutcome, StoredResponse};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use crate::core::{Core, unavailable};
use crate::{Caller, Error, IdempotencyError};

/// How long a name is known.
const KEEP_TIME: Duration = Duration::from_hours(24);
/// How long a request that runs has its name without a sign of life.
const LEASE: Duration = Duration::from_secs(60);
/// When to come back while the first one runs.
const RETRY: Duration = Duration::from_secs(2);
/// Names of one account that are known at one time; then the oldest are forgotten.
const REQUESTS_MAX: u64 = 50_000;
/// The bytes of all answers that are kept of one account.
const BYTES_MAX: u64 = 64 << 20;
/// The largest answer that is kept, in bytes: that of a directory of some hundred files.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Names that are forgotten in one transaction.
const SWEEP_STEP: u32 = 500;

/// The named requests of all accounts. Cheap to clone.
#[derive(Clone)]
pub struct Idempotency {
    pub(crate) core: Arc<Core>,
}

/// What a request asks for, as hashes: two that have the same are the same request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFingerprint {
    /// Of all but the body.
    pub head: String,
    /// Of the body, if that is read before the request runs.
    pub body: Option<String>,
}

/// What comes of a named request.
#[derive(Debug)]
pub enum Begun {
    /// It is the first of its name, or the others left nothing: run it.
    First(Running),
    /// It was answered so, if its body has this hash. Without a text the answer held a secret.
    Again(StoredResponse),
}

/// A named request that runs. When this is dropped, the name is free again.
#[must_use]
pub struct Running {
    core: Arc<Core>,
    reservation: Option<Reservation>,
}

impl Idempotency {
    /// The largest answer that is kept, in bytes.
    pub const ANSWER_BYTES_MAX: usize = ANSWER_BYTES_MAX;

    /// Begins a named request.
    ///
    /// # Errors
    /// [`IdempotencyError`].
    pub async fn begin(
        &self,
        caller: &Caller,
        key: &IdempotencyKey,
        print: RequestFingerprint,
    ) -> Result<Begun, Error> {
        let now = self.core.clock.now();
        // Who may do less must not be told what others were answered.
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
        match self.core.store.reserve(request, bounds, now.after(LEASE), now).await.map_err(unavailable)? {
            ReserveOutcome::Acquired(reservation) => {
                Ok(Begun::First(Running { core: Arc::clone(&self.core), reservation: Some(reservation) }))
            }
            ReserveOutcome::InProgress => {
                Err(Error::NameOfRequest(IdempotencyError::Running { retry_after: RETRY }))
            }
            ReserveOutcome::Mismatch => Err(Error::NameOfRequest(IdempotencyError::Reused)),
            ReserveOutcome::Completed(answer) => Ok(Begun::Again(answer)),
        }
    }
}

impl Idempotency {
    /// Does a named request to its end, also when its client goes away, so that the next of this name is answered what
    /// came of it.
    ///
    /// # Errors
    /// [`Error::Internal`] if it panics.
    pub async fn see_through<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        self.core.see_through(work).await
    }
}

impl Running {
    /// Runs the request, and keeps its name taken for as long as that takes.
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
        let until = self.core.clock.now().after(LEASE);
        match self.core.store.renew_reservation(reservation, until).await {
            Ok(true) => {}
            Ok(false) => tracing::warn!("a named request took so long that its name was given away"),
            Err(error) => tracing::warn!(%error, "keeping the name of a request"),
        }
    }

    /// Keeps what it was answered. When that fails, the name is free again after a while.
    pub async fn keep(mut self, answer: StoredResponse) {
        let Some(reservation) = self.reservation.take() else { return };
        if let Err(error) = self.core.store.store_response(reservation, answer).await {
            tracing::warn!(%error, "keeping the answer of a named request");
        }
    }

    /// Keeps nothing: the next request of this name runs. It can come as soon as this returns.
    pub async fn let_go(mut self) {
        if let Some(reservation) = self.reservation.take() {
            release(&self.core, reservation).await;
        }
    }
}

impl Drop for Running {
    /// The client went away, or the server stops: the name is given back in the background.
    fn drop(&mut self) {
        let (Some(reservation), Ok(runtime)) = (self.reservation.take(), Handle::try_current()) else {
            return;
        };
        let core = Arc::clone(&self.core);
        let tasks = core.tasks.clone();
        tasks.spawn_on(async move { release(&core, reservation).await }, &runtime);
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Running").field(&self.reservation).finish()
    }
}

async fn release(core: &Core, reservation: Reservation) {
    if let Err(error) = core.store.release_reservation(reservation).await {
        tracing::warn!(%error, "giving the name of a request back");
    }
}

impl Core {
    /// Forgets names that are too old, in steps.
    pub(crate) async fn delete_expired_requests(&self) -> Result<(), Error> {
        let before = self.clock.now().before(KEEP_TIME);
        while !self.stop.is_cancelled()
            && self.store.delete_expired_requests(before, SWEEP_STEP).await.map_err(unavailable)? > 0
        {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

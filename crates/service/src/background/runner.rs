//! Starts, stops and steps the background loops.

use std::sync::Arc;

use pinfold_store::Store;
use tokio::sync::Notify;

use super::{
    account_removal, audit_retention, dedup_usage, expiry, placement_worker, repair, session_expiry,
    webhook_delivery,
};
use crate::auth::Auth;
use crate::catalog::Catalog;
use crate::error::log_store_error;
use crate::placements::Placements;
use crate::uploads::upload_hold::UploadHolds;
use crate::webhooks::WebhookDelivery;
use crate::{Error, Idempotency};

/// What the background loops work on. Cheap to clone.
#[derive(Clone)]
pub struct Workers {
    pub(crate) store: Store,
    pub(crate) placements: Arc<Placements>,
    pub(crate) holds: Arc<UploadHolds>,
    pub(crate) auth: Arc<Auth>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) webhooks: Arc<WebhookDelivery>,
    pub(crate) idempotency: Idempotency,
    pub(crate) accounts_to_remove: Arc<Notify>,
    pub(crate) audit_retention: Option<std::time::Duration>,
}

impl Workers {
    /// One turn of every loop: does what is due, and returns how many things changed. For tests and tools; a running service
    /// needs no turns.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`] if the store fails.
    pub async fn turn(&self) -> Result<usize, Error> {
        let expired = expiry::turn(&self.placements).await?;
        let damaged = repair::turn(&self.placements).await?;
        let worked = placement_worker::turn(&self.placements).await?;
        let removed = account_removal::turn(&self.placements).await?;
        let released = self.holds.release_dropped().await;
        let mut counted = None;
        while let Some(account) = dedup_usage::turn(&self.placements, counted).await? {
            counted = Some(account);
        }
        audit_retention::turn(self).await?;
        session_expiry::turn(&self.auth).await?;
        self.auth.key_uses.flush().await;
        let delivered = webhook_delivery::turn(&self.webhooks).await?;
        webhook_delivery::cleanup(&self.webhooks).await?;
        self.idempotency.delete_expired().await?;
        Ok(expired + damaged + worked + removed + released + delivered)
    }

    /// Ends the leases of an earlier process that was killed, so that its work continues now and not when the leases expire.
    /// Only for a process that has the store to itself; call it before [`Service::run`](crate::Service::run).
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`] if the store fails.
    pub async fn take_over(&self) -> Result<(), Error> {
        let now = self.placements.clock.now();
        let latest = now.after(self.placements.limits.retry.max);
        let placements = self.store.reset_placement_leases(now, latest).await.map_err(log_store_error)?;
        if placements > 0 {
            tracing::info!(placements, "continuing the unfinished work of the last run");
        }
        self.store.reset_webhook_leases(now).await.map_err(log_store_error)?;
        self.store.reset_reservations().await.map_err(log_store_error)?;
        Ok(())
    }

    /// Makes the loops of a running service look for due work now, such as after a test moved the clock.
    pub fn wake(&self) {
        self.placements.wake_worker();
        self.placements.expiry_changed.notify_one();
        self.webhooks.wake();
    }

    /// Spawns every loop.
    fn start(&self) {
        macro_rules! spawn {
            (|$w:ident| $run:expr) => {{
                let $w = self.clone();
                self.placements.tasks.spawn(async move { $run.await });
            }};
        }
        spawn!(|w| placement_worker::run(&w));
        spawn!(|w| expiry::run(&w.placements));
        spawn!(|w| repair::run(&w.placements));
        spawn!(|w| dedup_usage::run(&w.placements));
        spawn!(|w| w.catalog.run(&w.placements.tasks));
        spawn!(|w| account_removal::run(&w.placements, &w.accounts_to_remove));
        spawn!(|w| audit_retention::run(&w));
        spawn!(|w| session_expiry::run(&w.auth, &w.placements.tasks));
        spawn!(|w| webhook_delivery::run(&w.webhooks));
        spawn!(|w| webhook_delivery::run_cleanup(&w.webhooks));
        spawn!(|w| w.idempotency.run_cleanup());
    }
}

/// The running background work.
#[must_use = "without it nothing is fetched"]
pub struct Background {
    workers: Workers,
}

impl Background {
    pub(crate) fn start(workers: &Workers) -> Self {
        workers.start();
        Self { workers: workers.clone() }
    }

    /// Stops the background work: no new work begins, and running work is interrupted and left to the next start. No task
    /// runs any more when this returns.
    pub async fn stop(self) {
        let tasks = &self.workers.placements.tasks;
        tasks.stop();
        tasks.join().await;
        self.workers.auth.key_uses.flush().await;
    }
}

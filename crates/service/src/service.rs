//! The service as a whole: constructs its parts once, and starts the background work.

use std::collections::HashSet;
use std::sync::Arc;

use pinfold_model::{Backoff, Clock};
use pinfold_store::Store;
use tokio::sync::Notify;

use crate::accounts::Accounts;
use crate::accounts::referrals::Referrals;
use crate::accounts::subscriptions::Subscriptions;
use crate::admin::Admin;
use crate::audit_log::AuditLog;
use crate::auth::Auth;
use crate::auth::logins::Logins;
use crate::auth::tokens::Tokens;
use crate::background::repair::DamagedPins;
use crate::background::runner::{Background, Workers};
use crate::catalog::Catalog;
use crate::clusters::Clusters;
use crate::clusters::cluster_set::{ClusterSet, ClusterSetup};
use crate::content::Content;
use crate::idempotency::Idempotency;
use crate::pins::Pins;
use crate::pins::pin_events::EventStreams;
use crate::placements::{PlacementLimits, Placements};
use crate::tasks::Tasks;
use crate::uploads::upload_hold::UploadHolds;
use crate::uploads::{UploadSettings, Uploads};
use crate::webhooks::{WebhookDelivery, Webhooks};
use crate::{Error, Settings};

/// All operations. Cheap to clone; all clones are the same service.
#[derive(Clone)]
pub struct Service {
    pub accounts: Accounts,
    pub tokens: Tokens,
    pub logins: Logins,
    pub pins: Pins,
    pub uploads: Uploads,
    pub content: Content,
    pub clusters: Clusters,
    pub damaged_pins: DamagedPins,
    pub audit_log: AuditLog,
    pub referrals: Referrals,
    pub subscriptions: Subscriptions,
    pub admin: Admin,
    pub webhooks: Webhooks,
    pub idempotency: Idempotency,
    /// The background work, for tests and tools.
    pub workers: Workers,
}

impl Service {
    /// Constructs the service. The first of `clusters` is the default one. Nothing runs in the background until
    /// [`run`](Self::run).
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if there is no cluster, or two have the same id; [`Error::Unavailable`],
    /// [`Error::Internal`] if the store fails.
    pub async fn new(
        store: Store,
        clusters: Vec<ClusterSetup>,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Result<Self, Error> {
        if clusters.is_empty() {
            return Err(Error::InvalidRequest("At least one cluster must be configured".to_owned()));
        }
        let ids: HashSet<_> = clusters.iter().map(|setup| &setup.info.id).collect();
        if ids.len() < clusters.len() {
            return Err(Error::InvalidRequest("Two clusters have the same id".to_owned()));
        }
        let parts = Parts::new(store, clusters, clock, &settings).await?;
        for plan in parts.catalog.plans().iter() {
            parts.catalog.apply_plan(plan).await?;
        }
        let holds = UploadHolds::load(Arc::clone(&parts.placements)).await?;
        Ok(Self::assemble(parts, Arc::new(holds), settings))
    }

    fn assemble(parts: Parts, holds: Arc<UploadHolds>, settings: Settings) -> Self {
        let Parts { store, clock, tasks, catalog, placements, .. } = parts.clone();
        let streams = EventStreams::new(
            settings.watches_max,
            settings.watches_per_account_max,
            settings.watch_events_per_second,
        );
        let pins = Pins::new(Arc::clone(&placements), streams);
        let uploads = UploadSettings { wait: settings.upload_wait, server_roots: settings.server_roots };
        let delivery = Arc::new(WebhookDelivery::new(
            store.clone(),
            Arc::clone(&clock),
            tasks.clone(),
            settings.webhooks_at_once,
            settings.webhook_targets,
        ));
        let idempotency = Idempotency::new(store.clone(), Arc::clone(&clock), tasks);
        Self {
            accounts: parts.accounts(),
            tokens: parts.tokens(),
            logins: parts.logins(),
            uploads: Uploads { pins: pins.clone(), holds: Arc::clone(&holds), limits: Arc::new(uploads) },
            pins,
            content: Content::new(Arc::clone(&placements)),
            clusters: parts.clusters(),
            damaged_pins: DamagedPins { store: store.clone() },
            audit_log: parts.auth.audit.clone(),
            referrals: Referrals { store: store.clone() },
            admin: parts.admin(),
            webhooks: Webhooks { delivery: Arc::clone(&delivery) },
            idempotency: idempotency.clone(),
            workers: Workers {
                store: store.clone(),
                placements,
                holds,
                auth: parts.auth,
                catalog: Arc::clone(&catalog),
                webhooks: delivery,
                idempotency,
                accounts_to_remove: parts.accounts_to_remove,
                audit_retention: settings.audit_kept,
            },
            subscriptions: Subscriptions { store, clock, catalog, plan_change: settings.plan_change },
        }
    }

    /// Starts the background work.
    pub fn run(&self) -> Background {
        Background::start(&self.workers)
    }
}

/// Accounts and API keys without clusters, for commands that run without the server. Does no background work.
#[derive(Clone)]
pub struct Offline {
    pub accounts: Accounts,
    pub tokens: Tokens,
    /// Has no clusters.
    pub admin: Admin,
}

impl Offline {
    /// Constructs the service.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`] if the store fails.
    pub async fn new(store: Store, clock: Arc<dyn Clock>, settings: Settings) -> Result<Self, Error> {
        let parts = Parts::new(store, Vec::new(), clock, &settings).await?;
        Ok(Self { accounts: parts.accounts(), tokens: parts.tokens(), admin: parts.admin() })
    }
}

/// What a whole and an offline service are made of.
#[derive(Clone)]
struct Parts {
    store: Store,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    catalog: Arc<Catalog>,
    auth: Arc<Auth>,
    placements: Arc<Placements>,
    accounts_to_remove: Arc<Notify>,
    signup_open: bool,
    session_time: std::time::Duration,
}

impl Parts {
    async fn new(
        store: Store,
        clusters: Vec<ClusterSetup>,
        clock: Arc<dyn Clock>,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let (clusters, tasks) = (ClusterSet::new(clusters), Tasks::default());
        let catalog = Catalog::load(store.clone(), clusters.clone(), settings.plans.clone()).await?;
        let catalog = Arc::new(catalog);
        let audit = AuditLog::new(store.clone(), Arc::clone(&clock), tasks.clone());
        let auth = Auth::new(store.clone(), Arc::clone(&clock), Arc::clone(&catalog), audit);
        let limits = PlacementLimits {
            find_time: settings.find_time,
            stall_time: settings.stall_time,
            blocks_max: settings.blocks_max,
            attempts_max: settings.attempts_max,
            retry: Backoff { first: settings.retry_first, factor: 2, max: settings.retry_max },
            lease: settings.lease,
            workers: settings.placements_at_once,
        };
        let placements = Placements::new(store.clone(), clusters, Arc::clone(&clock), tasks.clone(), limits);
        Ok(Self {
            store,
            clock,
            tasks,
            catalog,
            auth: Arc::new(auth),
            placements: Arc::new(placements),
            accounts_to_remove: Arc::default(),
            signup_open: settings.signup_open,
            session_time: settings.session_time,
        })
    }

    fn tokens(&self) -> Tokens {
        Tokens { auth: Arc::clone(&self.auth) }
    }

    fn logins(&self) -> Logins {
        Logins { auth: Arc::clone(&self.auth), session_time: self.session_time }
    }

    fn accounts(&self) -> Accounts {
        Accounts {
            auth: Arc::clone(&self.auth),
            logins: self.logins(),
            referrals: Referrals { store: self.store.clone() },
            signup_open: self.signup_open,
        }
    }

    fn clusters(&self) -> Clusters {
        Clusters {
            set: self.placements.clusters.clone(),
            catalog: Arc::clone(&self.catalog),
            store: self.store.clone(),
        }
    }

    fn admin(&self) -> Admin {
        Admin {
            store: self.store.clone(),
            clock: Arc::clone(&self.clock),
            auth: Arc::clone(&self.auth),
            catalog: Arc::clone(&self.catalog),
            clusters: self.clusters(),
            placements: Arc::clone(&self.placements),
            accounts_to_remove: Arc::clone(&self.accounts_to_remove),
        }
    }
}

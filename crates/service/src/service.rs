//! The service as a whole: its parts, its settings, its start.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pinfold_model::{Clock, Plans};
use pinfold_store::Store;

use crate::background::Background;
use crate::core::Core;
use crate::{
    Accounts, Admin, ClusterSetup, Clusters, DamagedPins, Error, Idempotency, Logins, Logs, Pins,
    PlacementWorker, PlanChange, Referrals, Subscriptions, TargetPolicy, Tokens, Uploads, Webhooks,
};

/// All use cases. Cheap to clone; all clones are the same service.
#[derive(Clone)]
pub struct Service {
    /// Accounts.
    pub accounts: Accounts,
    /// API keys.
    pub tokens: Tokens,
    /// Logging in and out.
    pub logins: Logins,
    /// Pins.
    pub pins: Pins,
    /// Uploads.
    pub uploads: Uploads,
    /// Clusters.
    pub clusters: Clusters,
    /// Pins with damaged blocks.
    pub damages: DamagedPins,
    /// The audit log.
    pub logs: Logs,
    /// Who came by whose word.
    pub referrals: Referrals,
    /// The plans of accounts.
    pub subscriptions: Subscriptions,
    /// What operators do.
    pub admin: Admin,
    /// Webhooks.
    pub webhooks: Webhooks,
    /// Requests that are done once.
    pub idempotency: Idempotency,
    /// The background work, for tests and tools.
    pub reconciler: PlacementWorker,
}

/// What an operator can set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The plans that are configured. An operator can save others over them.
    pub plans: Plans,
    /// To which plans accounts may change by themselves.
    pub plan_change: PlanChange,
    /// Whether anyone may make an account.
    pub signup_open: bool,
    /// How long a session goes on.
    pub session_time: Duration,
    /// How long to look for the first block of a pin.
    pub find_time: Duration,
    /// How long a fetch may go on without a new block.
    pub stall_time: Duration,
    /// The most distinct blocks of one pin.
    pub blocks_max: u64,
    /// Placements that are worked on at once.
    pub placements_at_once: usize,
    /// How often a placement is tried before it fails.
    pub attempts_max: u32,
    /// How long after the first failed try the second begins; each pause is twice the one before.
    pub retry_first: Duration,
    /// The longest pause between two tries.
    pub retry_max: Duration,
    /// How long a placement is somebody's before others may take it; renewed while they work.
    pub lease: Duration,
    /// How long a request waits for an upload that is already received to be kept.
    pub upload_wait: Duration,
    /// Folders on the server that clients may upload from, absolute; none by default. Every account may read all that
    /// is below them.
    pub server_roots: Vec<PathBuf>,
    /// Watches of pins at one time. Each costs a task and some KiB.
    pub watches_max: u32,
    /// Watches of one account at one time, so that one cannot take all of them.
    pub watches_per_account_max: u32,
    /// The most events that a watch tells in one second.
    pub watch_events_per_second: u32,
    /// How long entries of the audit log are kept; `None` for ever.
    pub audit_kept: Option<Duration>,
    /// Webhooks that receive deliveries at the same time.
    pub webhooks_at_once: usize,
    /// Which URLs webhooks can have.
    pub webhook_targets: TargetPolicy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            plans: Plans::default(),
            plan_change: PlanChange::SelfService,
            signup_open: true,
            session_time: Duration::from_hours(7 * 24),
            find_time: Duration::from_secs(20),
            stall_time: Duration::from_secs(300),
            blocks_max: 50_000_000,
            placements_at_once: 16,
            attempts_max: 8,
            retry_first: Duration::from_secs(2),
            retry_max: Duration::from_secs(300),
            lease: Duration::from_secs(60),
            upload_wait: Duration::from_secs(300),
            server_roots: Vec::new(),
            watches_max: 1_024,
            watches_per_account_max: 64,
            watch_events_per_second: 4,
            audit_kept: Some(Duration::from_hours(365 * 24)),
            webhooks_at_once: 32,
            webhook_targets: TargetPolicy::default(),
        }
    }
}

impl Service {
    /// Puts the service together. The first of `clusters` is the default one. Nothing runs in the background
    /// until [`run`](Self::run).
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] when there is no cluster, or two have one id; [`Error::Unavailable`] when the
    /// store fails.
    pub async fn new(
        store: Store,
        clusters: Vec<ClusterSetup>,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Result<Self, Error> {
        if clusters.is_empty() {
            return Err(Error::InvalidRequest("At least one cluster must be set up".to_owned()));
        }
        let ids: HashSet<_> = clusters.iter().map(|setup| &setup.info.id).collect();
        if ids.len() < clusters.len() {
            return Err(Error::InvalidRequest("Two clusters have the same id".to_owned()));
        }
        let core = Arc::new(Core::new(store, clusters, clock, settings));
        core.reload_offer().await?;
        for plan in core.plans().iter() {
            core.follow_plan(plan).await?;
        }
        core.find_leftovers().await?;
        Ok(Self {
            accounts: Accounts { core: Arc::clone(&core) },
            tokens: Tokens { core: Arc::clone(&core) },
            logins: Logins { core: Arc::clone(&core) },
            pins: Pins { core: Arc::clone(&core) },
            uploads: Uploads { core: Arc::clone(&core) },
            clusters: Clusters { core: Arc::clone(&core) },
            damages: DamagedPins { core: Arc::clone(&core) },
            logs: Logs { core: Arc::clone(&core) },
            referrals: Referrals { core: Arc::clone(&core) },
            subscriptions: Subscriptions { core: Arc::clone(&core) },
            admin: Admin { core: Arc::clone(&core) },
            webhooks: Webhooks { core: Arc::clone(&core) },
            idempotency: Idempotency { core: Arc::clone(&core) },
            reconciler: PlacementWorker { core },
        })
    }

    /// Starts the background work.
    pub fn run(&self) -> Background {
        Background::start(&self.reconciler.core)
    }
}

/// Accounts and keys without clusters: for commands that run beside a server. Nothing is fetched, released or
/// expired by it.
#[derive(Clone)]
pub struct Offline {
    /// Accounts.
    pub accounts: Accounts,
    /// API keys.
    pub tokens: Tokens,
    /// What operators do. Of clusters it knows nothing.
    pub admin: Admin,
}

impl Offline {
    /// Puts it together.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`] when the store fails.
    pub async fn new(store: Store, clock: Arc<dyn Clock>, settings: Settings) -> Result<Self, Error> {
        let core = Arc::new(Core::new(store, Vec::new(), clock, settings));
        core.reload_offer().await?;
        Ok(Self {
            accounts: Accounts { core: Arc::clone(&core) },
            tokens: Tokens { core: Arc::clone(&core) },
            admin: Admin { core },
        })
    }
}

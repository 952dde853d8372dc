//! What the operator can configure.

use std::path::PathBuf;
use std::time::Duration;

use pinfold_model::Plans;

use crate::TargetPolicy;
use crate::accounts::subscriptions::PlanChange;

/// Settings of the service.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The configured plans. Saved plans override them.
    pub plans: Plans,
    pub plan_change: PlanChange,
    /// Whether anyone may sign up.
    pub signup_open: bool,
    /// Lifetime of a session.
    pub session_time: Duration,
    /// How long to look for the first block of a pin.
    pub find_time: Duration,
    /// How long a fetch may go on without a new block.
    pub stall_time: Duration,
    /// Maximum distinct blocks of one pin.
    pub blocks_max: u64,
    /// Placements that are fetched at one time; as many are released.
    pub placements_at_once: usize,
    /// Attempts before a placement fails.
    pub attempts_max: u32,
    /// Delay after the first failed attempt; doubles with each further one.
    pub retry_first: Duration,
    /// Maximum delay between two attempts.
    pub retry_max: Duration,
    /// Lease duration of a placement. Another worker may take over when it expires; it is renewed during the work.
    pub lease: Duration,
    /// How long a request waits until the pin of its upload is active.
    pub upload_wait: Duration,
    /// Folders on the server that clients may upload from, absolute; none by default. Every account can read all that is below
    /// them.
    pub server_roots: Vec<PathBuf>,
    /// Open event streams at one time. Each costs a task and some KiB.
    pub watches_max: u32,
    /// Open event streams of one account at one time.
    pub watches_per_account_max: u32,
    /// Maximum events of a stream per second.
    pub watch_events_per_second: u32,
    /// How long audit log entries are kept; `None` to keep all.
    pub audit_kept: Option<Duration>,
    /// Webhooks that receive deliveries at one time.
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

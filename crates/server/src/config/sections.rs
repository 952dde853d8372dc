//! The settings as types, one struct for each section of `config.default.toml`, which documents them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Deserialize;

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) http: Http,
    pub(crate) auth: Auth,
    pub(crate) node: Node,
    pub(crate) blocks: Blocks,
    pub(crate) pins: Pins,
    pub(crate) uploads: Uploads,
    pub(crate) plans: BTreeMap<String, Plan>,
    pub(crate) accounts: Accounts,
    pub(crate) admin: Admin,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) audit: Audit,
    pub(crate) webhooks: Webhooks,
    pub(crate) log: Log,
}

/// `[http]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Http {
    pub(crate) listen: SocketAddr,
    pub(crate) wait_default_seconds: u64,
    pub(crate) wait_max_seconds: u64,
    pub(crate) dry_run_seconds: u64,
    pub(crate) trusted_proxies: Vec<String>,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) connections: HttpConnections,
    pub(crate) bodies: HttpBodies,
    pub(crate) rates: HttpRates,
}

/// `[http.connections]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpConnections {
    pub(crate) max: usize,
    pub(crate) per_address_max: usize,
    pub(crate) header_seconds: u64,
    pub(crate) write_seconds: u64,
    pub(crate) header_bytes_max: usize,
    pub(crate) grace_seconds: u64,
}

/// `[http.bodies]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpBodies {
    pub(crate) json_bytes_max: usize,
    pub(crate) batch_bytes_max: usize,
    pub(crate) json_seconds: u64,
    pub(crate) field_bytes_max: usize,
    pub(crate) upload_idle_seconds: u64,
    pub(crate) upload_bytes_per_second_min: u64,
    pub(crate) directory_entries_max: usize,
}

/// `[http.rates]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpRates {
    pub(crate) anonymous_per_minute: u32,
    pub(crate) anonymous_per_second: u32,
    pub(crate) polls_per_minute: u32,
    pub(crate) polls_per_second: u32,
    pub(crate) account_factor: u32,
    pub(crate) address_factor: u32,
    pub(crate) invalid_credentials_per_minute: u32,
    pub(crate) invalid_credentials_per_second: u32,
    pub(crate) logins_per_minute: u32,
    pub(crate) logins_per_account_per_minute: u32,
    pub(crate) tracked_max: usize,
}

/// `[auth]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Auth {
    pub(crate) signup: bool,
    pub(crate) session_days: u32,
}

/// `[node]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    pub(crate) listen: Vec<String>,
    pub(crate) announce: Vec<String>,
    pub(crate) peers: Vec<String>,
    pub(crate) bootstrap: Vec<String>,
    pub(crate) lan: Lan,
    pub(crate) allow_private_origins: bool,
    pub(crate) connections_max: u32,
    pub(crate) idle_seconds: u64,
}

/// `node.lan`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Lan {
    Off,
    Client,
    Server,
}

/// `[blocks]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Blocks {
    pub(crate) dir: String,
    pub(crate) segment_bytes: u64,
    pub(crate) reserve_bytes: u64,
    pub(crate) scrub_days: u64,
}

/// `[pins]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pins {
    pub(crate) find_seconds: u64,
    pub(crate) stall_seconds: u64,
    pub(crate) blocks_max: u64,
    pub(crate) concurrent_max: usize,
    pub(crate) attempts_max: u32,
    pub(crate) retry_first_seconds: u64,
    pub(crate) retry_max_seconds: u64,
    pub(crate) lease_seconds: u64,
    pub(crate) upload_wait_seconds: u64,
    pub(crate) event_streams_max: u32,
    pub(crate) event_streams_per_account_max: u32,
    pub(crate) events_per_second_max: u32,
}

/// `[uploads]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Uploads {
    pub(crate) server_roots: Vec<String>,
}

/// `[plans.NAME]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) descriptions: Vec<String>,
    #[serde(default)]
    pub(crate) price_cents: u64,
    #[serde(default)]
    pub(crate) self_service: bool,
    pub(crate) storage_bytes: u64,
    #[serde(default)]
    pub(crate) file_bytes_max: u64,
    #[serde(default)]
    pub(crate) directory_bytes_max: u64,
    pub(crate) timelock: bool,
    #[serde(default)]
    pub(crate) retention_lock: bool,
    pub(crate) clusters: Vec<String>,
    pub(crate) in_flight_pins_max: u32,
    pub(crate) requests_per_minute: u32,
    pub(crate) requests_per_second: u32,
}

/// `[accounts]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Accounts {
    pub(crate) plan_change: PlanChange,
}

/// `accounts.plan_change`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PlanChange {
    SelfService,
    Any,
    Operator,
}

/// `[admin]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Admin {
    pub(crate) email: String,
    pub(crate) password: Hidden,
    pub(crate) password_file: String,
    pub(crate) key_file: String,
}

/// A string that is not shown in logs.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Hidden(pub(crate) String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "…" })
    }
}

/// `[[clusters]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cluster {
    pub(crate) id: String,
    pub(crate) label: String,
    pub(crate) region: String,
    #[serde(default)]
    pub(crate) country: String,
    #[serde(default)]
    pub(crate) gateways: Vec<String>,
}

/// `[audit]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Audit {
    pub(crate) retention_days: u32,
}

/// `[webhooks]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Webhooks {
    pub(crate) concurrent_max: usize,
    pub(crate) allow_http: bool,
    pub(crate) allow_private: bool,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) filter: String,
    pub(crate) format: LogFormat,
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

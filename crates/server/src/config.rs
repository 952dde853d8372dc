//! Every setting, where it comes from, and what it is called.
//!
//! `config.default.toml` is compiled in and *is* the defaults: there is no second place that has them. Over
//! it lie the configuration file, then the variables `PINFOLD_SECTION__KEY`, then the options of the command
//! line. A name that is not a setting is an error, wherever it stands.
//!
//! This is the only place that reads the environment; the four variables of the command line itself
//! (`PINFOLD_CONFIG`, `PINFOLD_DATA_DIR`, `PINFOLD_SERVER`, `PINFOLD_API_KEY`) are read by `clap` in
//! [`crate::cli`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;
use toml::{Table, Value};

mod reference;
pub(crate) mod settings;

pub(crate) use reference::reference;

/// The defaults, as TOML.
pub(crate) const DEFAULTS: &str = include_str!("../config.default.toml");

/// What the variables of settings start with.
const PREFIX: &str = "PINFOLD_";

/// What goes one level down in the name of a variable. Names without it are not settings.
const LEVEL: &str = "__";

/// The table whose entries have names that the operator chooses.
const NAMED_FREELY: &str = "plans";

/// The plan that an account gets that names none.
pub(crate) const FIRST_PLAN: &str = "free";

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
    pub(crate) upload_rate_min: u64,
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
    pub(crate) guesses_per_minute: u32,
    pub(crate) guesses_per_second: u32,
    pub(crate) logins_per_minute: u32,
    pub(crate) logins_per_account_per_minute: u32,
    pub(crate) holders_max: usize,
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
    pub(crate) private_origins: bool,
    pub(crate) connections_max: u32,
    pub(crate) idle_seconds: u64,
}

/// `node.lan`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Lan {
    /// No part.
    Off,
    /// It asks.
    Client,
    /// It also answers.
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
    pub(crate) at_once: usize,
    pub(crate) attempts_max: u32,
    pub(crate) retry_first_seconds: u64,
    pub(crate) retry_max_seconds: u64,
    pub(crate) lease_seconds: u64,
    pub(crate) upload_wait_seconds: u64,
    pub(crate) watches_max: u32,
    pub(crate) watches_per_account_max: u32,
    pub(crate) watch_events_per_second: u32,
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
    /// To plans that are marked so.
    SelfService,
    /// To any plan.
    Any,
    /// To none.
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

/// A text that no log shows.
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
    pub(crate) keep_days: u32,
}

/// `[webhooks]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Webhooks {
    pub(crate) at_once: usize,
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
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// The settings of this process: the defaults, then `file`, then the environment.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown name, a value of the wrong kind: the message names it and
    /// where it stands.
    pub(crate) fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        let mut settings = defaults()?;
        if let Some(path) = file {
            let name = path.display();
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the configuration {name}"))?;
            overlay(&mut settings, &text).with_context(|| format!("in the configuration {name}"))?;
        }
        for (name, value) in std::env::vars_os().filter_map(variable) {
            set(&mut settings, &name, &value)?;
        }
        Self::read(settings)
    }

    /// The defaults alone, whatever the environment says.
    pub(crate) fn defaults() -> anyhow::Result<Self> {
        Self::read(defaults()?)
    }

    fn read(settings: Table) -> anyhow::Result<Self> {
        let config: Self = settings.try_into().context("the settings do not fit together")?;
        if config.clusters.is_empty() {
            bail!("clusters is empty; a pin needs at least one to go to");
        }
        if config.http.wait_max_seconds < config.http.wait_default_seconds {
            bail!("http.wait_max_seconds is below http.wait_default_seconds");
        }
        if config.auth.session_days == 0 {
            bail!("auth.session_days is at least 1, or nobody could log in");
        }
        if config.pins.at_once == 0 || config.pins.attempts_max == 0 {
            bail!("pins.at_once and pins.attempts_max are at least 1, or nothing would ever be pinned");
        }
        if let Some(root) = config.uploads.server_roots.iter().find(|root| !Path::new(root).is_absolute()) {
            bail!("uploads.server_roots: {root:?} is no absolute path");
        }
        if !config.plans.contains_key(FIRST_PLAN) {
            bail!("plans.{FIRST_PLAN} is missing: an account gets it that names none");
        }
        Ok(config)
    }
}

fn defaults() -> anyhow::Result<Table> {
    DEFAULTS.parse().context("the built-in defaults are not TOML")
}

/// Lays a file's text over the settings.
fn overlay(settings: &mut Table, text: &str) -> anyhow::Result<()> {
    let file: Table = text.parse()?;
    merge(settings, file, "")?;
    // Whether the values fit is asked once for each layer, so that the error can name the layer.
    Config::read(settings.clone()).map(drop)
}

fn merge(under: &mut Table, over: Table, place: &str) -> anyhow::Result<()> {
    for (key, value) in over {
        let name = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over, &name)?,
            (Some(under), value) => *under = value,
            (None, value) if place == NAMED_FREELY => {
                under.insert(key, value);
            }
            (None, _) => bail!("{name} is not a setting; `pinfold config` prints all of them"),
        }
    }
    Ok(())
}

/// A variable that sets something, without its prefix.
fn variable((name, value): (OsString, OsString)) -> Option<(String, String)> {
    let name = name.to_str()?.strip_prefix(PREFIX)?;
    name.contains(LEVEL).then(|| Some((name.to_owned(), value.to_str()?.to_owned())))?
}

/// Sets one value from a variable's text, which is read as what stands there by default.
fn set(settings: &mut Table, variable: &str, text: &str) -> anyhow::Result<()> {
    let place = variable.to_lowercase().replace(LEVEL, ".");
    let mut slot: Option<&mut Value> = None;
    for key in place.split('.') {
        let under = match slot {
            None => settings.get_mut(key),
            Some(value) => value.as_table_mut().and_then(|table| table.get_mut(key)),
        };
        slot = Some(under.with_context(|| {
            format!("{PREFIX}{variable}: {place} is not a setting; `pinfold config` prints all of them")
        })?);
    }
    let slot = slot.with_context(|| format!("{PREFIX}{variable} names no setting"))?;
    let value = match slot {
        Value::String(_) => Some(Value::String(text.to_owned())),
        Value::Integer(_) => text.trim().parse().ok().map(Value::Integer),
        Value::Boolean(_) => text.trim().parse().ok().map(Value::Boolean),
        Value::Float(_) => text.trim().parse().ok().map(Value::Float),
        Value::Array(items) if items.iter().all(Value::is_str) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        Value::Array(_) | Value::Table(_) | Value::Datetime(_) => {
            bail!("{PREFIX}{variable}: {place} can only be set in a configuration file")
        }
    };
    *slot = value.with_context(|| format!("{PREFIX}{variable}={text:?} is not a {}", slot.type_str()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layered(file: &str, variables: &[(&str, &str)]) -> anyhow::Result<Config> {
        let mut settings = defaults()?;
        overlay(&mut settings, file)?;
        for (name, value) in variables {
            let (name, value) = variable((name.into(), value.into())).unwrap();
            set(&mut settings, &name, &value)?;
        }
        Config::read(settings)
    }

    #[test]
    fn a_file_beats_the_defaults_and_a_variable_beats_the_file() {
        let file = "[http]\nlisten = '127.0.0.1:1'\nwait_max_seconds = 99\n[plans.free]\ntimelock = true";
        let config = layered(file, &[("PINFOLD_HTTP__LISTEN", "127.0.0.1:2")]).unwrap();
        assert_eq!(config.http.listen.port(), 2);
        assert_eq!(config.http.wait_max_seconds, 99);
        assert!(config.plans["free"].timelock);
        assert_eq!(config.plans["free"].requests_per_second, 20, "what the file leaves out stays");
    }

    #[test]
    fn a_list_is_set_by_commas_and_emptied_by_nothing() {
        let node = |text| layered("", &[("PINFOLD_NODE__PEERS", text)]).unwrap().node.peers;
        assert_eq!(node("/a, /b"), ["/a", "/b"]);
        assert!(node("").is_empty());
        assert!(layered("", &[("PINFOLD_NODE__BOOTSTRAP", "")]).unwrap().node.bootstrap.is_empty());
    }

    #[test]
    fn an_unknown_name_is_an_error_that_names_it() {
        for (file, name) in [
            ("htpp = 1", "htpp"),
            ("[http]\nlisten_on = 'x'", "http.listen_on"),
            ("[http.rates]\nper_hour = 1", "http.rates.per_hour"),
            ("[[clusters]]\nid='x'\nlabel='x'\nregion='x'\ncolour='red'", "colour"),
        ] {
            let message = format!("{:#}", layered(file, &[]).unwrap_err());
            assert!(message.contains(name), "{message}");
        }
        let message = layered("", &[("PINFOLD_HTTP__LISTN", "x")]).unwrap_err().to_string();
        assert!(message.contains("PINFOLD_HTTP__LISTN") && message.contains("http.listn"), "{message}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_an_error_that_names_it() {
        let message = format!("{:#}", layered("[http]\nwait_max_seconds = 'long'", &[]).unwrap_err());
        assert!(message.contains("wait_max_seconds"), "{message}");
        let message = format!("{:#}", layered("", &[("PINFOLD_PINS__FIND_SECONDS", "soon")]).unwrap_err());
        assert!(message.contains("PINFOLD_PINS__FIND_SECONDS") && message.contains("integer"), "{message}");
    }

    #[test]
    fn a_plan_can_be_added_but_only_whole() {
        let whole = "[plans.team]\nname = 'Team'\nstorage_bytes = 1\ntimelock = true\nclusters = []\n\
                     in_flight_pins_max = 1\nrequests_per_minute = 1\nrequests_per_second = 1";
        assert_eq!(layered(whole, &[]).unwrap().plans["team"].storage_bytes, 1);
        let message = format!("{:#}", layered("[plans.team]\nname = 'Team'", &[]).unwrap_err());
        assert!(message.contains("storage_bytes"), "{message}");
    }

    #[test]
    fn roots_for_uploads_are_absolute() {
        let roots = |text| layered("", &[("PINFOLD_UPLOADS__SERVER_ROOTS", text)]);
        assert_eq!(roots("/srv/a, /srv/b").unwrap().uploads.server_roots, ["/srv/a", "/srv/b"]);
        let message = roots("/srv/a,srv/b").unwrap_err().to_string();
        assert!(message.contains("uploads.server_roots") && message.contains("srv/b"), "{message}");
    }

    #[test]
    fn the_variables_of_the_command_line_are_not_settings() {
        assert_eq!(variable(("PINFOLD_API_KEY".into(), "k".into())), None);
        assert_eq!(variable(("PATH".into(), "/bin".into())), None);
    }
}

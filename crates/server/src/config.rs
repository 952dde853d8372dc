//! The configuration: the defaults, the configuration file, and environment variables `PINFOLD_SECTION__KEY`, merged in
//! this order. The options of `pinfold serve` are applied last, by [`crate::cli`].
//!
//! `config.default.toml` is compiled in and is the only place with default values. An unknown setting is an error in every
//! source.
//!
//! Only this module reads the environment, except for the four variables of the command line (`PINFOLD_CONFIG`,
//! `PINFOLD_DATA_DIR`, `PINFOLD_SERVER`, `PINFOLD_API_KEY`), which `clap` reads in [`crate::cli`].

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, bail};
use toml::{Table, Value};

mod reference;
mod sections;
pub(crate) mod settings;

pub(crate) use reference::reference;
pub(crate) use sections::*;

/// The default configuration as TOML.
pub(crate) const DEFAULTS: &str = include_str!("../config.default.toml");

/// Prefix of environment variables.
const PREFIX: &str = "PINFOLD_";

/// Separates the levels in the name of an environment variable. Variables without it are not settings.
const LEVEL_SEPARATOR: &str = "__";

/// The only table to which the configuration file may add entries with names of its own.
const EXTENSIBLE_TABLE: &str = "plans";

/// Default plan of a new account.
pub(crate) const DEFAULT_PLAN: &str = "free";

impl Config {
    /// Merges the defaults, `file` and the environment.
    ///
    /// # Errors
    /// The file cannot be read, a setting is unknown, or a value has the wrong type. The message names the setting and
    /// its source.
    pub(crate) fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        let mut settings = default_settings()?;
        if let Some(path) = file {
            let name = path.display();
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the configuration file {name}"))?;
            apply_file(&mut settings, &text).with_context(|| format!("invalid configuration file {name}"))?;
        }
        for (name, value) in std::env::vars_os().filter_map(parse_variable) {
            apply_variable(&mut settings, &name, &value)?;
        }
        Self::from_settings(settings)
    }

    /// The defaults, without a file and the environment.
    pub(crate) fn defaults() -> anyhow::Result<Self> {
        Self::from_settings(default_settings()?)
    }

    fn from_settings(settings: Table) -> anyhow::Result<Self> {
        let config: Self = settings.try_into().context("invalid configuration")?;
        if config.clusters.is_empty() {
            bail!("clusters: at least one cluster is required");
        }
        if config.http.wait_max_seconds < config.http.wait_default_seconds {
            bail!("http.wait_max_seconds must not be less than http.wait_default_seconds");
        }
        if config.auth.session_days == 0 {
            bail!("auth.session_days must be at least 1");
        }
        if config.pins.concurrent_max == 0 || config.pins.attempts_max == 0 {
            bail!("pins.concurrent_max and pins.attempts_max must be at least 1");
        }
        if let Some(root) = config.uploads.server_roots.iter().find(|root| !Path::new(root).is_absolute()) {
            bail!("uploads.server_roots: {root:?} is not an absolute path");
        }
        if !config.plans.contains_key(DEFAULT_PLAN) {
            bail!("plans.{DEFAULT_PLAN} is required: it is the default plan of new accounts");
        }
        Ok(config)
    }
}

fn default_settings() -> anyhow::Result<Table> {
    DEFAULTS.parse().context("the compiled-in defaults are not valid TOML")
}

/// Merges the text of a configuration file into the settings.
fn apply_file(settings: &mut Table, text: &str) -> anyhow::Result<()> {
    let file: Table = text.parse()?;
    merge(settings, file, "")?;
    // Types are checked for each source, so that the error can name the source.
    Config::from_settings(settings.clone()).map(drop)
}

/// Merges `over` into `base`. `path` is the dotted path of both tables.
fn merge(base: &mut Table, over: Table, path: &str) -> anyhow::Result<()> {
    for (key, value) in over {
        let name = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over, &name)?,
            (Some(slot), value) => *slot = value,
            (None, value) if path == EXTENSIBLE_TABLE => {
                base.insert(key, value);
            }
            (None, _) => bail!("unknown setting {name}; `pinfold config` prints all settings"),
        }
    }
    Ok(())
}

/// The name of an environment variable without its prefix, and its value; `None` if it is not a setting.
fn parse_variable((name, value): (OsString, OsString)) -> Option<(String, String)> {
    let name = name.to_str()?.strip_prefix(PREFIX)?;
    name.contains(LEVEL_SEPARATOR).then(|| Some((name.to_owned(), value.to_str()?.to_owned())))?
}

/// Sets one value from the text of an environment variable, which is parsed as the type of the default value.
fn apply_variable(settings: &mut Table, variable: &str, text: &str) -> anyhow::Result<()> {
    let path = variable.to_lowercase().replace(LEVEL_SEPARATOR, ".");
    let mut slot: Option<&mut Value> = None;
    for key in path.split('.') {
        let next = match slot {
            None => settings.get_mut(key),
            Some(value) => value.as_table_mut().and_then(|table| table.get_mut(key)),
        };
        slot = Some(next.with_context(|| {
            format!("{PREFIX}{variable}: unknown setting {path}; `pinfold config` prints all settings")
        })?);
    }
    let slot = slot.with_context(|| format!("{PREFIX}{variable}: no setting"))?;
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
            bail!("{PREFIX}{variable}: {path} can be set only in a configuration file")
        }
    };
    *slot =
        value.with_context(|| format!("{PREFIX}{variable}: {text:?} is not of type {}", slot.type_str()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layered(file: &str, variables: &[(&str, &str)]) -> anyhow::Result<Config> {
        let mut settings = default_settings()?;
        apply_file(&mut settings, file)?;
        for (name, value) in variables {
            let (name, value) = parse_variable((name.into(), value.into())).unwrap();
            apply_variable(&mut settings, &name, &value)?;
        }
        Config::from_settings(settings)
    }

    #[test]
    fn variables_override_the_file_and_the_file_the_defaults() {
        let file = "[http]\nlisten = '127.0.0.1:1'\nwait_max_seconds = 99\n[plans.free]\ntimelock = true";
        let config = layered(file, &[("PINFOLD_HTTP__LISTEN", "127.0.0.1:2")]).unwrap();
        assert_eq!(config.http.listen.port(), 2);
        assert_eq!(config.http.wait_max_seconds, 99);
        assert!(config.plans["free"].timelock);
        assert_eq!(
            config.plans["free"].requests_per_second, 20,
            "settings that the file omits keep their default"
        );
    }

    #[test]
    fn list_variable_is_comma_separated_and_may_be_empty() {
        let node = |text| layered("", &[("PINFOLD_NODE__PEERS", text)]).unwrap().node.peers;
        assert_eq!(node("/a, /b"), ["/a", "/b"]);
        assert!(node("").is_empty());
        assert!(layered("", &[("PINFOLD_NODE__BOOTSTRAP", "")]).unwrap().node.bootstrap.is_empty());
    }

    #[test]
    fn unknown_setting_is_named_in_the_error() {
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
    fn value_of_wrong_type_is_named_in_the_error() {
        let message = format!("{:#}", layered("[http]\nwait_max_seconds = 'long'", &[]).unwrap_err());
        assert!(message.contains("wait_max_seconds"), "{message}");
        let message = format!("{:#}", layered("", &[("PINFOLD_PINS__FIND_SECONDS", "soon")]).unwrap_err());
        assert!(message.contains("PINFOLD_PINS__FIND_SECONDS") && message.contains("integer"), "{message}");
    }

    #[test]
    fn additional_plan_requires_all_settings() {
        let complete = "[plans.team]\nname = 'Team'\nstorage_bytes = 1\ntimelock = true\nclusters = []\n\
                     in_flight_pins_max = 1\nrequests_per_minute = 1\nrequests_per_second = 1";
        assert_eq!(layered(complete, &[]).unwrap().plans["team"].storage_bytes, 1);
        let message = format!("{:#}", layered("[plans.team]\nname = 'Team'", &[]).unwrap_err());
        assert!(message.contains("storage_bytes"), "{message}");
    }

    #[test]
    fn upload_roots_must_be_absolute() {
        let roots = |text| layered("", &[("PINFOLD_UPLOADS__SERVER_ROOTS", text)]);
        assert_eq!(roots("/srv/a, /srv/b").unwrap().uploads.server_roots, ["/srv/a", "/srv/b"]);
        let message = roots("/srv/a,srv/b").unwrap_err().to_string();
        assert!(message.contains("uploads.server_roots") && message.contains("srv/b"), "{message}");
    }

    #[test]
    fn variables_of_the_command_line_are_not_settings() {
        assert_eq!(parse_variable(("PINFOLD_API_KEY".into(), "k".into())), None);
        assert_eq!(parse_variable(("PATH".into(), "/bin".into())), None);
    }
}

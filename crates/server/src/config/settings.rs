//! Conversion of the configuration into the settings of the other crates.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use pinfold_http as http;
use pinfold_model::{ClusterId, Email, Plan, PlanCode, PlanLimits, Plans};
use pinfold_node::blocks::SegmentConfig;
use pinfold_node::{Bootstrap, Identity, Lan, NodeConfig};
use pinfold_service as service;

use super::DEFAULT_PLAN;
use crate::config::{self, Config};
use crate::data_dir::DataDir;

/// Value of `node.bootstrap` that selects the public IPFS bootstrap nodes.
const PUBLIC: &str = "public";

/// Settings of the IPFS node.
pub(crate) fn node(config: &config::Node, identity: Identity) -> anyhow::Result<NodeConfig> {
    let parse = |key: &str, texts: &[String]| {
        let one = |text: &String| {
            text.parse().with_context(|| {
                format!("node.{key}: {text:?} is not a multiaddr; example: /ip4/127.0.0.1/tcp/4001")
            })
        };
        texts.iter().map(one).collect::<anyhow::Result<Vec<_>>>()
    };
    let bootstrap = match config.bootstrap.as_slice() {
        [] => Bootstrap::None,
        [only] if only == PUBLIC => Bootstrap::Public,
        list => Bootstrap::List(parse("bootstrap", list)?),
    };
    Ok(NodeConfig {
        listen: parse("listen", &config.listen)?,
        announce: parse("announce", &config.announce)?,
        peers: parse("peers", &config.peers)?,
        bootstrap,
        lan: match config.lan {
            config::Lan::Off => Lan::Off,
            config::Lan::Client => Lan::Client,
            config::Lan::Server => Lan::Server,
        },
        private_origins: config.allow_private_origins,
        connections_max: config.connections_max,
        idle_time: Duration::from_secs(config.idle_seconds),
        ..NodeConfig::new(identity)
    })
}

/// Directory and settings of the block store.
pub(crate) fn blocks(config: &Config, dir: &DataDir) -> (PathBuf, SegmentConfig) {
    let path = if config.blocks.dir.is_empty() { dir.blocks() } else { PathBuf::from(&config.blocks.dir) };
    let segments = SegmentConfig {
        segment_bytes: config.blocks.segment_bytes,
        reserve_bytes: config.blocks.reserve_bytes,
    };
    (path, segments)
}

/// Settings of the service.
pub(crate) fn service(config: &Config) -> anyhow::Result<service::Settings> {
    let pins = &config.pins;
    Ok(service::Settings {
        plans: plans(config)?,
        plan_change: match config.accounts.plan_change {
            config::PlanChange::SelfService => service::PlanChange::SelfService,
            config::PlanChange::Any => service::PlanChange::Any,
            config::PlanChange::Operator => service::PlanChange::Operator,
        },
        signup_open: config.auth.signup,
        session_time: Duration::from_hours(24) * config.auth.session_days,
        find_time: Duration::from_secs(pins.find_seconds),
        stall_time: Duration::from_secs(pins.stall_seconds),
        blocks_max: pins.blocks_max,
        placements_at_once: pins.concurrent_max,
        attempts_max: pins.attempts_max,
        retry_first: Duration::from_secs(pins.retry_first_seconds),
        retry_max: Duration::from_secs(pins.retry_max_seconds),
        lease: Duration::from_secs(pins.lease_seconds),
        upload_wait: Duration::from_secs(pins.upload_wait_seconds),
        server_roots: config.uploads.server_roots.iter().map(Into::into).collect(),
        watches_max: pins.event_streams_max,
        watches_per_account_max: pins.event_streams_per_account_max,
        watch_events_per_second: pins.events_per_second_max,
        audit_kept: days(config.audit.retention_days),
        webhooks_at_once: config.webhooks.concurrent_max,
        webhook_targets: service::TargetPolicy {
            allow_http: config.webhooks.allow_http,
            allow_private: config.webhooks.allow_private,
        },
    })
}

/// A factor of zero would reject every request, so 1 is used instead.
fn at_least_one(factor: u32) -> NonZeroU32 {
    NonZeroU32::new(factor).unwrap_or(NonZeroU32::MIN)
}

/// `None` for 0, which means forever.
fn days(days: u32) -> Option<Duration> {
    (days > 0).then(|| Duration::from_hours(24) * days)
}

/// The account that the first start creates.
pub(crate) fn first_admin(config: &config::Admin) -> anyhow::Result<service::FirstAdmin> {
    let email = Email::parse(&config.email).with_context(|| format!("admin.email: {:?}", config.email))?;
    let text = match (config.password.0.as_str(), config.password_file.as_str()) {
        ("", "") => None,
        (text, "") => Some(text.to_owned()),
        ("", file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("admin.password_file: cannot read {file}"))?;
            Some(text.lines().next().unwrap_or_default().to_owned())
        }
        _ => bail!("admin.password and admin.password_file must not both be set"),
    };
    let password = text.map(service::Password::parse).transpose();
    Ok(service::FirstAdmin {
        email,
        password: password.context("invalid admin.password or admin.password_file")?,
    })
}

/// The plans, with the default plan first.
fn plans(config: &Config) -> anyhow::Result<Plans> {
    let mut plans = Vec::new();
    for (code, plan) in &config.plans {
        let clusters: Vec<ClusterId> = plan
            .clusters
            .iter()
            .map(|id| ClusterId::parse(id).with_context(|| format!("plans.{code}.clusters: {id:?}")))
            .collect::<anyhow::Result<_>>()?;
        // 0 means no limit.
        let limit = |bytes: u64| (bytes > 0).then_some(bytes);
        let plan = Plan {
            code: PlanCode::parse(code).with_context(|| format!("plans.{code}"))?,
            name: plan.name.clone(),
            descriptions: plan.descriptions.clone(),
            price_cents: plan.price_cents,
            self_service: plan.self_service,
            limits: PlanLimits {
                storage_bytes: plan.storage_bytes,
                file_bytes_max: limit(plan.file_bytes_max),
                directory_bytes_max: limit(plan.directory_bytes_max),
                timelock: plan.timelock,
                retention_lock: plan.retention_lock,
                clusters: (!clusters.is_empty()).then_some(clusters),
                in_flight_pins_max: plan.in_flight_pins_max,
                requests_per_minute: plan.requests_per_minute,
                requests_per_second: plan.requests_per_second,
            },
        };
        plan.check().with_context(|| format!("plans.{code}"))?;
        plans.push(plan);
    }
    plans.sort_by_key(|plan| plan.code.as_str() != DEFAULT_PLAN);
    Ok(Plans::new(plans))
}

/// The clusters as clients see them.
pub(crate) fn clusters(config: &Config) -> anyhow::Result<Vec<service::ClusterInfo>> {
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    let info = |cluster: &config::Cluster| {
        let info = service::ClusterInfo {
            id: ClusterId::parse(&cluster.id).with_context(|| format!("clusters: {:?}", cluster.id))?,
            label: cluster.label.clone(),
            region: some(&cluster.region),
            country: some(&cluster.country),
            gateways: cluster
                .gateways
                .iter()
                .map(|url| service::GatewayInfo { url: url.clone(), label: cluster.label.clone() })
                .collect(),
        };
        info.check().with_context(|| format!("clusters: {:?}", cluster.id))?;
        Ok(info)
    };
    config.clusters.iter().map(info).collect()
}

/// Settings of the HTTP server.
pub(crate) fn http(config: &config::Http) -> anyhow::Result<http::Settings> {
    let config::HttpConnections { max, per_address_max, header_bytes_max, .. } = config.connections;
    let bodies = &config.bodies;
    let rates = &config.rates;
    let origins = config.cors_origins.iter().map(|origin| {
        origin.parse().with_context(|| format!("http.cors_origins: {origin:?} is not an origin"))
    });
    let proxies = config.trusted_proxies.iter().map(|text| {
        // A single address is a network with one address.
        let bits = if text.contains('/') {
            ""
        } else if text.contains(':') {
            "/128"
        } else {
            "/32"
        };
        format!("{text}{bits}")
            .parse()
            .with_context(|| format!("http.trusted_proxies: {text:?} is not an address or a network"))
    });
    Ok(http::Settings {
        connections: http::Connections {
            max,
            per_address_max,
            header_time: Duration::from_secs(config.connections.header_seconds),
            write_time: Duration::from_secs(config.connections.write_seconds),
            header_bytes_max,
            grace_time: Duration::from_secs(config.connections.grace_seconds),
        },
        bodies: http::Bodies {
            json_bytes_max: bodies.json_bytes_max,
            batch_bytes_max: bodies.batch_bytes_max,
            json_time: Duration::from_secs(bodies.json_seconds),
            field_bytes_max: bodies.field_bytes_max,
            upload_idle_time: Duration::from_secs(bodies.upload_idle_seconds),
            upload_rate_min: bodies.upload_bytes_per_second_min,
            directory_entries_max: bodies.directory_entries_max,
        },
        rates: http::Rates {
            anonymous: http::Rate::new(rates.anonymous_per_minute, rates.anonymous_per_second),
            polls: http::Rate::new(rates.polls_per_minute, rates.polls_per_second),
            account_factor: at_least_one(rates.account_factor),
            address_factor: at_least_one(rates.address_factor),
            guesses: http::Rate::new(
                rates.invalid_credentials_per_minute,
                rates.invalid_credentials_per_second,
            ),
            logins: http::Rate::new(rates.logins_per_minute, rates.logins_per_minute),
            account_logins: http::Rate::new(
                rates.logins_per_account_per_minute,
                rates.logins_per_account_per_minute,
            ),
            holders_max: rates.tracked_max,
        },
        events: http::Events::default(),
        wait_default: Duration::from_secs(config.wait_default_seconds),
        wait_max: Duration::from_secs(config.wait_max_seconds),
        dry_run_time: Duration::from_secs(config.dry_run_seconds),
        proxies: proxies.collect::<anyhow::Result<_>>()?,
        cors_origins: origins.collect::<anyhow::Result<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The crates have default settings for their tests, which must be those of a server without configuration.
    #[test]
    fn defaults_equal_those_of_the_crates() {
        let config = Config::defaults().unwrap();
        let text = |value: &dyn std::fmt::Debug| format!("{value:?}");
        assert_eq!(text(&http(&config.http).unwrap()), text(&http::Settings::default()));
        assert_eq!(text(&service(&config).unwrap()), text(&service::Settings::default()));
        let identity = Identity::generate();
        let mut expected = NodeConfig::new(identity.clone());
        let mut found = node(&config.node, identity).unwrap();
        expected.listen.sort();
        found.listen.sort();
        assert_eq!(text(&found), text(&expected));
    }

    #[test]
    fn invalid_gateway_is_named_with_its_cluster() {
        let mut config = Config::defaults().unwrap();
        config.clusters[0].gateways = vec!["https://gateway.example.org/ipfs/".to_owned()];
        assert_eq!(clusters(&config).unwrap()[0].gateways.len(), 1);
        config.clusters[0].gateways = vec!["https://gateway.example.org".to_owned()];
        let message = format!("{:#}", clusters(&config).unwrap_err());
        for part in ["clusters", "cl0-global", "https://gateway.example.org", "end with /ipfs/"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn invalid_multiaddr_is_named_with_its_setting() {
        let mut config = Config::defaults().unwrap();
        config.node.peers = vec!["localhost:4001".to_owned()];
        let message = node(&config.node, Identity::generate()).unwrap_err().to_string();
        assert!(message.contains("node.peers") && message.contains("localhost:4001"), "{message}");
    }
}

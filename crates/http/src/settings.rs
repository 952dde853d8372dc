//! The settings of the HTTP server. Every bound has a default and the reason for it.

use std::num::NonZeroU32;
use std::time::Duration;

use axum::http::HeaderValue;
use ipnet::IpNet;

/// Settings of the HTTP server. [`Settings::default`] is that of a server without configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bounds of connections.
    pub connections: Connections,
    /// Bounds of request bodies.
    pub bodies: Bodies,
    /// Request rates.
    pub rates: Rates,
    /// Streams of events.
    pub events: Events,
    /// How long a pin request waits for the fetch when the client does not say (API v3: 60 s).
    pub wait_default: Duration,
    /// The longest wait with `Prefer: wait=N`. Proxies in front of the server end longer ones.
    pub wait_max: Duration,
    /// The longest search of a dry run; a client may ask for less. Enough to find providers.
    pub dry_run_time: Duration,
    /// Reverse proxies whose `X-Forwarded-For` is trusted. None by default: any client can send the header.
    pub proxies: Vec<IpNet>,
    /// Web origins that browsers may call from (CORS). None by default.
    pub cors_origins: Vec<HeaderValue>,
}

/// Bounds of connections.
#[derive(Debug, Clone)]
pub struct Connections {
    /// Connections at one time; more wait in the listen queue. Each costs a task and some 20 KiB.
    pub max: usize,
    /// Connections at one time from one address (IPv6: one /64) that is no configured proxy, so that one
    /// client can't use all of them.
    pub per_address_max: usize,
    /// How long the head of a request may take, counted from the last answer: idle connections end too.
    pub header_time: Duration,
    /// How long an answer may wait for a client that does not read.
    pub write_time: Duration,
    /// The largest head of a request, in bytes. Tokens, names and multibase CIDs fit many times over.
    pub header_bytes_max: usize,
    /// How long running requests may go on at a shutdown before their connections are closed.
    pub grace_time: Duration,
}

/// Bounds of request bodies.
#[derive(Debug, Clone)]
pub struct Bodies {
    /// The largest JSON body, in bytes: names, a cluster and some origins need a few KiB.
    pub json_bytes_max: usize,
    /// The largest JSON body of a batch, in bytes: 1,000 items with long CIDs and names.
    pub batch_bytes_max: usize,
    /// How long a JSON body may take in all.
    pub json_time: Duration,
    /// The largest text field of a multipart form, in bytes.
    pub field_bytes_max: usize,
    /// How long an upload may stall before it fails.
    pub upload_idle_time: Duration,
    /// The lowest average rate of an upload, in bytes a second, checked after `upload_idle_time`: a client that sends a few
    /// bytes at a time must not keep an upload open for ever.
    pub upload_rate_min: u64,
    /// The most entries of one directory upload; each costs memory until the directory is built.
    pub directory_entries_max: usize,
}

/// Event streams. Their number is bounded by the service.
#[derive(Debug, Clone)]
pub struct Events {
    /// Interval of the comments that keep a stream alive; proxies close connections that are silent for a minute. The
    /// credential is checked again at each of them.
    pub heartbeat: Duration,
    /// How soon a client should reconnect when its stream is interrupted.
    pub retry: Duration,
    /// The longest duration of a stream; clients reconnect.
    pub life: Duration,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(15),
            retry: Duration::from_secs(3),
            life: Duration::from_hours(1),
        }
    }
}

/// Request rates. The rates of an account are those of its plan; these are for all other requests, and for polls.
#[derive(Debug, Clone)]
pub struct Rates {
    /// For each address (IPv6: each /64) without a valid credential.
    pub anonymous: Rate,
    /// For each key or address: reads that clients repeat while they wait (status and lists). They have a
    /// budget of their own, so that waiting for a pin cannot use up the calls.
    pub polls: Rate,
    /// How many times the rate of one key all keys and sessions of an account have together.
    pub account_factor: NonZeroU32,
    /// How many times the rate of one key all requests have together that come from one address (IPv6: one /64) with valid
    /// credentials of accounts with one plan.
    pub address_factor: NonZeroU32,
    /// Wrong credentials from one address (IPv6: one /64). Above it, requests with a credential are refused without a look
    /// at the database.
    pub guesses: Rate,
    /// For each address (IPv6: each /64): sign-ups, logins and their codes. Guessing a password takes many more attempts
    /// than mistyping one.
    pub logins: Rate,
    /// Attempts on the password of one account, from all addresses together. The budget refills continuously, so no owner is
    /// locked out for good.
    pub account_logins: Rate,
    /// Keys and addresses whose rates are stored; the least recently used are forgotten first.
    pub holders_max: usize,
}

/// A number of requests in a minute, and in any one second of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests a minute, given back evenly over the minute.
    pub per_minute: NonZeroU32,
    /// Requests a second.
    pub per_second: NonZeroU32,
}

impl Rate {
    /// A rate. Zero counts as one, since a rate of zero would refuse every request.
    #[must_use]
    pub fn new(per_minute: u32, per_second: u32) -> Self {
        let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self { per_minute: at_least_one(per_minute), per_second: at_least_one(per_second) }
    }

    /// The rate multiplied by `factor`.
    pub(crate) fn times(self, factor: NonZeroU32) -> Self {
        Self {
            per_minute: self.per_minute.saturating_mul(factor),
            per_second: self.per_second.saturating_mul(factor),
        }
    }

    /// The larger of two rates, in each of its parts.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            per_minute: self.per_minute.max(other.per_minute),
            per_second: self.per_second.max(other.per_second),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections: Connections::default(),
            bodies: Bodies::default(),
            rates: Rates::default(),
            events: Events::default(),
            wait_default: Duration::from_secs(60),
            wait_max: Duration::from_secs(300),
            dry_run_time: Duration::from_secs(5),
            proxies: Vec::new(),
            cors_origins: Vec::new(),
        }
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            max: 2048,
            per_address_max: 512,
            header_time: Duration::from_secs(30),
            write_time: Duration::from_secs(30),
            header_bytes_max: 32 * 1024,
            grace_time: Duration::from_secs(30),
        }
    }
}

impl Default for Bodies {
    fn default() -> Self {
        Self {
            json_bytes_max: 64 * 1024,
            batch_bytes_max: 2 * 1024 * 1024,
            json_time: Duration::from_secs(20),
            field_bytes_max: 8 * 1024,
            upload_idle_time: Duration::from_secs(60),
            upload_rate_min: 1024,
            directory_entries_max: 10_000,
        }
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            anonymous: Rate::new(120, 20),
            polls: Rate::new(1200, 40),
            account_factor: NonZeroU32::MIN.saturating_add(3),
            address_factor: NonZeroU32::MIN.saturating_add(7),
            guesses: Rate::new(60, 30),
            logins: Rate::new(20, 20),
            account_logins: Rate::new(10, 10),
            holders_max: 65_536,
        }
    }
}

//! The bounds and switches of the HTTP side. Every bound has a default and the reason for it.

use std::num::NonZeroU32;
use std::time::Duration;

use axum::http::HeaderValue;
use ipnet::IpNet;

/// How the HTTP side behaves. [`Settings::default`] is what a server without configuration does.
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
    /// The longest wait that a client gets with `Prefer: wait=N`. Proxies in front cut longer ones.
    pub wait_max: Duration,
    /// The longest that a dry run of a pin looks around; a client may want less. Enough to hear of providers.
    pub dry_run_time: Duration,
    /// Reverse proxies whose `X-Forwarded-For` is believed. None by default: anyone can write the header.
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
    /// client cannot take all of them.
    pub per_address_max: usize,
    /// How long the head of a request may take, counted from the last answer: idle connections end too.
    pub header_time: Duration,
    /// How long an answer may wait for a client that does not read.
    pub write_time: Duration,
    /// The largest head of a request, in bytes. Tokens, names and multibase CIDs fit many times over.
    pub header_bytes_max: usize,
    /// How long requests that run at a stop may go on before they are cut.
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
    /// How long an upload may stand still before it counts as cut off.
    pub upload_idle_time: Duration,
    /// The slowest upload that is served, in bytes a second on average, judged after `upload_idle_time`:
    /// a client that drips must not hold an upload open for ever.
    pub upload_rate_min: u64,
    /// The most entries of one directory upload; each costs memory until the directory is built.
    pub directory_entries_max: usize,
}

/// Streams of events. How many there may be is the service's to say.
#[derive(Debug, Clone)]
pub struct Events {
    /// How often a comment shows that the stream is alive; proxies cut what is silent for a minute. So often the
    /// credential is looked at again as well.
    pub heartbeat: Duration,
    /// How soon a client shall come back when its stream breaks off.
    pub retry: Duration,
    /// How long a stream lasts at most; a client that is still there comes back.
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

/// Request rates. The rates of an account are its plan's; these are for everyone else, and for polls.
#[derive(Debug, Clone)]
pub struct Rates {
    /// For each address (IPv6: each /64) without a good credential.
    pub anonymous: Rate,
    /// For each key or address: reads that clients repeat while they wait (status and lists). They have a
    /// budget of their own, so that waiting for a pin cannot use up the calls.
    pub polls: Rate,
    /// How many times the rate of one key all keys and sessions of an account have together.
    pub account_factor: NonZeroU32,
    /// How many times the rate of one key all have together that come from one address (IPv6: one /64) with good
    /// credentials of accounts with one plan.
    pub address_factor: NonZeroU32,
    /// Wrong credentials from one address (IPv6: one /64). Who has sent more gets no answer to any, and costs no look
    /// at the database.
    pub guesses: Rate,
    /// For each address (IPv6: each /64): tries to sign up, to log in, and to show a code for it. Whoever guesses
    /// passwords needs many more of them than whoever mistypes one.
    pub logins: Rate,
    /// For each account, from wherever they come: tries of its password. It fills again all the time, so that nobody
    /// is locked out of an account for good.
    pub account_logins: Rate,
    /// Keys and addresses that are remembered at one time; the longest unused are forgotten first.
    pub holders_max: usize,
}

/// How many requests a minute, and how many of them in one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests a minute, given back evenly over the minute.
    pub per_minute: NonZeroU32,
    /// Requests a second.
    pub per_second: NonZeroU32,
}

impl Rate {
    /// A rate; a zero counts as one, because nobody configures a rate to shut people out.
    #[must_use]
    pub fn new(per_minute: u32, per_second: u32) -> Self {
        let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self { per_minute: at_least_one(per_minute), per_second: at_least_one(per_second) }
    }

    /// So many times the rate.
    pub(crate) fn times(self, factor: NonZeroU32) -> Self {
        Self {
            per_minute: self.per_minute.saturating_mul(factor),
            per_second: self.per_second.saturating_mul(factor),
        }
    }

    /// In each of its parts the larger of two rates.
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

//! The tables of `docs/reference/http` that are generated: scopes from the OpenAPI document, limits from constants and
//! defaults. With `PINFOLD_UPDATE_DOCS=1` these tests write the tables instead of comparing them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use pinfold_http::Settings;
use pinfold_model::{
    CID_TEXT_LEN_MAX, ClusterId, Email, IdempotencyKey, IpRules, PinName, Scope, Timelock, TokenName,
};
use pinfold_service::{BATCH_ITEMS_MAX, PREFERENCES_LEN_MAX, Password};

use crate::document::Document;
use crate::harness::Api;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/http");

/// Compares the tables of a file with generated ones, or writes them.
fn check(file: &str, tables: &[(&str, String)]) {
    let path = Path::new(FOLDER).join(file);
    let old = std::fs::read_to_string(&path).expect("the reference exists");
    let mut text = old.clone();
    for (name, table) in tables {
        let begin = format!("<!-- generated: {name} -->\n");
        let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{file} has no table {name}"));
        let (_, after) = rest.split_once("<!-- end -->").expect("the table ends");
        text = format!("{before}{begin}\n{table}\n<!-- end -->{after}");
    }
    if std::env::var_os("PINFOLD_UPDATE_DOCS").is_some() {
        std::fs::write(&path, text).expect("the reference can be written");
    } else {
        assert_eq!(old, text, "set PINFOLD_UPDATE_DOCS=1 to update {}", path.display());
    }
}

fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut text = format!("| {} |\n|{}\n", header.join(" | "), " --- |".repeat(N));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

#[tokio::test]
async fn reference_lists_the_scope_of_every_route() {
    let api = Api::start().await;
    let document = Document::of(&api).await;
    let (mut scoped, mut others) =
        (BTreeMap::<String, Vec<String>>::new(), BTreeMap::<&str, Vec<String>>::new());
    for operation in document.operations() {
        let route = route(&operation.method, operation.path);
        let key = operation.security().into_iter().find(|(scheme, _)| scheme == "key");
        match key {
            Some((_, scopes)) if scopes.is_empty() => others.entry("Role").or_default().push(route),
            Some((_, scopes)) => {
                scopes.into_iter().for_each(|scope| scoped.entry(scope).or_default().push(route.clone()))
            }
            None if operation.security().is_empty() => others.entry("Public").or_default().push(route),
            None => others.entry("Session").or_default().push(route),
        }
    }
    let known: BTreeSet<_> = Scope::ALL.iter().map(|scope| scope.as_str().to_owned()).collect();
    assert_eq!(scoped.keys().cloned().collect::<BTreeSet<_>>(), known, "every scope opens a route");
    let rows = Scope::ALL.iter().map(|scope| {
        let routes = scoped.get(scope.as_str()).map(|routes| routes.join("<br>")).unwrap_or_default();
        [format!("`{scope}`"), permits(*scope).to_owned(), routes]
    });
    let scopes = table(["scope", "permits", "routes"], rows);
    let rows = others.into_iter().map(|(needs, routes)| [needs.to_owned(), routes.join("<br>")]);
    check("scopes.md", &[("scopes", scopes), ("others", table(["needs", "routes"], rows))]);
}

/// A route as the tables have it: relative to the base path, or in parentheses.
fn route(method: &str, path: &str) -> String {
    match path.strip_prefix("/api/v3") {
        Some("") => format!("`{method} /`"),
        Some(path) => format!("`{method} {path}`"),
        None => format!("(`{method} {path}`)"),
    }
}

fn permits(scope: Scope) -> &'static str {
    match scope {
        Scope::FilesRead => "list pins and the entries of directories",
        Scope::FilesWrite => "upload files and directories, pin CIDs",
        Scope::FilesDelete => "remove pins",
        Scope::FilesRename => "rename pins",
        Scope::UserRead => "read the account and its preferences",
        Scope::UserWrite => "change the account and its preferences",
        Scope::TokensRead => "list API keys",
        Scope::TokensWrite => "create API keys",
        Scope::TokensDelete => "revoke API keys",
        Scope::PlansRead => "read the plan and its usage",
        Scope::PlansWrite => "change the plan",
        Scope::ReferralsRead => "list referrals",
        Scope::LogsRead => "read the audit log of the account",
        Scope::ClusterRead => "list clusters, read the status and allocations of pins",
        Scope::Admin => "administer the server",
        Scope::WebhooksRead => "list webhooks and their deliveries",
        Scope::WebhooksWrite => "create, change, test and delete webhooks",
    }
}

#[test]
fn reference_lists_the_limits() {
    check("limits.md", &[("fixed", fixed()), ("configurable", configurable())]);
}

/// Limits of the API, which no setting changes.
fn fixed() -> String {
    let years = Timelock::AHEAD_MAX.as_secs() / Duration::from_hours(366 * 24).as_secs();
    let bytes = |count: usize| format!("{count} bytes");
    let rows = [
        ("text of a CID", bytes(CID_TEXT_LEN_MAX)),
        ("`originalName`, `customName`, `newName`", bytes(PinName::LEN_MAX)),
        ("`timelock`, `retainUntil`", format!("{years} years ahead")),
        ("`cl`", bytes(ClusterId::LEN_MAX)),
        ("items of a batch", BATCH_ITEMS_MAX.to_string()),
        ("name of an API key", bytes(TokenName::LEN_MAX)),
        ("entries of `ipAllowlist`", IpRules::COUNT_MAX.to_string()),
        ("email address", bytes(Email::LEN_MAX)),
        ("password", format!("{} to {} bytes", Password::LEN_MIN, Password::LEN_MAX)),
        ("all preferences together", bytes(PREFERENCES_LEN_MAX)),
        ("`Idempotency-Key`", format!("{} characters", IdempotencyKey::LEN_MAX)),
    ];
    table(["what", "limit"], rows.map(|(what, limit)| [what.to_owned(), limit]))
}

/// Limits that the operator can change, with their defaults.
#[expect(clippy::too_many_lines, reason = "a table of all limits")]
fn configurable() -> String {
    let settings = Settings::default();
    let (bodies, rates, connections) = (&settings.bodies, &settings.rates, &settings.connections);
    let bytes = |count: usize| format!("{count} bytes");
    let seconds = |time: Duration| format!("{} s", time.as_secs());
    let each = |rate: u32| format!("{rate} per minute");
    let rows = [
        ("JSON body", "http.bodies.json_bytes_max", bytes(bodies.json_bytes_max)),
        ("JSON body of a batch", "http.bodies.batch_bytes_max", bytes(bodies.batch_bytes_max)),
        ("time for a JSON body to arrive", "http.bodies.json_seconds", seconds(bodies.json_time)),
        ("text field of a form", "http.bodies.field_bytes_max", bytes(bodies.field_bytes_max)),
        ("pause of an upload", "http.bodies.upload_idle_seconds", seconds(bodies.upload_idle_time)),
        (
            "average rate of an upload, at least",
            "http.bodies.upload_bytes_per_second_min",
            format!("{} bytes/s", bodies.upload_rate_min),
        ),
        (
            "files of a directory upload",
            "http.bodies.directory_entries_max",
            bodies.directory_entries_max.to_string(),
        ),
        ("head of a request", "http.connections.header_bytes_max", bytes(connections.header_bytes_max)),
        (
            "connections of one address",
            "http.connections.per_address_max",
            connections.per_address_max.to_string(),
        ),
        (
            "time for the head of a request to arrive",
            "http.connections.header_seconds",
            seconds(connections.header_time),
        ),
        ("time for the client to read", "http.connections.write_seconds", seconds(connections.write_time)),
        (
            "wait of a pin request without `Prefer`",
            "http.wait_default_seconds",
            seconds(settings.wait_default),
        ),
        ("wait with `Prefer: wait=N`", "http.wait_max_seconds", seconds(settings.wait_max)),
        ("time of a dry run", "http.dry_run_seconds", seconds(settings.dry_run_time)),
        (
            "requests without a credential, per address",
            "http.rates.anonymous_per_minute",
            each(rates.anonymous.per_minute.get()),
        ),
        (
            "status and list requests, per key, at least",
            "http.rates.polls_per_minute",
            each(rates.polls.per_minute.get()),
        ),
        (
            "requests of an account, as a multiple of one key",
            "http.rates.account_factor",
            rates.account_factor.to_string(),
        ),
        (
            "requests from an address, as a multiple of one key",
            "http.rates.address_factor",
            rates.address_factor.to_string(),
        ),
        (
            "wrong credentials, per address",
            "http.rates.invalid_credentials_per_minute",
            each(rates.guesses.per_minute.get()),
        ),
        (
            "logins and sign-ups, per address",
            "http.rates.logins_per_minute",
            each(rates.logins.per_minute.get()),
        ),
        (
            "password attempts, per account",
            "http.rates.logins_per_account_per_minute",
            each(rates.account_logins.per_minute.get()),
        ),
    ];
    table(
        ["what", "setting", "default"],
        rows.map(|(what, setting, limit)| [what.to_owned(), format!("`{setting}`"), limit]),
    )
}

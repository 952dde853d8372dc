//! schemathesis reads the OpenAPI document of a server and sends valid and invalid requests: every response must be
//! described by the document, and none may be a 5xx.
//!
//! `PINFOLD_TEST_FUZZ_EXAMPLES` (requests of each kind for an operation; default 10) and `PINFOLD_TEST_FUZZ_SEED`
//! change the length and the seed of the run.

use tokio::process::Command;

use crate::{cache, pinfold::Pinfold, program};

/// No peer is asked for content, and no client is rate limited.
const SETTINGS: &str = "
[pins]
find_seconds = 1
[plans.premium]
requests_per_minute = 1000000
requests_per_second = 1000000
[http.rates]
anonymous_per_minute = 1000000
anonymous_per_second = 1000000
polls_per_minute = 1000000
polls_per_second = 1000000
invalid_credentials_per_minute = 1000000
invalid_credentials_per_second = 1000000
logins_per_minute = 1000000
logins_per_account_per_minute = 1000000
";

#[tokio::test]
async fn server_conforms_to_its_document() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = folder.path().join("pinfold.toml");
    std::fs::write(&settings, SETTINGS).expect("it can be written");
    let settings = settings.to_str().expect("a plain path");
    let pinfold = Pinfold::start(&["--no-bootstrap", "--config", settings]).await;

    let clients = cache::repository().join("crates/server/tests/peers/clients");
    let number = |name: &str, default: &str| std::env::var_os(name).unwrap_or_else(|| default.into());
    let mut command = Command::new("python3");
    command.current_dir(folder.path()).env("PYTHONPATH", cache::schemathesis());
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("NO_COLOR", "1");
    command.env("SCHEMATHESIS_HOOKS", clients.join("schemathesis_hooks.py"));
    command
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(clients.join("schemathesis.toml"))
        .arg("run");
    command.arg(format!("{}/api/v3/docs/openapi.json", pinfold.url));
    command.args(["--header", &format!("X-API-Key: {}", pinfold.key), "--checks", "all", "--workers", "1"]);
    // A request without `Authorization` still has the key, which routes that need a session answer with 403.
    // `crates/http/tests/it/security.rs` tests requests without any credential on every route.
    command.args(["--exclude-checks", "missing_required_header"]);
    command.args(["--continue-on-failure", "--no-shrink", "--warnings", "off"]);
    // The time to generate values depends only on the machine.
    command.args(["--suppress-health-check", "too_slow"]);
    command.arg("--max-examples").arg(number("PINFOLD_TEST_FUZZ_EXAMPLES", "10"));
    command.arg("--seed").arg(number("PINFOLD_TEST_FUZZ_SEED", "1"));
    let output = program::finish("schemathesis", command, b"").await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

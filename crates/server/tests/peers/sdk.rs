//! The published Python SDK, unchanged except for its base URL: all of its methods work.

use std::collections::BTreeSet;

use tokio::process::Command;

use crate::{cache, pinfold::Pinfold, program, tours::table::Table};

const EMAIL: &str = "ada@example.org";
const PASSWORD: &str = "a long enough password";

#[tokio::test]
async fn every_method_of_the_python_sdk_works() {
    let roots = tempfile::tempdir().expect("a temporary folder");
    let root = roots.path().canonicalize().expect("it is there");
    let root = root.to_str().expect("a plain path");
    let pinfold = Pinfold::start_with(&["--no-bootstrap"], &[("PINFOLD_UPLOADS__SERVER_ROOTS", root)]).await;
    let key = pinfold.account(EMAIL, PASSWORD).await;

    let mut command = Command::new("python3");
    command.arg(cache::repository().join("crates/server/tests/peers/clients/sdk.py"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("PINFOLD_SERVER", &pinfold.url);
    command.env("PINFOLD_API_KEY", &key).env("EMAIL", EMAIL).env("PASSWORD", PASSWORD).env("ROOT", root);
    let path = [cache::python_sdk(), cache::python_requests()];
    command.env("PYTHONPATH", std::env::join_paths(path).expect("plain paths"));
    let worked = program::output("the Python SDK", command, b"").await;
    let worked: BTreeSet<_> = worked.lines().map(str::to_owned).collect();
    let table = Table::read();
    assert_eq!(
        worked,
        table.column("Python SDK").into_values().collect(),
        "the methods that ran, and those of the table"
    );
    let version = table.version("Python SDK").rsplit(' ').next().expect("a version");
    assert!(cache::python_sdk().ends_with(format!("sdk-py-{version}")), "the table says {version}");
}

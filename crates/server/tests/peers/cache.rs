//! Paths of the programs that `ci/peers` installs.

use std::path::{Path, PathBuf};

const KUBO: &str = "kubo-0.43.0/ipfs";
const NODE: &str = "node-24.19.0/bin/node";
const NODE_MODULES: &str = "helia/node_modules";
const REQUESTS: &str = "requests-2.34.2";
const SDK: &str = "sdk-py-3.1.1";
const SCHEMATHESIS: &str = "schemathesis-4.32.5";
const WEBHOOKS_NPM: &str = "webhooks-npm/node_modules";
const WEBHOOKS_PYPI: &str = "webhooks-pypi-1.1.0";
const API_CLIENTS: &str = "api-clients/node_modules";
const OAPI_CODEGEN: &str = "oapi-codegen";

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate has a parent folder");
    crates.parent().expect("the workspace has a root").to_path_buf()
}

/// The `ipfs` binary.
pub(crate) fn kubo() -> PathBuf {
    installed(KUBO)
}

/// A version of Node.js that is new enough for Helia.
pub(crate) fn node() -> PathBuf {
    installed(NODE)
}

/// The npm packages of Helia and axios.
pub(crate) fn node_modules() -> PathBuf {
    installed(NODE_MODULES)
}

/// A folder for `PYTHONPATH` that holds `requests`.
pub(crate) fn python_requests() -> PathBuf {
    installed(REQUESTS)
}

/// A folder for `PYTHONPATH` that contains the Python SDK without its dependencies.
pub(crate) fn python_sdk() -> PathBuf {
    installed(SDK)
}

/// A folder for `PYTHONPATH` that contains schemathesis and its dependencies.
pub(crate) fn schemathesis() -> PathBuf {
    installed(SCHEMATHESIS)
}

/// The npm packages that drive a browser and generate TypeScript types.
pub(crate) fn api_clients() -> PathBuf {
    installed(API_CLIENTS)
}

/// The folder of `oapi-codegen`, with a Go module in `module` that vendors the dependencies of its output.
pub(crate) fn oapi_codegen() -> PathBuf {
    installed(OAPI_CODEGEN)
}

/// The npm package `standardwebhooks`.
pub(crate) fn webhooks_npm() -> PathBuf {
    installed(WEBHOOKS_NPM)
}

/// A folder for `PYTHONPATH` that contains the PyPI package `standardwebhooks`.
pub(crate) fn webhooks_pypi() -> PathBuf {
    installed(WEBHOOKS_PYPI)
}

fn installed(name: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(path.exists(), "{} is missing: run ci/peers, which installs it", path.display());
    path
}

fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("PINFOLD_PEERS_DIR") {
        return PathBuf::from(folder);
    }
    let home = std::env::var_os("HOME").expect("HOME or PINFOLD_PEERS_DIR is set");
    Path::new(&home).join(".cache/pinfold-peers")
}

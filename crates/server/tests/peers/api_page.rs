//! The API page in a browser: each operation, sent with the values that the page fills in, must be the request that the
//! document describes, and must be valid.
//!
//! `PINFOLD_TEST_SCREENSHOTS=FOLDER` stores screenshots.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

use crate::cache;
use crate::pinfold::Pinfold;
use crate::program::Program;

/// No peer has the content of the examples.
const SETTINGS: &str = "
[pins]
find_seconds = 1
[http]
dry_run_seconds = 1
";

/// No response; an invalid request, a wrong method, a reused `Idempotency-Key`, an internal error.
const UNFIT: [u16; 6] = [0, 400, 405, 415, 422, 500];

/// The requests that the page sent for an operation.
#[derive(Debug, Deserialize)]
struct Tried {
    id: String,
    /// One request, or two for a POST.
    sent: Vec<Sent>,
    fault: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Sent {
    method: String,
    path: String,
    status: u16,
}

#[tokio::test]
async fn api_page_sends_every_operation() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = folder.path().join("pinfold.toml");
    std::fs::write(&settings, SETTINGS).expect("it can be written");
    let settings = settings.to_str().expect("a plain path");
    let pinfold = Pinfold::start(&["--no-bootstrap", "--config", settings]).await;
    let operations = operations(&pinfold.document().await);

    let mut command = Command::new(cache::node());
    command.arg(cache::repository().join("crates/server/tests/peers/clients/api-page.mjs"));
    command.args([&pinfold.url, &pinfold.key]).current_dir(cache::api_clients());
    if let Some(screenshots) = std::env::var_os("PINFOLD_TEST_SCREENSHOTS") {
        std::fs::create_dir_all(&screenshots).expect("the folder can be made");
        command.arg(std::path::absolute(screenshots).expect("a path"));
    }
    let mut browser = Program::start("browser", command, folder.path());
    let mut tried: BTreeMap<String, Tried> = BTreeMap::new();
    while let Some(one) = browser.line(|line| serde_json::from_str::<Option<Tried>>(line).ok()).await {
        assert!(!tried.contains_key(&one.id), "operation {} is on the page more than once", one.id);
        tried.insert(one.id.clone(), one);
    }
    browser.kill().await;

    let mut faults = Vec::new();
    for (id, (method, path)) in &operations {
        match tried.remove(id) {
            Some(one) => faults.extend(one.faults(method, path)),
            None => faults.push(format!("{id}: not on the page")),
        }
    }
    faults.extend(tried.values().map(|one| format!("not in the document: {one:?}")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

impl Tried {
    fn faults(&self, method: &str, path: &str) -> Vec<String> {
        let mut faults: Vec<_> = self.fault.iter().map(|fault| format!("{}: {fault}", self.id)).collect();
        let expected = if method == "POST" { 2 } else { 1 };
        if self.sent.len() != expected {
            faults.push(format!("{}: {} requests were sent", self.id, self.sent.len()));
        }
        for sent in &self.sent {
            let is_right = sent.method == method && fits(path, &sent.path);
            if !is_right || UNFIT.contains(&sent.status) {
                faults.push(format!("{}: {sent:?}, but the document has {method} {path}", self.id));
            }
        }
        faults
    }
}

/// Method and path of each operation, by its id.
fn operations(document: &Value) -> BTreeMap<String, (String, String)> {
    let paths = document["paths"].as_object().expect("the document has paths");
    let of_path = |(path, item): (&String, &Value)| {
        let methods = item.as_object().expect("methods").iter();
        let one = methods.filter_map(|(method, operation)| {
            Some((operation["operationId"].as_str()?.to_owned(), (method.to_uppercase(), path.clone())))
        });
        one.collect::<Vec<_>>()
    };
    let all: BTreeMap<_, _> = paths.iter().flat_map(of_path).collect();
    assert!(all.len() > 80, "{}", all.len());
    all
}

/// Whether a path matches a template.
fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template.iter().zip(&path).all(|(wanted, part)| {
            if wanted.starts_with('{') { !part.is_empty() && !part.contains('{') } else { wanted == part }
        })
}

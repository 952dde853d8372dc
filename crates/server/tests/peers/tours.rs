//! One tour of the API for each HTTP library that its clients use. The results must match the operations and the table
//! in `docs/reference/compatibility.md`.

mod operations;
pub(crate) mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use operations::{FILES, OPERATIONS};
use serde::Deserialize;
use serde_json::Value;
use table::Table;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{cache, pinfold::Pinfold, program};

const EMAIL: &str = "ada@example.org";
const PASSWORD: &str = "a long enough password";

#[tokio::test]
async fn curl_tour() {
    tour("curl", "tour.sh", ("bash".into(), &[])).await;
}

#[tokio::test]
async fn fetch_tour() {
    tour("fetch", "tour-fetch.mjs", (cache::node(), &[])).await;
}

#[tokio::test]
async fn axios_tour() {
    tour("axios", "tour-axios.mjs", (cache::node(), &[])).await;
}

#[tokio::test]
async fn go_tour() {
    tour("Go", "tour.go", ("go".into(), &["run"])).await;
}

#[tokio::test]
async fn php_tour() {
    tour("PHP", "tour.php", ("php".into(), &[])).await;
}

#[tokio::test]
async fn requests_tour() {
    tour("requests", "tour.py", ("python3".into(), &[])).await;
}

#[test]
fn table_has_the_requests_that_are_sent() {
    let table = Table::read();
    for operation in OPERATIONS {
        let request = format!("`{}`", operation.request);
        assert_eq!(table.requests().get(operation.name), Some(&request.as_str()), "{}", operation.name);
    }
}

/// One line of the output of a tour.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    /// The name and version of the program.
    Client { client: String },
    /// The client cannot do this operation.
    LeftOut {
        operation: String,
        #[serde(rename = "leftOut")]
        left_out: String,
    },
    /// The client did this operation.
    Done { operation: String, status: u16, ok: bool, answer: Value },
}

/// Runs a tour with its own server and compares the results.
async fn tour(client: &str, script: &str, program: (PathBuf, &[&str])) {
    let folder = folder_for(script);
    let place = folder.path().canonicalize().expect("it is there");
    let root = place.to_str().expect("a plain path");
    let pinfold = Pinfold::start_with(&["--no-bootstrap"], &[("PINFOLD_UPLOADS__SERVER_ROOTS", root)]).await;
    let key = pinfold.account(EMAIL, PASSWORD).await;

    let mut command = Command::new(program.0);
    command.args(program.1).arg(place.join(script)).current_dir(&place);
    command.env("PINFOLD_SERVER", &pinfold.url).env("PINFOLD_API_KEY", key);
    command.env("EMAIL", EMAIL).env("PASSWORD", PASSWORD);
    command.env("PYTHONPATH", cache::python_requests()).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = program::finish(script, command, b"").await;
    let printed = String::from_utf8(output.stdout).expect("its output is UTF-8");
    let lines: Vec<Line> = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{script} printed {line}")))
        .collect();

    let mut faults = faults_of(&lines);
    if !output.status.success() {
        faults.push(format!("{script} failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    if faults.is_empty() {
        faults = compared(&Table::read(), client, &lines);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A folder with the tour and the files that it uploads.
fn folder_for(script: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tours = cache::repository().join("crates/server/tests/peers/clients");
    std::fs::copy(tours.join(script), folder.path().join(script)).expect("the tour exists");
    for (name, content) in FILES {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(""))).expect("a folder can be made");
        std::fs::write(path, content).expect("a file can be written");
    }
    std::os::unix::fs::symlink(cache::node_modules(), folder.path().join("node_modules")).expect("a link");
    folder
}

/// Differences between the results and the operations; each operation must occur once, in order.
fn faults_of(lines: &[Line]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut answers = BTreeMap::new();
    for line in lines {
        match line {
            Line::Client { .. } => {}
            Line::LeftOut { operation, .. } => drop(answers.insert(operation.as_str(), None)),
            Line::Done { operation, status, ok, answer } => {
                if answers.insert(operation, Some((*status, *ok, answer))).is_some() {
                    faults.push(format!("{operation}: twice"));
                }
            }
        }
    }
    for operation in OPERATIONS {
        match answers.remove(operation.name) {
            Some(Some((status, ok, answer))) => {
                let fault = (status != operation.status).then(|| format!("answered {status}: {answer}"));
                let fault = fault.or_else(|| operation.fault(answer));
                let fault = fault.or_else(|| (ok != (status < 400)).then(|| format!("{status} is ok: {ok}")));
                faults.extend(fault.map(|fault| format!("{}: {fault}", operation.name)));
            }
            Some(None) => {}
            None => faults.push(format!("{}: not done", operation.name)),
        }
    }
    faults.extend(answers.keys().map(|operation| format!("{operation}: unexpected operation")));
    faults
}

/// Differences between the document and the results.
fn compared(table: &Table, client: &str, lines: &[Line]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut documented = table.column(client);
    for line in lines {
        let (operation, cell) = match line {
            Line::Client { client: ran } => {
                faults.extend(version_fault(table.version(client), ran));
                continue;
            }
            Line::LeftOut { operation, left_out } => (operation, left_out.clone()),
            Line::Done { operation, status, .. } => (operation, status.to_string()),
        };
        let documented_cell = documented.remove(operation);
        if documented_cell.as_ref() != Some(&cell) {
            faults.push(format!(
                "the table has {documented_cell:?} for {operation} with {client}, and the result was {cell:?}"
            ));
        }
    }
    faults.extend(
        documented.keys().map(|operation| format!("{operation} is in the table, and {client} did not do it")),
    );
    faults
}

/// Programs installed by `ci/peers` must have the version in the document; others have that of the machine.
fn version_fault(documented: &str, ran: &str) -> Option<String> {
    let name = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
    let is_of_the_machine = matches!(name(ran).as_str(), "curl" | "Go" | "PHP");
    let is_same = documented == ran || is_of_the_machine && name(documented) == name(ran);
    (!is_same).then(|| format!("the document says {documented:?}, and {ran:?} ran"))
}

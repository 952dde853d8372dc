//! The six samples of the original API page, unchanged except for the base URL, each with the client it was written
//! for.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{Over, cache, data, kubo::Kubo, pinfold::Pinfold, program};

#[tokio::test]
async fn every_sample_pins() {
    let kubo = Kubo::start(Over::TcpTls).await;
    let pinfold = Pinfold::connected_to(kubo.address(Over::TcpTls)).await;
    let samples = Samples::new();
    for name in Samples::NAMES {
        let content = samples.folder.path().join(format!("content of {name}"));
        std::fs::write(&content, data::bytes(name, 3_000_000)).expect("the file can be written");
        let cid = kubo.add(&content).await;
        let output = program::finish(name, samples.command(name, &pinfold, &cid), b"").await;
        let printed = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} failed: {printed}{error}");
        let answer: Value =
            serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{name} printed {printed}"));
        assert_eq!(answer["cid"], *cid, "{name}");
        assert_eq!(answer["clusterId"], "cl0-global", "{name}");
        assert_eq!(answer["expiresAt"], Value::Null, "{name}");
    }
}

#[tokio::test]
async fn every_sample_reports_errors() {
    let pinfold = Pinfold::start(&["--no-bootstrap"]).await;
    let samples = Samples::new();
    for name in Samples::NAMES {
        let output = program::finish(name, samples.command(name, &pinfold, "not-a-cid"), b"").await;
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        assert!(!output.status.success(), "{name} succeeded: {printed}");
        assert!(printed.contains("Invalid CID"), "{name} printed {printed}");
    }
}

/// The samples, copied next to the packages that the JavaScript ones import.
struct Samples {
    folder: TempDir,
}

impl Samples {
    const NAMES: [&str; 6] = ["curl.sh", "fetch.mjs", "axios.mjs", "pin.py", "main.go", "pin.php"];

    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let source = cache::repository().join("examples/seed");
        for name in Self::NAMES {
            std::fs::copy(source.join(name), folder.path().join(name))
                .expect("the sample is in examples/seed");
        }
        std::os::unix::fs::symlink(cache::node_modules(), folder.path().join("node_modules"))
            .expect("a link");
        Self { folder }
    }

    fn command(&self, name: &str, pinfold: &Pinfold, cid: &str) -> Command {
        let program: (PathBuf, &[&str]) = match Path::new(name).extension().and_then(|end| end.to_str()) {
            Some("sh") => ("bash".into(), &[]),
            Some("mjs") => (cache::node(), &[]),
            Some("py") => ("python3".into(), &[]),
            Some("go") => ("go".into(), &["run"]),
            Some("php") => ("php".into(), &[]),
            other => panic!("no program runs {other:?}"),
        };
        let mut command = Command::new(program.0);
        command.args(program.1).arg(self.folder.path().join(name)).arg(cid);
        command.env("PINFOLD_SERVER", &pinfold.url).env("PINFOLD_API_KEY", &pinfold.key);
        command.env("PYTHONPATH", cache::python_requests());
        command
    }
}

//! The published UnixFS vectors: a recipe for the bytes of a file, and the CID that independent importers agree on.

use std::path::Path;

use serde_json::Value;
use tokio::process::Command;

use crate::{cache, program};

const PROFILE: &str = "unixfs-v1-2025";

/// A file of the vectors.
pub(crate) struct Vector {
    pub(crate) name: String,
    /// Its CID under `unixfs-v1-2025`.
    pub(crate) cid: String,
    recipe: Value,
}

/// Every vector that is one file. `POST /files` takes no folders.
pub(crate) fn files() -> Vec<Vector> {
    let path = cache::repository().join("../shared/vectors/unixfs.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let document: Value = serde_json::from_str(&text).expect("the vectors are JSON");
    let vectors = document["vectors"].as_array().expect("there are vectors");
    vectors.iter().filter_map(parse).collect()
}

fn parse(vector: &Value) -> Option<Vector> {
    let expected = &vector["expect"][PROFILE];
    if !matches!(expected["type"].as_str()?, "file" | "raw") {
        return None;
    }
    let name = vector["name"].as_str().expect("a vector has a name").to_owned();
    let cid = expected["cid"].as_str().expect("a vector has a CID").to_owned();
    Some(Vector { name, cid, recipe: vector["input"].clone() })
}

impl Vector {
    /// Writes the file with a Node.js program: the files have gigabytes, and tests are built without optimisation.
    pub(crate) async fn write(&self, path: &Path) {
        let mut command = Command::new(cache::node());
        command.arg(cache::repository().join("crates/server/tests/peers/vector.mjs"));
        command.arg(self.recipe.to_string()).arg(path);
        program::output(&self.name, command, b"").await;
    }
}

//! The published UnixFS vectors: a recipe for the bytes of a file, and the CID that independent importers agree on.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use chacha20::{
    ChaCha20,
    cipher::{KeyIvInit, StreamCipher},
};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{cache, data};

const PROFILE: &str = "unixfs-v1-2025";

/// A file of the vectors.
pub(crate) struct Vector {
    pub(crate) name: String,
    /// Its CID under `unixfs-v1-2025`.
    pub(crate) cid: String,
    recipe: Recipe,
}

#[derive(Deserialize)]
#[serde(tag = "gen", rename_all = "lowercase")]
enum Recipe {
    Utf8 { text: String },
    Sha256ctr { seed: String, size: usize },
    Chacha20 { seed: String, size: usize },
}

/// Every vector that is one file. Folders are not for `POST /files`.
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
    let recipe = serde_json::from_value(vector["input"].clone());
    let recipe = recipe.unwrap_or_else(|error| panic!("the recipe of {name} is new here: {error}"));
    Some(Vector { name, cid, recipe })
}

impl Vector {
    /// Writes the file.
    pub(crate) fn write(&self, path: &Path) {
        let mut file = BufWriter::new(File::create(path).expect("the file can be made"));
        match &self.recipe {
            Recipe::Utf8 { text } => file.write_all(text.as_bytes()),
            Recipe::Sha256ctr { seed, size } => file.write_all(&data::bytes(seed, *size)),
            Recipe::Chacha20 { seed, size } => write_keystream(&mut file, seed, *size),
        }
        .and_then(|()| file.flush())
        .expect("the file can be written");
    }
}

/// A ChaCha20 keystream: the key is the seed's SHA-256, the nonce zero.
fn write_keystream(file: &mut impl Write, seed: &str, size: usize) -> std::io::Result<()> {
    let key: [u8; 32] = Sha256::digest(seed).into();
    let mut cipher = ChaCha20::new(&key.into(), &[0; 12].into());
    let mut buffer = vec![0; 1024 * 1024];
    let mut left = size;
    while left > 0 {
        let piece = &mut buffer[..left.min(1024 * 1024)];
        piece.fill(0);
        cipher.apply_keystream(piece);
        file.write_all(piece)?;
        left -= piece.len();
    }
    Ok(())
}

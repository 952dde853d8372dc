//! CIDs compared with independent implementations, and reading back imported content.

use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit as _, StreamCipher as _};
use cid::Cid;
use futures::TryStreamExt as _;
use multihash_codetable::{Code, MultihashDigest as _};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use serde_json::Value;

use super::file::{TreeBuilder, leaf};
use super::*;
use crate::blocks::{HoldName, MemoryBlocks};
use crate::{Blocks, HoldId};

/// Built-in vectors: name, recipe, and the CIDs of the three profiles.
const SMALL: &str = r#"{"vectors": [
  {"name": "empty-file", "input": {"gen": "utf8", "text": ""}, "expect": {
    "unixfs-v0-2015": {"cid": "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"},
    "kubo-legacy-cidv1": {"cid": "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"},
    "unixfs-v1-2025": {"cid": "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"}}},
  {"name": "hello-world", "input": {"gen": "utf8", "text": "hello world"}, "expect": {
    "unixfs-v0-2015": {"cid": "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"},
    "kubo-legacy-cidv1": {"cid": "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"},
    "unixfs-v1-2025": {"cid": "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"}}},
  {"name": "empty-dir", "input": {"gen": "tree", "entries": {}}, "expect": {
    "unixfs-v0-2015": {"cid": "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"}}}
]}"#;

/// Uses a crate that is optimised in test builds too: the recipes need some ten million digests.
fn sha256(bytes: &[u8]) -> [u8; 32] {
    Code::Sha2_256.digest(bytes).digest().try_into().unwrap()
}

/// A file's bytes: returns as many as requested, in order.
type Content = Box<dyn FnMut(usize) -> Bytes>;

fn of_bytes(bytes: impl Into<Bytes>) -> Content {
    let mut rest = bytes.into();
    Box::new(move |length| rest.split_to(length.min(rest.len())))
}

fn sha256ctr(seed: String, mut left: usize) -> Content {
    let (mut counter, mut ready) = (0_u64, BytesMut::new());
    Box::new(move |length| {
        let length = length.min(left);
        while ready.len() < length {
            ready.extend_from_slice(&sha256(&[seed.as_bytes(), &counter.to_be_bytes()].concat()));
            counter += 1;
        }
        left -= length;
        ready.split_to(length).freeze()
    })
}

/// The keystream of ChaCha20. The first block is from the plain cipher. The rest is the encryption of zeros with ring's
/// AEAD, which is optimised in test builds too: two of the files have 1 GiB.
fn chacha20(seed: &str, size: usize) -> Bytes {
    let key = sha256(seed.as_bytes());
    let mut stream = vec![0; size.max(64)];
    let (first, rest) = stream.split_at_mut(64);
    ChaCha20::new(&key.into(), &[0; 12].into()).apply_keystream(first);
    let aead = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).unwrap());
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let _tag = aead.seal_in_place_separate_tag(nonce, Aad::empty(), rest).unwrap();
    stream.truncate(size);
    stream.into()
}

fn content(input: &Value) -> Content {
    let text = |key: &str| input[key].as_str().unwrap().to_owned();
    let size = || usize::try_from(input["size"].as_u64().unwrap()).unwrap();
    match input["gen"].as_str().unwrap() {
        "utf8" => of_bytes(text("text")),
        "sha256ctr" => sha256ctr(text("seed"), size()),
        "chacha20" => of_bytes(chacha20(&text("seed"), size())),
        other => panic!("unknown generator {other}"),
    }
}

fn file(profile: &Profile, mut content: Content) -> Imported {
    let mut tree = TreeBuilder::new(*profile);
    let mut first = true;
    loop {
        let chunk = content(profile.chunk_bytes());
        if chunk.is_empty() && !first {
            return tree.finish().unwrap().1;
        }
        first = false;
        let size_bytes = chunk.len() as u64;
        tree.push(&leaf(profile, chunk).unwrap(), size_bytes).unwrap();
    }
}

fn text_file(profile: &Profile, text: &str) -> Imported {
    file(profile, content(&serde_json::json!({"gen": "utf8", "text": text})))
}

fn directory(profile: &Profile, input: &Value) -> Option<DirectoryBuilder> {
    let number = |key: &str| usize::try_from(input[key].as_u64().unwrap()).unwrap();
    let mut builder = DirectoryBuilder::new();
    match input["gen"].as_str().unwrap() {
        "tree" => {
            for (path, input) in input["entries"].as_object().unwrap() {
                match path.strip_suffix('/') {
                    Some(path) => builder.insert_directory(path).unwrap(),
                    None => builder.insert(path, file(profile, content(input))).unwrap(),
                }
            }
        }
        "manyfiles" => {
            let (prefix, suffix) = (input["prefix"].as_str().unwrap(), input["suffix"].as_str().unwrap());
            for n in 0..number("count") {
                let name = format!("{prefix}{n:0width$}{suffix}", width = number("width"));
                builder.insert(&name, text_file(profile, &name)).unwrap();
            }
        }
        "kubo-hamt" => {
            let alphabet = b"abcdefghijklmnopqrstuvwxyz01234567890-_";
            let mut stream = chacha20(input["seed"].as_str().unwrap(), 1 << 20);
            let imported = text_file(profile, "x");
            for n in 1..=number("count") {
                let length = number(if n == number("count") { "lastNameLen" } else { "nameLen" });
                let letters = stream
                    .split_to(length)
                    .into_iter()
                    .map(|byte| alphabet[usize::from(byte) % alphabet.len()]);
                builder.insert(&String::from_utf8(letters.collect()).unwrap(), imported).unwrap();
            }
        }
        _ => return None,
    }
    Some(builder)
}

/// Checks every vector for each of its profiles. Returns the number of compared CIDs.
fn check(vectors: &str) -> usize {
    let vectors: Value = serde_json::from_str(vectors).unwrap();
    let mut compared = 0;
    for vector in vectors["vectors"].as_array().unwrap() {
        for (profile, expected) in vector["expect"].as_object().unwrap() {
            let profile = Profile::parse(profile).unwrap();
            let input = &vector["input"];
            let imported = match directory(&profile, input) {
                Some(builder) => builder.build(&profile).unwrap().1,
                None => file(&profile, content(input)),
            };
            let cid: Cid = expected["cid"].as_str().unwrap().parse().unwrap();
            assert_eq!(imported.root, cid, "{} with {}", vector["name"], profile.name());
            compared += 1;
        }
    }
    compared
}

#[test]
fn small_vectors_have_the_expected_cids() {
    assert_eq!(check(SMALL), 7);
}

#[test]
fn shared_vectors_have_the_expected_cids() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors/unixfs.json");
    match std::fs::read_to_string(&path) {
        Ok(vectors) => assert!(check(&vectors) > 60),
        Err(error) => {
            eprintln!("SKIPPED, ONLY THE SMALL VECTORS WERE CHECKED: {}: {error}", path.display());
        }
    }
}

fn store() -> (Arc<MemoryBlocks>, HoldId) {
    let blocks = MemoryBlocks::new();
    let hold = blocks.open(&HoldName::parse("test").unwrap()).unwrap();
    (Arc::new(blocks), hold)
}

#[tokio::test]
async fn streamed_file_is_read_back() {
    for profile in Profile::ALL {
        for size in [0, 1, profile.chunk_bytes(), profile.chunk_bytes() * 9 + 17] {
            let bytes = sha256ctr("content".into(), size)(size);
            let (blocks, hold) = store();
            let imported = import_file(bytes.as_ref(), profile, blocks.as_ref(), hold).await.unwrap();
            assert_eq!(imported, file(&profile, sha256ctr("content".into(), size)), "streamed or not");
            assert_eq!(imported.size_bytes, size as u64);
            let root = blocks.get(&imported.root).unwrap().unwrap();
            assert_eq!(kind(&root), Kind::File { size_bytes: size as u64 });
            let read: BytesMut = read_file(blocks, imported.root).try_collect().await.unwrap();
            assert!(read == bytes, "{} with {size} bytes", profile.name());
        }
    }
}

#[tokio::test]
async fn failing_source_is_an_error() {
    let (blocks, hold) = store();
    let broken = tokio_util::io::StreamReader::new(futures::stream::iter([
        Ok(Bytes::from_static(b"some")),
        Err(std::io::Error::other("the client went away")),
    ]));
    let result = import_file(broken, Profile::default(), blocks.as_ref(), hold).await;
    assert!(matches!(result, Err(ImportError::Source(_))));
}

#[tokio::test]
async fn directories_are_listed_as_built() {
    for (count, is_sharded) in [(10, false), (6_000, true)] {
        let (blocks, hold) = store();
        let profile = Profile::default();
        let mut builder = DirectoryBuilder::new();
        let hello = import_file(&b"hello"[..], profile, blocks.as_ref(), hold).await.unwrap();
        let mut expected: Vec<_> = (0..count).map(|n| format!("name {n}")).collect();
        for name in &expected {
            builder.insert(name, hello).unwrap();
        }
        builder.insert("sub/deep/file", hello).unwrap();
        let imported = builder.import(profile, blocks.as_ref(), hold).await.unwrap();
        assert_eq!(imported.size_bytes, 5 * (count + 1));
        let root = blocks.get(&imported.root).unwrap().unwrap();
        assert_eq!(kind(&root), Kind::Directory);
        let mut entries = list_directory(blocks.as_ref(), &imported.root).unwrap();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let sub = entries.iter().find(|entry| entry.name == "sub").unwrap().cid;
        assert_eq!(list_directory(blocks.as_ref(), &sub).unwrap()[0].name, "deep");
        expected.push("sub".into());
        expected.sort();
        assert_eq!(entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>(), expected);
        assert_eq!(blocks.len() > 5, is_sharded);
    }
}

#[test]
fn invalid_and_conflicting_paths_are_refused() {
    let hello = text_file(&Profile::default(), "hello");
    let mut builder = DirectoryBuilder::new();
    let deep = "d/".repeat(PATH_DEPTH_MAX) + "f";
    let long = "n".repeat(256);
    for path in ["", "/a", "a//b", "a/", ".", "a/../b", "a\0", &deep, &long] {
        assert!(matches!(builder.insert(path, hello), Err(ImportError::Path(_))), "{path:?}");
    }
    builder.insert("a/b", hello).unwrap();
    assert!(matches!(builder.insert("a/b", hello), Err(ImportError::Conflict(_))));
    assert!(matches!(builder.insert("a", hello), Err(ImportError::Conflict(_))));
    assert!(matches!(builder.insert("a/b/c", hello), Err(ImportError::Conflict(_))));
    assert!(matches!(builder.insert_directory("a/b"), Err(ImportError::Conflict(_))));
    builder.insert_directory("a").unwrap();
}

#[tokio::test]
async fn non_files_are_refused_by_read_file() {
    let (blocks, hold) = store();
    let profile = Profile::default();
    let empty = DirectoryBuilder::new().import(profile, blocks.as_ref(), hold).await.unwrap();
    let read = read_file(blocks.clone(), empty.root).try_collect::<BytesMut>().await;
    assert!(matches!(read, Err(ReadError::Kind { .. })));
    let hello = import_file(&b"hello"[..], profile, blocks.as_ref(), hold).await.unwrap();
    assert!(matches!(list_directory(blocks.as_ref(), &hello.root), Err(ReadError::Kind { .. })));
    let absent = text_file(&profile, "absent").root;
    let read = read_file(blocks, absent).try_collect::<BytesMut>().await;
    assert!(matches!(read, Err(ReadError::Missing(cid)) if cid == absent));
}

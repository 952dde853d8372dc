//! The contract of [`Blocks`]: each function tests one property, and each implementation runs all of them.

use std::sync::Arc;

use bytes::Bytes;
use cid::{Cid, Version};

use super::{Blocks, BlocksError, HoldName, HoldStats};
use crate::Block;

pub(super) fn block(text: impl AsRef<str>) -> Block {
    block_as(Version::V1, 0x55, text)
}

fn block_as(version: Version, codec: u64, text: impl AsRef<str>) -> Block {
    let data = Bytes::copy_from_slice(text.as_ref().as_bytes());
    Block::hash(version, codec, 0x12, data).unwrap()
}

pub(super) fn name(text: impl Into<String>) -> HoldName {
    HoldName::parse(text).unwrap()
}

fn stats(blocks: u64, bytes: u64) -> HoldStats {
    HoldStats { blocks, bytes }
}

pub(super) async fn put_block_is_readable_at_once(blocks: impl Blocks) {
    let hello = block("hello");
    assert_eq!(blocks.size(hello.cid()).unwrap(), None);
    assert!(blocks.get(hello.cid()).unwrap().is_none());
    let hold = blocks.open(&name("a")).unwrap();
    blocks.put(hold, hello.clone()).await.unwrap();
    for committed in [false, true] {
        assert_eq!(blocks.size(hello.cid()).unwrap(), Some(5), "committed: {committed}");
        assert_eq!(blocks.get(hello.cid()).unwrap().unwrap(), hello);
        assert!(blocks.has_edge(hold, hello.cid()).unwrap());
        assert_eq!(blocks.stats(hold).unwrap(), stats(1, 5));
        assert_eq!(blocks.commit(hold).await.unwrap(), stats(1, 5));
    }
}

pub(super) async fn put_and_add_edge_are_idempotent(blocks: impl Blocks) {
    let hold = blocks.open(&name("a")).unwrap();
    for _ in 0..3 {
        assert_eq!(blocks.open(&name("a")).unwrap(), hold);
        blocks.put(hold, block("x")).await.unwrap();
        blocks.put(hold, block("")).await.unwrap();
        assert!(blocks.add_edge(hold, block("x").cid()).unwrap());
        assert!(!blocks.add_edge(hold, block("elsewhere").cid()).unwrap());
        assert_eq!(blocks.stats(hold).unwrap(), stats(2, 1));
        assert_eq!(blocks.seal(hold).await.unwrap(), stats(2, 1));
    }
    assert_eq!(blocks.get(block("").cid()).unwrap().unwrap(), block(""));
}

pub(super) async fn cids_of_one_multihash_share_the_block(blocks: impl Blocks) {
    let old = block_as(Version::V0, 0x70, "node");
    let new = block_as(Version::V1, 0x70, "node");
    let raw = block_as(Version::V1, 0x55, "node");
    let a = blocks.open(&name("a")).unwrap();
    let b = blocks.open(&name("b")).unwrap();
    blocks.put(a, old.clone()).await.unwrap();
    blocks.put(a, new.clone()).await.unwrap();
    assert!(blocks.add_edge(b, raw.cid()).unwrap());
    assert_eq!(blocks.seal(a).await.unwrap(), stats(1, 4));
    assert_eq!(blocks.seal(b).await.unwrap(), stats(1, 4));
    blocks.release(&name("a")).await.unwrap();
    for block in [old, new, raw] {
        assert_eq!(blocks.get(block.cid()).unwrap().as_ref(), Some(&block));
    }
}

pub(super) async fn identity_blocks_are_not_stored(blocks: impl Blocks) {
    let cid: Cid = "bafkqabtimvwgy3yk".parse().unwrap();
    let inline = Block::inline(&cid).unwrap();
    let hold = blocks.open(&name("a")).unwrap();
    blocks.put(hold, inline.clone()).await.unwrap();
    assert!(blocks.add_edge(hold, &cid).unwrap());
    assert!(blocks.has_edge(hold, &cid).unwrap());
    assert_eq!(blocks.size(&cid).unwrap(), Some(inline.data().len() as u64));
    assert_eq!(blocks.get(&cid).unwrap(), Some(inline));
    assert_eq!(blocks.seal(hold).await.unwrap(), stats(0, 0));
}

pub(super) async fn release_frees_only_unreferenced_blocks(blocks: impl Blocks) {
    let a = blocks.open(&name("a")).unwrap();
    let b = blocks.open(&name("b")).unwrap();
    for n in 0..600 {
        blocks.put(a, block(format!("{n}"))).await.unwrap();
        if n % 3 == 0 {
            blocks.put(b, block(format!("{n}"))).await.unwrap();
        }
    }
    let before = blocks.commit(b).await.unwrap();
    blocks.seal(a).await.unwrap();
    blocks.release(&name("a")).await.unwrap();
    until(&blocks, || (0..600).all(|n| is_there(&blocks, n) == (n % 3 == 0))).await;
    assert_eq!(blocks.stats(b).unwrap(), before);
    assert_eq!(before.blocks, 200);
    blocks.release(&name("b")).await.unwrap();
    until(&blocks, || (0..600).all(|n| !is_there(&blocks, n))).await;
}

fn is_there(blocks: &impl Blocks, n: u64) -> bool {
    let block = block(format!("{n}"));
    let size = blocks.size(block.cid()).unwrap();
    let read = blocks.get(block.cid()).unwrap();
    assert!(read.is_none_or(|read| read == block));
    size.is_some()
}

/// Polls until `done`, with a durable operation between two checks; panics after many.
async fn until(blocks: &impl Blocks, done: impl Fn() -> bool) {
    for round in 0..10_000 {
        if done() {
            return;
        }
        let tick = name(format!("tick/{round}"));
        blocks.open(&tick).unwrap();
        blocks.release(&tick).await.unwrap();
    }
    panic!("freeing did not complete");
}

pub(super) async fn released_hold_does_not_exist(blocks: impl Blocks) {
    let hold = blocks.open(&name("a")).unwrap();
    blocks.put(hold, block("x")).await.unwrap();
    blocks.release(&name("a")).await.unwrap();
    blocks.release(&name("a")).await.unwrap();
    blocks.release(&name("never there")).await.unwrap();
    assert!(blocks.hold(&name("a")).unwrap().is_none());
    assert!(matches!(blocks.put(hold, block("y")).await, Err(BlocksError::NoSuchHold)));
    assert!(matches!(blocks.add_edge(hold, block("x").cid()), Err(BlocksError::NoSuchHold)));
    assert!(matches!(blocks.has_edge(hold, block("x").cid()), Err(BlocksError::NoSuchHold)));
    assert!(matches!(blocks.stats(hold), Err(BlocksError::NoSuchHold)));
    assert!(matches!(blocks.commit(hold).await, Err(BlocksError::NoSuchHold)));
    assert!(matches!(blocks.seal(hold).await, Err(BlocksError::NoSuchHold)));
    let again = blocks.open(&name("a")).unwrap();
    assert_ne!(again, hold);
    assert_eq!(blocks.stats(again).unwrap(), stats(0, 0));
}

pub(super) async fn holds_are_listed_in_order_and_in_pages(blocks: impl Blocks) {
    for text in ["pin/c", "pin/a", "up/x", "pin/b", "pi"] {
        let hold = blocks.open(&name(text)).unwrap();
        blocks.put(hold, block(text)).await.unwrap();
        if text == "pin/b" {
            blocks.seal(hold).await.unwrap();
        } else if text != "pin/a" {
            blocks.commit(hold).await.unwrap();
        }
    }
    let list = |prefix: &str, after: Option<&str>, limit| {
        let after = after.map(name);
        let infos = blocks.holds(prefix, after.as_ref(), limit).unwrap();
        infos.iter().map(|info| info.name.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list("", None, 9), ["pi", "pin/a", "pin/b", "pin/c", "up/x"]);
    assert_eq!(list("pin/", None, 2), ["pin/a", "pin/b"]);
    assert_eq!(list("pin/", Some("pin/b"), 2), ["pin/c"]);
    assert_eq!(list("pin/", Some("a"), 1), ["pin/a"]);
    assert_eq!(list("pin/", Some("z"), 1), [""; 0]);
    let sealed = blocks.hold(&name("pin/b")).unwrap().unwrap();
    assert!(sealed.sealed);
    assert_eq!(sealed.stats, stats(1, 5));
    assert!(!blocks.hold(&name("pin/c")).unwrap().unwrap().sealed);
    blocks.release(&name("pin/a")).await.unwrap();
    assert_eq!(list("pin/", None, 9), ["pin/b", "pin/c"]);
}

pub(super) async fn concurrent_puts_are_counted_once(blocks: impl Blocks) {
    let blocks = Arc::new(blocks);
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let blocks = Arc::clone(&blocks);
            tokio::spawn(async move {
                let own = blocks.open(&name(format!("own/{task}"))).unwrap();
                let shared = blocks.open(&name("shared")).unwrap();
                for n in 0..200 {
                    blocks.put(shared, block(format!("{n}"))).await.unwrap();
                    blocks.put(own, block(format!("{}", n % 50))).await.unwrap();
                    if n % 64 == task {
                        blocks.commit(own).await.unwrap();
                    }
                }
                blocks.seal(own).await.unwrap()
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().blocks, 50);
    }
    let shared = blocks.open(&name("shared")).unwrap();
    let sum = blocks.seal(shared).await.unwrap();
    assert_eq!(sum, stats(200, 10 + 90 * 2 + 100 * 3));
    assert!((0..200).all(|n| is_there(blocks.as_ref(), n)));
}

pub(super) async fn put_during_free_keeps_the_block(blocks: impl Blocks) {
    for round in 0..20 {
        let old = name(format!("old/{round}"));
        let hold = blocks.open(&old).unwrap();
        for n in 0..300 {
            blocks.put(hold, block(format!("{n}"))).await.unwrap();
        }
        blocks.seal(hold).await.unwrap();
        blocks.release(&old).await.unwrap();
        let new = blocks.open(&name(format!("new/{round}"))).unwrap();
        for n in 0..300 {
            let block = block(format!("{n}"));
            if n % 2 == 0 || !blocks.add_edge(new, block.cid()).unwrap() {
                blocks.put(new, block).await.unwrap();
            }
        }
        assert_eq!(blocks.seal(new).await.unwrap().blocks, 300);
        assert!((0..300).all(|n| is_there(&blocks, n)), "round {round}");
        blocks.release(&name(format!("new/{round}"))).await.unwrap();
    }
}

/// Defines one test for each property: `contract!(store)`, where `store` evaluates to an empty store and a guard that
/// keeps it alive.
macro_rules! contract {
    ($make:expr; $($property:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $property() {
            let (_home, blocks) = $make;
            crate::blocks::contract::$property(blocks).await;
        }
    )*};
    ($make:expr) => {
        crate::blocks::contract::contract!($make;
            put_block_is_readable_at_once
            put_and_add_edge_are_idempotent
            cids_of_one_multihash_share_the_block
            identity_blocks_are_not_stored
            release_frees_only_unreferenced_blocks
            released_hold_does_not_exist
            holds_are_listed_in_order_and_in_pages
            concurrent_puts_are_counted_once
            put_during_free_keeps_the_block
        );
    };
}
pub(super) use contract;

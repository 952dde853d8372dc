//! The contract suite, and properties of the store on disk.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::index::Location;
use super::store::Found;
use super::*;
use crate::Block;
use crate::blocks::contract::{block, contract, name};
use crate::blocks::{Blocks, BlocksError, HoldName, HoldStats};

mod copies;
mod crash;
mod damage;
mod faults;
mod space;

fn config() -> SegmentConfig {
    SegmentConfig { segment_bytes: 64 * 1024, reserve_bytes: 0 }
}

fn fresh() -> (tempfile::TempDir, SegmentBlocks) {
    let dir = tempfile::tempdir().unwrap();
    let blocks = SegmentBlocks::open(dir.path(), &config()).unwrap();
    (dir, blocks)
}

contract!(fresh());

fn reopen(dir: &Path) -> SegmentBlocks {
    SegmentBlocks::open(dir, &config()).unwrap()
}

/// A block of `length` bytes, different for each `n`.
fn big(n: usize, length: usize) -> Block {
    let mut text = format!("{n} ");
    text.extend(std::iter::repeat_n('x', length - text.len()));
    block(text)
}

fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(dir.join("segments")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Bytes on disk of all segments, as `du` counts them.
fn used(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    // A file may be deleted in the meantime.
    segment_files(dir)
        .iter()
        .map(|file| std::fs::metadata(file).map_or(0, |found| found.blocks() * 512))
        .sum()
}

#[tokio::test]
async fn committed_blocks_survive_reopening() {
    let (dir, blocks) = fresh();
    let hold = blocks.open(&name("building")).unwrap();
    for n in 0..40 {
        blocks.put(hold, big(n, 5_000)).await.unwrap();
    }
    let before = blocks.commit(hold).await.unwrap();
    drop(blocks);

    let blocks = reopen(dir.path());
    let info = blocks.hold(&name("building")).unwrap().unwrap();
    assert_eq!((info.sealed, info.stats), (false, before));
    let hold = blocks.open(&name("building")).unwrap();
    for n in 0..60 {
        assert_eq!(blocks.has_edge(hold, big(n, 5_000).cid()).unwrap(), n < 40);
        blocks.put(hold, big(n, 5_000)).await.unwrap();
    }
    assert_eq!(blocks.seal(hold).await.unwrap(), HoldStats { blocks: 60, bytes: 300_000 });
    drop(blocks);

    let blocks = reopen(dir.path());
    assert!(blocks.hold(&name("building")).unwrap().unwrap().sealed);
    for n in 0..60 {
        assert_eq!(blocks.get(big(n, 5_000).cid()).unwrap(), Some(big(n, 5_000)));
    }
}

#[tokio::test]
async fn every_segment_is_a_valid_car() {
    let (dir, blocks) = fresh();
    let hold = blocks.open(&name("a")).unwrap();
    for n in 0..30 {
        blocks.put(hold, big(n, 7_000)).await.unwrap();
    }
    blocks.seal(hold).await.unwrap();
    drop(blocks);
    let mut found = Vec::new();
    for file in segment_files(dir.path()) {
        let mut sections = crate::car::Sections::new(std::fs::File::open(file).unwrap()).unwrap();
        while let Some(section) = sections.next_section().unwrap() {
            found.push(Block::verify(section.cid, section.data.into()).unwrap());
        }
    }
    assert_eq!(found, (0..30).map(|n| big(n, 7_000)).collect::<Vec<_>>());
}

#[tokio::test]
async fn released_space_is_reclaimed() {
    let (dir, blocks) = fresh();
    let (keep, go) = (blocks.open(&name("keep")).unwrap(), blocks.open(&name("go")).unwrap());
    for n in 0..64 {
        blocks.put(if n % 16 == 0 { keep } else { go }, big(n, 32 * 1024)).await.unwrap();
    }
    blocks.seal(keep).await.unwrap();
    blocks.seal(go).await.unwrap();
    let before = used(dir.path());
    blocks.release(&name("go")).await.unwrap();
    drop(blocks);
    // What was not freed by then is freed after the next start.
    let blocks = reopen(dir.path());
    wait_until(&blocks, || blocks.shared.index.releasing().unwrap().is_empty()).await;
    assert!(used(dir.path()) < before / 4, "{} of {before} bytes are left", used(dir.path()));
    for n in (0..64).step_by(16) {
        assert!(blocks.get(big(n, 32 * 1024).cid()).unwrap().is_some());
    }
    let listed = blocks.shared.index.segments().unwrap();
    assert_eq!(listed.iter().map(|(_, record)| record.live_blocks).sum::<u64>(), 4);
    assert_eq!(listed.len(), segment_files(dir.path()).len());
    assert!(listed.len() <= 4);
}

/// Polls a condition, with a durable operation between two checks.
async fn wait_until(blocks: &SegmentBlocks, done: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if done() {
            return;
        }
        blocks.open(&name("tick")).unwrap();
        blocks.release(&name("tick")).await.unwrap();
    }
    panic!("the condition was never met");
}

#[tokio::test]
async fn uncommitted_tail_is_truncated() {
    let (dir, blocks) = fresh();
    let hold = blocks.open(&name("a")).unwrap();
    blocks.put(hold, block("kept")).await.unwrap();
    blocks.seal(hold).await.unwrap();
    drop(blocks);
    let [file] = &segment_files(dir.path())[..] else { panic!("one segment") };
    let committed = std::fs::read(file).unwrap();
    for tail in [1, 4095, 70_000] {
        std::fs::write(file, [committed.clone(), vec![7; tail]].concat()).unwrap();
        std::fs::write(dir.path().join("segments/0000000002.car"), b"never committed").unwrap();
        let blocks = reopen(dir.path());
        assert_eq!(blocks.get(block("kept").cid()).unwrap(), Some(block("kept")));
        drop(blocks);
        assert_eq!(std::fs::read(file).unwrap(), committed);
        assert_eq!(segment_files(dir.path()).len(), 1);
    }
}

#[tokio::test]
async fn truncated_segment_is_reported() {
    let (dir, blocks) = fresh();
    let hold = blocks.open(&name("a")).unwrap();
    blocks.put(hold, block("kept")).await.unwrap();
    blocks.seal(hold).await.unwrap();
    drop(blocks);
    let [file] = &segment_files(dir.path())[..] else { panic!("one segment") };
    let committed = std::fs::read(file).unwrap();
    for length in 0..committed.len() {
        std::fs::write(file, &committed[..length]).unwrap();
        let error = SegmentBlocks::open(dir.path(), &config()).unwrap_err();
        assert!(matches!(&error, OpenError::SegmentLost { found, .. } if *found == length as u64), "{error}");
    }
    std::fs::remove_file(file).unwrap();
    let error = SegmentBlocks::open(dir.path(), &config()).unwrap_err();
    assert!(error.to_string().contains("restore it from a backup"), "{error}");
    std::fs::write(file, &committed).unwrap();
    assert!(reopen(dir.path()).get(block("kept").cid()).unwrap().is_some(), "the store was not changed");
}

#[tokio::test]
async fn index_of_other_segments_is_refused() {
    let (dir, blocks) = fresh();
    let hold = blocks.open(&name("a")).unwrap();
    blocks.put(hold, block("kept")).await.unwrap();
    blocks.seal(hold).await.unwrap();
    drop(blocks);
    let newer = dir.path().join("segments/0000000009.car");
    std::fs::write(&newer, b"x").unwrap();
    assert!(matches!(SegmentBlocks::open(dir.path(), &config()), Err(OpenError::StaleIndex { .. })));
    std::fs::remove_file(newer).unwrap();
    std::fs::rename(dir.path().join("index"), dir.path().join("elsewhere")).unwrap();
    assert!(matches!(SegmentBlocks::open(dir.path(), &config()), Err(OpenError::NoIndex { .. })));
    std::fs::rename(dir.path().join("elsewhere"), dir.path().join("index")).unwrap();
    std::fs::write(dir.path().join("VERSION"), "pinfold blocks 99\n").unwrap();
    assert!(matches!(SegmentBlocks::open(dir.path(), &config()), Err(OpenError::Version { .. })));
}

#[tokio::test]
async fn flipped_bit_is_detected_and_can_be_repaired() {
    let (dir, blocks) = fresh();
    let hold = blocks.open(&name("a")).unwrap();
    blocks.put(hold, block("precious")).await.unwrap();
    blocks.seal(hold).await.unwrap();
    drop(blocks);
    let [file] = &segment_files(dir.path())[..] else { panic!("one segment") };
    let mut bytes = std::fs::read(file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(file, bytes).unwrap();
    let blocks = reopen(dir.path());
    assert!(matches!(blocks.get(block("precious").cid()), Err(BlocksError::Damaged(_))));
    let hold = blocks.open(&name("a")).unwrap();
    blocks.put(hold, block("in the same segment")).await.unwrap();

    blocks.repair(block("precious")).await.unwrap();
    blocks.put(hold, block("later")).await.unwrap();
    blocks.commit(hold).await.unwrap();
    drop(blocks);
    let blocks = reopen(dir.path());
    for text in ["precious", "in the same segment", "later"] {
        assert_eq!(blocks.get(block(text).cid()).unwrap(), Some(block(text)));
    }
    blocks.repair(block("not here")).await.unwrap();
    assert_eq!(blocks.get(block("not here").cid()).unwrap(), None);
}

#[tokio::test]
async fn writes_fail_on_a_full_disk_and_resume_with_space() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = reopen(dir.path());
    let hold = blocks.open(&name("before")).unwrap();
    blocks.put(hold, block("before")).await.unwrap();
    blocks.commit(hold).await.unwrap();
    drop(blocks);

    let full = SegmentConfig { reserve_bytes: u64::MAX, ..config() };
    let blocks = SegmentBlocks::open(dir.path(), &full).unwrap();
    let hold = blocks.open(&name("before")).unwrap();
    blocks.put(hold, block("lost")).await.unwrap();
    assert!(matches!(blocks.seal(hold).await, Err(BlocksError::Full)));
    // The handle fails until the hold is opened again.
    assert!(matches!(blocks.seal(hold).await, Err(BlocksError::Full)));
    assert!(matches!(blocks.put(hold, block("more")).await, Err(BlocksError::Full)));
    assert_eq!(blocks.size(block("lost").cid()).unwrap(), None);
    assert_eq!(blocks.get(block("before").cid()).unwrap(), Some(block("before")));
    let new = blocks.open(&name("new")).unwrap();
    blocks.put(new, block("lost too")).await.unwrap();
    assert!(matches!(blocks.seal(new).await, Err(BlocksError::Full)));
    assert!(matches!(blocks.stats(new), Err(BlocksError::Full)));
    assert!(blocks.hold(&name("new")).unwrap().is_none());
    blocks.release(&name("before")).await.unwrap();
    drop(blocks);

    let blocks = reopen(dir.path());
    let hold = blocks.open(&name("after")).unwrap();
    blocks.put(hold, block("after")).await.unwrap();
    assert_eq!(blocks.seal(hold).await.unwrap().blocks, 1);
    assert_eq!(blocks.holds("", None, 9).unwrap().len(), 1);
}

#[tokio::test]
async fn failed_release_does_not_hide_lost_data() {
    let (dir, blocks) = fresh();
    let hold = blocks.open(&name("a")).unwrap();
    blocks.put(hold, block("before")).await.unwrap();
    blocks.commit(hold).await.unwrap();
    drop(blocks);

    let full = SegmentConfig { reserve_bytes: u64::MAX, ..config() };
    let blocks = SegmentBlocks::open(dir.path(), &full).unwrap();
    let hold = blocks.open(&name("a")).unwrap();
    blocks.put(hold, block("lost")).await.unwrap();
    assert!(matches!(blocks.release(&name("a")).await, Err(BlocksError::Full)));
    assert!(matches!(blocks.seal(hold).await, Err(BlocksError::Full)), "sealed without a block that was put");
    let hold = blocks.open(&name("a")).unwrap();
    assert_eq!(blocks.seal(hold).await.unwrap().blocks, 1);
}

#[tokio::test]
async fn aborted_segment_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let full = SegmentConfig { segment_bytes: 64 * 1024 * 1024, reserve_bytes: u64::MAX };
    let blocks = SegmentBlocks::open(dir.path(), &full).unwrap();
    for round in 0..2 {
        let hold = blocks.open(&name("a")).unwrap();
        // More than fits in the buffer, so that the first one is read from the file.
        for n in 0..10 {
            blocks.put(hold, big(10 * round + n, 1024 * 1024)).await.unwrap();
        }
        let first = big(10 * round, 1024 * 1024);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !matches!(blocks.locate(first.cid()).unwrap(), Some(Found::File(_))) {
            assert!(std::time::Instant::now() < deadline, "the block was never written");
            tokio::task::yield_now().await;
        }
        assert_eq!(blocks.get(first.cid()).unwrap(), Some(first), "round {round}");
        assert!(matches!(blocks.commit(hold).await, Err(BlocksError::Full)));
    }
}

#[tokio::test]
async fn writes_resume_after_a_failure() {
    let (dir, blocks) = fresh();
    let segments = dir.path().join("segments");
    let hold = blocks.open(&name("a")).unwrap();
    blocks.put(hold, block("first")).await.unwrap();
    blocks.commit(hold).await.unwrap();
    // The next segment cannot be created while a folder has its name.
    let obstacle = segments.join("0000000002.car");
    std::fs::create_dir(&obstacle).unwrap();
    let mut lost = Ok(());
    for n in 0..20 {
        lost = lost.and(blocks.put(hold, big(n, 6_000)).await);
    }
    assert!(lost.is_err() || blocks.seal(hold).await.is_err());
    std::fs::remove_dir(&obstacle).unwrap();
    let hold = blocks.open(&name("a")).unwrap();
    for n in 0..20 {
        blocks.put(hold, big(n, 6_000)).await.unwrap();
    }
    assert_eq!(blocks.seal(hold).await.unwrap().blocks, 21);
    drop(blocks);
    let blocks = reopen(dir.path());
    for n in 0..20 {
        assert!(blocks.get(big(n, 6_000).cid()).unwrap().is_some());
    }
    assert!(blocks.get(block("first").cid()).unwrap().is_some());
}

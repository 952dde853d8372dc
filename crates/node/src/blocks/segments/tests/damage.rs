//! Damage to the files is detected, never served, and repaired where possible.

use super::*;

/// A store with `count` blocks under the hold `a`, closed.
async fn stored(count: usize, length: usize) -> tempfile::TempDir {
    let (dir, blocks) = fresh();
    let hold = blocks.open(&name("a")).unwrap();
    for n in 0..count {
        blocks.put(hold, big(n, length)).await.unwrap();
    }
    blocks.seal(hold).await.unwrap();
    dir
}

/// Flips one bit of the first segment.
fn flip(dir: &Path, offset: usize) {
    let file = &segment_files(dir)[0];
    let mut bytes = std::fs::read(file).unwrap();
    bytes[offset] ^= 0x10;
    std::fs::write(file, bytes).unwrap();
}

/// All offsets after the header of a segment with raw blocks of one length below 90, except those of the codecs: the
/// multihash does not cover the codec, so damage to it cannot be detected.
fn places(length: usize, block: usize) -> impl Iterator<Item = usize> {
    let header = crate::car::HEADER.len();
    (header..length).filter(move |offset| (offset - header) % (37 + block) != 2)
}

fn guard() -> HoldName {
    name("upload/rebuilt")
}

#[tokio::test]
async fn flipped_bit_anywhere_is_reported_with_block_and_holds() {
    let dir = stored(6, 40).await;
    let length = std::fs::metadata(&segment_files(dir.path())[0]).unwrap().len() as usize;
    for offset in places(length, 40).step_by(5) {
        flip(dir.path(), offset);
        let blocks = reopen(dir.path());
        assert_eq!(blocks.verify(|_| true).unwrap().damaged, 1, "at {offset}");
        wait_until(&blocks, || !blocks.damaged(None, 9).unwrap().is_empty()).await;
        let [damaged] = &blocks.damaged(None, 9).unwrap()[..] else { panic!("one block, at {offset}") };
        assert_eq!(damaged.holds, [name("a")]);
        assert!((0..6).any(|n| big(n, 40).cid().hash() == damaged.cid.hash()));
        // The bit flips back: the block is intact again, and the record is removed.
        flip(dir.path(), offset);
        assert_eq!(blocks.verify(|_| true).unwrap().damaged, 0);
        let is_forgotten = || blocks.totals().unwrap().damaged_blocks == 0;
        wait_until(&blocks, || blocks.damaged(None, 9).unwrap().is_empty() && is_forgotten()).await;
    }
}

#[tokio::test]
async fn damaged_block_cannot_be_referenced_until_it_is_put_again() {
    let dir = stored(4, 3_000).await;
    flip(dir.path(), 5_000);
    let blocks = reopen(dir.path());
    let hurt = (0..4).find(|n| blocks.get(big(*n, 3_000).cid()).is_err()).unwrap();
    let hurt = big(hurt, 3_000);
    assert_eq!(blocks.size(hurt.cid()).unwrap(), None);
    assert!(blocks.is_damaged(&name("a")).unwrap());
    let other = blocks.open(&name("b")).unwrap();
    assert!(!blocks.add_edge(other, hurt.cid()).unwrap());
    assert!(blocks.has_edge(blocks.open(&name("a")).unwrap(), hurt.cid()).unwrap());

    blocks.put(other, hurt.clone()).await.unwrap();
    assert_eq!(blocks.seal(other).await.unwrap().blocks, 1);
    drop(blocks);
    let blocks = reopen(dir.path());
    assert_eq!(blocks.get(hurt.cid()).unwrap(), Some(hurt.clone()));
    assert!(!blocks.is_damaged(&name("a")).unwrap());
    assert_eq!(blocks.hold(&name("a")).unwrap().unwrap().stats.blocks, 4, "its edges stay");
    assert_eq!(blocks.totals().unwrap().blocks, 4);
    blocks.release(&name("b")).await.unwrap();
    wait_until(&blocks, || blocks.shared.index.releasing().unwrap().is_empty()).await;
    assert_eq!(blocks.get(hurt.cid()).unwrap(), Some(hurt));
}

#[tokio::test]
async fn hold_that_puts_its_damaged_block_again_counts_it_once() {
    let dir = stored(3, 3_000).await;
    flip(dir.path(), 100);
    let blocks = reopen(dir.path());
    assert_eq!(blocks.verify(|_| true).unwrap().damaged, 1);
    let hold = blocks.open(&name("a")).unwrap();
    for n in 0..3 {
        blocks.put(hold, big(n, 3_000)).await.unwrap();
    }
    assert_eq!(blocks.seal(hold).await.unwrap(), HoldStats { blocks: 3, bytes: 9_000 });
    assert_eq!(blocks.verify(|_| true).unwrap().damaged, 0);
    let totals = blocks.totals().unwrap();
    assert_eq!((totals.blocks, totals.held_blocks, totals.held_bytes), (3, 3, 9_000));
}

#[tokio::test]
async fn damaged_block_put_by_another_hold_is_counted_once() {
    let dir = stored(3, 3_000).await;
    flip(dir.path(), 100);
    let blocks = reopen(dir.path());
    assert_eq!(blocks.verify(|_| true).unwrap().damaged, 1);
    let hurt =
        (0..3).map(|n| big(n, 3_000)).find(|block| blocks.size(block.cid()).unwrap().is_none()).unwrap();
    let (a, b) = (blocks.open(&name("a")).unwrap(), blocks.open(&name("b")).unwrap());
    blocks.put(b, hurt.clone()).await.unwrap();
    assert!(blocks.add_edge(a, hurt.cid()).unwrap());
    blocks.put(a, hurt.clone()).await.unwrap();
    blocks.seal(b).await.unwrap();
    assert_eq!(blocks.seal(a).await.unwrap(), HoldStats { blocks: 3, bytes: 9_000 });
    assert_eq!(blocks.totals().unwrap().held_blocks, 4);
}

#[tokio::test]
async fn commit_covers_a_damaged_block_that_is_put_again() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = reopen(dir.path());
    let hold = blocks.open(&name("a")).unwrap();
    blocks.put(hold, big(0, 3_000)).await.unwrap();
    blocks.commit(hold).await.unwrap();
    drop(blocks);
    flip(dir.path(), 100);

    let full = SegmentConfig { reserve_bytes: u64::MAX, ..config() };
    let blocks = SegmentBlocks::open(dir.path(), &full).unwrap();
    assert_eq!(blocks.verify(|_| true).unwrap().damaged, 1);
    let hold = blocks.open(&name("a")).unwrap();
    blocks.put(hold, big(0, 3_000)).await.unwrap();
    assert!(matches!(blocks.commit(hold).await, Err(BlocksError::Full)));
    // The uncommitted data is lost, and the handle reports that.
    assert!(matches!(blocks.commit(hold).await, Err(BlocksError::Full)));
    drop(blocks);

    let blocks = reopen(dir.path());
    assert_eq!(blocks.verify(|_| true).unwrap().damaged, 1);
    let hold = blocks.open(&name("a")).unwrap();
    blocks.put(hold, big(0, 3_000)).await.unwrap();
    assert_eq!(blocks.commit(hold).await.unwrap(), HoldStats { blocks: 1, bytes: 3_000 });
    assert_eq!(blocks.get(big(0, 3_000).cid()).unwrap(), Some(big(0, 3_000)));
    assert!(blocks.shared.state().holds.is_empty(), "nothing is left to be committed");
}

#[tokio::test]
async fn damage_record_lost_in_a_failure_is_written_again() {
    let dir = stored(4, 3_000).await;
    flip(dir.path(), 5_000);
    let full = SegmentConfig { reserve_bytes: u64::MAX, ..config() };
    let blocks = SegmentBlocks::open(dir.path(), &full).unwrap();
    let hold = blocks.open(&name("b")).unwrap();
    blocks.put(hold, block("too much")).await.unwrap();
    assert_eq!(blocks.verify(|_| true).unwrap().damaged, 1);
    assert!(blocks.commit(hold).await.is_err());
    assert_eq!(blocks.verify(|_| true).unwrap().damaged, 1);
    blocks.flush().await.unwrap();
    assert_eq!(blocks.damaged(None, 9).unwrap().len(), 1);
}

#[tokio::test]
async fn damage_of_a_freed_block_is_not_recorded() {
    let (_dir, blocks) = fresh();
    let gone = Location { segment: 1, offset: 630, length: 5, head: 37 };
    blocks.note_damage(*block("again").cid(), gone).unwrap();
    let hold = blocks.open(&name("a")).unwrap();
    blocks.put(hold, block("again")).await.unwrap();
    blocks.seal(hold).await.unwrap();
    assert_eq!(blocks.size(block("again").cid()).unwrap(), Some(5));
    // Nor for its new place.
    blocks.note_damage(*block("again").cid(), gone).unwrap();
    blocks.flush().await.unwrap();
    assert_eq!(blocks.totals().unwrap().damaged_blocks, 0);
    assert!(blocks.damaged(None, 9).unwrap().is_empty());
}

#[tokio::test]
async fn scrub_continues_after_restart() {
    let dir = stored(700, 60).await;
    let mut seen = 0;
    for round in 0.. {
        assert!(round < 10, "the round did not end");
        let blocks = reopen(dir.path());
        let step = blocks.scrub(1).unwrap();
        seen += step.blocks;
        if step.is_round_over {
            break;
        }
    }
    assert_eq!(seen, 700, "each block once, over several starts");
    assert_eq!(reopen(dir.path()).scrub(1).unwrap().blocks, 256, "and again from the start");
}

#[tokio::test]
async fn outdated_index_is_detected_within_a_segment() {
    let dir = stored(3, 100).await;
    let (index, old) = (dir.path().join("index"), dir.path().join("old"));
    copy_dir(&index, &old);
    let blocks = reopen(dir.path());
    let hold = blocks.open(&name("a")).unwrap();
    blocks.put(hold, block("newer")).await.unwrap();
    blocks.commit(hold).await.unwrap();
    drop(blocks);
    std::fs::remove_dir_all(&index).unwrap();
    std::fs::rename(&old, &index).unwrap();
    let before = std::fs::read(&segment_files(dir.path())[0]).unwrap();
    let error = SegmentBlocks::open(dir.path(), &config()).unwrap_err();
    assert!(matches!(error, OpenError::StaleIndex { .. }), "{error}");
    assert_eq!(std::fs::read(&segment_files(dir.path())[0]).unwrap(), before, "nothing is cut off");

    SegmentBlocks::rebuild_index(dir.path(), &guard(), |_| {}).unwrap();
    assert_eq!(reopen(dir.path()).get(block("newer").cid()).unwrap(), Some(block("newer")));
}

#[tokio::test]
async fn index_is_rebuilt_from_segments() {
    let dir = stored(200, 2_000).await;
    for lost in ["index", "VERSION", "WATERMARK"] {
        let path = dir.path().join(lost);
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap()
        } else {
            std::fs::remove_file(path).unwrap()
        }
    }
    assert!(matches!(SegmentBlocks::open(dir.path(), &config()), Err(OpenError::NoIndex { .. })));
    let found = SegmentBlocks::rebuild_index(dir.path(), &guard(), |_| {}).unwrap();
    assert_eq!((found.blocks, found.bytes, found.damaged), (200, 400_000, 0));
    let blocks = reopen(dir.path());
    let held = blocks.hold(&guard()).unwrap().unwrap();
    assert!(held.sealed);
    assert_eq!(held.stats, HoldStats { blocks: 200, bytes: 400_000 });
    // Another hold takes over some of them; the rest is freed with the guard.
    let hold = blocks.open(&name("a")).unwrap();
    for n in 0..50 {
        assert!(blocks.add_edge(hold, big(n, 2_000).cid()).unwrap());
    }
    blocks.seal(hold).await.unwrap();
    blocks.release(&guard()).await.unwrap();
    wait_until(&blocks, || blocks.totals().unwrap().blocks == 50).await;
    for n in 0..200 {
        assert_eq!(blocks.get(big(n, 2_000).cid()).unwrap().is_some(), n < 50);
    }
    let totals = blocks.totals().unwrap();
    assert_eq!((totals.held_blocks, totals.held_bytes), (50, 100_000));
}

#[tokio::test]
async fn rebuild_skips_only_damaged_blocks() {
    let dir = stored(8, 50).await;
    let file = segment_files(dir.path()).remove(0);
    let whole = std::fs::read(&file).unwrap();
    for offset in places(whole.len(), 50).step_by(13) {
        flip(dir.path(), offset);
        let found = SegmentBlocks::rebuild_index(dir.path(), &guard(), |_| {}).unwrap();
        assert_eq!((found.blocks, found.damaged), (7, 1), "at {offset}");
        std::fs::write(&file, &whole).unwrap();
    }
    // Twenty bytes in the middle are missing, and everything after them has moved.
    std::fs::write(&file, [&whole[..300], &whole[320..]].concat()).unwrap();
    let found = SegmentBlocks::rebuild_index(dir.path(), &guard(), |_| {}).unwrap();
    assert_eq!((found.blocks, found.damaged), (7, 1));
    let blocks = reopen(dir.path());
    assert_eq!((0..8).filter(|n| blocks.get(big(*n, 50).cid()).unwrap().is_some()).count(), 7);
}

#[tokio::test]
async fn accepted_losses_are_recorded_and_can_be_repaired() {
    let dir = stored(60, 2_000).await;
    let files = segment_files(dir.path());
    std::fs::remove_file(&files[1]).unwrap();
    let first = File::options().write(true).open(&files[0]).unwrap();
    first.set_len(10_000).unwrap();
    assert!(matches!(SegmentBlocks::open(dir.path(), &config()), Err(OpenError::SegmentLost { .. })));

    let lost = SegmentBlocks::accept_losses(dir.path()).unwrap();
    assert_eq!(lost.iter().map(|lost| lost.found_bytes).collect::<Vec<_>>(), [10_000, 0]);
    let lost_blocks: u64 = lost.iter().map(|lost| lost.blocks).sum();
    assert!(SegmentBlocks::accept_losses(dir.path()).unwrap().is_empty(), "once is enough");
    let blocks = reopen(dir.path());
    assert_eq!(blocks.damaged(None, 100).unwrap().len() as u64, lost_blocks);
    assert!(blocks.is_damaged(&name("a")).unwrap());
    let gone: Vec<usize> = (0..60).filter(|n| blocks.size(big(*n, 2_000).cid()).unwrap().is_none()).collect();
    assert_eq!(gone.len() as u64, lost_blocks);
    for n in gone {
        blocks.repair(big(n, 2_000)).await.unwrap();
    }
    assert!(!blocks.is_damaged(&name("a")).unwrap());
    for n in 0..60 {
        assert_eq!(blocks.get(big(n, 2_000).cid()).unwrap(), Some(big(n, 2_000)));
    }
    assert_eq!(blocks.verify(|_| true).unwrap().damaged, 0);
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

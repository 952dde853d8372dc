//! Space is reclaimed, and segments remain valid CARs.

use super::*;

/// Puts some blocks into the hold `keep` and the others into `go`, and releases `go`.
async fn release_all_but(blocks: &SegmentBlocks, count: usize, length: usize, keeps: impl Fn(usize) -> bool) {
    let (keep, go) = (blocks.open(&name("keep")).unwrap(), blocks.open(&name("go")).unwrap());
    for n in 0..count {
        blocks.put(if keeps(n) { keep } else { go }, big(n, length)).await.unwrap();
    }
    blocks.seal(keep).await.unwrap();
    blocks.seal(go).await.unwrap();
    blocks.release(&name("go")).await.unwrap();
}

/// Waits until nothing is left to reclaim.
async fn reclaimed(blocks: &SegmentBlocks, dir: &Path) {
    let live = || blocks.totals().unwrap().bytes;
    let length = |file: &PathBuf| std::fs::metadata(file).map_or(0, |found| found.len());
    let active = || segment_files(dir).last().map_or(0, length);
    wait_until(blocks, || {
        let is_freed = blocks.shared.index.releasing().unwrap().is_empty();
        let is_given_back = blocks.shared.index.dead_segments().unwrap().len() <= 1;
        // At most a quarter of finished segments is waste, plus the section heads.
        is_freed && is_given_back && used(dir) <= live() * 3 / 2 + active() + 64 * 1024
    })
    .await;
}

/// Every section of every segment, verified.
fn sections(dir: &Path) -> Vec<Block> {
    let mut found = Vec::new();
    for file in segment_files(dir) {
        let mut sections = crate::car::Sections::new(std::fs::File::open(file).unwrap()).unwrap();
        while let Some(section) = sections.next_section().unwrap() {
            found.push(Block::verify(section.cid, section.data.into()).unwrap());
        }
    }
    found
}

#[tokio::test]
async fn segments_of_small_blocks_are_compacted_without_loss() {
    let (dir, blocks) = fresh();
    release_all_but(&blocks, 1_000, 700, |n| n % 10 == 0).await;
    reclaimed(&blocks, dir.path()).await;
    for n in 0..1_000 {
        let found = blocks.get(big(n, 700).cid()).unwrap();
        assert_eq!(found, (n % 10 == 0).then(|| big(n, 700)), "block {n}");
    }
    drop(blocks);
    let blocks = reopen(dir.path());
    assert_eq!(blocks.totals().unwrap().blocks, 100);
    assert_eq!(blocks.totals().unwrap().bytes, 70_000);
    for n in (0..1_000).step_by(10) {
        assert_eq!(blocks.get(big(n, 700).cid()).unwrap(), Some(big(n, 700)));
    }
    assert_eq!(blocks.verify(|_| true).unwrap().damaged, 0);
}

#[tokio::test]
async fn segment_with_holes_is_a_valid_car() {
    let dir = tempfile::tempdir().unwrap();
    let large = SegmentConfig { segment_bytes: 8 * 1024 * 1024, reserve_bytes: 0 };
    let blocks = SegmentBlocks::open(dir.path(), &large).unwrap();
    release_all_but(&blocks, 40, 200_000, |n| n % 2 == 0).await;
    wait_until(&blocks, || {
        blocks.shared.index.releasing().unwrap().is_empty()
            && blocks.shared.index.dead_segments().unwrap().is_empty()
    })
    .await;
    assert!(used(dir.path()) < 6 * 1024 * 1024, "{} bytes for 4 MB", used(dir.path()));
    drop(blocks);
    let found = sections(dir.path());
    for n in (0..40).step_by(2) {
        assert!(found.contains(&big(n, 200_000)), "block {n}");
    }
    let zeros = found.iter().filter(|block| block.data().iter().all(|byte| *byte == 0)).count();
    assert_eq!((found.len(), zeros), (40, 20), "dead blocks read as zeros");
}

#[tokio::test]
async fn dead_blocks_of_the_active_segment_are_punched() {
    let dir = tempfile::tempdir().unwrap();
    let large = SegmentConfig { segment_bytes: 8 * 1024 * 1024, reserve_bytes: 0 };
    let blocks = SegmentBlocks::open(dir.path(), &large).unwrap();
    // Too little waste to finish the segment early; the last block shares its page with the next one.
    release_all_but(&blocks, 20, 200_000, |n| n % 10 < 9).await;
    let left = |dead: usize| {
        let dead_here = blocks.shared.index.dead(1, 10).unwrap().len();
        blocks.shared.index.releasing().unwrap().is_empty() && dead_here == dead
    };
    wait_until(&blocks, || left(1)).await;
    let before = used(dir.path());
    assert!(before < 19 * 200_000 + 64 * 1024, "{before} bytes for 19 blocks");
    let hold = blocks.open(&name("more")).unwrap();
    for n in 100..110 {
        blocks.put(hold, big(n, 200_000)).await.unwrap();
    }
    blocks.seal(hold).await.unwrap();
    assert_eq!(segment_files(dir.path()).len(), 1, "the same segment is continued");
    drop(blocks);
    let found = sections(dir.path());
    assert_eq!(found.len(), 30);
    let kept = (0..20).filter(|n| n % 10 < 9).chain(100..110);
    let blocks = SegmentBlocks::open(dir.path(), &large).unwrap();
    for n in kept {
        assert!(
            found.contains(&big(n, 200_000)) && blocks.get(big(n, 200_000).cid()).unwrap().is_some(),
            "{n}"
        );
    }
    wait_until(&blocks, || blocks.shared.index.dead_segments().unwrap().is_empty()).await;
    assert!(used(dir.path()) < 28 * 200_000 + 64 * 1024, "{} bytes for 28 blocks", used(dir.path()));
}

#[tokio::test]
async fn hold_keeps_its_blocks_during_compaction() {
    let (dir, blocks) = fresh();
    release_all_but(&blocks, 400, 900, |n| n % 5 == 0).await;
    // Another hold references some of them while they are moved.
    let other = blocks.open(&name("other")).unwrap();
    for n in (0..400).step_by(10) {
        assert!(blocks.add_edge(other, big(n, 900).cid()).unwrap());
    }
    blocks.seal(other).await.unwrap();
    blocks.release(&name("keep")).await.unwrap();
    reclaimed(&blocks, dir.path()).await;
    for n in 0..400 {
        assert_eq!(blocks.get(big(n, 900).cid()).unwrap().is_some(), n % 10 == 0, "block {n}");
    }
    let totals = blocks.totals().unwrap();
    assert_eq!((totals.blocks, totals.held_blocks, totals.holds), (40, 40, 1));
    blocks.release(&name("other")).await.unwrap();
    wait_until(&blocks, || segment_files(dir.path()).is_empty()).await;
    assert_eq!(blocks.totals().unwrap().blocks, 0);
}

#[tokio::test]
async fn totals_count_shared_blocks_once_and_for_each_hold() {
    let (dir, blocks) = fresh();
    for hold in ["a", "b", "c"] {
        let hold = blocks.open(&name(hold)).unwrap();
        for n in 0..10 {
            blocks.put(hold, big(n, 100)).await.unwrap();
        }
        blocks.seal(hold).await.unwrap();
    }
    let totals = blocks.totals().unwrap();
    assert_eq!((totals.holds, totals.blocks, totals.bytes), (3, 10, 1_000));
    assert_eq!((totals.held_blocks, totals.held_bytes), (30, 3_000));
    assert!(totals.disk_bytes >= 1_000);
    // Opened and released in one group: no trace remains.
    blocks.open(&name("d")).unwrap();
    blocks.release(&name("d")).await.unwrap();
    blocks.release(&name("b")).await.unwrap();
    drop(blocks);
    let totals = reopen(dir.path()).totals().unwrap();
    assert_eq!((totals.holds, totals.bytes, totals.held_bytes), (2, 1_000, 2_000));
}

#[tokio::test]
async fn segment_of_tiny_blocks_is_not_compacted_repeatedly() {
    let (dir, blocks) = fresh();
    let hold = blocks.open(&name("a")).unwrap();
    for n in 1_000..6_000 {
        blocks.put(hold, block(n.to_string())).await.unwrap();
    }
    blocks.seal(hold).await.unwrap();
    let files = segment_files(dir.path());
    assert!(files.len() > 2);
    // Each of these is a turn of the writer, in which it could have moved blocks.
    for _ in 0..100 {
        blocks.open(&name("tick")).unwrap();
        blocks.release(&name("tick")).await.unwrap();
    }
    assert_eq!(segment_files(dir.path()), files);
}

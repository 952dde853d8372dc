//! Snapshots of a store in use.

use super::*;

fn guard() -> HoldName {
    name("upload/rebuilt")
}

/// A store restored from a snapshot.
fn restored(snapshot: &Path) -> SegmentBlocks {
    SegmentBlocks::rebuild_index(snapshot, &guard(), |_| {}).unwrap();
    reopen(snapshot)
}

#[tokio::test]
async fn snapshot_has_committed_data_and_never_changes() {
    let (dir, blocks) = fresh();
    let hold = blocks.open(&name("a")).unwrap();
    for n in 0..100 {
        blocks.put(hold, big(n, 40_000)).await.unwrap();
    }
    blocks.seal(hold).await.unwrap();
    let copy = dir.path().join("copy");
    std::fs::create_dir_all(copy.join("segments")).unwrap();
    let snapshot = blocks.snapshot(&copy.join("segments")).await.unwrap();
    assert!(snapshot.linked && snapshot.bytes > 4_000_000, "{snapshot:?}");
    let before: Vec<_> = segment_files(&copy).iter().map(|file| std::fs::read(file).unwrap()).collect();

    // Everything is released, and other blocks are added.
    let other = blocks.open(&name("b")).unwrap();
    assert!(blocks.add_edge(other, big(7, 40_000).cid()).unwrap());
    blocks.put(other, block("later")).await.unwrap();
    blocks.seal(other).await.unwrap();
    blocks.release(&name("a")).await.unwrap();
    wait_until(&blocks, || used(dir.path()) < 200_000).await;
    assert_eq!(blocks.get(big(7, 40_000).cid()).unwrap(), Some(big(7, 40_000)));
    drop(blocks);
    drop(reopen(dir.path()));

    let after: Vec<_> = segment_files(&copy).iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(before == after, "the snapshot has changed");
    let copied = restored(&copy);
    for n in 0..100 {
        assert_eq!(copied.get(big(n, 40_000).cid()).unwrap(), Some(big(n, 40_000)));
    }
    assert_eq!(copied.get(block("later").cid()).unwrap(), None);
}

#[tokio::test]
async fn store_opened_on_hard_links_does_not_change_them() {
    let (dir, blocks) = fresh();
    let hold = blocks.open(&name("a")).unwrap();
    blocks.put(hold, block("first")).await.unwrap();
    blocks.seal(hold).await.unwrap();
    let copy = dir.path().join("copy");
    std::fs::create_dir_all(copy.join("segments")).unwrap();
    blocks.snapshot(&copy.join("segments")).await.unwrap();
    let other_name = dir.path().join("other");
    std::fs::hard_link(&segment_files(&copy)[0], &other_name).unwrap();
    let before = std::fs::read(&other_name).unwrap();
    let copied = restored(&copy);
    let hold = copied.open(&name("b")).unwrap();
    copied.put(hold, block("second")).await.unwrap();
    copied.seal(hold).await.unwrap();
    assert!(std::fs::read(&other_name).unwrap() == before, "the other name has changed");
    assert_eq!(copied.get(block("second").cid()).unwrap(), Some(block("second")));
}

#[tokio::test]
async fn nothing_is_freed_while_reclaim_is_paused() {
    let (dir, blocks) = fresh();
    let hold = blocks.open(&name("a")).unwrap();
    for n in 0..20 {
        blocks.put(hold, big(n, 40_000)).await.unwrap();
    }
    blocks.seal(hold).await.unwrap();
    let pause = blocks.pause_reclaim();
    blocks.release(&name("a")).await.unwrap();
    // Each of these is a turn of the writer, in which it could have freed blocks.
    for n in 0..20 {
        let tick = blocks.open(&name(format!("tick {n}"))).unwrap();
        blocks.seal(tick).await.unwrap();
    }
    for n in 0..20 {
        assert_eq!(blocks.get(big(n, 40_000).cid()).unwrap(), Some(big(n, 40_000)));
    }
    drop(pause);
    wait_until(&blocks, || segment_files(dir.path()).is_empty()).await;
}

#[tokio::test]
async fn uncommitted_tail_of_a_linked_file_is_not_truncated() {
    let (dir, blocks) = fresh();
    let hold = blocks.open(&name("a")).unwrap();
    for n in 0..3 {
        blocks.put(hold, big(n, 3_000)).await.unwrap();
    }
    blocks.seal(hold).await.unwrap();
    drop(blocks);
    let other_name = dir.path().join("other");
    std::fs::hard_link(&segment_files(dir.path())[0], &other_name).unwrap();
    // Flip one bit of the last block, which may still be needed for analysis.
    let mut bytes = std::fs::read(&other_name).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&other_name, &bytes).unwrap();
    let copied = restored(dir.path());
    assert_eq!(copied.totals().unwrap().blocks, 2);
    assert!(std::fs::read(&other_name).unwrap() == bytes, "the other name has changed");
    let hold = copied.open(&name("b")).unwrap();
    copied.put(hold, big(2, 3_000)).await.unwrap();
    copied.seal(hold).await.unwrap();
    drop(copied);
    let copied = reopen(dir.path());
    for n in 0..3 {
        assert_eq!(copied.get(big(n, 3_000).cid()).unwrap(), Some(big(n, 3_000)));
    }
}

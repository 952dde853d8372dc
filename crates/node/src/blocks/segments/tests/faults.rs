//! Failures of files, and how they are reported.

use std::os::unix::fs::FileExt as _;

use super::*;

#[tokio::test]
async fn missing_segment_does_not_block_writes() {
    let (dir, blocks) = fresh();
    let pause = blocks.pause_reclaim();
    let (keep, go) = (blocks.open(&name("keep")).unwrap(), blocks.open(&name("go")).unwrap());
    for n in 0..300 {
        blocks.put(if n % 5 == 0 { keep } else { go }, big(n, 900)).await.unwrap();
    }
    blocks.seal(keep).await.unwrap();
    blocks.seal(go).await.unwrap();
    blocks.release(&name("go")).await.unwrap();
    let files = segment_files(dir.path());
    std::fs::remove_file(&files[0]).unwrap();
    drop(pause);
    wait_until(&blocks, || !files[1].exists()).await;
    let hold = blocks.open(&name("later")).unwrap();
    blocks.put(hold, block("later")).await.unwrap();
    assert_eq!(blocks.seal(hold).await.unwrap().blocks, 1);
}

#[tokio::test]
async fn failed_repair_is_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = reopen(dir.path());
    let hold = blocks.open(&name("a")).unwrap();
    for n in 0..13 {
        blocks.put(hold, big(n, 5_000)).await.unwrap();
    }
    blocks.seal(hold).await.unwrap();
    assert_eq!(segment_files(dir.path()).len(), 1, "it is full to the last byte");
    let obstacle = dir.path().join("segments/0000000002.car");
    std::fs::create_dir(&obstacle).unwrap();
    assert!(blocks.repair(big(3, 5_000)).await.is_err());
    std::fs::remove_dir(&obstacle).unwrap();
    blocks.repair(big(3, 5_000)).await.unwrap();
}

#[tokio::test]
async fn segment_is_deleted_after_its_last_damaged_block_is_repaired() {
    let (dir, blocks) = fresh();
    let (keep, go) = (blocks.open(&name("keep")).unwrap(), blocks.open(&name("go")).unwrap());
    for n in 0..100 {
        blocks.put(if n == 7 { keep } else { go }, big(n, 900)).await.unwrap();
    }
    blocks.seal(keep).await.unwrap();
    blocks.seal(go).await.unwrap();
    let first = segment_files(dir.path()).remove(0);
    let mut bytes = std::fs::read(&first).unwrap();
    let damaged = big(7, 900);
    let at = bytes.windows(900).position(|window| window == &damaged.data()[..]).unwrap();
    bytes[at] ^= 1;
    File::options().write(true).open(&first).unwrap().write_at(&bytes[at..=at], at as u64).unwrap();
    assert_eq!(blocks.verify(|_| true).unwrap().damaged, 1);
    blocks.release(&name("go")).await.unwrap();
    let is_alone = || blocks.totals().unwrap().blocks == 1 && segment_files(dir.path()).len() == 1;
    wait_until(&blocks, is_alone).await;
    blocks.repair(big(7, 900)).await.unwrap();
    wait_until(&blocks, || !first.exists()).await;
    assert_eq!(blocks.get(big(7, 900).cid()).unwrap(), Some(big(7, 900)));
}

#[tokio::test]
async fn scrub_error_does_not_report_damage() {
    let (dir, blocks) = fresh();
    let hold = blocks.open(&name("a")).unwrap();
    blocks.put(hold, block("whole")).await.unwrap();
    blocks.seal(hold).await.unwrap();
    let file = segment_files(dir.path()).remove(0);
    let aside = dir.path().join("aside");
    std::fs::rename(&file, &aside).unwrap();
    // Opening it fails with an error that is not caused by the disk, as if file descriptors ran out.
    std::os::unix::fs::symlink(&file, &file).unwrap();
    assert!(matches!(blocks.scrub(1), Err(BlocksError::Failed(_))));
    std::fs::rename(&aside, &file).unwrap();
    assert_eq!(blocks.scrub(1).unwrap().damaged, 0);
    assert_eq!(blocks.size(block("whole").cid()).unwrap(), Some(5));
}

//! What fails beside the work, and what is told to whom then.

use super::*;

#[tokio::test]
async fn a_segment_that_cannot_be_opened_keeps_nobody_from_writing() {
    let (dir, blocks) = fresh();
    let keep_all = blocks.keep_all();
    let (keep, go) = (blocks.open(&name("keep")).unwrap(), blocks.open(&name("go")).unwrap());
    for n in 0..300 {
        blocks.put(if n % 5 == 0 { keep } else { go }, big(n, 900)).await.unwrap();
    }
    blocks.seal(keep).await.unwrap();
    blocks.seal(go).await.unwrap();
    blocks.release(&name("go")).await.unwrap();
    let files = segment_files(dir.path());
    std::fs::remove_file(&files[0]).unwrap();
    drop(keep_all);
    wait_until(&blocks, || !files[1].exists()).await;
    let hold = blocks.open(&name("later")).unwrap();
    blocks.put(hold, block("later")).await.unwrap();
    assert_eq!(blocks.seal(hold).await.unwrap().blocks, 1);
}

#[tokio::test]
async fn a_repair_that_fails_is_not_acknowledged() {
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

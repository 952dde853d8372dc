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

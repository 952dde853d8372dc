//! A file gets the same CID as from independent importers, through every way of adding it.

use crate::{pinfold::Pinfold, vector};

#[tokio::test]
async fn published_files_get_their_published_cids() {
    let vectors = vector::files();
    assert!(vectors.len() >= 16, "only {} files among the vectors", vectors.len());
    let pinfold = Pinfold::start(&["--no-bootstrap"]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("file.bin");
    for vector in vectors {
        vector.write(&path).await;
        assert_eq!(pinfold.upload(&path).await, vector.cid, "{} by POST /files", vector.name);
        assert_eq!(pinfold.add(&path).await, vector.cid, "{} by pinfold add", vector.name);
    }
}

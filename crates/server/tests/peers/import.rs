//! A file gets the CID that independent importers agree on, whichever way it comes in.

use crate::{pinfold::Pinfold, vector};

#[tokio::test]
async fn every_published_file_gets_its_published_cid() {
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

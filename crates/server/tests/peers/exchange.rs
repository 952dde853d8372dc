//! Blocks are transferred from a foreign node to Pinfold and, after that node has ended, from Pinfold to another
//! foreign node. If the content arrives completely, both directions of bitswap work.

use std::path::Path;

use serde_json::{Value, json};

use crate::{Over, data, helia::Helia, kubo::Kubo, pinfold::Pinfold};

#[tokio::test]
async fn folder_from_kubo_to_kubo_over_tcp_with_tls() {
    folder_from_kubo_to_kubo(Over::TcpTls).await;
}

#[tokio::test]
async fn folder_from_kubo_to_kubo_over_tcp_with_noise() {
    folder_from_kubo_to_kubo(Over::TcpNoise).await;
}

#[tokio::test]
async fn folder_from_kubo_to_kubo_over_quic() {
    folder_from_kubo_to_kubo(Over::Quic).await;
}

#[tokio::test]
async fn folder_from_kubo_to_kubo_over_websocket() {
    folder_from_kubo_to_kubo(Over::WebSocket).await;
}

#[tokio::test]
async fn folder_from_helia_to_helia_over_tcp_with_tls() {
    folder_from_helia_to_helia(Over::TcpTls).await;
}

#[tokio::test]
async fn folder_from_helia_to_helia_over_tcp_with_noise() {
    folder_from_helia_to_helia(Over::TcpNoise).await;
}

#[tokio::test]
async fn folder_from_helia_to_helia_over_websocket() {
    folder_from_helia_to_helia(Over::WebSocket).await;
}

#[tokio::test]
async fn sharded_folder_from_kubo_to_kubo() {
    transfer_from_kubo_to_kubo(Over::TcpTls, data::wide().path()).await;
}

#[tokio::test]
async fn sharded_folder_from_helia_to_kubo() {
    let folder = data::wide();
    let mut helia = Helia::start(Over::TcpTls).await;
    let cid = helia.add(folder.path()).await;
    let pinfold = Pinfold::connected_to(&helia.address).await;
    pinfold.pin(&cid).await;
    helia.kill().await;

    let kubo = Kubo::start(Over::TcpTls).await;
    kubo.connect(pinfold.address(Over::TcpTls)).await;
    kubo.pin(&cid).await;
    assert_eq!(kubo.add(folder.path()).await, cid, "Kubo computes the same root CID");
}

#[tokio::test]
async fn dag_cbor_from_kubo_to_helia() {
    let (folder, path) = data::file();
    let kubo = Kubo::start(Over::TcpTls).await;
    let leaf = kubo.add(&path).await;
    let middle = kubo.encode(&linking_to(&leaf)).await;
    let root = kubo.encode(&linking_to(&middle)).await;
    let pinfold = Pinfold::connected_to(kubo.address(Over::TcpTls)).await;
    pinfold.pin(&root).await;
    kubo.kill().await;

    let mut helia = Helia::start(Over::TcpTls).await;
    helia.connect(pinfold.address(Over::TcpTls)).await;
    assert_eq!(helia.pin(&root).await, 15, "two dag-cbor blocks, and a root with twelve leaves of the file");
    assert_eq!(helia.sha256(&leaf).await, data::sha256(&path));
    drop(folder);
}

#[tokio::test]
async fn dag_cbor_from_helia_to_kubo() {
    let (folder, path) = data::file();
    let mut helia = Helia::start(Over::TcpNoise).await;
    let leaf = helia.add(&path).await;
    let root = helia.encode(&linking_to(&leaf)).await;
    let pinfold = Pinfold::connected_to(&helia.address).await;
    pinfold.pin(&root).await;
    helia.kill().await;

    let kubo = Kubo::start(Over::TcpNoise).await;
    kubo.connect(pinfold.address(Over::TcpNoise)).await;
    kubo.pin(&root).await;
    assert_eq!(kubo.sha256(&leaf).await, data::sha256(&path));
    drop(folder);
}

/// Kubo never sends an empty block, not even to another Kubo. Pinfold recognises its CID, and sends the block itself.
#[tokio::test]
async fn folder_with_an_empty_file_from_kubo_to_kubo() {
    transfer_from_kubo_to_kubo(Over::TcpTls, data::with_an_empty_file().path()).await;
}

/// Uploads are served in the same way as pins.
#[tokio::test]
async fn upload_is_fetched_by_kubo_and_helia() {
    let (folder, path) = data::file();
    let kubo = Kubo::start(Over::TcpTls).await;
    let pinfold = Pinfold::connected_to(kubo.address(Over::TcpTls)).await;
    let cid = pinfold.upload(&path).await;

    kubo.connect(pinfold.address(Over::TcpTls)).await;
    kubo.pin(&cid).await;
    assert_eq!(kubo.sha256(&cid).await, data::sha256(&path));

    let mut helia = Helia::start(Over::TcpNoise).await;
    helia.connect(pinfold.address(Over::TcpNoise)).await;
    assert_eq!(helia.sha256(&cid).await, data::sha256(&path));
    drop(folder);
}

/// If this fails, the cause is not in Pinfold.
#[tokio::test]
async fn peers_exchange_content_without_pinfold() {
    let folder = data::tree();
    for over in [Over::TcpTls, Over::TcpNoise, Over::WebSocket] {
        let kubo = Kubo::start(over).await;
        let cid = kubo.add(folder.path()).await;
        let mut helia = Helia::start(over).await;
        helia.connect(kubo.address(over)).await;
        assert!(helia.pin(&cid).await >= 20, "{over:?}");

        let (_folder, path) = data::file();
        let back = helia.add(&path).await;
        kubo.pin(&back).await;
        assert_eq!(kubo.sha256(&back).await, data::sha256(&path), "{over:?}");
    }
}

async fn folder_from_kubo_to_kubo(over: Over) {
    transfer_from_kubo_to_kubo(over, data::tree().path()).await;
}

async fn transfer_from_kubo_to_kubo(over: Over, folder: &Path) {
    let giver = Kubo::start(over).await;
    let cid = giver.add(folder).await;
    let refs = giver.refs(&cid).await;
    let pinfold = Pinfold::connected_to(giver.address(over)).await;
    pinfold.pin(&cid).await;
    giver.kill().await;

    let taker = Kubo::start(over).await;
    taker.connect(pinfold.address(over)).await;
    taker.pin(&cid).await;
    assert_eq!(taker.refs(&cid).await, refs);
}

async fn folder_from_helia_to_helia(over: Over) {
    let folder = data::tree();
    let mut giver = Helia::start(over).await;
    let cid = giver.add(folder.path()).await;
    let blocks = giver.pin(&cid).await;
    let pinfold = Pinfold::connected_to(&giver.address).await;
    pinfold.pin(&cid).await;
    giver.kill().await;

    let mut taker = Helia::start(over).await;
    taker.connect(pinfold.address(over)).await;
    assert_eq!(taker.pin(&cid).await, blocks);
}

fn linking_to(cid: &str) -> Value {
    json!({"name": "a link", "list": [{"to": {"/": cid}}], "bytes": {"/": {"bytes": "AAECAw"}}})
}

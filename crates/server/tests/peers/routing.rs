//! Providers of content are found by its CID.

use crate::{Over, data, kubo::Kubo, pinfold::Pinfold};

#[tokio::test]
async fn pin_is_found_in_the_dht_through_a_third_node() {
    let (folder, path) = data::file();
    let known = Kubo::start(Over::TcpTls).await;
    let holder = Kubo::start(Over::TcpTls).await;
    let bystander = Kubo::start(Over::TcpTls).await;
    for kubo in [&holder, &bystander] {
        kubo.connect(known.address(Over::TcpTls)).await;
    }
    let cid = holder.add(&path).await;
    holder.provide(&cid).await;
    let found = bystander.run(&["routing", "findprovs", "--num-providers=1", &cid]).await;
    assert!(holder.address(Over::TcpTls).ends_with(&found), "the DHT returns the provider, not {found:?}");

    let pinfold = Pinfold::start(&["--bootstrap", known.address(Over::TcpTls)]).await;
    pinfold.pin(&cid).await;
    for kubo in [known, holder, bystander] {
        kubo.kill().await;
    }

    let taker = Kubo::start(Over::TcpTls).await;
    taker.connect(pinfold.address(Over::TcpTls)).await;
    taker.pin(&cid).await;
    assert_eq!(taker.sha256(&cid).await, data::sha256(&path));
    drop(folder);
}

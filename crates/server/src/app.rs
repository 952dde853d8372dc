//! stub
use crate::{config::Config, data_dir::DataDir};
use std::net::SocketAddr;
pub(crate) struct FirstKey {
    pub(crate) email: String,
    pub(crate) secret: String,
}
pub(crate) struct App {
    address: SocketAddr,
    first: Option<FirstKey>,
    peer: String,
    addresses: Vec<String>,
}
impl App {
    pub(crate) async fn start(_c: &Config, _d: &DataDir) -> anyhow::Result<Self> {
        anyhow::bail!("x")
    }
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }
    pub(crate) fn peer_id(&self) -> String {
        self.peer.clone()
    }
    pub(crate) fn first_key(&self) -> Option<&FirstKey> {
        self.first.as_ref()
    }
    pub(crate) async fn stop(self) {}
}

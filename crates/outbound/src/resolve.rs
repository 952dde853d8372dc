//! Names become addresses here, and only those come out that may be connected to.

use std::error::Error;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use crate::target::Reach;

/// Lookups at one time. One that nobody waits for any more still takes a thread until the system gives up.
const LOOKUPS_MAX: usize = 32;

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NameError {
    #[error("the host has no address")]
    Unknown,
    #[error("the host has an address that is not public")]
    NotPublic,
}

/// The system's resolver behind the rule.
#[derive(Clone)]
pub(crate) struct Guarded {
    reach: Reach,
    lookups: Arc<Semaphore>,
}

impl Guarded {
    pub(crate) fn new(reach: Reach) -> Self {
        Self { reach, lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    async fn lookup(self, host: String) -> Result<Vec<SocketAddr>, Box<dyn Error + Send + Sync>> {
        let permit = self.lookups.acquire_owned().await?;
        let found = tokio::task::spawn_blocking(move || {
            // The port is that of the URL; this one is not used.
            let found = (host.as_str(), 0).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            drop(permit);
            found
        });
        Ok(check(found.await?.unwrap_or_default(), self.reach)?)
    }
}

/// All of them, if each may be connected to. A name that also leads inside is not believed at all.
fn check(found: Vec<SocketAddr>, reach: Reach) -> Result<Vec<SocketAddr>, NameError> {
    if found.is_empty() {
        return Err(NameError::Unknown);
    }
    if found.iter().all(|address| reach.allows(address.ip())) { Ok(found) } else { Err(NameError::NotPublic) }
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let lookup = self.clone().lookup(name.as_str().to_owned());
        Box::pin(async move {
            let addresses: Addrs = Box::new(lookup.await?.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| SocketAddr::new(text.parse().expect("an address"), 0)).collect()
    }

    #[test]
    fn one_address_inside_spoils_all() {
        let public = Reach::default();
        let good = found(&["1.1.1.1", "2606:4700:4700::1111"]);
        assert_eq!(check(good.clone(), public).ok(), Some(good));
        let mixed = found(&["1.1.1.1", "10.0.0.1"]);
        assert!(matches!(check(mixed.clone(), public), Err(NameError::NotPublic)));
        assert_eq!(check(mixed.clone(), Reach { private: true, plain_http: false }).ok(), Some(mixed));
        assert!(matches!(check(Vec::new(), public), Err(NameError::Unknown)));
    }
}

//! Resolves host names and rejects names with an address that requests must not go to.

use std::error::Error;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use crate::target::TargetPolicy;

/// Concurrent lookups. A lookup that was abandoned still occupies a thread until the system's resolver times out.
const LOOKUPS_MAX: usize = 32;

/// Why a host name cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NameError {
    #[error("the host name does not resolve")]
    Unknown,
    #[error("the host resolves to an address that is not public")]
    NotPublic,
}

/// The system's resolver, restricted to allowed addresses.
#[derive(Clone)]
pub(crate) struct RestrictedResolver {
    policy: TargetPolicy,
    lookups: Arc<Semaphore>,
}

impl RestrictedResolver {
    pub(crate) fn new(policy: TargetPolicy) -> Self {
        Self { policy, lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    async fn lookup(self, host: String) -> Result<Vec<SocketAddr>, Box<dyn Error + Send + Sync>> {
        let permit = self.lookups.acquire_owned().await?;
        let found = tokio::task::spawn_blocking(move || {
            // reqwest takes the port from the URL and ignores this one.
            let found = (host.as_str(), 0).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            drop(permit);
            found
        });
        Ok(check(found.await?.unwrap_or_default(), self.policy)?)
    }
}

/// All addresses, if the policy allows each of them. A name with one internal address is rejected as a whole: otherwise a
/// retry on another address could reach it.
fn check(found: Vec<SocketAddr>, policy: TargetPolicy) -> Result<Vec<SocketAddr>, NameError> {
    if found.is_empty() {
        return Err(NameError::Unknown);
    }
    if found.iter().all(|address| policy.allows(address.ip())) {
        Ok(found)
    } else {
        Err(NameError::NotPublic)
    }
}

impl Resolve for RestrictedResolver {
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
        texts.iter().map(|text| SocketAddr::new(text.parse().expect("parses as an address"), 0)).collect()
    }

    #[test]
    fn name_with_one_private_address_is_rejected() {
        let public = TargetPolicy::default();
        let good = found(&["1.1.1.1", "2606:4700:4700::1111"]);
        assert_eq!(check(good.clone(), public).ok(), Some(good));
        let mixed = found(&["1.1.1.1", "10.0.0.1"]);
        assert!(matches!(check(mixed.clone(), public), Err(NameError::NotPublic)));
        assert_eq!(
            check(mixed.clone(), TargetPolicy { allow_private: true, allow_http: false }).ok(),
            Some(mixed)
        );
        assert!(matches!(check(Vec::new(), public), Err(NameError::Unknown)));
    }
}

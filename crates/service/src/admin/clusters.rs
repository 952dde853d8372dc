//! Clusters: health, usage, and their descriptions.

use pinfold_cluster::Usage;
use pinfold_model::{Actor, ClusterId};
use pinfold_store::SavedClusterInfo;

use super::Admin;
use crate::error::log_store_error;
use crate::{ClusterInfo, Error, GatewayInfo};

/// Maximum lengths in bytes.
const LABEL_LEN_MAX: usize = 255;
const REGION_LEN_MAX: usize = 64;
const URL_LEN_MAX: usize = 2_048;
/// Maximum gateways of a cluster: every reply lists all of them.
const GATEWAYS_MAX: usize = 16;

/// A cluster, as administrators see it.
#[derive(Debug, Clone)]
pub struct ClusterView {
    pub info: ClusterInfo,
    /// Whether a saved description overrides the configured one.
    pub is_saved: bool,
    /// `None` if the cluster is healthy.
    pub problem: Option<String>,
    /// `None` if the cluster does not reply.
    pub usage: Option<Usage>,
}

/// Changes of a description. `None` leaves a field unchanged.
#[derive(Debug, Clone, Default)]
pub struct ClusterEdit {
    /// Display name.
    pub label: Option<String>,
    /// `Some(None)` removes it.
    pub region: Option<Option<String>>,
    /// ISO 3166 code; `Some(None)` removes it.
    pub country: Option<Option<String>>,
    /// Best first.
    pub gateways: Option<Vec<GatewayEdit>>,
}

/// A gateway in an edited description.
#[derive(Debug, Clone)]
pub struct GatewayEdit {
    /// Base URL; ends in `/ipfs/`.
    pub url: String,
    /// Display name; `None` selects the cluster's label.
    pub label: Option<String>,
}

impl Admin {
    /// Lists all clusters. Returns within a few seconds, even if components hang.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn clusters(&self) -> Result<Vec<ClusterView>, Error> {
        let saved = self.store.saved_cluster_infos().await.map_err(log_store_error)?;
        let (health, usage) = tokio::join!(self.clusters.health(), self.clusters.usage());
        let view = |info: &ClusterInfo| {
            let health = health.clusters.iter().find(|part| part.cluster == info.id);
            ClusterView {
                info: info.clone(),
                is_saved: saved.iter().any(|saved| saved.cluster == info.id),
                problem: health.and_then(|part| part.problem.clone()),
                usage: usage.iter().find(|(id, _)| *id == info.id).map(|(_, usage)| *usage),
            }
        };
        Ok(self.catalog.cluster_infos().iter().map(view).collect())
    }

    /// Changes the description of a cluster. Takes effect at once.
    ///
    /// # Errors
    /// [`Error::ClusterNotFound`]; [`Error::InvalidRequest`] names the invalid field.
    pub async fn change_cluster(
        &self,
        actor: Actor,
        id: &ClusterId,
        edit: ClusterEdit,
    ) -> Result<ClusterInfo, Error> {
        let infos = self.catalog.cluster_infos();
        let now = infos.iter().find(|info| info.id == *id).ok_or(Error::ClusterNotFound)?;
        let label = edit.label.unwrap_or_else(|| now.label.clone());
        let shown = |gateway: GatewayEdit| GatewayInfo {
            url: gateway.url,
            label: gateway.label.unwrap_or_else(|| label.clone()),
        };
        let gateways = edit.gateways.map(|all| all.into_iter().map(shown).collect());
        let info = ClusterInfo {
            id: id.clone(),
            region: edit.region.unwrap_or_else(|| now.region.clone()),
            country: edit.country.unwrap_or_else(|| now.country.clone()),
            gateways: gateways.unwrap_or_else(|| now.gateways.clone()),
            label,
        };
        info.check()?;
        let saved = SavedClusterInfo {
            cluster: info.id.clone(),
            label: info.label.clone(),
            region: info.region.clone(),
            country: info.country.clone(),
            gateways: info
                .gateways
                .iter()
                .map(|gateway| (gateway.url.clone(), gateway.label.clone()))
                .collect(),
        };
        self.store.save_cluster_info(saved, actor, self.clock.now()).await.map_err(log_store_error)?;
        self.refresh_catalog(None).await?;
        Ok(info)
    }

    /// Restores the configured description of a cluster.
    ///
    /// # Errors
    /// [`Error::ClusterNotFound`].
    pub async fn reset_cluster(&self, actor: Actor, id: &ClusterId) -> Result<ClusterInfo, Error> {
        let configured = self.placements.clusters.get(id).ok_or(Error::ClusterNotFound)?.info.clone();
        self.store.delete_cluster_info(id.clone(), actor, self.clock.now()).await.map_err(log_store_error)?;
        self.refresh_catalog(None).await?;
        Ok(configured)
    }
}

impl ClusterInfo {
    /// Checks a description: it is public, and clients append a CID to each gateway's URL.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] names the invalid field.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |text: String| Err(Error::InvalidRequest(text));
        let is_line = |text: &str, len_max: usize| {
            !text.trim().is_empty() && text.len() <= len_max && !text.chars().any(char::is_control)
        };
        if !is_line(&self.label, LABEL_LEN_MAX) {
            return refuse(format!("A label has 1 to {LABEL_LEN_MAX} bytes and no control characters"));
        }
        if self.region.as_ref().is_some_and(|region| !is_line(region, REGION_LEN_MAX)) {
            return refuse(format!("A region has 1 to {REGION_LEN_MAX} bytes and no control characters"));
        }
        let is_country =
            |text: &String| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase());
        if self.country.as_ref().is_some_and(|country| !is_country(country)) {
            return refuse("A country has two capital letters, as ISO 3166 has it".to_owned());
        }
        if self.gateways.len() > GATEWAYS_MAX {
            return refuse(format!("A cluster can have at most {GATEWAYS_MAX} gateways"));
        }
        for gateway in &self.gateways {
            if !is_gateway(&gateway.url) {
                let shown: String = gateway.url.chars().filter(|c| !c.is_control()).take(200).collect();
                return refuse(format!(
                    "{shown:?} is not a gateway URL: it must begin with https:// or http:// and end with /ipfs/"
                ));
            }
            if !is_line(&gateway.label, LABEL_LEN_MAX) {
                return refuse(format!(
                    "The label of a gateway must have 1 to {LABEL_LEN_MAX} bytes and no control characters"
                ));
            }
        }
        Ok(())
    }
}

/// Whether this is the base URL of a gateway: a scheme, a host and a path that ends in `/ipfs/`. Credentials are not allowed,
/// because the URL is public.
fn is_gateway(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some((host, _)) = rest.and_then(|rest| rest.split_once('/')) else { return false };
    let plain =
        |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}');
    let is_plain = url.len() <= URL_LEN_MAX && url.chars().all(plain);
    is_plain
        && !host.is_empty()
        && !host.contains('@')
        && !url.contains(['?', '#'])
        && url.ends_with("/ipfs/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_url_is_checked() {
        for good in
            ["https://gateway.example.org/ipfs/", "http://127.0.0.1:8080/ipfs/", "https://a.b/c/ipfs/"]
        {
            assert!(is_gateway(good), "{good}");
        }
        for bad in [
            "",
            "gateway.example.org/ipfs/",
            "ftp://a.b/ipfs/",
            "https:///ipfs/",
            "https://a.b/",
            "https://a.b/ipfs",
            "https://user:word@a.b/ipfs/",
            "https://a.b/ipfs/?x=/ipfs/",
            "https://a.b/ x/ipfs/",
            "https://a.b/\"><script>/ipfs/",
            "javascript:alert(1)//ipfs/",
        ] {
            assert!(!is_gateway(bad), "{bad}");
        }
    }
}

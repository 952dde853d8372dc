//! Clusters: how they are, and what is shown of them.

use pinfold_cluster::Usage;
use pinfold_model::{Actor, ClusterId};
use pinfold_store::SavedClusterInfo;

use super::Admin;
use crate::core::unavailable;
use crate::{ClusterInfo, Clusters, Error, GatewayInfo};

/// The longest label, region and URL, in bytes.
const LABEL_LEN_MAX: usize = 255;
const REGION_LEN_MAX: usize = 64;
const URL_LEN_MAX: usize = 2_048;
/// Gateways of one cluster: all of them stand in each answer.
const GATEWAYS_MAX: usize = 16;

/// A cluster, as an operator sees it.
#[derive(Debug, Clone)]
pub struct ClusterView {
    /// What is shown of it.
    pub info: ClusterInfo,
    /// Whether an operator saved that, over what is configured.
    pub is_saved: bool,
    /// What is wrong with it, if anything is.
    pub problem: Option<String>,
    /// What it holds, if it answers.
    pub usage: Option<Usage>,
}

/// What shall be different of what is shown. What is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct ClusterEdit {
    /// Its name for people.
    pub label: Option<String>,
    /// Where it is; `Some(None)` for nothing.
    pub region: Option<Option<String>>,
    /// Its country, ISO 3166; `Some(None)` for none.
    pub country: Option<Option<String>>,
    /// Its gateways, best first.
    pub gateways: Option<Vec<GatewayEdit>>,
}

/// A gateway as it shall be shown.
#[derive(Debug, Clone)]
pub struct GatewayEdit {
    /// Its base URL, which ends in `/ipfs/`.
    pub url: String,
    /// Its name for people; without one, the cluster's label.
    pub label: Option<String>,
}

impl Admin {
    /// All clusters. Answers within a few seconds, whatever is broken.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn clusters(&self) -> Result<Vec<ClusterView>, Error> {
        let saved = self.core.store.saved_cluster_infos().await.map_err(unavailable)?;
        let clusters = Clusters { core: self.core.clone() };
        let (health, usage) = tokio::join!(clusters.health(), clusters.usage());
        let view = |info: &ClusterInfo| {
            let health = health.clusters.iter().find(|part| part.cluster == info.id);
            ClusterView {
                info: info.clone(),
                is_saved: saved.iter().any(|saved| saved.cluster == info.id),
                problem: health.and_then(|part| part.problem.clone()),
                usage: usage.iter().find(|(id, _)| *id == info.id).map(|(_, usage)| *usage),
            }
        };
        Ok(self.core.cluster_infos().iter().map(view).collect())
    }

    /// Changes what is shown of a cluster, at once.
    ///
    /// # Errors
    /// [`Error::UnknownCluster`]; [`Error::InvalidRequest`] names what is wrong.
    pub async fn change_cluster(
        &self,
        by: Actor,
        id: &ClusterId,
        edit: ClusterEdit,
    ) -> Result<ClusterInfo, Error> {
        let infos = self.core.cluster_infos();
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
        self.core.store.save_cluster_info(saved, by, self.core.clock.now()).await.map_err(unavailable)?;
        self.refreshed(None).await?;
        Ok(info)
    }

    /// Shows of a cluster what is configured once more. Without anything saved that is nothing to do.
    ///
    /// # Errors
    /// [`Error::ClusterNotFound`].
    pub async fn reset_cluster(&self, by: Actor, id: &ClusterId) -> Result<ClusterInfo, Error> {
        let configured = self.core.cluster(id).ok_or(Error::ClusterNotFound)?.info.clone();
        self.core
            .store
            .delete_cluster_info(id.clone(), by, self.core.clock.now())
            .await
            .map_err(unavailable)?;
        self.refreshed(None).await?;
        Ok(configured)
    }
}

impl ClusterInfo {
    /// Whether this can be shown: everybody sees it, and clients append a CID to each gateway's URL.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] names what is wrong.
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
            return refuse(format!("A cluster has at most {GATEWAYS_MAX} gateways"));
        }
        for gateway in &self.gateways {
            if !is_gateway(&gateway.url) {
                let shown: String = gateway.url.chars().filter(|c| !c.is_control()).take(200).collect();
                return refuse(format!(
                    "{shown:?} is no gateway: its URL begins with https:// or http:// and ends with /ipfs/"
                ));
            }
            if !is_line(&gateway.label, LABEL_LEN_MAX) {
                return refuse(format!(
                    "A gateway's label has 1 to {LABEL_LEN_MAX} bytes and no control characters"
                ));
            }
        }
        Ok(())
    }
}

/// Whether this is the base URL of a gateway: a scheme, a host and a path that ends in `/ipfs/`. Nobody's name or
/// password is in it, since everybody is shown it.
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
    fn a_gateway_is_a_plain_url() {
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

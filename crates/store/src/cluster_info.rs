//! Cluster descriptions saved by operators. They override the configured ones.

use pinfold_model::{Actor, ClusterId, Details, Timestamp};
use sqlx::FromRow;

use crate::audit::{Journal, operator_event};
use crate::db::row::unknown_value;
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::{Store, StoreError};

/// Description of a cluster, as saved by an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedClusterInfo {
    pub cluster: ClusterId,
    /// Display name.
    pub label: String,
    pub region: Option<String>,
    pub country: Option<String>,
    /// URL and label of each gateway, in order of preference.
    pub gateways: Vec<(String, String)>,
}

#[derive(Debug, FromRow)]
struct ClusterRow {
    cluster: String,
    label: String,
    region: Option<String>,
    country: Option<String>,
    gateways: String,
}

impl ClusterRow {
    fn into_saved(self) -> Result<SavedClusterInfo, StoreError> {
        let gateway = |line: &str| {
            let (url, label) = line.split_once('\t').unwrap_or((line, line));
            (url.to_owned(), label.to_owned())
        };
        Ok(SavedClusterInfo {
            cluster: ClusterId::parse(&self.cluster).map_err(|_| unknown_value("cluster", &self.cluster))?,
            label: self.label,
            region: self.region,
            country: self.country,
            gateways: self.gateways.lines().map(gateway).collect(),
        })
    }
}

impl Store {
    /// All saved descriptions.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn saved_cluster_infos(&self) -> Result<Vec<SavedClusterInfo>, StoreError> {
        let rows: Vec<ClusterRow> =
            statement::query_as("SELECT cluster, label, region, country, gateways FROM cluster_infos")
                .fetch_all(&self.readers)
                .await?;
        rows.into_iter().map(ClusterRow::into_saved).collect()
    }

    /// Saves a description, replacing the previous one. No text may contain line breaks or tabs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn save_cluster_info(
        &self,
        cluster: SavedClusterInfo,
        by: Actor,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(SaveClusterInfo { cluster, by, now, journal: self.journal() }).await
    }

    /// Deletes the saved description of a cluster. False if there was none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_cluster_info(
        &self,
        cluster: ClusterId,
        by: Actor,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(DeleteClusterInfo { cluster, by, now, journal: self.journal() }).await
    }
}

struct SaveClusterInfo {
    cluster: SavedClusterInfo,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for SaveClusterInfo {
    type Out = ();

    async fn run(&self, conn: &mut Conn) -> Result<(), StoreError> {
        let saved = &self.cluster;
        let gateways: Vec<String> =
            saved.gateways.iter().map(|(url, label)| format!("{url}\t{label}")).collect();
        statement::query(
            "INSERT INTO cluster_infos (cluster, label, region, country, gateways, updated_at_ms) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (cluster) DO UPDATE SET label = excluded.label, \
             region = excluded.region, country = excluded.country, gateways = excluded.gateways, \
             updated_at_ms = excluded.updated_at_ms",
        )
        .bind(saved.cluster.as_str())
        .bind(&saved.label)
        .bind(&saved.region)
        .bind(&saved.country)
        .bind(gateways.join("\n"))
        .bind(self.now.as_ms())
        .execute(&mut *conn)
        .await?;
        let details = Details::default()
            .with("label", &saved.label)
            .with_some("region", saved.region.as_ref())
            .with_some("country", saved.country.as_ref())
            .with("gateways", saved.gateways.len());
        let event = operator_event(self.by, "cluster.save", saved.cluster.as_str()).with(details);
        self.journal.log(conn, &event, self.now).await
    }
}

struct DeleteClusterInfo {
    cluster: ClusterId,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for DeleteClusterInfo {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        let done = statement::query("DELETE FROM cluster_infos WHERE cluster = $1")
            .bind(self.cluster.as_str())
            .execute(&mut *conn)
            .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let event = operator_event(self.by, "cluster.reset", self.cluster.as_str());
        self.journal.log(conn, &event, self.now).await?;
        Ok(true)
    }
}

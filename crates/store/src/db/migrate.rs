//! The schema: creates it, and rejects a database that this build cannot use.

use sqlx::migrate::{MigrateError, Migrator};

use crate::StoreError;
use crate::db::write_queue::Conn;

/// The files of `migrations/`, which are compiled in.
static MIGRATOR: Migrator = sqlx::migrate!();

/// Migrates the schema to the latest version.
///
/// # Errors
/// [`StoreError::Incompatible`] if the database was created by another build or program. Nothing is changed then.
pub(crate) async fn run(conn: &mut Conn) -> Result<(), StoreError> {
    let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table'")
        .fetch_all(&mut *conn)
        .await?;
    if tables.iter().any(|table| table == "_sqlx_migrations") {
        check_first(conn).await?;
    } else if !tables.is_empty() {
        return Err(incompatible("it was not created by Pinfold; choose another data directory"));
    }
    MIGRATOR.run(conn).await.map_err(|error| {
        if matches!(error, MigrateError::VersionMissing(_)) {
            incompatible(NEWER_VERSION)
        } else if matches!(error, MigrateError::VersionMismatch(_)) {
            incompatible(EARLIER_BUILD)
        } else {
            StoreError::Failed(error.to_string())
        }
    })
}

const NEWER_VERSION: &str =
    "it was changed by a newer version; start that version, or restore a backup from before the upgrade";

const EARLIER_BUILD: &str = "it was created by a build from before the first release, whose schema is no longer \
     supported; start with an empty data directory and pin the content again";

/// Rejects a database whose first migration is not the one of this build.
async fn check_first(conn: &mut Conn) -> Result<(), StoreError> {
    let applied: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT checksum FROM _sqlx_migrations ORDER BY version LIMIT 1")
            .fetch_optional(conn)
            .await?;
    let first = MIGRATOR.iter().next();
    match (applied, first) {
        (Some(applied), Some(first)) if *applied != *first.checksum => Err(incompatible(EARLIER_BUILD)),
        _ => Ok(()),
    }
}

fn incompatible(why: &str) -> StoreError {
    StoreError::Incompatible(why.to_owned())
}

#[cfg(test)]
mod tests {
    use sqlx::{ConnectOptions, raw_sql};

    use super::*;
    use crate::Store;

    /// The reason for which a database with this content is rejected.
    async fn refusal(sql: &'static str, is_ours: bool) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pinfold.db");
        if is_ours {
            Store::open(&path).await.unwrap().close().await;
        }
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut conn = options.connect().await.unwrap();
        raw_sql(sql).execute(&mut conn).await.unwrap();
        match Store::open(&path).await.map(drop) {
            Err(StoreError::Incompatible(why)) => why,
            other => panic!("not rejected: {other:?}"),
        }
    }

    #[tokio::test]
    async fn database_of_a_newer_version_is_rejected() {
        let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                     VALUES (9999, 'later', 1, x'00', 0)";
        let why = refusal(later, true).await;
        assert!(why.contains("newer version"), "{why}");
    }

    #[tokio::test]
    async fn database_of_an_earlier_build_is_rejected() {
        // The first two of the migrations that builds before the first release applied.
        let earlier = "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
                       installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, \
                       checksum BLOB NOT NULL, execution_time BIGINT NOT NULL); \
                       INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                       VALUES (1, 'first', 1, x'0a', 0), (2, 'due', 1, x'0b', 0); \
                       CREATE TABLE accounts (id BIGINT NOT NULL PRIMARY KEY)";
        let why = refusal(earlier, false).await;
        assert!(why.contains("before the first release") && why.contains("empty data directory"), "{why}");
    }

    #[tokio::test]
    async fn database_of_another_program_is_rejected() {
        let why = refusal("CREATE TABLE notes (id BIGINT)", false).await;
        assert!(why.contains("not created by Pinfold"), "{why}");
    }
}

//! The one way in which statements reach the database.
//!
//! Each module writes its SQL through these functions. With the feature `postgres-tests` they record the text and the
//! place of each statement, so that a test can prepare all of them on PostgreSQL and can tell which ones never ran.
//! Statements that only one database knows (`BEGIN IMMEDIATE`, `VACUUM INTO`) stay within `db/`.

use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{FromRow, QueryBuilder, Sqlite};

/// A statement.
#[track_caller]
pub(crate) fn query(sql: &'static str) -> Query<'static, Sqlite, SqliteArguments> {
    record(sql);
    sqlx::query(sql)
}

/// A statement with a row type.
#[track_caller]
pub(crate) fn query_as<O>(sql: &'static str) -> QueryAs<'static, Sqlite, O, SqliteArguments>
where
    O: for<'r> FromRow<'r, SqliteRow>,
{
    record(sql);
    sqlx::query_as(sql)
}

/// A statement whose rows have one column.
#[track_caller]
pub(crate) fn query_scalar<O>(sql: &'static str) -> QueryScalar<'static, Sqlite, O, SqliteArguments>
where
    (O,): for<'r> FromRow<'r, SqliteRow>,
{
    record(sql);
    sqlx::query_scalar(sql)
}

/// One of several statements for the same purpose. All of them are recorded.
#[track_caller]
pub(crate) fn one_of(statements: &'static [&'static str], index: usize) -> &'static str {
    for sql in statements {
        record(sql);
    }
    statements[index]
}

/// A statement that was built.
#[track_caller]
pub(crate) fn build(builder: &mut QueryBuilder<Sqlite>) -> Query<'_, Sqlite, SqliteArguments> {
    record_built(builder);
    builder.build()
}

/// A statement with a row type that was built.
#[track_caller]
pub(crate) fn build_as<'q, O>(
    builder: &'q mut QueryBuilder<Sqlite>,
) -> QueryAs<'q, Sqlite, O, SqliteArguments>
where
    O: for<'r> FromRow<'r, SqliteRow>,
{
    record_built(builder);
    builder.build_query_as()
}

#[cfg(not(feature = "postgres-tests"))]
fn record(_sql: &str) {}

#[cfg(not(feature = "postgres-tests"))]
fn record_built(_builder: &QueryBuilder<Sqlite>) {}

#[cfg(feature = "postgres-tests")]
use recorder::{record, record_built};

#[cfg(feature = "postgres-tests")]
mod recorder {
    use std::collections::HashSet;
    use std::io::Write as _;
    use std::panic::Location;
    use std::sync::{Mutex, OnceLock};

    use sqlx::{QueryBuilder, Sqlite};

    /// Records what was built, with the placeholders that PostgreSQL has: `$1`, `$2`, … for each `?`.
    #[track_caller]
    pub(super) fn record_built(builder: &QueryBuilder<Sqlite>) {
        let mut sql = String::new();
        for (number, part) in builder.sql().as_str().split('?').enumerate() {
            if number > 0 {
                sql.push_str(&format!("${number}"));
            }
            sql.push_str(part);
        }
        record(&sql);
    }

    /// Writes place and text of a statement, once each, to the file that the test names. The fields end with the
    /// control characters for units (1F) and records (1E).
    #[track_caller]
    #[allow(clippy::disallowed_methods, reason = "the test that starts this process says where to write")]
    pub(super) fn record(sql: &str) {
        static FILE: OnceLock<Option<std::ffi::OsString>> = OnceLock::new();
        static SEEN: Mutex<Option<HashSet<String>>> = Mutex::new(None);
        let Some(path) = FILE.get_or_init(|| std::env::var_os("PINFOLD_RECORD_STATEMENTS")) else { return };
        let place = Location::caller();
        let record = format!("{}:{}:{}\u{1f}{sql}\u{1e}", place.file(), place.line(), place.column());
        let Ok(mut seen) = SEEN.lock() else { return };
        if seen.get_or_insert_with(HashSet::new).insert(record.clone()) {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            // Without the record, the test misses the statement and fails.
            let _ = file.and_then(|mut file| file.write_all(record.as_bytes()));
        }
    }
}

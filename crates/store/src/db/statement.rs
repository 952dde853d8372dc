//! Creates all SQL statements.
//!
//! Every module runs its SQL through these functions. With the feature `postgres-tests`, they record the text and source
//! location of each statement, so that a test can prepare all of them on PostgreSQL and can list those that never ran.
//! Only `db/` may use statements that are specific to one database (`BEGIN IMMEDIATE`, `VACUUM INTO`).

use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{FromRow, QueryBuilder, Sqlite};

/// A statement without a row type.
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

/// A statement from a query builder.
#[track_caller]
pub(crate) fn build(builder: &mut QueryBuilder<Sqlite>) -> Query<'_, Sqlite, SqliteArguments> {
    record_built(builder);
    builder.build()
}

/// A statement with a row type from a query builder.
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

    /// Records a statement from a query builder. Replaces each `?` with a PostgreSQL placeholder: `$1`, `$2`, ….
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

    /// Appends the source location and text of a statement to the file given by the test, once for each pair. The
    /// location ends with the unit separator (1F), the text with the record separator (1E).
    #[track_caller]
    #[allow(clippy::disallowed_methods, reason = "the test that starts this process sets the variable")]
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

//! Conversions between columns and types of the model, and lists of values in statements.

use std::str::FromStr;

use pinfold_model::Timestamp;
use sqlx::query_builder::Separated;
use sqlx::{QueryBuilder, Sqlite};

use crate::StoreError;

/// Parses a stored text form of a type of the model.
pub(crate) fn word<T: FromStr>(what: &'static str, value: &str) -> Result<T, StoreError> {
    value.parse().map_err(|_| unknown_value(what, value))
}

/// The error for a stored value that this version does not know.
pub(crate) fn unknown_value(what: &'static str, value: &str) -> StoreError {
    StoreError::Strange { what, value: value.chars().take(100).collect() }
}

/// Maximum number of rows in one statement. With all parameters of each row, the statement stays below the parameter
/// limit of every supported database.
pub(crate) const LIST_MAX: usize = 500;

/// Lengths of lists in statements. There are only a few, so that prepared statements are reused.
const LIST_LENGTHS: [usize; 4] = [1, 10, 100, LIST_MAX];

/// Appends `(…)` with these numbers, at most [`LIST_MAX`]. The last number is repeated until the list has one of
/// [`LIST_LENGTHS`].
pub(crate) fn push_list<'a>(
    query: &'a mut QueryBuilder<Sqlite>,
    numbers: &[i64],
) -> &'a mut QueryBuilder<Sqlite> {
    query.push("(");
    let mut list = query.separated(", ");
    let length = LIST_LENGTHS.into_iter().find(|length| *length >= numbers.len()).unwrap_or(LIST_MAX);
    let padding = numbers.last().into_iter().cycle();
    for number in numbers.iter().chain(padding).take(length) {
        list.push_bind(*number);
    }
    query.push(")")
}

/// Appends a number to a row of a VALUES list. Without the cast, PostgreSQL infers the type TEXT for a parameter there.
pub(crate) fn push_number(row: &mut Separated<'_, Sqlite, &'static str>, number: i64) {
    row.push("CAST(").push_bind_unseparated(number).push_unseparated(" AS BIGINT)");
}

/// The stored form of a count or size. Larger values are stored as `i64::MAX`.
pub(crate) fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Reads a stored count or size.
pub(crate) fn number(column: i64) -> u64 {
    u64::try_from(column).unwrap_or(0)
}

/// Reads a stored time that can be NULL.
pub(crate) fn time(column: Option<i64>) -> Option<Timestamp> {
    column.map(Timestamp::from_ms)
}

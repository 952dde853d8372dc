//! From columns to the model's types and back.

use std::str::FromStr;

use pinfold_model::Timestamp;
use sqlx::query_builder::Separated;
use sqlx::{QueryBuilder, Sqlite};

use crate::StoreError;

/// Reads a word that the model wrote.
pub(crate) fn word<T: FromStr>(what: &'static str, value: &str) -> Result<T, StoreError> {
    value.parse().map_err(|_| unknown_value(what, value))
}

/// A value that no version of this program wrote.
pub(crate) fn unknown_value(what: &'static str, value: &str) -> StoreError {
    StoreError::Strange { what, value: value.chars().take(100).collect() }
}

/// The most rows that one statement names: with all that is bound for each of them, below the bound of every database.
pub(crate) const LIST_MAX: usize = 500;

/// How long lists are in statements: few lengths, so that the statements are prepared once.
const LIST_LENGTHS: [usize; 4] = [1, 10, 100, LIST_MAX];

/// Adds `(…)` with these numbers, at most [`LIST_MAX`] of them; the last is said again until the list has one of few
/// lengths.
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

/// Adds a number to a row of a VALUES list. PostgreSQL takes a parameter there for TEXT unless it is told.
pub(crate) fn push_number(row: &mut Separated<'_, Sqlite, &'static str>, number: i64) {
    row.push("CAST(").push_bind_unseparated(number).push_unseparated(" AS BIGINT)");
}

/// A count or size, as it is stored. What is larger than any disk is stored as the largest.
pub(crate) fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A stored count or size.
pub(crate) fn number(column: i64) -> u64 {
    u64::try_from(column).unwrap_or(0)
}

/// A stored time that may be missing.
pub(crate) fn time(column: Option<i64>) -> Option<Timestamp> {
    column.map(Timestamp::from_ms)
}

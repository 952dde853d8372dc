//! The database connection, the write queue, and helpers for statements and rows.

pub(crate) mod commit_signal;
pub(crate) mod connection;
pub(crate) mod error;
mod migrate;
pub(crate) mod row;
mod snapshot;
pub(crate) mod statement;
pub(crate) mod write_queue;

//! Background work: what the service does without a request.
//!
//! [`runner`] runs every loop as a task and joins it at shutdown. A loop registers for its wake-up before it reads the rows,
//! so that no wake-up is lost, and takes no hints: the rows say what is due. Until then it waits for the next due row, so that
//! rows that wait cost nothing.

mod account_removal;
mod audit_retention;
mod dedup_usage;
mod expiry;
mod placement_worker;
pub(crate) mod repair;
pub(crate) mod runner;
mod session_expiry;
mod webhook_delivery;

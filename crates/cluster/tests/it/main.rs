//! The contract of clusters, run on every driver, and what is true of one driver alone.

#![allow(clippy::unwrap_used, reason = "a story that can't go on fails")]

mod contract;
mod embedded;
mod scripted;

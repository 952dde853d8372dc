//! The contract suite on every driver, and tests of single drivers.

#![allow(clippy::unwrap_used, reason = "a failed precondition fails the test")]

mod contract;
mod embedded;
mod scripted;

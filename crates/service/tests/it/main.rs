//! Stories of the service over a real database, a scripted cluster and a clock that stands still.

#![allow(clippy::unwrap_used, reason = "a story that can't go on fails")]

mod access;
mod admin;
mod batches;
mod cars;
mod dice;
mod disk;
mod endurance;
mod entries;
mod idempotency;
mod keys;
mod logins;
mod logs;
mod mend;
mod network;
mod pins;
mod quotas;
mod races;
mod rebuilt;
mod retention;
mod second_factor;
mod simulation;
mod timelocks;
mod uploads;
mod watch;
#[path = "../../../outbound/tests/support/webhook_receiver.rs"]
#[expect(dead_code, reason = "other suites use the rest")]
mod webhook_receiver;
mod webhooks;
mod world;

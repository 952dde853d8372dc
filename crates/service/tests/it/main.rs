//! Tests of the service with a real database, a scripted cluster and a manual clock.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod access;
mod admin;
mod audit_log;
mod batches;
mod cars;
mod concurrency;
mod disk;
mod endurance;
mod entries;
mod idempotency;
mod keys;
mod logins;
mod network;
mod pin_events;
mod pins;
mod quotas;
mod random;
mod repair;
mod retention;
mod reverification;
mod second_factor;
mod simulation;
mod timelocks;
mod uploads;
#[path = "../../../outbound/tests/support/webhook_receiver.rs"]
#[expect(dead_code, reason = "other suites use the rest")]
mod webhook_receiver;
mod webhooks;
mod world;

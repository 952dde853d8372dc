//! End-to-end tests: the built `pinfold` runs as a process on free ports, and real IPFS nodes fetch from it and serve
//! content to it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod accounts;
mod admin_socket;
mod backup;
mod car;
mod cli;
mod content;
mod crash;
mod crash_rounds;
mod disk_faults;
mod faulty_disk;
mod first_start;
mod idempotency;
mod large_dags;
mod pin_events;
mod pinning;
mod provider;
mod reference;
mod rejected;
mod repair;
mod server;
mod shutdown;
mod sources;
#[path = "../../../outbound/tests/support/webhook_receiver.rs"]
#[expect(dead_code, reason = "other suites use the rest")]
mod webhook_receiver;
mod webhooks;

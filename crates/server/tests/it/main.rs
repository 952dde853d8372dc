//! End to end: the built `pinfold`, run as a process of its own on free ports, and real IPFS nodes that it
//! fetches from and that fetch from it. Every story stands in the file that its subject names.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod account;
mod backup;
mod cars;
mod cli;
mod content;
mod crash;
mod disk;
mod faults;
mod flow;
mod follow;
mod hooks;
mod limit;
mod mend;
mod provider;
mod rounds;
mod server;
mod setup;
mod socket;
mod sources;
mod stop;
mod volume;

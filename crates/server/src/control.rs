//! How an operator's command reaches the store: over a Unix socket that a running server answers, or within
//! its own process when none runs.
//!
//! Both ways speak HTTP with one router ([`routes`]), so that a command does not see the difference:
//! [`listen`] answers the socket, [`link`] is the command's end of either way. It is no API for others: the
//! program on both ends is the same.

pub(crate) mod link;
pub(crate) mod listen;
pub(crate) mod routes;

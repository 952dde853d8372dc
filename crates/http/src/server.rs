//! Runs connections: accepts them within bounds, and ends them gracefully.

pub(crate) mod acceptor;

pub use acceptor::serve;

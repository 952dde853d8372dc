//! The API v3 as its clients see it: the real router over a real service, with a cluster that does what the
//! test says.

mod gate;
mod harness;
mod pin;
mod upload;
mod uploads;
mod wire;

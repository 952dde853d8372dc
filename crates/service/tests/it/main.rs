//! Stories of the service over a real database, a scripted cluster and a clock that stands still.

mod access;
mod pins;
mod races;
mod simulation;
mod uploads;
mod world;

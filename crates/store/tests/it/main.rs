//! Stories of the store over a real database in a temporary folder, and a clock that the story keeps.

#![allow(clippy::unwrap_used, reason = "a story that can't go on fails")]

mod audit;
mod batches;
mod books;
mod everyone;
mod hooks;
mod keys;
mod lists;
mod named;
mod offers;
mod operator;
mod referrals;
mod retention;
mod sessions;
mod sharing;
mod states;
mod together;
mod world;

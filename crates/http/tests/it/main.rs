//! The API v3 as its clients see it: the real router and service with a scripted cluster.

mod admin;
mod auth;
mod batch;
mod document;
mod entries;
mod errors;
mod events;
mod floods;
mod gate;
mod harness;
mod idempotency;
mod keys;
mod limits;
mod logs;
mod openapi;
mod parts;
mod pin;
mod plans;
mod reference;
mod security;
mod upload;
mod uploads;
mod webhooks;
mod wire;

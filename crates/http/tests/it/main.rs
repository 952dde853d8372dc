//! The API v3 as its clients see it: the real router over a real service, with scripted clusters.

mod admin;
mod auth;
mod batch;
mod credentials;
mod document;
mod entries;
mod errors;
mod events;
mod floods;
mod harness;
mod idempotency;
mod keys;
mod limits;
mod logs;
mod multipart;
mod openapi;
mod pin;
mod plans;
mod reference;
mod security;
mod upload;
mod uploads;
mod webhooks;
mod wire;

//! The API v3 as its clients see it: the real router and service with a scripted cluster.

mod admin;
mod audit_log;
mod auth;
mod authorization;
mod batch;
mod document;
mod entries;
mod errors;
mod events;
mod harness;
mod idempotency;
mod keys;
mod limits;
mod malformed_requests;
mod multipart;
mod openapi;
mod paths;
mod pin;
mod pin_list;
mod plans;
mod reference;
mod security;
mod uploads;
mod webhooks;

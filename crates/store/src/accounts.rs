//! Accounts and their credentials, sessions, preferences, referrals and quota.

pub(crate) mod account;
pub(crate) mod dedup_usage;
pub(crate) mod list;
pub(crate) mod login_challenge;
pub(crate) mod password;
pub(crate) mod preferences;
pub(crate) mod quota;
pub(crate) mod referrals;
pub(crate) mod removal;
pub(crate) mod second_factor;
pub(crate) mod sessions;
pub(crate) mod tokens;
pub(crate) mod update;

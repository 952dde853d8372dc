//! The account that calls: login, profile, second factor, plan, referrals, audit log.

pub(crate) mod auth;
pub(crate) mod logs;
pub(crate) mod me;
pub(crate) mod plans;
pub(crate) mod referrals;
pub(crate) mod second_factor;

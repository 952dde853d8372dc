//! Referrals: the code of an account, and the accounts that signed up with it.

use data_encoding::BASE32_NOPAD;
use pinfold_model::{AccountId, Referral};
use pinfold_store::Store;

use crate::error::log_store_error;
use crate::{Caller, Error};

/// Maximum referrals per page.
const LIMIT_MAX: u32 = 100;
/// Referrals that are counted, and that page numbers reach.
const COUNT_MAX: u32 = 10_000;
/// Random bytes of a code: eight characters, which people can type.
const CODE_BYTES: usize = 5;
/// Maximum length of a code that is looked up.
const CODE_LEN_MAX: usize = 32;
/// Attempts to find an unused code; with a million accounts a second one is needed once in a million.
const TRIES_MAX: u32 = 5;

/// The referrals of all accounts. Cheap to clone.
#[derive(Clone)]
pub struct Referrals {
    pub(crate) store: Store,
}

/// A page of referrals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferralPage {
    /// The account's referral code.
    pub code: String,
    /// Newest first.
    pub referrals: Vec<Referral>,
    /// Number of referrals; at most 10,000 are counted.
    pub total: u64,
}

impl Referrals {
    /// Returns the caller's code, which is created on first use, and a page of its referrals: pages from 1, with 1 to 100
    /// referrals.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list(&self, caller: &Caller, page: u32, limit: u32) -> Result<ReferralPage, Error> {
        let account = caller.account.id;
        let code = self.code(account).await?;
        let limit = limit.clamp(1, LIMIT_MAX);
        let skip = u64::from(page.max(1) - 1) * u64::from(limit);
        let wanted = if skip < u64::from(COUNT_MAX) { limit } else { 0 };
        let list = self.store.referrals(account, skip, wanted, COUNT_MAX);
        let list = list.await.map_err(log_store_error)?;
        Ok(ReferralPage { code, referrals: list.referrals, total: list.total })
    }

    async fn code(&self, account: AccountId) -> Result<String, Error> {
        for _ in 0..TRIES_MAX {
            let mut random = [0; CODE_BYTES];
            getrandom::fill(&mut random).map_err(|_| Error::Internal)?;
            let fresh = BASE32_NOPAD.encode(&random).to_ascii_lowercase();
            if let Some(code) = self.store.referral_code(account, fresh).await.map_err(log_store_error)? {
                return Ok(code);
            }
        }
        Err(Error::AccountNotFound)
    }

    /// Records that a new account signed up with this code. Returns `false` if no account has the code, if the account has a
    /// referrer already, or if it is its own code.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn accept(&self, account: AccountId, code: &str) -> Result<bool, Error> {
        let code = code.trim().to_ascii_lowercase();
        if code.is_empty() || code.len() > CODE_LEN_MAX {
            return Ok(false);
        }
        self.store.set_referrer(account, code).await.map_err(log_store_error)
    }
}

//! Referrals: the word under which an account brings others, and when they came.

use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use pinfold_model::AccountId;

use crate::core::{Core, unavailable};
use crate::{Caller, Error, Referral};

/// Referrals on one page.
const LIMIT_MAX: u32 = 100;
/// Referrals that are counted, and that pages reach.
const COUNT_MAX: u32 = 10_000;
/// Random bytes of a word: eight characters, which people can type.
const CODE_BYTES: usize = 5;
/// The longest word that is looked for.
const CODE_LEN_MAX: usize = 32;
/// How many words are tried until one is free; with a million accounts the second one is needed once in a million.
const TRIES_MAX: u32 = 5;

/// The referrals of all accounts. Cheap to clone.
#[derive(Clone)]
pub struct Referrals {
    pub(crate) core: Arc<Core>,
}

/// A page of referrals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferralPage {
    /// The account's word.
    pub code: String,
    /// Who came by it, newest first.
    pub referrals: Vec<Referral>,
    /// How many came; of more than 10,000 only those are counted.
    pub total: u64,
}

impl Referrals {
    /// The caller's word, made when it is first asked for, and who came by it: pages from 1, of 1 to 100.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list(&self, caller: &Caller, page: u32, limit: u32) -> Result<ReferralPage, Error> {
        let account = caller.account.id;
        let code = self.code(account).await?;
        let limit = limit.clamp(1, LIMIT_MAX);
        let skip = u64::from(page.max(1) - 1) * u64::from(limit);
        let wanted = if skip < u64::from(COUNT_MAX) { limit } else { 0 };
        let list = self.core.store.referrals(account, skip, wanted, COUNT_MAX);
        let list = list.await.map_err(unavailable)?;
        Ok(ReferralPage { code, referrals: list.referrals, total: list.total })
    }

    async fn code(&self, account: AccountId) -> Result<String, Error> {
        for _ in 0..TRIES_MAX {
            let mut random = [0; CODE_BYTES];
            getrandom::fill(&mut random).map_err(|_| Error::Internal)?;
            let fresh = BASE32_NOPAD.encode(&random).to_ascii_lowercase();
            if let Some(code) = self.core.store.referral_code(account, fresh).await.map_err(unavailable)? {
                return Ok(code);
            }
        }
        Err(Error::AccountNotFound)
    }

    /// Notes that a new account came by this word. False if nobody has it, which is no reason to turn anyone away; an
    /// account comes once, and not by its own word.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn accept(&self, account: AccountId, code: &str) -> Result<bool, Error> {
        let code = code.trim().to_ascii_lowercase();
        if code.is_empty() || code.len() > CODE_LEN_MAX {
            return Ok(false);
        }
        self.core.store.set_referrer(account, code).await.map_err(unavailable)
    }
}

//! Listing of accounts for operators, newest first.
//!
//! A page examines at most [`WINDOW`] rows, so that its cost is bounded for every filter. A page with fewer matches than
//! requested can therefore still have a next page.

use std::collections::HashMap;

use pinfold_model::{Account, AccountId, Email, PlanCode, Role, Timestamp};
use sqlx::FromRow;

use crate::accounts::account::{AccountRow, select};
use crate::db::row::{number, time, unknown_value};
use crate::db::statement;
use crate::pins::list::pattern;
use crate::{Store, StoreError};

/// Maximum number of rows that a page examines.
pub(crate) const WINDOW: i64 = 10_000;

/// Selects accounts. `None` matches every account.
#[derive(Debug, Clone, Default)]
pub struct AccountFilter {
    /// Substring of the e-mail address or the name. Case-insensitive for ASCII letters.
    pub search: Option<String>,
    pub plan: Option<PlanCode>,
    pub role: Option<Role>,
    pub disabled: Option<bool>,
}

/// An account with the fields that only operators see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRecord {
    pub account: Account,
    /// Storage limit of the account that overrides the one of its plan.
    pub storage_override_bytes: Option<u64>,
    /// When its removal was requested; `None` if it is not being removed.
    pub removing_since: Option<Timestamp>,
}

/// A page of accounts.
#[derive(Debug, Clone)]
pub struct AccountList {
    pub accounts: Vec<AccountRecord>,
    /// `before` of the next page; `None` on the last page.
    pub next: Option<AccountId>,
}

#[derive(Debug, FromRow)]
struct RecordRow {
    #[sqlx(flatten)]
    account: AccountRow,
    storage_override_bytes: Option<i64>,
    removing_since_ms: Option<i64>,
}

impl RecordRow {
    fn into_record(self) -> Result<AccountRecord, StoreError> {
        Ok(AccountRecord {
            account: self.account.into_account()?,
            storage_override_bytes: self.storage_override_bytes.map(number),
            removing_since: time(self.removing_since_ms),
        })
    }
}

/// A query for each index that a list can use: admins, disabled accounts, accounts of a plan, all accounts. `$1` is the
/// plan.
macro_rules! per_index {
    ($select:expr, $tail:expr) => {
        [
            concat!($select, " WHERE role = 'admin' AND ", $tail),
            concat!($select, " WHERE disabled = 1 AND ", $tail),
            concat!($select, " WHERE plan = $1 AND ", $tail),
            concat!($select, " WHERE ", $tail),
        ]
    };
}

/// The last row that a page examines. `$2` is the id before which the page begins.
pub(crate) const ENDS: [&str; 4] = per_index!(
    "SELECT id FROM accounts",
    "id < $2 AND (CAST($1 AS TEXT) IS NULL OR id IS NOT NULL) ORDER BY id DESC LIMIT 1 OFFSET $3"
);

/// The matching rows of a page, down to the id `$3`.
pub(crate) const PAGES: [&str; 4] = per_index!(
    select!(", storage_override_bytes, removing_since_ms", ""),
    "id < $2 AND id >= $3 AND (CAST($1 AS TEXT) IS NULL OR plan = $1) \
     AND (CAST($4 AS TEXT) IS NULL OR role = $4) AND (CAST($5 AS BIGINT) IS NULL OR disabled = $5) \
     AND (CAST($6 AS TEXT) IS NULL OR LOWER(email) LIKE $6 ESCAPE '!' OR LOWER(name) LIKE $6 ESCAPE '!') \
     ORDER BY id DESC LIMIT $7"
);

impl AccountFilter {
    /// The index with the fewest rows to examine for this filter.
    fn index(&self) -> usize {
        match self {
            Self { role: Some(Role::Admin), .. } => 0,
            Self { disabled: Some(true), .. } => 1,
            Self { plan: Some(_), .. } => 2,
            Self { .. } => 3,
        }
    }
}

impl Store {
    /// Up to `limit` matching accounts created before `before`, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_accounts(
        &self,
        filter: &AccountFilter,
        before: Option<AccountId>,
        limit: u32,
    ) -> Result<AccountList, StoreError> {
        let (index, plan) = (filter.index(), filter.plan.as_ref().map(PlanCode::as_str));
        let before = before.map_or(i64::MAX, |id| id.0);
        let end: Option<i64> = statement::query_scalar(statement::one_of(&ENDS, index))
            .bind(plan)
            .bind(before)
            .bind(WINDOW - 1)
            .fetch_optional(&self.readers)
            .await?;
        let rows: Vec<RecordRow> = statement::query_as(statement::one_of(&PAGES, index))
            .bind(plan)
            .bind(before)
            .bind(end.unwrap_or(i64::MIN))
            .bind(filter.role.map(Role::as_str))
            .bind(filter.disabled.map(i64::from))
            .bind(filter.search.as_deref().map(pattern))
            .bind(i64::from(limit) + 1)
            .fetch_all(&self.readers)
            .await?;
        let mut accounts = rows.into_iter().map(RecordRow::into_record).collect::<Result<Vec<_>, _>>()?;
        let has_more = accounts.len() > limit as usize;
        accounts.truncate(limit as usize);
        let last = accounts.last().map(|record| record.account.id);
        let next = if has_more { last } else { end.map(AccountId) };
        Ok(AccountList { accounts, next })
    }

    /// The account with this id, with the fields that only operators see.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn account_record(&self, id: AccountId) -> Result<Option<AccountRecord>, StoreError> {
        let query = statement::query_as::<RecordRow>(select!(
            ", storage_override_bytes, removing_since_ms",
            "WHERE id = $1"
        ));
        let row = query.bind(id.0).fetch_optional(&self.readers).await?;
        row.map(RecordRow::into_record).transpose()
    }

    /// E-mail addresses of these accounts. Accounts that do not exist are left out. Runs one query for each id, so it is
    /// meant for at most a page of ids.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn emails(&self, ids: &[AccountId]) -> Result<HashMap<AccountId, Email>, StoreError> {
        let mut emails = HashMap::new();
        for id in ids {
            if emails.contains_key(id) {
                continue;
            }
            let email: Option<String> = statement::query_scalar("SELECT email FROM accounts WHERE id = $1")
                .bind(id.0)
                .fetch_optional(&self.readers)
                .await?;
            if let Some(text) = email {
                emails.insert(*id, Email::parse(&text).map_err(|_| unknown_value("e-mail", &text))?);
            }
        }
        Ok(emails)
    }
}

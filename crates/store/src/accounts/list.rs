//! Lists of accounts for operators, newest first.
//!
//! A page looks at a bounded number of rows, so that it costs the same whatever is asked for: one that finds less than
//! it may says where to go on all the same.

use std::collections::HashMap;

use pinfold_model::{Account, AccountId, Email, PlanCode, Role, Timestamp};
use sqlx::FromRow;

use crate::accounts::account::{AccountRow, select};
use crate::db::row::{number, time, unknown_value};
use crate::db::statement;
use crate::pins::list::pattern;
use crate::{Store, StoreError};

/// Rows that one page looks at.
pub(crate) const WINDOW: i64 = 10_000;

/// Which accounts.
#[derive(Debug, Clone, Default)]
pub struct AccountFilter {
    /// With this text in the address or the name, in any case (of ASCII letters).
    pub search: Option<String>,
    /// With this plan.
    pub plan: Option<PlanCode>,
    /// With this role.
    pub role: Option<Role>,
    /// Disabled, or not.
    pub disabled: Option<bool>,
}

/// An account, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRecord {
    /// The account.
    pub account: Account,
    /// Its own storage, whatever its plan says.
    pub storage_override_bytes: Option<u64>,
    /// When it was told to go, if it was.
    pub removing_since: Option<Timestamp>,
}

/// A page.
#[derive(Debug, Clone)]
pub struct AccountList {
    /// The accounts.
    pub accounts: Vec<AccountRecord>,
    /// After which account the next page begins; `None` on the last.
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

/// The same query for each of the indices that a list can go by: admins, the disabled, a plan, all. `$1` is the plan.
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

/// The last row that a page looks at; `$2` is where it begins.
pub(crate) const ENDS: [&str; 4] = per_index!(
    "SELECT id FROM accounts",
    "id < $2 AND (CAST($1 AS TEXT) IS NULL OR id IS NOT NULL) ORDER BY id DESC LIMIT 1 OFFSET $3"
);

/// The page itself, down to `$3`.
pub(crate) const PAGES: [&str; 4] = per_index!(
    select!(", storage_override_bytes, removing_since_ms", ""),
    "id < $2 AND id >= $3 AND (CAST($1 AS TEXT) IS NULL OR plan = $1) \
     AND (CAST($4 AS TEXT) IS NULL OR role = $4) AND (CAST($5 AS BIGINT) IS NULL OR disabled = $5) \
     AND (CAST($6 AS TEXT) IS NULL OR LOWER(email) LIKE $6 ESCAPE '!' OR LOWER(name) LIKE $6 ESCAPE '!') \
     ORDER BY id DESC LIMIT $7"
);

impl AccountFilter {
    /// The index that leaves the fewest rows to look at.
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
    /// Up to `limit` accounts that match, newest first, older than `before`.
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

    /// The account with this id, as an operator sees it.
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

    /// The addresses of accounts, as far as they are there. For some dozens of them.
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

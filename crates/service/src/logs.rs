//! The audit log, as its owner reads it.

use std::sync::Arc;

use pinfold_model::{AccountId, AuditCursor, Timestamp};
use pinfold_store::{AuditEvent, AuditFilter};

use crate::core::{Core, unavailable};
use crate::{AuditEntry, Caller, Error};

/// Entries on one page.
const LIMIT_MAX: u32 = 100;
/// Entries that are counted, and that pages reach; a cursor goes on behind them. Counting costs what it counts.
const COUNT_MAX: u32 = 10_000;
/// The longest name of an action, in bytes; ours have half of it.
const ACTION_LEN_MAX: usize = 64;

/// The audit log. Cheap to clone.
#[derive(Clone)]
pub struct Logs {
    pub(crate) core: Arc<Core>,
}

/// Which entries to list, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// The page, from 1. Ignored when there is a cursor.
    pub page: u32,
    /// Entries on a page, 1 to 100; others are moved to the nearer end.
    pub limit: u32,
    /// Where to go on; a page costs the same wherever it is.
    pub cursor: Option<AuditCursor>,
    /// Only entries of this action, such as `pin.create`; at most 64 bytes.
    pub action: Option<String>,
    /// Only entries of this time and later.
    pub from: Option<Timestamp>,
    /// Only entries before this time.
    pub to: Option<Timestamp>,
}

impl Default for LogQuery {
    fn default() -> Self {
        Self { page: 1, limit: 20, cursor: None, action: None, from: None, to: None }
    }
}

/// A page of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    /// The entries.
    pub entries: Vec<AuditEntry>,
    /// How many entries match, on all pages; of more than 10,000 only those are counted.
    pub total: u64,
    /// Whether there may be more than were counted.
    pub has_uncounted: bool,
    /// Where the next page begins; `None` on the last.
    pub next_cursor: Option<AuditCursor>,
}

impl Logs {
    /// The caller's log: what was done by it, or to it.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list(&self, caller: &Caller, query: LogQuery) -> Result<LogPage, Error> {
        self.of(Some(caller.account.id), None, query).await
    }

    /// The log of an account, or (`None`) of all and of what concerns none; of all acts, or of those that `actor` did:
    /// for administrators.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn of(
        &self,
        account: Option<AccountId>,
        actor: Option<AccountId>,
        query: LogQuery,
    ) -> Result<LogPage, Error> {
        if query.action.as_ref().is_some_and(|action| action.len() > ACTION_LEN_MAX) {
            return Err(Error::InvalidRequest(format!("An action has at most {ACTION_LEN_MAX} bytes")));
        }
        let filter = AuditFilter { account, actor, action: query.action, from: query.from, to: query.to };
        let limit = query.limit.clamp(1, LIMIT_MAX);
        let skip = match query.cursor {
            Some(_) => 0,
            None => u64::from(query.page.max(1) - 1) * u64::from(limit),
        };
        // One more than asked for says whether there is a next page.
        let wanted = if skip < u64::from(COUNT_MAX) { limit + 1 } else { 0 };
        let list = self.core.store.list_audit(&filter, query.cursor, skip, wanted, COUNT_MAX);
        let mut list = list.await.map_err(unavailable)?;
        let has_more = list.entries.len() > limit as usize;
        list.entries.truncate(limit as usize);
        let next_cursor = list.entries.last().filter(|_| has_more).map(AuditEntry::cursor);
        let has_uncounted = list.total >= u64::from(COUNT_MAX);
        Ok(LogPage { entries: list.entries, total: list.total, has_uncounted, next_cursor })
    }
}

impl Logs {
    /// Writes an entry about what changes nothing else here, such as a login that was refused.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn write(&self, act: AuditEvent) -> Result<(), Error> {
        self.core.log(act).await
    }
}

impl Core {
    /// Writes an entry about what changes nothing else, such as a login.
    pub(crate) async fn log(&self, act: AuditEvent) -> Result<(), Error> {
        self.store.record_audit_event(act, self.clock.now()).await.map_err(unavailable)
    }
}

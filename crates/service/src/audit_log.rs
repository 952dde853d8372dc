//! The audit log: listing, and entries about events that change no other row.
//!
//! An event that changes rows is recorded by the store in the transaction that changes them.

use std::sync::Arc;

use pinfold_model::{AccountId, AuditCursor, AuditEntry, AuditEvent, Clock, Timestamp};
use pinfold_store::{AuditFilter, Store};
use tokio::sync::Semaphore;

use crate::error::log_store_error;
use crate::tasks::Tasks;
use crate::{Caller, Error};

/// Maximum entries per page.
const LIMIT_MAX: u32 = 100;
/// Entries that are counted, and that page numbers reach; a cursor goes further. The cost of counting grows with the
/// number of entries.
const COUNT_MAX: u32 = 10_000;
/// Maximum length of an action's name in bytes; the longest in use has half of it.
const ACTION_LEN_MAX: usize = 64;
/// Entries that wait to be written in the background; more are logged instead.
const DEFERRED_MAX: usize = 64;

/// The audit log. Cheap to clone.
#[derive(Clone)]
pub struct AuditLog {
    store: Store,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    deferred: Arc<Semaphore>,
}

/// Which entries to list, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// Page number from 1. Ignored if there is a cursor.
    pub page: u32,
    /// Entries per page; clamped to 1 to 100.
    pub limit: u32,
    /// Where to continue. A page costs the same wherever it is.
    pub cursor: Option<AuditCursor>,
    /// Only entries with this action, such as `pin.create`; at most 64 bytes.
    pub action: Option<String>,
    /// Only entries at or after this time.
    pub from: Option<Timestamp>,
    /// Only entries before this time.
    pub to: Option<Timestamp>,
}

impl Default for LogQuery {
    fn default() -> Self {
        Self { page: 1, limit: 20, cursor: None, action: None, from: None, to: None }
    }
}

/// A page of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    pub entries: Vec<AuditEntry>,
    /// Number of matching entries on all pages; at most 10,000 are counted.
    pub total: u64,
    /// Whether more entries may match than were counted.
    pub has_uncounted: bool,
    /// Where the next page begins; `None` on the last page.
    pub next_cursor: Option<AuditCursor>,
}

impl AuditLog {
    pub(crate) fn new(store: Store, clock: Arc<dyn Clock>, tasks: Tasks) -> Self {
        Self { store, clock, tasks, deferred: Arc::new(Semaphore::new(DEFERRED_MAX)) }
    }

    /// Lists the log of the caller's account: what it did, and what was done to it.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list(&self, caller: &Caller, query: LogQuery) -> Result<LogPage, Error> {
        self.list_all(Some(caller.account.id), None, query).await
    }

    /// Lists the log of one account, or of all accounts if `account` is `None`; optionally only events by `actor`. For
    /// administrators.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn list_all(
        &self,
        account: Option<AccountId>,
        actor: Option<AccountId>,
        query: LogQuery,
    ) -> Result<LogPage, Error> {
        if query.action.as_ref().is_some_and(|action| action.len() > ACTION_LEN_MAX) {
            let text = format!("`action` must have at most {ACTION_LEN_MAX} bytes");
            return Err(Error::InvalidRequest(text));
        }
        let filter = AuditFilter { account, actor, action: query.action, from: query.from, to: query.to };
        let limit = query.limit.clamp(1, LIMIT_MAX);
        let skip = match query.cursor {
            Some(_) => 0,
            None => u64::from(query.page.max(1) - 1) * u64::from(limit),
        };
        // One more entry than requested shows whether there is a next page.
        let wanted = if skip < u64::from(COUNT_MAX) { limit + 1 } else { 0 };
        let list = self.store.list_audit(&filter, query.cursor, skip, wanted, COUNT_MAX);
        let mut list = list.await.map_err(log_store_error)?;
        let has_more = list.entries.len() > limit as usize;
        list.entries.truncate(limit as usize);
        let next_cursor = list.entries.last().filter(|_| has_more).map(AuditEntry::cursor);
        let has_uncounted = list.total >= u64::from(COUNT_MAX);
        Ok(LogPage { entries: list.entries, total: list.total, has_uncounted, next_cursor })
    }

    /// Records an event that changes no other row, such as a refused login.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn record(&self, event: AuditEvent) -> Result<(), Error> {
        self.store.record_audit_event(event, self.clock.now()).await.map_err(log_store_error)
    }

    /// Records an event in the background, so that the response time does not depend on the write. If too many events
    /// are waiting, the event is only logged.
    pub(crate) fn record_later(&self, event: AuditEvent) {
        let Ok(permit) = Arc::clone(&self.deferred).try_acquire_owned() else {
            tracing::warn!(?event, "audit event not recorded: too many are waiting");
            return;
        };
        let (store, now) = (self.store.clone(), self.clock.now());
        self.tasks.spawn(async move {
            if let Err(error) = store.record_audit_event(event, now).await {
                tracing::warn!(%error, "failed to record audit event");
            }
            drop(permit);
        });
    }
}

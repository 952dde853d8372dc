//! The audit log: which account did what, when, and from which address.
//!
//! A write that changes data adds its entry in the same transaction ([`Journal`]). The entry exists exactly if the
//! change does, and costs no sync of its own. Events without a change, such as a refused login, are recorded by
//! [`Store::record_audit_event`].
//!
//! Lists are newest first; every page is a range of an index. Totals are counted up to a bound. Entries older than the
//! operator's retention time are deleted in small steps.

use std::borrow::Borrow;
use std::net::IpAddr;
use std::sync::Arc;

use pinfold_model::{
    AccountId, Actor, AuditCursor, AuditEntry, AuditEvent, AuditId, AuditStatus, Details, Failure, IdSource,
    PlacementId, Source, Timestamp,
};
use sqlx::{FromRow, QueryBuilder};

use crate::db::row::{LIST_MAX, number, push_number, unknown_value, word};
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::{PlacementRecord, Store, StoreError};

/// An action of an operator, for the operator's own log.
pub(crate) fn operator_event(by: Actor, action: &'static str, subject: &str) -> AuditEvent {
    AuditEvent {
        account: by.actor,
        by,
        action,
        subject: subject.to_owned(),
        status: AuditStatus::Done,
        details: Details::default(),
    }
}

/// Selects entries by all of the given conditions.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// The account whose log is read. `None` for all logs.
    pub account: Option<AccountId>,
    /// The account that acted.
    pub actor: Option<AccountId>,
    pub action: Option<String>,
    /// Inclusive.
    pub from: Option<Timestamp>,
    /// Exclusive.
    pub to: Option<Timestamp>,
}

/// A page of a log.
#[derive(Debug, Clone)]
pub struct AuditList {
    /// Newest first.
    pub entries: Vec<AuditEntry>,
    /// The number of entries that match, up to the bound of the request.
    pub total: u64,
}

/// Adds entries, in the transaction of the change that they record. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Journal {
    ids: Arc<IdSource>,
}

impl Journal {
    pub(crate) fn new(ids: Arc<IdSource>) -> Self {
        Self { ids }
    }

    /// Adds an entry.
    pub(crate) async fn log(
        &self,
        conn: &mut Conn,
        event: &AuditEvent,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.log_all(conn, &[(event, now)]).await
    }

    /// Adds entries, at most [`LIST_MAX`] of them.
    pub(crate) async fn log_all(
        &self,
        conn: &mut Conn,
        events: &[(impl Borrow<AuditEvent>, Timestamp)],
    ) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut query = QueryBuilder::new(
            "INSERT INTO audit_log (id, account_id, actor_id, at_ms, source, address, action, subject, status, details) ",
        );
        query.push_values(events, |mut row, (event, now)| {
            let event: &AuditEvent = event.borrow();
            row.push_bind(self.ids.next(*now))
                .push_bind(event.account.map(|account| account.0))
                .push_bind(event.by.actor.map(|actor| actor.0))
                .push_bind(now.as_ms())
                .push_bind(event.by.source.as_str())
                .push_bind(event.by.address.map(|address| address.to_string()))
                .push_bind(event.action)
                .push_bind(event.stored_subject().to_owned())
                .push_bind(event.status.as_str())
                .push_bind(event.details.to_json());
        });
        // Only frequent statements are cached.
        statement::build(&mut query).persistent(events.len() == 1).execute(conn).await?;
        Ok(())
    }

    /// Adds an entry about the pin of an account in a placement. Its subject is the CID.
    pub(crate) async fn log_pin(
        &self,
        conn: &mut Conn,
        event: (&'static str, Actor),
        account: i64,
        placement: PlacementId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.log_pins(conn, event, &[(account, placement.0)], now).await
    }

    /// Adds an entry for each of these pins, given as account and placement, at most [`LIST_MAX`] of them. The subjects
    /// are the CIDs.
    pub(crate) async fn log_pins(
        &self,
        conn: &mut Conn,
        (action, by): (&'static str, Actor),
        pins: &[(i64, i64)],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if pins.is_empty() {
            return Ok(());
        }
        let mut query = QueryBuilder::new(
            "INSERT INTO audit_log (account_id, actor_id, at_ms, source, address, action, subject, status, details, id) ",
        );
        let address = by.address.map(|address| address.to_string());
        // Cluster ids contain no characters that JSON escapes.
        query.push("SELECT v.column1, CAST(").push_bind(by.actor.map(|actor| actor.0));
        query.push(" AS BIGINT), CAST(").push_bind(now.as_ms()).push(" AS BIGINT), ");
        query.push_bind(by.source.as_str()).push(", ").push_bind(address).push(", ").push_bind(action);
        query.push(", p.cid, 'success', '{\"cluster\":\"' || p.cluster || '\"}', v.column3 FROM (");
        query.push_values(pins, |mut row, (account, placement)| {
            for number in [*account, *placement, self.ids.next(now)] {
                push_number(&mut row, number);
            }
        });
        query.push(") AS v JOIN placements p ON p.id = v.column2");
        // Only frequent statements are cached.
        statement::build(&mut query)
            .persistent(pins.len() == 1 || pins.len() == LIST_MAX)
            .execute(conn)
            .await?;
        Ok(())
    }

    /// Adds an entry for each of these accounts whose pin of the placement has failed.
    pub(crate) async fn log_failed(
        &self,
        conn: &mut Conn,
        placement: &PlacementRecord,
        accounts: &[i64],
        failure: &Failure,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let details = Details::default()
            .with("cluster", &placement.cluster)
            .with("code", failure.code)
            .with("reason", &failure.detail);
        for accounts in accounts.chunks(LIST_MAX) {
            let event = |account: &i64| {
                let event = AuditEvent::new(
                    AccountId(*account),
                    Actor::SYSTEM,
                    "pin.fail",
                    placement.cid.to_string(),
                );
                (event.with(details.clone()).refused(), now)
            };
            self.log_all(conn, &accounts.iter().map(event).collect::<Vec<_>>()).await?;
        }
        Ok(())
    }
}

#[derive(Debug, FromRow)]
struct AuditRow {
    id: i64,
    account_id: Option<i64>,
    actor_id: Option<i64>,
    at_ms: i64,
    source: String,
    address: Option<String>,
    action: String,
    subject: String,
    status: String,
    details: Option<String>,
}

impl AuditRow {
    fn into_entry(self) -> Result<AuditEntry, StoreError> {
        let address =
            self.address.map(|text| text.parse::<IpAddr>().map_err(|_| unknown_value("address", &text)));
        Ok(AuditEntry {
            id: AuditId(self.id),
            account: self.account_id.map(AccountId),
            by: Actor {
                actor: self.actor_id.map(AccountId),
                source: word::<Source>("source", &self.source)?,
                address: address.transpose()?,
            },
            at: Timestamp::from_ms(self.at_ms),
            action: self.action,
            subject: self.subject,
            status: word("status", &self.status)?,
            details: self.details,
        })
    }
}

/// A query for each index. `$1` is the account, `$2` the action, `$3` the earliest time, `$4` and `$5` the exclusive
/// end, `$6` the account that acted.
macro_rules! per_index {
    ($select:literal, $tail:literal) => {
        [
            per_index!(@one $select, "account_id = $1 AND CAST($6 AS BIGINT) IS NULL", $tail),
            per_index!(@one $select, "CAST($1 AS BIGINT) IS NULL AND CAST($6 AS BIGINT) IS NULL", $tail),
            per_index!(@one $select, "(CAST($1 AS BIGINT) IS NULL OR account_id = $1) AND actor_id = $6", $tail),
        ]
    };
    (@one $select:literal, $which:literal, $tail:literal) => {
        concat!(
            $select, $which, " AND (CAST($2 AS TEXT) IS NULL OR action = $2)",
            " AND at_ms >= $3 AND at_ms <= $4 AND (at_ms < $4 OR id < $5) ", $tail
        )
    };
}

/// Lists by account, of all entries, and by the account that acted.
pub(crate) const LISTS: [&str; 3] = per_index!(
    "SELECT id, account_id, actor_id, at_ms, source, address, action, subject, status, details FROM audit_log WHERE ",
    "ORDER BY at_ms DESC, id DESC LIMIT $7 OFFSET $8"
);

/// Totals of the same lists.
pub(crate) const COUNTS: [&str; 3] =
    per_index!("SELECT COUNT(*) FROM (SELECT 1 FROM audit_log WHERE ", "LIMIT $7) counted");

/// Deletes the oldest entries from before a time.
pub(crate) const DELETE_OLD: &str = "DELETE FROM audit_log WHERE id IN \
    (SELECT id FROM audit_log WHERE at_ms < $1 ORDER BY at_ms, id LIMIT $2)";

impl AuditFilter {
    fn index(&self) -> usize {
        match (self.actor, self.account) {
            (None, Some(_)) => 0,
            (None, None) => 1,
            (Some(_), _) => 2,
        }
    }

    /// The exclusive end of a page: the cursor or `to`, whichever is earlier.
    fn end(&self, before: Option<AuditCursor>) -> (i64, i64) {
        let to = self.to.map_or(i64::MAX, Timestamp::as_ms);
        let before = before.map_or((i64::MAX, i64::MAX), |cursor| (cursor.at.as_ms(), cursor.id.0));
        before.min((to, i64::MIN))
    }
}

impl Store {
    /// The journal of this store.
    pub(crate) fn journal(&self) -> Journal {
        Journal::new(Arc::clone(&self.ids))
    }

    /// Adds an entry that belongs to no other write.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_audit_event(&self, event: AuditEvent, now: Timestamp) -> Result<(), StoreError> {
        self.write(Log { event, now, journal: self.journal() }).await
    }

    /// Up to `limit` entries that match and are older than `before`, newest first, without the first `skip`. The total
    /// counts at most `count_max` entries.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_audit(
        &self,
        filter: &AuditFilter,
        before: Option<AuditCursor>,
        skip: u64,
        limit: u32,
        count_max: u32,
    ) -> Result<AuditList, StoreError> {
        let index = filter.index();
        // A search for an action may scan the whole log.
        let readers = if filter.action.is_some() { &self.searchers } else { &self.readers };
        let from = filter.from.map_or(i64::MIN, Timestamp::as_ms);
        let (end_at, end_id) = filter.end(before);
        let rows: Vec<AuditRow> = statement::query_as(statement::one_of(&LISTS, index))
            .bind(filter.account.map(|account| account.0))
            .bind(&filter.action)
            .bind(from)
            .bind(end_at)
            .bind(end_id)
            .bind(filter.actor.map(|actor| actor.0))
            .bind(i64::from(limit))
            .bind(crate::db::row::column(skip))
            .fetch_all(readers)
            .await?;
        let (all_at, all_id) = filter.end(None);
        let total: i64 = statement::query_scalar(statement::one_of(&COUNTS, index))
            .bind(filter.account.map(|account| account.0))
            .bind(&filter.action)
            .bind(from)
            .bind(all_at)
            .bind(all_id)
            .bind(filter.actor.map(|actor| actor.0))
            .bind(i64::from(count_max))
            .fetch_one(readers)
            .await?;
        let entries = rows.into_iter().map(AuditRow::into_entry).collect::<Result<_, _>>()?;
        Ok(AuditList { entries, total: number(total) })
    }

    /// Deletes up to `limit` of the oldest entries from before `before`. Returns their number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_old_audit_entries(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.write(DeleteOld { before, limit }).await
    }
}

struct Log {
    event: AuditEvent,
    now: Timestamp,
    journal: Journal,
}

impl Write for Log {
    type Out = ();

    async fn run(&self, conn: &mut Conn) -> Result<(), StoreError> {
        self.journal.log(conn, &self.event, self.now).await
    }
}

struct DeleteOld {
    before: Timestamp,
    limit: u32,
}

impl Write for DeleteOld {
    type Out = u64;

    async fn run(&self, conn: &mut Conn) -> Result<u64, StoreError> {
        let done = statement::query(DELETE_OLD)
            .bind(self.before.as_ms())
            .bind(i64::from(self.limit))
            .execute(conn)
            .await?;
        Ok(done.rows_affected())
    }
}

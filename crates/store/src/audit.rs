//! The audit log: who did what, from where, kept with the change itself.
//!
//! Whoever changes something writes the entry in the same transaction ([`Journal`]), so that it costs no sync of
//! its own and is there exactly when the change is. What changes nothing else, such as a login that was refused,
//! is written by [`Store::log`].
//!
//! A log is read newest first, a range of an index wherever a page begins. Its total is counted up to a bound. What
//! is older than the operator wants is swept in small steps.

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

/// Something that an operator did, for the operator's own log.
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

/// Which entries.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Of this account's log; `None` for all there is.
    pub account: Option<AccountId>,
    /// Done by this account.
    pub actor: Option<AccountId>,
    /// Of this action.
    pub action: Option<String>,
    /// Not before this.
    pub from: Option<Timestamp>,
    /// Before this.
    pub to: Option<Timestamp>,
}

/// A page of a log.
#[derive(Debug, Clone)]
pub struct AuditList {
    /// The entries, newest first.
    pub entries: Vec<AuditEntry>,
    /// How many match altogether, at most as many as were to be counted.
    pub total: u64,
}

/// Writes entries, in the transaction of the change that they tell of. Cheap to clone.
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
        act: &AuditEvent,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.log_all(conn, &[(act, now)]).await
    }

    /// Adds entries, at most [`LIST_MAX`] of them.
    pub(crate) async fn log_all(
        &self,
        conn: &mut Conn,
        acts: &[(impl Borrow<AuditEvent>, Timestamp)],
    ) -> Result<(), StoreError> {
        if acts.is_empty() {
            return Ok(());
        }
        let mut query = QueryBuilder::new(
            "INSERT INTO audit_log (id, account_id, actor_id, at_ms, source, address, action, subject, status, details) ",
        );
        query.push_values(acts, |mut row, (act, now)| {
            let act: &AuditEvent = act.borrow();
            row.push_bind(self.ids.next(*now))
                .push_bind(act.account.map(|account| account.0))
                .push_bind(act.by.actor.map(|actor| actor.0))
                .push_bind(now.as_ms())
                .push_bind(act.by.source.as_str())
                .push_bind(act.by.address.map(|address| address.to_string()))
                .push_bind(act.action)
                .push_bind(act.stored_subject().to_owned())
                .push_bind(act.status.as_str())
                .push_bind(act.details.to_json());
        });
        // Only what comes often stays prepared.
        statement::build(&mut query).persistent(acts.len() == 1).execute(conn).await?;
        Ok(())
    }

    /// Adds an entry about an account's pin of a placement. Its subject is the CID.
    pub(crate) async fn log_pin(
        &self,
        conn: &mut Conn,
        act: (&'static str, Actor),
        account: i64,
        placement: PlacementId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.log_pins(conn, act, &[(account, placement.0)], now).await
    }

    /// Adds an entry about each of these pins, given by account and placement, at most [`LIST_MAX`] of them. Its
    /// subject is the CID.
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
        // Ids of clusters have no character that JSON would quote.
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
        // Only what comes often stays prepared.
        statement::build(&mut query)
            .persistent(pins.len() == 1 || pins.len() == LIST_MAX)
            .execute(conn)
            .await?;
        Ok(())
    }

    /// Adds an entry for each of these accounts: its pin of a placement has failed.
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
            let act = |account: &i64| {
                let act = AuditEvent::new(
                    AccountId(*account),
                    Actor::SYSTEM,
                    "pin.fail",
                    placement.cid.to_string(),
                );
                (act.with(details.clone()).refused(), now)
            };
            self.log_all(conn, &accounts.iter().map(act).collect::<Vec<_>>()).await?;
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

/// A query for each of the indices: `$1` is the account, `$2` the action, `$3` the first time, `$4` and `$5` the
/// entry before which it ends, `$6` who acted.
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

/// Lists: of an account, of everything, and of who acted.
pub(crate) const LISTS: [&str; 3] = per_index!(
    "SELECT id, account_id, actor_id, at_ms, source, address, action, subject, status, details FROM audit_log WHERE ",
    "ORDER BY at_ms DESC, id DESC LIMIT $7 OFFSET $8"
);

/// Counts, in the same order.
pub(crate) const COUNTS: [&str; 3] =
    per_index!("SELECT COUNT(*) FROM (SELECT 1 FROM audit_log WHERE ", "LIMIT $7) counted");

/// The oldest entries before a time.
pub(crate) const SWEEP: &str = "DELETE FROM audit_log WHERE id IN \
    (SELECT id FROM audit_log WHERE at_ms < $1 ORDER BY at_ms, id LIMIT $2)";

impl AuditFilter {
    fn index(&self) -> usize {
        match (self.actor, self.account) {
            (None, Some(_)) => 0,
            (None, None) => 1,
            (Some(_), _) => 2,
        }
    }

    /// The place before which a page ends: the cursor, or the time.
    fn end(&self, before: Option<AuditCursor>) -> (i64, i64) {
        let to = self.to.map_or(i64::MAX, Timestamp::as_ms);
        let before = before.map_or((i64::MAX, i64::MAX), |cursor| (cursor.at.as_ms(), cursor.id.0));
        before.min((to, i64::MIN))
    }
}

impl Store {
    /// Writes entries of the audit log.
    pub(crate) fn journal(&self) -> Journal {
        Journal::new(Arc::clone(&self.ids))
    }

    /// Adds an entry of its own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_audit_event(&self, act: AuditEvent, now: Timestamp) -> Result<(), StoreError> {
        self.write(Log { act, now, journal: self.journal() }).await
    }

    /// Up to `limit` entries that match, newest first: those after `before`, then without the first `skip`. Of all
    /// that match at most `count_max` are counted.
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
        // What looks for an action may pass over all there is.
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

    /// Drops up to `limit` of the oldest entries before a time, and says how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_old_audit_entries(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.write(Sweep { before, limit }).await
    }
}

struct Log {
    act: AuditEvent,
    now: Timestamp,
    journal: Journal,
}

impl Write for Log {
    type Out = ();

    async fn run(&self, conn: &mut Conn) -> Result<(), StoreError> {
        self.journal.log(conn, &self.act, self.now).await
    }
}

struct Sweep {
    before: Timestamp,
    limit: u32,
}

impl Write for Sweep {
    type Out = u64;

    async fn run(&self, conn: &mut Conn) -> Result<u64, StoreError> {
        let done = statement::query(SWEEP)
            .bind(self.before.as_ms())
            .bind(i64::from(self.limit))
            .execute(conn)
            .await?;
        Ok(done.rows_affected())
    }
}

//! Checks the query plans that SQLite chooses for frequent queries. They must use an index, so that their cost does not
//! depend on the number of rows that are not due.

use sqlx::{Row, SqlSafeStr};

use crate::accounts::{list as account_list, quota, removal, sessions};
use crate::pins::{admin_pins, create, create_batch, list, record as pins, remove};
use crate::placements::{complete_batch, lease, record as placements};
use crate::webhooks::{cleanup, lease as webhook_lease};
use crate::{Store, audit, idempotency};

/// The steps of the query plan.
async fn plan(store: &Store, sql: &str) -> Vec<String> {
    let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")).into_sql_str();
    let rows = sqlx::query(explain).fetch_all(&store.readers).await.unwrap();
    rows.iter().map(|row| row.get("detail")).collect()
}

/// Asserts that every step uses an index, and that `indices` are among those used.
async fn assert_uses(store: &Store, sql: &str, indices: &[&str]) {
    let steps = plan(store, sql).await;
    // A scan of an index stops at its first row because of MIN or LIMIT.
    let uses_index = |step: &String| step.starts_with("SEARCH") || step.contains("USING COVERING INDEX");
    let is_noise = |step: &String| {
        ["SUBQUERY", "BLOOM FILTER", "CONSTANT ROW", "CO-ROUTINE", "SCAN counted"]
            .iter()
            .any(|n| step.contains(n))
    };
    assert!(steps.iter().all(|step| uses_index(step) || is_noise(step)), "{sql}\n{steps:#?}");
    for index in indices {
        assert!(steps.iter().any(|step| step.contains(index)), "{sql}\n{steps:#?}");
    }
}

async fn store(dir: &tempfile::TempDir) -> Store {
    Store::open(&dir.path().join("pinfold.db")).await.unwrap()
}

#[tokio::test]
async fn expiry_and_lock_queries_use_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    assert_uses(&store, pins::NEXT_EXPIRY, &["pins_expiry"]).await;
    assert_uses(&store, remove::SELECT_DUE, &["pins_expiry (<expr><?)"]).await;
    let locked = "pins_locked (account_id=? AND retain_until_ms>?)";
    assert_uses(&store, removal::LOCKED, &[locked]).await;
}

#[tokio::test]
async fn lookup_by_cid_does_not_scan_all_pins_of_an_account() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let indices = ["autoindex_placements_2 (cid=?)", "autoindex_pins_2 (account_id=? AND placement_id=?)"];
    assert_uses(&store, remove::FIND, &indices).await;
    let indices = ["autoindex_placements_2 (cid=? AND cluster=?)", indices[1]];
    assert_uses(&store, create::FIND_EXISTING, &indices).await;
    // The rows of the VALUES list are scanned.
    let steps =
        plan(&store, &create_batch::FIND_BATCH.join("VALUES (0, 'a', 'b', 1), (1, 'a', 'b', 1)")).await;
    assert!(indices.iter().all(|index| steps.iter().any(|step| step.contains(index))), "{steps:#?}");
    let sql = complete_batch::FIND_PENDING.join("VALUES (0, 1, 1), (1, 2, 2)");
    let steps = plan(&store, &sql).await;
    let by_id = ["autoindex_placements_1 (id=?)", "pins_placement (placement_id=?)"];
    assert!(by_id.iter().all(|index| steps.iter().any(|step| step.contains(index))), "{steps:#?}");
    let indices = ["autoindex_placements_2 (cid=?)", indices[1]];
    for sql in [list::PAGES[1], list::TOTALS[1]] {
        let steps = plan(&store, sql).await;
        let has = |index: &str| steps.iter().any(|step| step.contains(index));
        assert!(indices.into_iter().all(has) && !has("pins_list"), "{steps:#?}");
    }
    // The few matching rows are sorted.
    let steps = plan(&store, pins::OF_CID).await;
    let has = |index: &str| steps.iter().any(|step| step.contains(index));
    assert!(indices.into_iter().all(has) && !has("pins_list"), "{steps:#?}");
}

#[tokio::test]
async fn placement_queue_queries_use_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let due = "placements_due (ready=? AND due_at_ms";
    assert_uses(&store, placements::NEXT_DUE, &["placements_queue", "placements_releases", due]).await;
    assert_uses(&store, lease::MARK_READY, &[due]).await;
    assert_uses(&store, lease::LEASE_PIN, &["placements_queue"]).await;
    assert_uses(&store, lease::LEASE_RELEASE, &["placements_releases"]).await;
    // Scans all due placements, but no others.
    let steps = plan(&store, placements::IN_PROGRESS).await;
    assert!(steps.iter().any(|step| step.contains("placements_due")), "{steps:#?}");
    let of_account = ["pins_placement (placement_id=?", "autoindex_accounts_1 (id=?"];
    assert_uses(&store, quota::FAIL_OVER_QUOTA, &of_account).await;
}

#[tokio::test]
async fn audit_log_queries_use_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let indices = [
        "audit_of_account (account_id=? AND at_ms>? AND at_ms<?)",
        "audit_by_time (at_ms>? AND at_ms<?)",
        "audit_actor (actor_id=? AND at_ms>? AND at_ms<?)",
    ];
    for (index, (list, count)) in indices.iter().zip(audit::LISTS.iter().zip(audit::COUNTS)) {
        assert_uses(&store, list, &[index]).await;
        assert_uses(&store, count, &[index]).await;
    }
    assert_uses(&store, audit::DELETE_OLD, &["audit_by_time (at_ms<?)"]).await;
}

#[tokio::test]
async fn operator_lists_use_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let of_accounts = ["accounts_admin", "accounts_disabled", "accounts_plan", "autoindex_accounts"];
    for (index, name) in of_accounts.into_iter().enumerate() {
        assert_uses(&store, account_list::ENDS[index], &[name]).await;
        assert_uses(&store, account_list::PAGES[index], &[name]).await;
    }
    let of_pins = [
        "pins_list (account_id=?",
        "pins_failed (",
        "pins_all_pending (",
        "autoindex_pins",
        "pins_placement (placement_id=?",
        "placements_damaged (id>?",
    ];
    for (index, name) in of_pins.into_iter().enumerate() {
        assert_uses(&store, admin_pins::ENDS[index], &[name]).await;
        assert_uses(&store, admin_pins::PAGES[index], &[name]).await;
    }
}

#[tokio::test]
async fn delivery_and_retention_queries_use_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    assert_uses(&store, webhook_lease::NEXT_DUE, &["webhooks_due"]).await;
    assert_uses(&store, webhook_lease::LEASE_WEBHOOK, &["webhooks_due", "webhooks_leased"]).await;
    assert_uses(&store, cleanup::OLD_DELIVERIES, &["webhook_deliveries_old"]).await;
    assert_uses(&store, idempotency::OLD_REQUESTS, &["idempotent_requests_old"]).await;
}

#[tokio::test]
async fn expired_session_queries_use_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let indices = ["sessions_expiry (expires_at_ms<?)", "login_challenges_expiry (expires_at_ms<?)"];
    for (sql, index) in sessions::DELETE_EXPIRED.into_iter().zip(indices) {
        assert_uses(&store, sql, &[index]).await;
    }
    assert_uses(&store, sessions::ANY_EXPIRED, &indices).await;
}

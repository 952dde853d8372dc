//! Tests of the audit log and of referrals, as accounts read them.

use std::time::Duration;

use pinfold_model::{Actor, AuditEntry, AuditEvent, Clock, IpRules, PinOptions, ScopeSet, TokenName};
use pinfold_service::{Caller, Error, LogQuery, NewToken, PinRequest, Settings};

use crate::world::{MIB, World};

async fn log(world: &World, caller: &Caller, query: LogQuery) -> Vec<AuditEntry> {
    world.service.audit_log.list(caller, query).await.unwrap().entries
}

fn actions(log: &[AuditEntry]) -> Vec<&str> {
    log.iter().map(|entry| entry.action.as_str()).collect()
}

#[tokio::test]
async fn audit_log_has_only_events_of_its_account() {
    let world = World::start().await;
    let (alice, bob) = (world.account("alice", "premium").await, world.account("bob", "free").await);
    let cid = world.cluster.publish("hello", MIB);
    let lock = Some(world.in_an_hour());
    world
        .pin(&alice, PinRequest::new(cid).with(PinOptions { timelock: lock, ..PinOptions::default() }))
        .await
        .unwrap();
    let name = TokenName::parse("second").unwrap();
    let (scopes, ip_allowlist) = (ScopeSet::default_for_key(), IpRules::default());
    let new = NewToken { name: name.clone(), label: None, scopes, ip_allowlist, expires_at: None };
    world.service.tokens.create_for(&alice, new, None).await.unwrap();
    world.service.tokens.revoke_for(&alice, &name, None).await.unwrap();
    world.clock.advance(Duration::from_hours(2));
    world.run_until_idle().await;

    let log_of_alice = log(&world, &alice, LogQuery::default()).await;
    assert_eq!(
        actions(&log_of_alice),
        ["pin.expire", "token.revoke", "token.create", "pin.create", "token.create", "account.create"]
    );
    assert_eq!(log_of_alice[1].by, alice.actor(), "the account is its own actor");
    assert_eq!((log_of_alice[0].by, log_of_alice[5].by), (Actor::SYSTEM, Actor::OPERATOR));
    assert_eq!(log_of_alice[3].subject, cid.to_string());
    assert_eq!(actions(&log(&world, &bob, LogQuery::default()).await), ["token.create", "account.create"]);
}

#[tokio::test]
async fn audit_log_has_pages_cursors_and_filters() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let begin = world.clock.now();
    for n in 0..25 {
        world.clock.advance(Duration::from_secs(1));
        let action = if n % 5 == 0 { "account.login" } else { "test.other" };
        let act = AuditEvent::new(alice.account.id, alice.actor(), action, n.to_string());
        world.service.audit_log.record(act).await.unwrap();
    }
    let logs = &world.service.audit_log;
    let second = LogQuery { page: 2, limit: 10, ..LogQuery::default() };
    let second = logs.list(&alice, second).await.unwrap();
    assert_eq!((second.total, second.has_uncounted, second.entries.len()), (27, false, 10));
    let third = LogQuery { limit: 10, cursor: second.next_cursor, ..LogQuery::default() };
    let third = logs.list(&alice, third).await.unwrap();
    assert_eq!((third.entries.len(), third.next_cursor), (7, None));
    assert!(third.entries[0].cursor() < second.entries[9].cursor());

    let logins = LogQuery { action: Some("account.login".to_owned()), ..LogQuery::default() };
    assert_eq!(log(&world, &alice, logins).await.len(), 5);
    let after = |seconds| Some(begin.after(Duration::from_secs(seconds)));
    let span = LogQuery { from: after(5), to: after(10), ..LogQuery::default() };
    let subjects: Vec<_> = log(&world, &alice, span).await.into_iter().map(|entry| entry.subject).collect();
    assert_eq!(subjects, ["8", "7", "6", "5", "4"]);
    let all = logs.list_all(None, None, LogQuery::default()).await.unwrap();
    assert_eq!(all.total, 27, "administrators see the entries of all accounts");
    let far = LogQuery { page: u32::MAX, ..LogQuery::default() };
    assert_eq!(log(&world, &alice, far).await, []);
    let long = LogQuery { action: Some("a".repeat(65)), ..LogQuery::default() };
    assert!(matches!(logs.list(&alice, long).await, Err(Error::InvalidRequest(_))));
}

#[tokio::test]
async fn old_audit_entries_are_deleted() {
    let retention = Duration::from_hours(24 * 30);
    let world = World::start_with(Settings { audit_kept: Some(retention), ..Settings::default() }).await;
    let alice = world.account("alice", "free").await;
    world.clock.advance(retention);
    world.run_until_idle().await;
    assert_eq!(log(&world, &alice, LogQuery::default()).await.len(), 2, "not before it is old enough");
    let late = AuditEvent::new(alice.account.id, alice.actor(), "account.login", "");
    world.service.audit_log.record(late).await.unwrap();
    world.clock.advance(Duration::from_millis(1));
    world.run_until_idle().await;
    assert_eq!(actions(&log(&world, &alice, LogQuery::default()).await), ["account.login"]);
}

#[tokio::test]
async fn audit_log_without_retention_is_kept() {
    let world = World::start_with(Settings { audit_kept: None, ..Settings::default() }).await;
    let alice = world.account("alice", "free").await;
    world.clock.advance(Duration::from_hours(24 * 365 * 50));
    world.run_until_idle().await;
    assert_eq!(log(&world, &alice, LogQuery::default()).await.len(), 2);
}

#[tokio::test]
async fn referrals_are_counted_without_names() {
    let world = World::start().await;
    let (alice, bob) = (world.account("alice", "free").await, world.account("bob", "free").await);
    let referrals = &world.service.referrals;
    let code = referrals.list(&alice, 1, 20).await.unwrap().code;
    assert_eq!(referrals.list(&alice, 1, 20).await.unwrap().code, code, "the referrer stays");
    assert!(code.len() == 8 && code.bytes().all(|b| b.is_ascii_alphanumeric()), "{code}");

    for wrong in ["", "nobody", &"x".repeat(1_000)] {
        assert!(!referrals.accept(bob.account.id, wrong).await.unwrap(), "{wrong}");
    }
    assert!(!referrals.accept(alice.account.id, &code).await.unwrap(), "an account cannot refer itself");
    assert!(referrals.accept(bob.account.id, &format!(" {} ", code.to_uppercase())).await.unwrap());
    let page = referrals.list(&alice, 1, 20).await.unwrap();
    assert_eq!((page.total, page.referrals[0].account), (1, bob.account.id));
    assert_eq!(referrals.list(&alice, 2, 20).await.unwrap().referrals, []);
    assert_eq!(referrals.list(&bob, 1, 20).await.unwrap().total, 0);
}

//! Tests of accounts and API keys.

use std::time::Duration;

use pinfold_model::{Clock, Email, IpRules, Role, Scope, ScopeSet, TokenName};
use pinfold_service::{AuthError, Error, FirstAdmin, NewToken, Via};

use crate::world::World;

fn new_token(name: &str) -> NewToken {
    let name = TokenName::parse(name).unwrap();
    NewToken {
        name,
        label: None,
        scopes: ScopeSet::default_for_key(),
        ip_allowlist: IpRules::default(),
        expires_at: None,
    }
}

fn first() -> FirstAdmin {
    FirstAdmin { email: Email::parse("root@example.org").unwrap(), password: None }
}

#[tokio::test]
async fn first_start_creates_one_admin_and_one_key() {
    let mut world = World::start().await;
    let key = world.service.accounts.ensure_admin(first()).await.unwrap().unwrap();
    assert!(world.service.accounts.ensure_admin(first()).await.unwrap().is_none());
    world.restart().await;
    assert!(world.service.accounts.ensure_admin(first()).await.unwrap().is_none());

    let admin = world.service.tokens.authenticate(key.reveal(), Via::api(None)).await.unwrap();
    assert_eq!((admin.account.role, admin.plan.code.as_str()), (Role::Admin, "premium"));
    assert!(Scope::ALL.into_iter().all(|scope| admin.may(scope)));
}

#[tokio::test]
async fn key_authenticates_its_account_until_it_expires() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let tokens = &world.service.tokens;
    let ends = world.clock.now().after(Duration::from_hours(1));
    let short = NewToken { expires_at: Some(ends), ..new_token("short") };
    let short = tokens.create(alice.account.id, short).await.unwrap().secret;
    let long = tokens.create(alice.account.id, new_token("long")).await.unwrap().secret;
    let caller = tokens.authenticate(short.reveal(), Via::api(None)).await.unwrap();
    assert_eq!((caller.account.id, caller.scopes), (alice.account.id, ScopeSet::default_for_key()));

    world.clock.advance(Duration::from_hours(1));
    assert_eq!(tokens.authenticate(short.reveal(), Via::api(None)).await.err(), Some(AuthError::Invalid));
    assert!(tokens.authenticate(long.reveal(), Via::api(None)).await.is_ok());
    tokens.revoke(alice.account.id, &TokenName::parse("long").unwrap()).await.unwrap();
    assert_eq!(tokens.authenticate(long.reveal(), Via::api(None)).await.err(), Some(AuthError::Invalid));
    for wrong in ["", "pnf_", "hello", &long.reveal()[..61]] {
        assert_eq!(tokens.authenticate(wrong, Via::api(None)).await.err(), Some(AuthError::Invalid));
    }
}

#[tokio::test]
async fn key_creates_no_key_with_more_scopes() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let tokens = &world.service.tokens;
    let small = tokens.create_for(&alice, new_token("small"), None).await.unwrap().secret;
    let small = tokens.authenticate(small.reveal(), Via::api(None)).await.unwrap();
    let more = NewToken { scopes: ScopeSet::all(), ..new_token("more") };
    assert_eq!(tokens.create_for(&small, more, None).await.err(), Some(Error::ScopeNotHeld));
    assert_eq!(tokens.create_for(&small, new_token("small"), None).await.err(), Some(Error::NameTaken));
    tokens.create_for(&small, new_token("same"), None).await.unwrap();
}

#[tokio::test]
async fn last_use_of_a_key_is_written_later() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let last = async || world.service.tokens.list(alice.account.id).await.unwrap()[0].last_used_at;
    assert_eq!(last().await, None);
    world.run_until_idle().await;
    assert_eq!(last().await, Some(world.clock.now()));
}

#[tokio::test]
async fn accounts_are_found_by_email() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let email = Email::parse("ALICE@example.org").unwrap();
    let found = world.service.accounts.by_email(&email).await.unwrap();
    assert_eq!(found.id, alice.account.id);
    let twice = pinfold_service::NewAccount {
        email,
        name: "again".to_owned(),
        plan: found.plan,
        role: Role::User,
        password: Some(pinfold_service::Password::parse("correct horse").unwrap()),
    };
    assert_eq!(world.service.accounts.create(twice).await.err(), Some(Error::EmailTaken));
    assert_eq!(world.service.accounts.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn only_an_admin_can_have_a_key_with_the_scope_admin() {
    let world = World::start().await;
    let tokens = &world.service.tokens;
    let admin = |name| NewToken { scopes: [Scope::Admin].into_iter().collect(), ..new_token(name) };
    let alice = world.account("alice", "free").await;
    assert_eq!(tokens.create(alice.account.id, admin("a")).await.err(), Some(Error::ScopeNotHeld));
    assert_eq!(tokens.create_for(&alice, admin("a"), None).await.err(), Some(Error::ScopeNotHeld));

    let key = world.service.accounts.ensure_admin(first()).await.unwrap();
    assert!(key.is_none(), "alice was first");
    let new = pinfold_service::NewAccount {
        email: Email::parse("admin@example.org").unwrap(),
        name: "root".to_owned(),
        plan: alice.plan.code.clone(),
        role: Role::Admin,
        password: None,
    };
    let root = world.service.accounts.create(new).await.unwrap();
    let key = tokens.create(root.id, admin("admin")).await.unwrap().secret;
    let root = tokens.authenticate(key.reveal(), Via::api(None)).await.unwrap();
    assert!(root.may(Scope::Admin));
    tokens.create_for(&root, admin("another"), None).await.unwrap();
    let small = tokens.create(root.account.id, new_token("small")).await.unwrap().secret;
    let small = tokens.authenticate(small.reveal(), Via::api(None)).await.unwrap();
    assert_eq!(tokens.create_for(&small, admin("more"), None).await.err(), Some(Error::ScopeNotHeld));
}

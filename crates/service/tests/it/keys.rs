//! Tests of the restrictions of API keys: addresses, expiry, and what the creating key may do.

use std::time::Duration;

use pinfold_model::{Clock, IpRules, ScopeSet, TokenLife, TokenName};
use pinfold_service::{AuthError, Caller, Error, NewToken, Service, Via};

use crate::world::World;

fn new_token(name: &str) -> NewToken {
    let name = TokenName::parse(name).unwrap();
    let (scopes, ip_allowlist) = (ScopeSet::default_for_key(), IpRules::default());
    NewToken { name, label: None, scopes, ip_allowlist, expires_at: None }
}

fn from(address: &str) -> Via {
    Via::api(Some(address.parse().unwrap()))
}

/// The caller that a new key created by `maker` authenticates.
async fn caller(service: &Service, maker: &Caller, new: NewToken, via: Via) -> Caller {
    let key = service.tokens.create_for(maker, new, None).await.unwrap().secret;
    service.tokens.authenticate(key.reveal(), via).await.unwrap()
}

#[tokio::test]
async fn key_is_valid_only_from_its_addresses() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let tokens = &world.service.tokens;
    let bound = NewToken { ip_allowlist: "192.0.2.0/24".parse().unwrap(), ..new_token("bound") };
    let key = tokens.create_for(&alice, bound, None).await.unwrap().secret;
    let proven = async |via| tokens.authenticate(key.reveal(), via).await.map(|caller| caller.account.id);
    assert_eq!(proven(from("192.0.2.200")).await, Ok(alice.account.id));
    assert_eq!(proven(from("::ffff:192.0.2.200")).await, Ok(alice.account.id));
    assert_eq!(proven(from("192.0.3.1")).await, Err(AuthError::IpNotAllowed));
    assert_eq!(proven(Via::api(None)).await, Err(AuthError::IpNotAllowed));
    tokens.revoke_for(&alice, &TokenName::parse("bound").unwrap(), None).await.unwrap();
    assert_eq!(proven(from("192.0.3.1")).await, Err(AuthError::Invalid), "an expired key reveals nothing");
}

#[tokio::test]
async fn key_creates_no_key_with_later_expiry_or_more_addresses() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let tokens = &world.service.tokens;
    let now = world.clock.now();
    let ends = |days| Some(TokenLife::days(days).unwrap().ends_at(now));
    let networks = |text: &str| text.parse::<IpRules>().unwrap();
    let maker =
        NewToken { expires_at: ends(30), ip_allowlist: networks("192.0.2.0/24"), ..new_token("maker") };
    let maker = caller(&world.service, &alice, maker, from("192.0.2.1")).await;

    let heir = tokens.create_for(&maker, new_token("heir"), None).await.unwrap().token;
    assert_eq!(
        (heir.expires_at, heir.ip_allowlist),
        (ends(30), networks("192.0.2.0/24")),
        "the same as the creating key"
    );
    let less = NewToken { expires_at: ends(3), ip_allowlist: networks("192.0.2.7"), ..new_token("less") };
    let less = tokens.create_for(&maker, less, None).await.unwrap().token;
    assert_eq!((less.expires_at, less.ip_allowlist), (ends(3), networks("192.0.2.7")));

    let longer = NewToken { expires_at: ends(31), ..new_token("longer") };
    assert_eq!(tokens.create_for(&maker, longer, None).await.err(), Some(Error::LifeNotHeld));
    let wider = NewToken { ip_allowlist: networks("192.0.2.7,192.0.3.0/24"), ..new_token("wider") };
    assert_eq!(tokens.create_for(&maker, wider, None).await.err(), Some(Error::AddressesNotHeld));
}

#[tokio::test]
async fn revoked_key_creates_no_key() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let tokens = &world.service.tokens;
    let maker = caller(&world.service, &alice, new_token("maker"), Via::api(None)).await;
    tokens.revoke_for(&alice, &TokenName::parse("maker").unwrap(), None).await.unwrap();
    let late = tokens.create_for(&maker, new_token("late"), None).await;
    assert_eq!(late.err(), Some(Error::CredentialGone));
    let names: Vec<_> = tokens.list(alice.account.id).await.unwrap();
    assert!(names.iter().all(|token| token.name.as_str() != "late"));
}

#[tokio::test]
async fn key_of_another_account_can_not_be_revoked() {
    let world = World::start().await;
    let (alice, bob) = (world.account("alice", "free").await, world.account("bob", "free").await);
    let tokens = &world.service.tokens;
    tokens.create_for(&alice, new_token("hers"), None).await.unwrap();
    let hers = TokenName::parse("hers").unwrap();
    assert_eq!(tokens.revoke_for(&bob, &hers, None).await, Err(Error::TokenNotFound));
    tokens.revoke_for(&alice, &hers, None).await.unwrap();
    assert_eq!(tokens.revoke_for(&alice, &hers, None).await, Err(Error::TokenNotFound));
}

#[tokio::test]
async fn first_existing_key_name_is_selected() {
    let world = World::start().await;
    let (alice, bob) = (world.account("alice", "free").await, world.account("bob", "free").await);
    let tokens = &world.service.tokens;
    tokens.create_for(&alice, new_token("a%20b"), None).await.unwrap();
    let names = ["a b", "a%20b"].map(|name| TokenName::parse(name).unwrap());
    assert_eq!(tokens.first_of(alice.account.id, &names).await, Ok(names[1].clone()));
    assert_eq!(tokens.first_of(bob.account.id, &names).await, Err(Error::TokenNotFound));
    tokens.create_for(&alice, new_token("a b"), None).await.unwrap();
    assert_eq!(tokens.first_of(alice.account.id, &names).await, Ok(names[0].clone()));
}

#[tokio::test]
async fn key_expires_at_its_time() {
    let world = World::start().await;
    let alice = world.account("alice", "free").await;
    let tokens = &world.service.tokens;
    let ends = TokenLife::days(1).unwrap().ends_at(world.clock.now());
    let short = NewToken { expires_at: Some(ends), ..new_token("short") };
    let key = tokens.create_for(&alice, short, None).await.unwrap().secret;
    world.clock.advance(Duration::from_hours(24) - Duration::from_millis(1));
    assert!(tokens.authenticate(key.reveal(), Via::api(None)).await.is_ok());
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(tokens.authenticate(key.reveal(), Via::api(None)).await.err(), Some(AuthError::Invalid));
}

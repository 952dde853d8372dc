//! API keys: created within their limit, and never by a revoked key.

use pinfold_model::{AccountId, Actor, IpRules, ScopeSet, TokenName};
use pinfold_store::{CreateTokenOutcome, NewToken};

use crate::world::{World, at, now};

fn new_token(account: AccountId, name: &str) -> NewToken {
    NewToken {
        account,
        name: TokenName::parse(name).unwrap(),
        label: None,
        hash: format!("hash of {name} of {account}"),
        prefix: "pnf_".to_owned(),
        scopes: ScopeSet::default_for_key(),
        ip_allowlist: "192.0.2.0/24,2001:db8::1".parse().unwrap(),
        expires_at: Some(at(100)),
        maker: None,
    }
}

async fn create(world: &World, new: NewToken, count_max: u32) -> CreateTokenOutcome {
    let by = Actor::account(new.account);
    world.store.create_token(new, count_max, by, now()).await.unwrap()
}

#[tokio::test]
async fn created_key_is_read_back() {
    let world = World::start().await;
    let ada = world.account("ada", 1).await;
    let CreateTokenOutcome::Created(token) = create(&world, new_token(ada, "one"), 10).await else {
        panic!("the key is created")
    };
    assert_eq!(token.ip_allowlist.to_string(), "192.0.2.0/24,2001:db8::1");
    assert_eq!(world.store.token(token.id).await.unwrap().as_ref(), Some(&*token));
    assert_eq!(world.store.tokens(ada, 10).await.unwrap(), [*token.clone()]);
    let proven = world.store.token_by_hash(&new_token(ada, "one").hash).await.unwrap().unwrap();
    assert_eq!(proven.token, *token);
}

#[tokio::test]
async fn key_name_is_unique_per_account() {
    let world = World::start().await;
    let (ada, bea) = (world.account("ada", 1).await, world.account("bea", 1).await);
    assert!(matches!(create(&world, new_token(ada, "one"), 10).await, CreateTokenOutcome::Created(_)));
    let again = NewToken { hash: "another".to_owned(), ..new_token(ada, "one") };
    assert_eq!(create(&world, again, 10).await, CreateTokenOutcome::NameTaken);
    assert!(matches!(create(&world, new_token(bea, "one"), 10).await, CreateTokenOutcome::Created(_)));
}

#[tokio::test]
async fn concurrent_key_creation_never_exceeds_the_limit() {
    let world = World::start().await;
    let ada = world.account("ada", 1).await;
    let all = (0..20).map(|n| create(&world, new_token(ada, &n.to_string()), 7));
    let created = futures::future::join_all(all).await;
    assert_eq!(created.iter().filter(|created| matches!(created, CreateTokenOutcome::Created(_))).count(), 7);
    assert!(
        created
            .iter()
            .filter(|created| !matches!(created, CreateTokenOutcome::Created(_)))
            .all(|created| *created == CreateTokenOutcome::TooMany)
    );
}

#[tokio::test]
async fn revoked_key_creates_no_key() {
    let world = World::start().await;
    let ada = world.account("ada", 1).await;
    let open = NewToken { ip_allowlist: IpRules::default(), ..new_token(ada, "maker") };
    let CreateTokenOutcome::Created(maker) = create(&world, open, 10).await else {
        panic!("the key is created")
    };
    let made = NewToken { maker: Some(maker.id), ..new_token(ada, "made") };
    assert!(matches!(create(&world, made, 10).await, CreateTokenOutcome::Created(_)));
    assert!(world.store.revoke_token(ada, &maker.name, Actor::account(ada), now()).await.unwrap());
    assert!(!world.store.revoke_token(ada, &maker.name, Actor::account(ada), now()).await.unwrap());
    let late = NewToken { maker: Some(maker.id), ..new_token(ada, "late") };
    assert_eq!(create(&world, late, 10).await, CreateTokenOutcome::MakerGone);
}

//! Reads and small writes that the other tests do not cover.

use std::time::Duration;

use pinfold_model::{Actor, Email, IpRules, PinState, Role, ScopeSet, TokenName, WebhookEvent};
use pinfold_store::{
    AccountChanges, AttemptBucket, Capacity, CreateTokenOutcome, Damage, NewAccount, NewSession, NewToken,
    TotpCode, UpdateAccountOutcome,
};
use sqlx::ConnectOptions;

use crate::world::{LEASE, World, at, cid, created, held, new_pin, now};

const BY: Actor = Actor::OPERATOR;

/// Placeholder for a password hash.
const HASH: &str = "$argon2id$";

#[tokio::test]
async fn account_is_read_by_id_and_address_and_renamed() {
    let world = World::start().await;
    let ada = world.account("ada", 7).await;
    world.store.ping().await.unwrap();
    let email = Email::parse("ada@example.org").unwrap();
    let renamed = world.store.rename_account(ada, "Ada".to_owned(), BY, now()).await.unwrap().unwrap();
    assert_eq!((renamed.name.as_str(), renamed.id), ("Ada", ada));
    assert_eq!(world.store.account_by_email(&email).await.unwrap(), Some(renamed.clone()));
    assert_eq!(world.store.account_record(ada).await.unwrap().unwrap().account, renamed);
    assert_eq!(
        world.store.emails(&[ada, ada]).await.unwrap().into_iter().collect::<Vec<_>>(),
        [(ada, email.clone())]
    );
    let (account, hash) = world.store.account_with_password_hash(&email).await.unwrap().unwrap();
    assert_eq!((account, hash), (renamed, None));
    assert!(world.store.set_password(ada, HASH.to_owned(), None, None, BY, now()).await.unwrap());
    assert_eq!(world.store.password_hash(ada).await.unwrap().as_deref(), Some(HASH));
    assert_eq!(world.store.accounts(None, 10).await.unwrap().len(), 1);

    let first = NewAccount {
        email: Email::parse("ben@example.org").unwrap(),
        name: "Ben".to_owned(),
        role: Role::Admin,
        plan: pinfold_model::PlanCode::new("free"),
        storage_limit_bytes: 1,
        plan_is_configured: true,
        password_hash: None,
    };
    assert!(
        world.store.create_account(first, true, BY, now()).await.unwrap().is_none(),
        "it is not the first account"
    );
}

#[tokio::test]
async fn sessions_end_together_and_when_the_account_is_enabled_again() {
    let world = World::start().await;
    let ada = world.account("ada", 7).await;
    world.store.set_password(ada, HASH.to_owned(), None, None, BY, now()).await.unwrap();
    let session = || NewSession { account: ada, expires_at: at(100), sessions_max: 3 };
    let open = || world.store.create_session(session(), HASH.to_owned(), BY, now());
    open().await.unwrap().unwrap();
    open().await.unwrap().unwrap();
    assert_eq!(world.store.delete_sessions(ada, BY, now()).await.unwrap(), Some(2));
    let id = open().await.unwrap().unwrap();
    for disabled in [true, false] {
        let change = AccountChanges { disabled: Some(disabled), ..AccountChanges::default() };
        let changed = world.store.update_account(ada, change, BY, now()).await.unwrap();
        assert!(matches!(changed, UpdateAccountOutcome::Done(account) if account.disabled == disabled));
        assert_eq!(
            world.store.session(id).await.unwrap().is_some(),
            disabled,
            "sessions of a disabled account stay, so that responses have the reason"
        );
        let sums = world.store.account_sums().await.unwrap();
        assert_eq!(sums.iter().map(|sum| (sum.disabled, sum.accounts)).collect::<Vec<_>>(), [(disabled, 1)]);
    }
}

#[tokio::test]
async fn second_factor_is_read_and_disabled() {
    let world = World::start().await;
    let ada = world.account("ada", 7).await;
    let secret = "SECRET".to_owned();
    world.store.set_up_second_factor(ada, secret.clone(), BY, now()).await.unwrap();
    let factor = world.store.second_factor(ada).await.unwrap().unwrap();
    assert_eq!((factor.secret.as_str(), factor.is_on, factor.last_step), ("SECRET", false, 0));
    let bucket = AttemptBucket { tries: 9, refill: Duration::from_secs(1) };
    let code = |step| TotpCode { secret: secret.clone(), step, bucket };
    assert!(world.store.enable_second_factor(ada, code(7), BY, now()).await.unwrap());
    assert!(world.store.second_factor(ada).await.unwrap().unwrap().is_on);
    assert!(
        !world.store.disable_second_factor(ada, Some(code(7)), BY, now()).await.unwrap(),
        "the code was used"
    );
    assert!(world.store.disable_second_factor(ada, Some(code(8)), BY, now()).await.unwrap());
    assert!(world.store.second_factor(ada).await.unwrap().is_none());
}

#[tokio::test]
async fn preferences_are_merged_within_their_bound() {
    let world = World::start().await;
    let ada = world.account("ada", 7).await;
    let set = |name: &str, value: Option<&str>| vec![(name.to_owned(), value.map(str::to_owned))];
    let merge = |changes| world.store.merge_preferences(ada, changes, 10);
    assert_eq!(merge(set("a", Some("1"))).await.unwrap().unwrap().len(), 1);
    assert_eq!(merge(set("b", Some("2"))).await.unwrap().unwrap().len(), 2);
    assert!(merge(set("c", Some("1234567890"))).await.unwrap().is_none());
    assert_eq!(merge(set("a", None)).await.unwrap().unwrap().len(), 1);
    let left = world.store.preferences(ada).await.unwrap();
    assert_eq!((left[0].name.as_str(), left[0].value.as_str()), ("b", "2"));
}

#[tokio::test]
async fn use_of_a_token_is_recorded() {
    let world = World::start().await;
    let ada = world.account("ada", 7).await;
    let new = NewToken {
        account: ada,
        name: TokenName::parse("one").unwrap(),
        label: None,
        hash: "hash".to_owned(),
        prefix: "pnf_".to_owned(),
        scopes: ScopeSet::default_for_key(),
        ip_allowlist: IpRules::default(),
        expires_at: None,
        maker: None,
    };
    let CreateTokenOutcome::Created(token) = world.store.create_token(new, 1, BY, now()).await.unwrap()
    else {
        panic!("not created")
    };
    world.store.record_token_use(vec![(token.id, at(5))]).await.unwrap();
    assert_eq!(world.store.token(token.id).await.unwrap().unwrap().last_used_at, Some(at(5)));
}

#[tokio::test]
async fn placement_is_read_and_its_schedule_clamped() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    let pin = created(world.create_pin(ada, cid(1)).await);
    let id = pin.placement.id;
    assert_eq!(world.store.count_in_flight(ada, 10).await.unwrap(), 1);
    assert!(world.store.is_wanted(id).await.unwrap());
    let found = world.store.placement_of(&cid(1), &pin.placement.cluster).await.unwrap();
    assert_eq!(found, Some(pin.placement.clone()));
    let leased = world.lease_one(now()).await;
    // The clock was set back: the lease ends at the given time at the latest.
    world.store.clamp_schedule(at(-100), at(-40)).await.unwrap();
    assert_eq!(world.store.placement(id).await.unwrap().unwrap().due_at, Some(at(-40)));
    let next = world.store.next_placement_due(at(-100), Capacity::each(1)).await.unwrap();
    assert_eq!(next, Some(at(-40)));
    world.complete_placement(&leased, held(10)).await;
    assert_eq!(world.store.count_in_flight(ada, 10).await.unwrap(), 0);
    let active = world.store.active_placements(ada, None, 10).await.unwrap();
    assert_eq!(active.iter().map(|active| (active.id, active.cid)).collect::<Vec<_>>(), [(id, cid(1))]);
    assert_eq!(world.store.pins_of_placement(id, 10).await.unwrap()[0].state(), PinState::Pinned);
    let damage = Damage { cid: cid(1), cluster: pin.placement.cluster.clone(), blocks: 1 };
    world.store.record_damage(vec![damage], now()).await.unwrap();
    let damaged = world.store.damaged_placements(10).await.unwrap();
    assert_eq!(damaged.iter().map(|placement| placement.damaged_blocks).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn delivery_beyond_the_bound_of_a_webhook_is_dropped_and_counted() {
    let world = World::start().await;
    let ada = world.account("ada", 1_000).await;
    let hook = world.hook(ada).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.path());
    let mut conn = options.connect().await.unwrap();
    sqlx::raw_sql("UPDATE webhooks SET pending = 200000").execute(&mut conn).await.unwrap();
    created(world.store.create_pin(new_pin(ada, cid(1)), now()).await.unwrap());
    let leased = world.lease_one(now().after(LEASE)).await;
    world.complete_placement(&leased, held(10)).await;
    assert_eq!(world.events(&hook).await, [] as [WebhookEvent; 0]);
    assert_eq!(world.store.webhook(ada, hook.id).await.unwrap().unwrap().dropped, 1);
}

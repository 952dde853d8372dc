//! Referral codes and referrers.

use crate::world::World;

#[tokio::test]
async fn first_referral_code_of_an_account_stays() {
    let world = World::start().await;
    let (ada, bea) = (world.account("ada", 1).await, world.account("bea", 1).await);
    let code = |account, fresh: &str| world.store.referral_code(account, fresh.to_owned());
    assert_eq!(code(ada, "aaaa").await.unwrap().as_deref(), Some("aaaa"));
    assert_eq!(code(ada, "bbbb").await.unwrap().as_deref(), Some("aaaa"));
    assert_eq!(code(bea, "aaaa").await.unwrap(), None, "the code belongs to another account");
    assert_eq!(code(bea, "bbbb").await.unwrap().as_deref(), Some("bbbb"));
    let unknown = pinfold_model::AccountId(7);
    assert_eq!(code(unknown, "cccc").await.unwrap(), None);
}

#[tokio::test]
async fn concurrent_requests_create_one_referral_code() {
    let world = World::start().await;
    let ada = world.account("ada", 1).await;
    let codes = (0..20).map(|n| world.store.referral_code(ada, format!("code{n}")));
    let codes = futures::future::join_all(codes).await;
    let codes: std::collections::HashSet<_> = codes.into_iter().map(|code| code.unwrap().unwrap()).collect();
    assert_eq!(codes.len(), 1);
}

#[tokio::test]
async fn referrer_is_set_once_and_is_never_the_account_itself() {
    let world = World::start().await;
    let (ada, bea) = (world.account("ada", 1).await, world.account("bea", 1).await);
    for (account, code) in [(ada, "ada"), (bea, "bea")] {
        world.store.referral_code(account, code.to_owned()).await.unwrap();
    }
    let refer = |account, code: &str| world.store.set_referrer(account, code.to_owned());
    assert!(!refer(bea, "nobody").await.unwrap());
    assert!(!refer(bea, "bea").await.unwrap());
    assert!(refer(bea, "ada").await.unwrap());
    assert!(!refer(bea, "ada").await.unwrap());
    let of = async |account| world.store.referrals(account, 0, 10, 10).await.unwrap();
    assert_eq!((of(ada).await.total, of(ada).await.referrals[0].account), (1, bea));
    assert_eq!(of(bea).await.total, 0);
}

#[tokio::test]
async fn referrals_have_pages_and_a_bounded_total() {
    let world = World::start().await;
    let ada = world.account("ada", 1).await;
    world.store.referral_code(ada, "ada".to_owned()).await.unwrap();
    for n in 0..7 {
        let account = world.account(&format!("guest{n}"), 1).await;
        assert!(world.store.set_referrer(account, "ada".to_owned()).await.unwrap());
    }
    let page = world.store.referrals(ada, 4, 10, 5).await.unwrap();
    assert_eq!((page.total, page.referrals.len()), (5, 3));
    assert!(page.referrals.is_sorted_by(|newer, older| newer.account > older.account));
}

//! Tests of the second factor.

use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use pinfold_model::{Actor, Clock, IpRules, ScopeSet, TokenName};
use pinfold_service::{AccountEdit, Caller, Error, LoggedIn, Login, LoginError, NewToken, Via};
use totp_rs::{Builder, Secret};

use crate::logins::{PASSWORD, email};
use crate::world::World;

const STEP: Duration = Duration::from_secs(30);
const VIA: Via = Via::api(None);

/// An account with an authenticator app.
struct Ada<'w> {
    world: &'w World,
    caller: Caller,
    secret: String,
}

impl<'w> Ada<'w> {
    /// Creates an account with the second factor enabled. Its first code is used; the clock is at the next one.
    async fn start(world: &'w World) -> Self {
        let ada = Self::set_up(world).await;
        world.service.accounts.enable_second_factor(&ada.caller, Some(&ada.code())).await.unwrap();
        world.clock.advance(STEP);
        ada
    }

    async fn set_up(world: &'w World) -> Self {
        let caller = world.signed_up("ada").await.caller;
        let setup = world.service.accounts.set_up_second_factor(&caller).await.unwrap();
        assert!(setup.otpauth_url.contains(&setup.secret));
        Self { world, caller, secret: setup.secret }
    }

    /// The code that the app shows now.
    fn code(&self) -> String {
        self.code_in(0)
    }

    fn code_in(&self, seconds: i64) -> String {
        let secret = BASE32_NOPAD.decode(self.secret.as_bytes()).unwrap();
        let totp = Builder::new().with_secret(Secret::new_stack(secret.try_into().unwrap())).build().unwrap();
        totp.generate(u64::try_from(self.world.clock.now().as_ms() / 1000 + seconds).unwrap()).to_string()
    }

    /// A code that is not valid at any near time.
    fn wrong_code(&self) -> String {
        let near = [-60, -30, 0, 30, 60].map(|seconds| self.code_in(seconds));
        (0..10).map(|n| format!("00000{n}")).find(|code| !near.contains(code)).unwrap()
    }

    async fn temporary_token(&self) -> String {
        let login =
            self.world.service.logins.login(email("ada").as_str(), PASSWORD.to_owned(), VIA).await.unwrap();
        match login {
            Login::NeedsCode { temporary_token } => temporary_token.reveal().to_owned(),
            Login::Done(_) => panic!("a code is required"),
        }
    }

    /// The caller as it is authenticated now.
    async fn caller_now(&self) -> Caller {
        Caller { account: self.world.fresh(self.caller.account.id).await, ..self.caller.clone() }
    }

    async fn verify(&self, token: &str, code: &str) -> Result<LoggedIn, Error> {
        self.world.service.logins.verify(token, Some(code), VIA).await
    }
}

#[tokio::test]
async fn second_factor_is_required_after_the_password() {
    let world = World::start().await;
    let ada = Ada::start(&world).await;
    let token = ada.temporary_token().await;
    assert!(world.service.tokens.authenticate(&token, VIA).await.is_err(), "it is not a session token");
    assert_eq!(
        ada.verify(&token, &ada.wrong_code()).await.err(),
        Some(Error::Login(LoginError::SecondFactorInvalid))
    );
    let session = ada.verify(&token, &ada.code()).await.unwrap();
    assert!(world.prove(&session).await.unwrap().account.two_factor);
    world.clock.advance(STEP);
    let again = ada.verify(&token, &ada.code()).await;
    assert_eq!(
        again.err(),
        Some(Error::Login(LoginError::TemporaryTokenInvalid)),
        "a temporary token works once"
    );
}

#[tokio::test]
async fn code_works_once() {
    let world = World::start().await;
    let ada = Ada::start(&world).await;
    let code = ada.code();
    ada.verify(&ada.temporary_token().await, &code).await.unwrap();
    let replayed = ada.verify(&ada.temporary_token().await, &code).await;
    assert_eq!(replayed.err(), Some(Error::Login(LoginError::SecondFactorInvalid)));
    let replayed = world.service.accounts.check_second_factor(&ada.caller_now().await, Some(&code)).await;
    assert_eq!(
        replayed.err(),
        Some(Error::Login(LoginError::SecondFactorInvalid)),
        "also for another operation"
    );
    world.clock.advance(STEP);
    ada.verify(&ada.temporary_token().await, &ada.code()).await.unwrap();
}

#[tokio::test]
async fn concurrent_logins_with_one_code_open_one_session() {
    let world = World::start().await;
    let ada = Ada::start(&world).await;
    let (one, other) = (ada.temporary_token().await, ada.temporary_token().await);
    let code = ada.code();
    let (first, second) = tokio::join!(ada.verify(&one, &code), ada.verify(&other, &code));
    assert!(first.is_ok() != second.is_ok());
    assert_eq!(first.and(second).err(), Some(Error::Login(LoginError::SecondFactorInvalid)));

    world.clock.advance(STEP);
    let (token, code) = (ada.temporary_token().await, ada.code());
    let (first, second) = tokio::join!(ada.verify(&token, &code), ada.verify(&token, &code));
    assert!(first.is_ok() != second.is_ok(), "one temporary token opens one session");
}

#[tokio::test]
async fn temporary_token_expires_by_time_and_attempts() {
    let world = World::start().await;
    let ada = Ada::start(&world).await;
    let token = ada.temporary_token().await;
    world.clock.advance(Duration::from_secs(5 * 60));
    assert_eq!(
        ada.verify(&token, &ada.code()).await.err(),
        Some(Error::Login(LoginError::TemporaryTokenInvalid))
    );

    let token = ada.temporary_token().await;
    let wrong = ada.wrong_code();
    for _ in 0..5 {
        assert_eq!(
            ada.verify(&token, &wrong).await.err(),
            Some(Error::Login(LoginError::SecondFactorInvalid))
        );
    }
    assert_eq!(
        ada.verify(&token, &ada.code()).await.err(),
        Some(Error::Login(LoginError::TemporaryTokenInvalid))
    );
    assert_eq!(
        ada.verify("made up", &ada.code()).await.err(),
        Some(Error::Login(LoginError::TemporaryTokenInvalid))
    );
}

#[tokio::test]
async fn account_under_attack_can_log_in_after_a_wait() {
    let world = World::start().await;
    let ada = Ada::start(&world).await;
    let wrong = ada.wrong_code();
    let mut refused = 0;
    for _ in 0..3 {
        let token = ada.temporary_token().await;
        for _ in 0..4 {
            let error = ada.verify(&token, &wrong).await.unwrap_err();
            if error == Error::Login(LoginError::SecondFactorInvalid) {
                refused += 1;
            } else {
                assert_eq!(
                    error,
                    Error::Login(LoginError::TooManyTries {
                        limit: 10,
                        at: world.clock.now(),
                        retry_after: Duration::from_secs(60)
                    })
                );
            }
        }
    }
    assert_eq!(refused, 10, "counted over all temporary tokens");
    world.clock.advance(Duration::from_secs(60));
    let token = ada.temporary_token().await;
    ada.verify(&token, &ada.code()).await.expect("the owner can log in a minute later");
}

#[tokio::test]
async fn second_factor_is_enabled_by_its_first_code() {
    let world = World::start().await;
    let ada = Ada::set_up(&world).await;
    let accounts = &world.service.accounts;
    let enable = async |code: Option<&str>| accounts.enable_second_factor(&ada.caller, code).await;
    assert_eq!(enable(None).await, Err(Error::Login(LoginError::SecondFactorRequired)));
    assert_eq!(enable(Some(" ")).await, Err(Error::Login(LoginError::SecondFactorRequired)));
    assert_eq!(enable(Some(&ada.wrong_code())).await, Err(Error::Login(LoginError::SecondFactorInvalid)));
    assert!(world.log_in("ada", PASSWORD).await.is_ok(), "not enabled yet");
    enable(Some(&ada.code())).await.unwrap();
    assert_eq!(enable(Some(&ada.code())).await, Err(Error::Login(LoginError::SecondFactorOn)));
    let replaced = accounts.set_up_second_factor(&ada.caller).await;
    assert_eq!(
        replaced.err(),
        Some(Error::Login(LoginError::SecondFactorOn)),
        "a stolen session can't replace it"
    );
    let bob = world.signed_up("bob").await.caller;
    assert_eq!(
        accounts.enable_second_factor(&bob, Some("123456")).await,
        Err(Error::Login(LoginError::SecondFactorOff))
    );
}

#[tokio::test]
async fn disabling_the_second_factor_requires_password_and_code() {
    let world = World::start().await;
    let ada = Ada::start(&world).await;
    let caller = ada.caller_now().await;
    let disable = async |password: &str, code: Option<&str>| {
        world.service.accounts.disable_second_factor(&caller, password.to_owned(), code).await
    };
    assert_eq!(disable("wrong", Some(&ada.code())).await, Err(Error::Login(LoginError::WrongPassword)));
    assert_eq!(disable(PASSWORD, None).await, Err(Error::Login(LoginError::SecondFactorRequired)));
    assert_eq!(
        disable(PASSWORD, Some(&ada.wrong_code())).await,
        Err(Error::Login(LoginError::SecondFactorInvalid))
    );
    disable(PASSWORD, Some(&ada.code())).await.unwrap();
    assert_eq!(disable(PASSWORD, Some(&ada.code())).await, Err(Error::Login(LoginError::SecondFactorOff)));
    world.log_in("ada", PASSWORD).await.unwrap();
}

#[tokio::test]
async fn operator_disables_a_lost_second_factor() {
    let world = World::start().await;
    let ada = Ada::start(&world).await;
    let token = ada.temporary_token().await;
    world.service.accounts.remove_second_factor(&email("ada")).await.unwrap();
    world.log_in("ada", PASSWORD).await.unwrap();
    assert_eq!(
        ada.verify(&token, &ada.code()).await.err(),
        Some(Error::Login(LoginError::TemporaryTokenInvalid))
    );
    let again = world.service.accounts.remove_second_factor(&email("ada")).await;
    assert_eq!(again, Err(Error::Login(LoginError::SecondFactorOff)));
}

#[tokio::test]
async fn key_operations_require_a_code_except_for_operators() {
    let world = World::start().await;
    let ada = Ada::start(&world).await;
    let (accounts, tokens) = (&world.service.accounts, &world.service.tokens);
    let name = TokenName::parse("key").unwrap();
    let new = NewToken {
        name,
        label: None,
        scopes: ScopeSet::all(),
        ip_allowlist: IpRules::default(),
        expires_at: None,
    };
    let key = tokens.create(ada.caller.account.id, new).await.unwrap().secret;
    let key = tokens.authenticate(key.reveal(), VIA).await.unwrap();
    assert_eq!(
        accounts.check_second_factor(&key, None).await,
        Err(Error::Login(LoginError::SecondFactorRequired))
    );
    accounts.check_second_factor(&key, Some(&ada.code())).await.unwrap();
    let operator = accounts.caller(&email("ada")).await.unwrap();
    accounts.check_second_factor(&operator, None).await.unwrap();
    let bob = world.signed_up("bob").await.caller;
    accounts.check_second_factor(&bob, None).await.expect("the account has none");
}

#[tokio::test]
async fn keys_are_created_and_revoked_with_a_code() {
    let world = World::start().await;
    let ada = Ada::start(&world).await;
    let (tokens, caller) = (&world.service.tokens, ada.caller_now().await);
    let name = TokenName::parse("ci").unwrap();
    let new = || NewToken {
        name: name.clone(),
        label: None,
        scopes: ScopeSet::default_for_key(),
        ip_allowlist: IpRules::default(),
        expires_at: None,
    };
    assert_eq!(
        tokens.create_for(&caller, new(), None).await.err(),
        Some(Error::Login(LoginError::SecondFactorRequired))
    );
    let code = ada.code();
    tokens.create_for(&caller, new(), Some(&code)).await.unwrap();
    let replayed = tokens.revoke_for(&caller, &name, Some(&code)).await;
    assert_eq!(replayed, Err(Error::Login(LoginError::SecondFactorInvalid)));
    world.clock.advance(STEP);
    let code = ada.code();
    assert_eq!(tokens.create_for(&caller, new(), Some(&code)).await.err(), Some(Error::NameTaken));
    let other = TokenName::parse("other").unwrap();
    assert_eq!(tokens.revoke_for(&caller, &other, Some(&code)).await, Err(Error::TokenNotFound));
    tokens
        .revoke_for(&caller, &name, Some(&code))
        .await
        .expect("a refused operation does not use up the code");
}

#[tokio::test]
async fn account_disabled_after_the_password_gets_no_session() {
    let world = World::start().await;
    let ada = Ada::start(&world).await;
    let token = ada.temporary_token().await;
    let edit = AccountEdit { disabled: Some(true), ..AccountEdit::default() };
    world.service.admin.change_account(Actor::OPERATOR, ada.caller.account.id, edit).await.map(drop).unwrap();
    let refused = ada.verify(&token, &ada.code()).await;
    assert_eq!(refused.err(), Some(Error::Login(LoginError::AccountDisabled)));
}

//! Tests of sign-up, login, logout, and of changes that an account makes to itself.

use std::time::Duration;

use pinfold_model::{Actor, AuditEntry, AuditStatus, Email, PlanCode, Role, Scope};
use pinfold_service::{
    AccountEdit, AuthError, Caller, Credential, Error, LogQuery, LoggedIn, Login, LoginError, NewAccount,
    NewSignup, Password, Settings, Source, Via,
};

use crate::world::{DEADLINE, World};

pub(crate) const PASSWORD: &str = "correct horse";
const VIA: Via = Via { source: Source::Web, address: None };

pub(crate) fn email(name: &str) -> Email {
    Email::parse(&format!("{name}@example.org")).unwrap()
}

fn signup(name: &str, password: &str) -> NewSignup {
    let password = Password::parse(password).unwrap();
    NewSignup { email: email(name), name: name.to_owned(), password, referral: None }
}

impl World {
    /// A new account with a session.
    pub(crate) async fn signed_up(&self, name: &str) -> LoggedIn {
        self.service.accounts.sign_up(signup(name, PASSWORD), VIA).await.unwrap()
    }

    pub(crate) async fn log_in(&self, name: &str, password: &str) -> Result<LoggedIn, Error> {
        match self.service.logins.login(email(name).as_str(), password.to_owned(), VIA).await? {
            Login::Done(done) => Ok(*done),
            Login::NeedsCode { .. } => panic!("the account has no second factor"),
        }
    }

    /// The audit log of an account, once it has this number of entries: some are written after the response.
    async fn log_of(&self, caller: &Caller, entries: usize) -> Vec<AuditEntry> {
        let wait = async {
            loop {
                let log = self.service.audit_log.list(caller, LogQuery::default()).await.unwrap().entries;
                if log.len() >= entries {
                    return log;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("the entries are written")
    }

    pub(crate) async fn prove(&self, session: &LoggedIn) -> Result<Caller, AuthError> {
        self.service.tokens.authenticate(session.token.reveal(), VIA).await
    }
}

#[tokio::test]
async fn sign_up_logs_in_with_the_first_plan() {
    let world = World::start().await;
    let ada = world.signed_up("ada").await;
    let caller = world.prove(&ada).await.unwrap();
    assert_eq!((caller.account.role, caller.plan.code.as_str()), (Role::User, "free"));
    assert_eq!(caller.via.source, Source::Web, "the session can belong to a web page");
    assert!(Scope::ALL.into_iter().all(|scope| caller.may(scope) == (scope != Scope::Admin)));
    let again = world.service.accounts.sign_up(signup("ADA", PASSWORD), VIA).await;
    assert_eq!(again.err(), Some(Error::EmailTaken));
}

#[tokio::test]
async fn sign_up_can_be_closed() {
    let world = World::start_with(Settings { signup_open: false, ..Settings::default() }).await;
    let refused = world.service.accounts.sign_up(signup("ada", PASSWORD), VIA).await;
    assert_eq!(refused.err(), Some(Error::Login(LoginError::SignupClosed)));

    let world = World::start().await;
    let own_address = world.service.accounts.sign_up(signup("ada", "Ada@Example.org"), VIA).await;
    assert!(matches!(own_address, Err(Error::InvalidRequest(_))), "{own_address:?}");
    for name in ["", " ", "a\nb", &"x".repeat(256)] {
        let new = NewSignup { name: name.to_owned(), ..signup("ada", PASSWORD) };
        let refused = world.service.accounts.sign_up(new, VIA).await;
        assert!(matches!(refused, Err(Error::InvalidRequest(_))), "{name:?}: {refused:?}");
    }
    assert!(world.service.accounts.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn password_opens_a_session_until_logout() {
    let world = World::start().await;
    let first = world.signed_up("ada").await;
    assert_eq!(world.log_in("ada", "battery staple").await.err(), Some(Error::Login(LoginError::WrongLogin)));
    assert_eq!(world.log_in("eve", PASSWORD).await.err(), Some(Error::Login(LoginError::WrongLogin)));
    let second = world.log_in("ada", PASSWORD).await.unwrap();

    let caller = world.prove(&second).await.unwrap();
    world.service.logins.logout(&caller).await.unwrap();
    assert_eq!(world.prove(&second).await.err(), Some(AuthError::Invalid));
    assert!(world.prove(&first).await.is_ok(), "the other session stays");
    world.service.logins.logout(&caller).await.expect("a repeated logout succeeds");
}

#[tokio::test]
async fn session_survives_a_restart_and_expires() {
    let mut world = World::start().await;
    let ada = world.signed_up("ada").await;
    world.restart().await;
    assert!(world.prove(&ada).await.is_ok());
    world.clock.advance(Duration::from_hours(7 * 24) - Duration::from_secs(1));
    assert!(world.prove(&ada).await.is_ok());
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.prove(&ada).await.err(), Some(AuthError::Invalid));

    world.run_until_idle().await;
    world.clock.set(world.clock_at_start());
    assert_eq!(world.prove(&ada).await.err(), Some(AuthError::Invalid), "its row was deleted");
}

#[tokio::test]
async fn session_token_of_another_server_is_refused() {
    let (world, other) = (World::start().await, World::start().await);
    let (ada, eve) = (world.signed_up("ada").await, other.signed_up("ada").await);
    assert!(world.prove(&ada).await.is_ok() && other.prove(&eve).await.is_ok());
    assert_eq!(world.prove(&eve).await.err(), Some(AuthError::Invalid));
    assert_eq!(other.prove(&ada).await.err(), Some(AuthError::Invalid));
}

#[tokio::test]
async fn password_change_ends_other_sessions() {
    let world = World::start().await;
    let (stolen, own) = (world.signed_up("ada").await, world.log_in("ada", PASSWORD).await.unwrap());
    let caller = world.prove(&own).await.unwrap();
    let new = || Password::parse("battery staple").unwrap();
    let accounts = &world.service.accounts;
    let wrong = accounts.change_password(&caller, "correct horsf".to_owned(), new()).await;
    assert_eq!(wrong, Err(Error::Login(LoginError::WrongPassword)));
    assert!(world.prove(&stolen).await.is_ok());

    accounts.change_password(&caller, PASSWORD.to_owned(), new()).await.unwrap();
    assert_eq!(world.prove(&stolen).await.err(), Some(AuthError::Invalid));
    assert!(world.prove(&own).await.is_ok());
    assert_eq!(world.log_in("ada", PASSWORD).await.err(), Some(Error::Login(LoginError::WrongLogin)));
    world.log_in("ada", "battery staple").await.unwrap();
}

#[tokio::test]
async fn concurrent_password_changes_apply_only_one() {
    let world = World::start().await;
    let caller = world.signed_up("ada").await.caller;
    let change = |new: &str| {
        let (accounts, caller, new) = (&world.service.accounts, &caller, Password::parse(new).unwrap());
        async move { accounts.change_password(caller, PASSWORD.to_owned(), new).await.is_ok() }
    };
    let (one, other) = tokio::join!(change("battery staple"), change("purple monkey"));
    assert!(one != other, "exactly one change succeeds");
    let now = if one { "battery staple" } else { "purple monkey" };
    world.log_in("ada", now).await.unwrap();
}

#[tokio::test]
async fn password_reset_ends_every_session() {
    let world = World::start().await;
    let ada = world.signed_up("ada").await;
    let new = || Password::parse("battery staple").unwrap();
    world.service.accounts.reset_password(&email("ada"), new()).await.unwrap();
    assert_eq!(world.prove(&ada).await.err(), Some(AuthError::Invalid));
    world.log_in("ada", "battery staple").await.unwrap();
    let unknown = world.service.accounts.reset_password(&email("eve"), new()).await;
    assert_eq!(unknown, Err(Error::AccountNotFound));
}

#[tokio::test]
async fn account_without_a_password_can_not_log_in() {
    let world = World::start().await;
    world.account("ada", "free").await;
    assert_eq!(world.log_in("ada", "").await.err(), Some(Error::Login(LoginError::WrongLogin)));
    assert_eq!(world.log_in("ada", PASSWORD).await.err(), Some(Error::Login(LoginError::WrongLogin)));
    world.service.accounts.reset_password(&email("ada"), Password::parse(PASSWORD).unwrap()).await.unwrap();
    world.log_in("ada", PASSWORD).await.unwrap();
}

#[tokio::test]
async fn session_of_an_admin_has_the_scope_admin() {
    let world = World::start().await;
    let new = NewAccount {
        email: email("root"),
        name: "root".to_owned(),
        plan: PlanCode::new("free"),
        role: Role::Admin,
        password: Some(Password::parse(PASSWORD).unwrap()),
    };
    world.service.accounts.create(new).await.unwrap();
    let caller = world.log_in("root", PASSWORD).await.unwrap().caller;
    assert!(caller.may(Scope::Admin));
    assert!(matches!(caller.credential, Credential::Session(_)));
}

#[tokio::test]
async fn logout_requires_a_session() {
    let world = World::start().await;
    let key = world.account("ada", "free").await;
    assert_eq!(world.service.logins.logout(&key).await, Err(Error::Login(LoginError::SessionNeeded)));
}

#[tokio::test]
async fn account_can_be_renamed() {
    let world = World::start().await;
    let caller = world.signed_up("ada").await.caller;
    let renamed = world.service.accounts.rename(&caller, "Ada Lovelace".to_owned()).await.unwrap();
    assert_eq!(renamed.name, "Ada Lovelace");
    assert_eq!(world.fresh(caller.account.id).await.name, "Ada Lovelace");
    let refused = world.service.accounts.rename(&caller, String::new()).await;
    assert!(matches!(refused, Err(Error::InvalidRequest(_))), "{refused:?}");
}

#[tokio::test]
async fn preferences_are_merged_by_name_and_bounded() {
    let world = World::start().await;
    let (ada, bob) = (world.signed_up("ada").await.caller, world.signed_up("bob").await.caller);
    let accounts = &world.service.accounts;
    let set = async |changes: &[(&str, Option<&str>)]| {
        let changes = changes.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)));
        accounts.set_preferences(&ada, changes.collect()).await.map(|all| {
            all.into_iter()
                .map(|preference| format!("{}={}", preference.name, preference.value))
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(set(&[("b", Some("1")), ("a", Some("[]"))]).await.unwrap(), ["a=[]", "b=1"]);
    let (one, other) = tokio::join!(set(&[("b", None)]), set(&[("c", Some("2"))]));
    assert!(one.is_ok() && other.is_ok());
    let large = "x".repeat(9_000);
    assert!(set(&[("large", Some(&large))]).await.is_ok());
    let refused = set(&[("a", None), ("larger", Some(&large))]).await;
    assert!(matches!(refused, Err(Error::InvalidRequest(_))), "{refused:?}");
    assert_eq!(set(&[("large", None)]).await.unwrap(), ["a=[]", "c=2"], "a refused change has no effect");
    assert!(set(&[("", Some("1"))]).await.is_err() && set(&[(&"n".repeat(101), Some("1"))]).await.is_err());
    assert!(accounts.preferences(&bob).await.unwrap().is_empty(), "each account has its own");
    assert_eq!(accounts.preferences(&ada).await.unwrap().len(), 2);
}

#[tokio::test]
async fn logins_are_audited_including_refused_ones() {
    let world = World::start().await;
    let via = Via { source: Source::Web, address: Some("192.0.2.7".parse().unwrap()) };
    let (logins, accounts) = (&world.service.logins, &world.service.accounts);
    let caller = world.service.accounts.sign_up(signup("ada", PASSWORD), via).await.unwrap().caller;
    logins.login("ada@example.org", "wrong".to_owned(), via).await.unwrap_err();
    let new = || Password::parse("battery staple").unwrap();
    accounts.change_password(&caller, "wrong".to_owned(), new()).await.unwrap_err();
    accounts.change_password(&caller, PASSWORD.to_owned(), new()).await.unwrap();
    logins.logout(&caller).await.unwrap();

    let log = world.log_of(&caller, 6).await;
    let mut entries: Vec<_> = log.iter().map(|entry| (entry.action.as_str(), entry.status)).collect();
    entries.sort_by_key(|(action, status)| (*action, status.as_str()));
    assert_eq!(
        entries,
        [
            ("account.create", AuditStatus::Done),
            ("account.login", AuditStatus::Refused),
            ("account.login", AuditStatus::Done),
            ("account.logout", AuditStatus::Done),
            ("account.password", AuditStatus::Refused),
            ("account.password", AuditStatus::Done),
        ]
    );
    assert!(log.iter().all(|entry| entry.by.source == Source::Web && entry.by.address == via.address));
    let refused =
        log.iter().find(|entry| entry.status == AuditStatus::Refused && entry.action == "account.login");
    assert_eq!(refused.unwrap().by.actor, None, "the account is not known");
}

#[tokio::test]
async fn sign_up_with_a_referral_code_is_counted() {
    let world = World::start().await;
    let ada = world.signed_up("ada").await.caller;
    let code = world.service.referrals.list(&ada, 1, 10).await.unwrap().code;
    for (name, referral) in
        [("bob", Some(code.to_uppercase())), ("eve", Some("nobodys".to_owned())), ("dan", None)]
    {
        let new = NewSignup { referral, ..signup(name, PASSWORD) };
        world
            .service
            .accounts
            .sign_up(new, VIA)
            .await
            .expect("an unknown referral code does not prevent a sign-up");
    }
    assert_eq!(world.service.referrals.list(&ada, 1, 10).await.unwrap().total, 1);
}

#[tokio::test]
async fn disabled_account_is_reported_only_after_the_correct_password() {
    let world = World::start().await;
    let ada = world.signed_up("ada").await;
    let set = async |disabled| {
        let edit = AccountEdit { disabled: Some(disabled), ..AccountEdit::default() };
        world
            .service
            .admin
            .change_account(Actor::OPERATOR, ada.caller.account.id, edit)
            .await
            .map(drop)
            .unwrap();
    };
    set(true).await;
    assert_eq!(world.prove(&ada).await.err(), Some(AuthError::AccountDisabled), "takes effect at once");
    let wrong = world.log_in("ada", "battery staple").await;
    assert_eq!(wrong.err(), Some(Error::Login(LoginError::WrongLogin)));
    let right = world.log_in("ada", PASSWORD).await;
    assert_eq!(right.err(), Some(Error::Login(LoginError::AccountDisabled)));
    set(false).await;
    assert!(world.prove(&ada).await.is_err(), "an earlier session stays closed");
    world.log_in("ada", PASSWORD).await.unwrap();
}

//! A failed login takes the same work, whatever the reason is.

use std::sync::Arc;

use pinfold_model::{Email, ManualClock, PlanCode, Role};
use pinfold_store::Store;

use super::NewAccount;
use crate::{Error, LoginError, Offline, Password, Settings, Via};

#[tokio::test]
async fn failed_login_takes_the_same_work_whatever_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("pinfold.db")).await.unwrap();
    let offline = Offline::new(store, Arc::new(ManualClock::default()), Settings::default()).await.unwrap();
    let logins = &offline.accounts.logins;
    for (name, password) in [("ada", Some("correct horse")), ("bob", None)] {
        let new = NewAccount {
            email: Email::parse(&format!("{name}@example.org")).unwrap(),
            name: name.to_owned(),
            plan: PlanCode::new("free"),
            role: Role::User,
            password: password.map(|text| Password::parse(text).unwrap()),
        };
        offline.accounts.create(new).await.unwrap();
    }
    let too_long = "x".repeat(100_000);
    for (tried, (email, password)) in [
        ("ada@example.org", "battery staple"),
        ("ada@example.org", ""),
        ("ada@example.org", &too_long),
        ("bob@example.org", "correct horse"),
        ("carol@example.org", "correct horse"),
        ("no address", "correct horse"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = logins.login(email, password.to_owned(), Via::api(None)).await;
        assert_eq!(answer.err(), Some(Error::Login(LoginError::WrongLogin)), "{email}");
        assert_eq!(offline.accounts.auth.hasher.compared(), tried as u64 + 1, "{email}");
    }
}

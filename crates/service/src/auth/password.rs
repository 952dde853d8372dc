//! Passwords: rules, hashing and verification.
//!
//! Argon2id with the crate's recommended cost takes tens of milliseconds and 19 MiB. It runs on blocking threads, a few hashes
//! at one time; a request that waits too long is refused, so that logins can't exhaust the machine. If there is no hash to
//! compare with, a dummy hash is used: a failed login takes the same time whatever the reason is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use pinfold_model::Email;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::Error;

/// Hashes that are computed at one time. Each takes a core and 19 MiB.
const HASHES_MAX: usize = 4;

/// How long a hash waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// When a client may retry that got no turn.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Compared with if the account has no password: a hash of an unknown password at the usual cost.
const DUMMY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$cGluZm9sZC1kdW1teS1zYWx0$MNcRiCYw5fh5dOyVYB4LxTAMTxQVzdfWrVxmPmSoyY0";

/// Common passwords in lower case. Shorter ones are refused for their length.
const COMMON: [&str; 80] = [
    "00000000",
    "0987654321",
    "11111111",
    "12121212",
    "123123123",
    "12341234",
    "12344321",
    "1234567890",
    "12345678",
    "123456789",
    "123456789a",
    "1234qwer",
    "147258369",
    "1q2w3e4r",
    "1q2w3e4r5t",
    "1qaz2wsx",
    "1qazxsw2",
    "87654321",
    "88888888",
    "987654321",
    "a1234567",
    "a12345678",
    "a1b2c3d4",
    "aa123456",
    "abc12345",
    "abcd1234",
    "abcdefgh",
    "admin123",
    "admin1234",
    "administrator",
    "asdf1234",
    "asdfghjk",
    "asdfghjkl",
    "baseball",
    "changeme",
    "changeme123",
    "charlie1",
    "chocolate",
    "computer",
    "default1",
    "football",
    "football1",
    "guest123",
    "iloveyou",
    "iloveyou1",
    "internet",
    "jennifer",
    "letmein1",
    "letmein123",
    "liverpool",
    "master123",
    "michael1",
    "monkey123",
    "p@ssw0rd",
    "p@ssword",
    "passw0rd",
    "password",
    "password!",
    "password1",
    "password12",
    "password123",
    "pinfold1",
    "princess",
    "princess1",
    "q1w2e3r4",
    "qazwsxedc",
    "qwer1234",
    "qwerty12",
    "qwerty123",
    "qwertyui",
    "qwertyuiop",
    "starwars",
    "sunshine",
    "superman",
    "test1234",
    "testtest",
    "trustno1",
    "welcome1",
    "welcome123",
    "whatever",
];

/// A new password of a valid length. `Debug` hides it.
#[derive(Clone)]
pub struct Password(String);

/// Why a text can't be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too short or too long.
    #[error("The password must have {} to {} bytes", Password::LEN_MIN, Password::LEN_MAX)]
    Length,
    #[error("This password is too common; choose another")]
    Common,
}

impl Password {
    /// Minimum length in bytes.
    pub const LEN_MIN: usize = 8;
    /// Maximum length in bytes: the cost of hashing grows with it.
    pub const LEN_MAX: usize = 1_024;

    /// Checks a password.
    ///
    /// # Errors
    /// [`PasswordError`] if it is too short, too long, or common.
    pub fn parse(text: impl Into<String>) -> Result<Self, PasswordError> {
        let text = text.into();
        if !(Self::LEN_MIN..=Self::LEN_MAX).contains(&text.len()) {
            return Err(PasswordError::Length);
        }
        let lower = text.to_lowercase();
        let mut chars = lower.chars();
        let first = chars.next();
        if COMMON.contains(&lower.as_str()) || chars.all(|c| Some(c) == first) {
            return Err(PasswordError::Common);
        }
        Ok(Self(text))
    }

    /// Checks that it is not the account's e-mail address.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`].
    pub(crate) fn check_for(&self, email: &Email) -> Result<(), Error> {
        if self.0.trim().to_lowercase() == email.as_str() {
            return Err(Error::InvalidRequest("The password must not be the e-mail address".to_owned()));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Hashes and verifies passwords, a few at one time.
pub(crate) struct Hasher {
    turns: Arc<Semaphore>,
    wait: Duration,
    compared: AtomicU64,
}

impl Default for Hasher {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(HASHES_MAX)), wait: WAIT_MAX, compared: AtomicU64::new(0) }
    }
}

impl Hasher {
    /// Hashes a password, as a PHC string.
    pub(crate) async fn hash(&self, password: Password) -> Result<String, Error> {
        let hashed = self.run(move || {
            let hash: Result<PasswordHash, _> = Argon2::default().hash_password(password.0.as_bytes());
            hash.map(|hash| hash.to_string())
        });
        hashed.await?.map_err(|error| {
            tracing::error!(%error, "failed to hash a password");
            Error::Internal
        })
    }

    /// Whether a text is the password of this hash. Without a hash, and for a text that no password is as long as,
    /// it takes the same work and is never right.
    pub(crate) async fn compare(&self, typed: String, hash: Option<String>) -> Result<bool, Error> {
        let typed = if typed.len() > Password::LEN_MAX { String::new() } else { typed };
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| DUMMY.to_owned());
        let right =
            self.run(move || Argon2::default().verify_password(typed.as_bytes(), hash.as_str()).is_ok());
        let right = right.await?;
        self.compared.fetch_add(1, Ordering::Relaxed);
        Ok(known && right)
    }

    /// Number of comparisons, including those with the dummy hash.
    #[cfg(test)]
    pub(crate) fn compared(&self) -> u64 {
        self.compared.load(Ordering::Relaxed)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let busy = Error::Unavailable { retry_after: Some(RETRY_AFTER) };
        let Ok(Ok(turn)) = timeout(self.wait, Arc::clone(&self.turns).acquire_owned()).await else {
            tracing::warn!("password hash refused: too many are waiting");
            return Err(busy);
        };
        // The turn is held until the work is done, also if the request is gone.
        let work = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        work.await.map_err(|error| {
            tracing::error!(%error, "failed to hash a password");
            Error::Internal
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_long_and_common_passwords_are_refused() {
        for (bad, error) in [
            ("1234567", PasswordError::Length),
            ("Password123", PasswordError::Common),
            ("zzzzzzzzzzzz", PasswordError::Common),
            ("P@ssw0rd", PasswordError::Common),
        ] {
            assert_eq!(Password::parse(bad).err(), Some(error), "{bad}");
        }
        assert_eq!(Password::parse("x".repeat(1025)).err(), Some(PasswordError::Length));
        let email = Email::parse("ada@example.org").unwrap();
        let password = Password::parse(" Ada@Example.org").unwrap();
        assert!(matches!(password.check_for(&email), Err(Error::InvalidRequest(_))));
        assert!(Password::parse("correct horse").unwrap().check_for(&email).is_ok());
        assert_eq!(format!("{password:?}"), "Password(…)");
        assert!(COMMON.iter().all(|word| word.len() >= Password::LEN_MIN && *word == word.to_lowercase()));
    }

    #[tokio::test]
    async fn only_the_exact_password_matches() {
        let hasher = Hasher::default();
        let hash = hasher.hash(Password::parse("correct horse").unwrap()).await.unwrap();
        assert!(hasher.compare("correct horse".to_owned(), Some(hash.clone())).await.unwrap());
        for wrong in ["correct horsf", "", &"x".repeat(5_000)] {
            assert!(!hasher.compare(wrong.to_owned(), Some(hash.clone())).await.unwrap());
        }
        assert!(!hasher.compare("correct horse".to_owned(), None).await.unwrap());
        assert_eq!(hasher.compared(), 5, "the dummy hash was used as well");
    }

    #[test]
    fn dummy_hash_has_the_cost_of_a_real_one() {
        let cost = |hash: &str| hash.split('$').nth(3).map(str::to_owned);
        let hash: PasswordHash = Argon2::default().hash_password(b"correct horse").unwrap();
        assert_eq!(cost(DUMMY), cost(&hash.to_string()));
        let verified = Argon2::default().verify_password(b"correct horse", DUMMY);
        assert_eq!(verified, Err(argon2::password_hash::Error::PasswordInvalid), "it is a valid hash");
    }

    #[tokio::test]
    async fn hash_without_a_turn_is_refused_with_retry_after() {
        let hasher = Hasher { wait: Duration::ZERO, ..Hasher::default() };
        let turns = Arc::clone(&hasher.turns).acquire_many_owned(4).await.unwrap();
        let busy = Error::Unavailable { retry_after: Some(RETRY_AFTER) };
        assert_eq!(hasher.compare("correct horse".to_owned(), None).await, Err(busy));
        drop(turns);
        assert_eq!(hasher.compare("correct horse".to_owned(), None).await, Ok(false));
    }
}

//! The second factor: codes that change each 30 seconds (TOTP, RFC 6238, with HMAC-SHA1 and six digits, which is what
//! every app for it does).
//!
//! A code is good in its own time step and the ones before and after, since clocks differ, and only once: it is used
//! up, and all before it, in the transaction that acts on it. Tries are counted by account before the code is looked
//! at, and a right one gives its try back.

use std::fmt::Write as _;
use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use pinfold_model::{Actor, Email, Timestamp};
use pinfold_store::{AttemptBucket, AuditEvent, SecondFactor, TotpCode};
use totp_rs::{Algorithm, Builder, Totp};

use crate::core::unavailable;
use crate::{Accounts, Caller, Credential, Error, LoginError};

/// How long a code is shown, in seconds.
const STEP_SECONDS: u64 = 30;

/// Digits of a code.
const DIGITS: u8 = 6;

/// Steps before and after the present one whose codes are good as well (RFC 6238, section 5.2).
const SKEW: u64 = 1;

/// Bytes of a secret: 160 bits (RFC 4226, section 4).
const SECRET_LEN: usize = 20;

/// Wrong codes that an account may be shown: a few at once, then one a minute. With three codes good out of a
/// million, guessing takes months on average, and the owner never waits longer than a minute.
pub(crate) const TRIES: AttemptBucket = AttemptBucket { tries: 10, refill: Duration::from_secs(60) };

/// The longest code that is looked at; apps show `123 456`.
const CODE_LEN_MAX: usize = 16;

/// What an authenticator app is given.
#[derive(Clone)]
pub struct SecondFactorSetup {
    /// The secret, in base32.
    pub secret: String,
    /// All of it, as a URL that apps understand.
    pub otpauth_url: String,
}

impl std::fmt::Debug for SecondFactorSetup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecondFactorSetup(…)")
    }
}

impl Accounts {
    /// Makes a new secret for the caller, which is in force once a code of it was shown.
    ///
    /// # Errors
    /// [`LoginError::SecondFactorOn`].
    pub async fn set_up_second_factor(&self, caller: &Caller) -> Result<SecondFactorSetup, Error> {
        let mut random = [0; SECRET_LEN];
        getrandom::fill(&mut random).map_err(|error| {
            tracing::error!(%error, "the system has no randomness");
            Error::Internal
        })?;
        let secret = BASE32_NOPAD.encode(&random);
        let now = self.core.clock.now();
        let set_up =
            self.core.store.set_up_second_factor(caller.account.id, secret.clone(), caller.by(), now);
        if !set_up.await.map_err(unavailable)? {
            return Err(Error::Login(LoginError::SecondFactorOn));
        }
        let otpauth_url = otpauth_url(&caller.account.email, &secret);
        Ok(SecondFactorSetup { secret, otpauth_url })
    }

    /// Puts the second factor in force that was set up, with its first code.
    ///
    /// # Errors
    /// [`LoginError::SecondFactorOn`], [`LoginError::SecondFactorOff`] when none was set up, and as
    /// [`check_second_factor`](Self::check_second_factor).
    pub async fn enable_second_factor(&self, caller: &Caller, code: Option<&str>) -> Result<(), Error> {
        let factor = self.factor(caller).await?.ok_or(Error::Login(LoginError::SecondFactorOff))?;
        if factor.is_on {
            return Err(Error::Login(LoginError::SecondFactorOn));
        }
        let (id, now) = (caller.account.id, self.core.clock.now());
        let used = self.try_code(caller, &factor, code).await?;
        let turned =
            self.core.store.enable_second_factor(id, used, caller.by(), now).await.map_err(unavailable)?;
        if turned { Ok(()) } else { Err(Error::Login(LoginError::SecondFactorInvalid)) }
    }

    /// Removes the second factor.
    ///
    /// # Errors
    /// [`LoginError::WrongPassword`], [`LoginError::SecondFactorOff`] when none is in force, and as
    /// [`check_second_factor`](Self::check_second_factor).
    pub async fn disable_second_factor(
        &self,
        caller: &Caller,
        password: String,
        code: Option<&str>,
    ) -> Result<(), Error> {
        let factor = self
            .factor(caller)
            .await?
            .filter(|factor| factor.is_on)
            .ok_or(Error::Login(LoginError::SecondFactorOff))?;
        self.check_password(caller, password).await?;
        let used = self.try_code(caller, &factor, code).await?;
        let (id, now) = (caller.account.id, self.core.clock.now());
        let turned = self
            .core
            .store
            .disable_second_factor(id, Some(used), caller.by(), now)
            .await
            .map_err(unavailable)?;
        if turned { Ok(()) } else { Err(Error::Login(LoginError::SecondFactorInvalid)) }
    }

    /// Removes the second factor of an account whose owner has lost it, as an operator may.
    ///
    /// # Errors
    /// [`Error::AccountNotFound`], [`LoginError::SecondFactorOff`].
    pub async fn remove_second_factor(&self, email: &Email) -> Result<(), Error> {
        let account = self.by_email(email).await?;
        self.core.remove_second_factor(Actor::OPERATOR, account.id).await
    }

    /// Asks the caller for a code, if the account has a second factor in force, and uses it up. Operators are asked
    /// for none.
    ///
    /// # Errors
    /// [`LoginError::SecondFactorRequired`] when there is no code; [`LoginError::SecondFactorInvalid`] when it is wrong
    /// or was used before; [`LoginError::TooManyTries`].
    pub async fn check_second_factor(&self, caller: &Caller, code: Option<&str>) -> Result<(), Error> {
        if caller.credential == Credential::Operator || !caller.account.two_factor {
            return Ok(());
        }
        // It may have been removed since the credential was proven.
        let Some(factor) = self.factor(caller).await?.filter(|factor| factor.is_on) else { return Ok(()) };
        let used = self.try_code(caller, &factor, code).await?;
        let was_new = self.core.store.consume_code(caller.account.id, used).await.map_err(unavailable)?;
        if was_new { Ok(()) } else { Err(Error::Login(LoginError::SecondFactorInvalid)) }
    }

    async fn factor(&self, caller: &Caller) -> Result<Option<SecondFactor>, Error> {
        self.core.store.second_factor(caller.account.id).await.map_err(unavailable)
    }

    /// Counts a try and looks at the code.
    async fn try_code(
        &self,
        caller: &Caller,
        factor: &SecondFactor,
        code: Option<&str>,
    ) -> Result<TotpCode, Error> {
        let code = code
            .map(str::trim)
            .filter(|code| !code.is_empty())
            .ok_or(Error::Login(LoginError::SecondFactorRequired))?;
        let (id, now) = (caller.account.id, self.core.clock.now());
        if let Some(retry_after) =
            self.core.store.take_code_attempt(id, TRIES, now).await.map_err(unavailable)?
        {
            return Err(Error::Login(LoginError::TooManyTries { limit: TRIES.tries, at: now, retry_after }));
        }
        right_code(factor, code, now).ok_or_else(|| {
            self.core.log_later(AuditEvent::new(id, caller.by(), "2fa.verify", "code").refused());
            Error::Login(LoginError::SecondFactorInvalid)
        })
    }
}

/// The code, if it is right now and newer than the last that was used.
pub(crate) fn right_code(factor: &SecondFactor, code: &str, now: Timestamp) -> Option<TotpCode> {
    if code.len() > CODE_LEN_MAX {
        return None;
    }
    let digits: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let totp = totp(&factor.secret)?;
    let present = u64::try_from(now.as_ms()).ok()? / 1000 / STEP_SECONDS;
    let last = u64::try_from(factor.last_step).unwrap_or(0);
    let mut window = present.saturating_sub(SKEW)..=present.saturating_add(SKEW);
    let step = window.find(|step| *step > last && totp.check(&digits, step * STEP_SECONDS).is_some())?;
    let step = i64::try_from(step).ok()?;
    Some(TotpCode { secret: factor.secret.clone(), step, bucket: TRIES })
}

fn totp(secret: &str) -> Option<Totp> {
    let secret: [u8; SECRET_LEN] = BASE32_NOPAD.decode(secret.as_bytes()).ok()?.try_into().ok()?;
    let builder = Builder::new().with_algorithm(Algorithm::SHA1).with_digits(DIGITS).with_skew(0);
    builder.with_step_duration(STEP_SECONDS).with_secret(totp_rs::Secret::new_stack(secret)).build().ok()
}

/// The URL that apps read: `otpauth://totp/ISSUER:ACCOUNT?secret=…&issuer=…`.
fn otpauth_url(email: &Email, secret: &str) -> String {
    let mut account = String::new();
    for byte in email.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            account.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(account, "%{byte:02X}");
        }
    }
    format!(
        "otpauth://totp/Pinfold:{account}?secret={secret}&issuer=Pinfold&algorithm=SHA1&digits={DIGITS}&period={STEP_SECONDS}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `12345678901234567890`, the secret of RFC 6238's test vectors.
    const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    fn step_of(code: &str, last_step: i64, second: i64) -> Option<i64> {
        let factor = SecondFactor { secret: SECRET.to_owned(), is_on: true, last_step };
        right_code(&factor, code, Timestamp::from_ms(second * 1000)).map(|used| used.step)
    }

    #[test]
    fn codes_are_those_of_the_standard() {
        // RFC 6238, appendix B, the last six of its eight digits.
        for (second, code) in
            [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924"), (20_000_000_000, "353130")]
        {
            assert_eq!(step_of(code, 0, second), Some(second / 30), "{second}");
        }
        assert_eq!(step_of("287 082", 0, 59), Some(1), "as apps show it");
    }

    #[test]
    fn a_code_is_good_one_step_around_its_own_and_not_again() {
        let step = 1_111_111_109 / 30;
        for (off, found) in [(-2, None), (-1, Some(step)), (1, Some(step)), (2, None)] {
            assert_eq!(step_of("081804", 0, 1_111_111_109 + off * 30), found, "{off}");
        }
        assert_eq!(step_of("081804", step - 1, 1_111_111_109), Some(step));
        assert_eq!(step_of("081804", step, 1_111_111_109), None);
        assert_eq!(step_of("081804", step + 1, 1_111_111_109), None, "nor one before the last");
    }

    #[test]
    fn what_is_no_code_is_wrong() {
        for wrong in ["", "28708", "2870822", "28708x", "٢٨٧٠٨٢", "-287082", "287082\0", &"2".repeat(10_000)]
        {
            assert_eq!(step_of(wrong, 0, 59), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_url_is_what_apps_read() {
        let email = Email::parse("ada+pins@example.org").unwrap();
        assert_eq!(
            otpauth_url(&email, SECRET),
            "otpauth://totp/Pinfold:ada%2Bpins%40example.org?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Pinfold\
             &algorithm=SHA1&digits=6&period=30"
        );
    }
}

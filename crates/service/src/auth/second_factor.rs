//! The second factor: codes that change every 30 seconds (TOTP, RFC 6238, with HMAC-SHA1 and six digits, as all authenticator
//! apps use).
//!
//! A code is valid in its own time step and in the ones before and after, because clocks differ, and only once: it and all
//! codes before it are consumed in the transaction that acts on it. Attempts are counted per account before a code is checked,
//! and a correct code gives its attempt back.

use std::fmt::Write as _;
use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use pinfold_model::{AuditEvent, Email, Timestamp};
use pinfold_store::{AttemptBucket, SecondFactor, TotpCode};
use totp_rs::{Algorithm, Builder, Totp};

use super::Auth;
use super::caller::{Caller, Credential};
use crate::error::log_store_error;
use crate::{Error, LoginError};

/// Time step in seconds.
const STEP_SECONDS: u64 = 30;

/// Digits of a code.
const DIGITS: u8 = 6;

/// Steps before and after the present one whose codes are valid too (RFC 6238, section 5.2).
const SKEW: u64 = 1;

/// Bytes of a secret: 160 bits (RFC 4226, section 4).
const SECRET_LEN: usize = 20;

/// Wrong codes per account: a few at once, then one per minute. With three valid codes out of a million, guessing takes months
/// on average, and the owner never waits longer than a minute.
pub(crate) const TRIES: AttemptBucket = AttemptBucket { tries: 10, refill: Duration::from_secs(60) };

/// Maximum length of a code that is checked; apps show `123 456`.
const CODE_LEN_MAX: usize = 16;

impl Auth {
    /// Requires a code from the caller, if the account has a second factor, and consumes it. Operators need none.
    ///
    /// # Errors
    /// [`LoginError::SecondFactorRequired`] without a code; [`LoginError::SecondFactorInvalid`] for a wrong or used code;
    /// [`LoginError::TooManyTries`].
    pub(crate) async fn check_second_factor(&self, caller: &Caller, code: Option<&str>) -> Result<(), Error> {
        if caller.credential == Credential::Operator || !caller.account.two_factor {
            return Ok(());
        }
        // It may have been disabled since the credential was checked.
        let factor = self.second_factor(caller).await?;
        let Some(factor) = factor.filter(|factor| factor.is_on) else { return Ok(()) };
        let code = self.try_code(caller, &factor, code).await?;
        let was_new = self.store.consume_code(caller.account.id, code).await.map_err(log_store_error)?;
        if was_new { Ok(()) } else { Err(Error::Login(LoginError::SecondFactorInvalid)) }
    }

    pub(crate) async fn second_factor(&self, caller: &Caller) -> Result<Option<SecondFactor>, Error> {
        self.store.second_factor(caller.account.id).await.map_err(log_store_error)
    }

    /// Counts an attempt, and checks the code.
    pub(crate) async fn try_code(
        &self,
        caller: &Caller,
        factor: &SecondFactor,
        code: Option<&str>,
    ) -> Result<TotpCode, Error> {
        let code = required_code(code)?;
        let (id, now) = (caller.account.id, self.clock.now());
        if let Some(retry_after) =
            self.store.take_code_attempt(id, TRIES, now).await.map_err(log_store_error)?
        {
            return Err(too_many_tries(now, retry_after));
        }
        right_code(factor, code, now).ok_or_else(|| {
            let event = AuditEvent::new(id, caller.actor(), "2fa.verify", "code");
            self.audit.record_later(event.refused());
            Error::Login(LoginError::SecondFactorInvalid)
        })
    }
}

/// The code of a request, without blanks around it.
pub(super) fn required_code(code: Option<&str>) -> Result<&str, Error> {
    let code = code.map(str::trim).filter(|code| !code.is_empty());
    code.ok_or(Error::Login(LoginError::SecondFactorRequired))
}

pub(super) fn too_many_tries(now: Timestamp, retry_after: Duration) -> Error {
    Error::Login(LoginError::TooManyTries { limit: TRIES.tries, at: now, retry_after })
}

/// The code, if it is valid now and newer than the last consumed one.
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

/// A new secret, in base32.
///
/// # Errors
/// [`Error::Internal`] if the system provides no random bytes.
pub(crate) fn new_secret() -> Result<String, Error> {
    let mut random = [0; SECRET_LEN];
    getrandom::fill(&mut random).map_err(|error| {
        tracing::error!(%error, "failed to read random bytes from the system");
        Error::Internal
    })?;
    Ok(BASE32_NOPAD.encode(&random))
}

/// The URL for authenticator apps: `otpauth://totp/ISSUER:ACCOUNT?secret=…&issuer=…`.
pub(crate) fn otpauth_url(email: &Email, secret: &str) -> String {
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
    fn codes_match_the_rfc_test_vectors() {
        // RFC 6238, appendix B, the last six of its eight digits.
        for (second, code) in
            [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924"), (20_000_000_000, "353130")]
        {
            assert_eq!(step_of(code, 0, second), Some(second / 30), "{second}");
        }
        assert_eq!(step_of("287 082", 0, 59), Some(1), "as apps show it");
    }

    #[test]
    fn code_is_valid_one_step_around_its_own_and_once() {
        let step = 1_111_111_109 / 30;
        for (off, found) in [(-2, None), (-1, Some(step)), (1, Some(step)), (2, None)] {
            assert_eq!(step_of("081804", 0, 1_111_111_109 + off * 30), found, "{off}");
        }
        assert_eq!(step_of("081804", step - 1, 1_111_111_109), Some(step));
        assert_eq!(step_of("081804", step, 1_111_111_109), None);
        assert_eq!(step_of("081804", step + 1, 1_111_111_109), None, "nor is an older one");
    }

    #[test]
    fn malformed_code_is_refused() {
        for wrong in ["", "28708", "2870822", "28708x", "٢٨٧٠٨٢", "-287082", "287082\0", &"2".repeat(10_000)]
        {
            assert_eq!(step_of(wrong, 0, 59), None, "{wrong:?}");
        }
    }

    #[test]
    fn otpauth_url_is_percent_encoded() {
        let email = Email::parse("ada+pins@example.org").unwrap();
        assert_eq!(
            otpauth_url(&email, SECRET),
            "otpauth://totp/Pinfold:ada%2Bpins%40example.org?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Pinfold\
             &algorithm=SHA1&digits=6&period=30"
        );
    }
}

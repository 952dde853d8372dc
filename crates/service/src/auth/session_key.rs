//! Session tokens: JWTs (RFC 7519) that this service signs for itself, with HMAC-SHA256.
//!
//! A token names its account and its session. It does not prove that the session still exists: the session's row is read for
//! every request.

use data_encoding::HEXLOWER;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use pinfold_model::{AccountId, SessionId, Timestamp};
use serde::{Deserialize, Serialize};

use super::Auth;
use super::logins::SessionToken;
use crate::Error;
use crate::error::log_store_error;

/// The name of the secret in the store.
const SECRET: &str = "session-tokens";

/// Bytes of the secret: as many as the hash has (RFC 7518, section 3.2).
const SECRET_LEN: usize = 32;

/// The issuer of the tokens, which is also their only audience.
const ISSUER: &str = "pinfold";

/// Signs and verifies session tokens.
pub(crate) struct SessionKey {
    signing: EncodingKey,
    checking: DecodingKey,
    validation: Validation,
}

/// The claims of a valid token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionClaim {
    pub(crate) account: AccountId,
    pub(crate) session: SessionId,
    pub(crate) expires_at: Timestamp,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    sid: String,
    /// Unix seconds.
    iat: i64,
    /// Unix seconds.
    exp: i64,
}

impl SessionKey {
    /// The key of this service. Created on first use.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`] if the store fails or the secret is damaged.
    pub(crate) async fn of(auth: &Auth) -> Result<&Self, Error> {
        let make = async || {
            let mut random = [0; SECRET_LEN];
            getrandom::fill(&mut random).map_err(|error| {
                tracing::error!(%error, "failed to read random bytes from the system");
                Error::Internal
            })?;
            let secret =
                auth.store.secret(SECRET, HEXLOWER.encode(&random)).await.map_err(log_store_error)?;
            let secret = HEXLOWER.decode(secret.as_bytes()).ok().filter(|secret| secret.len() == SECRET_LEN);
            secret.as_deref().map(Self::new).ok_or_else(|| {
                tracing::error!("the session token secret in the database is damaged");
                Error::Internal
            })
        };
        auth.session_key.get_or_try_init(make).await
    }

    pub(crate) fn new(secret: &[u8]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        // Expiry is checked with the service's own clock.
        validation.validate_exp = false;
        let (signing, checking) = (EncodingKey::from_secret(secret), DecodingKey::from_secret(secret));
        Self { signing, checking, validation }
    }

    /// Signs the token of a session.
    pub(crate) fn sign(&self, claim: SessionClaim, now: Timestamp) -> Result<SessionToken, Error> {
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: claim.account.to_string(),
            sid: claim.session.to_string(),
            iat: now.as_ms() / 1000,
            exp: claim.expires_at.as_ms() / 1000,
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing);
        token.map(SessionToken).map_err(|error| {
            tracing::error!(%error, "failed to sign a session token");
            Error::Internal
        })
    }

    /// The claims of a token, if this service signed it and it has not expired.
    pub(crate) fn check(&self, token: &str, now: Timestamp) -> Option<SessionClaim> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.checking, &self.validation).ok()?.claims;
        let expires_at = Timestamp::from_ms(claims.exp.checked_mul(1000)?);
        let (account, session) = (claims.sub.parse().ok()?, claims.sid.parse().ok()?);
        (expires_at > now).then_some(SessionClaim { account, session, expires_at })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use data_encoding::BASE64URL_NOPAD;

    use super::*;

    fn claim() -> SessionClaim {
        let expires_at = Timestamp::from_ms(1_767_225_600_000);
        SessionClaim { account: AccountId(7), session: SessionId(9), expires_at }
    }

    fn now() -> Timestamp {
        Timestamp::from_ms(1_767_225_599_000)
    }

    fn part(json: &str) -> String {
        BASE64URL_NOPAD.encode(json.as_bytes())
    }

    #[test]
    fn token_is_valid_until_it_expires() {
        let key = SessionKey::new(&[7; 32]);
        let token = key.sign(claim(), now()).unwrap();
        assert_eq!(key.check(token.reveal(), now()), Some(claim()));
        assert_eq!(key.check(token.reveal(), now().after(Duration::from_secs(1))), None);
        assert_eq!(format!("{token:?}"), "SessionToken(…)");
    }

    #[test]
    fn token_with_another_signature_is_invalid() {
        let key = SessionKey::new(&[7; 32]);
        let token = key.sign(claim(), now()).unwrap();
        let text = token.reveal();
        assert_eq!(SessionKey::new(&[8; 32]).check(text, now()), None);
        let [head, body, signature] = text.split('.').collect::<Vec<_>>()[..] else { panic!("{text}") };
        let none = part(r#"{"alg":"none","typ":"JWT"}"#);
        let hs384 = part(r#"{"alg":"HS384","typ":"JWT"}"#);
        let other =
            part(r#"{"iss":"pinfold","sub":"0000000000000008","sid":"0000000000000009","iat":0,"exp":9e9}"#);
        for forged in [
            format!("{none}.{body}."),
            format!("{none}.{body}.{signature}"),
            format!("{hs384}.{body}.{signature}"),
            format!("{head}.{other}.{signature}"),
            format!("{head}.{body}."),
            format!("{head}.{body}"),
            format!("{head}.{body}.{signature}.{signature}"),
            format!("{head}.{body}.{signature}A"),
            "..".to_owned(),
            String::new(),
        ] {
            assert_eq!(key.check(&forged, now()), None, "{forged}");
        }
    }

    #[test]
    fn claims_of_another_shape_are_not_taken_though_signed() {
        let (key, secret) = (SessionKey::new(&[7; 32]), EncodingKey::from_secret(&[7; 32]));
        let sign = |claims: &[(&str, &str)], exp: Option<i64>, algorithm| {
            #[derive(Serialize)]
            struct Loose<'a> {
                #[serde(flatten)]
                texts: std::collections::BTreeMap<&'a str, &'a str>,
                exp: Option<i64>,
                iat: i64,
            }
            let loose = Loose { texts: claims.iter().copied().collect(), exp, iat: 0 };
            jsonwebtoken::encode(&Header::new(algorithm), &loose, &secret).unwrap()
        };
        let (id, soon) = ("0000000000000009", Some(1_767_225_600));
        let good = [("iss", "pinfold"), ("sub", id), ("sid", id)];
        assert!(key.check(&sign(&good, soon, Algorithm::HS256), now()).is_some());
        assert_eq!(key.check(&sign(&good, soon, Algorithm::HS512), now()), None, "another algorithm");
        assert_eq!(key.check(&sign(&good, None, Algorithm::HS256), now()), None, "for ever");
        assert_eq!(key.check(&sign(&good, Some(i64::MAX), Algorithm::HS256), now()), None, "beyond all time");
        for bad in [
            [("iss", "another"), ("sub", id), ("sid", id)],
            [("iss", "pinfold"), ("sub", "root"), ("sid", id)],
            [("iss", "pinfold"), ("sub", id), ("sid", "' OR 1=1")],
            [("iss", "pinfold"), ("sub", id), ("jti", id)],
        ] {
            assert_eq!(key.check(&sign(&bad, soon, Algorithm::HS256), now()), None, "{bad:?}");
        }
    }
}

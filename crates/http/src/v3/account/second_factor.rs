//! Two-factor authentication with TOTP codes.

use axum::extract::State;
use axum::{Extension, Json};
use data_encoding::BASE64;
use pinfold_service::{SecondFactorSetup, Via};
use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::AppState;
use crate::middleware::auth::RequireSession;
use crate::middleware::rate_limit::count_login;
use crate::v3::account::auth::{SessionReply, needed};
use crate::v3::extract::MaybeJson;
use crate::v3::openapi::{Anyone, Conflict, Guarded, Storage, WithBody};
use crate::v3::reject::{Reject, RejectBody};
use crate::v3::tokens::FactorBody;

/// How wide and high a QR code is at least, in pixels: phones read it from a screen.
const QR_PIXELS_MIN: u32 = 240;

/// Whether two-factor authentication is enabled.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecondFactorReply {
    enabled: bool,
    two_factor_enabled: bool,
}

/// Get the state of two-factor authentication
#[utoipa::path(get, path = "/auth/2fa/status", operation_id = "getTwoFactorStatus", tag = "auth", security(("session" = [])),
    responses((status = 200, description = "Whether it is enabled.", body = SecondFactorReply, example = json!(SecondFactorReply::new(true))), Guarded))]
pub(crate) async fn status(caller: RequireSession) -> Json<SecondFactorReply> {
    Json(SecondFactorReply::new(caller.account.two_factor))
}

impl SecondFactorReply {
    fn new(enabled: bool) -> Self {
        Self { enabled, two_factor_enabled: enabled }
    }
}

/// The secret for an authenticator app, in three forms.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SetupReply {
    /// Base32 text, to type in.
    secret: String,
    /// `otpauth://` URL, to open.
    otpauth_url: String,
    /// QR code, to scan: an SVG image as a data URL.
    qr_code: String,
}

/// Set up two-factor authentication
///
/// Returns a new secret for an authenticator app (TOTP, RFC 6238). It takes effect after `POST /auth/2fa/enable`.
#[utoipa::path(post, path = "/auth/2fa/setup", operation_id = "setUpTwoFactor", tag = "auth", security(("session" = [])),
    responses((status = 200, description = "The secret.", body = SetupReply, example = json!(SetupReply::example())), Guarded, Conflict, Storage))]
pub(crate) async fn set_up(
    State(app): State<AppState>,
    caller: RequireSession,
) -> Result<Json<SetupReply>, Reject> {
    let setup = app.service().accounts.set_up_second_factor(&caller).await?;
    SetupReply::new(setup).map(Json)
}

impl SetupReply {
    fn new(setup: SecondFactorSetup) -> Result<Self, Reject> {
        let code = QrCode::with_error_correction_level(setup.otpauth_url.as_bytes(), EcLevel::M);
        let code = code.map_err(|error| {
            tracing::error!(%error, "failed to render the QR code");
            Reject::internal()
        })?;
        let svg = code.render::<svg::Color<'_>>().min_dimensions(QR_PIXELS_MIN, QR_PIXELS_MIN).build();
        let qr_code = format!("data:image/svg+xml;base64,{}", BASE64.encode(svg.as_bytes()));
        Ok(Self { secret: setup.secret, otpauth_url: setup.otpauth_url, qr_code })
    }

    fn example() -> Self {
        let secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
        Self {
            secret: secret.to_owned(),
            otpauth_url: format!("otpauth://totp/Pinfold:ada%40example.org?secret={secret}&issuer=Pinfold"),
            qr_code: "data:image/svg+xml;base64,PD94bWwg…".to_owned(),
        }
    }
}

/// A code.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct CodeBody {
    /// The current six-digit code.
    #[schema(value_type = Value, required = false, example = "287082")]
    code: Option<Value>,
    #[serde(flatten)]
    other: FactorBody,
}

/// Enable two-factor authentication
///
/// Takes a code of the secret that `POST /auth/2fa/setup` returned.
#[utoipa::path(post, path = "/auth/2fa/enable", operation_id = "enableTwoFactor", tag = "auth", security(("session" = [])),
    request_body(content = CodeBody, example = json!({"code": "287082"})),
    responses(Guarded, WithBody, Conflict, Storage,
        (status = 200, description = "Two-factor authentication is enabled.", body = SecondFactorReply, example = json!(SecondFactorReply::new(true))),
        (status = 400, description = "The code is missing (`2fa_required`) or wrong (`2fa_invalid`).", body = RejectBody, example = json!(invalid_code()))))]
pub(crate) async fn enable(
    State(app): State<AppState>,
    caller: RequireSession,
    MaybeJson(body): MaybeJson<CodeBody>,
) -> Result<Json<SecondFactorReply>, Reject> {
    app.service()
        .accounts
        .enable_second_factor(&caller, body.other.code_or(body.code.as_ref()).as_deref())
        .await?;
    Ok(Json(SecondFactorReply::new(true)))
}

/// Password and code.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct DisableBody {
    /// The account's password.
    password: Option<String>,
    /// The current six-digit code.
    #[schema(value_type = Value, required = false, example = "287082")]
    code: Option<Value>,
    #[serde(flatten)]
    other: FactorBody,
}

/// Disable two-factor authentication
#[utoipa::path(post, path = "/auth/2fa/disable", operation_id = "disableTwoFactor", tag = "auth", security(("session" = [])),
    request_body(content = DisableBody, example = json!({"password": "correct horse battery staple", "code": "287082"})),
    responses(Guarded, WithBody, Conflict, Storage,
        (status = 200, description = "Two-factor authentication is disabled.", body = SecondFactorReply, example = json!(SecondFactorReply::new(false))),
        (status = 400, description = "The code is missing (`2fa_required`) or wrong (`2fa_invalid`).", body = RejectBody, example = json!(invalid_code())),
        (status = 403, description = "The password is wrong, or the credential is not a session.", body = RejectBody, example = json!({"error": "Forbidden", "message": "The password is wrong", "code": "wrong_password"}))))]
pub(crate) async fn disable(
    State(app): State<AppState>,
    caller: RequireSession,
    MaybeJson(body): MaybeJson<DisableBody>,
) -> Result<Json<SecondFactorReply>, Reject> {
    let password = needed("password", body.password)?;
    count_login(app.context(), caller.account.email.as_str())?;
    app.service()
        .accounts
        .disable_second_factor(&caller, password, body.other.code_or(body.code.as_ref()).as_deref())
        .await?;
    Ok(Json(SecondFactorReply::new(false)))
}

/// A temporary token and a code.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VerifyBody {
    /// `temporaryToken` of the login.
    temporary_token: Option<String>,
    /// The current six-digit code.
    #[schema(value_type = Value, required = false, example = "287082")]
    code: Option<Value>,
    #[serde(flatten)]
    other: FactorBody,
}

/// Complete a login with a code
///
/// A temporary token is valid for five minutes, allows five attempts, and can be used once.
#[utoipa::path(post, path = "/auth/2fa/verify-login", operation_id = "verifyTwoFactorLogin", tag = "auth", security(()),
    request_body(content = VerifyBody, example = json!({"temporaryToken": "6f1c…", "code": "287082"})),
    responses(Anyone, WithBody, Storage,
        (status = 200, description = "Logged in.", body = SessionReply, example = json!(SessionReply::example())),
        (status = 400, description = "The code is missing (`2fa_required`) or wrong (`2fa_invalid`).", body = RejectBody, example = json!(invalid_code())),
        (status = 401, description = "The temporary token is unknown, used or expired, or its attempts are used up.", body = RejectBody, example = json!({"error": "Unauthorized", "message": "The login has taken too long or was tried too often; log in again", "code": "temporary_token_invalid"})),
        (status = 403, description = "The account is disabled.", body = RejectBody, example = json!({"error": "Forbidden", "message": "The account is disabled", "code": "account_disabled"}))))]
pub(crate) async fn verify_login(
    State(app): State<AppState>,
    Extension(via): Extension<Via>,
    MaybeJson(body): MaybeJson<VerifyBody>,
) -> Result<Json<SessionReply>, Reject> {
    let token = needed("temporaryToken", body.temporary_token)?;
    let done =
        app.service().logins.verify(&token, body.other.code_or(body.code.as_ref()).as_deref(), via).await?;
    Ok(Json(SessionReply::new(&app, &done)))
}

fn invalid_code() -> serde_json::Value {
    serde_json::json!({"error": "Bad Request", "message": "The code is wrong or was used before; wait for the next one", "code": "2fa_invalid"})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_address_fits_into_a_qr_code() {
        let account = "%F0%9F%A6%80".repeat(64);
        let otpauth_url = format!("{}{account}", SetupReply::example().otpauth_url);
        let reply =
            SetupReply::new(SecondFactorSetup { secret: String::new(), otpauth_url }).expect("it fits");
        let image = reply.qr_code.strip_prefix("data:image/svg+xml;base64,").expect("an SVG");
        let svg = String::from_utf8(BASE64.decode(image.as_bytes()).expect("base64")).expect("text");
        assert!(svg.contains("<svg ") && svg.ends_with("</svg>"), "{svg}");
    }
}

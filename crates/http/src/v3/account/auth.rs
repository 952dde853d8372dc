//! Sign-up, login and logout.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use pinfold_model::Email;
use pinfold_service::{LoggedIn, Login, NewSignup, Password, Via};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::AppState;
use crate::middleware::auth::RequireSession;
use crate::middleware::rate_limit::count_login;
use crate::v3::account::me::UserBody;
use crate::v3::extract::MaybeJson;
use crate::v3::openapi::{Anyone, Conflict, Guarded, Storage, WithBody};
use crate::v3::options::filled;
use crate::v3::reject::{Reject, RejectBody};

/// A session token of examples, cut short.
pub(crate) const EXAMPLE_TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJwaW5mb2xkIn0.rK0h…";

/// A new account.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct SignupBody {
    /// Display name. Default: the part of the address before the `@`.
    name: Option<String>,
    /// Same as `name`.
    username: Option<String>,
    /// Email address, used to log in.
    email: Option<String>,
    /// Password: 8 to 1,024 bytes.
    password: Option<String>,
    /// Referral code of another account. An unknown code is ignored.
    #[serde(rename = "referralCode")]
    referral_code: Option<String>,
    /// Same as `referralCode`.
    referral: Option<String>,
    /// Same as `referralCode`, as links name it.
    #[serde(rename = "ref")]
    referral_in_link: Option<String>,
}

/// A session.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionReply {
    /// Session token, to be sent as `Authorization: Bearer TOKEN`.
    token: String,
    user: UserBody,
}

/// Sign up
///
/// Creates an account with the default plan and logs it in. The operator can disable sign-up (403 `signup_closed`).
#[utoipa::path(post, path = "/auth/signup", operation_id = "signUp", tag = "auth", security(()),
    request_body(content = SignupBody, example = json!({"name": "Ada", "email": "ada@example.org", "password": "correct horse battery staple"})),
    responses(Anyone, WithBody, Conflict, Storage,
        (status = 201, description = "The account is created and logged in.", body = SessionReply, example = json!(SessionReply::example())),
        (status = 403, description = "Sign-up is disabled.", body = RejectBody, example = json!({"error": "Forbidden", "message": "Accounts are made by the operator of this server; ask them for one", "code": "signup_closed"}))))]
pub(crate) async fn signup(
    State(app): State<AppState>,
    Extension(via): Extension<Via>,
    MaybeJson(body): MaybeJson<SignupBody>,
) -> Result<(StatusCode, Json<SessionReply>), Reject> {
    let new = body.parse()?;
    count_login(app.context(), new.email.as_str())?;
    let done = app.service().accounts.sign_up(new, via).await?;
    Ok((StatusCode::CREATED, Json(SessionReply::new(&app, &done))))
}

impl SignupBody {
    fn parse(self) -> Result<NewSignup, Reject> {
        let invalid = |error: &dyn std::fmt::Display| Reject::invalid(error.to_string());
        let email = Email::parse(&needed("email", self.email)?).map_err(|error| invalid(&error))?;
        let password =
            Password::parse(needed("password", self.password)?).map_err(|error| invalid(&error))?;
        let name = filled(self.name.as_deref()).or(filled(self.username.as_deref()));
        let name = name.or_else(|| email.as_str().split('@').next()).unwrap_or_default().trim().to_owned();
        let words = [self.referral_code, self.referral, self.referral_in_link];
        let referral = words.into_iter().flatten().find(|word| !word.trim().is_empty());
        Ok(NewSignup { email, name, password, referral })
    }
}

/// A required field.
pub(crate) fn needed(field: &str, text: Option<String>) -> Result<String, Reject> {
    text.filter(|text| !text.is_empty()).ok_or_else(|| Reject::invalid(format!("`{field}` is required")))
}

/// Credentials of a login.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct LoginBody {
    /// Email address of the account.
    email: Option<String>,
    /// Password of the account.
    password: Option<String>,
}

/// Result of a login.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum LoginReply {
    /// The login is complete.
    Done(Box<SessionReply>),
    /// A code is needed.
    NeedsCode(CodeNeeded),
}

/// A login that needs a code.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CodeNeeded {
    #[serde(rename = "requires2FA")]
    requires_2fa: bool,
    /// To be sent with the code. Valid for five minutes, once.
    temporary_token: String,
}

/// Log in
///
/// Returns a session token or, for an account with two-factor authentication, a temporary token for
/// `POST /auth/2fa/verify-login`. The error does not say whether the address or the password is wrong. Attempts are limited
/// per IP address and per account, with lower limits than other requests.
#[utoipa::path(post, path = "/auth/login", operation_id = "logIn", tag = "auth", security(()),
    request_body(content = LoginBody, example = json!({"email": "ada@example.org", "password": "correct horse battery staple"})),
    responses(Anyone, WithBody, Storage,
        (status = 200, description = "The password is correct.", body = LoginReply, examples(
            ("done" = (summary = "Logged in", value = json!(SessionReply::example()))),
            ("code" = (summary = "A code is needed", value = json!({"requires2FA": true, "temporaryToken": "6f1c…"}))))),
        (status = 401, description = "The address or the password is wrong.", body = RejectBody, example = json!({"error": "Unauthorized", "message": "The e-mail address or the password is wrong", "code": "invalid_credentials"})),
        (status = 403, description = "The account is disabled.", body = RejectBody, example = json!({"error": "Forbidden", "message": "The account is disabled", "code": "account_disabled"}))))]
pub(crate) async fn login(
    State(app): State<AppState>,
    Extension(via): Extension<Via>,
    MaybeJson(body): MaybeJson<LoginBody>,
) -> Result<Json<LoginReply>, Reject> {
    let (email, password) = (needed("email", body.email)?, needed("password", body.password)?);
    count_login(app.context(), &email)?;
    let login = app.service().logins.login(&email, password, via).await?;
    Ok(Json(LoginReply::new(&app, &login)))
}

/// Log out
///
/// Ends the session. Its token is invalid from then on.
#[utoipa::path(post, path = "/auth/logout", operation_id = "logOut", tag = "auth", security(("session" = [])),
    responses((status = 200, description = "The session has ended.", body = DoneReply, example = json!(DoneReply::new("Logged out"))), Guarded, Storage))]
pub(crate) async fn logout(State(app): State<AppState>, caller: RequireSession) -> Result<DoneReply, Reject> {
    app.service().logins.logout(&caller).await?;
    Ok(DoneReply::new("Logged out"))
}

impl SessionReply {
    pub(crate) fn new(app: &AppState, done: &LoggedIn) -> Self {
        Self { token: done.token.reveal().to_owned(), user: UserBody::new(app, &done.caller) }
    }

    pub(crate) fn example() -> Self {
        Self { token: EXAMPLE_TOKEN.to_owned(), user: UserBody::example() }
    }
}

impl LoginReply {
    fn new(app: &AppState, login: &Login) -> Self {
        match login {
            Login::Done(done) => Self::Done(Box::new(SessionReply::new(app, done))),
            Login::NeedsCode { temporary_token } => {
                let temporary_token = temporary_token.reveal().to_owned();
                Self::NeedsCode(CodeNeeded { requires_2fa: true, temporary_token })
            }
        }
    }
}

/// Confirmation.
#[derive(Serialize, ToSchema)]
#[schema(as = Done)]
pub(crate) struct DoneReply {
    success: bool,
    message: &'static str,
}

impl DoneReply {
    pub(crate) fn new(message: &'static str) -> Self {
        Self { success: true, message }
    }
}

impl IntoResponse for DoneReply {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: serde_json::Value) -> Result<NewSignup, String> {
        let body: SignupBody = serde_json::from_value(json).expect("it has the shape");
        body.parse().map_err(|reject| format!("{reject:?}"))
    }

    #[test]
    fn name_is_read_from_several_fields() {
        use serde_json::json;
        let name = |json| parsed(json).expect("it is good").name;
        let (email, password) = ("Ada@example.org", "correct horse");
        assert_eq!(name(json!({"name": " Ada ", "email": email, "password": password})), "Ada");
        assert_eq!(name(json!({"username": "al", "email": email, "password": password})), "al");
        assert_eq!(name(json!({"name": "", "email": email, "password": password})), "ada");
    }

    #[test]
    fn missing_and_invalid_fields_are_named() {
        use serde_json::json;
        for (json, named) in [
            (json!({"password": "correct horse"}), "`email`"),
            (json!({"email": "ada@example.org"}), "`password`"),
            (json!({"email": "ada", "password": "correct horse"}), "name@host"),
            (json!({"email": "ada@example.org", "password": "short"}), "8 to 1024"),
        ] {
            let fault = parsed(json).expect_err(named);
            assert!(fault.contains("400") && fault.contains(named), "{fault}");
        }
    }
}

//! Sign-up, login with and without a second factor, and the account's own settings.

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use insta::assert_snapshot;
use pinfold_http::{Rate, Settings};
use serde_json::{Value, json};
use totp_rs::{Builder, Secret};

use crate::harness::{Answer, Api, unlimited_rates};

const PASSWORD: &str = "correct horse";

impl Api {
    async fn send(&self, method: &str, path: &str, token: Option<&str>, body: &Value) -> Answer {
        let sending = self.request(method, &format!("/api/v3{path}"));
        let sending = match token {
            Some(token) => sending.header("authorization", &format!("Bearer {token}")),
            None => sending,
        };
        if body.is_null() { sending.await } else { sending.body(&body.to_string()).await }
    }

    async fn log_in(&self, name: &str, password: &str) -> Answer {
        let body = json!({"email": format!("{name}@example.org"), "password": password});
        self.send("POST", "/auth/login", None, &body).await
    }

    /// The session token of a new account.
    async fn signed_up(&self, name: &str) -> String {
        let body = json!({"name": name, "email": format!("{name}@example.org"), "password": PASSWORD});
        let answer = self.send("POST", "/auth/signup", None, &body).await;
        assert_eq!(answer.status(), 201, "{}", answer.text());
        answer.json()["token"].as_str().expect("a token").to_owned()
    }

    /// The current code of an authenticator app with this secret.
    fn code(&self, secret: &str) -> String {
        let secret = BASE32_NOPAD.decode(secret.as_bytes()).expect("base32");
        let secret = Secret::new_stack(secret.try_into().expect("160 bits"));
        let totp = Builder::new().with_secret(secret).build().expect("a good secret");
        totp.generate(u64::try_from(self.now_s()).expect("after 1970")).to_string()
    }
}

fn is(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status(), answer.code().as_str()), (status, code), "{}", answer.text());
}

#[tokio::test]
async fn session_ends_at_logout() {
    let api = Api::start().await;
    let token = api.signed_up("ada").await;
    let me = api.send("GET", "/users/me", Some(&token), &Value::Null).await;
    assert_eq!(me.status(), 200);
    let masked = me.masked();
    let (head, tail) = masked.split_once(r#""clusters":["#).expect("it has clusters");
    assert_snapshot!(head, @r#"{"id":"[id]","_id":"[id]","name":"ada","username":"ada","email":"ada@example.org","role":"user","plan":"Free","planName":"Free","planId":"free","#);
    assert_snapshot!(tail.split_once("],\"used").expect("it has more").1, @r#"Storage":0,"storageLimit":1073741824,"uploadsCount":0,"twoFactorEnabled":false,"createdAt":"2026-01-01T00:00:00.000Z"}"#);

    let login = api.log_in("ada", PASSWORD).await;
    assert_eq!((login.status(), &login.json()["user"]), (200, &me.json()), "a login says who it is");
    let out = api.send("POST", "/auth/logout", Some(&token), &Value::Null).await;
    assert_snapshot!(out.text(), @r#"{"success":true,"message":"Logged out"}"#);
    is(&api.send("GET", "/users/me", Some(&token), &Value::Null).await, 401, "INVALID_API_KEY");
    let other = login.json()["token"].as_str().expect("a token").to_owned();
    assert_eq!(api.send("GET", "/users/me", Some(&other), &Value::Null).await.status(), 200);
}

#[tokio::test]
async fn session_has_all_scopes_of_its_account() {
    let api = Api::start().await;
    let token = api.signed_up("ada").await;
    for path in ["/users/me/uploads", "/users/me/clusters", "/users/me/preferences", "/auth/2fa/status"] {
        let answer = api.send("GET", path, Some(&token), &Value::Null).await;
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
    }
    let by_key_header = api.get("/api/v3/users/me").header("x-api-key", &token).await;
    assert_eq!(by_key_header.status(), 200, "whichever header it comes in");
}

#[tokio::test]
async fn wrong_logins_get_one_answer() {
    let api = Api::start().await;
    api.signed_up("ada").await;
    let wrong = api.log_in("ada", "battery staple").await;
    assert_snapshot!(wrong.text(), @r#"{"error":"Unauthorized","message":"The e-mail address or the password is wrong","code":"invalid_credentials"}"#);
    let unknown = api.log_in("eve", PASSWORD).await;
    assert_eq!((wrong.status(), wrong.text()), (401, unknown.text()));
    for (body, named) in [
        (json!({"password": "x"}), "`email`"),
        (json!({"email": "a@b.c"}), "`password`"),
        (json!([]), "`email`"),
    ] {
        let answer = api.send("POST", "/auth/login", None, &body).await;
        assert!(answer.status() == 400 && answer.message().contains(named), "{}", answer.text());
    }
}

#[tokio::test]
async fn email_is_unique_and_weak_password_is_refused() {
    let api = Api::start_with(unlimited_rates()).await;
    api.signed_up("ada").await;
    let signup = async |email: &str, password: &str| {
        api.send("POST", "/auth/signup", None, &json!({"email": email, "password": password})).await
    };
    assert_eq!(signup("ADA@example.org", PASSWORD).await.status(), 409);
    for (email, password) in [
        ("bob@example.org", "password1"),
        ("bob@example.org", "Bob@example.org"),
        ("bob@example.org", "short"),
        ("bob", PASSWORD),
    ] {
        let answer = signup(email, password).await;
        assert_eq!(answer.status(), 400, "{email} {password}: {}", answer.text());
        assert!(!answer.text().contains(password) || password == "short", "{}", answer.text());
    }
}

#[tokio::test]
async fn closed_signup_creates_no_account() {
    let closed = pinfold_service::Settings { signup_open: false, ..pinfold_service::Settings::default() };
    let api = Api::start_on(Settings::default(), closed).await;
    let body = json!({"email": "ada@example.org", "password": PASSWORD});
    is(&api.send("POST", "/auth/signup", None, &body).await, 403, "signup_closed");
}

#[tokio::test]
async fn forged_session_tokens_are_refused() {
    let (api, other) = (Api::start_with(unlimited_rates()).await, Api::start().await);
    let token = api.signed_up("ada").await;
    let [head, body, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
    let none = BASE64URL_NOPAD.encode(br#"{"alg":"none","typ":"JWT"}"#);
    let mut claims: Value =
        serde_json::from_slice(&BASE64URL_NOPAD.decode(body.as_bytes()).expect("base64")).expect("JSON");
    claims["exp"] = json!(4_000_000_000_u64);
    let longer = BASE64URL_NOPAD.encode(claims.to_string().as_bytes());
    for forged in [
        format!("{none}.{body}."),
        format!("{none}.{longer}.{signature}"),
        format!("{head}.{longer}.{signature}"),
        format!("{head}.{body}"),
        other.signed_up("ada").await,
        "a".repeat(5_000),
    ] {
        let answer = api.send("GET", "/users/me", Some(&forged), &Value::Null).await;
        is(&answer, 401, "INVALID_API_KEY");
    }
    assert_eq!(api.send("GET", "/users/me", Some(&token), &Value::Null).await.status(), 200);
    api.advance(7 * 24 * 60 * 60);
    is(&api.send("GET", "/users/me", Some(&token), &Value::Null).await, 401, "INVALID_API_KEY");
}

#[tokio::test]
async fn second_factor_from_setup_to_removal() {
    let api = Api::start_with(unlimited_rates()).await;
    let token = api.signed_up("ada").await;
    let send =
        async |method: &str, path: &str, body: Value| api.send(method, path, Some(&token), &body).await;
    let setup = send("POST", "/auth/2fa/setup", Value::Null).await.json();
    let secret = setup["secret"].as_str().expect("a secret").to_owned();
    assert!(setup["otpauthUrl"].as_str().expect("a URL").contains(&secret));
    assert!(setup["qrCode"].as_str().expect("an image").starts_with("data:image/svg+xml;base64,"));

    is(&send("POST", "/auth/2fa/enable", json!({})).await, 400, "2fa_required");
    is(&send("POST", "/auth/2fa/enable", json!({"code": "12345"})).await, 400, "2fa_invalid");
    let code = api.code(&secret);
    let on = send("POST", "/auth/2fa/enable", json!({"code": code})).await;
    assert_snapshot!(on.text(), @r#"{"enabled":true,"twoFactorEnabled":true}"#);
    is(&send("POST", "/auth/2fa/setup", Value::Null).await, 409, "2fa_already_enabled");
    assert_eq!(send("GET", "/auth/2fa/status", Value::Null).await.json()["enabled"], true);
    assert_eq!(send("GET", "/users/me", Value::Null).await.json()["twoFactorEnabled"], true);

    let login = api.log_in("ada", PASSWORD).await.json();
    assert_eq!((&login["requires2FA"], &login["token"]), (&json!(true), &Value::Null));
    let verify = async |code: &str| {
        let body = json!({"temporaryToken": login["temporaryToken"], "code": code});
        api.send("POST", "/auth/2fa/verify-login", None, &body).await
    };
    is(&verify("").await, 400, "2fa_required");
    is(&verify(&code).await, 400, "2fa_invalid");
    api.advance(30);
    let verified = verify(&api.code(&secret)).await;
    assert_eq!((verified.status(), &verified.json()["user"]["email"]), (200, &json!("ada@example.org")));
    is(&verify(&api.code(&secret)).await, 401, "temporary_token_invalid");

    api.advance(30);
    let disable = |password: &str, code: String| json!({"password": password, "totpCode": code});
    is(&send("POST", "/auth/2fa/disable", disable("wrong", api.code(&secret))).await, 403, "wrong_password");
    let off = send("POST", "/auth/2fa/disable", disable(PASSWORD, api.code(&secret))).await;
    assert_snapshot!(off.text(), @r#"{"enabled":false,"twoFactorEnabled":false}"#);
    is(
        &send("POST", "/auth/2fa/disable", disable(PASSWORD, api.code(&secret))).await,
        409,
        "2fa_not_enabled",
    );
}

#[tokio::test]
async fn too_many_wrong_codes_are_refused_for_some_time() {
    let api = Api::start_with(unlimited_rates()).await;
    let token = api.signed_up("ada").await;
    let setup = api.send("POST", "/auth/2fa/setup", Some(&token), &Value::Null).await.json();
    // In every field that clients use, and as a number.
    let body = |code: &str| {
        let number = code.parse::<u32>().ok().filter(|_| !code.starts_with('0'));
        json!({"code": number.map_or(json!(code), |number| json!(number)), "totpCode": code, "twoFactorCode": code})
    };
    let enable = async |code: &str| api.send("POST", "/auth/2fa/enable", Some(&token), &body(code)).await;
    for _ in 0..10 {
        is(&enable("nonsense").await, 400, "2fa_invalid");
    }
    let refused = enable("nonsense").await;
    is(&refused, 429, "RATE_LIMIT");
    assert_eq!((refused.header("retry-after"), &refused.json()["retryAfter"]), ("60", &json!(60)));
    api.advance(60);
    let code = api.code(setup["secret"].as_str().expect("a secret"));
    assert_eq!(enable(&code).await.status(), 200);
}

#[tokio::test]
async fn login_attempts_are_limited_for_each_address() {
    let mut settings = Settings::default();
    settings.rates.logins = Rate::new(3, 3);
    let api = Api::start_with(settings).await;
    let token = api.signed_up("ada").await;
    assert_eq!(api.log_in("bob", "x").await.header("x-ratelimit-limit"), "3");
    assert_eq!(api.log_in("eve", "x").await.header("x-ratelimit-remaining"), "0");
    let body = json!({"temporaryToken": "x", "code": "123456"});
    for path in ["/auth/login", "/auth/signup", "/auth/2fa/verify-login"] {
        let answer = api.send("POST", path, Some(&token), &body).await;
        is(&answer, 429, "RATE_LIMIT");
        assert_eq!((&answer.json()["limit"], answer.header("x-ratelimit-limit")), (&json!(3), "3"));
        assert!(!answer.header("retry-after").is_empty());
    }
    let me = api.send("GET", "/users/me", Some(&token), &Value::Null).await;
    assert_eq!(me.status(), 200, "whoever is logged in has a budget of their own");
}

#[tokio::test]
async fn login_attempts_are_limited_for_each_account() {
    let mut settings = Settings::default();
    settings.rates.account_logins = Rate::new(2, 2);
    settings.proxies = vec!["0.0.0.0/32".parse().expect("a network")];
    let api = Api::start_with(settings).await;
    let try_from = async |address: &str, email: &str| {
        let body = json!({"email": email, "password": "x"}).to_string();
        api.post("/api/v3/auth/login").header("x-forwarded-for", address).body(&body).await
    };
    assert_eq!(try_from("192.0.2.1", "ada@example.org").await.status(), 401);
    assert_eq!(try_from("192.0.2.2", "ADA@example.org").await.status(), 401);
    let refused = try_from("192.0.2.3", "ada@example.org").await;
    is(&refused, 429, "RATE_LIMIT");
    assert_eq!((refused.header("x-ratelimit-limit"), refused.header("x-ratelimit-remaining")), ("2", "0"));
    assert_eq!(try_from("192.0.2.3", "bob@example.org").await.status(), 401);
}

#[tokio::test]
async fn profile_name_is_changed() {
    let api = Api::start().await;
    let token = api.signed_up("ada").await;
    let put = async |body: Value| api.send("PUT", "/users/me", Some(&token), &body).await;
    assert_eq!(put(json!({"name": "Ada L."})).await.json()["username"], "Ada L.");
    let all =
        put(json!({"username": "ada", "email": "Ada@example.org", "role": "admin", "plan": "premium"})).await;
    assert_eq!(
        (all.status(), &all.json()["role"], &all.json()["planId"]),
        (200, &json!("user"), &json!("free"))
    );
    assert_eq!(put(json!({})).await.json()["name"], "ada");
    for bad in [
        json!({"name": ""}),
        json!({"name": "a\u{0}b"}),
        json!({"email": "eve@example.org"}),
        json!({"name": 7}),
    ] {
        assert_eq!(put(bad.clone()).await.status(), 400, "{bad}");
    }
}

#[tokio::test]
async fn new_password_requires_the_old_one() {
    let api = Api::start().await;
    let (stolen, token) = (api.signed_up("ada").await, api.log_in("ada", PASSWORD).await.json());
    let token = token["token"].as_str().expect("a token");
    let put = async |current: &str, new: &str| {
        let body = json!({"currentPassword": current, "newPassword": new});
        api.send("PUT", "/users/me/password", Some(token), &body).await
    };
    is(&put("wrong", "battery staple").await, 403, "wrong_password");
    assert_eq!(put(PASSWORD, "password").await.status(), 400);
    assert_eq!(put(PASSWORD, "battery staple").await.status(), 200);
    is(&api.send("GET", "/users/me", Some(&stolen), &Value::Null).await, 401, "INVALID_API_KEY");
    assert_eq!(api.send("GET", "/users/me", Some(token), &Value::Null).await.status(), 200);
    assert_eq!(api.log_in("ada", "battery staple").await.status(), 200);
}

#[tokio::test]
async fn preferences_are_stored_as_sent() {
    let api = Api::start().await;
    let token = api.signed_up("ada").await;
    let put = async |body: &Value| api.send("PUT", "/users/me/preferences", Some(&token), body).await;
    let all = put(&json!({"language": "en", "country": "DE", "theme": {"dark": [1, null]}})).await;
    assert_snapshot!(all.text(), @r#"{"country":"DE","language":"en","theme":{"dark":[1,null]}}"#);
    put(&json!({"country": null, "language": "fr"})).await;
    let all = api.send("GET", "/users/me/preferences", Some(&token), &Value::Null).await;
    assert_snapshot!(all.text(), @r#"{"language":"fr","theme":{"dark":[1,null]}}"#);

    let nested = (0..9).fold(json!(1), |inner, _| json!([inner]));
    let large = "x".repeat(17_000);
    for bad in
        [json!({"deep": nested}), json!({"large": large}), json!({"": 1}), json!({"a\u{0}": 1}), json!(["a"])]
    {
        assert_eq!(put(&bad).await.status(), 400);
    }
    let after = api.send("GET", "/users/me/preferences", Some(&token), &Value::Null).await;
    assert_eq!(after.text(), all.text(), "what was refused changed nothing");
}

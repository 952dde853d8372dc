//! The answer to a request without a credential, with a wrong one, or without the scope, on every route of the document.

use pinfold_model::{Role, ScopeSet};

use crate::document::{Document, Operation};
use crate::harness::{Answer, Api, unlimited_rates};

/// Sends every operation that needs a credential with this header, and checks the answers.
async fn on_every_route(api: &Api, header: Option<(&str, &str)>, check: impl Fn(&Operation<'_>, &Answer)) {
    let document = Document::of(api).await;
    let mut guarded = 0;
    for operation in document.operations() {
        if operation.security().is_empty() {
            continue;
        }
        guarded += 1;
        let sending = api.request(&operation.method, &operation.example_path());
        let answer = match header {
            Some((name, value)) => sending.header(name, value).await,
            None => sending.await,
        };
        check(&operation, &answer);
    }
    assert!(guarded > 5, "the document names the guarded routes");
}

fn is(answer: &Answer, operation: &Operation<'_>, status: u16, code: &str) {
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (status, code),
        "{}: {}",
        operation.name(),
        answer.text()
    );
}

#[tokio::test]
async fn request_without_credential_is_refused() {
    let api = Api::start_with(unlimited_rates()).await;
    on_every_route(&api, None, |operation, answer| is(answer, operation, 401, "UNAUTHORIZED")).await;
}

#[tokio::test]
async fn invalid_and_foreign_credentials_are_refused() {
    let api = Api::start_with(unlimited_rates()).await;
    // Well formed, and valid on another server.
    let foreign = Api::start().await.key("premium", "files:read").await;
    let bearer = format!("Bearer {foreign}");
    let headers = [
        ("x-api-key", foreign.as_str()),
        ("authorization", bearer.as_str()),
        ("x-api-key", "' OR 1=1 --"),
        ("authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0."),
        ("x-api-key", "pnf_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ];
    for header in headers {
        on_every_route(&api, Some(header), |operation, answer| is(answer, operation, 401, "INVALID_API_KEY"))
            .await;
    }
}

#[tokio::test]
async fn revoked_and_expired_credentials_are_refused() {
    let api = Api::start_with(unlimited_rates()).await;
    let revoked = api.key("premium", &all_scopes()).await;
    api.revoke(&revoked).await;
    let expired = api.key_until("premium", &all_scopes(), 60).await;
    api.advance(61);
    for key in [&revoked, &expired] {
        let header = Some(("x-api-key", key.as_str()));
        on_every_route(&api, header, |operation, answer| is(answer, operation, 401, "INVALID_API_KEY")).await;
    }
}

#[tokio::test]
async fn ended_sessions_are_refused() {
    let api = Api::start_with(unlimited_rates()).await;
    let session = api.everything().await;
    let header = Some(("authorization", session.as_str()));
    assert_eq!(api.get("/api/v3/users/me").header("authorization", &session).await.status(), 200);
    let (start, signature) = session.rsplit_once('.').expect("a JWT has three parts");
    let unsigned = format!("{start}.");
    let forged = format!("{start}.{}", signature.chars().rev().collect::<String>());
    for session in [&unsigned, &forged] {
        let header = Some(("authorization", session.as_str()));
        on_every_route(&api, header, |operation, answer| is(answer, operation, 401, "INVALID_API_KEY")).await;
    }
    assert_eq!(api.post("/api/v3/auth/logout").header("authorization", &session).await.status(), 200);
    on_every_route(&api, header, |operation, answer| is(answer, operation, 401, "INVALID_API_KEY")).await;
}

#[tokio::test]
async fn key_without_the_required_scope_is_refused() {
    let api = Api::start_with(unlimited_rates()).await;
    let document = Document::of(&api).await;
    for operation in document.operations() {
        let security = operation.security();
        let Some((_, scopes)) = security.iter().find(|(scheme, _)| scheme == "key") else {
            if security.is_empty() {
                continue;
            }
            let key = api.key("premium", &all_scopes()).await;
            let answer = api.request(&operation.method, &operation.example_path()).key(&key).await;
            is(&answer, &operation, 403, "session_required");
            continue;
        };
        // The role is checked before anything else.
        let Some(needed) = scopes.first().filter(|scope| *scope != "admin") else { continue };
        let others: Vec<_> =
            all_scopes().split(',').filter(|scope| scope != needed).map(str::to_owned).collect();
        let key = api.key("premium", &others.join(",")).await;
        let answer = api.request(&operation.method, &operation.example_path()).key(&key).await;
        is(&answer, &operation, 403, "missing_scope");
        assert_eq!(answer.json()["required"], needed.as_str(), "{}", operation.name());
    }
}

#[tokio::test]
async fn admin_routes_require_an_admin() {
    let api = Api::start_with(unlimited_rates()).await;
    let key = api.key("premium", &all_scopes()).await;
    let scopeless = api.admin_key(&all_scopes()).await;
    let document = Document::of(&api).await;
    let mut found = 0;
    for operation in document.operations() {
        if operation.path != "/metrics" && !operation.path.starts_with("/api/v3/admin") {
            continue;
        }
        found += 1;
        let answer = api.request(&operation.method, &operation.example_path()).key(&key).await;
        is(&answer, &operation, 403, "admin_only");
        let answer = api.request(&operation.method, &operation.example_path()).key(&scopeless).await;
        if operation.path == "/metrics" {
            assert_eq!(answer.status(), 200, "any key of an admin reads figures");
        } else {
            is(&answer, &operation, 403, "missing_scope");
            assert_eq!(answer.json()["required"], "admin", "{}", operation.name());
        }
    }
    assert!(found > 0);
}

/// Every scope that an account of the role user can have.
fn all_scopes() -> String {
    ScopeSet::of_role(Role::User).to_string()
}

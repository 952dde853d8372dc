//! Trailing slashes, methods, unknown paths and old versions, on every path; and the description of the service.

use axum::http::HeaderValue;
use insta::assert_snapshot;
use pinfold_http::Settings;

use crate::document::Document;
use crate::harness::{Answer, Api, unlimited_rates};

#[tokio::test]
async fn trailing_slash_is_ignored() {
    let api = Api::start().await;
    for path in ["/api/v3", "/health", "/api/v3/health", "/api/v3/peers"] {
        let (plain, slashed) = (api.get(path).await, api.get(&format!("{path}/")).await);
        assert_eq!((plain.status(), plain.text()), (slashed.status(), slashed.text()), "{path}");
        assert_eq!(plain.status(), 200, "{path}: {}", plain.text());
    }
}

#[tokio::test]
async fn every_route_answers_with_a_trailing_slash() {
    let api = Api::start_with(unlimited_rates()).await;
    for operation in Document::of(&api).await.operations() {
        let path = operation.example_path();
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            continue;
        }
        let plain = api.request(&operation.method, path).await;
        let slashed = api.request(&operation.method, &format!("{path}/")).await;
        let told = |answer: &Answer| (answer.status(), answer.header("content-type").to_owned());
        assert_eq!(told(&plain), told(&slashed), "{}", operation.name());
        assert_ne!(plain.status(), 404, "{}", operation.name());
    }
}

#[tokio::test]
async fn base_paths_describe_the_service() {
    let api = Api::start().await;
    for path in ["/", "/api/v3", "/api/v3/", "/ipfs", "/ipfs/"] {
        let answer = api.get(path).await;
        assert_eq!((answer.status(), answer.header("content-type")), (200, "application/json"), "{path}");
        assert_eq!(answer.json()["name"], "Pinfold", "{path}");
        let head = api.request("HEAD", path).await;
        assert_eq!((head.status(), head.text()), (200, ""), "{path}");
        assert_eq!(head.header("content-length"), answer.text().len().to_string(), "{path}");
    }
    assert_eq!(api.get("/ipfs/bafkqaaa").await.status(), 404, "there is no gateway");
}

#[tokio::test]
async fn every_error_is_json() {
    let api = Api::start().await;
    let key = api.key("free", "files:read,files:write,files:rename,cluster:read").await;
    for (method, path) in [
        ("GET", "/ipfs/anything"),
        ("GET", "/api/v3/status/%ff"),
        ("GET", "/api/v3/status/nonsense/events"),
        ("GET", "/api/v3/users/me/uploads?limit=%ff"),
        ("GET", "/api/v3/users/me/uploads/dag/nonsense"),
        ("POST", "/api/v3/files"),
        ("POST", "/api/v3/files/directory-dag"),
        ("POST", "/api/v3/files/directory"),
        ("PUT", "/api/v3/files/rename/%ff"),
        ("DELETE", "/api/v3/files"),
        ("PATCH", "/"),
        ("BREW", "/api/v3/files"),
        ("GET", "/api/v1/files"),
    ] {
        for key in [key.as_str(), "nonsense", ""] {
            let sending = api.request(method, path);
            let answer = if key.is_empty() { sending.await } else { sending.key(key).await };
            assert!((400..500).contains(&answer.status()), "{method} {path}: {}", answer.status());
            assert_eq!(answer.header("content-type"), "application/json", "{method} {path}");
            let body = answer.json();
            assert!(body["error"].is_string() && body["message"].is_string(), "{method} {path}: {body}");
        }
    }
}

#[tokio::test]
async fn root_describes_the_service() {
    let api = Api::start().await;
    assert_eq!(api.get("/").await.text(), api.get("/api/v3").await.text());
    assert_eq!(api.get("/").await.json()["links"]["pin"], "/api/v3/files/pin/{cid}");
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_json() {
    let api = Api::start().await;
    let answer = api.get("/api/v3/nowhere").await;
    assert_eq!((answer.status(), answer.header("content-type")), (404, "application/json"));
    assert_snapshot!(answer.text(), @r#"{"error":"Not Found","message":"No such path; GET /api/v3 lists the API"}"#);

    let answer = api.request("PATCH", "/api/v3/users/me/uploads").await;
    assert_eq!((answer.status(), answer.header("allow")), (405, "GET,HEAD"));
    assert_snapshot!(answer.text(), @r#"{"error":"Method Not Allowed","message":"Method not allowed for this path; see the Allow header"}"#);
}

#[tokio::test]
async fn old_api_versions_answer_410() {
    let api = Api::start().await;
    for (method, path) in
        [("GET", "/api/v1"), ("POST", "/api/v1/files/"), ("DELETE", "/api/v2/a/b/c"), ("PUT", "/api/v2/")]
    {
        let answer = api.request(method, path).await;
        assert_eq!(answer.status(), 410, "{method} {path}");
        assert_eq!(answer.json()["error"], "api_version_deprecated");
        assert_eq!(answer.json()["currentApiBase"], "/api/v3");
    }
}

#[tokio::test]
async fn clusters_have_the_fields_that_clients_read() {
    let api = Api::start().await;
    let key = api.key("free", "cluster:read").await;
    assert_snapshot!(api.get("/api/v3/users/me/clusters").key(&key).await.text(), @r#"[{"id":"cl0-global","clusterId":"cl0-global","name":"The cluster cl0-global","label":"The cluster cl0-global","region":null,"country":null,"gateways":[{"publicUrl":"http://127.0.0.1:8080/ipfs/","url":"http://127.0.0.1:8080/ipfs/","label":"Local","order":0}]},{"id":"cl1-eu","clusterId":"cl1-eu","name":"The cluster cl1-eu","label":"The cluster cl1-eu","region":null,"country":null,"gateways":[{"publicUrl":"http://127.0.0.1:8080/ipfs/","url":"http://127.0.0.1:8080/ipfs/","label":"Local","order":0}]}]"#);
}

#[tokio::test]
async fn cors_allows_configured_origins_only() {
    let origin = "https://app.example";
    let settings = Settings { cors_origins: vec![HeaderValue::from_static(origin)], ..Settings::default() };
    let open = Api::start_with(settings).await;
    let answer = open.get("/api/v3").header("origin", origin).await;
    assert_eq!(answer.header("access-control-allow-origin"), origin);
    let answer = open.get("/api/v3").header("origin", "https://other.example").await;
    assert_ne!(answer.header("access-control-allow-origin"), "https://other.example");

    let closed = Api::start().await;
    assert_eq!(
        closed.get("/api/v3").header("origin", origin).await.header("access-control-allow-origin"),
        ""
    );
}

//! Oversized and malformed input, on every route of the document.

use std::time::Duration;

use axum::body::Body;
use futures::stream;
use pinfold_http::{Bodies, Settings};

use crate::document::{Document, Operation};
use crate::harness::{Answer, Api, unlimited_rates};

/// Larger than any JSON body may be.
const HUGE: usize = 32 * 1024 * 1024;

/// Sends every operation that takes JSON the body that `body` makes, and checks the answer.
async fn to_every_route_with_json(
    api: &Api,
    body: impl Fn() -> Body,
    check: impl Fn(&Operation<'_>, &Answer),
) {
    let document = Document::of(api).await;
    let credential = api.everything().await;
    let mut tried = 0;
    for operation in document.operations() {
        if operation.says["requestBody"]["content"]["application/json"].is_null() {
            continue;
        }
        tried += 1;
        let sending = api.request(&operation.method, &operation.example_path());
        let answer = sending.header("authorization", &credential).header("content-type", "application/json");
        check(&operation, &answer.stream(body()).await);
    }
    assert!(tried > 3, "the document names the routes that take JSON");
}

fn is(answer: &Answer, operation: &Operation<'_>, status: u16) {
    assert_eq!(answer.status(), status, "{}: {}", operation.name(), answer.text());
}

#[tokio::test]
async fn huge_json_is_refused() {
    let api = Api::start_with(unlimited_rates()).await;
    let huge = || Body::from(format!("{{\"name\":\"{}\"}}", "x".repeat(HUGE)));
    to_every_route_with_json(&api, huge, |operation, answer| is(answer, operation, 413)).await;
}

#[tokio::test]
async fn deeply_nested_json_is_refused() {
    let api = Api::start_with(unlimited_rates()).await;
    let deep = || Body::from(format!("{{\"x\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000)));
    to_every_route_with_json(&api, deep, |operation, answer| is(answer, operation, 400)).await;
}

#[tokio::test]
async fn malformed_json_is_refused() {
    let api = Api::start_with(unlimited_rates()).await;
    for text in ["{", "{]}", "nonsense", "\u{0}", "{\"a\":1}{", "\"text\""] {
        to_every_route_with_json(&api, || Body::from(text), |operation, answer| is(answer, operation, 400))
            .await;
    }
}

#[tokio::test]
async fn json_that_never_arrives_times_out() {
    let bodies = Bodies { json_time: Duration::from_millis(10), ..Bodies::default() };
    let api = Api::start_with(Settings { bodies, ..unlimited_rates() }).await;
    let never = || Body::from_stream(stream::pending::<Result<Vec<u8>, std::io::Error>>());
    to_every_route_with_json(&api, never, |operation, answer| is(answer, operation, 408)).await;
}

#[tokio::test]
async fn path_traversal_in_parameters_is_harmless() {
    let api = Api::start_with(unlimited_rates()).await;
    let credential = api.everything().await;
    let document = Document::of(&api).await;
    for operation in document.operations() {
        for word in ["..%2f..%2f..%2fetc%2fpasswd", "%2e%2e", "%00", "%ff%fe", "a%0d%0aset-cookie:x"] {
            let parameters = operation.says["parameters"].as_array().into_iter().flatten();
            let names = parameters.filter(|parameter| parameter["in"] == "path");
            let path = names.fold(operation.path.to_owned(), |path, parameter| {
                path.replace(&format!("{{{}}}", parameter["name"].as_str().expect("a name")), word)
            });
            if path == operation.path {
                continue;
            }
            let answer = api.request(&operation.method, &path).header("authorization", &credential).await;
            let is_refused = matches!(answer.status(), 400 | 403 | 404 | 409 | 422);
            assert!(is_refused, "{} with {word}: {} {}", operation.name(), answer.status(), answer.text());
            assert!(answer.header("set-cookie").is_empty());
            assert_eq!(answer.header("content-type"), "application/json", "{} with {word}", operation.name());
            assert!(answer.json()["error"].is_string() && !answer.message().is_empty(), "{}", answer.text());
        }
    }
}

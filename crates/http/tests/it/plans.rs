//! Plans: the list, the caller's own, the change to another one, and quotas.

use insta::assert_snapshot;
use pinfold_model::{Plan, PlanLimits, Plans};
use serde_json::json;

use crate::harness::{Api, form, unlimited_rates};

const SCOPES: &str = "plans:read,plans:write,files:write,files:read";

/// An API whose free plan has so many bytes, with a plan `team` that accounts may choose.
async fn api(free_bytes: u64) -> Api {
    // Many requests run at once, and none may be rate limited.
    let limits = PlanLimits {
        storage_bytes: free_bytes,
        requests_per_minute: 10_000,
        requests_per_second: 10_000,
        ..Plan::free().limits
    };
    let free = Plan { limits, ..Plan::free() };
    let limits = PlanLimits { storage_bytes: 300, file_bytes_max: Some(100), ..Plan::premium().limits };
    let limits = PlanLimits { directory_bytes_max: Some(150), ..limits };
    let code = pinfold_model::PlanCode::new("team");
    let team = Plan {
        code,
        name: "Team".to_owned(),
        self_service: true,
        price_cents: 950,
        limits,
        ..Plan::premium()
    };
    let plans = Plans::new(vec![free, team, Plan::premium()]);
    Api::start_on(
        unlimited_rates(),
        pinfold_service::Settings { plans, ..pinfold_service::Settings::default() },
    )
    .await
}

#[tokio::test]
async fn plans_are_public() {
    let api = Api::start().await;
    let answer = api.get("/api/v3/plans/").await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let json = answer.json();
    let codes: Vec<_> = json["plans"].as_array().expect("a list").iter().map(|plan| &plan["code"]).collect();
    assert_eq!(codes, ["free", "premium"]);
    assert_snapshot!(json["plans"][0], @r#"{"allowedClusterIds":["cl0-global","cl1-eu"],"code":"free","descriptions":["1 GiB of storage"],"id":"free","maxDirectorySizeBytes":1073741824,"maxFileSizeBytes":1073741824,"maxPinsInFlight":100,"name":"Free","pricePerMonth":0.0,"rateLimits":{"requestsPerMinute":300,"requestsPerSecond":20},"requestsPerMinute":300,"requestsPerSecond":20,"retentionLockAllowed":false,"selfService":true,"storageLimit":1073741824,"timelockAllowed":false}"#);
}

#[tokio::test]
async fn account_sees_its_plan_and_usage() {
    let api = api(1_000).await;
    let key = api.key("team", SCOPES).await;
    let upload = api.post("/api/v3/files").key(&key).form(form(&[("file\"; filename=\"a", "hello")]));
    assert_eq!(upload.await.status(), 201);
    for path in ["/api/v3/plans/my-plan", "/api/v3/users/me/plans"] {
        let json = api.get(path).key(&key).await.json();
        assert_eq!((&json["plan"]["id"], &json["plan"]["pricePerMonth"]), (&json!("team"), &json!(9.5)));
        assert_eq!(json["plan"]["maxFileSizeBytes"], 100);
        let usage = &json["usage"];
        assert_eq!((&usage["usedStorage"], &usage["remainingStorage"]), (&json!(5), &json!(295)));
        assert_eq!(usage["pins"], 1);
    }
}

#[tokio::test]
async fn plan_is_changed_if_allowed_and_large_enough() {
    let api = api(1_000).await;
    let key = api.key("free", SCOPES).await;
    let change = |body: &str| api.request("PUT", "/api/v3/plans/change").key(&key).body(body);
    let unlike = change(r#"{"planId":"team","code":"free"}"#).await;
    assert!(unlike.status() == 400 && unlike.message().contains("`code`"), "{}", unlike.text());
    let alike = change(r#"{"id":"free","planId":"free","code":"free","plan":"free","name":"Free"}"#).await;
    assert_eq!(alike.status(), 200, "{}", alike.text());
    let answer = change(r#"{"planId":"premium"}"#).await;
    assert_eq!((answer.status(), answer.code().as_str()), (403, "plan_change_not_allowed"));
    assert!(answer.message().contains("operator"), "{}", answer.message());
    for (body, part) in
        [("{}", "`planId`"), (r#"{"planId":"gold"}"#, "Unknown plan"), (r#"{"planId":"G/"}"#, "`planId`")]
    {
        let answer = change(body).await;
        assert_eq!(answer.status(), 400);
        assert!(answer.message().contains(part), "{}", answer.message());
    }
    let answer = change(r#"{"planId":"team"}"#).await;
    assert_eq!((answer.status(), &answer.json()["plan"]["code"]), (200, &json!("team")));
    assert_eq!(change(r#"{"planId":"free"}"#).await.status(), 200);

    let large = "x".repeat(400);
    let upload = api.post("/api/v3/files").key(&key).form(form(&[("file\"; filename=\"a", &large)]));
    assert_eq!(upload.await.status(), 201);
    let answer = change(r#"{"planId":"team"}"#).await;
    assert_eq!((answer.status(), answer.code().as_str()), (403, "quota_exceeded"));
    assert!(answer.message().contains("400") && answer.message().contains("300"), "{}", answer.message());
}

#[tokio::test]
async fn file_and_directory_sizes_are_limited() {
    let api = api(1_000).await;
    let key = api.key("team", SCOPES).await;
    let content = "x".repeat(101);
    let answer = api.post("/api/v3/files").key(&key).form(form(&[("file\"; filename=\"a", &content)])).await;
    assert_eq!((answer.status(), answer.code().as_str()), (413, "FILE_TOO_LARGE"));
    assert!(answer.message().contains("100"), "{}", answer.message());
    let half = "y".repeat(80);
    let parts = [("files\"; filename=\"a", half.as_str()), ("files\"; filename=\"b", half.as_str())];
    let answer = api.post("/api/v3/files/directory-dag").key(&key).form(form(&parts)).await;
    assert_eq!((answer.status(), answer.code().as_str()), (413, "FILE_TOO_LARGE"));
    assert!(answer.message().contains("150"), "{}", answer.message());
    api.until_nothing_is_held().await;
    let list = api.get("/api/v3/users/me/uploads").key(&key).await;
    assert_eq!(list.json()["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_uploads_do_not_exceed_the_quota() {
    for (free_bytes, fit) in [(1_000, 10), (1_099, 10)] {
        let api = api(free_bytes).await;
        let key = api.key("free", SCOPES).await;
        let uploads = (0..64).map(|number| {
            let content = format!("{number:03}{}", "x".repeat(97));
            let form = form(&[("file\"; filename=\"a", &content)]);
            let sending = api.post("/api/v3/files").key(&key).form(form);
            async move { sending.await }
        });
        let answers = futures::future::join_all(uploads).await;
        let (kept, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status() == 201);
        assert_eq!(kept.len(), fit);
        for answer in refused {
            assert_eq!(
                (answer.status(), answer.code().as_str()),
                (403, "quota_exceeded"),
                "{}",
                answer.text()
            );
        }
        let usage = api.get("/api/v3/plans/my-plan").key(&key).await.json();
        assert_eq!(usage["usage"]["usedStorage"], 1_000);
        let list = api.get("/api/v3/users/me/uploads?status=pinned").key(&key).await.json();
        assert_eq!(list["total"], fit as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_an_account_share_its_storage_and_content_counts_once() {
    let api = api(100).await;
    let key = api.key("free", "plans:read,files:write,tokens:write").await;
    let body = json!({"name": "second", "scopes": ["files:write"]});
    let second = api.post("/api/v3/tokens/generate").key(&key).json(&body).await.json();
    let second = second["token"].as_str().expect("a key").to_owned();
    let content = "z".repeat(100);
    let uploads = (0..64).map(|number| {
        let form = form(&[("file\"; filename=\"a", &content)]);
        let key = if number % 2 == 0 { &key } else { &second };
        let sending = api.post("/api/v3/files").key(key).form(form);
        async move { sending.await }
    });
    for answer in futures::future::join_all(uploads).await {
        // An upload that starts when the storage is full is refused before its content is read.
        let is_known = answer.status() == 201 || answer.code() == "quota_exceeded";
        assert!(is_known, "{}", answer.text());
    }
    let usage = api.get("/api/v3/plans/my-plan").key(&key).await.json();
    assert_eq!((&usage["usage"]["usedStorage"], &usage["usage"]["pins"]), (&json!(100), &json!(1)));
}

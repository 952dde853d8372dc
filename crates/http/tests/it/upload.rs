//! Uploads of files and directories.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::{StreamExt, stream};
use insta::assert_snapshot;
use pinfold_http::Settings;

use crate::harness::{Api, HELLO, form};

#[tokio::test]
async fn file_is_uploaded() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    let body = form(&[("file\"; filename=\"hello.txt", "hello")]);
    let answer = api.post("/api/v3/files/").key(&key).form(body).await;
    assert_eq!(answer.status(), 201, "{}", answer.text());
    assert_eq!(answer.json()["cid"], HELLO);
    assert_snapshot!(answer.masked(), @r#"{"cid":"bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq","clusterId":"cl0-global","expiresAt":null,"retainUntil":null,"pinned":true,"status":"pinned","uploadId":"[id]","name":"hello.txt","originalName":"hello.txt","customName":null,"size":5,"type":"file","createdAt":"2026-01-01T00:00:00.000Z"}"#);
}

#[tokio::test]
async fn fields_before_and_after_the_file_are_used() {
    let api = Api::start().await;
    let key = api.key("premium", "files:write").await;
    let file = ("file\"; filename=\"a.txt", "hello");
    let fields = [("cl", "cl1-eu"), ("timelock", "2026-12-31T23:59:59Z"), ("customName", "greeting")];
    let before: Vec<_> = fields.into_iter().chain([file]).collect();
    let after: Vec<_> = [file].into_iter().chain(fields).collect();
    for parts in [before, after] {
        let answer = api.post("/api/v3/files").key(&key).form(form(&parts)).await;
        let body = answer.json();
        assert_eq!((&body["clusterId"], &body["name"]), (&"cl1-eu".into(), &"greeting".into()), "{body}");
        assert_eq!(body["expiresAt"], "2026-12-31T23:59:59.000Z");
        assert_eq!(body["originalName"], "a.txt");
    }
}

#[tokio::test]
async fn refused_upload_leaves_nothing() {
    let api = Api::start().await;
    let key = api.key("free", "files:write,files:read").await;
    let file = ("file\"; filename=\"a.txt", "hello");
    let lock = ("timelock", "2026-12-31T23:59:59Z");
    for parts in [[lock, file], [file, lock]] {
        let answer = api.post("/api/v3/files").key(&key).form(form(&parts)).await;
        assert_eq!((answer.status(), answer.code()), (403, "timelock_not_allowed".into()), "{parts:?}");
    }
    assert_eq!(api.get("/api/v3/users/me/uploads").key(&key).await.json()["total"], 0);
    api.until_nothing_is_held().await;
}

#[tokio::test]
async fn interrupted_upload_leaves_nothing() {
    let api = Api::start().await;
    let key = api.key("free", "files:write,files:read").await;
    let whole = form(&[("file\"; filename=\"a.txt", &"hello ".repeat(100_000))]);
    for length in [whole.len() / 2, whole.len() - 4] {
        let answer = api.post("/api/v3/files").key(&key).form(whole[..length].to_vec()).await;
        assert_eq!(
            (answer.status(), answer.message()),
            (400, "The upload was interrupted".into()),
            "{length}"
        );
    }
    assert_eq!(api.get("/api/v3/users/me/uploads").key(&key).await.json()["total"], 0);
    api.until_nothing_is_held().await;
}

#[tokio::test]
async fn stalled_upload_times_out() {
    let mut settings = Settings::default();
    settings.bodies.upload_idle_time = Duration::from_millis(20);
    let api = Api::start_with(settings).await;
    let key = api.key("free", "files:write").await;
    let whole = form(&[("file\"; filename=\"a.txt", "hello")]);
    let start = stream::iter([Ok::<_, std::io::Error>(Bytes::from(whole[..whole.len() - 8].to_vec()))]);
    let body = Body::from_stream(start.chain(stream::pending()));
    let answer = api.post("/api/v3/files").key(&key).form(Vec::new()).stream(body).await;
    assert_eq!((answer.status(), answer.message()), (408, "The body came too slowly".into()));
    api.until_nothing_is_held().await;
}

#[tokio::test]
async fn body_that_is_not_a_form_is_refused() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    let answer = api.post("/api/v3/files").key(&key).body(r#"{"file":"a"}"#).await;
    assert_eq!((answer.status(), answer.message()), (400, "Send the content as multipart/form-data".into()));
    let answer = api.post("/api/v3/files").key(&key).form(form(&[("cl", "cl0-global")])).await;
    assert_eq!((answer.status(), answer.message()), (400, "The form has no part named `file`".into()));
}

#[tokio::test]
async fn directory_is_uploaded_with_its_paths() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    let parts = [
        ("files\"; filename=\"index.html", "<p>"),
        ("files[]\"; filename=\"img/logo.svg", "<svg>"),
        ("files[2][path]", "notes/a.txt"),
        ("files[2][content]\"; filename=\"blob", "a"),
        ("dirName", "site"),
    ];
    let answer = api.post("/api/v3/files/directory-dag").key(&key).form(form(&parts)).await;
    assert_eq!(answer.status(), 201, "{}", answer.text());
    assert_snapshot!(answer.masked(), @r#"{"message":"The directory is pinned","cid":"bafkreiet4yrn4wgd7fpefsanzkni5nt5drxsw3jjkxecq223nizegkpvgy","filename":"site","size":225,"type":"directory","files":[{"cid":"bafkreibt6j4zizyxokd2fetapafba6wjr2td3vqwl5t7zqgxi5t5bkbasa","filename":"index.html","size":3,"path":"index.html"},{"cid":"bafkreieiasc2awsrtmt5llo2h3nki54inuln3imdzeuh3ev6bh7j4yoe3a","filename":"logo.svg","size":5,"path":"img/logo.svg"},{"cid":"bafkreigks6arfsq3xxfpvqrrwonchxcnu6do76auprhhfomao6c273sixm","filename":"a.txt","size":1,"path":"notes/a.txt"}],"total_files":3,"total_size":9,"clusterId":"cl0-global","expiresAt":null,"retainUntil":null,"uploadId":"[id]","status":"pinned"}"#);
}

#[tokio::test]
async fn paths_without_content_are_bounded() {
    let mut settings = Settings::default();
    settings.bodies.directory_entries_max = 2;
    let api = Api::start_with(settings).await;
    let key = api.key("free", "files:write").await;
    let send = |parts: &[(&str, &str)]| api.post("/api/v3/files/directory-dag").key(&key).form(form(parts));
    let pairs = [("files[0][path]", "a"), ("files[1][path]", "b"), ("files[0][content]", "x")];
    let answer = send(&[&pairs[..], &[("files[1][content]", "y")]].concat()).await;
    assert_eq!(answer.status(), 201, "{}", answer.text());
    let answer = send(&[&pairs[..2], &[("files[2][path]", "c")]].concat()).await;
    assert_eq!((answer.status(), answer.code()), (413, "FILE_TOO_LARGE".into()));
    let endless = format!("files[{}][path]", "0".repeat(1000));
    assert_eq!(send(&[(&endless, "a")]).await.status(), 400);
}

#[tokio::test]
async fn invalid_paths_are_named() {
    let api = Api::start().await;
    let key = api.key("free", "files:write").await;
    for path in ["/etc/passwd", "../a", "a//b", "a/../b", "a\0b"] {
        let part = format!("files\"; filename=\"{path}");
        let answer = api.post("/api/v3/files/directory-dag").key(&key).form(form(&[(&part, "x")])).await;
        assert_eq!(answer.status(), 400, "{path:?}: {}", answer.text());
    }
    let twice = [("files\"; filename=\"a.txt", "1"), ("files\"; filename=\"a.txt", "2")];
    let answer = api.post("/api/v3/files/directory-dag").key(&key).form(form(&twice)).await;
    assert_eq!(answer.status(), 400);
    assert!(answer.message().contains("a.txt"), "{}", answer.text());
    api.until_nothing_is_held().await;
}

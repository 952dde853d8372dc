//! The event stream of a pin, across restarts of the server.

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::content::Dag;
use crate::provider::Provider;
use crate::server::{TIMEOUT, TestServer};

#[derive(Debug, Clone, PartialEq)]
struct Event {
    id: String,
    kind: String,
    data: Value,
}

/// A client that reads the event stream of a pin.
struct Follower {
    response: Response,
    text: String,
}

impl Follower {
    fn new(response: Response) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next event; `None` when the stream ended or broke.
    async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                        .map(str::to_owned)
                };
                let event = field("event").map(|kind| Event {
                    id: field("id").unwrap_or_default(),
                    kind,
                    data: serde_json::from_str(&field("data").unwrap()).unwrap(),
                });
                self.text = rest.to_owned();
                if event.is_some() {
                    return event;
                }
            }
            let chunk =
                tokio::time::timeout(TIMEOUT, self.response.chunk()).await.expect("an event arrives in time");
            let chunk = chunk.ok().flatten()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The first event that fulfils a condition.
    async fn until(&mut self, condition: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.next().await.expect("the stream continues");
            if condition(&event) {
                return event;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn event_stream_continues_after_a_kill_without_duplicates() {
    let dag = Dag::flat(31, 60, 50_000);
    let provider = Provider::of(&dag.part(30)).await;
    let mut server = TestServer::with(&[("node.peers", &provider.address().await)]).await;
    server.admin().pin_async(&dag.text()).await;
    let mut follower = Follower::new(server.admin().follow(&dag.text(), None).await);
    let half = follower.until(|event| event.data["blocks"].as_u64() >= Some(31)).await;
    assert_eq!((&half.data["state"], &half.data["sources"]), (&"pinning".into(), &1.into()));
    server.kill().await;
    assert_eq!(follower.next().await, None, "the stream breaks");

    provider.add(&dag).await;
    server.restart().await;
    let mut follower = Follower::new(server.admin().follow(&dag.text(), Some(&half.id)).await);
    let mut ids = vec![half.id];
    let end = loop {
        let event = follower.next().await.expect("the stream continues");
        assert!(!ids.contains(&event.id), "duplicate event: {event:?}");
        ids.push(event.id.clone());
        if event.kind == "end" {
            break event;
        }
    };
    assert_eq!((&end.data["state"], &end.data["bytes"]), (&"pinned".into(), &dag.bytes().into()));
    assert_eq!(follower.next().await, None, "the server closes the stream");

    server.stop().await;
    server.restart().await;
    let mut follower = Follower::new(server.admin().follow(&dag.text(), Some(&end.id)).await);
    assert_eq!(follower.next().await, Some(end), "the end event is repeated, also by another process");
    assert_eq!(follower.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_closes_event_streams() {
    let dag = Dag::flat(32, 10, 1_000);
    let provider = Provider::of(&dag.part(5)).await;
    let mut server = TestServer::with(&[("node.peers", &provider.address().await)]).await;
    server.admin().pin_async(&dag.text()).await;
    let mut follower = Follower::new(server.admin().follow(&dag.text(), None).await);
    follower.until(|event| event.data["state"] == "pinning").await;
    server.terminate().await;
    let closed = follower.until(|event| event.kind == "closed").await;
    assert_eq!(closed.data["reason"], "stopping");
    server.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_directory_is_uploaded_and_listed() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join("site/img")).unwrap();
    std::fs::write(home.path().join("site/img/logo.svg"), "<svg>").unwrap();
    std::fs::create_dir(home.path().join("site/empty")).unwrap();
    let server = TestServer::with(&[("uploads.server_roots", home.path().to_str().unwrap())]).await;
    let admin = server.admin();
    let body = |path: &str| Some(json!({ "dirPath": home.path().join(path) }));
    let (status, site) = admin.send(Method::POST, "/files/directory", None, body("site")).await;
    assert_eq!(status, StatusCode::CREATED, "{site}");
    let path = format!("/users/me/uploads/dag/{}", site["cid"].as_str().unwrap());
    let (status, listed) = admin.send(Method::GET, &path, None, None).await;
    assert_eq!(status, StatusCode::OK, "{listed}");
    let entries = listed["entries"].as_array().unwrap();
    let listed_entries: Vec<_> =
        entries.iter().map(|entry| (entry["path"].as_str(), entry["type"].as_str())).collect();
    let (file, directory) = (Some("file"), Some("directory"));
    assert_eq!(
        listed_entries,
        [(Some("empty"), directory), (Some("img"), directory), (Some("img/logo.svg"), file)]
    );
    assert_eq!((&entries[2]["size"], &listed["total"]), (&5.into(), &3.into()));
    let (status, refused) = admin.send(Method::POST, "/files/directory", None, body("../etc")).await;
    assert_eq!((status, &refused["code"]), (StatusCode::FORBIDDEN, &"server_folder_not_allowed".into()));
}

//! Event streams of pins, as clients read them.

use std::time::Duration;

use axum::body::BodyDataStream;
use axum::response::Response;
use futures::StreamExt;
use pinfold_http::Settings;
use serde_json::Value;

use crate::harness::{Api, HELLO, WORLD};

/// Upper bound of every wait.
const DEADLINE: Duration = Duration::from_secs(60);

fn path(cid: &str) -> String {
    format!("/api/v3/status/{cid}/events")
}

/// A client that reads a stream.
struct Reader {
    body: BodyDataStream,
    text: String,
}

/// A block of lines.
#[derive(Debug, Clone, Default, PartialEq)]
struct Event {
    id: Option<String>,
    kind: String,
    data: Value,
    /// The reconnection time, or a comment.
    other: String,
}

impl Reader {
    fn new(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The next block of lines; `None` at the end of the stream.
    async fn block(&mut self) -> Option<Event> {
        while !self.text.contains("\n\n") {
            let next = tokio::time::timeout(DEADLINE, self.body.next()).await.expect("something comes");
            let chunk = next?.expect("it is not cut off");
            self.text.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
        let (block, rest) = self.text.split_once("\n\n").expect("it was found");
        let mut event = Event::default();
        for line in block.lines() {
            match line.split_once(": ").expect("a field") {
                ("id", id) => event.id = Some(id.to_owned()),
                ("event", kind) => event.kind = kind.to_owned(),
                ("data", data) => event.data = serde_json::from_str(data).expect("JSON"),
                _ => event.other = line.to_owned(),
            }
        }
        self.text = rest.to_owned();
        Some(event)
    }

    /// The next event, skipping comments and reconnection times.
    async fn event(&mut self) -> Event {
        loop {
            let block = self.block().await.expect("the stream goes on");
            if !block.kind.is_empty() {
                return block;
            }
        }
    }

    /// The first event that satisfies the condition.
    async fn until(&mut self, is_it: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.event().await;
            if is_it(&event) {
                return event;
            }
            assert!(!matches!(event.kind.as_str(), "end" | "closed"), "{event:?}");
        }
    }

    /// Reads to the end of the stream, skipping comments.
    async fn ends(&mut self) {
        while let Some(block) = self.block().await {
            assert_eq!(block.kind, "", "{block:?}");
        }
    }
}

async fn request_pin(api: &Api, key: &str, cid: &str) {
    let pin = format!("/api/v3/files/pin/{cid}");
    let answer = api.post(&pin).key(key).header("prefer", "respond-async").await;
    assert_eq!(answer.status(), 202, "{}", answer.text());
}

#[tokio::test]
async fn stream_follows_a_fetch_to_its_end() {
    let api = Api::start().await;
    let key = api.key("free", "files:write,cluster:read").await;
    let gate = api.block_fetch(HELLO);
    request_pin(&api, &key, HELLO).await;
    gate.reached().await;
    let response = api.get(&path(HELLO)).key(&key).header("accept", "text/event-stream").open().await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert!(response.headers().contains_key("x-ratelimit-remaining"));

    let mut reader = Reader::new(response);
    assert_eq!(reader.block().await.expect("a hint").other, "retry: 3000");
    let first = reader.until(|event| event.data["state"] == "pinning").await;
    assert_eq!(first.kind, "state");
    assert_eq!((&first.data["cid"], &first.data["clusterId"]), (&HELLO.into(), &"cl0-global".into()));
    api.report_progress(HELLO, 2, 3, 1);
    let progress = reader.until(|event| event.data["blocks"] == 2).await;
    assert_eq!(progress.kind, "progress");
    assert_eq!((&progress.data["bytes"], &progress.data["sources"]), (&3.into(), &1.into()));
    gate.open();
    let end = reader.until(|event| event.kind == "end").await;
    assert_eq!((&end.data["state"], &end.data["totalBytes"]), (&"pinned".into(), &5.into()));
    reader.ends().await;

    for name in ["Last-Event-ID", "last-event-id"] {
        let id = end.id.clone().expect("an id");
        let mut again = Reader::new(api.get(&path(HELLO)).key(&key).header(name, &id).open().await);
        assert_eq!(again.event().await, end, "the end is told again");
        again.ends().await;
    }
}

#[tokio::test]
async fn seen_events_are_not_repeated() {
    let api = Api::start().await;
    let key = api.key("free", "files:write,cluster:read").await;
    let gate = api.block_fetch(HELLO);
    request_pin(&api, &key, HELLO).await;
    gate.reached().await;
    let mut reader = Reader::new(api.get(&path(HELLO)).key(&key).open().await);
    let seen = reader.until(|event| event.data["state"] == "pinning").await.id.expect("an id");
    drop(reader);

    let in_query = format!("{}?lastEventId={seen}", path(HELLO));
    let mut by_header =
        Reader::new(api.get(&path(HELLO)).key(&key).header("last-event-id", &seen).open().await);
    let mut by_query = Reader::new(api.get(&in_query).key(&key).open().await);
    let mut by_nonsense =
        Reader::new(api.get(&path(HELLO)).key(&key).header("last-event-id", "nonsense").open().await);
    assert_eq!(by_nonsense.event().await.id.as_ref(), Some(&seen), "it knows nothing yet");
    api.report_progress(HELLO, 1, 2, 1);
    for reader in [&mut by_header, &mut by_query] {
        let event = reader.event().await;
        assert_eq!(event.data["blocks"], 1, "the first that it is told is new: {event:?}");
    }
    gate.open();
}

#[tokio::test]
async fn stream_sends_heartbeats() {
    let mut settings = Settings::default();
    settings.events.heartbeat = Duration::from_millis(10);
    let api = Api::start_with(settings).await;
    let key = api.key("free", "files:write,cluster:read").await;
    let gate = api.block_fetch(HELLO);
    request_pin(&api, &key, HELLO).await;
    gate.reached().await;
    let mut reader = Reader::new(api.get(&path(HELLO)).key(&key).open().await);
    let mut comments = 0;
    while comments < 3 {
        comments += usize::from(reader.block().await.expect("it goes on").other == ": still here");
    }
    gate.open();
    reader.until(|event| event.kind == "end").await;
}

#[tokio::test]
async fn stream_ends_with_its_key_pin_time_or_server() {
    let api = Api::start().await;
    let scopes = "files:write,files:delete,cluster:read";
    let (key, other) = (api.key("free", scopes).await, api.key("free", scopes).await);
    let gate = api.block_fetch(HELLO);
    for key in [&key, &other] {
        request_pin(&api, key, HELLO).await;
    }
    gate.reached().await;
    let mut reader = Reader::new(api.get(&path(HELLO)).key(&key).open().await);
    reader.event().await;
    api.revoke(&key).await;
    let closed = reader.until(|event| event.kind == "closed").await;
    assert_eq!((closed.id, &closed.data["reason"]), (None, &"credential".into()));
    reader.ends().await;

    let mut reader = Reader::new(api.get(&path(HELLO)).key(&other).open().await);
    reader.event().await;
    let remove = format!("/api/v3/files/remove/{HELLO}");
    assert_eq!(api.request("DELETE", &remove).key(&other).await.status(), 200);
    let end = reader.until(|event| event.kind == "end").await;
    assert_eq!(end.data["state"], "unpinned");
    reader.ends().await;

    let third = api.key("free", scopes).await;
    let gate = api.block_fetch(WORLD);
    request_pin(&api, &third, WORLD).await;
    gate.reached().await;
    let mut reader = Reader::new(api.get(&path(WORLD)).key(&third).open().await);
    reader.event().await;
    api.stop();
    let closed = reader.until(|event| event.kind == "closed").await;
    assert_eq!(closed.data["reason"], "stopping");
    reader.ends().await;
}

#[tokio::test]
async fn stream_lifetime_is_bounded() {
    let mut settings = Settings::default();
    settings.events.life = Duration::from_millis(10);
    let api = Api::start_with(settings).await;
    let key = api.key("free", "files:write,cluster:read").await;
    let gate = api.block_fetch(HELLO);
    request_pin(&api, &key, HELLO).await;
    gate.reached().await;
    let mut reader = Reader::new(api.get(&path(HELLO)).key(&key).open().await);
    let closed = reader.until(|event| event.kind == "closed").await;
    assert_eq!(closed.data["reason"], "time");
    reader.ends().await;
}

#[tokio::test]
async fn failure_ends_the_stream_with_its_cause() {
    let api = Api::start().await;
    let key = api.key("free", "files:write,cluster:read").await;
    api.unpublish(HELLO);
    request_pin(&api, &key, HELLO).await;
    let mut reader = Reader::new(api.get(&path(HELLO)).key(&key).open().await);
    let end = reader.until(|event| event.kind == "end").await;
    assert_eq!((&end.data["state"], &end.data["errorCode"]), (&"failed".into(), &"not_found".into()));
    assert_eq!(end.data["error"], "CID not found");
    reader.ends().await;
}

#[tokio::test]
async fn refusals_are_json_and_foreign_pins_are_not_found() {
    let api = Api::start().await;
    let (key, other) =
        (api.key("free", "files:write,cluster:read").await, api.key("free", "cluster:read").await);
    request_pin(&api, &key, HELLO).await;
    let refused = api.get(&path(HELLO)).key(&key).header("accept", "application/json").await;
    assert_eq!((refused.status(), refused.code()), (406, "not_acceptable".into()));
    assert_eq!(refused.header("content-type"), "application/json");
    for (key, cid) in [(&other, HELLO), (&key, WORLD)] {
        let refused = api.get(&path(cid)).key(key).await;
        assert_eq!((refused.status(), refused.message()), (404, "Pin not found for this CID".into()));
    }
    assert_eq!(api.get(&path("nonsense")).key(&key).await.message(), "Invalid CID");
}

#[tokio::test]
async fn streams_are_bounded_for_each_account_and_in_total() {
    let bounds = pinfold_service::Settings {
        watches_max: 3,
        watches_per_account_max: 2,
        ..pinfold_service::Settings::default()
    };
    let api = Api::start_on(Settings::default(), bounds).await;
    let scopes = "files:write,cluster:read";
    let (key, other) = (api.key("free", scopes).await, api.key("free", scopes).await);
    let gate = api.block_fetch(HELLO);
    for key in [&key, &other] {
        request_pin(&api, key, HELLO).await;
    }
    let listen = async |key: &str| Reader::new(api.get(&path(HELLO)).key(key).open().await);
    let (first, _second) = (listen(&key).await, listen(&key).await);
    let refused = api.get(&path(HELLO)).key(&key).await;
    assert_eq!((refused.status(), refused.code()), (429, "RATE_LIMIT".into()));
    assert_eq!((&refused.json()["limit"], refused.header("retry-after")), (&2.into(), "10"));
    let _third = listen(&other).await;
    let refused = api.get(&path(HELLO)).key(&other).await;
    assert_eq!((refused.status(), refused.header("retry-after")), (503, "10"));
    drop(first);
    listen(&other).await;
    gate.open();
}

//! `GET /status/:cid/events`: the status of a pin as a stream of server-sent events.
//!
//! The format is `text/event-stream` of the HTML standard. The first line is the delay before a client reconnects. The ID of an
//! event is derived from its content, so that every process understands `Last-Event-ID` and no event but `end` is sent
//! twice. After the event `end` the server closes the connection. If it ends a stream for another reason, the event `closed`,
//! which has no ID, gives the reason.
//!
//! Nothing is buffered for slow clients: an event is created when the previous one was sent. A client that does not read
//! is disconnected.

use std::convert::Infallible;
use std::fmt::Write as _;

use axum::body::Body;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use pinfold_service::{EventId, EventKind, PinEvent, PinEventStream};
use serde::{Deserialize, Serialize};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, Interval, interval_at, sleep_until};
use utoipa::{IntoParams, ToSchema};

use crate::AppState;
use crate::middleware::auth::{ClusterRead, CredentialCheck, RequireScope};
use crate::v3::error_code::ErrorCode;
use crate::v3::extract::{CidParam, CidText, ClusterFilter, ClusterFilterParams};
use crate::v3::openapi::{Guarded, Missing};
use crate::v3::options::parse_cluster;
use crate::v3::reject::{Reject, RejectBody};

const EVENT_STREAM: &str = "text/event-stream";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Makes nginx pass events on at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The start of a stream, as an example.
const EXAMPLE: &str = "retry: 3000\n\nid: 34407e29d027c000-pinning-6a09e667f3bcc908\nevent: progress\ndata: {\"cid\":\"bafkreiexp7jgrrnl7i37debwszffmd5oqujkwlu6472bthy4ezpvmwfcw4\",\"uploadId\":\"34407e29d027c000\",\"clusterId\":\"cl0-global\",\"state\":\"pinning\",\"blocks\":12,\"bytes\":3145728,\"totalBytes\":null,\"sources\":2,\"rate\":1048576,\"error\":null,\"errorCode\":null,\"attempts\":0,\"nextTryAt\":null,\"expiresAt\":null}\n\n";

/// OpenAPI description of `Last-Event-ID`.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "the document reads its fields")]
struct LastEventParam {
    /// ID of the last event that the client received. The server sends only later events.
    #[param(rename = "Last-Event-ID", example = "34407e29d027c000-pinning-6a09e667f3bcc908")]
    last_event_id: Option<String>,
}

/// Stream the status of a pin
///
/// Server-sent events: `state`, `progress` and finally `end`, each with the complete status (schema `PinEvent`). If the server
/// ends the stream earlier, the event `closed` gives the reason.
#[utoipa::path(get, path = "/status/{cid}/events", operation_id = "streamPinStatus", tag = "status", security(("key" = ["cluster:read"]), ("session" = [])),
    params(CidParam, ClusterFilterParams, LastEventParam),
    responses(
        (status = 200, description = "Events until the pin is pinned, has failed or is removed.", body = serde_json::Value, content_type = "text/event-stream", example = json!(EXAMPLE)),
        (status = 406, description = "The client does not accept event streams.", body = RejectBody, example = json!({"error": "Not Acceptable", "message": "This is a stream of events; send `Accept: text/event-stream`", "code": "not_acceptable"})),
        Missing, Guarded))]
pub(crate) async fn events(
    State(app): State<AppState>,
    caller: RequireScope<ClusterRead>,
    CidText(cid): CidText,
    ClusterFilter(hint): ClusterFilter,
    _accepts: AcceptsEvents,
    LastEvent(seen): LastEvent,
    credential: CredentialCheck<ClusterRead>,
) -> Result<Response, Reject> {
    let cluster = parse_cluster(hint.as_deref())?;
    // Subscribed before the watch starts, so that no revocation is missed.
    let revocations = app.service().tokens.revocations();
    let watch = app.service().pins.events(&caller, &cid, cluster.as_ref(), seen).await?;
    let body = Body::from_stream(stream(EventStream::new(app, watch, credential, revocations)));
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    Ok((headers, body).into_response())
}

/// Proof that the client accepts event streams: `Accept` permits them or is absent.
pub(crate) struct AcceptsEvents;

impl FromRequestParts<AppState> for AcceptsEvents {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, _app: &AppState) -> Result<Self, Reject> {
        if accepts_events(&parts.headers) {
            return Ok(Self);
        }
        let message = format!("This is a stream of events; send `Accept: {EVENT_STREAM}`");
        Err(Reject::new(StatusCode::NOT_ACCEPTABLE, message).code(ErrorCode::NotAcceptable))
    }
}

fn accepts_events(headers: &HeaderMap) -> bool {
    let is_fit = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map(str::parse::<f32>);
        let is_refused = weight.is_some_and(|weight| weight.is_ok_and(|weight| weight <= 0.0));
        matches!(kind.as_str(), EVENT_STREAM | "text/*" | "*/*") && !is_refused
    };
    let mut values = headers.get_all(ACCEPT).iter().peekable();
    values.peek().is_none()
        || values.any(|value| value.to_str().is_ok_and(|text| text.split(',').any(is_fit)))
}

/// The id of the last event that the client saw: in the header, or in the query for clients that can't send it. A malformed
/// id is ignored.
pub(crate) struct LastEvent(Option<EventId>);

#[derive(Default, Deserialize)]
struct LastEventQuery {
    #[serde(rename = "lastEventId")]
    last_event_id: Option<String>,
}

impl FromRequestParts<AppState> for LastEvent {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Infallible> {
        let query = Query::<LastEventQuery>::from_request_parts(parts, app).await;
        let in_query = query.ok().and_then(|Query(query)| query.last_event_id);
        let in_header = parts.headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
        Ok(Self(in_header.or(in_query.as_deref()).and_then(|text| text.trim().parse().ok())))
    }
}

/// One open stream.
struct EventStream {
    app: AppState,
    watch: PinEventStream,
    credential: CredentialCheck<ClusterRead>,
    revocations: Receiver<()>,
    heartbeat: Interval,
    ends_at: Instant,
    has_begun: bool,
    has_ended: bool,
}

/// What is sent next.
enum Next {
    Event(Box<PinEvent>),
    Heartbeat,
    Closed(&'static str),
    Nothing,
}

impl EventStream {
    fn new(
        app: AppState,
        watch: PinEventStream,
        credential: CredentialCheck<ClusterRead>,
        revocations: Receiver<()>,
    ) -> Self {
        let bounds = &app.settings().events;
        let now = Instant::now();
        let heartbeat = interval_at(now + bounds.heartbeat, bounds.heartbeat);
        let ends_at = now + bounds.life;
        Self { app, watch, credential, revocations, heartbeat, ends_at, has_begun: false, has_ended: false }
    }

    async fn next(&mut self) -> Next {
        let stopping = self.app.stopping().clone();
        tokio::select! {
            biased;
            () = stopping.cancelled() => return Next::Closed("stopping"),
            event = self.watch.next() => return match event {
                Ok(Some(event)) => Next::Event(Box::new(event)),
                Ok(None) => Next::Nothing,
                Err(_logged) => Next::Closed("unavailable"),
            },
            () = sleep_until(self.ends_at) => return Next::Closed("time"),
            // The sender of revocations lives as long as the app.
            Ok(()) = self.revocations.changed() => {}
            _ = self.heartbeat.tick() => {}
        }
        if self.credential.passes(&self.app.service().tokens).await {
            Next::Heartbeat
        } else {
            Next::Closed("credential")
        }
    }

    async fn chunk(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.has_begun, true) {
            return Some(format!("retry: {}\n\n", self.app.settings().events.retry.as_millis()).into());
        }
        if self.has_ended {
            return None;
        }
        match self.next().await {
            Next::Event(event) => {
                self.has_ended = event.kind == EventKind::End;
                Some(encode(&event))
            }
            Next::Heartbeat => Some(Bytes::from_static(b": still here\n\n")),
            Next::Closed(reason) => {
                self.has_ended = true;
                Some(format!("event: closed\ndata: {{\"reason\":\"{reason}\"}}\n\n").into())
            }
            Next::Nothing => None,
        }
    }
}

fn stream(events: EventStream) -> impl Stream<Item = Result<Bytes, Infallible>> {
    futures::stream::unfold(events, |mut events| async {
        let chunk = events.chunk().await?;
        Some((Ok(chunk), events))
    })
}

fn encode(event: &PinEvent) -> Bytes {
    let kind = match event.kind {
        EventKind::State => "state",
        EventKind::Progress => "progress",
        EventKind::End => "end",
    };
    // Neither the JSON nor the id has line breaks.
    let data = serde_json::to_string(&EventBody::new(event)).unwrap_or_default();
    let mut text = String::with_capacity(data.len() + 128);
    let _ = write!(text, "id: {}\nevent: {kind}\ndata: {data}\n\n", event.id);
    text.into()
}

/// Status of a pin in an event.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PinEvent)]
pub(crate) struct EventBody {
    cid: String,
    upload_id: String,
    cluster_id: Option<String>,
    state: &'static str,
    blocks: u64,
    bytes: u64,
    total_bytes: Option<u64>,
    sources: u64,
    rate: u64,
    error: Option<String>,
    error_code: Option<&'static str>,
    attempts: u32,
    next_try_at: Option<String>,
    expires_at: Option<String>,
}

impl EventBody {
    fn new(event: &PinEvent) -> Self {
        let error = event.error.as_ref();
        Self {
            cid: event.cid.to_string(),
            upload_id: event.upload_id.to_string(),
            cluster_id: event.cluster.as_ref().map(ToString::to_string),
            state: event.state.as_str(),
            blocks: event.progress.blocks,
            bytes: event.progress.bytes,
            total_bytes: event.progress.total_bytes,
            sources: event.progress.peers,
            rate: event.rate,
            error: error.map(|failure| failure.detail.clone()),
            error_code: error.map(|failure| failure.code.as_str()),
            attempts: event.attempts,
            next_try_at: event.next_try_at.map(|time| time.to_string()),
            expires_at: event.expires_at.map(|time| time.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_header_is_respected() {
        let accepts = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT, HeaderValue::from_static(value));
            }
            accepts_events(&headers)
        };
        assert!(accepts(&[]), "a client that does not say takes anything");
        for good in ["text/event-stream", "*/*", "application/json, Text/Event-Stream;q=0.5", "text/*; q=1"] {
            assert!(accepts(&[good]), "{good}");
        }
        for bad in ["application/json", "text/html", "text/event-stream;q=0", "*/*; q=0.0", ""] {
            assert!(!accepts(&[bad]), "{bad}");
        }
        assert!(accepts(&["application/json", "text/event-stream"]), "in any of its lines");
    }
}

//! The router of an operator's commands.
//!
//! Long answers are streams: a CAR, or one JSON object a line. A stream that can't be written to its end
//! breaks, so that no part of it passes for the whole; why it broke is then asked for at `/faults/ID`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use cid::Cid;
use futures::TryStreamExt as _;
use serde_json::json;
use tokio_util::io::StreamReader;

use crate::operate::{ImportReport, ImportTerms, Operator};

/// Faults that are remembered; a command asks for its own at once.
const FAULTS_MAX: usize = 64;

/// How long what a command still sends is read and thrown away after its answer is clear. Closing at once would
/// reset the connection, and the command could lose the answer that says why.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// The header that says under which number a stream's fault can be asked for.
pub(crate) const FAULT_HEADER: &str = "x-pinfold-fault";

#[derive(Clone)]
struct Place {
    operator: Arc<Operator>,
    faults: Arc<Faults>,
}

/// The router.
pub(crate) fn router(operator: Arc<Operator>) -> Router {
    Router::new()
        .route("/export/{cid}", get(export))
        .route("/faults/{id}", get(fault))
        .route("/import", post(import))
        .with_state(Place { operator, faults: Arc::default() })
}

/// Why something was not done, in one sentence.
struct Fault(StatusCode, String);

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        Self(StatusCode::UNPROCESSABLE_ENTITY, format!("{error:#}"))
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

/// Why streams broke, the latest last.
#[derive(Default)]
struct Faults(Mutex<(u64, VecDeque<(u64, String)>)>);

impl Faults {
    fn number(&self) -> u64 {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.0 += 1;
        faults.0
    }

    fn note(&self, number: u64, text: String) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.1.len() >= FAULTS_MAX {
            faults.1.pop_front();
        }
        faults.1.push_back((number, text));
    }

    fn find(&self, number: u64) -> Option<String> {
        let faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.1.iter().find(|(found, _)| *found == number).map(|(_, text)| text.clone())
    }
}

async fn fault(State(place): State<Place>, Path(number): Path<u64>) -> Response {
    match place.faults.find(number) {
        Some(text) => Json(json!({ "error": text })).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A CAR with the DAG under a CID.
async fn export(State(place): State<Place>, Path(cid): Path<String>) -> Result<Response, Fault> {
    let root = Cid::try_from(cid.as_str())
        .map_err(|_| Fault(StatusCode::BAD_REQUEST, format!("{cid:?} is no CID")))?;
    let mut pieces = place.operator.export(root);
    // A DAG of which nothing is here gets an answer that says so, not a stream that breaks.
    let first = match pieces.recv().await {
        Some(Ok(piece)) => piece,
        Some(Err(error)) => return Err(Fault(StatusCode::NOT_FOUND, error.to_string())),
        None => Bytes::new(),
    };
    let number = place.faults.number();
    let stopping = place.operator.stopping.clone();
    let rest = futures::stream::unfold((Some(first), pieces), move |(first, mut pieces)| {
        let (faults, stopping) = (Arc::clone(&place.faults), stopping.clone());
        async move {
            if let Some(first) = first {
                return Some((Ok(first), (None, pieces)));
            }
            let piece = tokio::select! {
                piece = pieces.recv() => piece?.map_err(|error| error.to_string()),
                () = stopping.cancelled() => Err("the server is stopping".to_owned()),
            };
            let piece = piece.map_err(|text| {
                faults.note(number, text.clone());
                std::io::Error::other(text)
            });
            Some((piece, (None, pieces)))
        }
    });
    let mut response = Body::from_stream(rest).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/vnd.ipld.car; version=1"));
    headers.insert(FAULT_HEADER, HeaderValue::from(number));
    Ok(response)
}

/// Takes a CAR in.
async fn import(
    State(place): State<Place>,
    Query(terms): Query<ImportTerms>,
    body: Body,
) -> Result<Json<ImportReport>, Fault> {
    let mut body = StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
    let imported = tokio::select! {
        imported = place.operator.import(terms, &mut body) => imported,
        () = place.operator.stopping.cancelled() => Err(anyhow::anyhow!("the server is stopping")),
    };
    if imported.is_err() {
        let mut nowhere = tokio::io::sink();
        let drained = tokio::io::copy_buf(&mut body, &mut nowhere);
        // The answer says what is wrong; how the rest of the body goes does not matter.
        let _ = tokio::time::timeout(DRAIN_TIME, drained).await;
    }
    Ok(Json(imported?))
}

//! The HTTP routes of the administrative operations.
//!
//! Long responses are streamed: a CAR, or one JSON object per line. If a stream fails, its connection is closed before
//! the end of the body, so that the client cannot mistake it for complete. The client then requests the error at
//! `/errors/{id}`.

use std::collections::VecDeque;
use std::path::PathBuf;
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
use futures::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

use crate::admin_ops::AdminOps;
use crate::admin_ops::backup::BackupReport;
use crate::admin_ops::blocks::{DamagedPage, RepairReport, Stats};
use crate::admin_ops::car::{ImportOptions, ImportReport};

/// Number of stream errors that are remembered. Clients request theirs immediately.
const STREAM_ERRORS_MAX: usize = 64;

/// How long the rest of a request body is read and discarded after an error. Closing immediately would reset the
/// connection, and the client could lose the response.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// Header of a streamed response: the id under which its error can be requested.
pub(crate) const ERROR_ID_HEADER: &str = "x-pinfold-error-id";

#[derive(Clone)]
struct Shared {
    ops: Arc<AdminOps>,
    stream_errors: Arc<StreamErrors>,
}

/// The router of the administrative operations.
pub(crate) fn router(ops: Arc<AdminOps>) -> Router {
    Router::new()
        .route("/export/{cid}", get(export))
        .route("/errors/{id}", get(stream_error))
        .route("/import", post(import))
        .route("/backup", post(backup))
        .route("/blocks/stats", get(stats))
        .route("/blocks/verify", post(verify))
        .route("/blocks/damaged", get(damaged))
        .route("/blocks/repair", post(repair))
        .with_state(Shared { ops, stream_errors: Arc::default() })
}

/// An error response: status and message.
struct RequestError(StatusCode, String);

impl From<anyhow::Error> for RequestError {
    fn from(error: anyhow::Error) -> Self {
        Self(StatusCode::UNPROCESSABLE_ENTITY, format!("{error:#}"))
    }
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

/// Errors of streamed responses: the last id, and ids with messages, the latest last.
#[derive(Default)]
struct StreamErrors(Mutex<(u64, VecDeque<(u64, String)>)>);

impl StreamErrors {
    fn next_id(&self) -> u64 {
        let mut errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        errors.0 += 1;
        errors.0
    }

    fn record(&self, id: u64, message: String) {
        let mut errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.1.len() >= STREAM_ERRORS_MAX {
            errors.1.pop_front();
        }
        errors.1.push_back((id, message));
    }

    fn find(&self, id: u64) -> Option<String> {
        let errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        errors.1.iter().find(|(found, _)| *found == id).map(|(_, message)| message.clone())
    }
}

async fn stream_error(State(shared): State<Shared>, Path(id): Path<u64>) -> Response {
    match shared.stream_errors.find(id) {
        Some(message) => Json(json!({ "error": message })).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Streams the DAG under a CID as a CAR.
async fn export(State(shared): State<Shared>, Path(cid): Path<String>) -> Result<Response, RequestError> {
    let root = Cid::try_from(cid.as_str())
        .map_err(|_| RequestError(StatusCode::BAD_REQUEST, format!("{cid:?} is not a CID")))?;
    let mut chunks = shared.ops.export(root);
    // If the root is missing, the response is an error instead of a stream that fails.
    let first = match chunks.recv().await {
        Some(Ok(chunk)) => chunk,
        Some(Err(error)) => return Err(RequestError(StatusCode::NOT_FOUND, error.to_string())),
        None => Bytes::new(),
    };
    let mut response = stream(&shared, first, chunks, Ok);
    let content_type = HeaderValue::from_static("application/vnd.ipld.car; version=1");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}

/// A streamed response. On an error, records the message and breaks the stream.
fn stream<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    shared: &Shared,
    first: Bytes,
    items: mpsc::Receiver<Result<T, E>>,
    write: impl Fn(T) -> serde_json::Result<Bytes> + Clone + Send + 'static,
) -> Response {
    let id = shared.stream_errors.next_id();
    let (errors, stopping) = (Arc::clone(&shared.stream_errors), shared.ops.stopping.clone());
    let rest = futures::stream::unfold(items, move |mut items| {
        let (errors, stopping, write) = (Arc::clone(&errors), stopping.clone(), write.clone());
        async move {
            let item = tokio::select! {
                item = items.recv() => item?.map_err(|error| error.to_string()),
                () = stopping.cancelled() => Err("the server is stopping".to_owned()),
            };
            let chunk = item.and_then(|item| write(item).map_err(|error| error.to_string()));
            let chunk = chunk.map_err(|message| {
                errors.record(id, message.clone());
                std::io::Error::other(message)
            });
            Some((chunk, items))
        }
    });
    let first = futures::stream::iter((!first.is_empty()).then_some(Ok(first)));
    let mut response = Body::from_stream(first.chain(rest)).into_response();
    response.headers_mut().insert(ERROR_ID_HEADER, HeaderValue::from(id));
    response
}

fn json_line<T: Serialize>(value: T) -> serde_json::Result<Bytes> {
    let mut line = serde_json::to_vec(&value)?;
    line.push(b'\n');
    Ok(line.into())
}

/// Imports a CAR from the request body.
async fn import(
    State(shared): State<Shared>,
    Query(options): Query<ImportOptions>,
    body: Body,
) -> Result<Json<ImportReport>, RequestError> {
    let mut body = StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
    let imported = tokio::select! {
        imported = shared.ops.import(options, &mut body) => imported,
        () = shared.ops.stopping.cancelled() => Err(anyhow::anyhow!("the server is stopping")),
    };
    if imported.is_err() {
        let mut sink = tokio::io::sink();
        let drained = tokio::io::copy_buf(&mut body, &mut sink);
        // The response reports the first error; errors of the rest of the body are irrelevant.
        let _ = tokio::time::timeout(DRAIN_TIME, drained).await;
    }
    Ok(Json(imported?))
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BackupBody {
    /// Absolute path of the backup.
    pub(crate) dir: PathBuf,
}

/// Makes a backup.
async fn backup(
    State(shared): State<Shared>,
    Json(body): Json<BackupBody>,
) -> Result<Json<BackupReport>, RequestError> {
    let made = tokio::select! {
        made = shared.ops.backup(body.dir) => made,
        () = shared.ops.stopping.cancelled() => Err(anyhow::anyhow!("the server is stopping")),
    };
    Ok(Json(made?))
}

/// Totals of the block store.
async fn stats(State(shared): State<Shared>) -> Result<Json<Stats>, RequestError> {
    Ok(Json(shared.ops.stats().await?))
}

/// Verifies all blocks; streams progress as one JSON object per line.
async fn verify(State(shared): State<Shared>) -> Response {
    stream(&shared, Bytes::new(), shared.ops.verify(), json_line)
}

#[derive(Debug, Deserialize)]
struct DamagedQuery {
    /// CID of the last block of the previous page.
    after: Option<String>,
}

/// A page of damaged blocks.
async fn damaged(
    State(shared): State<Shared>,
    Query(query): Query<DamagedQuery>,
) -> Result<Json<DamagedPage>, RequestError> {
    let after = query.after.as_deref().map(Cid::try_from).transpose();
    let after = after.map_err(|error| RequestError(StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(Json(shared.ops.damaged(after).await?))
}

/// Schedules the repair of damaged blocks.
async fn repair(State(shared): State<Shared>) -> Result<Json<RepairReport>, RequestError> {
    Ok(Json(shared.ops.repair().await?))
}

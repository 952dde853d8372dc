//! The router of an operator's commands.
//!
//! Long answers are streams: a CAR, or one JSON object a line. A stream that can't be written to its end
//! breaks, so that no part of it passes for the whole; why it broke is then asked for at `/faults/ID`.

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

use crate::admin_ops::backup::BackupReport;
use crate::admin_ops::blocks::{DamagedPage, Repair, Stats};
use crate::admin_ops::{AdminOps, ImportOptions, ImportReport};

/// Faults that are remembered; a command asks for its own at once.
const FAULTS_MAX: usize = 64;

/// How long what a command still sends is read and thrown away after its answer is clear. Closing at once would
/// reset the connection, and the command could lose the answer that says why.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// The header that says under which number a stream's fault can be asked for.
pub(crate) const FAULT_HEADER: &str = "x-pinfold-fault";

#[derive(Clone)]
struct Shared {
    ops: Arc<AdminOps>,
    faults: Arc<Faults>,
}

/// The router.
pub(crate) fn router(ops: Arc<AdminOps>) -> Router {
    Router::new()
        .route("/export/{cid}", get(export))
        .route("/faults/{id}", get(fault))
        .route("/import", post(import))
        .route("/backup", post(backup))
        .route("/blocks/stats", get(stats))
        .route("/blocks/verify", post(verify))
        .route("/blocks/damaged", get(damaged))
        .route("/blocks/repair", post(repair))
        .with_state(Shared { ops, faults: Arc::default() })
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

async fn fault(State(shared): State<Shared>, Path(number): Path<u64>) -> Response {
    match shared.faults.find(number) {
        Some(text) => Json(json!({ "error": text })).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A CAR with the DAG under a CID.
async fn export(State(shared): State<Shared>, Path(cid): Path<String>) -> Result<Response, Fault> {
    let root = Cid::try_from(cid.as_str())
        .map_err(|_| Fault(StatusCode::BAD_REQUEST, format!("{cid:?} is no CID")))?;
    let mut pieces = shared.ops.export(root);
    // A DAG of which nothing is here gets an answer that says so, not a stream that breaks.
    let first = match pieces.recv().await {
        Some(Ok(piece)) => piece,
        Some(Err(error)) => return Err(Fault(StatusCode::NOT_FOUND, error.to_string())),
        None => Bytes::new(),
    };
    let mut response = stream(&shared, first, pieces, Ok);
    let kind = HeaderValue::from_static("application/vnd.ipld.car; version=1");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// An answer that goes on until there is no more, or breaks with the reason noted.
fn stream<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    shared: &Shared,
    first: Bytes,
    pieces: mpsc::Receiver<Result<T, E>>,
    write: impl Fn(T) -> serde_json::Result<Bytes> + Clone + Send + 'static,
) -> Response {
    let number = shared.faults.number();
    let (faults, stopping) = (Arc::clone(&shared.faults), shared.ops.stopping.clone());
    let rest = futures::stream::unfold(pieces, move |mut pieces| {
        let (faults, stopping, write) = (Arc::clone(&faults), stopping.clone(), write.clone());
        async move {
            let piece = tokio::select! {
                piece = pieces.recv() => piece?.map_err(|error| error.to_string()),
                () = stopping.cancelled() => Err("the server is stopping".to_owned()),
            };
            let piece = piece.and_then(|piece| write(piece).map_err(|error| error.to_string()));
            let piece = piece.map_err(|text| {
                faults.note(number, text.clone());
                std::io::Error::other(text)
            });
            Some((piece, pieces))
        }
    });
    let first = futures::stream::iter((!first.is_empty()).then_some(Ok(first)));
    let mut response = Body::from_stream(first.chain(rest)).into_response();
    response.headers_mut().insert(FAULT_HEADER, HeaderValue::from(number));
    response
}

fn line<T: Serialize>(value: T) -> serde_json::Result<Bytes> {
    let mut line = serde_json::to_vec(&value)?;
    line.push(b'\n');
    Ok(line.into())
}

/// Takes a CAR in.
async fn import(
    State(shared): State<Shared>,
    Query(terms): Query<ImportOptions>,
    body: Body,
) -> Result<Json<ImportReport>, Fault> {
    let mut body = StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
    let imported = tokio::select! {
        imported = shared.ops.import(terms, &mut body) => imported,
        () = shared.ops.stopping.cancelled() => Err(anyhow::anyhow!("the server is stopping")),
    };
    if imported.is_err() {
        let mut nowhere = tokio::io::sink();
        let drained = tokio::io::copy_buf(&mut body, &mut nowhere);
        // The answer says what is wrong; how the rest of the body goes does not matter.
        let _ = tokio::time::timeout(DRAIN_TIME, drained).await;
    }
    Ok(Json(imported?))
}

/// Where to make a backup.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BackupBody {
    /// An absolute path.
    pub(crate) dir: PathBuf,
}

/// Makes a backup.
async fn backup(
    State(shared): State<Shared>,
    Json(body): Json<BackupBody>,
) -> Result<Json<BackupReport>, Fault> {
    let made = tokio::select! {
        made = shared.ops.backup(body.dir) => made,
        () = shared.ops.stopping.cancelled() => Err(anyhow::anyhow!("the server is stopping")),
    };
    Ok(Json(made?))
}

/// What the store has in all.
async fn stats(State(shared): State<Shared>) -> Result<Json<Stats>, Fault> {
    Ok(Json(shared.ops.stats().await?))
}

/// Reads and verifies everything: progress, one JSON object a line.
async fn verify(State(shared): State<Shared>) -> Response {
    stream(&shared, Bytes::new(), shared.ops.verify(), line)
}

/// Where a page of damaged blocks begins.
#[derive(Debug, Deserialize)]
struct DamagedQuery {
    after: Option<String>,
}

/// Damaged blocks.
async fn damaged(
    State(shared): State<Shared>,
    Query(query): Query<DamagedQuery>,
) -> Result<Json<DamagedPage>, Fault> {
    let after = query.after.as_deref().map(Cid::try_from).transpose();
    let after = after.map_err(|error| Fault(StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(Json(shared.ops.damaged(after).await?))
}

/// Has damaged blocks fetched again.
async fn repair(State(shared): State<Shared>) -> Result<Json<Repair>, Fault> {
    Ok(Json(shared.ops.repair().await?))
}

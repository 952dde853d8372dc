//! `Idempotency-Key`: a POST that a client gave a name is done once, and answered again as it was.
//!
//! Two requests are the same when their method, path, query, `X-Cluster` and body are. A JSON body is read before the
//! request runs; that of a form is hashed while the handler reads it ([`FormPrint`]), so that nothing is held in
//! memory. What is kept: every answer that came after the whole body was read, but no fault of the server (5xx), 408
//! or 429, and nothing above a bound. Of a good answer that may hold a secret only the fact is kept.
//!
//! This stands behind the gate: a name belongs to the account of a good credential, and without one the handler says
//! what is missing. Logins do not take part, since their answers are secrets for those who were not known before.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::StreamExt;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use pinfold_model::IdempotencyKey;
use pinfold_service::{
    Begun, Caller, Idempotency, IdempotencyError, RequestFingerprint, Running, StoredResponse,
};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use crate::middleware::identity::Identity;
use crate::middleware::multipart_digest::FormPrint;
use crate::prefer::PREFERENCE_APPLIED;
use crate::upload_body::{BodyFault, UploadBody};
use crate::v3::reject::Reject;
use crate::{AppState, Bodies};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const X_CLUSTER: &str = "x-cluster";

/// Headers of an answer that are kept with it.
const KEPT_HEADERS: [HeaderName; 3] = [header::CONTENT_TYPE, header::LOCATION, PREFERENCE_APPLIED];

/// The largest body that is no form, in bytes: a thousand pins with their names.
const BODY_BYTES_MAX: usize = 2 << 20;

/// What a form may have beside what its content may, in bytes: heads and fields.
const FORM_EXTRA_BYTES: u64 = 64 << 20;

/// Routes that take no part: what they answer is for whoever proves to be somebody.
pub(crate) const NOT_NAMED: &str = "/api/v3/auth/";

/// Routes whose answers hold no secret, by how they begin. Of all others only the fact is kept that they were answered,
/// so that a new route can't leave a secret in the database because nobody thought of it.
const WITHOUT_SECRET: [&str; 3] = ["/api/v3/files", "/api/v3/tokens/revoke", "/api/v3/webhooks/{id}/test"];

/// A request with a name, by somebody who is known.
struct Named {
    key: IdempotencyKey,
    caller: Arc<Caller>,
    holds_secret: bool,
}

/// Runs a named request once. All others pass.
pub(crate) async fn once(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let done = match Named::of(&request) {
        None => return next.run(request).await,
        Some(Err(reject)) => Err(reject),
        Some(Ok(named)) => match form_boundary(&request) {
            Some(boundary) => named.form(&app, request, &boundary, next).await,
            None => named.plain(&app, request, next).await,
        },
    };
    done.unwrap_or_else(IntoResponse::into_response)
}

impl Named {
    /// The name of a request, if it has one that counts.
    fn of(request: &Request) -> Option<Result<Self, Reject>> {
        let mut keys = request.headers().get_all(IDEMPOTENCY_KEY).iter();
        let key = keys.next()?;
        let Identity::Caller(caller) = request.extensions().get::<Identity>()? else { return None };
        let route = request.extensions().get::<MatchedPath>()?.as_str();
        if *request.method() != Method::POST || route.starts_with(NOT_NAMED) {
            return None;
        }
        if keys.next().is_some() {
            return Some(Err(Reject::invalid("Send one Idempotency-Key").code("invalid_idempotency_key")));
        }
        let holds_secret = !WITHOUT_SECRET.iter().any(|prefix| route.starts_with(prefix));
        let named = |key| Self { key, caller: Arc::clone(caller), holds_secret };
        let key = IdempotencyKey::parse(key.as_bytes()).map(named);
        Some(key.map_err(|error| Reject::invalid(error.to_string()).code("invalid_idempotency_key")))
    }

    /// A request whose body is small enough to be read before it runs.
    async fn plain(self, app: &AppState, request: Request, next: Next) -> Result<Response, Reject> {
        let head = head_hash(&request);
        let (parts, body) = request.into_parts();
        let body = read(body, &app.settings().bodies).await?;
        let hash = HEXLOWER.encode(&Sha256::digest(&body));
        let print = RequestFingerprint { head, body: Some(hash.clone()) };
        match app.service().idempotency.begin(&self.caller, &self.key, print).await? {
            Begun::First(running) => {
                let request = Request::from_parts(parts, Body::from(body));
                let work = async move {
                    let response = running.run(next.run(request)).await;
                    self.keep(running, response, Some(hash)).await
                };
                Ok(app.service().idempotency.see_through(work).await?)
            }
            Begun::Again(answer) => replay(answer),
        }
    }

    /// A request whose body streams.
    async fn form(
        self,
        app: &AppState,
        request: Request,
        boundary: &str,
        next: Next,
    ) -> Result<Response, Reject> {
        let print = RequestFingerprint { head: head_hash(&request), body: None };
        let begun = app.service().idempotency.begin(&self.caller, &self.key, print).await?;
        let (parts, body) = request.into_parts();
        match begun {
            Begun::First(running) => {
                let print = Arc::new(Mutex::new(FormPrint::new(boundary)));
                let request = Request::from_parts(parts, watched(body, Arc::clone(&print)));
                let response = running.run(next.run(request)).await;
                let hash = print.lock().unwrap_or_else(PoisonError::into_inner).hash();
                Ok(self.keep(running, response, hash).await)
            }
            Begun::Again(answer) => {
                let hash = self.read_form(body, boundary, &app.settings().bodies).await?;
                if hash.as_ref() != Some(&answer.request_body_hash) {
                    return Err(IdempotencyError::Reused.into());
                }
                replay(answer)
            }
        }
    }

    /// Reads a form to its end as fast as it comes, as an upload is read, and keeps nothing of it.
    async fn read_form(&self, body: Body, boundary: &str, bounds: &Bodies) -> Result<Option<String>, Reject> {
        let limits = &self.caller.plan.limits;
        let content_max = limits.storage_bytes.max(limits.file_bytes_max.unwrap_or(0));
        let mut left = content_max.saturating_add(FORM_EXTRA_BYTES);
        let (mut body, watch) = UploadBody::new(body.into_data_stream(), bounds);
        watch.expect_content();
        let mut print = FormPrint::new(boundary);
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            // What is longer than any upload of this account was no upload that was answered.
            let Some(rest) = left.checked_sub(chunk.len() as u64) else {
                return Err(IdempotencyError::Reused.into());
            };
            left = rest;
            print.update(&chunk);
        }
        Ok(print.hash())
    }

    /// Keeps an answer, or lets the name go, and gives the answer on. `hash` is that of the request's body, if that was
    /// read to its end.
    async fn keep(self, running: Running, response: Response, hash: Option<String>) -> Response {
        let status = response.status();
        let is_lasting = !status.is_server_error()
            && status != StatusCode::REQUEST_TIMEOUT
            && status != StatusCode::TOO_MANY_REQUESTS;
        let is_small = response.body().size_hint().upper().is_some_and(is_kept_size);
        let Some(hash) = hash.filter(|_| is_lasting && is_small) else {
            running.let_go().await;
            return response;
        };
        let (parts, body) = response.into_parts();
        let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
            running.let_go().await;
            return Reject::internal().into_response();
        };
        let text = String::from_utf8(body.to_vec()).ok();
        let response = Response::from_parts(parts, Body::from(body));
        let is_secret = self.holds_secret && status.is_success();
        match text {
            Some(text) => running.keep(kept(&response, (!is_secret).then_some(text), hash)).await,
            None => running.let_go().await,
        }
        response
    }
}

fn is_kept_size(bytes: u64) -> bool {
    usize::try_from(bytes).is_ok_and(|bytes| bytes <= Idempotency::ANSWER_BYTES_MAX)
}

fn kept(response: &Response, body: Option<String>, request_body_hash: String) -> StoredResponse {
    let headers = KEPT_HEADERS.into_iter().filter_map(|name| {
        let value = response.headers().get(&name)?.to_str().ok()?;
        Some((name.as_str().to_owned(), value.to_owned()))
    });
    StoredResponse { status: response.status().as_u16(), headers: headers.collect(), body, request_body_hash }
}

/// The answer as it was.
fn replay(answer: StoredResponse) -> Result<Response, Reject> {
    let Some(body) = answer.body else { return Ok(withheld(answer.status)) };
    let status = StatusCode::from_u16(answer.status).map_err(|_| Reject::internal())?;
    let mut response = (status, body).into_response();
    let kept = answer.headers.into_iter().filter_map(|(name, value)| {
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
    });
    let headers = response.headers_mut();
    for (name, value) in kept {
        headers.insert(name, value);
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

/// It was done, and what was answered is shown once.
fn withheld(status: u16) -> Response {
    let message = format!(
        "This request was carried out before and answered {status}; that answer may hold a secret, which is shown \
         only once"
    );
    let mut response = Reject::new(StatusCode::CONFLICT, message).code("answer_not_kept").into_response();
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// The hash of all that makes a request but its body.
fn head_hash(request: &Request) -> String {
    let uri = request.uri();
    let cluster = request.headers().get(X_CLUSTER).map_or(&b""[..], HeaderValue::as_bytes);
    let mut hasher = Sha256::new();
    for part in [
        request.method().as_str().as_bytes(),
        uri.path().as_bytes(),
        uri.query().unwrap_or_default().as_bytes(),
        cluster,
    ] {
        // Each with its length, so that no two lists read alike.
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    HEXLOWER.encode(&hasher.finalize())
}

/// The boundary of a form.
fn form_boundary(request: &Request) -> Option<String> {
    let content_type = request.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    multer::parse_boundary(content_type).ok()
}

/// Reads a body that is no form.
async fn read(body: Body, bounds: &Bodies) -> Result<Bytes, Reject> {
    let too_large = || {
        Reject::too_large(format!(
            "With an Idempotency-Key, a body that is no form has at most {BODY_BYTES_MAX} bytes"
        ))
    };
    if usize::try_from(body.size_hint().lower()).map_or(true, |bytes| bytes > BODY_BYTES_MAX) {
        return Err(too_large());
    }
    let body = Limited::new(body, BODY_BYTES_MAX).collect();
    let body = timeout(bounds.json_time, body).await.map_err(|_| BodyFault::TooSlow)?;
    let body =
        body.map_err(
            |error| {
                if error.is::<LengthLimitError>() { too_large() } else { BodyFault::CutOff.into() }
            },
        )?;
    Ok(body.to_bytes())
}

/// A body that is hashed as it is read.
fn watched(body: Body, print: Arc<Mutex<FormPrint>>) -> Body {
    Body::from_stream(body.into_data_stream().inspect(move |chunk| {
        if let Ok(chunk) = chunk {
            print.lock().unwrap_or_else(PoisonError::into_inner).update(chunk);
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(method: &str, uri: &str, cluster: Option<&str>) -> String {
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(cluster) = cluster {
            request = request.header(X_CLUSTER, cluster);
        }
        head_hash(&request.body(Body::empty()).expect("a request"))
    }

    #[test]
    fn every_part_of_a_request_makes_it_another() {
        let all = [
            hash("POST", "/a", None),
            hash("PUT", "/a", None),
            hash("POST", "/b", None),
            hash("POST", "/a?b", None),
            hash("POST", "/a?", Some("b")),
            hash("POST", "/a?c", None),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|other| other != one), "{i}");
        }
        assert_eq!(hash("POST", "/a", None), all[0]);
    }

    #[test]
    fn only_known_routes_may_leave_their_answers() {
        let is_kept = |route: &str| WITHOUT_SECRET.iter().any(|prefix| route.starts_with(prefix));
        assert!(is_kept("/api/v3/files/pin/{cid}") && is_kept("/api/v3/webhooks/{id}/test"));
        for secret in ["/api/v3/tokens/generate", "/api/v3/webhooks", "/api/v3/webhooks/{id}/rotate-secret"] {
            assert!(!is_kept(secret), "{secret}");
        }
    }
}

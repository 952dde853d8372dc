//! `Idempotency-Key`: a POST with a key runs once, and a repetition of it gets the same answer.
//!
//! Two requests are the same when their method, path, query, `X-Cluster` and body are. A JSON body is read before the
//! request runs; that of a multipart form is hashed while the handler reads it ([`MultipartDigest`]), so that it is not
//! held in memory. An answer is stored when the whole body was read, unless it is a server error (5xx), 408 or 429, or
//! too large. Whether the text of a successful answer is stored, which may hold a secret, is up to the route's policy.
//!
//! This runs after authentication: a key belongs to the account of a valid credential. Without one the header is
//! ignored, and the handler answers that a credential is missing.

mod multipart_digest;

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use futures::StreamExt;
use http_body_util::BodyExt;
use pinfold_model::{IdempotencyKey, StoredResponse};
use pinfold_service::{Begun, Caller, Idempotency, IdempotencyError, RequestFingerprint, Running};
use sha2::{Digest, Sha256};

use super::auth::Identity;
use super::policy::{IdempotencyPolicy, policy_of};
use super::{ErrorBody, Middleware, MiddlewareError};
use crate::Bodies;
use crate::body::{self, PacedBody};
use crate::prefer::PREFERENCE_APPLIED;
use multipart_digest::MultipartDigest;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const X_CLUSTER: &str = "x-cluster";

/// Headers of an answer that are stored with it.
const STORED_HEADERS: [HeaderName; 3] = [header::CONTENT_TYPE, header::LOCATION, PREFERENCE_APPLIED];

/// The largest body that is no form, in bytes: a thousand pins with their names.
const BODY_BYTES_MAX: usize = 2 << 20;

/// Bytes that a form may have in addition to its content: heads and fields.
const FORM_EXTRA_BYTES: u64 = 64 << 20;

/// A request with a key, by a known caller.
struct KeyedRequest {
    key: IdempotencyKey,
    caller: Arc<Caller>,
    stores_answer: bool,
    error_body: ErrorBody,
}

/// Runs a request with a key once. All others pass.
pub(super) async fn run_once(State(middleware): State<Middleware>, request: Request, next: Next) -> Response {
    let outcome = match KeyedRequest::of(&request, middleware.error_body) {
        Ok(None) => return next.run(request).await,
        Err(error) => Err(error),
        Ok(Some(keyed)) => match form_boundary(&request) {
            Some(boundary) => keyed.run_form(&middleware, request, &boundary, next).await,
            None => keyed.run_buffered(&middleware, request, next).await,
        },
    };
    outcome.unwrap_or_else(|error| middleware.error_body.response(error))
}

impl KeyedRequest {
    /// The request's key, if it has one that counts.
    fn of(request: &Request, error_body: ErrorBody) -> Result<Option<Self>, MiddlewareError> {
        let mut keys = request.headers().get_all(IDEMPOTENCY_KEY).iter();
        let (Some(key), Some(Identity::Caller(caller))) = (keys.next(), request.extensions().get()) else {
            return Ok(None);
        };
        let stores_answer = match policy_of(request).idempotency {
            IdempotencyPolicy::Ignored => return Ok(None),
            IdempotencyPolicy::StatusStored => false,
            IdempotencyPolicy::AnswerStored => true,
        };
        if *request.method() != Method::POST || request.extensions().get::<MatchedPath>().is_none() {
            return Ok(None);
        }
        if keys.next().is_some() {
            return Err(MiddlewareError::RepeatedIdempotencyKey);
        }
        let key = IdempotencyKey::parse(key.as_bytes()).map_err(MiddlewareError::InvalidIdempotencyKey)?;
        Ok(Some(Self { key, caller: Arc::clone(caller), stores_answer, error_body }))
    }

    /// Runs a request whose body is small enough to be read first.
    async fn run_buffered(
        self,
        middleware: &Middleware,
        request: Request,
        next: Next,
    ) -> Result<Response, MiddlewareError> {
        let (service, bounds) = (middleware.context.service(), &middleware.context.settings().bodies);
        let head = head_hash(&request);
        let (parts, body) = request.into_parts();
        let body = body::read(body, BODY_BYTES_MAX, bounds.json_time).await?;
        let hash = HEXLOWER.encode(&Sha256::digest(&body));
        let fingerprint = RequestFingerprint { head, body: Some(hash.clone()) };
        match service.idempotency.begin(&self.caller, &self.key, fingerprint).await? {
            Begun::First(running) => {
                let request = Request::from_parts(parts, Body::from(body));
                let work = async move {
                    let response = running.run(next.run(request)).await;
                    self.store(running, response, Some(hash)).await
                };
                Ok(service.idempotency.run_to_end(work).await?)
            }
            Begun::Again(stored) => replay(stored, self.error_body),
        }
    }

    /// Runs a request whose body is a form, which streams.
    async fn run_form(
        self,
        middleware: &Middleware,
        request: Request,
        boundary: &str,
        next: Next,
    ) -> Result<Response, MiddlewareError> {
        let (service, bounds) = (middleware.context.service(), &middleware.context.settings().bodies);
        let fingerprint = RequestFingerprint { head: head_hash(&request), body: None };
        let begun = service.idempotency.begin(&self.caller, &self.key, fingerprint).await?;
        let (parts, body) = request.into_parts();
        match begun {
            Begun::First(running) => {
                let digest = Arc::new(Mutex::new(MultipartDigest::new(boundary)));
                let request = Request::from_parts(parts, hashed(body, Arc::clone(&digest)));
                let response = running.run(next.run(request)).await;
                let hash = digest.lock().unwrap_or_else(PoisonError::into_inner).hash();
                Ok(self.store(running, response, hash).await)
            }
            Begun::Again(stored) => {
                let hash = self.hash_form(body, boundary, bounds).await?;
                if hash.as_ref() != Some(&stored.request_body_hash) {
                    return Err(IdempotencyError::Reused.into());
                }
                replay(stored, self.error_body)
            }
        }
    }

    /// Reads a form to its end, within the bounds of an upload, and keeps only its hash.
    async fn hash_form(
        &self,
        body: Body,
        boundary: &str,
        bounds: &Bodies,
    ) -> Result<Option<String>, MiddlewareError> {
        let limits = &self.caller.plan.limits;
        let content_max = limits.storage_bytes.max(limits.file_bytes_max.unwrap_or(0));
        let mut left = content_max.saturating_add(FORM_EXTRA_BYTES);
        let (mut body, watch) = PacedBody::new(body.into_data_stream(), bounds);
        watch.expect_content();
        let mut digest = MultipartDigest::new(boundary);
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            // A body that is larger than any upload of this account is not the body of the stored request.
            let Some(rest) = left.checked_sub(chunk.len() as u64) else {
                return Err(IdempotencyError::Reused.into());
            };
            left = rest;
            digest.update(&chunk);
        }
        Ok(digest.hash())
    }

    /// Stores an answer, or gives up the key, and passes the answer on. `hash` is that of the request's body, if the body
    /// was read to its end.
    async fn store(self, running: Running, response: Response, hash: Option<String>) -> Response {
        let status = response.status();
        let is_lasting = !status.is_server_error()
            && status != StatusCode::REQUEST_TIMEOUT
            && status != StatusCode::TOO_MANY_REQUESTS;
        let is_small = response.body().size_hint().upper().is_some_and(is_storable_size);
        let Some(hash) = hash.filter(|_| is_lasting && is_small) else {
            running.release().await;
            return response;
        };
        let (parts, body) = response.into_parts();
        let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
            running.release().await;
            return self.error_body.response(MiddlewareError::Internal);
        };
        let text = String::from_utf8(body.to_vec()).ok();
        let response = Response::from_parts(parts, Body::from(body));
        let may_store = self.stores_answer || !status.is_success();
        match text {
            Some(text) => running.complete(stored(&response, may_store.then_some(text), hash)).await,
            None => running.release().await,
        }
        response
    }
}

fn is_storable_size(bytes: u64) -> bool {
    usize::try_from(bytes).is_ok_and(|bytes| bytes <= Idempotency::RESPONSE_BYTES_MAX)
}

fn stored(response: &Response, body: Option<String>, request_body_hash: String) -> StoredResponse {
    let headers = STORED_HEADERS.into_iter().filter_map(|name| {
        let value = response.headers().get(&name)?.to_str().ok()?;
        Some((name.as_str().to_owned(), value.to_owned()))
    });
    StoredResponse { code: response.status().as_u16(), headers: headers.collect(), body, request_body_hash }
}

/// The stored answer. Of one whose text was not stored, an error that says so.
fn replay(stored: StoredResponse, error_body: ErrorBody) -> Result<Response, MiddlewareError> {
    let Some(body) = stored.body else {
        let mut response = error_body.response(MiddlewareError::AnswerNotStored { status: stored.code });
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        return Ok(response);
    };
    let status = StatusCode::from_u16(stored.code).map_err(|_| MiddlewareError::Internal)?;
    let mut response = (status, body).into_response();
    let stored_headers = stored.headers.into_iter().filter_map(|(name, value)| {
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
    });
    let headers = response.headers_mut();
    for (name, value) in stored_headers {
        headers.insert(name, value);
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

/// The hash of everything that identifies a request, except its body.
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
        // Each with its length, so that no two lists have the same bytes.
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

/// A body that is hashed as it is read.
fn hashed(body: Body, digest: Arc<Mutex<MultipartDigest>>) -> Body {
    Body::from_stream(body.into_data_stream().inspect(move |chunk| {
        if let Ok(chunk) = chunk {
            digest.lock().unwrap_or_else(PoisonError::into_inner).update(chunk);
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
    fn every_part_of_a_request_changes_its_hash() {
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
}

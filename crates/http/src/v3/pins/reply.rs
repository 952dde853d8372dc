//! The answers of the API v3 about pins, field by field.

use axum::Json;
use axum::http::header::{self, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use pinfold_model::{PinKind, PinName, PinState};
use pinfold_service::{PinReceipt, PinView};
use serde::Serialize;
use utoipa::ToSchema;

use crate::prefer::PREFERENCE_APPLIED;
use crate::v3::extract::EXAMPLE_CID;

/// What came of a wish to pin, or of an upload.
pub(crate) struct PinReply {
    /// The status if the pin is done; 202 if it is not.
    done: StatusCode,
    body: PinBody,
    location: Option<HeaderValue>,
    preference_applied: Option<HeaderValue>,
}

/// A pin.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Pin)]
pub(crate) struct PinBody {
    cid: String,
    cluster_id: String,
    expires_at: Option<String>,
    /// Until when it can't be removed.
    retain_until: Option<String>,
    pinned: bool,
    status: &'static str,
    upload_id: String,
    name: Option<String>,
    original_name: Option<String>,
    custom_name: Option<String>,
    size: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    created_at: String,
}

impl PinBody {
    pub(crate) fn new(view: &PinView, size_bytes: u64) -> Self {
        Self {
            cid: view.cid.to_string(),
            cluster_id: view.cluster.to_string(),
            expires_at: view.expires_at.map(|time| time.to_string()),
            retain_until: view.retain_until.map(|time| time.to_string()),
            pinned: view.state == PinState::Pinned,
            status: view.state.as_str(),
            upload_id: view.upload_id.to_string(),
            name: shown_name(view),
            original_name: text(view.original_name.as_ref()),
            custom_name: text(view.custom_name.as_ref()),
            size: size_bytes,
            kind: view.kind.as_str(),
            created_at: view.created_at.to_string(),
        }
    }

    pub(crate) fn example() -> Self {
        Self {
            cid: EXAMPLE_CID.to_owned(),
            cluster_id: "cl0-global".to_owned(),
            expires_at: None,
            retain_until: None,
            pinned: true,
            status: PinState::Pinned.as_str(),
            upload_id: "34407e29d027c000".to_owned(),
            name: Some("wiki".to_owned()),
            original_name: None,
            custom_name: Some("wiki".to_owned()),
            size: 4_194_304,
            kind: PinKind::Directory.as_str(),
            created_at: "2026-01-01T00:00:00.000Z".to_owned(),
        }
    }

    pub(crate) fn example_on_its_way() -> Self {
        let (status, kind) = (PinState::Pinning.as_str(), PinKind::Unknown.as_str());
        Self { pinned: false, status, kind, size: 0, ..Self::example() }
    }
}

impl PinReply {
    /// The answer to a wish: 201 if it is new, 200 if it was there.
    pub(crate) fn of_pin(receipt: &PinReceipt) -> Self {
        let done = if receipt.created { StatusCode::CREATED } else { StatusCode::OK };
        Self::new(done, &receipt.view, receipt.view.size_bytes)
    }

    /// The answer to an upload of a file: 201. Its size is the file's, without what UnixFS adds.
    pub(crate) fn of_file(receipt: &PinReceipt, file_bytes: u64) -> Self {
        Self::new(StatusCode::CREATED, &receipt.view, file_bytes)
    }

    fn new(done: StatusCode, view: &PinView, size_bytes: u64) -> Self {
        let body = PinBody::new(view, size_bytes);
        let location = if body.pinned { None } else { status_location(view) };
        Self { done, body, location, preference_applied: None }
    }

    /// Says which preferences were honoured.
    pub(crate) fn applied(mut self, preference_applied: Option<HeaderValue>) -> Self {
        self.preference_applied = preference_applied;
        self
    }
}

impl IntoResponse for PinReply {
    fn into_response(self) -> Response {
        let status = if self.body.pinned { self.done } else { StatusCode::ACCEPTED };
        let mut headers = HeaderMap::new();
        headers.extend(self.location.map(|value| (header::LOCATION, value)));
        headers.extend(self.preference_applied.map(|value| (PREFERENCE_APPLIED, value)));
        (status, headers, Json(self.body)).into_response()
    }
}

/// Where a pin's progress can be seen.
pub(crate) fn status_location(view: &PinView) -> Option<HeaderValue> {
    // CIDs and cluster ids are plain words, which stand in a URL as they are.
    HeaderValue::try_from(format!("/api/v3/status/{}?cl={}", view.cid, view.cluster)).ok()
}

/// What a pin is called: by its owner, or else where it came from.
pub(crate) fn shown_name(view: &PinView) -> Option<String> {
    text(view.custom_name.as_ref().or(view.original_name.as_ref()))
}

/// A name as text.
pub(crate) fn text(name: Option<&PinName>) -> Option<String> {
    name.map(|name| name.as_str().to_owned())
}

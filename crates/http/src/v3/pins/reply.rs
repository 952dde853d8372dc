//! Response bodies of pins in the API v3.

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

/// Response to a pin request or an upload.
pub(crate) struct PinReply {
    /// The status code if the pin is complete; otherwise 202 is sent.
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
    /// The pin cannot be removed before this time.
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
            name: Some("hello.txt".to_owned()),
            original_name: None,
            custom_name: Some("hello.txt".to_owned()),
            size: 12,
            kind: PinKind::File.as_str(),
            created_at: "2026-01-01T00:00:00.000Z".to_owned(),
        }
    }

    pub(crate) fn example_in_progress() -> Self {
        let (status, kind) = (PinState::Pinning.as_str(), PinKind::Unknown.as_str());
        Self { pinned: false, status, kind, size: 0, ..Self::example() }
    }
}

impl PinReply {
    /// Response to a pin request: 201 if the pin is new, else 200.
    pub(crate) fn of_pin(receipt: &PinReceipt) -> Self {
        let done = if receipt.created { StatusCode::CREATED } else { StatusCode::OK };
        Self::new(done, &receipt.view, receipt.view.size_bytes)
    }

    /// Response to the upload of a file: 201. `size` is the length of the file without UnixFS overhead.
    pub(crate) fn of_file(receipt: &PinReceipt, file_bytes: u64) -> Self {
        Self::new(StatusCode::CREATED, &receipt.view, file_bytes)
    }

    fn new(done: StatusCode, view: &PinView, size_bytes: u64) -> Self {
        let body = PinBody::new(view, size_bytes);
        let location = if body.pinned { None } else { status_location(view) };
        Self { done, body, location, preference_applied: None }
    }

    /// Sets `Preference-Applied`.
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

/// URL of the status of a pin, for `Location`.
pub(crate) fn status_location(view: &PinView) -> Option<HeaderValue> {
    // CIDs and cluster ids need no encoding in a URL.
    HeaderValue::try_from(format!("/api/v3/status/{}?cl={}", view.cid, view.cluster)).ok()
}

/// `customName`, or else `originalName`.
pub(crate) fn shown_name(view: &PinView) -> Option<String> {
    text(view.custom_name.as_ref().or(view.original_name.as_ref()))
}

/// A name as text.
pub(crate) fn text(name: Option<&PinName>) -> Option<String> {
    name.map(|name| name.as_str().to_owned())
}

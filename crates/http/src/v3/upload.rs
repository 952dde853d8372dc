//! `POST /files` and `POST /files/directory-dag`: content that comes as a multipart form.
//!
//! The parts stream into the service as they come. Fields may stand before or after the content: those before
//! are checked before any content is read, and nothing is kept until the form has come to its end.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap};
use axum::response::{IntoResponse, Response};
use pinfold_model::{PinName, PinState};
use pinfold_service::{Caller, DirectoryDraft, Received, ReceivedEntry, UploadReceipt, UploadTerms};
use serde::Serialize;
use utoipa::ToSchema;

use super::extract::{ClusterHint, ClusterParams, EXAMPLE_CID};
use super::form::{Form, Part};
use super::gate::{Allowed, FilesWrite};
use super::openapi::{Guarded, Storage, WithBody};
use super::reject::Reject;
use super::reply::{PinBody, PinReply, status_location};
use super::terms::{TermsBody, filled, parse_name};
use crate::AppState;

/// The longest index of a pair, in bytes: it is kept until the content comes, and is a number or a UUID.
const INDEX_LENGTH_MAX: usize = 64;

/// A file with its terms.
#[derive(ToSchema)]
#[schema(as = FileForm, rename_all = "camelCase")]
#[expect(dead_code, reason = "the document reads its fields")]
struct FileForm {
    /// The content.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    original_name: Option<String>,
    custom_name: Option<String>,
    cl: Option<String>,
    timelock: Option<String>,
}

/// The files of a directory with their terms.
#[derive(ToSchema)]
#[schema(as = DirectoryForm, rename_all = "camelCase")]
#[expect(dead_code, reason = "the document reads its fields")]
struct DirectoryForm {
    /// The files; each part's filename is its path inside the directory.
    #[schema(value_type = Vec<String>, format = Binary)]
    files: Vec<Vec<u8>>,
    dir_name: Option<String>,
    custom_name: Option<String>,
    cl: Option<String>,
    timelock: Option<String>,
}

/// Upload a file
///
/// The fields may stand before or after the file. It streams: it may be larger than memory. What is cut off leaves nothing.
#[utoipa::path(post, path = "/files", tag = "uploads", security(("key" = ["files:write"]), ("session" = [])),
    params(ClusterParams),
    request_body(content = FileForm, content_type = "multipart/form-data", example = json!({"file": "hello", "customName": "greeting"})),
    responses(
        (status = 201, description = "It is pinned.", body = PinBody, example = json!(PinBody::example())),
        (status = 202, description = "It is here, and being pinned; `Location` names where to watch it.", body = PinBody, example = json!(PinBody::example_on_its_way())),
        Guarded, WithBody, Storage))]
pub(super) async fn file(
    State(app): State<AppState>,
    caller: Allowed<FilesWrite>,
    ClusterHint(hint): ClusterHint,
    request: Request,
) -> Result<PinReply, Reject> {
    let mut form = Form::of(request, &app.settings().bodies)?;
    let mut fields = Fields::new(&app, hint);
    let received = receive_file(&app, &caller, &mut form, &mut fields).await?;
    let terms = fields.terms(&app)?;
    let file_bytes = received.file_bytes();
    let receipt = app.service().uploads.keep(&caller, received, terms).await?;
    Ok(PinReply::of_file(&receipt, file_bytes))
}

/// Upload a directory
///
/// Repeated parts `files` or `files[]`, whose filenames are the paths inside the directory, or pairs `files[i][path]` and
/// `files[i][content]`. Paths have `/` between their segments, no `..`, no leading `/`, and no two are alike.
#[utoipa::path(post, path = "/files/directory-dag", tag = "uploads", security(("key" = ["files:write"]), ("session" = [])),
    params(ClusterParams),
    request_body(content = DirectoryForm, content_type = "multipart/form-data", example = json!({"files": ["hello"], "dirName": "site"})),
    responses(
        (status = 201, description = "It is pinned.", body = DirectoryBody, example = json!(DirectoryBody::example())),
        (status = 202, description = "It is here, and being pinned; `Location` names where to watch it.", body = DirectoryBody, example = json!(DirectoryBody::example())),
        Guarded, WithBody, Storage))]
pub(super) async fn directory(
    State(app): State<AppState>,
    caller: Allowed<FilesWrite>,
    ClusterHint(hint): ClusterHint,
    request: Request,
) -> Result<DirectoryReply, Reject> {
    let mut form = Form::of(request, &app.settings().bodies)?;
    let mut fields = Fields::new(&app, hint);
    let draft = receive_directory(&app, &caller, &mut form, &mut fields).await?;
    let terms = fields.terms(&app)?;
    let kept = app.service().uploads.keep_directory(&caller, draft, terms).await?;
    Ok(DirectoryReply::new(&kept))
}

/// The text fields of a form, as far as they have come.
#[derive(Default)]
struct Fields {
    hint: Option<String>,
    body: TermsBody,
    /// What the uploaded file or directory is called; `originalName` says it too, and comes first.
    name: Option<String>,
    /// The paths of entries that are sent as pairs, by the index of the pair; each waits for its content.
    paths: HashMap<String, String>,
    /// How many paths may wait.
    paths_max: usize,
}

impl Fields {
    fn new(app: &AppState, hint: Option<String>) -> Self {
        Self { hint, paths_max: app.settings().bodies.directory_entries_max, ..Self::default() }
    }

    fn terms(&self, app: &AppState) -> Result<UploadTerms, Reject> {
        let terms = self.body.parse(self.hint.as_deref(), app.now())?;
        let name = || parse_name("filename", self.name.as_deref());
        let original_name = terms.original_name.map_or_else(name, |name| Ok(Some(name)))?;
        let (custom_name, cluster, timelock) = (terms.custom_name, terms.cluster, terms.timelock);
        Ok(UploadTerms { original_name, custom_name, cluster, timelock })
    }

    /// Takes a part that is no content. Fields that nobody knows are read and forgotten.
    async fn take(&mut self, part: Part) -> Result<(), Reject> {
        let field = part.name().to_owned();
        let text = part.text().await?;
        if let Some(slot) = self.body.field(&field) {
            *slot = Some(text);
        } else if field == "dirName" {
            self.name = Some(text);
        } else if let Some(index) = pair(&field, "path") {
            if index.len() > INDEX_LENGTH_MAX {
                return Err(Reject::invalid(format!("An index has at most {INDEX_LENGTH_MAX} bytes")));
            }
            if self.paths.len() >= self.paths_max {
                return Err(too_many(self.paths_max));
            }
            self.paths.insert(index.to_owned(), text);
        }
        Ok(())
    }
}

async fn receive_file(
    app: &AppState,
    caller: &Caller,
    form: &mut Form,
    fields: &mut Fields,
) -> Result<Received, Reject> {
    let mut received = None;
    while let Some(part) = form.next().await? {
        if part.name() != "file" {
            fields.take(part).await?;
            continue;
        }
        if received.is_some() {
            return Err(Reject::invalid("Send one `file`; several go to POST /files/directory-dag"));
        }
        fields.name = part.file_name().as_deref().map(|path| base_name(path).to_owned());
        let early = fields.terms(app)?;
        let content = app.service().uploads.receive(caller, &early, part.into_reader()).await;
        received = Some(content.map_err(|error| form.or_fault(error))?);
    }
    received.ok_or_else(|| Reject::invalid("The form has no part named `file`"))
}

async fn receive_directory(
    app: &AppState,
    caller: &Caller,
    form: &mut Form,
    fields: &mut Fields,
) -> Result<DirectoryDraft, Reject> {
    let entries_max = app.settings().bodies.directory_entries_max;
    let mut draft = None;
    let mut entries = 0;
    while let Some(part) = form.next().await? {
        let Some(path) = entry_path(&part, fields)? else {
            fields.take(part).await?;
            continue;
        };
        entries += 1;
        if entries > entries_max {
            return Err(too_many(entries_max));
        }
        let draft = match &mut draft {
            Some(draft) => draft,
            none => none.insert(app.service().uploads.directory(caller, &fields.terms(app)?).await?),
        };
        draft.add(&path, part.into_reader()).await.map_err(|error| form.or_fault(error))?;
    }
    draft.ok_or_else(|| Reject::invalid("The form has no part named `files` (or `files[0][content]`)"))
}

fn too_many(entries_max: usize) -> Reject {
    Reject::too_large(format!("A directory upload has at most {entries_max} files"))
}

/// The path of a part that is an entry of a directory: `files` and `files[]` have it as their filename, and
/// `files[i][content]` in the field `files[i][path]` before it.
fn entry_path(part: &Part, fields: &mut Fields) -> Result<Option<String>, Reject> {
    let pair = pair(part.name(), "content");
    if pair.is_none() && !matches!(part.name(), "files" | "files[]") {
        return Ok(None);
    }
    let path = pair.and_then(|index| fields.paths.remove(index)).or_else(|| part.file_name());
    let missing =
        || Reject::invalid(format!("A part `{}` has no path before it and no filename", part.name()));
    path.ok_or_else(missing).map(Some)
}

/// The index in `files[index][what]`.
fn pair<'a>(name: &'a str, what: &str) -> Option<&'a str> {
    let (index, rest) = name.strip_prefix("files[")?.split_once("][")?;
    (rest.strip_suffix(']')? == what).then_some(index)
}

/// The last segment of a path: some clients send where the file was on their disk.
fn base_name(path: &str) -> &str {
    filled(path.rsplit(['/', '\\']).next()).unwrap_or_default()
}

/// What came of a directory upload. The words are the contract's, in both their cases.
pub(super) struct DirectoryReply {
    body: DirectoryBody,
    headers: HeaderMap,
    is_pinned: bool,
}

/// A directory that was uploaded.
#[derive(Serialize, ToSchema)]
#[schema(as = Directory)]
pub(super) struct DirectoryBody {
    message: &'static str,
    cid: String,
    filename: Option<String>,
    size: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    files: Vec<EntryBody>,
    total_files: usize,
    total_size: u64,
    #[serde(rename = "clusterId")]
    cluster_id: String,
    #[serde(rename = "expiresAt")]
    expires_at: Option<String>,
    #[serde(rename = "uploadId")]
    upload_id: String,
    status: &'static str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = UploadedEntry)]
struct EntryBody {
    cid: String,
    filename: String,
    size: u64,
    path: String,
}

impl DirectoryBody {
    fn example() -> Self {
        let entry = EntryBody {
            cid: EXAMPLE_CID.to_owned(),
            filename: "logo.svg".to_owned(),
            size: 1_024,
            path: "img/logo.svg".to_owned(),
        };
        Self {
            message: "The directory is pinned",
            cid: EXAMPLE_CID.to_owned(),
            filename: Some("site".to_owned()),
            size: 1_200,
            kind: "directory",
            files: vec![entry],
            total_files: 1,
            total_size: 1_024,
            cluster_id: "cl0-global".to_owned(),
            expires_at: None,
            upload_id: "34407e29d027c000".to_owned(),
            status: PinState::Pinned.as_str(),
        }
    }
}

impl DirectoryReply {
    fn new(kept: &UploadReceipt) -> Self {
        let view = &kept.receipt.view;
        let is_pinned = view.state == PinState::Pinned;
        let name = view.original_name.as_ref().or(view.custom_name.as_ref());
        let body = DirectoryBody {
            message: if is_pinned { "The directory is pinned" } else { "The directory is being pinned" },
            cid: view.cid.to_string(),
            filename: name.map(PinName::to_string),
            size: view.size_bytes,
            kind: "directory",
            files: kept.entries.iter().map(EntryBody::new).collect(),
            total_files: kept.entries.len(),
            total_size: kept.entries.iter().map(|entry| entry.file_bytes).sum(),
            cluster_id: view.cluster.to_string(),
            expires_at: view.expires_at.map(|time| time.to_string()),
            upload_id: view.upload_id.to_string(),
            status: view.state.as_str(),
        };
        let location = (!is_pinned).then(|| status_location(view)).flatten();
        let headers = location.map(|value| (header::LOCATION, value)).into_iter().collect();
        Self { body, headers, is_pinned }
    }
}

impl EntryBody {
    fn new(entry: &ReceivedEntry) -> Self {
        Self {
            cid: entry.cid.to_string(),
            filename: base_name(&entry.path).to_owned(),
            size: entry.file_bytes,
            path: entry.path.clone(),
        }
    }
}

impl IntoResponse for DirectoryReply {
    fn into_response(self) -> Response {
        let status = if self.is_pinned { StatusCode::CREATED } else { StatusCode::ACCEPTED };
        (status, self.headers, Json(self.body)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_known_by_their_brackets() {
        assert_eq!(pair("files[12][path]", "path"), Some("12"));
        assert_eq!(pair("files[0][content]", "content"), Some("0"));
        for other in ["files", "files[]", "files[0]", "files[0][path", "xfiles[0][path]", "files[0][path]]"] {
            assert_eq!(pair(other, "path"), None, "{other}");
        }
    }

    #[test]
    fn a_file_is_called_by_its_last_segment() {
        assert_eq!(base_name("C:\\fakepath\\a.txt"), "a.txt");
        assert_eq!(base_name("dir/a.txt"), "a.txt");
        assert_eq!(base_name("dir/"), "");
    }
}

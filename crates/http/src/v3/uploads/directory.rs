//! `POST /files/directory-dag`: a directory as a multipart form; and `POST /files/directory`: a directory on the server.
//!
//! Files are parts named `files`, `files[]` or `files[0]` (from clients whose forms have each name once) whose filename is
//! the path, or pairs `files[i][path]` and `files[i][content]` in any order. They stream into the service.
//!
//! Windows clients write paths with backslashes. These are taken as slashes: a file whose name really has one is
//! rarer than they are, and cannot be distinguished.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap};
use axum::response::{IntoResponse, Response};
use pinfold_model::{PinName, PinState};
use pinfold_service::{Caller, DirectoryDraft, LooseFile, ReceivedEntry, UploadReceipt, UploadRequest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::AppState;
use crate::middleware::auth::{FilesWrite, RequireScope};
use crate::v3::extract::{ClusterHint, ClusterParams, EXAMPLE_CID, EXAMPLE_DIRECTORY_CID, MaybeJson};
use crate::v3::openapi::{Guarded, Storage, WithBody};
use crate::v3::options::{PinOptionsBody, filled};
use crate::v3::pins::reply::status_location;
use crate::v3::reject::Reject;
use crate::v3::uploads::file::{Fields, base_name};
use crate::v3::uploads::form::{Form, Part};

/// Longest index of a pair, in bytes. It is held in memory until the other part arrives, and is a number or a UUID.
const INDEX_LENGTH_MAX: usize = 64;

/// The most duplicate paths that are named; after that many the rest of the form is not read.
const DUPLICATES_MAX: usize = 10;

/// The files of a directory with their options. As for a file, the examples of optional fields are empty.
#[derive(ToSchema)]
#[schema(as = DirectoryForm, rename_all = "camelCase")]
#[expect(dead_code, reason = "the document reads its fields")]
struct DirectoryForm {
    /// The files. The filename of each part is its path inside the directory.
    #[schema(value_type = Vec<String>, format = Binary)]
    files: Vec<Vec<u8>>,
    /// Name of the directory.
    #[schema(example = "")]
    dir_name: Option<String>,
    /// Your name for the pin; up to 255 bytes.
    #[schema(example = "")]
    custom_name: Option<String>,
    /// Cluster to pin in. Default: `cl0-global`.
    #[schema(example = "")]
    cl: Option<String>,
    /// When the pin ends, in RFC 3339 with an offset, such as `2036-12-31T23:59:59Z`.
    #[schema(example = "")]
    timelock: Option<String>,
    /// The pin cannot be removed before this time (RFC 3339 with an offset).
    #[schema(example = "")]
    retain_until: Option<String>,
}

/// Upload a directory
///
/// The form has parts named `files`, `files[]` or `files[0]`, `files[1]`, …, whose filenames are paths inside the directory, or
/// pairs of `files[i][path]` and `files[i][content]`. Segments of a path are separated by `/` or `\`. A path with `..` or a
/// leading `/`, or a path that appears twice, is refused.
#[utoipa::path(post, path = "/files/directory-dag", operation_id = "uploadDirectory", tag = "uploads", security(("key" = ["files:write"]), ("session" = [])),
    params(ClusterParams),
    request_body(content = DirectoryForm, content_type = "multipart/form-data", example = json!({"files": ["hello"], "dirName": "site"})),
    responses(
        (status = 201, description = "The content is stored and pinned.", body = DirectoryBody, example = json!(DirectoryBody::example())),
        (status = 202, description = "The content is stored, and pinning is in progress. `Location` is the URL of its status.", body = DirectoryBody, example = json!(DirectoryBody::example())),
        Guarded, WithBody, Storage))]
pub(crate) async fn form(
    State(app): State<AppState>,
    caller: RequireScope<FilesWrite>,
    ClusterHint(hint): ClusterHint,
    request: Request,
) -> Result<DirectoryReply, Reject> {
    let mut form = Form::of(request, &app.settings().bodies)?;
    let mut incoming = Incoming::new(&app, &caller, hint);
    while let Some(part) = form.next().await? {
        incoming.take(part, &form).await?;
    }
    let (draft, request) = incoming.finish()?;
    let kept = app.service().uploads.keep_directory(&caller, draft, request).await?;
    Ok(DirectoryReply::new(&kept))
}

/// A folder on the server with its options.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Folder)]
pub(crate) struct FolderBody {
    /// Absolute path of the folder, below a root that the operator has configured.
    #[schema(value_type = String, example = "/srv/shared/site")]
    dir_path: Option<String>,
    /// Name of the content at its source; up to 255 bytes. Default: the name of the folder.
    original_name: Option<String>,
    /// Your name for the pin; up to 255 bytes.
    custom_name: Option<String>,
    /// Cluster to pin in. Default: `cl0-global`.
    #[schema(example = "cl0-global")]
    cl: Option<String>,
    /// When the pin ends (RFC 3339 with an offset).
    timelock: Option<String>,
    /// The pin cannot be removed before this time (RFC 3339 with an offset).
    retain_until: Option<String>,
}

/// Upload a folder of the server
///
/// Imports a folder of the server's file system. It must be below one of the roots in `uploads.server_roots`; by default there are
/// none. Symbolic links are not followed. An entry that is neither a file nor a folder is an error that names it.
#[utoipa::path(post, path = "/files/directory", operation_id = "uploadServerDirectory", tag = "uploads", security(("key" = ["files:write"]), ("session" = [])),
    params(ClusterParams),
    request_body(content = FolderBody, example = json!({"dirPath": "/srv/shared/site", "cl": "cl0-global"})),
    responses(
        (status = 201, description = "The content is stored and pinned.", body = DirectoryBody, example = json!(DirectoryBody::example())),
        (status = 202, description = "The content is stored, and pinning is in progress. `Location` is the URL of its status.", body = DirectoryBody, example = json!(DirectoryBody::example())),
        Guarded, WithBody, Storage))]
pub(crate) async fn folder(
    State(app): State<AppState>,
    caller: RequireScope<FilesWrite>,
    ClusterHint(hint): ClusterHint,
    MaybeJson(body): MaybeJson<FolderBody>,
) -> Result<DirectoryReply, Reject> {
    let FolderBody { dir_path, original_name, custom_name, cl, timelock, retain_until } = body;
    let path = filled(dir_path.as_deref()).ok_or_else(|| Reject::invalid("`dirPath` is missing"))?;
    let body = PinOptionsBody { original_name, custom_name, cl, timelock, retain_until };
    let (cluster, options) = (body.cluster(hint.as_deref())?, body.parse(app.now())?);
    let mut request = UploadRequest { cluster, options };
    let (draft, name) = app.service().uploads.folder(&caller, &request, path).await?;
    request.options.original_name = request.options.original_name.or(name);
    let kept = app.service().uploads.keep_directory(&caller, draft, request).await?;
    Ok(DirectoryReply::new(&kept))
}

/// A directory upload in progress.
struct Incoming<'a> {
    app: &'a AppState,
    caller: &'a Caller,
    fields: Fields,
    draft: Option<DirectoryDraft>,
    /// Files and paths received: each of them costs memory.
    entries: usize,
    /// Paths whose content has not arrived, by the index of their pair.
    paths: HashMap<String, String>,
    /// Files whose path has not arrived, each with its filename, which is used if none does.
    loose: HashMap<String, (LooseFile, Option<String>)>,
    duplicates: Vec<String>,
}

impl<'a> Incoming<'a> {
    fn new(app: &'a AppState, caller: &'a Caller, hint: Option<String>) -> Self {
        Self {
            app,
            caller,
            fields: Fields::new(hint),
            draft: None,
            entries: 0,
            paths: HashMap::new(),
            loose: HashMap::new(),
            duplicates: Vec::new(),
        }
    }

    async fn take(&mut self, part: Part, form: &Form) -> Result<(), Reject> {
        if is_file(part.name()) {
            let missing = || Reject::invalid(format!("A part `{}` has no filename", part.name()));
            let path = plain_path(part.file_name().ok_or_else(missing)?)?;
            return self.add(&path, part, form).await;
        }
        if let Some(index) = pair(part.name(), "content") {
            let index = checked(index)?;
            return match self.paths.remove(&index) {
                Some(path) => self.add(&path, part, form).await,
                None => self.add_loose(index, part, form).await,
            };
        }
        match pair(part.name(), "path") {
            Some(index) => {
                let index = checked(index)?;
                let path = plain_path(&part.text().await?)?;
                self.take_path(index, path)
            }
            None => self.fields.take(part).await,
        }
    }

    async fn add(&mut self, path: &str, part: Part, form: &Form) -> Result<(), Reject> {
        if self.is_duplicate(path)? {
            return part.skip().await;
        }
        let added = self.draft().await?.add(path, part.into_reader()).await;
        added.map(drop).map_err(|error| form.or_body_error(error))
    }

    /// Receives a file whose path follows it.
    async fn add_loose(&mut self, index: String, part: Part, form: &Form) -> Result<(), Reject> {
        let own = part.file_name().map(plain_path).transpose()?;
        let file = self.draft().await?.receive(part.into_reader()).await;
        let file = file.map_err(|error| form.or_body_error(error))?;
        if self.loose.insert(index, (file, own)).is_some() {
            return Err(Reject::invalid("Two parts `files[…][content]` have the same index"));
        }
        Ok(())
    }

    fn take_path(&mut self, index: String, path: String) -> Result<(), Reject> {
        if let Some((file, _)) = self.loose.remove(&index) {
            return self.place(&path, file);
        }
        if self.paths.len() >= self.entries_max() {
            return Err(self.too_many());
        }
        self.paths.insert(index, path);
        Ok(())
    }

    fn place(&mut self, path: &str, file: LooseFile) -> Result<(), Reject> {
        if self.is_duplicate(path)? {
            return Ok(());
        }
        let draft = self.draft.as_mut().ok_or_else(no_files)?;
        draft.place(path, file)?;
        Ok(())
    }

    /// The draft, which starts with the fields that precede the first file.
    async fn draft(&mut self) -> Result<&mut DirectoryDraft, Reject> {
        self.entries += 1;
        if self.entries > self.entries_max() {
            return Err(self.too_many());
        }
        match &mut self.draft {
            Some(draft) => Ok(draft),
            none => {
                let request = self.fields.request(self.app)?;
                Ok(none.insert(self.app.service().uploads.directory(self.caller, &request).await?))
            }
        }
    }

    fn is_duplicate(&mut self, path: &str) -> Result<bool, Reject> {
        let is_duplicate = self.draft.as_ref().is_some_and(|draft| draft.has(path));
        if is_duplicate {
            self.duplicates.push(format!("{path:?}"));
            if self.duplicates.len() == DUPLICATES_MAX {
                return Err(self.duplicates());
            }
        }
        Ok(is_duplicate)
    }

    fn duplicates(&self) -> Reject {
        Reject::invalid(format!(
            "Duplicate paths: {}. If your form library drops folders from filenames, send each path in a \
             field files[i][path] next to files[i][content]",
            self.duplicates.join(", ")
        ))
    }

    fn finish(mut self) -> Result<(DirectoryDraft, UploadRequest), Reject> {
        let mut loose: Vec<_> = std::mem::take(&mut self.loose).into_iter().collect();
        loose.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (index, (file, own)) in loose {
            let missing =
                || Reject::invalid(format!("A part `files[{index}][content]` has no path and no filename"));
            self.place(&own.ok_or_else(missing)?, file)?;
        }
        if !self.duplicates.is_empty() {
            return Err(self.duplicates());
        }
        let request = self.fields.request(self.app)?;
        Ok((self.draft.ok_or_else(no_files)?, request))
    }

    fn entries_max(&self) -> usize {
        self.app.settings().bodies.directory_entries_max
    }

    fn too_many(&self) -> Reject {
        Reject::too_large(format!("A directory upload may have at most {} files", self.entries_max()))
    }
}

fn no_files() -> Reject {
    Reject::invalid("The form has no part named `files` (or `files[0][content]`)")
}

/// A path with slashes between its segments.
fn plain_path(path: &str) -> Result<String, Reject> {
    let drive = matches!(path.as_bytes(), [letter, b':', b'\\', ..] if letter.is_ascii_alphabetic());
    let short = || path.chars().take(200).collect::<String>();
    let absolute = || Reject::invalid(format!("{:?} is an absolute path", short()));
    if drive { Err(absolute()) } else { Ok(path.replace('\\', "/")) }
}

/// Whether a part of this name is a file whose filename is its path.
fn is_file(name: &str) -> bool {
    let index = name.strip_prefix("files[").and_then(|rest| rest.strip_suffix(']'));
    name == "files" || index.is_some_and(|index| index.bytes().all(|sign| sign.is_ascii_digit()))
}

/// The index in `files[index][what]`.
fn pair<'a>(name: &'a str, what: &str) -> Option<&'a str> {
    let (index, rest) = name.strip_prefix("files[")?.split_once("][")?;
    (rest.strip_suffix(']')? == what).then_some(index)
}

fn checked(index: &str) -> Result<String, Reject> {
    if index.len() > INDEX_LENGTH_MAX {
        return Err(Reject::invalid(format!("An index may have at most {INDEX_LENGTH_MAX} bytes")));
    }
    Ok(index.to_owned())
}

/// The answer to a directory upload. The API mixes snake case and camel case in it.
pub(crate) struct DirectoryReply {
    body: DirectoryBody,
    headers: HeaderMap,
    is_pinned: bool,
}

/// A directory that was uploaded.
#[derive(Serialize, ToSchema)]
#[schema(as = Directory)]
pub(crate) struct DirectoryBody {
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
    #[serde(rename = "retainUntil")]
    retain_until: Option<String>,
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
            cid: EXAMPLE_DIRECTORY_CID.to_owned(),
            filename: Some("site".to_owned()),
            size: 1_200,
            kind: "directory",
            files: vec![entry],
            total_files: 1,
            total_size: 1_024,
            cluster_id: "cl0-global".to_owned(),
            expires_at: None,
            retain_until: None,
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
            retain_until: view.retain_until.map(|time| time.to_string()),
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
    fn file_parts_are_recognised_with_and_without_index() {
        for name in ["files", "files[]", "files[0]", "files[12]"] {
            assert!(is_file(name), "{name}");
        }
        for name in ["file", "files[", "files[a]", "files[0][path]", "files[0]]", "files[-1]"] {
            assert!(!is_file(name), "{name}");
        }
    }

    #[test]
    fn pairs_are_recognised_by_their_brackets() {
        assert_eq!(pair("files[12][path]", "path"), Some("12"));
        assert_eq!(pair("files[0][content]", "content"), Some("0"));
        for other in ["files", "files[]", "files[0]", "files[0][path", "xfiles[0][path]", "files[0][path]]"] {
            assert_eq!(pair(other, "path"), None, "{other}");
        }
    }

    #[test]
    fn windows_paths_are_accepted() {
        assert_eq!(plain_path(r"img\icons\a.png").expect("a path"), "img/icons/a.png");
        assert_eq!(plain_path("c:/x").expect("a folder may be called so"), "c:/x");
        assert!(format!("{:?}", plain_path(r"C:\site\a.png")).contains("absolute"));
    }
}

//! `POST /files`: one file, as a multipart form.
//!
//! It streams into the service as it comes. Fields may stand before or after it: those before are checked before any
//! content is read, and nothing is pinned until the form is complete.

use axum::extract::{Request, State};
use pinfold_service::{Caller, Received, UploadRequest};
use utoipa::ToSchema;

use crate::AppState;
use crate::middleware::auth::{FilesWrite, RequireScope};
use crate::v3::extract::{ClusterHint, ClusterParams};
use crate::v3::openapi::{Guarded, Storage, WithBody};
use crate::v3::options::{PinOptionsBody, filled, parse_name};
use crate::v3::pins::reply::{PinBody, PinReply};
use crate::v3::reject::Reject;
use crate::v3::uploads::form::{Form, Part};

/// A file with its options.
///
/// Examples of optional fields are empty: the API page would otherwise send the text `string`. An empty field counts as
/// absent.
#[derive(ToSchema)]
#[schema(as = FileForm, rename_all = "camelCase")]
#[expect(dead_code, reason = "the document reads its fields")]
struct FileForm {
    /// The content.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// Name of the content at its source; up to 255 bytes.
    #[schema(example = "")]
    original_name: Option<String>,
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

/// Upload a file
///
/// Form fields may come before or after the file. The file is streamed to disk and may be larger than memory. An upload that is
/// cut off leaves nothing behind.
#[utoipa::path(post, path = "/files", operation_id = "uploadFile", tag = "uploads", security(("key" = ["files:write"]), ("session" = [])),
    params(ClusterParams),
    request_body(content = FileForm, content_type = "multipart/form-data", example = json!({"file": "hello", "customName": "greeting"})),
    responses(
        (status = 201, description = "The content is stored and pinned.", body = PinBody, example = json!(PinBody::example())),
        (status = 202, description = "The content is stored, and pinning is in progress. `Location` is the URL of its status.", body = PinBody, example = json!(PinBody::example_in_progress())),
        Guarded, WithBody, Storage))]
pub(crate) async fn file(
    State(app): State<AppState>,
    caller: RequireScope<FilesWrite>,
    ClusterHint(hint): ClusterHint,
    request: Request,
) -> Result<PinReply, Reject> {
    let mut form = Form::of(request, &app.settings().bodies)?;
    let mut fields = Fields::new(hint);
    let received = receive(&app, &caller, &mut form, &mut fields).await?;
    let request = fields.request(&app)?;
    let file_bytes = received.file_bytes();
    let receipt = app.service().uploads.keep(&caller, received, request).await?;
    Ok(PinReply::of_file(&receipt, file_bytes))
}

async fn receive(
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
            return Err(Reject::invalid("Send exactly one `file`; POST /files/directory-dag takes several"));
        }
        fields.name = part.file_name().map(|path| base_name(path).to_owned());
        let early = fields.request(app)?;
        let content = app.service().uploads.receive(caller, &early, part.into_reader()).await;
        received = Some(content.map_err(|error| form.or_body_error(error))?);
    }
    received.ok_or_else(|| Reject::invalid("The form has no part named `file`"))
}

/// The text fields that both kinds of uploads have, as far as they have come.
#[derive(Default)]
pub(crate) struct Fields {
    hint: Option<String>,
    body: PinOptionsBody,
    /// Name of the uploaded file or directory. `originalName` takes precedence.
    pub(crate) name: Option<String>,
}

impl Fields {
    /// No fields yet. `hint` is the cluster from the query or a header.
    pub(crate) fn new(hint: Option<String>) -> Self {
        Self { hint, ..Self::default() }
    }

    /// What they say so far.
    pub(crate) fn request(&self, app: &AppState) -> Result<UploadRequest, Reject> {
        let mut options = self.body.parse(app.now())?;
        if options.original_name.is_none() {
            options.original_name = parse_name("filename", self.name.as_deref())?;
        }
        Ok(UploadRequest { cluster: self.body.cluster(self.hint.as_deref())?, options })
    }

    /// Reads a part that is not content. Unknown fields are discarded.
    pub(crate) async fn take(&mut self, part: Part) -> Result<(), Reject> {
        let field = part.name().to_owned();
        let text = part.text().await?;
        if let Some(slot) = self.body.field(&field) {
            *slot = Some(text);
        } else if field == "dirName" {
            self.name = Some(text);
        }
        Ok(())
    }
}

/// The last segment of a path: some clients send the path of the file on their disk.
pub(crate) fn base_name(path: &str) -> &str {
    filled(path.rsplit(['/', '\\']).next()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_name_is_the_last_segment() {
        assert_eq!(base_name("C:\\fakepath\\a.txt"), "a.txt");
        assert_eq!(base_name("dir/a.txt"), "a.txt");
        assert_eq!(base_name("dir/"), "");
    }
}

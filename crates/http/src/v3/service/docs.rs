//! The OpenAPI document and the API page: Swagger UI, served from the binary, without requests to other hosts.

use std::sync::{Arc, LazyLock};

use axum::Extension;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header::{self, HeaderName};
use axum::response::{IntoResponse, Redirect, Response};
use bytes::Bytes;
use utoipa_swagger_ui::Config;

use crate::v3::openapi::{Anyone, Document, Missing};
use crate::v3::reject::Reject;

/// The page shows this document.
const DOCUMENT: &str = "/api/v3/docs/openapi.json";

/// The page may load its own files and call this server, and nothing else. Swagger UI sets inline styles.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::from(DOCUMENT)
        .persist_authorization(false)
        .try_it_out_enabled(true)
        .with_syntax_highlight(false);
    Arc::new(config.use_base_layout())
});

/// API page
///
/// Redirects to Swagger UI with the OpenAPI document of this server.
#[utoipa::path(get, path = "/docs", operation_id = "getDocsPage", tag = "service", security(()),
    responses((status = 303, description = "`Location` is the URL of the page."), Anyone))]
pub(crate) async fn page() -> Redirect {
    // The page loads its files by relative URLs, so its own URL must end in a file name.
    Redirect::to("/api/v3/docs/index.html")
}

/// File of the API page
#[utoipa::path(get, path = "/docs/{asset}", operation_id = "getDocsFile", tag = "service", security(()),
    params(("asset" = String, Path, description = "File name.", example = "index.html")),
    responses((status = 200, description = "The file.", content_type = "text/html", body = String, example = "<!DOCTYPE html>"), Missing, Anyone))]
pub(crate) async fn file(name: Result<Path<String>, PathRejection>) -> Result<Response, Reject> {
    let Ok(Path(name)) = name else { return Err(Reject::no_route()) };
    match utoipa_swagger_ui::serve(&name, Arc::clone(&CONFIG)) {
        Ok(Some(file)) => {
            let headers = [
                (header::CONTENT_TYPE, file.content_type.as_str()),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::CACHE_CONTROL, "max-age=3600"),
            ];
            Ok((headers, file.bytes.into_owned()).into_response())
        }
        Ok(None) => Err(Reject::no_route()),
        Err(error) => {
            tracing::error!(%error, "failed to read a file of the API page");
            Err(Reject::internal())
        }
    }
}

/// OpenAPI document as JSON
#[utoipa::path(get, path = "/docs/openapi.json", operation_id = "getOpenApiJson", tag = "service", security(()),
    responses((status = 200, description = "OpenAPI 3.1 document.", body = serde_json::Value, example = json!({"openapi": "3.1.0"})), Anyone))]
pub(crate) async fn json(Extension(document): Extension<Arc<Document>>) -> impl IntoResponse {
    sent("application/json", document.json.clone())
}

/// OpenAPI document as YAML
#[utoipa::path(get, path = "/docs/openapi.yaml", operation_id = "getOpenApiYaml", tag = "service", security(()),
    responses((status = 200, description = "OpenAPI 3.1 document.", content_type = "application/yaml", body = serde_json::Value, example = json!({"openapi": "3.1.0"})), Anyone))]
pub(crate) async fn yaml(Extension(document): Extension<Arc<Document>>) -> impl IntoResponse {
    sent("application/yaml", document.yaml.clone())
}

fn sent(content_type: &'static str, text: Bytes) -> ([(HeaderName, &'static str); 1], Bytes) {
    ([(header::CONTENT_TYPE, content_type)], text)
}

//! CORS: which web pages may call.

use tower_http::cors::{AllowHeaders, Any, CorsLayer};

use crate::Settings;

/// Browsers of the configured origins may call, without cookies, and may read every header.
pub(super) fn layer(settings: &Settings) -> CorsLayer {
    if settings.cors_origins.is_empty() {
        return CorsLayer::new();
    }
    CorsLayer::new()
        .allow_origin(settings.cors_origins.clone())
        .allow_methods(Any)
        // Browsers do not count `Authorization` as part of `*`.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(Any)
}

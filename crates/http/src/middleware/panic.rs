//! Answers requests whose handler panicked. The panic's text goes to the log and never to the client.

use std::any::Any;

use axum::body::Body;
use axum::http::Response;
use tower_http::catch_panic::{CatchPanicLayer, ResponseForPanic};

use super::{ErrorBody, MiddlewareError};

/// Catches panics, and answers with the surface's body of an internal error.
pub(super) fn layer(error_body: ErrorBody) -> CatchPanicLayer<OnPanic> {
    CatchPanicLayer::custom(OnPanic(error_body))
}

/// Logs a panic and answers for it.
#[derive(Clone)]
pub(super) struct OnPanic(ErrorBody);

impl ResponseForPanic for OnPanic {
    type ResponseBody = Body;

    fn response_for_panic(&mut self, panic: Box<dyn Any + Send + 'static>) -> Response<Body> {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
        tracing::error!(panic = text, "request handler panicked");
        self.0.response(MiddlewareError::Internal)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::response::IntoResponse;

    use super::*;

    #[tokio::test]
    async fn panic_text_is_not_sent() {
        let mut on_panic = OnPanic(ErrorBody::new(|error| format!("{error:?}").into_response()));
        for panic in [Box::new("secret") as Box<dyn Any + Send>, Box::new("secret".to_owned()), Box::new(7)] {
            let response = on_panic.response_for_panic(panic);
            let body = to_bytes(response.into_body(), 1024).await.expect("a body");
            assert_eq!(body, "Internal");
        }
    }
}

//! Drains the unread body of a request before its answer is sent.
//!
//! A request can be refused before its body was read, or has arrived. A connection with an unread body can't be used again,
//! and a client with a connection pool would notice by the failure of its next request. A small rest is therefore read
//! first; for a large one, the answer says that the connection closes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::{CONNECTION, EXPECT, HeaderValue};
use axum::http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The largest rest that is read, in bytes: the JSON body of a common request.
const UNREAD_BYTES_MAX: usize = 64 * 1024;

/// How long to wait for the rest. Clients send it right after the head.
const DRAIN_TIME: Duration = Duration::from_millis(250);

/// A body that is sent back when it is dropped before its end.
struct Lent {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
}

/// The unread rest of a body that was lent.
pub(crate) struct Unread {
    back: oneshot::Receiver<Incoming>,
    /// Whether the client waits for `100 Continue` before it sends: reading would make it send.
    expects: bool,
}

/// Lends the body of a request to its handler.
pub(crate) fn lend(request: Request<Incoming>) -> (Request<Body>, Unread) {
    let (sender, back) = oneshot::channel();
    let expects = request.headers().contains_key(EXPECT);
    let request = request.map(|body| Body::new(Lent { body: Some(body), back: Some(sender) }));
    (request, Unread { back, expects })
}

impl Unread {
    /// Reads the rest, or announces in the answer that the connection closes.
    pub(crate) async fn drain(mut self, mut response: Response<Body>) -> Response<Body> {
        // A body that was read to its end is not sent back, nor one that is still being read.
        let Ok(rest) = self.back.try_recv() else { return response };
        let is_read = !self.expects
            && timeout(DRAIN_TIME, Limited::new(rest, UNREAD_BYTES_MAX).collect())
                .await
                .is_ok_and(|read| read.is_ok());
        if !is_read {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.is_end_stream() {
            return;
        }
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take()) {
            // The receiver may be gone.
            let _ = back.send(body);
        }
    }
}

//! What is left of a request's body when its answer is there.
//!
//! A request can be refused before its body was read, or has come. A connection with an unread body can't go on, and a
//! client that keeps its connections would find out by the failure of its next request. So the rest is read first when it
//! is little, and if it is not, the answer says that the connection closes.

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

/// How much of a rest is read: the JSON body of a common request.
const REST_BYTES_MAX: usize = 64 * 1024;

/// How long a rest is waited for. Clients send it right behind the head.
const REST_TIME: Duration = Duration::from_millis(250);

/// A body that gives itself back when it is dropped before its end.
struct Lent {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
}

/// The rest of a body that was lent.
pub(crate) struct Rest {
    back: oneshot::Receiver<Incoming>,
    /// Whether the client waits for a word before it sends: reading would ask it to.
    expects: bool,
}

/// Lends a request's body to whoever answers it.
pub(crate) fn lend(request: Request<Incoming>) -> (Request<Body>, Rest) {
    let (sender, back) = oneshot::channel();
    let expects = request.headers().contains_key(EXPECT);
    let request = request.map(|body| Body::new(Lent { body: Some(body), back: Some(sender) }));
    (request, Rest { back, expects })
}

impl Rest {
    /// Reads what is left, or has the answer say that the connection closes.
    pub(crate) async fn settle(mut self, mut response: Response<Body>) -> Response<Body> {
        // Nothing comes back of a body that was read to its end; one that is still read is its reader's.
        let Ok(rest) = self.back.try_recv() else { return response };
        let is_read = !self.expects
            && timeout(REST_TIME, Limited::new(rest, REST_BYTES_MAX).collect())
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
            // Nobody may ask for it any more.
            let _ = back.send(body);
        }
    }
}

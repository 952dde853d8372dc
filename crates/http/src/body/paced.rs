//! The body of an upload while it is received. Its pace and the size of multipart headers are bounded, so that neither a
//! client that sends a few bytes at a time nor one that sends an endless header holds memory or a connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::BodyDataStream;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::time::{Instant, Sleep, sleep};

use super::BodyError;
use crate::Bodies;

/// The largest boundary and headers of one part, in bytes.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

/// The count of head bytes while a part's content is read, which has no bound here.
const NOT_IN_HEAD: u64 = u64::MAX;

/// Tells the body which section of the form is read, and reports its error.
#[derive(Debug, Clone)]
pub(crate) struct Watch(Arc<Watched>);

#[derive(Debug)]
struct Watched {
    head_bytes: AtomicU64,
    error: OnceLock<BodyError>,
}

impl Watch {
    /// The reader expects a boundary and headers next.
    pub(crate) fn expect_head(&self) {
        self.0.head_bytes.store(0, Ordering::Relaxed);
    }

    /// The reader expects the content of a part next.
    pub(crate) fn expect_content(&self) {
        self.0.head_bytes.store(NOT_IN_HEAD, Ordering::Relaxed);
    }

    /// The first error of the body.
    pub(crate) fn error(&self) -> Option<BodyError> {
        self.0.error.get().copied()
    }
}

/// The body of a request as the multipart reader gets it. It yields once after each chunk: the reader buffers whatever is
/// ready before it parses, and would buffer a whole file.
pub(crate) struct PacedBody {
    body: BodyDataStream,
    watch: Watch,
    idle_time: Duration,
    rate_min: u64,
    /// Ends when the client has sent nothing for too long; reset when a wait begins.
    idle: Pin<Box<Sleep>>,
    waiting_since: Option<Instant>,
    waited: Duration,
    received_bytes: u64,
    pause: bool,
}

impl PacedBody {
    /// Wraps a body. Must be called inside a tokio runtime.
    pub(crate) fn new(body: BodyDataStream, bounds: &Bodies) -> (Self, Watch) {
        let watch = Watch(Arc::new(Watched { head_bytes: AtomicU64::new(0), error: OnceLock::new() }));
        let this = Self {
            body,
            watch: watch.clone(),
            idle_time: bounds.upload_idle_time,
            rate_min: bounds.upload_rate_min,
            idle: Box::pin(sleep(bounds.upload_idle_time)),
            waiting_since: None,
            waited: Duration::ZERO,
            received_bytes: 0,
            pause: false,
        };
        (this, watch)
    }

    fn fail(&self, error: BodyError) -> Poll<Option<Result<Bytes, BodyError>>> {
        // Later errors follow from the first one.
        let first = *self.watch.0.error.get_or_init(|| error);
        Poll::Ready(Some(Err(first)))
    }

    fn is_head_too_large(&self) -> bool {
        let head_bytes = self.watch.0.head_bytes.load(Ordering::Relaxed);
        head_bytes != NOT_IN_HEAD && head_bytes > HEAD_BYTES_MAX
    }

    fn count(&mut self, chunk: &Bytes) {
        let length = chunk.len() as u64;
        self.received_bytes += length;
        let head_bytes = self.watch.0.head_bytes.load(Ordering::Relaxed);
        if head_bytes != NOT_IN_HEAD {
            self.watch.0.head_bytes.store(head_bytes + length, Ordering::Relaxed);
        }
    }

    /// Waits for the client; ready when it has taken too long.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting_since.is_none() {
            let now = Instant::now();
            self.waiting_since = Some(now);
            self.idle.as_mut().reset(now + self.idle_time);
        }
        self.idle.as_mut().poll(cx)
    }

    /// Ends a wait. Only time spent waiting for the client counts, since the server's own disk may be slow as well.
    fn end_wait(&mut self) -> Result<(), BodyError> {
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
        let expected = self.rate_min.saturating_mul(self.waited.as_secs());
        let is_slow = self.waited > self.idle_time && self.received_bytes < expected;
        if is_slow { Err(BodyError::TooSlow) } else { Ok(()) }
    }
}

impl Stream for PacedBody {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(error) = this.watch.error() {
            return Poll::Ready(Some(Err(error)));
        }
        if std::mem::take(&mut this.pause) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.is_head_too_large() {
            return this.fail(BodyError::EndlessHead);
        }
        let Poll::Ready(next) = this.body.poll_next_unpin(cx) else {
            ready!(this.poll_idle(cx));
            return this.fail(BodyError::TooSlow);
        };
        if let Err(error) = this.end_wait() {
            return this.fail(error);
        }
        match next {
            Some(Ok(chunk)) => {
                this.count(&chunk);
                this.pause = true;
                Poll::Ready(Some(Ok(chunk)))
            }
            Some(Err(_disconnected)) => this.fail(BodyError::CutOff),
            None => Poll::Ready(None),
        }
    }
}

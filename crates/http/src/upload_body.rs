//! The body of an upload on its way in: paced, watched and bounded, so that neither a client that drips nor one
//! that sends a part header without end can hold memory or a connection.

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

use crate::Bodies;

/// The most bytes that may go by in search of the next part: its boundary and its headers.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

/// Stands in the count of head bytes while a part's content is read, which has no bound here.
const NOT_IN_HEAD: u64 = u64::MAX;

/// Why a body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyFault {
    /// The client went away, or broke the encoding.
    #[error("The upload was cut off")]
    CutOff,
    /// Nothing came for too long, or too little altogether.
    #[error("The body came too slowly")]
    TooSlow,
    /// A part's headers have no end.
    #[error("A part of the form has headers without end")]
    EndlessHead,
}

/// Says what the body should look for, and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Watch(Arc<Watched>);

#[derive(Debug)]
struct Watched {
    head_bytes: AtomicU64,
    fault: OnceLock<BodyFault>,
}

impl Watch {
    /// From now on the next part's head is looked for.
    pub(crate) fn expect_head(&self) {
        self.0.head_bytes.store(0, Ordering::Relaxed);
    }

    /// From now on a part's content is read.
    pub(crate) fn expect_content(&self) {
        self.0.head_bytes.store(NOT_IN_HEAD, Ordering::Relaxed);
    }

    /// Why the body broke off, if it did.
    pub(crate) fn fault(&self) -> Option<BodyFault> {
        self.0.fault.get().copied()
    }
}

/// A request's body as the multipart reader gets it. After each chunk it pauses for a moment: the reader takes
/// whatever is ready before it looks at it, and would take a whole file.
pub(crate) struct UploadBody {
    body: BodyDataStream,
    watch: Watch,
    idle_time: Duration,
    rate_min: u64,
    /// Runs out when the client keeps us waiting; set anew each time a wait begins.
    idle: Pin<Box<Sleep>>,
    waiting_since: Option<Instant>,
    waited: Duration,
    received_bytes: u64,
    pause: bool,
}

impl UploadBody {
    /// A body, and the watch over it. Must be made inside a tokio runtime.
    pub(crate) fn new(body: BodyDataStream, bounds: &Bodies) -> (Self, Watch) {
        let watch = Watch(Arc::new(Watched { head_bytes: AtomicU64::new(0), fault: OnceLock::new() }));
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

    fn break_off(&self, fault: BodyFault) -> Poll<Option<Result<Bytes, BodyFault>>> {
        // Only the first reason counts; those after it follow from it.
        let first = *self.watch.0.fault.get_or_init(|| fault);
        Poll::Ready(Some(Err(first)))
    }

    fn head_is_endless(&self) -> bool {
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

    /// Starts or goes on waiting for the client; ready when it has taken too long.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting_since.is_none() {
            let now = Instant::now();
            self.waiting_since = Some(now);
            self.idle.as_mut().reset(now + self.idle_time);
        }
        self.idle.as_mut().poll(cx)
    }

    /// Ends a wait. Only time spent waiting counts against the client: our own disk may be slow as well.
    fn end_wait(&mut self) -> Result<(), BodyFault> {
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
        let expected = self.rate_min.saturating_mul(self.waited.as_secs());
        let drips = self.waited > self.idle_time && self.received_bytes < expected;
        if drips { Err(BodyFault::TooSlow) } else { Ok(()) }
    }
}

impl Stream for UploadBody {
    type Item = Result<Bytes, BodyFault>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(fault) = this.watch.fault() {
            return Poll::Ready(Some(Err(fault)));
        }
        if std::mem::take(&mut this.pause) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.head_is_endless() {
            return this.break_off(BodyFault::EndlessHead);
        }
        let Poll::Ready(next) = this.body.poll_next_unpin(cx) else {
            ready!(this.poll_patience(cx));
            return this.break_off(BodyFault::TooSlow);
        };
        if let Err(fault) = this.end_wait() {
            return this.break_off(fault);
        }
        match next {
            Some(Ok(chunk)) => {
                this.count(&chunk);
                this.pause = true;
                Poll::Ready(Some(Ok(chunk)))
            }
            Some(Err(_disconnected)) => this.break_off(BodyFault::CutOff),
            None => Poll::Ready(None),
        }
    }
}

//! A reader with a size limit.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::{Body, ClusterError};

/// Reads at most a number of bytes, and fails if there are more.
pub(crate) struct Limited<'a> {
    body: Body<'a>,
    left: u64,
    over: bool,
    broken: Option<String>,
}

impl<'a> Limited<'a> {
    pub(crate) fn new(body: Body<'a>, bytes_max: u64) -> Self {
        Self { body, left: bytes_max, over: false, broken: None }
    }

    /// Why reading failed, if it did.
    pub(crate) fn fault(&self) -> Option<ClusterError> {
        if self.over {
            return Some(ClusterError::OverLimit);
        }
        self.broken.clone().map(ClusterError::Source)
    }
}

impl AsyncRead for Limited<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        if let Err(error) = ready!(Pin::new(&mut *self.body).poll_read(context, buf)) {
            self.broken = Some(error.to_string());
            return Poll::Ready(Err(error));
        }
        let read = u64::try_from(buf.filled().len() - before).unwrap_or(u64::MAX);
        match self.left.checked_sub(read) {
            Some(left) => self.left = left,
            None => {
                self.over = true;
                // A failed read must not return data.
                buf.set_filled(before);
                return Poll::Ready(Err(std::io::Error::other("larger than the limit")));
            }
        }
        Poll::Ready(Ok(()))
    }
}

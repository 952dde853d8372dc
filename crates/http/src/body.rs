//! Bodies of requests, read within bounds of size and time.

mod paced;

use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

pub(crate) use paced::{PacedBody, Watch};

/// Why a body can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// The client closed the connection, or broke the encoding.
    #[error("The upload was interrupted")]
    CutOff,
    /// Nothing came for too long, or too little altogether.
    #[error("The body came too slowly")]
    TooSlow,
    /// The headers of a multipart part have no end.
    #[error("A part of the form has headers without end")]
    EndlessHead,
    /// The body is larger than this.
    #[error("The body has more than {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
}

/// Reads a body into memory.
///
/// A body whose declared length is too large is refused before it is read.
pub(crate) async fn read(body: Body, bytes_max: usize, time: Duration) -> Result<Bytes, BodyError> {
    let too_large = BodyError::TooLarge { bytes_max };
    if usize::try_from(body.size_hint().lower()).map_or(true, |bytes| bytes > bytes_max) {
        return Err(too_large);
    }
    let read = timeout(time, Limited::new(body, bytes_max).collect()).await;
    match read.map_err(|_| BodyError::TooSlow)? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large),
        Err(_disconnected) => Err(BodyError::CutOff),
    }
}

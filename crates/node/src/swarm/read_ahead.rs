//! Reads from a socket in large steps, independent of the sizes that the layer above requests.
//!
//! TLS and Noise read a few KiB at a time, and each read would be a system call. The buffer is allocated only while there
//! is data to read, so that idle connections cost no memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};

/// Bytes of one read: four full TLS records.
const STEP: usize = 64 * 1024;

/// A stream with read-ahead; writes go straight through.
#[derive(Debug)]
pub(crate) struct ReadAhead<S> {
    socket: S,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<S> ReadAhead<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self { socket, buffer: Vec::new(), start: 0, end: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.start == this.end {
            if out.len() >= STEP {
                return Pin::new(&mut this.socket).poll_read(cx, out);
            }
            this.buffer.resize(STEP, 0);
            let read = Pin::new(&mut this.socket).poll_read(cx, &mut this.buffer);
            if read.is_pending() {
                this.buffer = Vec::new();
            }
            (this.start, this.end) = (0, ready!(read)?);
        }
        let length = out.len().min(this.end - this.start);
        out[..length].copy_from_slice(&this.buffer[this.start..this.start + length]);
        this.start += length;
        Poll::Ready(Ok(length))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::AsyncReadExt;
    use futures::io::Cursor;

    use super::*;

    #[tokio::test]
    async fn bytes_are_read_in_order_for_any_buffer_size() {
        let data: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut stream = ReadAhead::new(Cursor::new(data.clone()));
        let mut read = Vec::new();
        for size in [1, 5, 4096, STEP - 1, STEP, STEP + 1, 3].into_iter().cycle() {
            let mut piece = vec![0; size];
            let length = stream.read(&mut piece).await.unwrap();
            if length == 0 {
                break;
            }
            read.extend_from_slice(&piece[..length]);
        }
        assert!(read == data, "the bytes differ");
    }
}

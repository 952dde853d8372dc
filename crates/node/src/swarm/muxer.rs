//! Stream multiplexing: Yamux, with larger frames than libp2p's own wrapper sends.
//!
//! The `yamux` crate implements the protocol (<https://github.com/hashicorp/yamux/blob/master/spec.md>). Frames of 64 KiB
//! instead of 16 KiB need a quarter of the headers and of the passes through the connection, and still interleave
//! streams.

use std::collections::VecDeque;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use yamux::{Config, Connection, ConnectionError, Mode, Stream};

/// Streams of one connection: twice as many as bitswap reads from one peer concurrently. Each may have its first window
/// unread, so this also bounds the memory that a hostile peer can use.
const STREAMS_MAX: usize = 1024;

/// The initial window of a stream in bytes, fixed by Yamux.
const FIRST_WINDOW: usize = 256 * 1024;

/// Unread bytes of one connection. All streams share the 768 KiB beyond their initial windows, so that no window exceeds
/// 1 MiB: js-libp2p sends frames as large as the window, and rust-yamux closes the connection on a frame over 1 MiB.
const UNREAD_MAX: usize = STREAMS_MAX * FIRST_WINDOW + 768 * 1024;

/// The maximum bytes of stream data in one frame.
const FRAME_SIZE: usize = 64 * 1024;

/// Inbound streams that have not been accepted yet; more are reset. A peer may open this many without an answer.
const INBOUND_MAX: usize = 256;

/// The Yamux upgrade.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Yamux;

impl Yamux {
    fn connection<C: AsyncRead + AsyncWrite + Unpin>(socket: C, mode: Mode) -> Muxer<C> {
        let mut config = Config::default();
        config
            .set_max_num_streams(STREAMS_MAX)
            .set_max_connection_receive_window(Some(UNREAD_MAX))
            .set_split_send_size(FRAME_SIZE);
        Muxer {
            connection: Connection::new(socket, config, mode),
            inbound: VecDeque::new(),
            inbound_waker: None,
        }
    }
}

impl UpgradeInfo for Yamux {
    type Info = &'static str;
    type InfoIter = std::iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> InboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Output>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        ready(Ok(Self::connection(socket, Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> OutboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Output>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        ready(Ok(Self::connection(socket, Mode::Client)))
    }
}

/// A connection that carries streams.
///
/// Yamux makes progress only while it is polled for the next inbound stream. The swarm polls in two ways: to accept a
/// stream ([`poll_inbound`](StreamMuxer::poll_inbound)), or only for progress ([`poll`](StreamMuxer::poll)). Streams that
/// arrive in the second way wait in `inbound`.
pub(crate) struct Muxer<C> {
    connection: Connection<C>,
    inbound: VecDeque<Stream>,
    inbound_waker: Option<Waker>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let next = ready!(self.connection.poll_next_inbound(cx));
        Poll::Ready(next.unwrap_or(Err(ConnectionError::Closed)).map_err(into_io))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Stream;
    type Error = io::Error;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let this = self.get_mut();
        if let Some(stream) = this.inbound.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let next = this.poll_next(cx);
        if next.is_pending() {
            this.inbound_waker = Some(cx.waker().clone());
        }
        next
    }

    fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        self.get_mut().connection.poll_new_outbound(cx).map_err(into_io)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().connection.poll_close(cx).map_err(into_io)
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        let this = self.get_mut();
        let stream = ready!(this.poll_next(cx))?;
        if this.inbound.len() < INBOUND_MAX {
            this.inbound.push_back(stream);
            if let Some(inbound_waker) = this.inbound_waker.take() {
                inbound_waker.wake();
            }
        } else {
            // Dropping a stream resets it.
            tracing::debug!("resetting an inbound stream: too many are waiting");
            drop(stream);
        }
        // There may be more streams, but other tasks run first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

fn into_io(error: ConnectionError) -> io::Error {
    if let ConnectionError::Io(error) = error { error } else { io::Error::other(error) }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::{AsyncReadExt, AsyncWriteExt};
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;

    #[tokio::test]
    async fn large_write_is_sent_in_large_frames() {
        const HEADER: usize = 12;
        let (near, far) = tokio::io::duplex(1024 * 1024);
        let mut muxer = Yamux::connection(near.compat(), Mode::Client);
        let mut stream = poll_fn(|cx| Pin::new(&mut muxer).poll_outbound(cx)).await.unwrap();
        let driven = tokio::spawn(poll_fn(move |cx| Pin::new(&mut muxer).poll(cx)));

        let data = vec![7; 2 * FRAME_SIZE];
        let written = tokio::spawn(async move {
            stream.write_all(&data).await.unwrap();
            stream.flush().await.unwrap();
            stream
        });
        let mut far = far.compat();
        let mut sizes = Vec::new();
        while sizes.iter().sum::<usize>() < 2 * FRAME_SIZE {
            let mut header = [0; HEADER];
            far.read_exact(&mut header).await.unwrap();
            let [.., a, b, c, d] = header;
            let size = u32::from_be_bytes([a, b, c, d]) as usize;
            if header[1] == 0 {
                // A data frame; others have no body.
                far.read_exact(&mut vec![0; size]).await.unwrap();
                sizes.push(size);
            }
        }
        assert_eq!(sizes, [FRAME_SIZE, FRAME_SIZE]);
        written.await.unwrap();
        driven.abort();
    }

    #[tokio::test]
    async fn concurrent_streams_work_in_both_directions() {
        const STREAMS: usize = 300;
        let (near, far) = tokio::io::duplex(64 * 1024);
        let mut server = Yamux::connection(far.compat(), Mode::Server);
        let mut client = Yamux::connection(near.compat(), Mode::Client);
        let echo = tokio::spawn(async move {
            let mut echoes = Vec::new();
            while echoes.len() < STREAMS {
                let mut stream = poll_fn(|cx| Pin::new(&mut server).poll_inbound(cx)).await.unwrap();
                echoes.push(tokio::spawn(async move {
                    let mut data = Vec::new();
                    stream.read_to_end(&mut data).await.unwrap();
                    stream.write_all(&data).await.unwrap();
                    stream.close().await.unwrap();
                }));
            }
            // Continues until the client closes the connection.
            let _ = poll_fn(|cx| Pin::new(&mut server).poll(cx)).await;
        });
        let mut answers = Vec::new();
        for number in 0..STREAMS {
            // The other side must see streams before more than 256 may be opened.
            let mut stream = poll_fn(|cx| {
                let opened = Pin::new(&mut client).poll_outbound(cx);
                if opened.is_pending() {
                    let _ = Pin::new(&mut client).poll(cx);
                }
                opened
            })
            .await
            .unwrap();
            answers.push(tokio::spawn(async move {
                let sent = vec![number as u8; 1000 + number];
                stream.write_all(&sent).await.unwrap();
                stream.close().await.unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).await.unwrap();
                assert!(answer == sent, "stream {number} came back changed");
            }));
        }
        let all = futures::future::try_join_all(answers);
        tokio::select! {
            outcome = all => { outcome.unwrap(); }
            outcome = poll_fn(|cx| Pin::new(&mut client).poll(cx)) => panic!("the connection ended: {:?}", outcome.err()),
        }
        drop(client);
        echo.await.unwrap();
    }
}

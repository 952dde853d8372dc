//! The caller's side of a provider search: a stream of peers that ends the search when it is dropped.

use std::pin::Pin;
use std::task::{Context, Poll};

use cid::multihash::Multihash;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::Stream;
use libp2p::PeerId;
use libp2p::kad::RecordKey;
use tokio::sync::{mpsc, oneshot};

use super::Command;
use super::searches::{PROVIDERS_MAX, ProviderSearch};

/// The providers that one search finds, each once.
pub struct ProviderStream {
    /// Sends the command that starts the search; `None` once it is sent.
    start: Option<BoxFuture<'static, ()>>,
    found: mpsc::Receiver<PeerId>,
    /// Dropping it ends the search.
    _cancel: oneshot::Sender<()>,
}

impl std::fmt::Debug for ProviderStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProviderStream").finish_non_exhaustive()
    }
}

impl ProviderStream {
    /// A stream whose first poll asks the swarm's event loop to search. If the event loop has stopped, the
    /// stream ends at once.
    pub(super) fn new(commands: mpsc::Sender<Command>, hash: &Multihash<64>) -> Self {
        let (sender, found) = mpsc::channel(PROVIDERS_MAX);
        let (cancel, cancelled) = oneshot::channel();
        // Provider records are stored under the multihash: the codec does not matter.
        let key = RecordKey::new(&hash.to_bytes());
        let command = Command::Search(ProviderSearch { key, found: sender, cancelled });
        let start = async move { drop(commands.send(command).await) }.boxed();
        Self { start: Some(start), found, _cancel: cancel }
    }
}

impl Stream for ProviderStream {
    type Item = PeerId;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PeerId>> {
        if let Some(start) = &mut self.start
            && start.poll_unpin(cx).is_ready()
        {
            self.start = None;
        }
        self.found.poll_recv(cx)
    }
}

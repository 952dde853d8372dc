//! The DHTs as a source of providers.

use std::pin::Pin;
use std::task::{Context, Poll};

use cid::Cid;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, Stream, StreamExt};
use libp2p::kad::RecordKey;
use tokio::sync::{mpsc, oneshot};

use super::Command;
use super::searches::{FOUND_MAX, Search};
use crate::source::{Found, Source};

/// Looks providers up in every DHT that is on. Each provider is dialled as soon as it is found, because
/// its addresses are known only while the search runs; so it is yielded without addresses.
///
/// A search that begins before the node knows a member of the DHT waits for one. It ends after two
/// minutes at the latest, with at most 100 providers.
#[derive(Debug, Clone)]
pub struct Dht {
    commands: mpsc::Sender<Command>,
}

impl Dht {
    pub(super) fn new(commands: mpsc::Sender<Command>) -> Self {
        Self { commands }
    }
}

impl Source for Dht {
    fn name(&self) -> &'static str {
        "dht"
    }

    fn find(&self, cid: &Cid) -> BoxStream<'static, Found> {
        let (sender, found) = mpsc::channel(FOUND_MAX);
        let (wanted, ended) = oneshot::channel();
        // Providers are recorded under the multihash: the codec does not matter.
        let key = RecordKey::new(&cid.hash().to_bytes());
        let order = Command::Search(Search { key, found: sender, wanted: ended });
        let commands = self.commands.clone();
        // If the node has stopped, the order is dropped, and the stream ends.
        let begin = async move { drop(commands.send(order).await) }.boxed();
        Finding { begin: Some(begin), found, _wanted: wanted }.boxed()
    }
}

/// What a search finds. Dropping it ends the search.
struct Finding {
    begin: Option<BoxFuture<'static, ()>>,
    found: mpsc::Receiver<Found>,
    _wanted: oneshot::Sender<()>,
}

impl Stream for Finding {
    type Item = Found;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Found>> {
        if let Some(begin) = &mut self.begin
            && begin.poll_unpin(cx).is_ready()
        {
            self.begin = None;
        }
        self.found.poll_recv(cx)
    }
}

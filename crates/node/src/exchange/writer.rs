//! The task that writes to one peer: our wants and the answers to its own, together in one message.
//!
//! One stream is kept while there is something to say, and closed soon after: some peers abort streams
//! that idle, and what is written to such a stream is lost without a sign. A message that could not be
//! written is written again on a new stream. While one message is on its way, the blocks of the next are
//! read.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::AsyncWriteExt;
use libp2p::swarm::Stream;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::behaviour::{Command, OpenError};
use super::engine::{Engine, Peer};
use super::lock;
use super::stats::Counters;
use super::wire::{Dialect, Outgoing};

/// Wants and cancels in one message.
const ENTRIES_MAX: usize = 2048;
/// Bytes of blocks in one message: for a quick peer, and for one that is slow to take them.
const BYTES_TARGET: usize = 1024 * 1024;
const BYTES_TARGET_MIN: usize = 64 * 1024;
/// How often a message is tried before the peer is given a rest.
const ATTEMPTS: u32 = 3;
/// The rest.
const REST: Duration = Duration::from_secs(5);

/// Writes until the peer is gone.
pub(super) async fn run(engine: Arc<Engine>, peer: Peer) {
    let mut writer =
        Writer { engine, peer: peer.clone(), stream: None, next: None, bytes_target: BYTES_TARGET };
    tokio::select! {
        () = peer.gone.cancelled() => {}
        () = writer.run() => {}
    }
}

struct Writer {
    engine: Arc<Engine>,
    peer: Peer,
    stream: Option<(Stream, Dialect)>,
    /// The answers of the next message, which are read while this one is on its way.
    next: Option<AbortOnDropHandle<Answers>>,
    bytes_target: usize,
}

/// A message with blocks in it, and its share of what may be on its way to all peers.
type Answers = (Outgoing, Option<OwnedSemaphorePermit>);

impl Writer {
    async fn run(&mut self) {
        loop {
            if !self.has_work() {
                self.idle().await;
                continue;
            }
            let dialect = match self.open().await {
                Ok(dialect) => dialect,
                Err(OpenError::Unsupported) => return self.give_up(),
                Err(OpenError::Failed) => {
                    tokio::time::sleep(REST).await;
                    continue;
                }
            };
            let (message, permit) = self.message(dialect).await;
            if message.is_empty() {
                continue;
            }
            if self.engine.server.has_work(self.peer.key) {
                self.next = Some(self.answers(dialect));
            }
            let sent = self.send(message, dialect).await;
            // Others need not wait while this peer has its rest.
            drop(permit);
            if !sent {
                lock(&self.engine.client).resend_all(self.peer.key);
                tokio::time::sleep(REST).await;
            }
        }
    }

    fn has_work(&self) -> bool {
        self.next.is_some()
            || self.engine.server.has_work(self.peer.key)
            || lock(&self.engine.client).has_changes(self.peer.key)
    }

    /// The peer does not speak bitswap: nothing is asked of it.
    fn give_up(&self) {
        tracing::debug!(peer = %self.peer.id, "peer does not speak bitswap");
        self.engine.server.disconnect(self.peer.key);
        lock(&self.engine.client).disconnect(self.peer.key, Instant::now());
    }

    /// Waits for something to say; closes the stream when that takes long.
    async fn idle(&mut self) {
        let Some((stream, _)) = &mut self.stream else { return self.peer.writer.notified().await };
        if timeout(self.engine.config.idle_close, self.peer.writer.notified()).await.is_err() {
            // If the peer does not let it be closed in order, it is dropped.
            let _failed = timeout(self.engine.config.idle_close, stream.close()).await;
            self.stream = None;
        }
    }

    /// What was negotiated for the stream that is open, or opened now.
    async fn open(&mut self) -> Result<Dialect, OpenError> {
        if let Some((_, dialect)) = &self.stream {
            return Ok(*dialect);
        }
        let (reply, opened) = oneshot::channel();
        self.engine.commands.send(Command::Open(self.peer.id, reply)).await.map_err(|_| OpenError::Failed)?;
        let (stream, dialect) = opened.await.map_err(|_| OpenError::Failed)??;
        lock(&self.engine.client).set_dialect(self.peer.key, dialect);
        self.stream = Some((stream, dialect));
        Ok(dialect)
    }

    /// Makes the next message.
    async fn message(&mut self, dialect: Dialect) -> Answers {
        let next = match self.next.take() {
            Some(next) => Some(next),
            None => self.engine.server.has_work(self.peer.key).then(|| self.answers(dialect)),
        };
        let (mut message, permit) = match next {
            // It only fails when the runtime ends.
            Some(next) => next.await.unwrap_or_default(),
            None => Answers::default(),
        };
        (message.entries, message.full) = lock(&self.engine.client).take_changes(self.peer.key, ENTRIES_MAX);
        (message, permit)
    }

    /// Begins to answer the peer. Blocks are read where that may block, within the budget of all peers.
    fn answers(&self, dialect: Dialect) -> AbortOnDropHandle<Answers> {
        let (engine, key, bytes_target) = (self.engine.clone(), self.peer.key, self.bytes_target);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let kib = u32::try_from(bytes_target / 1024).unwrap_or(u32::MAX);
            let permit = engine.sending.clone().acquire_many_owned(kib).await.ok();
            let answered = tokio::task::spawn_blocking(move || {
                let mut message = Outgoing::default();
                engine.server.answer(key, dialect, bytes_target, &mut message);
                message
            });
            let message = answered.await.unwrap_or_else(|error| {
                tracing::error!(%error, "answering a peer failed");
                Outgoing::default()
            });
            (message, permit)
        }))
    }

    /// Writes a message, on new streams if need be; false if that failed again and again.
    async fn send(&mut self, message: Outgoing, dialect: Dialect) -> bool {
        let blocks = message.blocks.len() as u64;
        let bytes: u64 = message.blocks.iter().map(|block| block.data().len() as u64).sum();
        let parts = message.encode(dialect);
        for _ in 0..ATTEMPTS {
            if self.open().await.is_err() {
                continue;
            }
            let Some((stream, _)) = &mut self.stream else { continue };
            let began = Instant::now();
            match timeout(self.engine.config.write_time, write(stream, &parts)).await {
                Ok(Ok(())) => {
                    self.adapt(began.elapsed());
                    Counters::add(&self.engine.counters.messages_sent, 1);
                    Counters::add(&self.engine.counters.blocks_sent, blocks);
                    Counters::add(&self.engine.counters.bytes_sent, bytes);
                    return true;
                }
                Ok(Err(error)) => tracing::debug!(peer = %self.peer.id, %error, "bitswap stream broke"),
                Err(_) => {
                    self.bytes_target = BYTES_TARGET_MIN;
                    self.stream = None;
                    return false;
                }
            }
            self.stream = None;
        }
        false
    }

    /// Slow peers get small messages, so that what is in flight to them is little.
    fn adapt(&mut self, took: Duration) {
        if took > Duration::from_secs(4) {
            self.bytes_target = (self.bytes_target / 2).max(BYTES_TARGET_MIN);
        } else if took < Duration::from_secs(1) {
            self.bytes_target = (self.bytes_target * 2).min(BYTES_TARGET);
        }
    }
}

async fn write(stream: &mut Stream, parts: &[Bytes]) -> io::Result<()> {
    for part in parts {
        stream.write_all(part).await?;
    }
    stream.flush().await
}

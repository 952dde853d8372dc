//! The task that writes to one peer. A message combines our wants and the answers to the peer's wants.
//!
//! A stream stays open while there is something to send, and is closed soon after: some peers abort idle streams, and data
//! written to such a stream is lost silently. A message that could not be written is written again on a new stream. While
//! one message is being written, the blocks of the next one are read.

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
use super::wire::{Outgoing, ProtocolVersion};

/// Wants and cancels in one message.
const ENTRIES_MAX: usize = 2048;
/// Bytes of blocks in one message: for a fast peer, and for a slow one.
const BYTES_TARGET: usize = 1024 * 1024;
const BYTES_TARGET_MIN: usize = 64 * 1024;
/// Attempts to write a message before a pause.
const ATTEMPTS: u32 = 3;
/// The pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Writes until the peer is disconnected.
pub(super) async fn run(engine: Arc<Engine>, peer: Peer) {
    let mut writer =
        Writer { engine, peer: peer.clone(), stream: None, next: None, bytes_target: BYTES_TARGET };
    tokio::select! {
        () = peer.disconnected.cancelled() => {}
        () = writer.run() => {}
    }
}

struct Writer {
    engine: Arc<Engine>,
    peer: Peer,
    stream: Option<(Stream, ProtocolVersion)>,
    /// The answers of the next message, which are read while the current one is written.
    next: Option<AbortOnDropHandle<Answers>>,
    bytes_target: usize,
}

/// A message with blocks, and its permit for bytes in flight to all peers.
type Answers = (Outgoing, Option<OwnedSemaphorePermit>);

impl Writer {
    async fn run(&mut self) {
        loop {
            if !self.has_work() {
                self.idle().await;
                continue;
            }
            let version = match self.open().await {
                Ok(version) => version,
                Err(OpenError::Unsupported) => return self.disconnect(),
                Err(OpenError::Failed) => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
            };
            let (message, permit) = self.message(version).await;
            if message.is_empty() {
                continue;
            }
            if self.engine.server.has_work(self.peer.key) {
                self.next = Some(self.answers(version));
            }
            let sent = self.send(message, version).await;
            // Released before the pause, so that other peers can use it.
            drop(permit);
            if !sent {
                lock(&self.engine.client).resend_all(self.peer.key);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    fn has_work(&self) -> bool {
        self.next.is_some()
            || self.engine.server.has_work(self.peer.key)
            || lock(&self.engine.client).has_changes(self.peer.key)
    }

    /// The peer does not speak bitswap: nothing is requested from it.
    fn disconnect(&self) {
        tracing::debug!(peer = %self.peer.id, "peer does not support bitswap");
        self.engine.server.disconnect(self.peer.key);
        lock(&self.engine.client).disconnect(self.peer.key, Instant::now());
    }

    /// Waits for something to send. Closes the stream if that takes long.
    async fn idle(&mut self) {
        let Some((stream, _)) = &mut self.stream else { return self.peer.writer.notified().await };
        if timeout(self.engine.config.idle_close, self.peer.writer.notified()).await.is_err() {
            // If it cannot be closed gracefully, it is dropped.
            let _failed = timeout(self.engine.config.idle_close, stream.close()).await;
            self.stream = None;
        }
    }

    /// Opens a stream unless one is open. Returns its protocol version.
    async fn open(&mut self) -> Result<ProtocolVersion, OpenError> {
        if let Some((_, version)) = &self.stream {
            return Ok(*version);
        }
        let (reply, opened) = oneshot::channel();
        self.engine.commands.send(Command::Open(self.peer.id, reply)).await.map_err(|_| OpenError::Failed)?;
        let (stream, version) = opened.await.map_err(|_| OpenError::Failed)??;
        lock(&self.engine.client).set_version(self.peer.key, version);
        self.stream = Some((stream, version));
        Ok(version)
    }

    /// Assembles the next message.
    async fn message(&mut self, version: ProtocolVersion) -> Answers {
        let next = match self.next.take() {
            Some(next) => Some(next),
            None => self.engine.server.has_work(self.peer.key).then(|| self.answers(version)),
        };
        let (mut message, permit) = match next {
            // It fails only when the runtime shuts down.
            Some(next) => next.await.unwrap_or_default(),
            None => Answers::default(),
        };
        (message.entries, message.full) = lock(&self.engine.client).take_changes(self.peer.key, ENTRIES_MAX);
        (message, permit)
    }

    /// Starts to assemble answers for the peer. Blocks are read on a blocking thread, within the budget of all peers.
    fn answers(&self, version: ProtocolVersion) -> AbortOnDropHandle<Answers> {
        let (engine, key, bytes_target) = (self.engine.clone(), self.peer.key, self.bytes_target);
        let tasks = self.engine.tasks.clone();
        AbortOnDropHandle::new(self.engine.tasks.spawn(async move {
            let kib = u32::try_from(bytes_target / 1024).unwrap_or(u32::MAX);
            let permit = engine.sending.clone().acquire_many_owned(kib).await.ok();
            let answered = tasks.spawn_blocking(move || {
                let mut message = Outgoing::default();
                engine.server.answer(key, version, bytes_target, &mut message);
                message
            });
            let message = answered.await.unwrap_or_else(|error| {
                tracing::error!(%error, "failed to assemble answers for a peer");
                Outgoing::default()
            });
            (message, permit)
        }))
    }

    /// Writes a message, on a new stream if necessary. False if all attempts failed.
    async fn send(&mut self, message: Outgoing, version: ProtocolVersion) -> bool {
        let blocks = message.blocks.len() as u64;
        let bytes: u64 = message.blocks.iter().map(|block| block.data().len() as u64).sum();
        let parts = message.encode(version);
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
                Ok(Err(error)) => {
                    tracing::debug!(peer = %self.peer.id, %error, "failed to write to a bitswap stream")
                }
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

    /// Adapts the message size to the peer's speed, so that few bytes are in flight to a slow peer.
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

//! The task that reads the messages of one peer from any number of streams.
//!
//! Many peers open a stream for each message, others keep one for hours. A stream costs no task of its own, and only the
//! memory of the message that is being received on it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cid::{Cid, Version};
use futures::stream::{FuturesUnordered, StreamExt};
use futures::{AsyncRead, AsyncReadExt};
use multihash_codetable::{Code, Multihash, MultihashDigest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep};

use super::client::ReceivedBlock;
use super::engine::{Engine, Peer};
use super::lock;
use super::stats::Counters;
use super::wire::{self, HAVE, MESSAGE_SIZE_MAX, Message, Prefix};
use crate::block::{Block, BlockError};
use libp2p::swarm::Stream;

/// How long a message may take from its first byte to its last.
const MESSAGE_TIME: Duration = Duration::from_secs(60);
/// How often that is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The minimum rate of a message in bytes a second, after a short grace period, while other messages wait for memory.
/// Otherwise a peer that announces much and sends little would block all others.
const SCARCE_RATE: f64 = 64.0 * 1024.0;
const SCARCE_GRACE: Duration = Duration::from_secs(5);

/// Reads until the peer is disconnected.
pub(super) async fn run(engine: Arc<Engine>, peer: Peer, mut incoming: mpsc::Receiver<Stream>) {
    let budget =
        Budget { peer: Arc::new(Semaphore::new(2 * MESSAGE_SIZE_MAX / 1024)), all: engine.receiving.clone() };
    let mut reading = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = peer.disconnected.cancelled() => return,
            Some(stream) = incoming.recv(), if reading.len() < engine.config.peer_streams_max => {
                reading.push(read(stream, budget.clone()));
            }
            Some((stream, outcome)) = reading.next(), if !reading.is_empty() => match outcome {
                Ok(Some((frame, _permits))) => {
                    if let Err(error) = receive(&engine, &peer, frame).await {
                        tracing::debug!(peer = %peer.id, %error, "closing a bitswap stream after an invalid message");
                        continue;
                    }
                    reading.push(read(stream, budget.clone()));
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(peer = %peer.id, %error, "bitswap stream is closed"),
            },
        }
    }
}

/// Limits on the bytes of messages being received: from this peer, and from all peers.
#[derive(Clone)]
struct Budget {
    peer: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

type Permits = (OwnedSemaphorePermit, OwnedSemaphorePermit);

async fn read<R: AsyncRead + Unpin>(
    mut stream: R,
    budget: Budget,
) -> (R, io::Result<Option<(Bytes, Permits)>>) {
    let outcome = read_frame(&mut stream, budget).await;
    (stream, outcome)
}

async fn read_frame<R: AsyncRead + Unpin>(
    stream: &mut R,
    budget: Budget,
) -> io::Result<Option<(Bytes, Permits)>> {
    let Some(length) = wire::read_length(stream).await? else { return Ok(None) };
    let kib = u32::try_from(length.div_ceil(1024)).map_err(io::Error::other)?;
    let all = budget.all.clone();
    let permits = (
        budget.peer.acquire_many_owned(kib).await.map_err(io::Error::other)?,
        budget.all.acquire_many_owned(kib).await.map_err(io::Error::other)?,
    );
    // Zeroed memory is not allocated until it is written to: announced bytes that are not sent cost nothing.
    let mut frame = vec![0; length];
    fill(stream, &mut frame, &all).await?;
    Ok(Some((Bytes::from(frame), permits)))
}

/// Reads a whole frame, unless the peer sends it too slowly.
async fn fill<R: AsyncRead + Unpin>(stream: &mut R, frame: &mut [u8], all: &Semaphore) -> io::Result<()> {
    let began = Instant::now();
    let check = sleep(CHECK_INTERVAL);
    tokio::pin!(check);
    let mut filled = 0;
    while filled < frame.len() {
        tokio::select! {
            biased;
            read = stream.read(&mut frame[filled..]) => match read? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => filled += length,
            },
            () = &mut check => {
                // A waiter takes every permit that is returned, so few are available while there is one.
                let is_scarce = all.available_permits() < MESSAGE_SIZE_MAX / 1024;
                if is_late(filled, began.elapsed(), is_scarce) {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                check.as_mut().reset(Instant::now() + CHECK_INTERVAL);
            }
        }
    }
    Ok(())
}

/// Whether to abort a message of which `filled` bytes arrived in this time.
fn is_late(filled: usize, took: Duration, is_scarce: bool) -> bool {
    let is_slow = took > SCARCE_GRACE && (filled as f64) < SCARCE_RATE * took.as_secs_f64();
    took > MESSAGE_TIME || (is_scarce && is_slow)
}

/// Processes a message. Waits while the inboxes of the sessions that it is for are full.
async fn receive(engine: &Arc<Engine>, peer: &Peer, frame: Bytes) -> io::Result<()> {
    let frame_len = frame.len();
    let message = wire::decode(frame)?;
    Counters::add(&engine.counters.messages_received, 1);
    let (wantlist, blocks, presences) = unpack(message, frame_len);
    if let Some(wantlist) = wantlist {
        engine.server.received(peer.key, wantlist);
    }
    if blocks.is_empty() && presences.is_empty() {
        return Ok(());
    }
    let received = lock(&engine.client).received(peer.key, blocks, &presences, Instant::now());
    if received.ban {
        engine.ban(peer.id).await;
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    for inbox in received.full {
        inbox.has_room().await;
    }
    Ok(())
}

type Unpacked = (Option<wire::Wantlist>, Vec<ReceivedBlock>, Vec<(Cid, bool)>);

/// Hashes the blocks of a message and parses its CIDs.
fn unpack(message: Message, frame_len: usize) -> Unpacked {
    let carried: usize = message.payload.iter().map(|payload| payload.data.len()).sum::<usize>()
        + message.blocks.iter().map(Bytes::len).sum::<usize>();
    // A slice keeps its whole frame in memory: blocks that are a small part of it are copied.
    let share = carried * 2 > frame_len;
    let own = |data: Bytes| if share { data } else { Bytes::copy_from_slice(&data) };
    let mut blocks = Vec::with_capacity(message.payload.len() + message.blocks.len());
    for payload in message.payload {
        blocks.push(match Prefix::parse(&payload.prefix) {
            Some(prefix) => hash(prefix, own(payload.data)),
            None => ReceivedBlock::Invalid(payload.data.len()),
        });
    }
    blocks.extend(message.blocks.into_iter().map(|data| hash(Prefix::V0, own(data))));
    let presences = message
        .presences
        .into_iter()
        .filter_map(|presence| Some((Cid::try_from(presence.cid.as_ref()).ok()?, presence.kind == HAVE)))
        .collect();
    (message.wantlist, blocks, presences)
}

fn hash(prefix: Prefix, data: Bytes) -> ReceivedBlock {
    let bytes = data.len();
    match Block::hash(prefix.version, prefix.codec, prefix.hash_code, data.clone()) {
        Ok(block) => ReceivedBlock::Block(block),
        Err(BlockError::TooLarge(_)) => match Code::try_from(prefix.hash_code) {
            // It is never stored, but the sessions that want it should learn that it cannot be fetched.
            Ok(code) => too_large(prefix, code.digest(&data), bytes),
            Err(_) => ReceivedBlock::Invalid(bytes),
        },
        Err(BlockError::Mismatch(_) | BlockError::UnknownHash(_) | BlockError::NotV0) => {
            ReceivedBlock::Invalid(bytes)
        }
    }
}

fn too_large(prefix: Prefix, hash: Multihash, bytes: usize) -> ReceivedBlock {
    match prefix.version {
        Version::V0 => {
            Cid::new_v0(hash).map_or(ReceivedBlock::Invalid(bytes), |cid| ReceivedBlock::TooLarge(cid, bytes))
        }
        Version::V1 => ReceivedBlock::TooLarge(Cid::new_v1(prefix.codec, hash), bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_message_is_aborted_when_memory_is_scarce() {
        let after = Duration::from_secs;
        assert!(!is_late(0, after(4), true), "within the grace period");
        assert!(is_late(1000, after(6), true), "too slow");
        assert!(!is_late(1000, after(59), false), "no other message waits");
        assert!(!is_late(10 * 64 * 1024, after(9), true), "fast enough");
        assert!(is_late(1000, after(61), false));
    }

    #[test]
    fn cid_of_an_oversized_block_is_known_in_both_versions() {
        let data = Bytes::from(vec![1; crate::block::BLOCK_SIZE_MAX + 1]);
        let hash_of = Code::Sha2_256.digest(&data);
        for (version, cid) in
            [(Version::V0, Cid::new_v0(hash_of).unwrap()), (Version::V1, Cid::new_v1(0x70, hash_of))]
        {
            let arrived = hash(Prefix { version, ..Prefix::V0 }, data.clone());
            assert!(matches!(arrived, ReceivedBlock::TooLarge(known, _) if known == cid), "{arrived:?}");
        }
    }
}

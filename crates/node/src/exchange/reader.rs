//! The task that reads what one peer sends, on any number of streams.
//!
//! Many peers open a stream for each message, others keep one for hours: a stream costs no task of its
//! own, and no memory but for the message that it is in the middle of.

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

use super::client::Arrived;
use super::engine::{Engine, Peer};
use super::lock;
use super::stats::Counters;
use super::wire::{self, HAVE, MESSAGE_SIZE_MAX, Message, Prefix};
use crate::block::{Block, BlockError};
use libp2p::swarm::Stream;

/// How long a message may take from its first byte to its last.
const MESSAGE_TIME: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// While others wait for room, a message must come this fast, in bytes a second, after a short grace: who
/// announces much and sends little would keep the room from everybody else.
const SCARCE_RATE: f64 = 64.0 * 1024.0;
const SCARCE_GRACE: Duration = Duration::from_secs(5);

/// Reads until the peer is gone.
pub(super) async fn run(engine: Arc<Engine>, peer: Peer, mut incoming: mpsc::Receiver<Stream>) {
    let budget =
        Budget { peer: Arc::new(Semaphore::new(2 * MESSAGE_SIZE_MAX / 1024)), all: engine.receiving.clone() };
    let mut reading = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = peer.gone.cancelled() => return,
            Some(stream) = incoming.recv(), if reading.len() < engine.config.peer_streams_max => {
                reading.push(read(stream, budget.clone()));
            }
            Some((stream, outcome)) = reading.next(), if !reading.is_empty() => match outcome {
                Ok(Some((frame, _permits))) => {
                    if let Err(error) = receive(&engine, &peer, frame).await {
                        tracing::debug!(peer = %peer.id, %error, "bad bitswap message, its stream is closed");
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

/// How much may be in the middle of being received: from this peer, and from all.
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
    // Memory that is never written to costs nothing: what is announced and not sent is not there.
    let mut frame = vec![0; length];
    fill(stream, &mut frame, &all).await?;
    Ok(Some((Bytes::from(frame), permits)))
}

/// Reads a whole frame, as long as its peer sends it in time.
async fn fill<R: AsyncRead + Unpin>(stream: &mut R, frame: &mut [u8], all: &Semaphore) -> io::Result<()> {
    let began = Instant::now();
    let look = sleep(LOOK);
    tokio::pin!(look);
    let mut filled = 0;
    while filled < frame.len() {
        tokio::select! {
            biased;
            read = stream.read(&mut frame[filled..]) => match read? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => filled += length,
            },
            () = &mut look => {
                // Whoever waits for permits is given each one that comes back: none are left over then.
                let is_scarce = all.available_permits() < MESSAGE_SIZE_MAX / 1024;
                if is_late(filled, began.elapsed(), is_scarce) {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                look.as_mut().reset(Instant::now() + LOOK);
            }
        }
    }
    Ok(())
}

/// Whether a message that has come so far in this time is given up.
fn is_late(filled: usize, took: Duration, is_scarce: bool) -> bool {
    let is_slow = took > SCARCE_GRACE && (filled as f64) < SCARCE_RATE * took.as_secs_f64();
    took > MESSAGE_TIME || (is_scarce && is_slow)
}

/// Takes a message in. Waits while the sessions that it is for have too much to do.
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
    if received.refuse {
        engine.refuse(peer.id).await;
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    for inbox in received.full {
        inbox.has_room().await;
    }
    Ok(())
}

type Unpacked = (Option<wire::Wantlist>, Vec<Arrived>, Vec<(Cid, bool)>);

/// Hashes the blocks of a message and parses its CIDs.
fn unpack(message: Message, frame_len: usize) -> Unpacked {
    let carried: usize = message.payload.iter().map(|payload| payload.data.len()).sum::<usize>()
        + message.blocks.iter().map(Bytes::len).sum::<usize>();
    // A slice keeps its whole frame in memory: blocks that are a small part of it are copied out.
    let share = carried * 2 > frame_len;
    let own = |data: Bytes| if share { data } else { Bytes::copy_from_slice(&data) };
    let mut blocks = Vec::with_capacity(message.payload.len() + message.blocks.len());
    for payload in message.payload {
        blocks.push(match Prefix::parse(&payload.prefix) {
            Some(prefix) => hash(prefix, own(payload.data)),
            None => Arrived::Nonsense(payload.data.len()),
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

fn hash(prefix: Prefix, data: Bytes) -> Arrived {
    let bytes = data.len();
    match Block::hash(prefix.version, prefix.codec, prefix.hash_code, data.clone()) {
        Ok(block) => Arrived::Block(block),
        Err(BlockError::TooLarge(_)) => match Code::try_from(prefix.hash_code) {
            // It is never kept, but whoever wants it should learn that it can't be had.
            Ok(code) => too_large(prefix, code.digest(&data), bytes),
            Err(_) => Arrived::Nonsense(bytes),
        },
        Err(BlockError::Mismatch(_) | BlockError::UnknownHash(_) | BlockError::NotV0) => {
            Arrived::Nonsense(bytes)
        }
    }
}

fn too_large(prefix: Prefix, hash: Multihash, bytes: usize) -> Arrived {
    match prefix.version {
        Version::V0 => {
            Cid::new_v0(hash).map_or(Arrived::Nonsense(bytes), |cid| Arrived::TooLarge(cid, bytes))
        }
        Version::V1 => Arrived::TooLarge(Cid::new_v1(prefix.codec, hash), bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_message_has_time_until_others_wait_for_its_room() {
        let after = Duration::from_secs;
        assert!(!is_late(0, after(4), true), "it may just have begun");
        assert!(is_late(1000, after(6), true), "announced, and not sent");
        assert!(!is_late(1000, after(59), false), "nobody waits");
        assert!(!is_late(10 * 64 * 1024, after(9), true), "quick enough");
        assert!(is_late(1000, after(61), false));
    }

    #[test]
    fn a_block_that_is_too_large_is_known_by_either_kind_of_cid() {
        let data = Bytes::from(vec![1; crate::block::BLOCK_SIZE_MAX + 1]);
        let hash_of = Code::Sha2_256.digest(&data);
        for (version, cid) in
            [(Version::V0, Cid::new_v0(hash_of).unwrap()), (Version::V1, Cid::new_v1(0x70, hash_of))]
        {
            let arrived = hash(Prefix { version, ..Prefix::V0 }, data.clone());
            assert!(matches!(arrived, Arrived::TooLarge(known, _) if known == cid), "{arrived:?}");
        }
    }
}

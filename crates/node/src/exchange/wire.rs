//! Bitswap messages on the wire: protocol names, parsing with limits, and encoding without copying blocks.
//!
//! A message is a varint length and a protobuf (<https://specs.ipfs.tech/bitswap-protocol/>). The items of a received
//! message are counted before it is decoded, so that a small message cannot expand to a large one in memory. Decoded blocks
//! are slices of the received frame.

use bytes::{BufMut, Bytes, BytesMut};
use cid::{Cid, Version};
use futures::{AsyncRead, AsyncReadExt};
use libp2p::StreamProtocol;
use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint, encoded_len_varint};
use std::io;

use crate::block::{BLOCK_SIZE_MAX, Block};

/// The maximum size of a received message in bytes: the most that other implementations send, and room for framing.
pub(super) const MESSAGE_SIZE_MAX: usize = 4 * 1024 * 1024 + 64 * 1024;

/// The maximum number of entries, blocks and presences of one message together. Each costs memory besides its bytes.
pub(super) const MESSAGE_ITEMS_MAX: usize = 64 * 1024;

/// Blocks below this size are copied into the frame; larger ones are written without a copy.
const COPY_BELOW: usize = 16 * 1024;

const CODEC_DAG_PB: u64 = 0x70;
const SHA2_256: u64 = 0x12;

/// A version of the protocol, negotiated for each stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolVersion {
    /// Blocks have no prefix, and are therefore all CIDv0.
    V1_0,
    /// Blocks have a prefix. There is no HAVE and DONT_HAVE.
    V1_1,
    /// Adds want-have, HAVE and DONT_HAVE.
    V1_2,
}

impl ProtocolVersion {
    /// All versions, the preferred one first.
    pub(super) const ALL: [Self; 3] = [Self::V1_2, Self::V1_1, Self::V1_0];

    /// The protocol name for the negotiation.
    pub(super) fn protocol(self) -> StreamProtocol {
        match self {
            Self::V1_2 => StreamProtocol::new("/ipfs/bitswap/1.2.0"),
            Self::V1_1 => StreamProtocol::new("/ipfs/bitswap/1.1.0"),
            Self::V1_0 => StreamProtocol::new("/ipfs/bitswap/1.0.0"),
        }
    }

    /// Whether want-have, HAVE and DONT_HAVE exist.
    pub(super) fn has_presences(self) -> bool {
        self == Self::V1_2
    }
}

/// A received message.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Message {
    #[prost(message, optional, tag = "1")]
    pub(super) wantlist: Option<Wantlist>,
    /// Blocks of 1.0.0.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(super) blocks: Vec<Bytes>,
    /// Blocks of 1.1.0 and later.
    #[prost(message, repeated, tag = "3")]
    pub(super) payload: Vec<Payload>,
    /// HAVE and DONT_HAVE.
    #[prost(message, repeated, tag = "4")]
    pub(super) presences: Vec<Presence>,
    /// Bytes that the sender has queued for this node.
    #[prost(int32, tag = "5")]
    pub(super) pending_bytes: i32,
}

/// The wantlist of a peer, or changes to it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Wantlist {
    #[prost(message, repeated, tag = "1")]
    pub(super) entries: Vec<Entry>,
    /// Whether this replaces the wantlist sent before.
    #[prost(bool, tag = "2")]
    pub(super) full: bool,
}

/// One want or cancel.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Entry {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) cid: Bytes,
    #[prost(int32, tag = "2")]
    pub(super) priority: i32,
    #[prost(bool, tag = "3")]
    pub(super) cancel: bool,
    /// [`WANT_BLOCK`] or [`WANT_HAVE`].
    #[prost(int32, tag = "4")]
    pub(super) want_type: i32,
    #[prost(bool, tag = "5")]
    pub(super) send_dont_have: bool,
}

/// `want_type` of an entry that asks for the block.
pub(super) const WANT_BLOCK: i32 = 0;
/// `want_type` of an entry that asks whether the peer has the block.
pub(super) const WANT_HAVE: i32 = 1;

/// One block.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Payload {
    /// Version, codec, hash function and digest length as varints.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) prefix: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) data: Bytes,
}

/// Whether the sender has a block.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Presence {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) cid: Bytes,
    /// [`HAVE`] or [`DONT_HAVE`].
    #[prost(int32, tag = "2")]
    pub(super) kind: i32,
}

/// `kind` of a presence: the sender has the block.
pub(super) const HAVE: i32 = 0;
/// `kind` of a presence: the sender does not have the block.
pub(super) const DONT_HAVE: i32 = 1;

/// Reads the length of the next message; `None` if the stream ends.
///
/// # Errors
/// A length over [`MESSAGE_SIZE_MAX`], an invalid varint, and any error of the stream.
pub(super) async fn read_length<R: AsyncRead + Unpin>(stream: &mut R) -> io::Result<Option<usize>> {
    let mut length = 0usize;
    for shift in (0..28).step_by(7) {
        let mut byte = [0u8];
        if stream.read(&mut byte).await? == 0 {
            return if shift == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        length |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return if length <= MESSAGE_SIZE_MAX {
                Ok(Some(length))
            } else {
                Err(invalid("the message is too long"))
            };
        }
    }
    Err(invalid("the length is not a valid varint"))
}

/// Decodes a frame.
///
/// # Errors
/// The bytes are not a message, or have more than [`MESSAGE_ITEMS_MAX`] items.
pub(super) fn decode(frame: Bytes) -> io::Result<Message> {
    if count_items(&frame).is_none_or(|items| items > MESSAGE_ITEMS_MAX) {
        return Err(invalid("malformed message, or too many items"));
    }
    Message::decode(frame).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The number of repeated items of a message and its wantlist; `None` if it is malformed.
fn count_items(message: &[u8]) -> Option<usize> {
    let mut items = 0usize;
    for_each_field(message, |tag, field| {
        items += 1;
        match tag {
            1 => for_each_field(field, |_, _| items += 1),
            _ => Some(()),
        }
    })?;
    Some(items)
}

/// Visits the fields of a protobuf message with their tag and content (empty for numbers).
fn for_each_field<R>(mut rest: &[u8], mut visit: impl FnMut(u32, &[u8]) -> R) -> Option<()>
where
    R: IntoContinue,
{
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest).ok()?;
        let length = match wire_type {
            WireType::Varint => {
                decode_varint(&mut rest).ok()?;
                0
            }
            WireType::LengthDelimited => usize::try_from(decode_varint(&mut rest).ok()?).ok()?,
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        let field = rest.get(..length)?;
        rest = &rest[length..];
        visit(tag, field).into_continue()?;
    }
    Some(())
}

/// The return types of a field visitor.
trait IntoContinue {
    fn into_continue(self) -> Option<()>;
}

impl IntoContinue for () {
    fn into_continue(self) -> Option<()> {
        Some(())
    }
}

impl IntoContinue for Option<()> {
    fn into_continue(self) -> Option<()> {
        self
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// The prefix of a block: everything of its CID except the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) version: Version,
    pub(super) codec: u64,
    pub(super) hash_code: u64,
}

impl Prefix {
    /// The prefix of every block of version 1.0.0.
    pub(super) const V0: Self = Self { version: Version::V0, codec: CODEC_DAG_PB, hash_code: SHA2_256 };

    /// Parses a prefix; `None` if it is malformed.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = unsigned_varint::decode::u64(bytes).ok()?;
        let (codec, rest) = unsigned_varint::decode::u64(rest).ok()?;
        let (hash_code, _length) = unsigned_varint::decode::u64(rest).ok()?;
        Some(Self { version: Version::try_from(version).ok()?, codec, hash_code })
    }

    /// Encodes the prefix of `cid`.
    fn encode(cid: &Cid, out: &mut impl BufMut) {
        let hash = cid.hash();
        for value in [u64::from(cid.version()), cid.codec(), hash.code(), u64::from(hash.size())] {
            encode_varint(value, out);
        }
    }

    fn encoded_len(cid: &Cid) -> usize {
        let hash = cid.hash();
        [u64::from(cid.version()), cid.codec(), hash.code(), u64::from(hash.size())]
            .into_iter()
            .map(encoded_len_varint)
            .sum()
    }
}

/// A message to send.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outgoing {
    pub(super) entries: Vec<Entry>,
    /// Whether `entries` replace the wantlist sent before.
    pub(super) full: bool,
    pub(super) blocks: Vec<Block>,
    pub(super) presences: Vec<Presence>,
    /// Bytes of blocks that are queued after this message.
    pub(super) pending_bytes: usize,
}

impl Outgoing {
    /// Whether the message is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && !self.full && self.blocks.is_empty() && self.presences.is_empty()
    }

    /// The bytes to write, in order, starting with the length. Large blocks are shared, not copied.
    pub(super) fn encode(self, version: ProtocolVersion) -> Vec<Bytes> {
        let head = Message {
            wantlist: (self.full || !self.entries.is_empty())
                .then_some(Wantlist { entries: self.entries, full: self.full }),
            presences: self.presences,
            pending_bytes: i32::try_from(self.pending_bytes).unwrap_or(i32::MAX),
            ..Message::default()
        };
        let blocks: usize = self.blocks.iter().map(|block| block_len(block, version)).sum();
        let total = head.encoded_len() + blocks;
        let mut frame = Frame::with_capacity(total.min(blocks / 4 + COPY_BELOW) + 16);
        encode_varint(total as u64, &mut frame.open);
        head.encode_raw(&mut frame.open);
        for block in self.blocks {
            encode_block(block, version, &mut frame);
        }
        frame.finish()
    }
}

/// A message being encoded: the finished parts, and the one that grows.
struct Frame {
    done: Vec<Bytes>,
    open: BytesMut,
}

impl Frame {
    fn with_capacity(capacity: usize) -> Self {
        Self { done: Vec::new(), open: BytesMut::with_capacity(capacity) }
    }

    fn push(&mut self, data: Bytes) {
        if data.len() < COPY_BELOW {
            self.open.extend_from_slice(&data);
        } else {
            self.done.push(self.open.split().freeze());
            self.done.push(data);
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.done.push(self.open.freeze());
        }
        self.done
    }
}

fn delimited_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

fn payload_len(block: &Block) -> usize {
    delimited_len(Prefix::encoded_len(block.cid())) + delimited_len(block.data().len())
}

fn block_len(block: &Block, version: ProtocolVersion) -> usize {
    match version {
        ProtocolVersion::V1_0 => delimited_len(block.data().len()),
        ProtocolVersion::V1_1 | ProtocolVersion::V1_2 => delimited_len(payload_len(block)),
    }
}

fn encode_block(block: Block, version: ProtocolVersion, frame: &mut Frame) {
    let open = &mut frame.open;
    if version == ProtocolVersion::V1_0 {
        encode_key(2, WireType::LengthDelimited, open);
    } else {
        encode_key(3, WireType::LengthDelimited, open);
        encode_varint(payload_len(&block) as u64, open);
        encode_key(1, WireType::LengthDelimited, open);
        encode_varint(Prefix::encoded_len(block.cid()) as u64, open);
        Prefix::encode(block.cid(), open);
        encode_key(2, WireType::LengthDelimited, open);
    }
    encode_varint(block.data().len() as u64, open);
    frame.push(block.into_parts().1);
}

// A block of the maximum size must fit into a message with its framing.
const _: () = assert!(BLOCK_SIZE_MAX + 1024 < MESSAGE_SIZE_MAX);

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::Cursor;
    use proptest::prelude::*;

    use super::*;

    fn block(version: Version, data: Vec<u8>) -> Block {
        let codec = if version == Version::V0 { CODEC_DAG_PB } else { 0x55 };
        Block::hash(version, codec, SHA2_256, data.into()).unwrap()
    }

    /// Reads a frame as a peer would.
    fn parse(bytes: &[u8]) -> io::Result<Message> {
        let mut cursor = Cursor::new(bytes);
        let length = block_on(read_length(&mut cursor))?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let at = usize::try_from(cursor.position()).unwrap();
        let frame = bytes.get(at..at + length).ok_or(io::ErrorKind::UnexpectedEof)?;
        assert_eq!(at + length, bytes.len(), "the length says where the message ends");
        decode(Bytes::copy_from_slice(frame))
    }

    fn any_bytes(max: usize) -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        (any_bytes(40), any::<i32>(), any::<bool>(), 0..2i32, any::<bool>()).prop_map(
            |(cid, priority, cancel, want_type, send_dont_have)| Entry {
                cid,
                priority,
                cancel,
                want_type,
                send_dont_have,
            },
        )
    }

    fn any_block() -> impl Strategy<Value = Block> {
        let sizes = prop_oneof![0..100usize, (COPY_BELOW - 2)..(COPY_BELOW + 2), Just(70_000)];
        (any::<bool>(), any::<u8>(), sizes)
            .prop_map(|(v0, byte, size)| block(if v0 { Version::V0 } else { Version::V1 }, vec![byte; size]))
    }

    proptest! {
        #[test]
        fn messages_survive_encoding_and_decoding(
            entries in proptest::collection::vec(any_entry(), 0..8),
            full in any::<bool>(),
            blocks in proptest::collection::vec(any_block(), 0..5),
            presences in proptest::collection::vec((any_bytes(40), 0..2i32), 0..5),
            pending in 0..i32::MAX,
            version in prop_oneof![Just(ProtocolVersion::V1_0), Just(ProtocolVersion::V1_1), Just(ProtocolVersion::V1_2)],
        ) {
            let presences: Vec<Presence> =
                presences.into_iter().map(|(cid, kind)| Presence { cid, kind }).collect();
            let outgoing = Outgoing {
                entries: entries.clone(),
                full,
                blocks: blocks.clone(),
                presences: presences.clone(),
                pending_bytes: usize::try_from(pending).unwrap(),
            };
            let message = parse(&outgoing.encode(version).concat()).unwrap();
            let wantlist = message.wantlist.unwrap_or_default();
            prop_assert_eq!((wantlist.entries, wantlist.full), (entries, full));
            prop_assert_eq!(message.presences, presences);
            prop_assert_eq!(message.pending_bytes, pending);
            if version == ProtocolVersion::V1_0 {
                let data: Vec<Bytes> = blocks.iter().map(|block| block.data().clone()).collect();
                prop_assert_eq!(message.blocks, data);
            } else {
                prop_assert_eq!(message.payload.len(), blocks.len());
                for (payload, block) in message.payload.into_iter().zip(blocks) {
                    let prefix = Prefix::parse(&payload.prefix).unwrap();
                    let again =
                        Block::hash(prefix.version, prefix.codec, prefix.hash_code, payload.data).unwrap();
                    prop_assert_eq!(again, block);
                }
            }
        }

        #[test]
        fn parser_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _bad = decode(bytes.clone().into());
            let _bad = Prefix::parse(&bytes);
            let _bad = block_on(read_length(&mut Cursor::new(bytes)));
        }

        #[test]
        fn decoding_a_damaged_message_does_not_panic(at in 0..200usize, byte in any::<u8>()) {
            let outgoing = Outgoing { blocks: vec![block(Version::V1, vec![7; 150])], ..Outgoing::default() };
            let mut bytes = outgoing.encode(ProtocolVersion::V1_2).concat();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _maybe = decode(bytes.into());
        }
    }

    #[test]
    fn large_block_is_not_copied() {
        let block = block(Version::V1, vec![1; 1 << 20]);
        let outgoing = Outgoing { blocks: vec![block.clone()], ..Outgoing::default() };
        let parts = outgoing.encode(ProtocolVersion::V1_2);
        assert!(parts.iter().any(|part| part.as_ptr() == block.data().as_ptr()));
    }

    #[test]
    fn message_with_too_many_items_is_refused_before_decoding() {
        // Field 3, length 0, again and again.
        let bytes = [0x1a, 0x00].repeat(MESSAGE_ITEMS_MAX + 1);
        assert!(decode(bytes.into()).is_err());
        // The same inside of a wantlist.
        let entries = [0x0a, 0x00].repeat(MESSAGE_ITEMS_MAX + 1);
        let mut bytes = BytesMut::new();
        encode_key(1, WireType::LengthDelimited, &mut bytes);
        encode_varint(entries.len() as u64, &mut bytes);
        bytes.extend_from_slice(&entries);
        assert!(decode(bytes.freeze()).is_err());
    }

    #[test]
    fn message_length_is_limited() {
        let length = |bytes: &[u8]| block_on(read_length(&mut Cursor::new(bytes)));
        assert_eq!(length(&[]).unwrap(), None);
        assert_eq!(length(&[0x80, 0x01]).unwrap(), Some(128));
        assert!(length(&[0x80]).is_err(), "cut off");
        assert!(length(&[0xff; 10]).is_err(), "no end");
        let mut bytes = Vec::new();
        encode_varint(MESSAGE_SIZE_MAX as u64 + 1, &mut bytes);
        assert!(length(&bytes).is_err(), "too long");
    }
}

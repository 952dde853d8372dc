//! The UnixFS message in the data field of a dag-pb node.

use bytes::Bytes;
use prost::Message as _;

use crate::Block;
use crate::dag::pb::PbNode;
use crate::dag::{DAG_PB, RAW};

pub(super) const TYPE_RAW: i32 = 0;
pub(super) const TYPE_DIRECTORY: i32 = 1;
pub(super) const TYPE_FILE: i32 = 2;
pub(super) const TYPE_SHARD: i32 = 5;

/// The multihash code of murmur3-x64-64, the hash function of sharded directories.
pub(super) const MURMUR3: u64 = 0x22;

/// The protobuf message `Data` of the spec, without fields that are not used here.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Data {
    #[prost(int32, required, tag = "1")]
    pub(super) kind: i32,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(super) data: Option<Bytes>,
    #[prost(uint64, optional, tag = "3")]
    pub(super) file_size: Option<u64>,
    #[prost(uint64, repeated, packed = "false", tag = "4")]
    pub(super) block_sizes: Vec<u64>,
    #[prost(uint64, optional, tag = "5")]
    pub(super) hash_type: Option<u64>,
    #[prost(uint64, optional, tag = "6")]
    pub(super) fanout: Option<u64>,
}

impl Data {
    /// The message of a file's node.
    pub(super) fn file(data: Option<Bytes>, file_size: u64, block_sizes: Vec<u64>) -> Self {
        Self { kind: TYPE_FILE, data, file_size: Some(file_size), block_sizes, ..Self::default() }
    }

    pub(super) fn directory() -> Self {
        Self { kind: TYPE_DIRECTORY, ..Self::default() }
    }

    /// The message of a shard whose children are at the places in `bitfield`.
    pub(super) fn shard(bitfield: Bytes, fanout: u64) -> Self {
        Self {
            kind: TYPE_SHARD,
            data: Some(bitfield),
            hash_type: Some(MURMUR3),
            fanout: Some(fanout),
            ..Self::default()
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// The message of a dag-pb node, if it has one.
    pub(super) fn of(node: &PbNode<'_>) -> Option<Self> {
        Self::decode(node.data?).ok()
    }
}

/// The type of a DAG, by its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File {
        /// The size of the content as the root claims it.
        size_bytes: u64,
    },
    /// A directory, plain or sharded.
    Directory,
    /// A symbolic link, metadata, or not UnixFS.
    Other,
}

/// The type of the DAG with this root, as far as the root alone shows it.
#[must_use]
pub fn kind(root: &Block) -> Kind {
    match root.cid().codec() {
        RAW => Kind::File { size_bytes: root.data().len() as u64 },
        DAG_PB => {
            let message = PbNode::decode(root.data()).ok().and_then(|node| Data::of(&node));
            match message {
                Some(Data { kind: TYPE_FILE | TYPE_RAW, file_size, data, .. }) => {
                    let inline = data.map_or(0, |data| data.len() as u64);
                    Kind::File { size_bytes: file_size.unwrap_or(inline) }
                }
                Some(Data { kind: TYPE_DIRECTORY | TYPE_SHARD, .. }) => Kind::Directory,
                Some(_) | None => Kind::Other,
            }
        }
        _ => Kind::Other,
    }
}

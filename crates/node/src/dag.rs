//! The links of a block.
//!
//! The input matches its CID but may be hostile: depth and number of links are bounded, there is no unbounded recursion
//! over nested input, and nothing panics. Everything that Kubo can traverse is supported. A block that cannot be decoded
//! is an error, because a DAG with an unknown part cannot be pinned.

mod cbor;
pub mod pb;

use cid::Cid;
use ipld_core::codec::Links;
use serde_ipld_dagjson::codec::DagJsonCodec;

use crate::Block;

/// Codec of blocks of plain bytes.
pub const RAW: u64 = 0x55;
/// Codec of dag-pb, which UnixFS uses.
pub const DAG_PB: u64 = 0x70;
/// Codec of dag-cbor.
pub const DAG_CBOR: u64 = 0x71;
/// Codec of dag-json.
pub const DAG_JSON: u64 = 0x0129;
/// Codec of plain CBOR, which has no links.
pub const CBOR: u64 = 0x51;
/// Codec of plain JSON, which has no links.
pub const JSON: u64 = 0x0200;

/// The maximum number of links of one block: more than a block of 2 MiB can have with 32-byte digests.
pub const LINKS_MAX: usize = 65_536;

/// The maximum nesting of a dag-cbor item. (The dag-json parser has a limit of 128.)
pub const DEPTH_MAX: usize = 1_024;

/// One link of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub cid: Cid,
    /// The size of the linked DAG in bytes as the block claims it (dag-pb's `Tsize`). Not verified.
    pub size_hint: Option<u64>,
}

/// Why the links of a block cannot be determined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DagError {
    /// The codec is not supported ([`is_supported_codec`]).
    #[error("codec {0:#x} is not supported")]
    UnknownCodec(u64),
    /// The bytes are not valid for the codec.
    #[error("the block cannot be decoded: {0}")]
    Malformed(&'static str),
    /// More than [`LINKS_MAX`] links.
    #[error("the block has more than {LINKS_MAX} links")]
    TooManyLinks,
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("the block is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
}

/// Whether the links of blocks of this codec can be determined.
#[must_use]
pub fn is_supported_codec(codec: u64) -> bool {
    matches!(codec, RAW | DAG_PB | DAG_CBOR | DAG_JSON | CBOR | JSON)
}

/// The links of a block in order of appearance, including repeated ones.
///
/// # Errors
/// Any [`DagError`]. All of them are permanent.
pub fn links(block: &Block) -> Result<Vec<Link>, DagError> {
    let data = block.data();
    match block.cid().codec() {
        RAW | CBOR | JSON => Ok(Vec::new()),
        DAG_PB => {
            let node = pb::PbNode::decode(data)?;
            Ok(node.links.iter().map(|link| Link { cid: link.cid, size_hint: link.tsize }).collect())
        }
        DAG_CBOR => cbor::links(data),
        DAG_JSON => {
            let cids = DagJsonCodec::links(data).map_err(|_| DagError::Malformed("dag-json"))?;
            let links: Vec<_> = cids.take(LINKS_MAX + 1).map(|cid| Link { cid, size_hint: None }).collect();
            if links.len() > LINKS_MAX { Err(DagError::TooManyLinks) } else { Ok(links) }
        }
        codec => Err(DagError::UnknownCodec(codec)),
    }
}

/// Parses a binary CID without trailing bytes.
fn exact_cid(bytes: &[u8]) -> Result<Cid, DagError> {
    let mut rest = bytes;
    let cid = Cid::read_bytes(&mut rest).map_err(|_| DagError::Malformed("CID of a link"))?;
    if rest.is_empty() { Ok(cid) } else { Err(DagError::Malformed("bytes after the CID of a link")) }
}

#[cfg(test)]
mod tests;

//! Blocks whose bytes are verified against their CID.
//!
//! [`Block`] has no constructor that accepts a CID and bytes without verification. Code that has one can store, serve or
//! decode it without a further check.

use bytes::Bytes;
use cid::{Cid, Version};
use multihash_codetable::{Code, Multihash, MultihashDigest};

/// The maximum size of a block in bytes: what every bitswap implementation can transfer.
pub const BLOCK_SIZE_MAX: usize = 2 * 1024 * 1024;

/// The multihash code of an identity CID, whose digest is the data itself.
const IDENTITY: u64 = 0x00;

/// The maximum size of an identity digest in bytes (like Kubo's `MaxIdentityDigestSize`).
pub const IDENTITY_SIZE_MAX: usize = 128;

/// Why bytes are not a valid block of a CID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The digest of the bytes is a different one.
    #[error("the bytes do not match {0}")]
    Mismatch(Cid),
    /// The hash function is not among sha2-256, sha2-512, blake2b-256 and blake3 (and identity).
    #[error("hash function {0:#x} is not supported")]
    UnknownHash(u64),
    /// More than [`BLOCK_SIZE_MAX`] bytes, or an identity CID over [`IDENTITY_SIZE_MAX`].
    #[error("a block of {0} bytes is too large")]
    TooLarge(usize),
    /// A CIDv0 that is not dag-pb with a 32-byte sha2-256.
    #[error("not a CIDv0")]
    NotV0,
}

/// Bytes and the CID against which they were verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    cid: Cid,
    data: Bytes,
}

impl Block {
    /// Verifies `data` against `cid`.
    ///
    /// # Errors
    /// Any [`BlockError`] but [`BlockError::NotV0`].
    pub fn verify(cid: Cid, data: Bytes) -> Result<Self, BlockError> {
        if data.len() > BLOCK_SIZE_MAX {
            return Err(BlockError::TooLarge(data.len()));
        }
        let hash = cid.hash();
        let matches = if hash.code() == IDENTITY {
            hash.digest() == data.as_ref()
        } else {
            digest(hash.code(), &data)?.digest() == hash.digest()
        };
        if matches { Ok(Self { cid, data }) } else { Err(BlockError::Mismatch(cid)) }
    }

    /// Hashes `data` and forms its CID, as the prefix of a bitswap block specifies.
    ///
    /// # Errors
    /// [`BlockError::UnknownHash`], [`BlockError::TooLarge`], [`BlockError::NotV0`].
    pub fn hash(version: Version, codec: u64, hash_code: u64, data: Bytes) -> Result<Self, BlockError> {
        if data.len() > BLOCK_SIZE_MAX {
            return Err(BlockError::TooLarge(data.len()));
        }
        let hash = digest(hash_code, &data)?;
        let cid = match version {
            Version::V0 => Cid::new_v0(hash).map_err(|_| BlockError::NotV0)?,
            Version::V1 => Cid::new_v1(codec, hash),
        };
        Ok(Self { cid, data })
    }

    /// The block that is contained in an identity CID; `None` for every other CID.
    #[must_use]
    pub fn inline(cid: &Cid) -> Option<Self> {
        (cid.hash().code() == IDENTITY)
            .then(|| Self { cid: *cid, data: Bytes::copy_from_slice(cid.hash().digest()) })
    }

    #[must_use]
    pub fn cid(&self) -> &Cid {
        &self.cid
    }

    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    #[must_use]
    pub fn into_parts(self) -> (Cid, Bytes) {
        (self.cid, self.data)
    }
}

/// Whether blocks with this multihash code can be verified.
#[must_use]
pub fn is_supported_hash(code: u64) -> bool {
    code == IDENTITY || function(code).is_ok()
}

/// Whether the digest has the full length of its hash function: no block matches a truncated one.
#[must_use]
pub(crate) fn is_whole_digest(hash: &cid::multihash::Multihash<64>) -> bool {
    match function(hash.code()) {
        Ok(Code::Sha2_512) => hash.size() == 64,
        Ok(_) => hash.size() == 32,
        Err(_) => hash.code() == IDENTITY,
    }
}

fn function(code: u64) -> Result<Code, BlockError> {
    match Code::try_from(code) {
        Ok(code @ (Code::Sha2_256 | Code::Sha2_512 | Code::Blake2b256 | Code::Blake3_256)) => Ok(code),
        _ => Err(BlockError::UnknownHash(code)),
    }
}

fn digest(code: u64, data: &[u8]) -> Result<Multihash, BlockError> {
    Ok(function(code)?.digest(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: u64 = 0x55;

    #[test]
    fn only_matching_bytes_become_a_block() {
        let block = Block::hash(Version::V1, RAW, 0x12, Bytes::from_static(b"hello")).unwrap();
        assert_eq!(block.cid().to_string(), "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq");
        assert!(Block::verify(*block.cid(), Bytes::from_static(b"hello")).is_ok());
        let wrong = Block::verify(*block.cid(), Bytes::from_static(b"hullo"));
        assert_eq!(wrong, Err(BlockError::Mismatch(*block.cid())));
    }

    #[test]
    fn every_supported_hash_function_verifies_its_blocks() {
        for code in [0x12, 0x13, 0xb220, 0x1e] {
            let block = Block::hash(Version::V1, RAW, code, Bytes::from_static(b"x")).unwrap();
            assert!(Block::verify(*block.cid(), Bytes::from_static(b"x")).is_ok(), "{code:#x}");
        }
        assert_eq!(
            Block::hash(Version::V1, RAW, 0x11, Bytes::new()),
            Err(BlockError::UnknownHash(0x11)),
            "sha1 is no proof"
        );
    }

    #[test]
    fn identity_cid_contains_its_block() {
        let cid = Cid::new_v1(RAW, Multihash::wrap(IDENTITY, b"tiny").unwrap());
        assert_eq!(Block::inline(&cid).unwrap().data().as_ref(), b"tiny");
        assert!(Block::verify(cid, Bytes::from_static(b"tiny")).is_ok());
        assert!(Block::verify(cid, Bytes::from_static(b"huge")).is_err());
    }

    #[test]
    fn oversized_block_is_refused_before_it_is_hashed() {
        let data = Bytes::from(vec![0; BLOCK_SIZE_MAX + 1]);
        assert_eq!(Block::hash(Version::V1, RAW, 0x12, data), Err(BlockError::TooLarge(BLOCK_SIZE_MAX + 1)));
    }
}

//! CAR files (<https://ipld.io/specs/transport/car/>).
//!
//! A CARv1 is a header and a sequence of sections; a section is a length, a CID and the block's bytes. A CARv2 wraps a
//! CARv1 with a header before it and an index after it. This module has the encoding that segments and the submodules
//! share: [`mod@export`] writes a DAG as a CARv1, [`mod@import`] imports the blocks of either version.

pub mod export;
pub mod import;
mod reader;

use std::io::{self, Read};

use cid::Cid;
use ipld_core::ipld::Ipld;
use unsigned_varint::encode;

use crate::block::BLOCK_SIZE_MAX;

pub use reader::{CarError, CarReader};

/// A CARv1 header with its length. Its only root is the empty identity CID, because the format requires a root and the
/// blocks of a segment have none in common.
pub const HEADER: &[u8; 26] = b"\x19\xa2\x65roots\x81\xd8\x2a\x45\x00\x01\x55\x00\x00\x67version\x01";

/// The maximum size of a header in bytes.
const HEADER_SIZE_MAX: u64 = 64 * 1024;

/// The maximum size of a binary CID: version, codec, hash code, digest length, and a digest of 64 bytes.
const CID_SIZE_MAX: u64 = 96;

/// A CARv1 header with these roots, with its length.
#[must_use]
pub fn header(roots: &[Cid]) -> Vec<u8> {
    let roots = Ipld::List(roots.iter().copied().map(Ipld::Link).collect());
    let fields = Ipld::Map([("roots".to_owned(), roots), ("version".to_owned(), Ipld::Integer(1))].into());
    // Lists, maps, links and small numbers can always be encoded.
    let bytes = serde_ipld_dagcbor::to_vec(&fields).unwrap_or_default();
    let mut buffer = encode::u64_buffer();
    let mut header = encode::u64(bytes.len() as u64, &mut buffer).to_vec();
    header.extend(bytes);
    header
}

/// The head of a section, which precedes the block's bytes: the section's length and the CID.
pub fn section_head(cid: &Cid, data_len: usize) -> Vec<u8> {
    let mut buffer = encode::u64_buffer();
    let length = encode::u64((cid.encoded_len() + data_len) as u64, &mut buffer);
    let mut head = Vec::with_capacity(length.len() + cid.encoded_len());
    head.extend_from_slice(length);
    head.extend(cid.to_bytes());
    head
}

/// The size of a binary CIDv1 of a raw block with sha2-256.
pub(crate) const ZEROS_CID_LEN: usize = 36;

/// The size of a number as a varint.
pub(crate) fn varint_len(number: usize) -> usize {
    encode::usize(number, &mut encode::usize_buffer()).len()
}

/// The head of a section as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SectionHead {
    /// The CID, not verified.
    pub cid: Cid,
    /// The size of the head.
    pub head_len: usize,
    /// The size of the block's bytes, which follow the head.
    pub data_len: usize,
}

/// The maximum size of a head: the length of a section with a block of [`BLOCK_SIZE_MAX`], and the CID.
pub const SECTION_HEAD_MAX: usize = 4 + CID_SIZE_MAX as usize;

/// Parses the head of a section at the start of `bytes`; `None` if there is no complete and plausible one.
#[must_use]
pub fn read_head(bytes: &[u8]) -> Option<SectionHead> {
    let (length, rest) = unsigned_varint::decode::u64(bytes).ok()?;
    if length > BLOCK_SIZE_MAX as u64 + CID_SIZE_MAX {
        return None;
    }
    let mut after = rest;
    let cid = Cid::read_bytes(&mut after).ok()?;
    let cid_len = rest.len() - after.len();
    let data_len = usize::try_from(length).ok()?.checked_sub(cid_len)?;
    Some(SectionHead { cid, head_len: bytes.len() - after.len(), data_len })
}

/// One block of a CAR, not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The CID, not verified.
    pub cid: Cid,
    /// The offset of the block's bytes from the start of the file.
    pub offset: u64,
    /// The block's bytes, which may not match the CID.
    pub data: Vec<u8>,
}

/// Reads the sections of a CARv1 one by one, with at most one in memory.
#[derive(Debug)]
pub struct Sections<R> {
    source: R,
    offset: u64,
}

impl<R: Read> Sections<R> {
    /// Reads the header, and ignores its roots.
    ///
    /// # Errors
    /// Errors of the source; [`io::ErrorKind::InvalidData`] if it is not a CAR.
    pub fn new(source: R) -> io::Result<Self> {
        let mut sections = Self { source, offset: 0 };
        let length = sections.length()?.ok_or_else(|| invalid("an empty file is no CAR"))?;
        if length > HEADER_SIZE_MAX {
            return Err(invalid("the CAR header is too long"));
        }
        sections.bytes(length)?;
        Ok(sections)
    }

    /// The next section; `None` at the end of the file.
    ///
    /// # Errors
    /// As for [`Self::new`]. After an error the rest cannot be read.
    pub fn next_section(&mut self) -> io::Result<Option<Section>> {
        let Some(length) = self.length()? else { return Ok(None) };
        if length > BLOCK_SIZE_MAX as u64 + CID_SIZE_MAX {
            return Err(invalid("a CAR section is too long"));
        }
        let start = self.offset;
        let mut bytes = self.bytes(length)?;
        let mut rest = bytes.as_slice();
        let cid = Cid::read_bytes(&mut rest).map_err(|_| invalid("a CAR section without a CID"))?;
        let head = bytes.len() - rest.len();
        bytes.drain(..head);
        Ok(Some(Section { cid, offset: start + head as u64, data: bytes }))
    }

    /// The next length; `None` at the end of the file.
    fn length(&mut self) -> io::Result<Option<u64>> {
        let mut number = 0_u64;
        for at in 0..9 {
            let mut byte = [0];
            if self.source.read(&mut byte)? == 0 {
                return if at == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            self.offset += 1;
            number |= u64::from(byte[0] & 0x7f) << (7 * at);
            if byte[0] & 0x80 == 0 {
                return Ok(Some(number));
            }
        }
        Err(invalid("a CAR length is too long"))
    }

    fn bytes(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self.source).take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += length;
        Ok(bytes)
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use cid::Version;
    use proptest::prelude::*;

    use super::*;
    use crate::Block;

    #[test]
    fn written_sections_are_read_back() {
        let mut file = HEADER.to_vec();
        let blocks: Vec<_> = [&b"one"[..], b"", b"three"]
            .map(|data| Block::hash(Version::V1, 0x55, 0x12, Bytes::from_static(data)).unwrap())
            .into();
        for block in &blocks {
            file.extend(section_head(block.cid(), block.data().len()));
            file.extend(block.data());
        }
        let mut sections = Sections::new(file.as_slice()).unwrap();
        for block in &blocks {
            let section = sections.next_section().unwrap().unwrap();
            assert_eq!((&section.cid, section.data.as_slice()), (block.cid(), block.data().as_ref()));
            assert!(file[section.offset as usize..].starts_with(block.data()));
        }
        assert_eq!(sections.next_section().unwrap(), None);
    }

    #[test]
    fn header_is_dag_cbor_with_one_root() {
        let header: ipld_core::ipld::Ipld = serde_ipld_dagcbor::from_slice(&HEADER[1..]).unwrap();
        let root: Cid = "bafkqaaa".parse().unwrap();
        assert_eq!(header, ipld_core::ipld!({"roots": [root], "version": 1}));
        assert_eq!(super::header(&[root]), HEADER);
    }

    proptest! {
        #[test]
        fn parser_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let file: Vec<u8> = HEADER.iter().copied().chain(bytes.iter().copied()).collect();
            for file in [&bytes, &file] {
                let Ok(mut sections) = Sections::new(file.as_slice()) else { continue };
                while let Ok(Some(_)) = sections.next_section() {}
            }
        }
    }
}

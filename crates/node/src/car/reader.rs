//! A streaming reader of CARv1 and CARv2 from an untrusted source.
//!
//! Memory is bounded by one header or one section. Of a CARv2, the inner CARv1 is read; the index is skipped, because all
//! blocks are read sequentially. Blocks are not verified here.

use std::io;

use bytes::{Bytes, BytesMut};
use cid::Cid;
use ipld_core::ipld::Ipld;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};

use super::{CID_SIZE_MAX, HEADER_SIZE_MAX};
use crate::block::BLOCK_SIZE_MAX;

/// Bytes of one read.
const READ_SIZE: usize = 256 * 1024;

/// The maximum size of a section: a block and a CID of maximum size.
const SECTION_SIZE_MAX: u64 = BLOCK_SIZE_MAX as u64 + CID_SIZE_MAX;

/// The end of the pragma of a CARv2, which has the form of a header with version 2.
const V2_PRAGMA_END: u64 = 11;
/// The end of the header of a CARv2; the inner CARv1 follows after it.
const V2_HEAD_END: u64 = V2_PRAGMA_END + 40;

/// Why a CAR cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CarError {
    /// Reading the source failed.
    #[error("reading the CAR failed: {0}")]
    Source(#[from] io::Error),
    /// The CAR is truncated.
    #[error("the CAR is cut off after {0} bytes")]
    CutOff(u64),
    /// The data is not a valid CAR.
    #[error("invalid CAR at byte {offset}: {reason}")]
    Malformed { offset: u64, reason: &'static str },
}

/// Reads the sections of a CAR one by one.
#[derive(Debug)]
pub struct CarReader<R> {
    source: BufReader<R>,
    roots: Vec<Cid>,
    offset: u64,
    /// The end of the inner CARv1 of a CARv2.
    end: Option<u64>,
}

impl<R: AsyncRead + Unpin> CarReader<R> {
    /// Reads the header, up to the first section.
    ///
    /// # Errors
    /// Any [`CarError`].
    pub async fn open(source: R) -> Result<Self, CarError> {
        let source = BufReader::with_capacity(READ_SIZE, source);
        let mut reader = Self { source, roots: Vec::new(), offset: 0, end: None };
        let mut version = reader.header().await?;
        if version == 2 {
            reader.enter().await?;
            version = reader.header().await?;
        }
        if version == 1 { Ok(reader) } else { Err(reader.malformed("the version is neither 1 nor 2")) }
    }

    /// The roots in the header.
    #[must_use]
    pub fn roots(&self) -> &[Cid] {
        &self.roots
    }

    /// The next block, not verified; `None` at the end.
    ///
    /// # Errors
    /// Any [`CarError`]. Nothing can be read after an error.
    pub async fn next_section(&mut self) -> Result<Option<(Cid, Bytes)>, CarError> {
        let Some(length) = self.length().await? else { return Ok(None) };
        if length > SECTION_SIZE_MAX {
            return Err(self.malformed("a block has more than 2 MiB"));
        }
        let mut section = self.bytes(length).await?;
        let mut rest = section.as_ref();
        let Ok(cid) = Cid::read_bytes(&mut rest) else {
            return Err(self.malformed("a block has no CID"));
        };
        let data = section.split_off(section.len() - rest.len());
        Ok(Some((cid, data)))
    }

    /// Reads and discards what follows the last section, such as the index of a CARv2.
    ///
    /// # Errors
    /// [`CarError::Source`].
    pub async fn drain(mut self) -> Result<(), CarError> {
        tokio::io::copy_buf(&mut self.source, &mut tokio::io::sink()).await?;
        Ok(())
    }

    /// Reads a header, and returns its version.
    async fn header(&mut self) -> Result<i128, CarError> {
        let Some(length) = self.length().await? else {
            return Err(self.malformed("the file is empty"));
        };
        if length > HEADER_SIZE_MAX {
            return Err(self.malformed("the header has more than 64 KiB"));
        }
        let bytes = self.bytes(length).await?;
        let Ok(Ipld::Map(mut fields)) = serde_ipld_dagcbor::from_slice(&bytes) else {
            return Err(self.malformed("the header is not a dag-cbor map"));
        };
        let Some(Ipld::Integer(version)) = fields.remove("version") else {
            return Err(self.malformed("the header has no version"));
        };
        self.roots = match fields.remove("roots") {
            Some(Ipld::List(roots)) => {
                let link = |root| if let Ipld::Link(cid) = root { Some(cid) } else { None };
                let links: Option<Vec<Cid>> = roots.into_iter().map(link).collect();
                links.ok_or_else(|| self.malformed("a root is not a CID"))?
            }
            None | Some(Ipld::Null) => Vec::new(),
            Some(_) => return Err(self.malformed("the roots are not a list")),
        };
        Ok(version)
    }

    /// Reads the header of a CARv2, and skips to the inner CARv1.
    async fn enter(&mut self) -> Result<(), CarError> {
        let is_pragma = self.offset == V2_PRAGMA_END;
        let head = self.bytes(V2_HEAD_END - V2_PRAGMA_END).await?;
        let number = |at: usize| {
            let bytes = head.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_le_bytes)
        };
        // Characteristics (16 bytes), data offset, data size, index offset.
        let (start, size) = (number(16), number(24));
        let end = start.checked_add(size);
        let (true, Some(end)) = (is_pragma && start >= V2_HEAD_END && size > 0, end) else {
            return Err(self.malformed("the header of the CARv2 is invalid or unfinished"));
        };
        let mut padding = (&mut self.source).take(start - self.offset);
        self.offset += tokio::io::copy_buf(&mut padding, &mut tokio::io::sink()).await?;
        if self.offset < start {
            return Err(CarError::CutOff(self.offset));
        }
        self.end = Some(end);
        Ok(())
    }

    /// The next length; `None` at the end of the CAR.
    async fn length(&mut self) -> Result<Option<u64>, CarError> {
        let mut number = 0_u64;
        for at in 0..9 {
            if at == 0 && self.end == Some(self.offset) {
                return Ok(None);
            }
            let mut byte = [0];
            if self.source.read(&mut byte).await? == 0 {
                let is_end = at == 0 && self.end.is_none();
                return if is_end { Ok(None) } else { Err(CarError::CutOff(self.offset)) };
            }
            self.offset += 1;
            number |= u64::from(byte[0] & 0x7f) << (7 * at);
            if byte[0] & 0x80 == 0 {
                return Ok(Some(number));
            }
        }
        Err(self.malformed("a length is too long"))
    }

    /// Reads this many bytes. The caller has checked the length.
    async fn bytes(&mut self, length: u64) -> Result<Bytes, CarError> {
        if self.end.is_some_and(|end| end - self.offset.min(end) < length) {
            return Err(self.malformed("a block extends beyond the end of the inner CARv1"));
        }
        let mut bytes = BytesMut::with_capacity(usize::try_from(length).unwrap_or(0));
        let mut part = (&mut self.source).take(length);
        while part.read_buf(&mut bytes).await? > 0 {}
        self.offset += bytes.len() as u64;
        if bytes.len() as u64 == length { Ok(bytes.freeze()) } else { Err(CarError::CutOff(self.offset)) }
    }

    fn malformed(&self, reason: &'static str) -> CarError {
        CarError::Malformed { offset: self.offset, reason }
    }
}

#[cfg(test)]
mod tests {
    use cid::Version;
    use proptest::prelude::*;

    use super::*;
    use crate::Block;
    use crate::car::{header, section_head};

    fn block(text: &'static str) -> Block {
        Block::hash(Version::V1, 0x55, 0x12, Bytes::from_static(text.as_bytes())).unwrap()
    }

    fn v1(roots: &[Cid], blocks: &[Block]) -> Vec<u8> {
        let mut car = header(roots);
        for block in blocks {
            car.extend(section_head(block.cid(), block.data().len()));
            car.extend(block.data());
        }
        car
    }

    fn v2(inside: &[u8], padding: usize, index: &[u8]) -> Vec<u8> {
        let mut car = b"\x0a\xa1\x67version\x02".to_vec();
        car.extend([0; 16]);
        let start = 51 + padding as u64;
        car.extend(start.to_le_bytes());
        car.extend((inside.len() as u64).to_le_bytes());
        car.extend((start + inside.len() as u64).to_le_bytes());
        car.extend(vec![0; padding]);
        car.extend(inside);
        car.extend(index);
        car
    }

    async fn read(car: &[u8]) -> Result<(Vec<Cid>, Vec<(Cid, Bytes)>), CarError> {
        let mut reader = CarReader::open(car).await?;
        let mut sections = Vec::new();
        while let Some(section) = reader.next_section().await? {
            sections.push(section);
        }
        let roots = reader.roots().to_vec();
        reader.drain().await?;
        Ok((roots, sections))
    }

    #[tokio::test]
    async fn both_versions_yield_the_same_blocks() {
        let blocks = ["one", "", "three"].map(block);
        let roots = [*blocks[0].cid(), *blocks[2].cid()];
        let expected: Vec<_> = blocks.iter().cloned().map(Block::into_parts).collect();
        let plain = v1(&roots, &blocks);
        for car in [plain.clone(), v2(&plain, 0, b""), v2(&plain, 7, b"an index")] {
            let (found, sections) = read(&car).await.unwrap();
            assert_eq!((found.as_slice(), &sections), (&roots[..], &expected));
        }
    }

    #[tokio::test]
    async fn truncated_car_is_refused() {
        let blocks = ["one", "two"].map(block);
        let car = v1(&[*blocks[0].cid()], &blocks);
        let ends = [car.len(), car.len() - 40, car.len() - 80];
        for length in 0..=car.len() {
            let outcome = read(&car[..length]).await;
            assert_eq!(outcome.is_ok(), ends.contains(&length), "{length} of {}: {outcome:?}", car.len());
        }
        let car = v2(&car, 3, b"");
        for length in 0..car.len() {
            assert!(read(&car[..length]).await.is_err(), "{length} of {}", car.len());
        }
    }

    #[tokio::test]
    async fn invalid_lengths_and_headers_are_refused() {
        let good = v1(&[], &[block("one")]);
        let long = [&header(&[])[..], b"\xff\xff\xff\xff\x7f"].concat();
        let endless = [&header(&[])[..], &[0xff; 20]].concat();
        let headed = b"\xff\xff\xff\x7f".to_vec();
        let no_cid = [&header(&[])[..], b"\x03abc"].concat();
        let v3 = b"\x0a\xa1\x67version\x03".to_vec();
        let twice = v2(&v2(&good, 0, b""), 0, b"");
        let mut early = v2(&good, 0, b"");
        early[27] = 10;
        let mut unfinished = v2(&good, 0, b"");
        unfinished[35..43].fill(0);
        let mut overflow = v2(&good, 0, b"");
        overflow[35..43].fill(0xff);
        for car in
            [long, endless, headed, no_cid, v3, twice, early, unfinished, overflow, b"\x01\xf6".to_vec()]
        {
            let outcome = read(&car).await;
            assert!(matches!(outcome, Err(CarError::Malformed { .. })), "{outcome:?}");
        }
    }

    proptest! {
        #[test]
        fn reader_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let after_header = [&header(&[])[..], &bytes].concat();
            for car in [bytes.clone(), after_header.clone(), v2(&bytes, 0, b""), v2(&after_header, 1, &bytes)] {
                let _ = runtime.block_on(read(&car));
            }
        }
    }
}

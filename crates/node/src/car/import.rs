//! Imports the blocks of a CAR, and verifies each of them.

use std::io;

use bytes::Bytes;
use cid::Cid;
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use tokio::io::AsyncRead;
use tokio::task::JoinHandle;

use super::reader::{CarError, CarReader};
use crate::{Block, BlockError, Blocks, BlocksError, HoldId};

/// Bytes of a batch of blocks that are verified together: passing single small blocks to another thread would cost more
/// than hashing them.
const BATCH_BYTES: usize = 1 << 20;
/// Blocks of a batch.
const BATCH_BLOCKS: usize = 1_024;
/// Batches that are verified while the next one is read.
const VERIFYING_MAX: usize = 3;

/// The result of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedCar {
    /// The roots in the header.
    pub roots: Vec<Cid>,
    /// The number of blocks, including repeated ones.
    pub blocks: u64,
    /// The bytes of these blocks.
    pub bytes: u64,
}

/// Why a CAR could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportCarError {
    /// Reading the source failed.
    #[error("reading the CAR failed: {0}")]
    Source(io::Error),
    /// The CAR is truncated or malformed.
    #[error("{0}")]
    Car(CarError),
    /// The bytes of a block do not match its CID.
    #[error("the CAR has an invalid block {cid}: {reason}")]
    Block { cid: Cid, reason: String },
    /// The distinct blocks exceed the limit.
    #[error("the CAR has more than {0} bytes of blocks")]
    OverLimit(u64),
    /// The block store failed.
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    /// The runtime is shutting down.
    #[error("the import was stopped")]
    Stopped,
}

impl From<CarError> for ImportCarError {
    fn from(error: CarError) -> Self {
        match error {
            CarError::Source(error) => Self::Source(error),
            CarError::CutOff(_) | CarError::Malformed { .. } => Self::Car(error),
        }
    }
}

type Batch = Vec<(Cid, Bytes)>;

/// Reads a CAR to the end of its source and puts every block into `hold`. The caller commits the hold, or releases it if
/// the import fails or is dropped. The distinct blocks of the hold may have at most `bytes_max` bytes. Uses a few MiB of
/// memory, independent of the input.
///
/// # Errors
/// Any [`ImportCarError`]. The hold then has a part of the blocks.
pub async fn import_car(
    source: impl AsyncRead + Send + Unpin,
    bytes_max: u64,
    blocks: &dyn Blocks,
    hold: HoldId,
) -> Result<ImportedCar, ImportCarError> {
    let mut reader = CarReader::open(source).await?;
    let mut imported = ImportedCar { roots: reader.roots().to_vec(), blocks: 0, bytes: 0 };
    let mut verifying: FuturesOrdered<JoinHandle<Result<Vec<Block>, ImportCarError>>> = FuturesOrdered::new();
    loop {
        let batch = batch(&mut reader).await?;
        let is_last = batch.is_empty();
        imported.blocks += batch.len() as u64;
        imported.bytes += batch.iter().map(|(_, data)| data.len() as u64).sum::<u64>();
        if !is_last {
            verifying.push_back(tokio::task::spawn_blocking(move || verify(batch)));
        }
        while verifying.len() > if is_last { 0 } else { VERIFYING_MAX } {
            let Some(verified) = verifying.next().await else { break };
            for block in verified.map_err(|_| ImportCarError::Stopped)?? {
                blocks.put(hold, block).await?;
            }
            if blocks.stats(hold)?.bytes > bytes_max {
                return Err(ImportCarError::OverLimit(bytes_max));
            }
        }
        if is_last {
            break;
        }
    }
    reader.drain().await?;
    Ok(imported)
}

/// The next batch; empty at the end.
async fn batch<R: AsyncRead + Unpin>(reader: &mut CarReader<R>) -> Result<Batch, CarError> {
    let mut batch = Batch::new();
    let mut bytes = 0;
    while bytes < BATCH_BYTES && batch.len() < BATCH_BLOCKS {
        let Some((cid, data)) = reader.next_section().await? else { break };
        bytes += data.len();
        batch.push((cid, data));
    }
    Ok(batch)
}

fn verify(batch: Batch) -> Result<Vec<Block>, ImportCarError> {
    batch.into_iter().map(|(cid, data)| verified(cid, data)).collect()
}

/// Verifies a block of a CAR.
///
/// # Errors
/// [`ImportCarError::Block`].
pub fn verified(cid: Cid, data: Bytes) -> Result<Block, ImportCarError> {
    Block::verify(cid, data).map_err(|error| {
        let reason = match error {
            BlockError::Mismatch(_) => "its bytes do not match".to_owned(),
            BlockError::UnknownHash(_) | BlockError::TooLarge(_) | BlockError::NotV0 => error.to_string(),
        };
        ImportCarError::Block { cid, reason }
    })
}

#[cfg(test)]
mod tests {
    use cid::Version;

    use super::*;
    use crate::blocks::MemoryBlocks;
    use crate::car::{header, section_head};
    use crate::{HoldName, HoldStats};

    fn block(number: u32, length: usize) -> Block {
        let data: Vec<u8> = number.to_le_bytes().into_iter().cycle().take(length).collect();
        Block::hash(Version::V1, 0x55, 0x12, data.into()).unwrap()
    }

    fn car<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> Vec<u8> {
        let mut car = header(&[]);
        for block in blocks {
            car.extend(section_head(block.cid(), block.data().len()));
            car.extend(block.data());
        }
        car
    }

    async fn import(car: &[u8], bytes_max: u64) -> (Result<ImportedCar, ImportCarError>, HoldStats) {
        let blocks = MemoryBlocks::new();
        let hold = blocks.open(&HoldName::parse("upload/1").unwrap()).unwrap();
        let outcome = import_car(car, bytes_max, &blocks, hold).await;
        (outcome, blocks.commit(hold).await.unwrap())
    }

    #[tokio::test]
    async fn repeated_blocks_are_stored_once() {
        // More blocks than the concurrent batches have, and some twice.
        let blocks: Vec<Block> = (0..9_000).map(|number| block(number % 8_000, 900)).collect();
        let (imported, held) = import(&car(&blocks), u64::MAX).await;
        let imported = imported.unwrap();
        assert_eq!((imported.blocks, imported.bytes), (9_000, 9_000 * 900));
        assert_eq!(held, HoldStats { blocks: 8_000, bytes: 8_000 * 900 });
    }

    #[tokio::test]
    async fn flipped_bit_is_detected() {
        let mut car = car(&[block(1, 1_000), block(2, 1_000)]);
        let last = car.len() - 1;
        car[last] ^= 1;
        let (imported, _) = import(&car, u64::MAX).await;
        let Err(ImportCarError::Block { cid, .. }) = imported else { panic!("{imported:?}") };
        assert_eq!(cid, *block(2, 1_000).cid());
    }

    #[tokio::test]
    async fn limit_counts_distinct_blocks() {
        let ten = block(1, 10);
        assert!(import(&car([&ten, &ten]), 10).await.0.is_ok());
        let (imported, _) = import(&car([&ten, &block(2, 1)]), 10).await;
        assert!(matches!(imported, Err(ImportCarError::OverLimit(10))), "{imported:?}");
    }
}

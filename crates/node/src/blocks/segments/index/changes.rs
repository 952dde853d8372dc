//! A batch of changes to the index.

use cid::multihash::Multihash;
use fjall::OwnedWriteBatch;

use super::Tables;
use super::record::{Damage, Edge, HoldRecord, HoldTotals, Location, SegmentRecord, Stored, pair};
use crate::blocks::HoldName;

/// An atomic batch. A key must not be changed twice in one batch.
pub(crate) struct Changes<'a> {
    tables: &'a Tables,
    batch: OwnedWriteBatch,
}

impl<'a> Changes<'a> {
    pub(super) fn new(tables: &'a Tables, batch: OwnedWriteBatch) -> Self {
        Self { tables, batch }
    }

    pub(super) fn commit(self) -> fjall::Result<()> {
        self.batch.commit()
    }

    pub(crate) fn put_block(&mut self, hash: &Multihash<64>, stored: &Stored) {
        self.batch.insert(&self.tables.blocks, hash.to_bytes(), stored.encode());
    }

    pub(crate) fn remove_block(&mut self, hash: &Multihash<64>) {
        self.batch.remove(&self.tables.blocks, hash.to_bytes());
    }

    pub(crate) fn put_edge(&mut self, edge: &Edge) {
        let value = [&edge.length.to_be_bytes()[..], &edge.hash.to_bytes()].concat();
        self.batch.insert(&self.tables.hold_blocks, pair(edge.hold, edge.block), value);
        self.batch.insert(&self.tables.block_holds, pair(edge.block, edge.hold), []);
    }

    pub(crate) fn remove_edge(&mut self, edge: &Edge) {
        self.batch.remove(&self.tables.hold_blocks, pair(edge.hold, edge.block));
        self.batch.remove(&self.tables.block_holds, pair(edge.block, edge.hold));
    }

    pub(crate) fn put_hold(&mut self, id: u64, record: &HoldRecord) {
        self.batch.insert(&self.tables.holds, id.to_be_bytes(), record.encode());
    }

    pub(crate) fn remove_hold(&mut self, id: u64) {
        self.batch.remove(&self.tables.holds, id.to_be_bytes());
    }

    pub(crate) fn name_hold(&mut self, name: &HoldName, id: Option<u64>) {
        match id {
            Some(id) => self.batch.insert(&self.tables.names, name.as_str(), id.to_be_bytes()),
            None => self.batch.remove(&self.tables.names, name.as_str()),
        }
    }

    pub(crate) fn put_releasing(&mut self, id: u64) {
        self.batch.insert(&self.tables.releasing, id.to_be_bytes(), []);
    }

    pub(crate) fn remove_releasing(&mut self, id: u64) {
        self.batch.remove(&self.tables.releasing, id.to_be_bytes());
    }

    pub(crate) fn put_dead(&mut self, location: &Location) {
        let mut value = location.length.to_be_bytes().to_vec();
        value.push(location.head);
        self.batch.insert(&self.tables.dead, location.key(), value);
    }

    pub(crate) fn remove_dead(&mut self, location: &Location) {
        self.batch.remove(&self.tables.dead, location.key());
    }

    pub(crate) fn put_segment(&mut self, id: u32, record: &SegmentRecord) {
        self.batch.insert(&self.tables.segments, id.to_be_bytes(), record.encode());
    }

    pub(crate) fn remove_segment(&mut self, id: u32) {
        self.batch.remove(&self.tables.segments, id.to_be_bytes());
    }

    pub(crate) fn put_damaged(&mut self, hash: &Multihash<64>, damage: &Damage) {
        self.batch.insert(&self.tables.damaged, hash.to_bytes(), damage.encode());
    }

    pub(crate) fn remove_damaged(&mut self, hash: &Multihash<64>) {
        self.batch.remove(&self.tables.damaged, hash.to_bytes());
    }

    pub(crate) fn set_next_segment(&mut self, id: u32) {
        self.batch.insert(&self.tables.meta, "next_segment", id.to_be_bytes());
    }

    pub(crate) fn set_next_block(&mut self, id: u64) {
        self.batch.insert(&self.tables.meta, "next_block", id.to_be_bytes());
    }

    pub(crate) fn set_hold_totals(&mut self, held: &HoldTotals) {
        self.batch.insert(&self.tables.meta, "hold_totals", held.encode());
    }

    pub(crate) fn set_scrubbed(&mut self, last: Option<&Multihash<64>>, began_ms: u64) {
        match last {
            Some(last) => {
                let value = [&began_ms.to_be_bytes()[..], &last.to_bytes()].concat();
                self.batch.insert(&self.tables.meta, "scrubbed", value);
            }
            None => self.batch.remove(&self.tables.meta, "scrubbed"),
        }
    }
}

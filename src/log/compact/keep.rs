//! Which records stay, batch by batch. Pure.
//!
//! A record stays if no later one of its key is known. Then:
//!
//! - *Tombstones* (records without a value) stay until their batch's delete horizon; a batch with tombstones that has none
//!   gets one, now + `delete.retention.ms` (KIP-534).
//! - *Records without a key* go, as in Kafka: they are from before the topic was compacted.
//! - *Batches without records* go, but not the last one of an idempotent producer, whose sequence a retry is recognised by, nor
//!   the last one of a new segment: so that a segment ends where the next one begins, and a gap between segments stays what
//!   recovery takes it for.
//! - *Transactional batches*: what later records outside transactions supersede goes. Their own records supersede nothing,
//!   since here nobody knows whether they were committed, and markers stay. (Kafka removes the records of aborted
//!   transactions and, in the end, the markers. Corelog writes none; a directory of Kafka's may have them.)

use super::map::KeyMap;
use crate::base::ids::Offset;
use crate::record::batch::BatchHeader;
use crate::record::compression::CompressionError;
use crate::record::records::RecordsError;
use crate::record::rewrite::{RawRecord, RawRecords, uncompressed, with_records, without_records};
use std::collections::HashMap;
use std::hash::RandomState;

/// The last batch of each idempotent producer that may still send: by producer id, its last offset.
pub type LastBatches = HashMap<i64, Offset>;

/// Why a batch can be neither read nor rewritten. It is damage, whatever its CRC says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecords {
    #[error(transparent)]
    Unreadable(#[from] RecordsError),
    #[error("what is left of it: {0}")]
    Unwritable(#[from] CompressionError),
}

/// The keys of the dirty part of a log, as far as the map holds them.
pub struct Keys {
    map: KeyMap,
    from: Offset,
    /// All records below are in the map.
    end: Offset,
    is_full: bool,
    scratch: Vec<u8>,
}

/// What becomes of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    Whole,
    Rewritten(Vec<u8>),
    Nothing,
}

/// Decides for one pass.
pub struct Keeper {
    keys: Keys,
    last_batches: LastBatches,
    now_ms: i64,
    horizon_ms: i64,
    pub records_read: u64,
    pub records_kept: u64,
}

impl Keys {
    /// None yet; the dirty part begins at `from`. `map_bytes` and `load_factor` bound the memory, and `records_max` the need.
    pub fn new(from: Offset, (map_bytes, load_factor): (u64, f64), records_max: u64) -> Keys {
        let seeds = [RandomState::new(), RandomState::new()];
        let map = KeyMap::new(map_bytes, load_factor, records_max, seeds);
        Keys { map, from, end: from, is_full: false, scratch: Vec::new() }
    }

    /// Notes a batch's keys. Batches come in the order of the log. False: the map is full, and no more are wanted.
    pub fn note(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<bool, BadRecords> {
        if self.is_full || header.next_offset() <= self.from {
            return Ok(!self.is_full);
        }
        if !header.is_control() && !header.is_transactional() {
            let body = uncompressed(header, batch, &mut self.scratch)?;
            let mut records = RawRecords::new(header, body)?;
            while let Some(record) = records.next()? {
                let offset = header.base_offset + i64::from(record.offset_delta);
                let Some(key) = record.key.filter(|_| offset >= self.from) else { continue };
                if !self.map.put(key, offset) {
                    self.is_full = true;
                    return Ok(false);
                }
                self.end = offset + 1;
            }
        }
        self.end = header.next_offset();
        Ok(true)
    }

    /// All batches below `next` were noted: offsets that no batch has are no reason to come back.
    pub fn segment_ended(&mut self, next: Offset) {
        if !self.is_full {
            self.end = self.end.max(next);
        }
    }

    /// Everything in the dirty part below is in the map: the next pass begins here.
    pub fn end(&self) -> Offset {
        self.end
    }

    pub fn utilization(&self) -> f64 {
        self.map.utilization()
    }
}

impl Keeper {
    pub fn new(keys: Keys, last_batches: LastBatches, (now_ms, delete_retention_ms): (i64, i64)) -> Keeper {
        let horizon_ms = now_ms.saturating_add(delete_retention_ms);
        Keeper { keys, last_batches, now_ms, horizon_ms, records_read: 0, records_kept: 0 }
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What stays of a batch. `is_last` of its new segment.
    pub fn keep(&mut self, header: &BatchHeader, batch: &[u8], is_last: bool) -> Result<Kept, BadRecords> {
        if header.is_control() {
            return Ok(Kept::Whole);
        }
        let mut scratch = std::mem::take(&mut self.keys.scratch);
        let kept = self.keep_records(header, batch, &mut scratch);
        self.keys.scratch = scratch;
        match kept? {
            Some(kept) => Ok(kept),
            None if is_last || self.is_last_of_producer(header) => match header.record_count {
                0 => Ok(Kept::Whole),
                _ => Ok(Kept::Rewritten(without_records(header))),
            },
            None => Ok(Kept::Nothing),
        }
    }

    /// None: no record stays.
    fn keep_records(
        &mut self,
        header: &BatchHeader,
        batch: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<Option<Kept>, BadRecords> {
        let body = uncompressed(header, batch, scratch)?;
        let mut records = RawRecords::new(header, body)?;
        let mut kept = Vec::new();
        while let Some(record) = records.next()? {
            self.records_read += 1;
            if self.stays(header, &record) {
                kept.push(record);
            }
        }
        self.records_kept += kept.len() as u64;
        if kept.is_empty() {
            return Ok(None);
        }
        let waits = !header.is_transactional() && !header.has_delete_horizon();
        let wants_horizon = waits && kept.iter().any(|record| !record.has_value);
        if kept.len() as i64 == i64::from(header.record_count) && !wants_horizon {
            return Ok(Some(Kept::Whole));
        }
        Ok(Some(Kept::Rewritten(with_records(header, &kept, wants_horizon.then_some(self.horizon_ms))?)))
    }

    fn stays(&self, header: &BatchHeader, record: &RawRecord<'_>) -> bool {
        let offset = header.base_offset + i64::from(record.offset_delta);
        if offset >= self.keys.end {
            return true;
        }
        let Some(key) = record.key else { return header.is_transactional() };
        if self.keys.map.get(key).is_some_and(|latest| latest > offset) {
            return false;
        }
        let is_over = header.has_delete_horizon() && header.base_timestamp <= self.now_ms;
        record.has_value || header.is_transactional() || !is_over
    }

    fn is_last_of_producer(&self, header: &BatchHeader) -> bool {
        header.has_producer_id() && self.last_batches.get(&header.producer_id) == Some(&header.last_offset())
    }
}

//! Batches for tests: what admission would hand to a log.

use crate::base::ids::{LeaderEpoch, Offset};
use crate::record::batch::BatchHeader;
use crate::record::builder::BatchBuilder;
use crate::record::compression::Compression;
use bytes::Bytes;

/// A batch to build; every record has the same timestamp.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    pub records: usize,
    /// Bytes of each record's value.
    pub value_bytes: usize,
    pub timestamp_ms: i64,
    /// Producer id, epoch and first sequence.
    pub producer: Option<(i64, i16, i32)>,
    /// Where it lies, for batches that are written without a leader.
    pub base: Offset,
}

impl Default for Batch {
    fn default() -> Batch {
        Batch { records: 1, value_bytes: 20, timestamp_ms: 0, producer: None, base: Offset(0) }
    }
}

impl Batch {
    pub fn build(&self) -> (BatchHeader, Bytes) {
        let mut builder = BatchBuilder::new(Compression::NONE).placed(self.base, LeaderEpoch(0));
        if let Some((id, epoch, sequence)) = self.producer {
            builder = builder.producer(id, epoch, sequence);
        }
        let value = vec![b'v'; self.value_bytes];
        for _ in 0..self.records {
            builder.push(self.timestamp_ms, None, Some(&value), &[]).expect("small enough");
        }
        let bytes = builder.build().expect("has records");
        (BatchHeader::parse(&bytes).expect("just built"), bytes)
    }
}

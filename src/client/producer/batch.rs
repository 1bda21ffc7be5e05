//! A batch on its way: what it holds, which input lines it came from, and how it is cut when a broker refuses it.

use super::NewRecord;
use crate::record::batch::{BatchHeader, NO_SEQUENCE, crc32c};
use crate::record::builder::{BatchBuilder, BuildError, HeaderRef};
use crate::record::compression::Compression;
use crate::record::records::{Records, RecordsError};
use bytes::{Bytes, BytesMut};

/// Who a batch says it is from (KIP-98), so that the broker recognises what it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub producer_id: i64,
    pub epoch: i16,
}

/// Records of one partition, encoded, until they are acknowledged or given up.
#[derive(Clone, Debug)]
pub struct Batch {
    pub partition: i32,
    /// The input's line of each record, in order: what names a record to the operator.
    pub lines: Vec<u64>,
    pub bytes: Bytes,
    /// Keys and values before encoding.
    pub payload_bytes: usize,
    pub created_ms: i64,
    pub attempts: u32,
    /// How often it got another producer id after the broker did not know its sequence.
    pub identity_changes: u32,
    /// Whether identity and sequence are written into `bytes`.
    pub stamped: bool,
}

/// A batch that still takes records.
#[derive(Debug)]
pub struct OpenBatch {
    builder: BatchBuilder,
    lines: Vec<u64>,
    payload_bytes: usize,
    created_ms: i64,
}

/// Why an own batch could not be cut; only a defect of ours makes it happen.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    #[error(transparent)]
    Read(#[from] RecordsError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("{0}")]
    Header(#[from] crate::record::batch::BatchError),
}

impl OpenBatch {
    pub fn new(compression: Compression, now_ms: i64) -> OpenBatch {
        OpenBatch { builder: BatchBuilder::new(compression), lines: Vec::new(), payload_bytes: 0, created_ms: now_ms }
    }

    pub fn push(&mut self, record: &NewRecord) -> Result<(), BuildError> {
        let headers: Vec<HeaderRef> = record.headers.iter().map(|(k, v)| (k.as_str(), v.as_deref())).collect();
        self.builder.push(record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), &headers)?;
        self.lines.push(record.line);
        self.payload_bytes += record.payload_bytes();
        Ok(())
    }

    pub fn encoded_bytes(&self) -> usize {
        self.builder.uncompressed_len()
    }

    pub fn created_ms(&self) -> i64 {
        self.created_ms
    }

    /// Closes the batch: compresses and encodes it.
    pub fn seal(self, partition: i32) -> Result<Batch, BuildError> {
        Ok(Batch {
            partition,
            lines: self.lines,
            bytes: self.builder.build()?,
            payload_bytes: self.payload_bytes,
            created_ms: self.created_ms,
            attempts: 0,
            identity_changes: 0,
            stamped: false,
        })
    }
}

impl Batch {
    pub fn records(&self) -> i32 {
        self.lines.len() as i32
    }

    /// Where the batch stands among those of its partition: by its first input line.
    pub fn first_line(&self) -> u64 {
        self.lines.first().copied().unwrap_or(0)
    }

    /// Writes producer id, epoch and first sequence into the header, and the CRC over them.
    pub fn stamp(&mut self, identity: Identity, base_sequence: i32) {
        self.rewrite_header(|header| {
            header.producer_id = identity.producer_id;
            header.producer_epoch = identity.epoch;
            header.base_sequence = base_sequence;
        });
        self.stamped = true;
    }

    /// Cuts the batch in two, for a broker that found it too large; sequences stay as they were. A batch of one record
    /// cannot be cut and comes back whole, alone.
    pub fn split(&self, compression: Compression) -> Result<Vec<Batch>, CutError> {
        let half = self.lines.len() / 2;
        if half == 0 {
            return Ok(vec![self.clone()]);
        }
        let (left, _) = self.filtered(compression, |index| index < half)?;
        let (right, _) = self.filtered(compression, |index| index >= half)?;
        let header = BatchHeader::parse(&self.bytes)?;
        let mut parts: Vec<Batch> = [left, right].into_iter().flatten().collect();
        if self.stamped && header.base_sequence != NO_SEQUENCE {
            let identity = Identity { producer_id: header.producer_id, epoch: header.producer_epoch };
            let mut sequence = header.base_sequence;
            for part in &mut parts {
                part.stamp(identity, sequence);
                sequence = crate::record::batch::increment_sequence(sequence, part.records());
            }
        }
        Ok(parts)
    }

    /// The batch without these records (by index), and the lines left out. None if nothing remains.
    pub fn without(&self, compression: Compression, refused: &[i32]) -> Result<(Option<Batch>, Vec<u64>), CutError> {
        self.filtered(compression, |index| !refused.contains(&(index as i32)))
    }

    fn filtered(
        &self,
        compression: Compression,
        keep: impl Fn(usize) -> bool,
    ) -> Result<(Option<Batch>, Vec<u64>), CutError> {
        let header = BatchHeader::parse(&self.bytes)?;
        let mut records = Records::new(&header, &self.bytes)?;
        let mut builder = BatchBuilder::new(compression);
        let (mut kept, mut dropped, mut payload_bytes) = (Vec::new(), Vec::new(), 0);
        for (index, line) in self.lines.iter().enumerate() {
            let Some(record) = records.next()? else { break };
            if !keep(index) {
                dropped.push(*line);
                continue;
            }
            let headers: Vec<HeaderRef> = record
                .headers
                .iter()
                .map(|h| (std::str::from_utf8(h.key).expect("invariant: built from a str"), h.value))
                .collect();
            builder.push(record.timestamp, record.key, record.value, &headers)?;
            payload_bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            kept.push(*line);
        }
        if kept.is_empty() {
            return Ok((None, dropped));
        }
        let bytes = builder.build()?;
        Ok((Some(Batch { lines: kept, bytes, payload_bytes, stamped: false, ..self.clone() }), dropped))
    }

    fn rewrite_header(&mut self, change: impl FnOnce(&mut BatchHeader)) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        let mut header = BatchHeader::parse(&bytes).expect("invariant: our own batch");
        change(&mut header);
        for _ in 0..2 {
            // Once with the new fields, then with the CRC over them.
            header.write(bytes.first_chunk_mut().expect("invariant: parsed above"));
            header.crc = crc32c(bytes.get(21..).expect("invariant: longer than a header"));
        }
        self.bytes = bytes.freeze();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::batch::Codec;

    fn batch(n: u64, codec: Codec) -> Batch {
        let mut open = OpenBatch::new(Compression::of(codec), 5);
        for line in 0..n {
            open.push(&NewRecord {
                key: Some(Bytes::from(format!("k{line}"))),
                value: Some(Bytes::from(vec![b'v'; 10])),
                headers: vec![("h".to_owned(), None)],
                timestamp_ms: 100 + line as i64,
                partition: None,
                line,
            })
            .expect("a small record");
        }
        open.seal(3).expect("a small batch")
    }

    fn keys(batch: &Batch) -> Vec<String> {
        let header = BatchHeader::parse(&batch.bytes).expect("a batch");
        assert!(header.crc_matches(&batch.bytes));
        let mut records = Records::new(&header, &batch.bytes).expect("records");
        let mut keys = Vec::new();
        while let Some(r) = records.next().expect("a record") {
            keys.push(String::from_utf8_lossy(r.key.unwrap_or_default()).into_owned());
        }
        keys
    }

    #[test]
    fn a_stamp_is_covered_by_the_crc() {
        let mut b = batch(3, Codec::Zstd);
        b.stamp(Identity { producer_id: 77, epoch: 2 }, 40);
        let header = BatchHeader::parse(&b.bytes).expect("a batch");
        assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (77, 2, 40));
        assert_eq!(keys(&b), ["k0", "k1", "k2"]);
    }

    #[test]
    fn halves_carry_on_the_sequence() {
        let mut b = batch(5, Codec::Lz4);
        b.stamp(Identity { producer_id: 1, epoch: 0 }, i32::MAX - 1);
        let parts = b.split(Compression::NONE).expect("cut");
        let sequences: Vec<i32> =
            parts.iter().map(|p| BatchHeader::parse(&p.bytes).expect("a batch").base_sequence).collect();
        assert_eq!(sequences, [i32::MAX - 1, 0], "sequences wrap to 0 behind i32::MAX");
        assert_eq!(parts.iter().map(keys).collect::<Vec<_>>().concat(), ["k0", "k1", "k2", "k3", "k4"]);
        assert_eq!(batch(1, Codec::None).split(Compression::NONE).expect("whole").len(), 1);
    }

    #[test]
    fn refused_records_are_taken_out_by_index() {
        let (rest, dropped) = batch(4, Codec::None).without(Compression::NONE, &[1, 3]).expect("cut");
        assert_eq!(dropped, [1, 3]);
        assert_eq!(keys(&rest.expect("two remain")), ["k0", "k2"]);
        assert!(batch(1, Codec::None).without(Compression::NONE, &[0]).expect("cut").0.is_none());
    }
}

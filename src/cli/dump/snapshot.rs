//! Producer snapshots: what a partition's leader knows of idempotent producers.
//!
//! ```text
//! version i16 = 1 | CRC-32C u32 of what follows | count i32 | entries of 46 bytes:
//! producer id i64 | epoch i16 | last sequence i32 | last offset i64 | offset delta i32 | timestamp i64
//!   | coordinator epoch i32 | first offset of the open transaction i64 (-1: none)
//! ```
//!
//! Corelog writes an entry for each batch that it remembers of a producer, oldest first; Kafka one for the last batch.

use super::reader::{Corrupt, FileReader, field};
use super::{DumpError, Out};
use crate::cli::moment::show_moment;
use crc_fast::{CrcAlgorithm, Digest};
use serde_json::json;
use std::path::Path;

const HEAD: usize = 10;
const ENTRY: usize = 46;

/// A producer as a snapshot has it.
pub(in crate::cli) struct Producer {
    pub id: i64,
    pub epoch: i16,
    pub last_sequence: i32,
    pub last_offset: i64,
    pub offset_delta: i32,
    pub timestamp: i64,
    pub coordinator_epoch: i32,
    /// Of the open transaction.
    pub first_offset: Option<i64>,
}

pub(super) fn dump(path: &Path, out: &mut Out) -> Result<(), DumpError> {
    let (mut producers, mut last) = (0u64, None);
    let (_, crc) = read(path, &mut |_, producer| {
        producers += u64::from(last.replace(producer.id) != Some(producer.id));
        print(producer, out)
    })?;
    out.text(|| format!("  {producers} producers: sound"))?;
    out.json(|| json!({ "type": "snapshot", "file": path.display().to_string(), "producers": producers, "crc": crc }))?;
    Ok(())
}

/// Reads a snapshot, with `each` called for every producer and the byte where it stands. Gives the number of entries and the CRC.
pub(in crate::cli) fn read(
    path: &Path,
    each: &mut dyn FnMut(u64, &Producer) -> Result<(), DumpError>,
) -> Result<(u64, u32), DumpError> {
    let (count, crc) = check(path)?;
    let mut file = FileReader::open(path)?;
    file.read_exact(&mut [0u8; HEAD])?;
    for _ in 0..count {
        let at = file.position;
        let mut e = [0u8; ENTRY];
        file.read_exact(&mut e)?;
        let first_offset = field!(e, 38, i64);
        let producer = Producer {
            id: field!(e, 0, i64),
            epoch: field!(e, 8, i16),
            last_sequence: field!(e, 10, i32),
            last_offset: field!(e, 14, i64),
            offset_delta: field!(e, 22, i32),
            timestamp: field!(e, 26, i64),
            coordinator_epoch: field!(e, 34, i32),
            first_offset: (first_offset >= 0).then_some(first_offset),
        };
        let Producer { id, last_sequence: sequence, last_offset, offset_delta: delta, .. } = producer;
        if delta < 0 || (sequence < 0 && last_offset >= 0) {
            return Err(Corrupt::at(at, format!("producer {id}: sequence {sequence}, offset delta {delta}")));
        }
        each(at, &producer)?;
    }
    Ok((count, crc))
}

fn print(p: &Producer, out: &mut Out) -> Result<(), DumpError> {
    out.text(|| {
        let time = show_moment(p.timestamp).unwrap_or_else(|| p.timestamp.to_string());
        let open = p.first_offset.map_or(String::new(), |open| format!("  open transaction from offset {open}"));
        format!(
            "  producer {}/{}  last sequence {}  offsets {}-{}  {time}{open}",
            p.id,
            p.epoch,
            p.last_sequence,
            p.last_offset.saturating_sub(i64::from(p.offset_delta)),
            p.last_offset,
        )
    })?;
    out.json(|| {
        json!({ "type": "producer", "producer_id": p.id, "producer_epoch": p.epoch, "last_sequence": p.last_sequence,
            "last_offset": p.last_offset, "offset_delta": p.offset_delta, "timestamp": p.timestamp,
            "coordinator_epoch": p.coordinator_epoch, "transaction_first_offset": p.first_offset })
    })?;
    Ok(())
}

/// Reads the file once for its CRC before anything in it is believed.
fn check(path: &Path) -> Result<(u64, u32), DumpError> {
    let mut file = FileReader::open(path)?;
    let mut head = [0u8; HEAD];
    if file.length < HEAD as u64 {
        return Err(Corrupt::at(0, format!("{} bytes are too few for a snapshot", file.length)));
    }
    file.read_exact(&mut head)?;
    let version = field!(head, 0, i16);
    if version != 1 {
        return Err(Corrupt::at(0, format!("snapshot version {version}, only 1 is known")));
    }
    let declared = field!(head, 2, u32);
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(head.get(6..).expect("invariant: 10 bytes"));
    let mut piece = [0u8; 8192];
    while file.remaining() > 0 {
        let length = usize::try_from(file.remaining()).unwrap_or(usize::MAX).min(piece.len());
        let piece = piece.get_mut(..length).expect("invariant: at most the buffer's length");
        file.read_exact(piece)?;
        digest.update(piece);
    }
    let found = digest.finalize() as u32;
    if found != declared {
        return Err(Corrupt::at(2, format!("the CRC-32C should be {declared:#010x}, the bytes give {found:#010x}")));
    }
    let count = field!(head, 6, i32);
    let room = file.length - HEAD as u64;
    match u64::try_from(count) {
        Ok(count) if count.checked_mul(ENTRY as u64) == Some(room) => Ok((count, declared)),
        _ => Err(Corrupt::at(6, format!("{count} entries of {ENTRY} bytes do not fill the {room} bytes that follow"))),
    }
}

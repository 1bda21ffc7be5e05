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

pub(super) fn dump(path: &Path, out: &mut Out) -> Result<(), DumpError> {
    let (count, crc) = check(path)?;
    let mut file = FileReader::open(path)?;
    file.read_exact(&mut [0u8; HEAD])?;
    let (mut producers, mut last) = (0u64, None);
    for _ in 0..count {
        let at = file.position;
        let mut e = [0u8; ENTRY];
        file.read_exact(&mut e)?;
        let (producer, epoch, sequence) = (field!(e, 0, i64), field!(e, 8, i16), field!(e, 10, i32));
        let (offset, delta, timestamp) = (field!(e, 14, i64), field!(e, 22, i32), field!(e, 26, i64));
        producers += u64::from(last.replace(producer) != Some(producer));
        let (coordinator, open) = (field!(e, 34, i32), field!(e, 38, i64));
        if delta < 0 || (sequence < 0 && offset >= 0) {
            return Err(Corrupt::at(at, format!("producer {producer}: sequence {sequence}, offset delta {delta}")));
        }
        out.text(|| {
            let time = show_moment(timestamp).unwrap_or_else(|| timestamp.to_string());
            let open = if open >= 0 { format!("  open transaction from offset {open}") } else { String::new() };
            format!(
                "  producer {producer}/{epoch}  last sequence {sequence}  offsets {}-{offset}  {time}{open}",
                offset.saturating_sub(i64::from(delta)),
            )
        })?;
        out.json(|| {
            json!({ "type": "producer", "producer_id": producer, "producer_epoch": epoch, "last_sequence": sequence,
                "last_offset": offset, "offset_delta": delta, "timestamp": timestamp,
                "coordinator_epoch": coordinator, "transaction_first_offset": (open >= 0).then_some(open) })
        })?;
    }
    out.text(|| format!("  {producers} producers: sound"))?;
    out.json(|| json!({ "type": "snapshot", "file": path.display().to_string(), "producers": producers, "crc": crc }))?;
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

//! Segments: batches one after another.

use super::reader::{Corrupt, FileReader};
use super::{DumpError, Out, named_offset};
use crate::base::config::topic::TimestampType;
use crate::base::limits::DECOMPRESSED_BATCH_BYTES_MAX;
use crate::cli::moment::show_moment;
use crate::record::batch::{BatchError, BatchHeader};
use crate::record::records::{Record, Records};
use crc_fast::{CrcAlgorithm, Digest};
use serde_json::{Map, Value, json};
use std::path::Path;

/// What precedes the bytes that the CRC covers.
const CRC_FROM: usize = 21;

/// Characters of a key or value that are shown to people; `--json` shows all.
const SHOWN_CHARS: usize = 120;

#[derive(Default)]
struct Totals {
    batches: u64,
    records: u64,
    last_offset: Option<i64>,
}

pub(super) fn dump(path: &Path, records: bool, out: &mut Out) -> Result<(), DumpError> {
    let mut file = FileReader::open(path)?;
    let base = named_offset(path);
    let mut totals = Totals::default();
    while file.remaining() > 0 {
        let at = file.position;
        let Some((header, head)) = next_header(&mut file)? else {
            let zeros = file.length - at;
            out.text(|| format!("  {zeros} zero bytes from byte {at} on: reserved, nothing was written there"))?;
            out.json(|| json!({ "type": "zero_tail", "position": at, "bytes": zeros }))?;
            break;
        };
        check_order(&header, base, &totals, at)?;
        if records {
            let batch = read_whole(&mut file, &header, &head, at)?;
            print_batch(&header, at, header.crc_matches(&batch), out)?;
            check_crc(header.crc_matches(&batch), at)?;
            dump_records(&header, &batch, at, out)?;
        } else {
            let sound = read_through(&mut file, &header, &head, at)?;
            print_batch(&header, at, sound, out)?;
            check_crc(sound, at)?;
        }
        totals.batches += 1;
        totals.records += u64::from(header.record_count.max(0).unsigned_abs());
        totals.last_offset = Some(header.last_offset().0);
    }
    let Totals { batches, records, last_offset } = totals;
    out.text(|| format!("  {batches} batches, {records} records, {} bytes: sound", file.length))?;
    out.json(|| {
        json!({ "type": "segment", "file": path.display().to_string(), "batches": batches, "records": records,
            "bytes": file.length, "base_offset": base, "last_offset": last_offset })
    })?;
    Ok(())
}

/// The next batch's header; None where only zeros follow.
fn next_header(file: &mut FileReader) -> Result<Option<(BatchHeader, [u8; BatchHeader::LEN])>, DumpError> {
    let at = file.position;
    let left = file.remaining();
    let mut head = [0u8; BatchHeader::LEN];
    if left < head.len() as u64 {
        if file.zeros_to_the_end()?.is_some() {
            return Ok(None);
        }
        return Err(Corrupt::at(
            at,
            format!("the file ends {left} bytes into a batch's header of {} bytes", head.len()),
        ));
    }
    file.read_exact(&mut head)?;
    let header = match BatchHeader::parse(&head) {
        Ok(header) => header,
        Err(error) => {
            if head == [0; BatchHeader::LEN] && file.zeros_to_the_end()?.is_some() {
                return Ok(None);
            }
            let offset = i64::from_be_bytes(*head.first_chunk().expect("invariant: 61 bytes"));
            let hint = match error {
                BatchError::Magic { found: 0 | 1 } => "; convert it with an old Kafka broker first",
                _ => "",
            };
            return Err(Corrupt::at(at, format!("batch with base offset {offset}: {error}{hint}")));
        }
    };
    let length = header.total_len() as u64;
    if length > left {
        let offset = header.base_offset;
        let reason = format!("batch with base offset {offset} takes {length} bytes, only {left} are left in the file");
        return Err(Corrupt::at(at, reason));
    }
    Ok(Some((header, head)))
}

fn check_order(header: &BatchHeader, base: Option<i64>, totals: &Totals, at: u64) -> Result<(), DumpError> {
    let first = header.base_offset.0;
    if let Some(last) = totals.last_offset.filter(|last| first <= *last) {
        return Err(Corrupt::at(at, format!("base offset {first} follows offset {last}")));
    }
    if let Some(base) = base.filter(|base| first < *base) {
        return Err(Corrupt::at(at, format!("base offset {first} lies before the segment's own, {base}")));
    }
    let (delta, count) = (header.last_offset_delta, header.record_count);
    // Compaction removes records and keeps the offsets; more records than offsets there cannot be.
    if delta < 0 || count < 0 || i64::from(count) > i64::from(delta) + 1 {
        return Err(Corrupt::at(at, format!("{count} records cannot have the last offset delta {delta}")));
    }
    if i64::from(delta).checked_add(first).is_none() {
        return Err(Corrupt::at(at, format!("offset {first} + {delta} is beyond the largest there can be")));
    }
    Ok(())
}

fn check_crc(sound: bool, at: u64) -> Result<(), DumpError> {
    match sound {
        true => Ok(()),
        false => Err(Corrupt::at(at, "the batch's CRC-32C does not match its bytes")),
    }
}

/// Reads the batch's body piece by piece; whether its CRC is right.
fn read_through(
    file: &mut FileReader,
    header: &BatchHeader,
    head: &[u8; BatchHeader::LEN],
    at: u64,
) -> Result<bool, DumpError> {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(head.get(CRC_FROM..).expect("invariant: 61 bytes"));
    let mut left = header.total_len() - BatchHeader::LEN;
    let mut piece = [0u8; 64 << 10];
    while left > 0 {
        let piece = piece.get_mut(..left.min(64 << 10)).expect("invariant: at most the buffer's length");
        file.read_exact(piece)?;
        digest.update(piece);
        left -= piece.len();
    }
    debug_assert_eq!(file.position, at + header.total_len() as u64);
    Ok(digest.finalize() as u32 == header.crc)
}

fn read_whole(
    file: &mut FileReader,
    header: &BatchHeader,
    head: &[u8; BatchHeader::LEN],
    at: u64,
) -> Result<Vec<u8>, DumpError> {
    if header.total_len() > DECOMPRESSED_BATCH_BYTES_MAX {
        let reason =
            format!("a batch of {} bytes is beyond what is decoded; try without --records", header.total_len());
        return Err(Corrupt::at(at, reason));
    }
    let mut batch = head.to_vec();
    batch.resize(header.total_len(), 0);
    file.read_exact(batch.get_mut(BatchHeader::LEN..).expect("invariant: longer than a header"))?;
    Ok(batch)
}

fn dump_records(header: &BatchHeader, batch: &[u8], at: u64, out: &mut Out) -> Result<(), DumpError> {
    let wrong =
        |e: &dyn std::fmt::Display| Corrupt::at(at, format!("batch with base offset {}: {e}", header.base_offset));
    let mut records = Records::new(header, batch).map_err(|e| wrong(&e))?;
    let mut last = header.base_offset.0 - 1;
    while let Some(record) = records.next().map_err(|e| wrong(&e))? {
        let offset = record.offset.0;
        if offset <= last || offset > header.last_offset().0 {
            let reason = format!("record offset {offset} behind {last}, in a batch up to {}", header.last_offset());
            return Err(wrong(&reason));
        }
        last = offset;
        out.text(|| record_text(header, &record))?;
        out.json(|| record_json(header, &record))?;
    }
    Ok(())
}

fn print_batch(h: &BatchHeader, at: u64, sound: bool, out: &mut Out) -> Result<(), DumpError> {
    out.text(|| {
        let mut text = format!(
            "  offsets {}-{}  byte {at}  {} bytes  {} records  {}  epoch {}  {} {}",
            h.base_offset,
            h.last_offset(),
            h.total_len(),
            h.record_count,
            h.codec().map_or("unknown codec", |c| c.name()),
            h.partition_leader_epoch,
            timestamp_type(h),
            show_span(h),
        );
        if h.has_producer_id() {
            text += &format!("  producer {}/{} sequence {}", h.producer_id, h.producer_epoch, h.base_sequence);
        }
        for (set, word) in [(h.is_transactional(), "transactional"), (h.is_control(), "control"), (!sound, "CRC WRONG")]
        {
            if set {
                text += &format!("  {word}");
            }
        }
        text
    })?;
    out.json(|| {
        json!({
            "type": "batch",
            "position": at,
            "bytes": h.total_len(),
            "base_offset": h.base_offset.0,
            "last_offset": h.last_offset().0,
            "records": h.record_count,
            "codec": h.codec().map(|c| c.name()),
            "leader_epoch": h.partition_leader_epoch,
            "timestamp_type": timestamp_type(h),
            "base_timestamp": h.base_timestamp,
            "max_timestamp": h.max_timestamp,
            "producer_id": h.producer_id,
            "producer_epoch": h.producer_epoch,
            "base_sequence": h.base_sequence,
            "transactional": h.is_transactional(),
            "control": h.is_control(),
            "delete_horizon": h.has_delete_horizon(),
            "crc": h.crc,
            "crc_valid": sound,
        })
    })?;
    Ok(())
}

fn timestamp_type(header: &BatchHeader) -> &'static str {
    match header.timestamp_type() {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

fn show_span(header: &BatchHeader) -> String {
    let show = |ms: i64| show_moment(ms).unwrap_or_else(|| ms.to_string());
    match header.base_timestamp == header.max_timestamp {
        true => show(header.max_timestamp),
        false => format!("{}..{}", show(header.base_timestamp), show(header.max_timestamp)),
    }
}

fn record_text(header: &BatchHeader, record: &Record<'_>) -> String {
    let time = show_moment(record.timestamp).unwrap_or_else(|| record.timestamp.to_string());
    let mut text = format!("    {}  {time}", record.offset);
    if let Some(kind) = control_kind(header, record) {
        return text + "  " + &kind;
    }
    text += &format!("  key={}  value={}", show_bytes(record.key), show_bytes(record.value));
    for h in record.headers.iter() {
        text += &format!("  header {}={}", show_bytes(Some(h.key)), show_bytes(h.value));
    }
    text
}

fn show_bytes(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "null".to_owned() };
    let text = String::from_utf8_lossy(bytes.get(..SHOWN_CHARS * 4).unwrap_or(bytes));
    let shown: String = text.chars().take(SHOWN_CHARS).collect();
    let more = if shown.len() < bytes.len() { format!("… ({} bytes)", bytes.len()) } else { String::new() };
    format!("\"{}\"{more}", shown.escape_debug())
}

fn record_json(header: &BatchHeader, record: &Record<'_>) -> Value {
    let mut object = Map::new();
    object.insert("type".to_owned(), "record".into());
    if let Some(kind) = control_kind(header, record) {
        object.insert("control".to_owned(), kind.into());
    }
    if let Value::Object(fields) = crate::cli::consume::format::as_json("", 0, record) {
        object.extend(fields.into_iter().filter(|(name, _)| name != "topic" && name != "partition"));
    }
    Value::Object(object)
}

/// What a control batch's record says (its key: version i16, type i16).
fn control_kind(header: &BatchHeader, record: &Record<'_>) -> Option<String> {
    if !header.is_control() {
        return None;
    }
    let kind = record.key.and_then(|key| key.get(2..4)).and_then(|b| b.first_chunk()).map(|b| i16::from_be_bytes(*b));
    Some(match kind {
        Some(0) => "transaction aborted".to_owned(),
        Some(1) => "transaction committed".to_owned(),
        Some(2) => "leader change".to_owned(),
        Some(other) => format!("control record of type {other}"),
        None => "control record without a type".to_owned(),
    })
}

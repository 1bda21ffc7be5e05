//! What the search for damage keeps: `corrupt-ranges` of a partition, `corelog-scrub.N` of a shard.

use super::reader::Corrupt;
use super::{DumpError, Out};
use crate::base::limits::CORRUPT_FILE_BYTES_MAX;
use crate::log::corrupt::CorruptRanges;
use crate::maintenance::scrub_progress::Progress;
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub(super) fn dump(path: &Path, out: &mut Out) -> Result<(), DumpError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(CORRUPT_FILE_BYTES_MAX).read_to_string(&mut text));
    read.map_err(DumpError::Read)?;
    let ranges = CorruptRanges::decode(&text).map_err(|error| Corrupt::at(0, error.to_string()))?;
    for range in ranges.iter() {
        let (start, end) = (range.start, range.end);
        out.text(|| {
            format!(
                "  offsets {} up to {}: byte {} of segment {} up to byte {} of segment {}",
                range.first, range.next, start.position, start.segment, end.position, end.segment
            )
        })?;
        out.json(|| {
            json!({
                "type": "corrupt_range", "first_offset": range.first.0, "next_offset": range.next.0,
                "start_segment": start.segment.0, "start_position": start.position,
                "end_segment": end.segment.0, "end_position": end.position,
            })
        })?;
    }
    Ok(())
}

/// `corelog-scrub.N`: how far a shard's scrub has come.
pub(super) fn dump_progress(path: &Path, out: &mut Out) -> Result<(), DumpError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(CORRUPT_FILE_BYTES_MAX).read_to_string(&mut text));
    read.map_err(DumpError::Read)?;
    let progress = Progress::decode(&text).map_err(|error| Corrupt::at(0, error.to_string()))?;
    let Progress { begun_ms, ended_ms, whole_ms, segments, bytes, total, damaged, gaps, at } = &progress;
    let place = at.as_ref().map(|at| format!("{}-{} segment {}", at.topic, at.partition, at.segment));
    out.text(|| {
        let place = place.as_deref().unwrap_or("its begin");
        format!(
            "  round begun {begun_ms}, ended {ended_ms}, last whole one {whole_ms}: {segments} segments, {bytes} of {total} bytes, \
             {damaged} damaged, {gaps} with missing offsets, at {place}"
        )
    })?;
    out.json(|| {
        json!({
            "type": "scrub_progress", "begun_ms": begun_ms, "ended_ms": ended_ms, "last_whole_ms": whole_ms,
            "segments": segments, "bytes": bytes, "bytes_total": total, "segments_damaged": damaged,
            "segments_with_gaps": gaps, "at": place,
        })
    })?;
    Ok(())
}

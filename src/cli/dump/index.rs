//! Offset, time and transaction indexes: entries of fixed size, in rising order, perhaps with a tail of zeros.

use super::reader::{Corrupt, FileReader, field};
use super::{DumpError, Out, named_offset};
use crate::cli::moment::show_moment;
use crate::record::batch::BatchHeader;
use serde_json::json;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const OFFSET_ENTRY: usize = 8;
const TIME_ENTRY: usize = 12;
const TRANSACTION_ENTRY: usize = 34;

pub(super) fn dump_offsets(path: &Path, out: &mut Out) -> Result<(), DumpError> {
    let base = base_offset(path)?;
    let segment = Segment::beside(path);
    let mut previous: Option<(i32, i32)> = None;
    let entries = entries::<OFFSET_ENTRY>(path, out, |at, entry, out| {
        let (relative, position) = (field!(entry, 0, i32), field!(entry, 4, i32));
        if relative < 0 || position < 0 {
            return Err(Corrupt::at(at, format!("negative entry: relative offset {relative}, position {position}")));
        }
        if let Some((r, p)) = previous.filter(|(r, p)| relative <= *r || position <= *p) {
            let reason = format!("entry ({relative}, {position}) does not rise above ({r}, {p}), the one before it");
            return Err(Corrupt::at(at, reason));
        }
        previous = Some((relative, position));
        let offset = base + i64::from(relative);
        segment.check(at, offset, u64::from(position.unsigned_abs()))?;
        out.text(|| format!("  offset {offset}  byte {position}"))?;
        out.json(|| json!({ "type": "index_entry", "offset": offset, "position": position }))?;
        Ok(())
    })?;
    summary(path, entries, segment.note(), out)
}

pub(super) fn dump_times(path: &Path, out: &mut Out) -> Result<(), DumpError> {
    let base = base_offset(path)?;
    let mut previous: Option<(i64, i32)> = None;
    let entries = entries::<TIME_ENTRY>(path, out, |at, entry, out| {
        let (timestamp, relative) = (field!(entry, 0, i64), field!(entry, 8, i32));
        if relative < 0 {
            return Err(Corrupt::at(at, format!("negative relative offset {relative}")));
        }
        if let Some((t, r)) = previous.filter(|(t, r)| timestamp < *t || relative < *r) {
            let reason = format!("entry ({timestamp}, {relative}) falls below ({t}, {r}), the one before it");
            return Err(Corrupt::at(at, reason));
        }
        previous = Some((timestamp, relative));
        let offset = base + i64::from(relative);
        let date = show_moment(timestamp);
        out.text(|| format!("  {}  offset {offset}", date.unwrap_or_else(|| timestamp.to_string())))?;
        out.json(|| json!({ "type": "time_index_entry", "timestamp": timestamp, "offset": offset }))?;
        Ok(())
    })?;
    summary(path, entries, "", out)
}

pub(super) fn dump_transactions(path: &Path, out: &mut Out) -> Result<(), DumpError> {
    let mut previous: Option<i64> = None;
    let entries = entries::<TRANSACTION_ENTRY>(path, out, |at, entry, out| {
        let version = field!(entry, 0, i16);
        let (producer, first) = (field!(entry, 2, i64), field!(entry, 10, i64));
        let (last, stable) = (field!(entry, 18, i64), field!(entry, 26, i64));
        if version != 0 {
            return Err(Corrupt::at(at, format!("entry version {version}, only 0 is known")));
        }
        if first > last {
            return Err(Corrupt::at(at, format!("an aborted transaction from offset {first} to {last}")));
        }
        if let Some(before) = previous.filter(|before| last <= *before) {
            return Err(Corrupt::at(at, format!("last offset {last} does not rise above {before}")));
        }
        previous = Some(last);
        out.text(|| format!("  aborted: producer {producer} offsets {first}-{last}, last stable offset {stable}"))?;
        out.json(|| {
            json!({ "type": "aborted_transaction", "producer_id": producer, "first_offset": first,
                "last_offset": last, "last_stable_offset": stable })
        })?;
        Ok(())
    })?;
    summary(path, entries, "", out)
}

/// Reads entries of `SIZE` bytes until the end or until only zeros follow (indexes are reserved at full size while
/// their segment is active; an entry of zeros is real only in first place, and then nothing is lost by leaving it out).
fn entries<const SIZE: usize>(
    path: &Path,
    out: &mut Out,
    mut each: impl FnMut(u64, &[u8; SIZE], &mut Out) -> Result<(), DumpError>,
) -> Result<u64, DumpError> {
    let mut file = FileReader::open(path)?;
    let mut count = 0;
    while file.remaining() > 0 {
        let at = file.position;
        let mut entry = [0u8; SIZE];
        if file.remaining() < SIZE as u64 {
            let left = file.remaining();
            return Err(Corrupt::at(at, format!("the file ends {left} bytes into an entry of {SIZE} bytes")));
        }
        file.read_exact(&mut entry)?;
        if entry == [0; SIZE] && file.zeros_to_the_end()?.is_some() {
            let zeros = file.length - at;
            out.text(|| format!("  {zeros} zero bytes from byte {at} on: reserved for entries to come"))?;
            out.json(|| json!({ "type": "zero_tail", "position": at, "bytes": zeros }))?;
            break;
        }
        each(at, &entry, out)?;
        count += 1;
    }
    Ok(count)
}

fn base_offset(path: &Path) -> Result<i64, DumpError> {
    let unnamed = || Corrupt::at(0, "an index's name must begin with its base offset, e.g. 00000000000000000000.index");
    named_offset(path).filter(|base| base.checked_add(i64::from(i32::MAX)).is_some()).ok_or_else(unnamed)
}

fn summary(path: &Path, entries: u64, note: &str, out: &mut Out) -> Result<(), DumpError> {
    out.text(|| format!("  {entries} entries: sound{note}"))?;
    out.json(|| json!({ "type": "index", "file": path.display().to_string(), "entries": entries }))?;
    Ok(())
}

/// The segment that an offset index points into, if it lies beside it.
struct Segment(Option<File>);

impl Segment {
    fn beside(index: &Path) -> Segment {
        Segment(File::open(index.with_extension("log")).ok())
    }

    fn note(&self) -> &'static str {
        match self.0 {
            Some(_) => ", and agrees with the segment beside it",
            None => " in itself (the segment is not beside it)",
        }
    }

    /// A batch that holds this offset must begin at this position.
    fn check(&self, at: u64, offset: i64, position: u64) -> Result<(), DumpError> {
        let Some(file) = &self.0 else { return Ok(()) };
        let mut head = [0u8; BatchHeader::LEN];
        let points = |found: String| {
            Corrupt::at(at, format!("the entry for offset {offset} points at byte {position}, {found}"))
        };
        match file.read_exact_at(&mut head, position) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(points("behind the end of the segment".to_owned()));
            }
            Err(e) => return Err(DumpError::Read(e)),
        }
        let header = BatchHeader::parse(&head).map_err(|e| points(format!("where no batch begins: {e}")))?;
        let (first, last) = (header.base_offset.0, header.last_offset().0);
        match (first..=last).contains(&offset) {
            true => Ok(()),
            false => Err(points(format!("where a batch of offsets {first}-{last} begins"))),
        }
    }
}

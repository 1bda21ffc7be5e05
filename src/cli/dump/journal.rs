//! A shard's journal, `journal-N.ring`: what its newest superblock says, and the batches between the tail and the head, which a
//! start would put back into their segments. The bytes are drawn at `journal::format`.

use super::reader::Corrupt;
use super::{DumpError, Out};
use crate::journal::file::{JournalError, read};
use crate::journal::scan::{Damage, scan};
use serde_json::json;
use std::io;
use std::path::Path;

pub(super) fn dump(path: &Path, out: &mut Out) -> Result<(), DumpError> {
    let existing = match read(path) {
        Ok(Some(existing)) => existing,
        Ok(None) => return Err(DumpError::Read(io::ErrorKind::NotFound.into())),
        Err(JournalError::Io { source, .. }) => return Err(DumpError::Read(source)),
        Err(other) => return Err(Corrupt::at(0, without_path(&other))),
    };
    let superblock = &existing.superblock;
    let (tail, state) = (superblock.tail, if superblock.clean { "clean" } else { "in use, or left by a crash" });
    out.text(|| {
        format!(
            "  ring {:016x}, boot {}, generation {}, {} bytes; tail at {}, group {}: {state}",
            superblock.ring, superblock.boot, superblock.generation, superblock.bytes, tail.position, tail.sequence
        )
    })?;
    out.json(|| {
        json!({ "type": "journal", "file": path.display().to_string(), "ring": format!("{:016x}", superblock.ring),
            "boot": superblock.boot, "generation": superblock.generation, "bytes": superblock.bytes,
            "tail_position": tail.position, "tail_sequence": tail.sequence, "clean": superblock.clean })
    })?;
    if superblock.clean {
        return Ok(());
    }
    let scanned = scan(existing.area.bytes(), superblock).map_err(|damage| match &damage {
        Damage::Lost { position, .. } | Damage::Unknown { position, .. } => Corrupt::at(*position, damage.to_string()),
    })?;
    for found in &scanned.entries {
        let entry = &found.header;
        let (topic, partition) = (entry.id.topic, entry.id.partition);
        out.text(|| {
            format!(
                "  {topic}-{partition}: offsets {}..{}, {} bytes at byte {} of segment {}",
                entry.base, entry.end, entry.length, entry.position, entry.segment
            )
        })?;
        out.json(|| {
            json!({ "type": "journal_entry", "topic_id": topic.to_string(), "partition": partition.0,
                "base_offset": entry.base.0, "end_offset": entry.end.0, "segment": entry.segment.0,
                "position": entry.position, "bytes": entry.length })
        })?;
    }
    let (groups, head) = (scanned.groups, scanned.head);
    out.text(|| format!("  {groups} groups, {} entries: sound up to group {}", scanned.entries.len(), head.sequence))?;
    Ok(())
}

/// The file is named by whoever tells the error.
fn without_path(error: &JournalError) -> String {
    let text = error.to_string();
    text.split_once(": ").map_or(text.clone(), |(_, reason)| reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::is_sound;
    use crate::base::ids::{Offset, PartitionIndex, TopicId, TopicPartition};
    use crate::journal::file::make;
    use crate::journal::format::{BLOCK, EntryHeader, GROUPS_AT};
    use crate::journal::ring::{Group, Ring};
    use bytes::Bytes;
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;

    #[test]
    fn rings_are_shown_and_damage_is_found() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("journal-0.ring");
        let mut ring = Ring::renewed(&make(&path, 7, 1 << 20).expect("made"));
        assert_eq!(is_sound(&path), Some(true), "a ring that was never used");
        let file = File::options().write(true).open(&path).expect("open");
        let mut block = vec![0; BLOCK];
        ring.superblock().encode(&mut block);
        file.write_all_at(&block, ring.superblock().file_position()).expect("written");
        let id = TopicPartition { topic: TopicId::random(), partition: PartitionIndex(0) };
        for base in 0..3 {
            let (base, end) = (Offset(base), Offset(base + 1));
            let mut group = Group::new();
            let entry = EntryHeader { id, base, end, segment: Offset(0), position: 0, length: 3 };
            group.push(&entry, &[Bytes::from_static(b"abc")]);
            let placed = ring.place(&mut group).expect("there is room");
            file.write_all_at(&group.take_blocks().bytes()[..placed.bytes], placed.file_position).expect("written");
            ring.written(placed);
        }
        assert_eq!(is_sound(&path), Some(true));
        file.write_all_at(b"x", GROUPS_AT + 100).expect("damaged");
        assert_eq!(is_sound(&path), Some(false), "the first group is gone, and two come after it");
        fs::write(&path, "no ring").expect("written");
        assert_eq!(is_sound(&path), Some(false));
    }
}

//! What a ring held when its process ended. Pure.
//!
//! From the tail on, groups follow each other by sequence and link. The first that is not whole ends the scan: it is the one
//! that was being written, because one group is in flight, unless a later one of this boot is found anywhere in the ring.
//! That one was written after the damaged group was on disk, so what is missing may have been acknowledged: an error, not an
//! end. (A damaged *last* group cannot be told from a torn one: nothing that survives says that it was whole.)

use super::format::{BLOCK, ENTRY_HEADER_LEN, EntryHeader, GROUP_HEADER_LEN, GroupHeader, Place, Superblock, crc64};
use std::ops::Range;

/// Batches that were journaled, and where their bytes lie in the groups' area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub header: EntryHeader,
    pub bytes: Range<usize>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Scanned {
    /// In the order in which they were journaled.
    pub entries: Vec<Found>,
    pub groups: u64,
    pub head: Place,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error(
        "group {sequence} at byte {position} of the groups is damaged, and group {later} is there: acknowledged records may be lost"
    )]
    Lost { sequence: u64, position: u64, later: u64 },
    #[error("group {sequence} at byte {position} of the groups holds what this version does not know")]
    Unknown { sequence: u64, position: u64 },
}

/// Reads the groups' area of a ring whose superblock says that it is not clean.
pub fn scan(area: &[u8], superblock: &Superblock) -> Result<Scanned, Damage> {
    let mut scanned = Scanned { entries: Vec::new(), groups: 0, head: superblock.tail };
    // A damaged superblock could lie; a walk is never longer than the ring.
    while scanned.head.position < superblock.tail.position + superblock.bytes {
        let Some((header, body)) = group_at(area, superblock, scanned.head) else { break };
        let damage = Damage::Unknown { sequence: header.place.sequence, position: header.place.position };
        read_entries(area, body, header.entries, &mut scanned.entries).ok_or(damage)?;
        let start = (header.place.position % superblock.bytes) as usize;
        scanned.groups += 1;
        scanned.head = Place {
            position: header.place.position + header.padded_bytes(),
            sequence: header.place.sequence + 1,
            link: crc64(&area[start..start + GROUP_HEADER_LEN]),
        };
    }
    match newest(area, superblock) {
        Some(later) if later >= scanned.head.sequence && is_committed(area, superblock, scanned.head.sequence) => {
            let position = scanned.head.position % superblock.bytes;
            Err(Damage::Lost { sequence: scanned.head.sequence, position, later })
        }
        _ => Ok(scanned),
    }
}

/// The group that continues at `place`, or at the start of the next lap, if all of it is whole.
fn group_at(area: &[u8], superblock: &Superblock, place: Place) -> Option<(GroupHeader, Range<usize>)> {
    let next_lap = (place.position / superblock.bytes + 1) * superblock.bytes;
    [place.position, next_lap].into_iter().find_map(|position| {
        let start = (position % superblock.bytes) as usize;
        let header = GroupHeader::decode(area.get(start..)?)?;
        let body = start + GROUP_HEADER_LEN..start + GROUP_HEADER_LEN + header.body_bytes as usize;
        let follows = is_of(&header, superblock) && header.place == Place { position, ..place };
        (follows && crc64(area.get(body.clone())?) == header.body_crc).then_some((header, body))
    })
}

fn is_of(header: &GroupHeader, superblock: &Superblock) -> bool {
    header.ring == superblock.ring && header.boot == superblock.boot
}

fn headers<'a>(area: &'a [u8], superblock: &'a Superblock) -> impl Iterator<Item = GroupHeader> + 'a {
    area.chunks_exact(BLOCK).filter_map(GroupHeader::decode).filter(|header| is_of(header, superblock))
}

fn newest(area: &[u8], superblock: &Superblock) -> Option<u64> {
    headers(area, superblock).map(|header| header.place.sequence).max()
}

/// Whether a header anywhere says that the group with this sequence was whole.
fn is_committed(area: &[u8], superblock: &Superblock, sequence: u64) -> bool {
    headers(area, superblock).any(|header| header.committed >= sequence && header.place.sequence > sequence)
}

fn read_entries(area: &[u8], body: Range<usize>, count: u32, entries: &mut Vec<Found>) -> Option<()> {
    let mut at = body.start;
    for _ in 0..count {
        let header = EntryHeader::decode(area.get(at..body.end)?)?;
        let bytes = at + ENTRY_HEADER_LEN..at + ENTRY_HEADER_LEN + header.length as usize;
        at = bytes.end;
        entries.push(Found { header, bytes });
    }
    (at == body.end).then_some(())
}

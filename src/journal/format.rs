//! The bytes of a ring: two superblocks, then groups of entries. All numbers are little-endian. Pure.
//!
//! ```text
//! file      | superblock A | superblock B | groups …                                |    each piece starts at a block
//!             0              4096           8192                       8192 + bytes
//!
//! superblock  0  magic "CLRING1\0"        8  CRC-32 of bytes 12..104      12  flags: 1 = clean
//!            16  ring id                 24  boot                         32  generation: the greater one counts
//!            40  bytes of the groups' area                                48  tail: position
//!            56  tail: sequence          64  tail: link                   72  zeros up to 104
//!
//! group       0  magic "CLGR"             4  CRC-32 of bytes 8..80         8  ring id
//!            16  boot                    24  position                     32  sequence
//!            40  link: CRC-64 of the header before this one               48  committed: the newest sequence known to be whole
//!            56  length of the body      60  entries                      64  CRC-64 of the body
//!            72  zeros up to 80, then the body, then zeros up to the next block
//!
//! entry       0  kind: 1 = DATA, then zeros up to 4                        4  partition
//!             8  topic id                24  base offset                  32  end offset
//!            40  base offset of the segment                               48  position in the segment
//!            52  length                  56  the bytes: whole record batches
//! ```
//!
//! A *position* counts bytes since the ring was made and never wraps; its place in the file is `8192 + position % bytes`. A
//! group never wraps: one that does not fit before the end of the area begins at its start, and the rest of the lap is
//! skipped. The link of a ring's or boot's first group is `first_link`.

use crate::base::ids::{Offset, PartitionIndex, TopicId, TopicPartition};
use crc_fast::{CrcAlgorithm, checksum};
use uuid::Uuid;

/// What direct I/O moves at least, and where it begins.
pub const BLOCK: usize = 4096;
/// Where the groups begin in the file.
pub const GROUPS_AT: u64 = 2 * BLOCK as u64;
pub const GROUP_HEADER_LEN: usize = 80;
pub const ENTRY_HEADER_LEN: usize = 56;

const SUPERBLOCK_LEN: usize = 104;
const SUPERBLOCK_MAGIC: &[u8; 8] = b"CLRING1\0";
const GROUP_MAGIC: &[u8; 4] = b"CLGR";
const KIND_DATA: u8 = 1;
const FLAG_CLEAN: u32 = 1;

/// A point between two groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub position: u64,
    /// Of the group that begins here.
    pub sequence: u64,
    /// What that group says of the one before it.
    pub link: u64,
}

/// Where recovery begins, and of which ring and boot the groups must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    pub ring: u64,
    /// Rises with each start: groups of an earlier one are not read.
    pub boot: u64,
    pub generation: u64,
    /// Of the groups' area.
    pub bytes: u64,
    pub tail: Place,
    /// Everything was on disk in its segments, and nothing was written here since.
    pub clean: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    pub ring: u64,
    pub boot: u64,
    pub place: Place,
    /// The newest sequence that was known to be whole when this was written.
    pub committed: u64,
    pub body_bytes: u32,
    pub entries: u32,
    pub body_crc: u64,
}

/// Where in a partition's files some batches belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    pub id: TopicPartition,
    pub base: Offset,
    pub end: Offset,
    pub segment: Offset,
    pub position: u32,
    pub length: u32,
}

/// The link of the first group of a boot.
pub fn first_link(ring: u64, boot: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&ring.to_le_bytes());
    bytes[8..].copy_from_slice(&boot.to_le_bytes());
    crc64(&bytes)
}

/// Checks bodies, and links each group to the one before.
pub fn crc64(bytes: &[u8]) -> u64 {
    checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

impl Superblock {
    pub fn encode(&self, block: &mut [u8]) {
        block[..BLOCK].fill(0);
        block[..8].copy_from_slice(SUPERBLOCK_MAGIC);
        put_u32(block, 12, if self.clean { FLAG_CLEAN } else { 0 });
        let fields = [self.ring, self.boot, self.generation, self.bytes];
        let tail = [self.tail.position, self.tail.sequence, self.tail.link];
        for (i, value) in fields.into_iter().chain(tail).enumerate() {
            put_u64(block, 16 + 8 * i, value);
        }
        let crc = crc32fast::hash(&block[12..SUPERBLOCK_LEN]);
        put_u32(block, 8, crc);
    }

    /// None: not whole.
    pub fn decode(block: &[u8]) -> Option<Superblock> {
        let block = block.get(..SUPERBLOCK_LEN)?;
        if &block[..8] != SUPERBLOCK_MAGIC || u32_at(block, 8) != crc32fast::hash(&block[12..]) {
            return None;
        }
        Some(Superblock {
            clean: u32_at(block, 12) & FLAG_CLEAN != 0,
            ring: u64_at(block, 16),
            boot: u64_at(block, 24),
            generation: u64_at(block, 32),
            bytes: u64_at(block, 40),
            tail: Place { position: u64_at(block, 48), sequence: u64_at(block, 56), link: u64_at(block, 64) },
        })
    }

    /// The place in the file: they alternate, so that a torn one leaves the one before.
    pub fn file_position(&self) -> u64 {
        (self.generation % 2) * BLOCK as u64
    }
}

impl GroupHeader {
    pub fn encode(&self, into: &mut [u8]) {
        let header = &mut into[..GROUP_HEADER_LEN];
        header.fill(0);
        header[..4].copy_from_slice(GROUP_MAGIC);
        let place = [self.place.position, self.place.sequence, self.place.link];
        let fields = [self.ring, self.boot].into_iter().chain(place).chain([self.committed]);
        for (i, value) in fields.enumerate() {
            put_u64(header, 8 + 8 * i, value);
        }
        put_u32(header, 56, self.body_bytes);
        put_u32(header, 60, self.entries);
        put_u64(header, 64, self.body_crc);
        let crc = crc32fast::hash(&header[8..]);
        put_u32(header, 4, crc);
    }

    /// None: this is no group's beginning.
    pub fn decode(from: &[u8]) -> Option<GroupHeader> {
        let header = from.get(..GROUP_HEADER_LEN)?;
        if &header[..4] != GROUP_MAGIC || u32_at(header, 4) != crc32fast::hash(&header[8..]) {
            return None;
        }
        Some(GroupHeader {
            ring: u64_at(header, 8),
            boot: u64_at(header, 16),
            place: Place { position: u64_at(header, 24), sequence: u64_at(header, 32), link: u64_at(header, 40) },
            committed: u64_at(header, 48),
            body_bytes: u32_at(header, 56),
            entries: u32_at(header, 60),
            body_crc: u64_at(header, 64),
        })
    }

    /// The group with its padding.
    pub fn padded_bytes(&self) -> u64 {
        (GROUP_HEADER_LEN as u64 + u64::from(self.body_bytes)).next_multiple_of(BLOCK as u64)
    }
}

impl EntryHeader {
    pub fn encode(&self) -> [u8; ENTRY_HEADER_LEN] {
        let mut header = [0; ENTRY_HEADER_LEN];
        header[0] = KIND_DATA;
        put_u32(&mut header, 4, self.id.partition.0 as u32);
        header[8..24].copy_from_slice(self.id.topic.0.as_bytes());
        for (i, offset) in [self.base, self.end, self.segment].into_iter().enumerate() {
            put_u64(&mut header, 24 + 8 * i, offset.0 as u64);
        }
        put_u32(&mut header, 48, self.position);
        put_u32(&mut header, 52, self.length);
        header
    }

    /// None: not an entry that this version knows.
    pub fn decode(from: &[u8]) -> Option<EntryHeader> {
        let header = from.get(..ENTRY_HEADER_LEN)?;
        let offset = |at: usize| Offset(u64_at(header, at) as i64);
        let topic = TopicId(Uuid::from_slice(&header[8..24]).ok()?);
        let entry = EntryHeader {
            id: TopicPartition { topic, partition: PartitionIndex(u32_at(header, 4) as i32) },
            base: offset(24),
            end: offset(32),
            segment: offset(40),
            position: u32_at(header, 48),
            length: u32_at(header, 52),
        };
        let sound = header[..4] == [KIND_DATA, 0, 0, 0]
            && entry.id.partition.0 >= 0
            && entry.segment.0 >= 0
            && entry.segment <= entry.base
            && entry.base < entry.end
            && entry.position.checked_add(entry.length).is_some();
        sound.then_some(entry)
    }
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn superblock() -> Superblock {
        let tail = Place { position: 8192, sequence: 7, link: first_link(1, 2) };
        Superblock { ring: 1, boot: 2, generation: 3, bytes: 1 << 20, tail, clean: true }
    }

    fn group() -> GroupHeader {
        let place = Place { position: 4096, sequence: 9, link: 77 };
        GroupHeader { ring: 1, boot: 2, place, committed: 8, body_bytes: 5000, entries: 2, body_crc: 99 }
    }

    fn entry() -> EntryHeader {
        let id = TopicPartition { topic: TopicId::random(), partition: PartitionIndex(3) };
        EntryHeader { id, base: Offset(10), end: Offset(12), segment: Offset(5), position: 100, length: 4 }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut block = vec![1; BLOCK];
        superblock().encode(&mut block);
        assert_eq!(Superblock::decode(&block), Some(superblock()));
        group().encode(&mut block);
        assert_eq!(GroupHeader::decode(&block), Some(group()));
        assert_eq!(group().padded_bytes(), 8192);
        assert_eq!(EntryHeader::decode(&entry().encode()).map(|read| read.base), Some(Offset(10)));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_noticed(bit in 0usize..GROUP_HEADER_LEN * 8) {
            let mut block = vec![0; BLOCK];
            superblock().encode(&mut block);
            block[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Superblock::decode(&block), None);
            group().encode(&mut block);
            block[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(GroupHeader::decode(&block), None);
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Superblock::decode(&bytes), GroupHeader::decode(&bytes), EntryHeader::decode(&bytes));
        }
    }
}

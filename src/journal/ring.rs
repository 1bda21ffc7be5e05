//! Where the next group goes, how much room is left, and how a group is put together. Pure.

use super::block::Blocks;
use super::format::{
    BLOCK, ENTRY_HEADER_LEN, EntryHeader, GROUP_HEADER_LEN, GROUPS_AT, GroupHeader, Place, Superblock, crc64,
    first_link,
};
use bytes::Bytes;

/// A ring that takes groups: from the tail to the head lies what recovery would read.
#[derive(Debug)]
pub struct Ring {
    superblock: Superblock,
    head: Place,
}

/// A group that is being put together.
pub struct Group {
    blocks: Blocks,
    /// Header and body so far.
    length: usize,
    entries: u32,
}

/// A group that has its place, ready to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub file_position: u64,
    /// With the padding.
    pub bytes: usize,
    /// The head when it is written.
    after: Place,
}

impl Ring {
    /// The ring as it begins to be used after a start: empty, with a boot of its own, so that nothing older is read again.
    pub fn renewed(before: &Superblock) -> Ring {
        let boot = before.boot + 1;
        let tail = Place { position: 0, sequence: before.tail.sequence, link: first_link(before.ring, boot) };
        let superblock = Superblock { boot, generation: before.generation + 1, tail, clean: false, ..before.clone() };
        Ring { head: superblock.tail, superblock }
    }

    /// What is on disk, or to be written there.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Between the last group that is written and the next.
    pub fn head(&self) -> Place {
        self.head
    }

    /// Bytes that recovery would read.
    pub fn used(&self) -> u64 {
        self.head.position - self.superblock.tail.position
    }

    pub fn bytes(&self) -> u64 {
        self.superblock.bytes
    }

    /// Gives a group its place and its checksums; None: there is no room until the tail moves.
    pub fn place(&self, group: &mut Group) -> Option<Placed> {
        let padded = group.length.next_multiple_of(BLOCK) as u64;
        let area = self.superblock.bytes;
        let left_of_lap = area - self.head.position % area;
        let skipped = if padded > left_of_lap { left_of_lap } else { 0 };
        let position = self.head.position + skipped;
        if position + padded > self.superblock.tail.position + area {
            return None;
        }
        let place = Place { position, ..self.head };
        let link = group.finish(&self.superblock, place);
        let after = Place { position: position + padded, sequence: place.sequence + 1, link };
        Some(Placed { file_position: GROUPS_AT + position % area, bytes: padded as usize, after })
    }

    /// The group is on disk.
    pub fn written(&mut self, placed: Placed) {
        self.head = placed.after;
    }

    /// The superblock that frees everything below `to`; `moved` says that it is on disk.
    pub fn superblock_at(&self, to: Place, clean: bool) -> Superblock {
        let generation = self.superblock.generation + 1;
        Superblock { tail: to, clean, generation, ..self.superblock.clone() }
    }

    pub fn moved(&mut self, superblock: Superblock) {
        debug_assert!(superblock.tail.position <= self.head.position);
        self.superblock = superblock;
    }
}

impl Group {
    pub fn new() -> Group {
        let mut group = Group { blocks: Blocks::default(), length: 0, entries: 0 };
        group.clear();
        group
    }

    pub fn clear(&mut self) {
        (self.length, self.entries) = (GROUP_HEADER_LEN, 0);
    }

    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// How long it would be with another entry of so many bytes.
    pub fn length_with(&self, bytes: usize) -> usize {
        self.length + ENTRY_HEADER_LEN + bytes
    }

    /// `entry.length` is the length of all buffers.
    pub fn push(&mut self, entry: &EntryHeader, buffers: &[Bytes]) {
        debug_assert_eq!(entry.length as usize, buffers.iter().map(Bytes::len).sum::<usize>());
        self.blocks.reserve(self.length_with(entry.length as usize));
        self.append(&entry.encode());
        buffers.iter().for_each(|buffer| self.append(buffer));
        self.entries += 1;
    }

    fn append(&mut self, bytes: &[u8]) {
        self.blocks.bytes_mut()[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// Fills in header and padding; the link to this group.
    fn finish(&mut self, ring: &Superblock, place: Place) -> u64 {
        self.blocks.reserve(self.length);
        let padded = self.length.next_multiple_of(BLOCK);
        let length = self.length;
        let bytes = self.blocks.bytes_mut();
        bytes[length..padded].fill(0);
        let (header, body) = bytes[..length].split_at_mut(GROUP_HEADER_LEN);
        GroupHeader {
            ring: ring.ring,
            boot: ring.boot,
            place,
            // One group is in flight: all before it are whole.
            committed: place.sequence.saturating_sub(1),
            body_bytes: body.len() as u32,
            entries: self.entries,
            body_crc: crc64(body),
        }
        .encode(header);
        crc64(header)
    }

    /// For the write: the blocks leave and come back.
    pub fn take_blocks(&mut self) -> Blocks {
        std::mem::take(&mut self.blocks)
    }

    pub fn give_blocks(&mut self, blocks: Blocks) {
        self.blocks = blocks;
    }
}

impl Default for Group {
    fn default() -> Self {
        Group::new()
    }
}

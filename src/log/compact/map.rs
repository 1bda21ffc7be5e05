//! Where the latest record of each key is: a hash table of a fixed size.
//!
//! An entry is 24 bytes, as Kafka's is, so that `log.cleaner.dedupe.buffer.size` holds as many keys as it does there: 128 bits
//! of hash and the offset. Keys are not compared: two that collide would be taken for one, and the earlier record be lost.
//! Kafka relies on MD5 for it. Here the hash is SipHash-1-3, twice, under keys that are drawn for each pass and leave no trace:
//! nobody can choose record keys that collide, and by chance five million keys have less than one in 10^24 that any two do.

use crate::base::ids::Offset;
use std::hash::{BuildHasher, Hasher, RandomState};

/// Bytes of an entry.
pub const ENTRY_BYTES: usize = size_of::<Entry>();

const _: () = assert!(ENTRY_BYTES == 24);

/// Keys and the offsets of their latest records. Of records that are put in, the last one counts.
pub struct KeyMap {
    /// Robin Hood order: entries of one home lie together, and a search ends as soon as it meets one that is nearer its home.
    slots: Vec<Entry>,
    entries: usize,
    entries_max: usize,
    seeds: [RandomState; 2],
}

#[derive(Clone, Copy)]
struct Entry {
    hash: [u64; 2],
    /// Negative: the slot is empty.
    offset: i64,
}

const EMPTY: Entry = Entry { hash: [0; 2], offset: -1 };

impl KeyMap {
    /// A map of at most `bytes`, of which the share `load_factor` is used; no larger than `keys_max` keys need. It takes one
    /// key at least, so that every pass gets on.
    pub fn new(bytes: u64, load_factor: f64, keys_max: u64, seeds: [RandomState; 2]) -> KeyMap {
        let load = if load_factor > 0.0 { load_factor.min(FULLEST) } else { FULLEST };
        let affordable = bytes / ENTRY_BYTES as u64;
        let needed = ((keys_max as f64 / load).ceil() as u64).saturating_add(1);
        let slots = usize::try_from(affordable.min(needed)).unwrap_or(usize::MAX).max(2);
        let entries_max = ((slots as f64 * load) as usize).clamp(1, slots - 1);
        KeyMap { slots: vec![EMPTY; slots], entries: 0, entries_max, seeds }
    }

    pub fn len(&self) -> usize {
        self.entries
    }

    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// How much of the map is used, from 0 to 1.
    pub fn utilization(&self) -> f64 {
        self.entries as f64 / self.slots.len() as f64
    }

    /// Notes a record. False: the map is full, and the key is not in it.
    pub fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        debug_assert!(offset.0 >= 0);
        let hash = self.hash(key);
        match self.find(hash) {
            Ok(at) => self.slots[at].offset = offset.0,
            Err(_) if self.entries == self.entries_max => return false,
            Err(at) => self.insert(at, Entry { hash, offset: offset.0 }),
        }
        true
    }

    /// The offset of the key's latest record.
    pub fn get(&self, key: &[u8]) -> Option<Offset> {
        self.find(self.hash(key)).ok().map(|at| Offset(self.slots[at].offset))
    }

    /// Where the hash is, or where it would go. There always is an empty slot.
    fn find(&self, hash: [u64; 2]) -> Result<usize, usize> {
        let mut at = self.home(hash);
        let mut distance = 0;
        loop {
            let entry = &self.slots[at];
            if entry.offset < 0 || self.distance(entry, at) < distance {
                return Err(at);
            }
            if entry.hash == hash {
                return Ok(at);
            }
            at = self.after(at);
            distance += 1;
        }
    }

    /// Puts an entry at `at`; those there move on.
    fn insert(&mut self, mut at: usize, mut entry: Entry) {
        self.entries += 1;
        while self.slots[at].offset >= 0 {
            // The one that is nearer its home makes room.
            if self.distance(&self.slots[at], at) < self.distance(&entry, at) {
                std::mem::swap(&mut self.slots[at], &mut entry);
            }
            at = self.after(at);
        }
        self.slots[at] = entry;
    }

    fn home(&self, hash: [u64; 2]) -> usize {
        ((u128::from(hash[0]) * self.slots.len() as u128) >> 64) as usize
    }

    fn distance(&self, entry: &Entry, at: usize) -> usize {
        let home = self.home(entry.hash);
        if at >= home { at - home } else { at + self.slots.len() - home }
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        [0, 1].map(|i| {
            let mut hasher = self.seeds[i].build_hasher();
            hasher.write(key);
            hasher.finish()
        })
    }
}

/// Beyond this, searches become long.
const FULLEST: f64 = 0.95;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn map(bytes: u64, load: f64, keys: u64) -> KeyMap {
        KeyMap::new(bytes, load, keys, [RandomState::new(), RandomState::new()])
    }

    #[test]
    fn the_last_offset_of_each_key_is_found() {
        let mut rng = fastrand::Rng::with_seed(1);
        for round in 0..40 {
            let mut map = map(24 * rng.u64(2..3000), rng.f64(), u64::MAX);
            let mut known: HashMap<Vec<u8>, Offset> = HashMap::new();
            for offset in 0..4000 {
                let key = rng.u32(0..2500).to_be_bytes().to_vec();
                if map.put(&key, Offset(offset)) {
                    known.insert(key, Offset(offset));
                } else {
                    assert!(!known.contains_key(&key), "round {round}: a known key always has its place");
                    assert_eq!(map.len(), map.entries_max);
                }
            }
            assert_eq!(map.len(), known.len());
            for key in 0..2500u32 {
                assert_eq!(map.get(&key.to_be_bytes()), known.get(&key.to_be_bytes()[..]).copied(), "round {round}");
            }
        }
    }

    #[test]
    fn memory_is_bounded_by_the_setting_and_by_the_need() {
        assert_eq!(map(24 * 1000, 0.9, u64::MAX).slots.len(), 1000);
        assert_eq!(map(24 * 1000, 0.9, u64::MAX).entries_max, 900);
        let small = map(128 << 20, 0.9, 9);
        assert_eq!((small.slots.len(), small.entries_max), (11, 9));
        for (bytes, load) in [(0, 0.9), (24, 0.0), (100, 7.0), (48, f64::NAN)] {
            let mut map = map(bytes, load, 5);
            assert!(map.put(b"a", Offset(1)), "one key at least");
        }
    }
}

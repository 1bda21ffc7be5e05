//! Which partition a record goes to, exactly as Java's producer decides: a key's murmur2 hash, and for records without a
//! key one partition at a time ("sticky", KIP-480/KIP-794), so that batches fill.

/// Seed of Kafka's murmur2.
const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;

/// The 32-bit murmur2 that Kafka's Java clients use.
pub fn murmur2(data: &[u8]) -> u32 {
    let mut hash = SEED ^ (data.len() as u32);
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (at, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of a key among `partitions` (at least 1): the hash without its sign, modulo.
pub fn partition_of_key(key: &[u8], partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has at least one partition");
    ((murmur2(key) & 0x7fff_ffff) % partitions as u32) as i32
}

/// Keeps records without keys in one partition until a batch's worth went there, then moves on.
#[derive(Debug)]
pub struct Sticky {
    current: i32,
    bytes: usize,
    switch_after_bytes: usize,
}

impl Sticky {
    /// `first` is any number: where to begin.
    pub fn new(first: i32, switch_after_bytes: usize) -> Sticky {
        Sticky { current: first.checked_abs().unwrap_or(0), bytes: 0, switch_after_bytes }
    }

    /// The partition for a record of this size among `available` (not empty): those that have a leader.
    pub fn next(&mut self, bytes: usize, available: &[i32]) -> i32 {
        if self.bytes >= self.switch_after_bytes {
            self.bytes = 0;
            self.current = self.current.wrapping_add(1).max(0);
        }
        self.bytes += bytes;
        let at = self.current as usize % available.len();
        *available.get(at).expect("invariant: a modulo of the length")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own UtilsTest.testMurmur2.
    #[test]
    fn murmur2_gives_javas_values() {
        let cases: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (text, expected) in cases {
            assert_eq!(murmur2(text.as_bytes()) as i32, expected, "{text}");
        }
    }

    #[test]
    fn a_key_always_lands_in_range() {
        for n in 0..2000u32 {
            let key = n.to_be_bytes();
            let p = partition_of_key(&key, 7);
            assert!((0..7).contains(&p));
            assert_eq!(p, partition_of_key(&key, 7));
        }
        assert_eq!(partition_of_key(b"", 1), 0);
    }

    #[test]
    fn records_without_a_key_fill_one_batch_before_they_move_on() {
        let mut sticky = Sticky::new(5, 100);
        let available = [0, 2, 3];
        let seen: Vec<i32> = (0..6).map(|_| sticky.next(50, &available)).collect();
        assert_eq!(seen, [3, 3, 0, 0, 2, 2]);
    }
}

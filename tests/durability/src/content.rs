//! What the producers write: batches that can be told apart, and built again, from who wrote them and their number.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use corelog::record::batch::{BatchHeader, PREFIX_LEN};
use corelog::record::builder::BatchBuilder;
use corelog::record::compression::Compression;
use corelog::record::records::Records;
use std::hash::{DefaultHasher, Hasher};

/// One batch in the world: its writer, the slot (see `world`) of its partition, and its number among those of that writer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub writer: u32,
    pub slot: u32,
    pub number: u32,
}

/// An idempotent producer's id and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub id: i64,
    pub epoch: i16,
}

/// A batch as it was found in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub base: i64,
    pub next: i64,
    pub name: Name,
    pub hash: u64,
}

const KEY_BYTES: usize = 16;
/// Most records are small; some batches span many sectors and pages.
const VALUE_BYTES: [usize; 8] = [20, 100, 100, 300, 300, 700, 4_000, 30_000];
const RECORDS_MAX: usize = 6;

/// Builds a batch; its content follows from seed and name alone. Returns the number of its records too.
pub fn build(seed: u64, name: Name, idempotent: Option<(Identity, i32)>) -> (Bytes, i32) {
    let mut random = fastrand::Rng::with_seed(seed ^ u64::from(name.writer) << 48 ^ u64::from(name.slot) << 32);
    let mut random = fastrand::Rng::with_seed(random.u64(..) ^ u64::from(name.number));
    let records = random.usize(1..=RECORDS_MAX);
    let bytes = VALUE_BYTES[random.usize(..VALUE_BYTES.len())];
    let mut builder = BatchBuilder::new(Compression::NONE);
    if let Some((identity, sequence)) = idempotent {
        builder = builder.producer(identity.id, identity.epoch, sequence);
    }
    let mut value = vec![0; bytes];
    for record in 0..records as u32 {
        random.fill(&mut value);
        let mut key = Vec::with_capacity(KEY_BYTES);
        for part in [name.writer, name.slot, name.number, record] {
            key.extend_from_slice(&part.to_be_bytes());
        }
        builder
            .push(1_700_000_000_000 + i64::from(name.number), Some(&key), Some(&value), &[])
            .expect("a small record");
    }
    (builder.build().expect("a small batch"), records as i32)
}

/// Of all that the broker must keep: everything but base offset, length and leader epoch.
pub fn hash(batch: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(&batch[PREFIX_LEN..]);
    hasher.finish()
}

/// Reads who wrote a batch; its checksum must be right.
pub fn identify(header: &BatchHeader, bytes: &[u8]) -> Result<Found> {
    let base = header.base_offset.0;
    if !header.crc_matches(bytes) {
        bail!("offset {base}: the checksum does not match");
    }
    let mut records = Records::new(header, bytes).with_context(|| format!("offset {base}"))?;
    let record = records.next()?.with_context(|| format!("offset {base}: a batch without a record"))?;
    let key: [u8; KEY_BYTES] = record.key.unwrap_or_default().try_into().context("a key that nobody wrote")?;
    let part = |at: usize| u32::from_be_bytes([key[at], key[at + 1], key[at + 2], key[at + 3]]);
    let name = Name { writer: part(0), slot: part(4), number: part(8) };
    Ok(Found { base, next: header.next_offset().0, name, hash: hash(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog::record::batch::walk;

    #[test]
    fn a_batch_is_built_alike_and_tells_its_name() {
        let name = Name { writer: 3, slot: 1, number: 70_000 };
        let (bytes, records) = build(9, name, Some((Identity { id: 5, epoch: 1 }, 12)));
        assert_eq!((bytes.clone(), records), build(9, name, Some((Identity { id: 5, epoch: 1 }, 12))));
        let found = walk(&bytes).next().expect("a batch").expect("that can be read");
        let told = identify(&found.header, found.bytes).expect("its own name");
        assert_eq!((told.name, told.next, told.hash), (name, i64::from(records), hash(&bytes)));
        let mut broken = bytes.to_vec();
        *broken.last_mut().expect("not empty") ^= 1;
        assert!(identify(&found.header, &broken).is_err());
    }
}

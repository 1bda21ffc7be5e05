//! Tests of the whole room: what they share is here.

mod admission;
mod batches;
mod compression;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;

use super::batch::{ATTRIBUTES_AT, BatchHeader, CRC_AT, Codec, crc32c};
use super::builder::BatchBuilder;
use super::compression::Compression;
use super::records::{Records, RecordsError};

/// A record that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Owned {
    pub fn new(timestamp: i64, key: &str, value: &str) -> Owned {
        Owned { timestamp, key: Some(key.into()), value: Some(value.into()), headers: Vec::new() }
    }
}

pub fn any_codec() -> impl Strategy<Value = Codec> {
    proptest::sample::select(Codec::ALL.to_vec())
}

pub fn any_record() -> impl Strategy<Value = Owned> {
    let field = || weighted(0.8, vec(any::<u8>(), 0..40));
    let timestamp = prop_oneof![Just(-1), 0..i64::MAX, 1_600_000_000_000..1_700_000_000_000_i64];
    (timestamp, field(), field(), vec(("[a-z]{0,5}", field()), 0..4))
        .prop_map(|(timestamp, key, value, headers)| Owned { timestamp, key, value, headers })
}

pub fn any_records() -> impl Strategy<Value = Vec<Owned>> {
    vec(any_record(), 1..20)
}

pub fn builder(codec: Codec, records: &[Owned]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(Compression::of(codec));
    for record in records {
        let headers: Vec<_> = record.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        builder.push(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers).expect("fits");
    }
    builder
}

pub fn batch(codec: Codec, records: &[Owned]) -> Bytes {
    builder(codec, records).build().expect("builds")
}

/// The batch's records and their offsets.
pub fn read(batch: &[u8]) -> Result<Vec<(i64, Owned)>, RecordsError> {
    let header = BatchHeader::parse(batch).expect("a header");
    let mut records = Records::new(&header, batch)?;
    let mut all = Vec::new();
    while let Some(record) = records.next()? {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8 as written");
        let owned = Owned {
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.iter().map(|h| (text(h.key), h.value.map(<[u8]>::to_vec))).collect(),
        };
        all.push((record.offset.0, owned));
    }
    Ok(all)
}

pub fn numbered(records: &[Owned]) -> Vec<(i64, Owned)> {
    (0..).zip(records.iter().cloned()).collect()
}

/// The batch after a change to its bytes, with a CRC that is right again: what a hostile client would send.
pub fn forged(batch: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = batch.to_vec();
    change(&mut bytes);
    let crc = crc32c(&bytes[ATTRIBUTES_AT..]);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(bytes)
}

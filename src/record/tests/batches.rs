//! Headers, the walk, and the reader of records.

use proptest::prelude::*;

use super::*;
use crate::base::config::topic::TimestampType;
use crate::base::ids::{LeaderEpoch, Offset};
use crate::base::limits::DECOMPRESS_CHUNK_BYTES;
use crate::record::batch::{BatchError, CorruptAt, PREFIX_LEN, increment_sequence, patch_prefix, walk};
use crate::record::builder::BuildError;
use crate::record::records::{RecordFault, first_at_or_after, greatest_from};

#[test]
fn crc_is_castagnoli() {
    // The check value that every catalogue of CRCs gives for CRC-32C.
    assert_eq!(crc32c(b"123456789"), 0xE306_9283);
}

#[test]
fn a_header_says_what_the_builder_was_told() {
    let mut builder = BatchBuilder::new(Compression::of(Codec::Lz4))
        .producer(4711, 3, i32::MAX - 1)
        .placed(Offset(1000), LeaderEpoch(7))
        .transactional();
    for timestamp in [500, 900, 100] {
        builder.push(timestamp, Some(b"k"), None, &[("h", Some(b"v"))]).unwrap();
    }
    let bytes = builder.build().unwrap();
    let header = BatchHeader::parse(&bytes).unwrap();
    assert_eq!(header.total_len(), bytes.len());
    assert!(header.crc_matches(&bytes));
    assert_eq!(
        (header.base_offset, header.last_offset(), header.next_offset()),
        (Offset(1000), Offset(1002), Offset(1003))
    );
    assert_eq!((header.base_timestamp, header.max_timestamp), (500, 900));
    assert_eq!((header.producer_id, header.producer_epoch), (4711, 3));
    assert_eq!(header.last_sequence(), 0, "sequences wrap from i32::MAX to 0");
    assert_eq!((header.partition_leader_epoch, header.record_count), (7, 3));
    assert_eq!((header.codec(), header.timestamp_type()), (Some(Codec::Lz4), TimestampType::CreateTime));
    assert!(header.is_transactional() && !header.is_control() && !header.has_delete_horizon());
}

#[test]
fn sequences_wrap_as_the_producer_counts_them() {
    assert_eq!(increment_sequence(i32::MAX, 1), 0);
    assert_eq!(increment_sequence(i32::MAX - 3, 10), 6);
    assert_eq!(increment_sequence(5, 10), 15);
}

#[test]
fn the_prefix_can_be_patched_without_touching_the_crc() {
    let mut bytes = batch(Codec::None, &[Owned::new(1, "k", "v")]).to_vec();
    let length = i32::try_from(bytes.len() - 12).unwrap();
    let prefix: &mut [u8; PREFIX_LEN] = bytes.first_chunk_mut().unwrap();
    patch_prefix(prefix, Offset(1 << 40), length, LeaderEpoch(9));
    let header = BatchHeader::parse(&bytes).unwrap();
    assert_eq!((header.base_offset, header.partition_leader_epoch), (Offset(1 << 40), 9));
    assert!(header.crc_matches(&bytes));
    assert_eq!(read(&bytes).unwrap()[0].0, 1 << 40);
}

#[test]
fn the_builder_refuses_what_the_format_cannot_hold() {
    assert_eq!(BatchBuilder::new(Compression::NONE).build(), Err(BuildError::Empty));
    let mut builder = BatchBuilder::new(Compression::NONE);
    builder.push_at(5, 0, None, None, &[]).unwrap();
    assert_eq!(builder.push_at(5, 0, None, None, &[]), Err(BuildError::OffsetOrder { found: 5, last: 5 }));
    builder.push_at(i32::MAX, 0, None, None, &[]).unwrap();
    assert_eq!(builder.push(0, None, None, &[]), Err(BuildError::TooLarge));
    let offsets: Vec<i64> = read(&builder.build().unwrap()).unwrap().into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(offsets, [5, i64::from(i32::MAX)]);
}

#[test]
fn under_log_append_time_every_record_has_the_brokers_time() {
    let bytes =
        builder(Codec::Gzip, &[Owned::new(1, "a", "a"), Owned::new(2, "b", "b")]).log_append_time(77).build().unwrap();
    assert!(read(&bytes).unwrap().iter().all(|(_, record)| record.timestamp == 77));
}

#[test]
fn a_record_is_found_by_its_time() {
    let records: Vec<_> = [10, 30, 20, 30].into_iter().map(|t| Owned::new(t, "k", "v")).collect();
    for codec in Codec::ALL {
        let bytes = batch(codec, &records);
        let header = BatchHeader::parse(&bytes).unwrap();
        let find = |timestamp, from| first_at_or_after(&header, &bytes, timestamp, Offset(from)).unwrap();
        assert_eq!(find(15, 0), Some((30, Offset(1))));
        assert_eq!(find(15, 2), Some((20, Offset(2))), "records before the log start offset are passed over");
        assert_eq!(find(31, 0), None);
        let greatest = |from| greatest_from(&header, &bytes, Offset(from)).unwrap();
        assert_eq!(greatest(0), Some((30, Offset(1))), "the first of several");
        assert_eq!((greatest(2), greatest(4)), (Some((30, Offset(3))), None));
    }
}

#[test]
fn hostile_record_counts_end_at_the_bytes_that_are_there() {
    for codec in Codec::ALL {
        let good = batch(codec, &[Owned::new(1, "k", "v"), Owned::new(2, "k", "v")]);
        let with_count = |count: i32| forged(&good, |bytes| bytes[57..61].copy_from_slice(&count.to_be_bytes()));
        assert_eq!(read(&with_count(i32::MAX)), Err(RecordsError::Ended { index: 2, count: i32::MAX }));
        assert_eq!(read(&with_count(1)), Err(RecordsError::Trailing { count: 1 }));
        assert_eq!(read(&with_count(-1)), Err(RecordsError::NegativeCount { found: -1 }));
    }
}

#[test]
fn a_declared_length_allocates_nothing() {
    // A record that claims 2 GiB, alone in its batch.
    let mut claim = Vec::new();
    crate::record::records::write_varint(&mut claim, i32::MAX);
    claim.extend_from_slice(&[0; 64]);
    for codec in Codec::ALL {
        let good = batch(codec, &[Owned::new(1, "k", "v")]);
        let body = crate::record::compression::compress(Compression::of(codec), &claim).unwrap();
        let bytes = forged(&good, |bytes| {
            bytes.truncate(BatchHeader::LEN);
            bytes.extend_from_slice(&body);
            let length = (bytes.len() - 12) as u32;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
        });
        assert_eq!(read(&bytes), Err(RecordsError::Ended { index: 0, count: 1 }));
    }
}

#[test]
fn malformed_records_are_named() {
    // length, attributes, timestamp delta, offset delta, key length, value length, header count
    let cases: [(&[u8], RecordFault); 7] = [
        (&[1, 0, 0, 0, 1, 1, 0], RecordFault::NegativeLength { found: -1 }),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], RecordFault::Varint),
        (&[12, 0, 0, 0, 20, 1, 0], RecordFault::Overrun),
        (&[12, 0, 0, 0, 1, 1, 3], RecordFault::HeaderCount { found: -2 }),
        (&[12, 0, 0, 0, 1, 1, 8], RecordFault::HeaderCount { found: 4 }),
        (&[16, 0, 0, 0, 1, 1, 2, 1, 1], RecordFault::HeaderKey { found: -1 }),
        (&[14, 0, 0, 0, 1, 1, 0, 0], RecordFault::Unused { left: 1 }),
    ];
    for (body, fault) in cases {
        let good = batch(Codec::None, &[Owned::new(1, "k", "v")]);
        let bytes = forged(&good, |bytes| {
            bytes.truncate(BatchHeader::LEN);
            bytes.extend_from_slice(body);
            let length = (bytes.len() - 12) as u32;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
        });
        assert_eq!(read(&bytes), Err(RecordsError::Malformed { index: 0, fault }), "{body:?}");
        assert_eq!(shapes(&bytes), Err(RecordsError::Malformed { index: 0, fault }), "{body:?}");
    }
}

#[test]
fn records_larger_than_a_chunk_are_read_and_skipped_alike() {
    let large =
        |seed: u8, len: usize| Some((0..len).map(|i| seed.wrapping_add(((i * i) >> 7) as u8)).collect::<Vec<u8>>());
    let records = [
        Owned::new(1, "small", "before"),
        Owned { timestamp: 2, key: large(1, 5), value: large(2, DECOMPRESS_CHUNK_BYTES * 5), headers: vec![] },
        Owned { timestamp: 3, key: large(3, DECOMPRESS_CHUNK_BYTES + 1), value: None, headers: vec![] },
        Owned {
            timestamp: 4,
            key: None,
            value: None,
            headers: vec![("h".into(), large(4, 200_000)), ("n".into(), None)],
        },
        Owned::new(5, "small", "after"),
    ];
    for codec in Codec::ALL {
        let bytes = batch(codec, &records);
        assert_eq!(read(&bytes).unwrap(), numbered(&records), "{codec:?}");
        assert_eq!(shapes(&bytes).unwrap(), shapes_of(&records), "{codec:?}");
    }
}

#[test]
fn a_walk_tells_a_cut_batch_from_a_corrupt_one() {
    let first = batch(Codec::None, &[Owned::new(1, "a", "one")]);
    let second = batch(Codec::Zstd, &[Owned::new(2, "b", "two"), Owned::new(3, "c", "three")]);
    let both = [&first[..], &second[..]].concat();

    let mut whole = walk(&both);
    let found: Vec<_> = whole.by_ref().map(|batch| batch.map(|b| (b.at, b.bytes.len()))).collect();
    assert_eq!(found, [Ok((0, first.len())), Ok((first.len(), second.len()))]);
    assert_eq!((whole.consumed(), whole.missing()), (both.len(), None));

    for cut in first.len() + 1..both.len() {
        let mut cut_walk = walk(&both[..cut]);
        assert_eq!(cut_walk.by_ref().filter(Result::is_ok).count(), 1);
        assert_eq!(cut_walk.consumed(), first.len());
        let missing = cut_walk.missing().expect("a batch has begun");
        let exact = both.len() - cut;
        let known = cut - first.len() >= 12;
        assert!(if known { missing == exact } else { missing <= exact }, "cut {cut}: {missing} of {exact}");
    }

    // A preallocated file ends in zeros.
    let zeros = [&first[..], &[0; 100]].concat();
    let mut zero_walk = walk(&zeros);
    assert!(zero_walk.next().is_some_and(|batch| batch.is_ok()));
    let corrupt = CorruptAt { at: first.len(), error: BatchError::Length { found: 0 } };
    assert_eq!(zero_walk.next().map(|batch| batch.map(|_| ())), Some(Err(corrupt)));
    assert!(zero_walk.next().is_none() && zero_walk.missing().is_none());

    let mut old = both.clone();
    old[16] = 1;
    assert_eq!(walk(&old).next().unwrap().unwrap_err(), CorruptAt { at: 0, error: BatchError::Magic { found: 1 } });
    assert_eq!(
        walk(&old[..20]).next().unwrap().unwrap_err().error,
        BatchError::Magic { found: 1 },
        "no more bytes would help"
    );
}

/// Offset delta, timestamp and the two lengths of every record.
type Shape = (i32, i64, i32, i32);

fn shapes(batch: &[u8]) -> Result<Vec<Shape>, RecordsError> {
    let header = BatchHeader::parse(batch).expect("a header");
    let mut records = Records::new(&header, batch)?;
    let mut all = Vec::new();
    while let Some(record) = records.next_shape()? {
        all.push((record.offset_delta, record.timestamp, record.key_length, record.value_length));
    }
    Ok(all)
}

fn shapes_of(records: &[Owned]) -> Vec<Shape> {
    let length = |field: &Option<Vec<u8>>| field.as_ref().map_or(-1, |bytes| bytes.len() as i32);
    (0..).zip(records).map(|(delta, r)| (delta, r.timestamp, length(&r.key), length(&r.value))).collect()
}

/// kafka-protocol's own encoder, as an independent witness of the format.
fn encoded_by_kafka_protocol(records: &[Owned]) -> Bytes {
    use kafka_protocol::indexmap::IndexMap;
    use kafka_protocol::protocol::StrBytes;
    use kafka_protocol::records as theirs;
    let records: Vec<_> = (0..)
        .zip(records)
        .map(|(offset, record)| theirs::Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: theirs::TimestampType::Creation,
            offset,
            sequence: offset as i32,
            timestamp: record.timestamp,
            key: record.key.clone().map(Bytes::from),
            value: record.value.clone().map(Bytes::from),
            headers: record
                .headers
                .iter()
                .map(|(key, value)| (StrBytes::from_string(key.clone()), value.clone().map(Bytes::from)))
                .collect::<IndexMap<_, _>>(),
        })
        .collect();
    let mut to = bytes::BytesMut::new();
    let options = theirs::RecordEncodeOptions { version: 2, compression: theirs::Compression::None };
    theirs::RecordBatchEncoder::encode(&mut to, &records, &options).expect("encodes");
    to.freeze()
}

proptest! {
    #[test]
    fn batches_round_trip(codec in any_codec(), records in any_records()) {
        let bytes = batch(codec, &records);
        let header = BatchHeader::parse(&bytes).unwrap();
        prop_assert!(header.crc_matches(&bytes));
        prop_assert_eq!(header.total_len(), bytes.len());
        prop_assert_eq!(read(&bytes).unwrap(), numbered(&records));
        prop_assert_eq!(shapes(&bytes).unwrap(), shapes_of(&records));
        let mut again = [0; BatchHeader::LEN];
        header.write(&mut again);
        prop_assert_eq!(&again[..], &bytes[..BatchHeader::LEN]);
    }

    #[test]
    fn batches_of_another_implementation_are_read(mut records in any_records()) {
        for record in &mut records {
            // Theirs is a map, and it takes timestamps within an i32 of each other.
            record.headers.dedup_by(|a, b| a.0 == b.0);
            record.headers.truncate(1);
            record.timestamp = record.timestamp.rem_euclid(1 << 30);
        }
        let bytes = encoded_by_kafka_protocol(&records);
        let header = BatchHeader::parse(&bytes).unwrap();
        prop_assert!(header.crc_matches(&bytes));
        prop_assert_eq!(read(&bytes).unwrap(), numbered(&records));
    }

    #[test]
    fn no_bytes_make_the_readers_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = BatchHeader::parse(&bytes);
        for batch in walk(&bytes).flatten() {
            let _ = shapes(batch.bytes);
        }
    }

    #[test]
    fn a_cut_batch_is_never_read_whole(codec in any_codec(), records in any_records(), at in any::<proptest::sample::Index>()) {
        let bytes = batch(codec, &records);
        let header = BatchHeader::parse(&bytes).unwrap();
        let cut = &bytes[..at.index(bytes.len())];
        prop_assert!(!header.crc_matches(cut));
        let incomplete = matches!(Records::new(&header, cut), Err(RecordsError::Incomplete { .. }));
        prop_assert!(incomplete);
        prop_assert!(walk(cut).next().is_none());
    }

    /// Damage that a CRC does not show: both readers find the same, and neither panics.
    #[test]
    fn forged_records_are_judged_alike_whether_read_or_skipped(
        codec in any_codec(),
        records in any_records(),
        changes in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let good = batch(codec, &records);
        let bytes = forged(&good, |bytes| {
            for (at, byte) in changes {
                let at = BatchHeader::LEN - 4 + at.index(bytes.len() - BatchHeader::LEN + 4);
                bytes[at] = byte;
            }
        });
        let header = BatchHeader::parse(&bytes).expect("lengths were left alone");
        let mut full = Vec::new();
        let outcome = Records::new(&header, &bytes).and_then(|mut records| {
            while let Some(record) = records.next()? {
                full.push(record.timestamp);
            }
            Ok(())
        });
        match shapes(&bytes) {
            Ok(shapes) => {
                prop_assert_eq!(outcome, Ok(()));
                prop_assert_eq!(full, shapes.iter().map(|shape| shape.1).collect::<Vec<_>>());
            }
            // A record that both ends too early and has a field that is too long is told as the one by who reads it whole, as the
            // other by who skips through it: what counts is that both refuse it.
            Err(error) => prop_assert!(outcome.is_err(), "only skipping found {error}"),
        }
    }
}

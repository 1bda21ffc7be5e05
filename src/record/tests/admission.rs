//! What a leader lets in, clause by clause.

use kafka_protocol::ResponseError;
use proptest::prelude::*;

use super::*;
use crate::base::config::topic::{CleanupPolicy, CompressionType, TimestampType, TopicConfig};
use crate::base::ids::{Offset, PartitionIndex};
use crate::base::limits::{DECOMPRESSED_BATCH_BYTES_MAX, RECORD_ERRORS_MAX};
use crate::record::admission::{AdmissionError, AdmissionRules, Admitted, RecordError, Scope, admit, check_request};
use crate::record::compression::Encoder;

const NOW: i64 = 1_700_000_000_000;

fn rules(config: &TopicConfig) -> AdmissionRules<'_> {
    AdmissionRules {
        topic: "events",
        partition: PartitionIndex(3),
        config,
        produce_version: 11,
        validate_records: true,
    }
}

fn admit_to(config: &TopicConfig, records: &Bytes) -> Result<Admitted, AdmissionError> {
    admit(records, &rules(config), NOW)
}

fn refused(config: &TopicConfig, records: &Bytes) -> AdmissionError {
    let error = admit_to(config, records).expect_err("must be refused");
    assert!(!error.message.is_empty());
    error
}

fn two_records() -> Vec<Owned> {
    vec![Owned::new(NOW - 10, "a", "one"), Owned::new(NOW - 20, "b", "two")]
}

fn compacted() -> TopicConfig {
    TopicConfig { cleanup_policy: CleanupPolicy { delete: false, compact: true }, ..TopicConfig::default() }
}

fn with_compression(compression_type: CompressionType) -> TopicConfig {
    TopicConfig { compression_type, ..TopicConfig::default() }
}

fn log_append_time() -> TopicConfig {
    TopicConfig { message_timestamp_type: TimestampType::LogAppendTime, ..TopicConfig::default() }
}

#[test]
fn a_batch_that_need_not_change_is_the_requests_own_bytes() {
    for codec in Codec::ALL {
        let records = batch(codec, &two_records());
        let admitted = admit_to(&TopicConfig::default(), &records).unwrap();
        assert_eq!(admitted.bytes.as_ptr(), records.as_ptr(), "no copy");
        assert_eq!((admitted.bytes.len(), admitted.rewritten), (records.len(), false));
        assert_eq!((admitted.max_timestamp, admitted.log_append_time_ms), (NOW - 10, -1));
        assert_eq!(admitted.offset_of_max_timestamp(Offset(100)), Offset(101), "the batch's last offset");
    }
}

#[test]
fn a_partial_batch_behind_the_batch_is_cut_off() {
    let whole = batch(Codec::None, &two_records());
    let records = Bytes::from([&whole[..], &whole[..40]].concat());
    assert_eq!(admit_to(&TopicConfig::default(), &records).unwrap().bytes, whole);
}

#[test]
fn exactly_one_v2_batch_is_wanted() {
    let config = TopicConfig::default();
    let one = batch(Codec::None, &two_records());
    let code = |records: &[u8]| {
        let error = refused(&config, &Bytes::copy_from_slice(records));
        (error.code, error.scope, error.error_message().is_some())
    };
    assert_eq!(code(&[]), (ResponseError::InvalidRecord, Scope::Partition, false));
    assert_eq!(code(&one[..one.len() - 1]), (ResponseError::InvalidRecord, Scope::Partition, false));
    assert_eq!(code(&[&one[..], &one[..]].concat()), (ResponseError::InvalidRecord, Scope::Partition, false));

    let mut old = one.to_vec();
    old[16] = 1;
    assert_eq!(code(&old), (ResponseError::InvalidRecord, Scope::Partition, false));
    old[16] = 3;
    assert_eq!(code(&old), (ResponseError::CorruptMessage, Scope::Request, true));
    assert_eq!(code(&[&one[..], &old[..]].concat()), (ResponseError::CorruptMessage, Scope::Partition, false));
    let mut short = one.to_vec();
    short[8..12].copy_from_slice(&13_i32.to_be_bytes());
    assert_eq!(code(&short), (ResponseError::CorruptMessage, Scope::Request, true));
    short[8..12].copy_from_slice(&48_i32.to_be_bytes());
    assert_eq!(code(&short[..60]), (ResponseError::CorruptMessage, Scope::Batch, false));
}

#[test]
fn zstd_needs_produce_version_7() {
    let zstd = batch(Codec::Zstd, &two_records());
    assert_eq!(check_request(&zstd, 6).unwrap_err().code, ResponseError::UnsupportedCompressionType);
    assert!(check_request(&zstd, 7).is_ok());
    assert!(check_request(&batch(Codec::Lz4, &two_records()), 3).is_ok());
}

#[test]
fn header_faults_have_kafkas_codes() {
    use ResponseError::{InvalidRecord, UnknownServerError};
    let config = TopicConfig::default();
    let good = batch(Codec::None, &two_records());
    let cases: [(usize, &[u8], ResponseError, &str); 8] = [
        (0, &1_i64.to_be_bytes(), InvalidRecord, "base offset"),
        (21, &[0, 5], UnknownServerError, "codec 5"),
        (21, &[0, 0x20], InvalidRecord, "control"),
        (23, &(-1_i32).to_be_bytes(), InvalidRecord, "last offset delta"),
        (23, &2_i32.to_be_bytes(), InvalidRecord, "does not fit"),
        (57, &0_i32.to_be_bytes(), InvalidRecord, "record count 0"),
        (57, &3_i32.to_be_bytes(), InvalidRecord, "does not fit"),
        (43, &7_i64.to_be_bytes(), InvalidRecord, "base sequence -1 of producer 7"),
    ];
    for (at, field, code, words) in cases {
        let error = refused(&config, &forged(&good, |bytes| bytes[at..at + field.len()].copy_from_slice(field)));
        assert_eq!((error.code, error.scope), (code, Scope::Log), "{error}");
        assert!(error.message.contains(words), "{error}");
        assert_eq!(error.error_message(), None, "Kafka tells the code only");
    }
}

#[test]
fn transactional_batches_are_left_to_the_caller() {
    let records = builder(Codec::None, &two_records()).producer(1, 0, 0).transactional().build().unwrap();
    let admitted = admit_to(&TopicConfig::default(), &records).unwrap();
    assert!(admitted.header.is_transactional());
}

#[test]
fn sizes_are_bounded_before_and_after_recompression() {
    let value = "x".repeat(10_000);
    let records = [Owned::new(NOW, "k", &value)];
    let plain = batch(Codec::None, &records);
    let packed = batch(Codec::Zstd, &records);
    let limit = |bytes: usize, compression_type| TopicConfig {
        max_message_bytes: bytes as u32,
        compression_type,
        ..TopicConfig::default()
    };
    let (keep, unpack) = (CompressionType::Producer, CompressionType::Uncompressed);
    assert!(admit_to(&limit(plain.len(), keep), &plain).is_ok());
    let error = refused(&limit(plain.len() - 1, keep), &plain);
    assert_eq!((error.code, error.scope), (ResponseError::MessageTooLarge, Scope::Batch));
    assert!(admit_to(&limit(packed.len(), keep), &packed).is_ok());
    assert_eq!(refused(&limit(packed.len(), unpack), &packed).code, ResponseError::MessageTooLarge);
    assert_eq!(admit_to(&limit(plain.len(), unpack), &packed).unwrap().bytes.len(), plain.len());

    let segment = TopicConfig { segment_bytes: plain.len() as u32 - 1, ..TopicConfig::default() };
    assert_eq!(refused(&segment, &plain).code, ResponseError::RecordListTooLarge);
}

#[test]
fn a_wrong_max_timestamp_is_put_right() {
    let good = batch(Codec::Gzip, &two_records());
    let wrong = forged(&good, |bytes| bytes[35..43].copy_from_slice(&i64::MAX.to_be_bytes()));
    let admitted = admit_to(&TopicConfig::default(), &wrong).unwrap();
    assert_eq!(admitted.bytes, good);
    assert!(admitted.rewritten);

    let config = TopicConfig::default();
    let trusting = AdmissionRules { validate_records: false, ..rules(&config) };
    assert_eq!(admit(&wrong, &trusting, NOW).unwrap().max_timestamp, i64::MAX, "unless the header is believed");
}

#[test]
fn timestamps_out_of_range_are_listed() {
    let config = TopicConfig {
        message_timestamp_before_max_ms: 1000,
        message_timestamp_after_max_ms: 500,
        ..TopicConfig::default()
    };
    let at = |delta: i64| Owned::new(NOW + delta, "k", "v");
    let none = Owned::new(-1, "k", "without a timestamp there is nothing to check");
    for codec in Codec::ALL {
        assert!(admit_to(&config, &batch(codec, &[at(-1000), at(500), none.clone()])).is_ok());
        let error = refused(&config, &batch(codec, &[at(-1001), at(0), at(501)]));
        assert_eq!(error.code, ResponseError::InvalidTimestamp);
        assert_eq!(error.error_message(), Some("One or more records have been rejected due to invalid timestamp"));
        let (low, high) = (NOW - 1000, NOW + 500);
        let message = |offset: i32, timestamp: i64| RecordError {
            batch_index: offset,
            message: format!(
                "Timestamp {timestamp} of message with offset {offset} is out of range. \
                 The timestamp should be within [{low}, {high}]"
            ),
        };
        assert_eq!(error.record_errors, [message(0, NOW - 1001), message(2, NOW + 501)]);
    }
    let trusting = AdmissionRules { validate_records: false, ..rules(&config) };
    assert!(admit(&batch(Codec::None, &[at(501)]), &trusting, NOW).is_err(), "a bound that was set is kept");
}

#[test]
fn a_compacted_topic_wants_keys() {
    let keyless = Owned { key: None, ..Owned::new(NOW, "", "v") };
    let records = [Owned::new(NOW, "k", "v"), keyless.clone(), Owned::new(NOW, "", "an empty key is a key"), keyless];
    for codec in Codec::ALL {
        let error = refused(&compacted(), &batch(codec, &records));
        assert_eq!((error.code, error.tells_log_start_offset()), (ResponseError::InvalidRecord, true));
        assert_eq!(error.record_errors.iter().map(|e| e.batch_index).collect::<Vec<_>>(), [1, 3]);
        let one = "Compacted topic cannot accept message without key in topic partition events-3";
        assert_eq!(error.record_errors[0].message, one);
        let whole = format!(
            "One or more records have been rejected due to 2 record errors in total, and only showing the first three \
             errors at most: [RecordError(batchIndex=1, message='{one}'), RecordError(batchIndex=3, message='{one}')]"
        );
        assert_eq!(error.error_message(), Some(whole.as_str()));
    }
}

#[test]
fn record_errors_are_counted_beyond_those_listed() {
    let keyless = Owned { key: None, ..Owned::new(NOW, "", "") };
    let error = refused(&compacted(), &batch(Codec::Zstd, &vec![keyless; RECORD_ERRORS_MAX + 5]));
    assert_eq!(error.record_errors.len(), RECORD_ERRORS_MAX);
    assert!(error.message.contains("due to 1005 record errors in total"), "{error}");
}

#[test]
fn offset_deltas_must_count_up() {
    for codec in [Codec::None, Codec::Snappy] {
        let mut gap = BatchBuilder::new(Compression::of(codec));
        for delta in [0, 2] {
            gap.push_at(delta, NOW, Some(b"k"), None, &[]).unwrap();
        }
        let gap = gap.build().unwrap();
        // Two records that claim a range of two, the second one outside of it.
        let error = refused(
            &TopicConfig::default(),
            &forged(&gap, |bytes| bytes[23..27].copy_from_slice(&1_i32.to_be_bytes())),
        );
        assert_eq!(error.code, ResponseError::InvalidRecord);
        assert_eq!(error.record_errors[0].batch_index, 1);
    }
}

#[test]
fn log_append_time_stamps_the_batch() {
    for codec in Codec::ALL {
        let admitted = admit_to(&log_append_time(), &batch(codec, &two_records())).unwrap();
        assert!(admitted.header.crc_matches(&admitted.bytes));
        assert_eq!(admitted.header.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(
            (admitted.max_timestamp, admitted.log_append_time_ms, admitted.header.max_timestamp),
            (NOW, NOW, NOW)
        );
        assert!(read(&admitted.bytes).unwrap().iter().all(|(_, record)| record.timestamp == NOW));
    }
}

#[test]
fn producers_may_not_stamp_in_the_brokers_stead() {
    let stamped = builder(Codec::None, &two_records()).log_append_time(NOW - 5).build().unwrap();
    let error = refused(&log_append_time(), &stamped);
    assert_eq!(error.code, ResponseError::InvalidTimestamp);
    assert_eq!(
        error.record_errors[0].message,
        format!(
            "Invalid timestamp type in message DefaultRecord(offset=0, timestamp={}, key=1 bytes, value=3 bytes). \
             Producer should not set timestamp type to LogAppendTime.",
            NOW - 5
        )
    );
    let packed = builder(Codec::Lz4, &two_records()).log_append_time(NOW - 5).build().unwrap();
    let error = refused(&log_append_time(), &packed);
    assert!(error.record_errors[0].message.contains("PartialDefaultRecord(offset=0"), "{error:?}");

    // Where the topic keeps creation times, Kafka lets it pass and takes the flag away.
    let admitted = admit_to(&TopicConfig::default(), &stamped).unwrap();
    assert_eq!(admitted.header.timestamp_type(), TimestampType::CreateTime);
    assert_eq!(admitted.max_timestamp, NOW - 5);
}

#[test]
fn damaged_compression_is_told_apart_from_damaged_records() {
    let config = TopicConfig::default();
    for codec in Codec::ALL.into_iter().skip(1) {
        let garbage = forged(&batch(codec, &two_records()), |bytes| bytes[BatchHeader::LEN..].fill(0xee));
        assert_eq!(refused(&config, &garbage).code, ResponseError::UnknownServerError, "{codec:?}");
    }
    let garbage = forged(&batch(Codec::None, &two_records()), |bytes| bytes[BatchHeader::LEN..].fill(0xee));
    assert_eq!(refused(&config, &garbage).code, ResponseError::InvalidRecord);
}

#[test]
fn a_decompression_bomb_is_refused() {
    let good = batch(Codec::Zstd, &[Owned::new(NOW, "k", "v")]);
    let mut encoder =
        Encoder::new(Compression::of(Codec::Zstd), good[..BatchHeader::LEN].to_vec(), usize::MAX).unwrap();
    let mut record = Vec::new();
    super::super::records::write_varint(&mut record, DECOMPRESSED_BATCH_BYTES_MAX as i32 + 12);
    record.extend_from_slice(&[0, 0, 0, 1]);
    super::super::records::write_varint(&mut record, DECOMPRESSED_BATCH_BYTES_MAX as i32);
    encoder.write(&record).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..DECOMPRESSED_BATCH_BYTES_MAX / zeros.len() {
        encoder.write(&zeros).unwrap();
    }
    let bomb = forged(&encoder.finish().unwrap(), |bytes| {
        let length = (bytes.len() - 12) as u32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
    });
    assert!(bomb.len() < 100_000, "small on the wire: {}", bomb.len());
    assert_eq!(refused(&TopicConfig::default(), &bomb).code, ResponseError::MessageTooLarge);
}

fn any_compression_type() -> impl Strategy<Value = CompressionType> {
    proptest::sample::select(vec![
        CompressionType::Producer,
        CompressionType::Uncompressed,
        CompressionType::Gzip { level: -1 },
        CompressionType::Snappy,
        CompressionType::Lz4 { level: 9 },
        CompressionType::Zstd { level: 3 },
    ])
}

proptest! {
    #[test]
    fn what_is_admitted_holds_the_same_records(
        codec in any_codec(),
        compression_type in any_compression_type(),
        records in any_records(),
        validate_records in any::<bool>(),
    ) {
        let config = with_compression(compression_type);
        let sent = builder(codec, &records).producer(9, 1, 40).build().unwrap();
        let rules = AdmissionRules { validate_records, ..rules(&config) };
        let admitted = admit(&sent, &rules, NOW).unwrap();
        let header = BatchHeader::parse(&admitted.bytes).unwrap();
        prop_assert_eq!(header, admitted.header);
        prop_assert_eq!(header.total_len(), admitted.bytes.len());
        prop_assert!(header.crc_matches(&admitted.bytes));
        prop_assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (9, 1, 40));
        prop_assert_eq!(header.max_timestamp, records.iter().map(|r| r.timestamp).max().unwrap());
        prop_assert_eq!(read(&admitted.bytes).unwrap(), numbered(&records));
        let target = match compression_type {
            CompressionType::Producer => codec,
            CompressionType::Uncompressed => Codec::None,
            CompressionType::Gzip { .. } => Codec::Gzip,
            CompressionType::Snappy => Codec::Snappy,
            CompressionType::Lz4 { .. } => Codec::Lz4,
            CompressionType::Zstd { .. } => Codec::Zstd,
        };
        prop_assert_eq!(header.codec(), Some(target));
        prop_assert_eq!(admitted.rewritten, target != codec);
    }

    /// Outside of the leader epoch, which the leader overwrites, no bit may differ from what the client sent.
    #[test]
    fn a_flipped_bit_is_refused(codec in any_codec(), records in any_records(), at in any::<proptest::sample::Index>(), bit in 0..8) {
        let mut bytes = batch(codec, &records).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let outcome = admit_to(&TopicConfig::default(), &Bytes::from(bytes));
        prop_assert_eq!(outcome.is_ok(), (12..16).contains(&at), "byte {}", at);
    }

    #[test]
    fn no_bytes_make_admission_panic(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(admit_to(&TopicConfig::default(), &Bytes::from(bytes)).is_err());
    }

    /// A client that computes its CRCs right may still send anything: what is let in can be read.
    #[test]
    fn what_is_admitted_can_be_read(
        codec in any_codec(),
        records in any_records(),
        changes in vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let sent = forged(&batch(codec, &records), |bytes| {
            for (at, byte) in changes {
                let at = ATTRIBUTES_AT + at.index(bytes.len() - ATTRIBUTES_AT);
                bytes[at] = byte;
            }
        });
        if let Ok(admitted) = admit_to(&TopicConfig::default(), &sent) {
            let header = BatchHeader::parse(&admitted.bytes).unwrap();
            prop_assert!(header.crc_matches(&admitted.bytes));
            let mut reader = Records::new(&header, &admitted.bytes).unwrap();
            let mut offset = 0;
            while let Some(record) = reader.next().unwrap() {
                prop_assert_eq!(record.offset, Offset(offset));
                offset += 1;
            }
            prop_assert_eq!(offset, i64::from(header.record_count));
        }
    }
}

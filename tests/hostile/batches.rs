//! Record batches that lie: about their checksum, their lengths, their size when they are decompressed.

use crate::Besieged;
use crate::wire::{Client, batch, create_topic, produce, read_all};
use bytes::Bytes;
use corelog::base::ids::Offset;
use corelog::record::batch::{BatchHeader, Codec, crc32c};
use corelog::record::compression::{Compression, Encoder};

const ATTRIBUTES_AT: usize = 21;
const CORRUPT_MESSAGE: i16 = 2;
const INVALID_RECORD: i16 = 87;
const MESSAGE_TOO_LARGE: i16 = 10;
const UNSUPPORTED_FOR_MESSAGE_FORMAT: i16 = 43;
/// For the bit that says "transactional": transactions are refused before anything else is looked at.
const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;

/// Recomputes the checksum: what lies is then the header, not the line.
fn sealed(mut bytes: Vec<u8>) -> Bytes {
    let crc = crc32c(&bytes[ATTRIBUTES_AT..]).to_be_bytes();
    bytes[17..21].copy_from_slice(&crc);
    Bytes::from(bytes)
}

#[test]
fn a_batch_with_a_flipped_bit_is_never_stored() {
    let besieged = Besieged::start();
    let leader = create_topic(&besieged.broker, "flipped", 1, &[])[0];
    let mut client = Client::connect(leader);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let whole = batch(7, 5, 100);
    let mut stored = 0;
    for round in 0..600 {
        let mut bytes = whole.to_vec();
        let at = random.usize(..bytes.len());
        bytes[at] ^= 1 << random.u32(..8);
        // Base offset and leader epoch are the broker's to set, so Kafka's checksum leaves them out.
        let is_free = at < 8 || (12..16).contains(&at);
        match produce(&mut client, "flipped", 0, 1, Bytes::from(bytes)) {
            Ok(_) => {
                assert!(is_free, "round {round}: byte {at} was changed and nobody noticed");
                stored += 1;
            }
            Err(code) => {
                let known = [
                    CORRUPT_MESSAGE,
                    INVALID_RECORD,
                    MESSAGE_TOO_LARGE,
                    UNSUPPORTED_FOR_MESSAGE_FORMAT,
                    TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
                ];
                assert!(known.contains(&code), "round {round}: byte {at} gave error {code}");
            }
        }
    }
    assert_eq!(read_all(&mut client, "flipped", 0).len(), stored);
    besieged.end();
}

#[test]
fn lengths_and_counts_that_lie_are_refused() {
    let besieged = Besieged::start();
    let leader = create_topic(&besieged.broker, "lies", 1, &[])[0];
    let mut client = Client::connect(leader);
    let whole = batch(7, 5, 100);
    // Where the field lies, and what it says instead.
    let lies: [(usize, &[u8]); 8] = [
        (8, &(-1i32).to_be_bytes()),
        (8, &i32::MAX.to_be_bytes()),
        (8, &0i32.to_be_bytes()),
        (57, &i32::MAX.to_be_bytes()),
        (57, &(-1i32).to_be_bytes()),
        (57, &0i32.to_be_bytes()),
        (23, &i32::MAX.to_be_bytes()),
        (61, &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
    ];
    for (at, lie) in lies {
        let mut bytes = whole.to_vec();
        bytes[at..at + lie.len()].copy_from_slice(lie);
        let refused = produce(&mut client, "lies", 0, 1, sealed(bytes));
        assert!(refused.is_err(), "{lie:?} at {at} was taken: {refused:?}");
    }
    assert_eq!(produce(&mut client, "lies", 0, 1, whole), Ok(0), "the connection still serves");
    besieged.assert_memory(1, false);
    besieged.end();
}

/// A batch of one record whose value is `zeros` bytes of 0, which compress to next to nothing.
fn bomb(codec: Codec, zeros: usize) -> Bytes {
    let varint = |to: &mut Vec<u8>, number: i64| {
        let mut rest = ((number << 1) ^ (number >> 63)) as u64;
        while rest >= 0x80 {
            to.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        to.push(rest as u8);
    };
    // Attributes, timestamp delta, offset delta, no key.
    let mut record = vec![0, 0, 0, 1];
    varint(&mut record, zeros as i64);
    let mut start = Vec::new();
    varint(&mut start, (record.len() + zeros + 1) as i64);
    start.extend(record);
    let mut encoder = Encoder::new(Compression::of(codec), vec![0; BatchHeader::LEN], 1 << 30).expect("an encoder");
    encoder.write(&start).expect("compressed");
    let chunk = vec![0; 1 << 20];
    for at in (0..zeros).step_by(chunk.len()) {
        encoder.write(&chunk[..chunk.len().min(zeros - at)]).expect("compressed");
    }
    // No headers.
    encoder.write(&[0]).expect("compressed");
    let mut bytes = encoder.finish().expect("compressed");
    let header = BatchHeader {
        base_offset: Offset(0),
        batch_length: bytes.len() as i32 - 12,
        partition_leader_epoch: -1,
        magic: 2,
        crc: 0,
        attributes: i16::from(codec.id()),
        last_offset_delta: 0,
        base_timestamp: 1_700_000_000_000,
        max_timestamp: 1_700_000_000_000,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: 1,
    };
    header.write(bytes.first_chunk_mut().expect("room was made"));
    sealed(bytes)
}

#[test]
fn compression_bombs_are_opened_a_little_at_a_time() {
    let besieged = Besieged::start();
    let leaders = create_topic(&besieged.broker, "bombs", 2, &[("max.message.bytes", "20000000")]);
    // Above what one batch may grow to: refused. Below it: as in Kafka, what is large only when decompressed is stored.
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let (too_large, large) = (bomb(codec, 300 << 20), bomb(codec, 100 << 20));
        println!("{codec:?}: {} KiB for 300 MiB", too_large.len() >> 10);
        let senders: Vec<_> = (0..4)
            .map(|n| {
                let (leader, too_large, large) = (leaders[n % 2], too_large.clone(), large.clone());
                std::thread::spawn(move || {
                    let mut client = Client::connect(leader);
                    let refused = produce(&mut client, "bombs", (n % 2) as i32, 1, too_large);
                    assert!(refused.is_err(), "{codec:?}: 300 MiB were taken");
                    let taken = produce(&mut client, "bombs", (n % 2) as i32, 1, large);
                    assert!(taken.is_ok(), "{codec:?}: {taken:?}");
                })
            })
            .collect();
        while senders.iter().any(|sender| !sender.is_finished()) {
            besieged.assert_memory(4, false);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        senders.into_iter().for_each(|sender| sender.join().expect("the sender of bombs"));
    }
    besieged.end();
}

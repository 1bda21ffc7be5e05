//! The codecs by themselves.

use proptest::prelude::*;

use super::*;
use crate::record::compression::{CompressionError, compress, decompress};

const NO_CAP: usize = 64 << 20;

fn compressible(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7 % 251) as u8 ^ (i / 1000) as u8).collect()
}

#[test]
fn every_level_of_every_codec_comes_back() {
    let bytes = compressible(200_000);
    let levels = [
        (Codec::Gzip, vec![-1, 1, 6, 9]),
        (Codec::Lz4, vec![1, 2, 9, 12, 17]),
        (Codec::Zstd, vec![-131_072, -1, 1, 3, 19]),
    ];
    for (codec, levels) in levels {
        for level in levels {
            let packed = compress(Compression { codec, level }, &bytes).unwrap();
            assert_eq!(decompress(codec, &packed, NO_CAP).unwrap(), bytes, "{codec:?} {level}");
        }
    }
}

#[test]
fn snappy_is_written_as_java_writes_it() {
    let bytes = compressible(70_000);
    let packed = compress(Compression::of(Codec::Snappy), &bytes).unwrap();
    assert_eq!(packed[..16], *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
    let mut rest = &packed[16..];
    let mut blocks = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let (block, after) = after.split_at(u32::from_be_bytes(*len) as usize);
        blocks.push(snap::raw::Decoder::new().decompress_vec(block).unwrap());
        rest = after;
    }
    assert_eq!(blocks.iter().map(Vec::len).collect::<Vec<_>>(), [32768, 32768, 4464]);
    assert_eq!(blocks.concat(), bytes);
}

#[test]
fn snappy_is_read_raw_as_librdkafka_sends_it() {
    for len in [1, 100, 65_536, 300_000] {
        let bytes = compressible(len);
        let raw = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
        assert_eq!(decompress(Codec::Snappy, &raw, NO_CAP).unwrap(), bytes);
    }
}

#[test]
fn concatenated_streams_are_read_on_where_kafkas_clients_do() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Zstd] {
        let one = compress(Compression::of(codec), b"one ").unwrap();
        let two = compress(Compression::of(codec), b"two").unwrap();
        assert_eq!(decompress(codec, &[one, two].concat(), NO_CAP).unwrap(), b"one two", "{codec:?}");
    }
}

#[test]
fn lz4_is_one_frame_of_independent_blocks_without_checksums() {
    let packed = compress(Compression::of(Codec::Lz4), &compressible(200_000)).unwrap();
    // Magic, then flags: version 1, independent blocks; then 64 KiB blocks.
    assert_eq!(packed[..6], [0x04, 0x22, 0x4d, 0x18, 0b0110_0000, 0b0100_0000]);
}

#[test]
fn lz4_that_java_consumers_could_not_read_is_refused() {
    use std::io::Write;
    let mut linked = lz4::EncoderBuilder::new().block_mode(lz4::BlockMode::Linked).build(Vec::new()).unwrap();
    linked.write_all(&compressible(100_000)).unwrap();
    let (linked, ended) = linked.finish();
    ended.unwrap();
    let refused = decompress(Codec::Lz4, &linked, NO_CAP).unwrap_err();
    assert!(refused.to_string().contains("dependent blocks"), "{refused}");
    let refused = decompress(Codec::Lz4, b"not lz4 at all", NO_CAP).unwrap_err();
    assert!(refused.to_string().contains("not an LZ4 frame"), "{refused}");
}

#[test]
fn output_beyond_the_cap_is_refused() {
    let bytes = compressible(1 << 20);
    for codec in Codec::ALL {
        let packed = compress(Compression::of(codec), &bytes).unwrap();
        assert_eq!(decompress(codec, &packed, bytes.len()).unwrap().len(), bytes.len());
        let cap = bytes.len() - 1;
        assert_eq!(decompress(codec, &packed, cap), Err(CompressionError::TooLarge { codec, cap }));
    }
}

#[test]
fn a_snappy_block_cannot_declare_more_than_it_could_hold() {
    // 1 GiB declared, nothing behind it.
    let error = decompress(Codec::Snappy, &[0x80, 0x80, 0x80, 0x80, 0x04, 0x00], 2 << 30).unwrap_err();
    assert!(matches!(error, CompressionError::Damaged { codec: Codec::Snappy, .. }), "{error}");
}

proptest! {
    #[test]
    fn bytes_round_trip(codec in any_codec(), bytes in vec(any::<u8>(), 0..2000), repeat in 0_usize..100) {
        let bytes = bytes.repeat(repeat);
        let packed = compress(Compression::of(codec), &bytes).unwrap();
        prop_assert_eq!(decompress(codec, &packed, NO_CAP).unwrap(), bytes);
    }

    #[test]
    fn cut_data_never_passes_for_whole(codec in any_codec(), len in 1_usize..100_000, at in any::<proptest::sample::Index>()) {
        let bytes = compressible(len);
        let packed = compress(Compression::of(codec), &bytes).unwrap();
        // An LZ4 frame's end mark and a gzip trailer hold no data, yet their lack must be noticed.
        let outcome = decompress(codec, &packed[..at.index(packed.len())], NO_CAP);
        if let Ok(outcome) = outcome {
            prop_assert!(outcome.len() < bytes.len());
        }
    }

    #[test]
    fn garbage_is_refused_or_bounded(codec in any_codec(), bytes in vec(any::<u8>(), 0..500), start in 0_usize..8) {
        let head = compress(Compression::of(codec), b"x").unwrap();
        let bytes = [&head[..start.min(head.len())], &bytes[..]].concat();
        if let Ok(out) = decompress(codec, &bytes, 1 << 20) {
            prop_assert!(out.len() <= 1 << 20);
        }
    }
}

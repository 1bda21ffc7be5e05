//! The codecs of record batches: gzip, snappy, lz4 and zstd, as Kafka's clients write and read them.
//!
//! - **gzip**: RFC 1952, several members may follow one another.
//! - **snappy**: Java writes *xerial* framing around raw snappy blocks, librdkafka one raw block; both are read, xerial is
//!   written. Integers are big-endian:
//!   ```text
//!    0                  8            12           16          20
//!   +------------------+------------+------------+-----------+---------------+---
//!   | 82 'SNAPPY' 00   | version i32| compatible | block     | raw snappy    | next block …
//!   |                  |          1 | with i32 1 | bytes i32 | block         |
//!   +------------------+------------+------------+-----------+---------------+---
//!   ```
//! - **lz4**: one LZ4 frame of independent blocks. Kafka's Java clients can read no other, so no other is taken in.
//! - **zstd** (KIP-110): frames one after another.
//!
//! Output is bounded both ways: a decompressor stops at its cap, an encoder at its. Nothing is allocated because of what
//! compressed bytes declare, except where their own number bounds it.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};

use thiserror::Error;
use zstd::stream::raw::{DParameter, InBuffer, Operation, OutBuffer};

use super::batch::Codec;
use crate::base::limits::{DECOMPRESS_CHUNK_BYTES, ZSTD_KEPT_BYTES_MAX, ZSTD_WINDOW_LOG_MAX};

/// A codec and its level (KIP-390, KIP-780). None and snappy have no level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    pub codec: Codec,
    /// gzip: -1 (default), 1 to 9; lz4: 1 to 17, where 9, the default, is the fast compressor; zstd: -131072 to 22.
    /// Beyond the range the nearest level is taken.
    pub level: i32,
}

impl Compression {
    pub const NONE: Compression = Compression { codec: Codec::None, level: 0 };

    /// Kafka's default level of the codec.
    pub fn of(codec: Codec) -> Compression {
        let level = match codec {
            Codec::None | Codec::Snappy => 0,
            Codec::Gzip => -1,
            Codec::Lz4 => 9,
            Codec::Zstd => 3,
        };
        Compression { codec, level }
    }
}

/// Why bytes could not be compressed or decompressed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompressionError {
    #[error("{} data is damaged: {reason}", codec.name())]
    Damaged { codec: Codec, reason: String },
    #[error("{} data ends too early", codec.name())]
    Truncated { codec: Codec },
    #[error("{} data exceeds {cap} bytes", codec.name())]
    TooLarge { codec: Codec, cap: usize },
}

/// Compresses `bytes` whole.
pub fn compress(how: Compression, bytes: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let mut encoder = Encoder::new(how, Vec::new(), usize::MAX)?;
    encoder.write(bytes)?;
    encoder.finish()
}

/// Decompresses `bytes` whole, to at most `cap` bytes.
pub fn decompress(codec: Codec, bytes: &[u8], cap: usize) -> Result<Vec<u8>, CompressionError> {
    let mut from = Decompressor::new(codec, bytes, cap)?;
    let mut out = Vec::new();
    let mut len = 0;
    loop {
        if out.len() - len < DECOMPRESS_CHUNK_BYTES {
            out.resize((out.len() * 2).max(DECOMPRESS_CHUNK_BYTES), 0);
        }
        match from.read(&mut out[len..])? {
            0 => break,
            more => len += more,
        }
    }
    out.truncate(len);
    Ok(out)
}

/// Compresses a stream behind what already is in a buffer, such as a batch's header.
pub struct Encoder {
    codec: Codec,
    len_max: usize,
    inner: EncoderKind,
}

enum EncoderKind {
    None(CappedVec),
    Gzip(flate2::write::GzEncoder<CappedVec>),
    Snappy(Box<XerialEncoder>),
    Lz4(lz4::Encoder<CappedVec>),
    Zstd(zstd::stream::write::Encoder<'static, CappedVec>),
}

impl Encoder {
    /// Appends to `out`, whose total length must not exceed `len_max` bytes.
    pub fn new(how: Compression, out: Vec<u8>, len_max: usize) -> Result<Encoder, CompressionError> {
        let codec = how.codec;
        let sink = CappedVec { bytes: out, len_max };
        let inner = match codec {
            Codec::None => Ok(EncoderKind::None(sink)),
            Codec::Gzip => Ok(EncoderKind::Gzip(flate2::write::GzEncoder::new(sink, gzip_level(how.level)))),
            Codec::Snappy => XerialEncoder::new(sink).map(|encoder| EncoderKind::Snappy(Box::new(encoder))),
            Codec::Lz4 => lz4_encoder(how.level, sink).map(EncoderKind::Lz4),
            Codec::Zstd => {
                zstd::stream::write::Encoder::new(sink, how.level.clamp(-131_072, 22)).map(EncoderKind::Zstd)
            }
        };
        let inner = inner.map_err(|error| write_error(codec, len_max, &error))?;
        Ok(Encoder { codec, len_max, inner })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), CompressionError> {
        let written = match &mut self.inner {
            EncoderKind::None(to) => to.write_all(bytes),
            EncoderKind::Gzip(to) => to.write_all(bytes),
            EncoderKind::Snappy(to) => to.write_all(bytes),
            EncoderKind::Lz4(to) => to.write_all(bytes),
            EncoderKind::Zstd(to) => to.write_all(bytes),
        };
        written.map_err(|error| write_error(self.codec, self.len_max, &error))
    }

    /// Ends the stream; the buffer holds what it held before and the compressed bytes.
    pub fn finish(self) -> Result<Vec<u8>, CompressionError> {
        let sink = match self.inner {
            EncoderKind::None(to) => Ok(to),
            EncoderKind::Gzip(to) => to.finish(),
            EncoderKind::Snappy(to) => to.finish(),
            EncoderKind::Lz4(to) => {
                let (sink, ended) = to.finish();
                ended.map(|()| sink)
            }
            EncoderKind::Zstd(to) => to.finish(),
        };
        Ok(sink.map_err(|error| write_error(self.codec, self.len_max, &error))?.bytes)
    }
}

/// Reads compressed bytes as a stream of at most `cap` bytes.
pub struct Decompressor<'a> {
    codec: Codec,
    cap: usize,
    left: usize,
    inner: DecompressorKind<'a>,
}

enum DecompressorKind<'a> {
    None(&'a [u8]),
    Gzip(Box<flate2::bufread::MultiGzDecoder<&'a [u8]>>),
    Snappy(SnappyDecoder<'a>),
    Lz4(Option<Box<lz4::Decoder<&'a [u8]>>>),
    Zstd(ZstdDecoder<'a>),
}

impl<'a> Decompressor<'a> {
    pub fn new(codec: Codec, bytes: &'a [u8], cap: usize) -> Result<Decompressor<'a>, CompressionError> {
        let inner = match codec {
            Codec::None => DecompressorKind::None(bytes),
            Codec::Gzip => DecompressorKind::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(bytes))),
            Codec::Snappy => DecompressorKind::Snappy(SnappyDecoder::new(bytes)),
            Codec::Lz4 => {
                check_lz4_frame(bytes)?;
                let decoder = lz4::Decoder::new(bytes).map_err(|error| read_error(codec, &error))?;
                DecompressorKind::Lz4(Some(Box::new(decoder)))
            }
            Codec::Zstd => DecompressorKind::Zstd(ZstdDecoder::new(bytes)?),
        };
        Ok(Decompressor { codec, cap, left: cap, inner })
    }

    /// Fills `out` as far as one step goes. 0: the stream has ended as it should, or `out` is empty.
    /// A stream that breaks off, is damaged or exceeds the cap is an error.
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize, CompressionError> {
        if out.is_empty() {
            return Ok(0);
        }
        let codec = self.codec;
        let read = match &mut self.inner {
            DecompressorKind::None(from) => from.read(out).map_err(|error| read_error(codec, &error))?,
            DecompressorKind::Gzip(from) => from.read(out).map_err(|error| read_error(codec, &error))?,
            DecompressorKind::Snappy(from) => from.read(out, self.left, self.cap)?,
            DecompressorKind::Lz4(from) => read_lz4(from, out)?,
            DecompressorKind::Zstd(from) => from.read(out)?,
        };
        match self.left.checked_sub(read) {
            Some(left) => self.left = left,
            None => return Err(CompressionError::TooLarge { codec, cap: self.cap }),
        }
        Ok(read)
    }
}

/// A vector that refuses to grow beyond a length.
struct CappedVec {
    bytes: Vec<u8>,
    len_max: usize,
}

impl Write for CappedVec {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.len_max.saturating_sub(self.bytes.len()) {
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_error(codec: Codec, cap: usize, error: &io::Error) -> CompressionError {
    match error.kind() {
        ErrorKind::FileTooLarge => CompressionError::TooLarge { codec, cap },
        _ => CompressionError::Damaged { codec, reason: error.to_string() },
    }
}

fn read_error(codec: Codec, error: &io::Error) -> CompressionError {
    match error.kind() {
        ErrorKind::UnexpectedEof => CompressionError::Truncated { codec },
        _ => CompressionError::Damaged { codec, reason: error.to_string() },
    }
}

fn gzip_level(level: i32) -> flate2::Compression {
    match u32::try_from(level) {
        Ok(level) => flate2::Compression::new(level.clamp(1, 9)),
        Err(_) => flate2::Compression::default(),
    }
}

/// Independent blocks of 64 KiB without checksums, as Java writes them.
fn lz4_encoder(level: i32, sink: CappedVec) -> io::Result<lz4::Encoder<CappedVec>> {
    // Java takes its fast compressor at the default level and the high-compression one at every other.
    let level = if level == Compression::of(Codec::Lz4).level { 0 } else { level.clamp(2, 12) as u32 };
    lz4::EncoderBuilder::new()
        .level(level)
        .block_size(lz4::BlockSize::Max64KB)
        .block_mode(lz4::BlockMode::Independent)
        .block_checksum(lz4::liblz4::BlockChecksum::NoBlockChecksum)
        .checksum(lz4::ContentChecksum::NoChecksum)
        .build(sink)
}

const LZ4_MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();

/// Java's reader wants version 1, independent blocks, no dictionary, and no skippable frame before.
fn check_lz4_frame(bytes: &[u8]) -> Result<(), CompressionError> {
    const VERSION_MASK: u8 = 0b1100_0000;
    const VERSION_1: u8 = 0b0100_0000;
    const INDEPENDENT: u8 = 0b0010_0000;
    const RESERVED: u8 = 0b0000_0011;
    let damaged = |reason: &str| Err(CompressionError::Damaged { codec: Codec::Lz4, reason: reason.into() });
    let Some((magic, rest)) = bytes.split_first_chunk::<4>() else {
        return Err(CompressionError::Truncated { codec: Codec::Lz4 });
    };
    if *magic != LZ4_MAGIC {
        return damaged("not an LZ4 frame");
    }
    let Some(&flags) = rest.first() else {
        return Err(CompressionError::Truncated { codec: Codec::Lz4 });
    };
    if flags & VERSION_MASK != VERSION_1 || flags & RESERVED != 0 {
        return damaged("unsupported frame flags");
    }
    if flags & INDEPENDENT == 0 {
        return damaged("dependent blocks, which Kafka's clients cannot read");
    }
    Ok(())
}

/// None once the frame has ended. What follows the frame is ignored, as Java does.
fn read_lz4(from: &mut Option<Box<lz4::Decoder<&[u8]>>>, out: &mut [u8]) -> Result<usize, CompressionError> {
    let Some(decoder) = from else {
        return Ok(0);
    };
    let read = decoder.read(out).map_err(|error| read_error(Codec::Lz4, &error))?;
    if read == 0 {
        // The decoder tells only at its end whether the end mark was seen.
        let (_, ended) = from.take().expect("present, as matched above").finish();
        ended.map_err(|_| CompressionError::Truncated { codec: Codec::Lz4 })?;
    }
    Ok(read)
}

const XERIAL_MAGIC: [u8; 8] = *b"\x82SNAPPY\x00";
const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01";

/// Uncompressed bytes of a block that we write; snappy-java's default.
const XERIAL_BLOCK_BYTES: usize = 32 << 10;

/// Snappy's copies make at most 64 bytes out of 3, so a block cannot really hold more than this many times its own bytes.
const SNAPPY_RATIO_MAX: usize = 22;

struct XerialEncoder {
    sink: CappedVec,
    block: Vec<u8>,
    compressed: Vec<u8>,
    snappy: snap::raw::Encoder,
}

impl XerialEncoder {
    fn new(mut sink: CappedVec) -> io::Result<XerialEncoder> {
        sink.write_all(&XERIAL_HEADER)?;
        let compressed = vec![0; snap::raw::max_compress_len(XERIAL_BLOCK_BYTES)];
        let block = Vec::with_capacity(XERIAL_BLOCK_BYTES);
        Ok(XerialEncoder { sink, block, compressed, snappy: snap::raw::Encoder::new() })
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = XERIAL_BLOCK_BYTES - self.block.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == XERIAL_BLOCK_BYTES {
                self.write_block()?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<CappedVec> {
        self.write_block()?;
        Ok(self.sink)
    }

    fn write_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let len = self.snappy.compress(&self.block, &mut self.compressed).map_err(io::Error::other)?;
        self.sink.write_all(&(len as u32).to_be_bytes())?;
        self.sink.write_all(&self.compressed[..len])?;
        self.block.clear();
        Ok(())
    }
}

/// Reads xerial framing or, where its magic is missing, one raw block.
struct SnappyDecoder<'a> {
    rest: &'a [u8],
    framed: bool,
    snappy: snap::raw::Decoder,
    /// A block that was too large for the caller's buffer, and how much of it was handed out.
    block: Vec<u8>,
    given: usize,
}

impl<'a> SnappyDecoder<'a> {
    fn new(bytes: &'a [u8]) -> SnappyDecoder<'a> {
        let framed = bytes.len() >= XERIAL_HEADER.len() && bytes.starts_with(&XERIAL_MAGIC);
        let rest = if framed { &bytes[XERIAL_HEADER.len()..] } else { bytes };
        SnappyDecoder { rest, framed, snappy: snap::raw::Decoder::new(), block: Vec::new(), given: 0 }
    }

    fn read(&mut self, out: &mut [u8], left: usize, cap: usize) -> Result<usize, CompressionError> {
        loop {
            if self.given < self.block.len() {
                let len = out.len().min(self.block.len() - self.given);
                out[..len].copy_from_slice(&self.block[self.given..self.given + len]);
                self.given += len;
                return Ok(len);
            }
            let Some(compressed) = self.next_block()? else {
                return Ok(0);
            };
            let len = snap::raw::decompress_len(compressed).map_err(snappy_error)?;
            if len > compressed.len().saturating_mul(SNAPPY_RATIO_MAX) {
                return Err(snappy_error("a block declares more bytes than it can hold"));
            }
            if len > left {
                return Err(CompressionError::TooLarge { codec: Codec::Snappy, cap });
            }
            if let Some(whole) = out.get_mut(..len).filter(|whole| !whole.is_empty()) {
                return self.snappy.decompress(compressed, whole).map_err(snappy_error);
            }
            self.block.resize(len, 0);
            self.given = 0;
            self.snappy.decompress(compressed, &mut self.block).map_err(snappy_error)?;
        }
    }

    fn next_block(&mut self) -> Result<Option<&'a [u8]>, CompressionError> {
        if !self.framed {
            let block = std::mem::take(&mut self.rest);
            return Ok(Some(block).filter(|block| !block.is_empty()));
        }
        // Streams may be concatenated; snappy-java skips the inner headers too.
        while self.rest.starts_with(&XERIAL_MAGIC) {
            self.rest =
                self.rest.get(XERIAL_HEADER.len()..).ok_or(CompressionError::Truncated { codec: Codec::Snappy })?;
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let truncated = CompressionError::Truncated { codec: Codec::Snappy };
        let Some((len, rest)) = self.rest.split_first_chunk::<4>() else {
            return Err(truncated);
        };
        let len = u32::from_be_bytes(*len) as usize;
        let Some((block, rest)) = rest.split_at_checked(len) else {
            return Err(truncated);
        };
        self.rest = rest;
        Ok(Some(block))
    }
}

fn snappy_error(reason: impl ToString) -> CompressionError {
    CompressionError::Damaged { codec: Codec::Snappy, reason: reason.to_string() }
}

/// Reads zstd frames with a context that the thread keeps: creating one costs more than a small batch.
struct ZstdDecoder<'a> {
    rest: &'a [u8],
    in_frame: bool,
    /// Of the stream so far: the window has taken no more memory than that.
    written: usize,
    context: Option<zstd::stream::raw::Decoder<'static>>,
}

thread_local! {
    static ZSTD_CONTEXT: RefCell<Option<zstd::stream::raw::Decoder<'static>>> = const { RefCell::new(None) };
    static CHUNK: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

impl<'a> ZstdDecoder<'a> {
    fn new(bytes: &'a [u8]) -> Result<ZstdDecoder<'a>, CompressionError> {
        let damaged = |error: io::Error| read_error(Codec::Zstd, &error);
        let context = match ZSTD_CONTEXT.take() {
            Some(mut kept) => {
                kept.reinit().map_err(damaged)?;
                kept
            }
            None => {
                let mut fresh = zstd::stream::raw::Decoder::new().map_err(damaged)?;
                fresh.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).map_err(damaged)?;
                fresh
            }
        };
        Ok(ZstdDecoder { rest: bytes, in_frame: false, written: 0, context: Some(context) })
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, CompressionError> {
        let context = self.context.as_mut().expect("taken only when dropped");
        loop {
            if self.rest.is_empty() && !self.in_frame {
                return Ok(0);
            }
            let mut input = InBuffer::around(self.rest);
            let mut output = OutBuffer::around(&mut *out);
            let wanted = context.run(&mut input, &mut output).map_err(|error| read_error(Codec::Zstd, &error))?;
            let (used, written) = (input.pos(), output.pos());
            self.rest = &self.rest[used..];
            self.in_frame = wanted > 0;
            self.written += written;
            if written > 0 {
                return Ok(written);
            }
            if used == 0 && self.in_frame {
                return Err(CompressionError::Truncated { codec: Codec::Zstd });
            }
        }
    }
}

impl Drop for ZstdDecoder<'_> {
    fn drop(&mut self) {
        let kept = self.context.take().filter(|_| self.written <= ZSTD_KEPT_BYTES_MAX);
        ZSTD_CONTEXT.set(kept);
    }
}

/// A buffer of [`DECOMPRESS_CHUNK_BYTES`] that the thread keeps between batches.
pub(super) fn take_chunk() -> Vec<u8> {
    CHUNK.take().unwrap_or_else(|| vec![0; DECOMPRESS_CHUNK_BYTES])
}

/// Gives the buffer back, unless a large record made it grow.
pub(super) fn return_chunk(chunk: Vec<u8>) {
    if chunk.len() == DECOMPRESS_CHUNK_BYTES {
        CHUNK.set(Some(chunk));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of one raw block with one byte, that declares a window of so many bits.
    fn frame_with_window(log: u8) -> Vec<u8> {
        let descriptor = (log - 10) << 3;
        [&0xfd2f_b528_u32.to_le_bytes()[..], &[0, descriptor], &[0b1001, 0, 0], b"x"].concat()
    }

    #[test]
    fn windows_of_every_level_are_taken_and_no_larger_ones() {
        for log in [10, 21, 23, 27] {
            assert_eq!(decompress(Codec::Zstd, &frame_with_window(log), 10), Ok(b"x".to_vec()), "{log} bits");
        }
        let refused = decompress(Codec::Zstd, &frame_with_window(28), 10).expect_err("refused");
        assert!(matches!(refused, CompressionError::Damaged { codec: Codec::Zstd, .. }), "{refused}");
    }

    /// The context that a thread keeps held the largest window that it had ever filled: up to 128 MiB in each shard.
    #[test]
    fn a_context_with_a_large_window_is_not_kept() {
        let zeros = |len: usize| compress(Compression { codec: Codec::Zstd, level: 22 }, &vec![0; len]).expect("fits");
        for (len, is_kept) in [(1000, true), (ZSTD_KEPT_BYTES_MAX + 1, false), (1000, true)] {
            let out = decompress(Codec::Zstd, &zeros(len), len).expect("whole");
            assert_eq!(out.len(), len);
            let kept = ZSTD_CONTEXT.take();
            assert_eq!(kept.is_some(), is_kept, "after {len} bytes");
            ZSTD_CONTEXT.set(kept);
        }
    }
}

//! Record batches (magic 2): written well or deliberately wrong, and read back field by field.
//!
//! Written here from the published format rather than borrowed from the broker: the test must not share its mistakes.

use crate::tree::Tree;
use anyhow::{Context, Result, bail};
use bytes::{Buf, BufMut, Bytes};
use std::io::{Read, Write};

/// A time in 2023: records carry it unless a case is about time.
pub const T0: i64 = 1_700_000_000_000;
const HEADER_BYTES: usize = 61;
const CRC_AT: usize = 17;
const CRC_COVERS_FROM: usize = 21;
const PLAIN_BYTES_MAX: u64 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    fn of(attributes: i16) -> Option<Codec> {
        Self::ALL.get((attributes & 7) as usize).copied()
    }
}

#[derive(Clone, Debug)]
pub struct Rec {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Rec {
    pub fn new(key: &str, value: &str) -> Rec {
        Rec { key: Some(key.into()), value: Some(value.into()), timestamp: T0, headers: Vec::new() }
    }

    pub fn at(mut self, timestamp: i64) -> Rec {
        self.timestamp = timestamp;
        self
    }
}

/// A batch and what is wrong with it.
#[derive(Clone, Debug)]
pub struct Batch {
    pub records: Vec<Rec>,
    pub codec: Codec,
    pub base_offset: i64,
    pub leader_epoch: i32,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub magic: i8,
    /// Set besides the codec's bits.
    pub attributes: i16,
    pub count: Option<i32>,
    pub last_offset_delta: Option<i32>,
    pub offset_deltas: Option<Vec<i32>>,
    pub length: Option<i32>,
    pub max_timestamp: Option<i64>,
    pub break_crc: bool,
    /// Replaces the (compressed) records.
    pub body: Option<Vec<u8>>,
    /// Bytes cut off the end.
    pub cut: usize,
}

impl Batch {
    pub fn of(records: Vec<Rec>) -> Batch {
        Batch {
            records,
            codec: Codec::None,
            base_offset: 0,
            leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            magic: 2,
            attributes: 0,
            count: None,
            last_offset_delta: None,
            offset_deltas: None,
            length: None,
            max_timestamp: None,
            break_crc: false,
            body: None,
            cut: 0,
        }
    }

    /// `count` small records.
    pub fn small(count: usize) -> Batch {
        Batch::of((0..count).map(|index| Rec::new(&format!("k{index}"), &format!("value {index}"))).collect())
    }

    /// One record of so many bytes that do not compress to nothing.
    pub fn sized(bytes: usize) -> Batch {
        let value = (0..bytes).map(|index| b'a' + (index * 7 % 23) as u8).collect();
        Batch::of(vec![Rec { key: Some(b"k".to_vec()), value: Some(value), timestamp: T0, headers: Vec::new() }])
    }

    pub fn producer(mut self, id: i64, epoch: i16, sequence: i32) -> Batch {
        (self.producer_id, self.producer_epoch, self.base_sequence) = (id, epoch, sequence);
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut Batch)) -> Batch {
        change(&mut self);
        self
    }

    pub fn build(&self) -> Bytes {
        let base_timestamp = self.records.first().map_or(-1, |record| record.timestamp);
        let max = self.records.iter().map(|record| record.timestamp).max().unwrap_or(-1);
        let body = self.body.clone().unwrap_or_else(|| compress(self.codec, &self.plain_records(base_timestamp)));
        let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
        out.put_i64(self.base_offset);
        out.put_i32(self.length.unwrap_or((HEADER_BYTES - 12 + body.len()) as i32));
        out.put_i32(self.leader_epoch);
        out.put_i8(self.magic);
        out.put_u32(0);
        out.put_i16(self.attributes | self.codec as i16);
        out.put_i32(self.last_offset_delta.unwrap_or(self.records.len() as i32 - 1));
        out.put_i64(base_timestamp);
        out.put_i64(self.max_timestamp.unwrap_or(max));
        out.put_i64(self.producer_id);
        out.put_i16(self.producer_epoch);
        out.put_i32(self.base_sequence);
        out.put_i32(self.count.unwrap_or(self.records.len() as i32));
        out.extend_from_slice(&body);
        let crc = crc32c(&out[CRC_COVERS_FROM..]) ^ u32::from(self.break_crc);
        out[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
        out.truncate(out.len().saturating_sub(self.cut));
        out.into()
    }

    fn plain_records(&self, base_timestamp: i64) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, record) in self.records.iter().enumerate() {
            let delta =
                self.offset_deltas.as_ref().and_then(|deltas| deltas.get(index).copied()).unwrap_or(index as i32);
            let mut body = vec![0];
            put_varint(&mut body, record.timestamp - base_timestamp);
            put_varint(&mut body, delta.into());
            put_bytes(&mut body, record.key.as_deref());
            put_bytes(&mut body, record.value.as_deref());
            put_varint(&mut body, record.headers.len() as i64);
            for (name, value) in &record.headers {
                put_bytes(&mut body, Some(name.as_bytes()));
                put_bytes(&mut body, value.as_deref());
            }
            put_varint(&mut out, body.len() as i64);
            out.extend_from_slice(&body);
        }
        out
    }
}

/// What a Fetch answer's `records` hold: whole batches, and the size of a cut one at the end.
pub fn describe(mut bytes: &[u8]) -> Tree {
    let mut batches = Vec::new();
    while let Some(length) = bytes.get(8..12).map(|mut length| length.get_i32()) {
        let Some(batch) = usize::try_from(length).ok().and_then(|length| bytes.get(..length + 12)) else { break };
        batches.push(describe_batch(batch));
        bytes = &bytes[batch.len()..];
    }
    let tail = Tree::word(bytes.len());
    Tree::Struct("Records".into(), vec![("batches".into(), Tree::List(batches)), ("cut_tail_bytes".into(), tail)])
}

fn describe_batch(batch: &[u8]) -> Tree {
    let mut fields: Vec<(String, Tree)> = Vec::new();
    let mut field = |name: &str, value: Tree| fields.push((name.into(), value));
    let Some(mut header) = batch.get(..HEADER_BYTES) else {
        return Tree::Struct("Batch".into(), vec![("short".into(), Tree::Bytes(batch.to_vec()))]);
    };
    field("base_offset", Tree::word(header.get_i64()));
    let _length = header.get_i32();
    field("partition_leader_epoch", Tree::word(header.get_i32()));
    field("magic", Tree::word(header.get_i8()));
    let valid = header.get_u32() == crc32c(&batch[CRC_COVERS_FROM..]);
    field("crc", Tree::word(if valid { "valid" } else { "INVALID" }));
    let attributes = header.get_i16();
    field("attributes", Tree::word(attributes));
    field("last_offset_delta", Tree::word(header.get_i32()));
    let base_timestamp = header.get_i64();
    field("base_timestamp", Tree::word(base_timestamp));
    field("max_timestamp", Tree::word(header.get_i64()));
    field("producer_id", Tree::word(header.get_i64()));
    field("producer_epoch", Tree::word(header.get_i16()));
    field("base_sequence", Tree::word(header.get_i32()));
    field("count", Tree::word(header.get_i32()));
    let body = &batch[HEADER_BYTES..];
    field("payload_crc", Tree::word(crc32c(body)));
    let records = Codec::of(attributes).context("no such codec").and_then(|codec| decompress(codec, body));
    field(
        "records",
        match records.and_then(|plain| describe_records(&plain, base_timestamp)) {
            Ok(records) => Tree::List(records),
            Err(error) => Tree::Word(format!("unreadable: {error:#}")),
        },
    );
    Tree::Struct("Batch".into(), fields)
}

fn describe_records(mut plain: &[u8], base_timestamp: i64) -> Result<Vec<Tree>> {
    let mut records = Vec::new();
    while !plain.is_empty() {
        let length = usize::try_from(get_varint(&mut plain)?)?;
        let mut record = plain.get(..length).context("a record is longer than its batch")?;
        plain = &plain[length..];
        if record.is_empty() {
            bail!("an empty record");
        }
        record.advance(1);
        let timestamp = base_timestamp + get_varint(&mut record)?;
        let delta = get_varint(&mut record)?;
        let key = get_bytes(&mut record)?;
        let value = get_bytes(&mut record)?;
        let mut headers = Vec::new();
        for _ in 0..get_varint(&mut record)? {
            headers.push(get_bytes(&mut record)?);
            headers.push(get_bytes(&mut record)?);
        }
        records.push(Tree::Struct(
            "Record".into(),
            vec![
                ("offset_delta".into(), Tree::word(delta)),
                ("timestamp".into(), Tree::word(timestamp)),
                ("key".into(), key),
                ("value".into(), value),
                ("headers".into(), Tree::List(headers)),
            ],
        ));
    }
    Ok(records)
}

fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

fn get_varint(bytes: &mut &[u8]) -> Result<i64> {
    let mut zigzag = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().context("a varint without its end")?;
        *bytes = rest;
        zigzag |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
        }
    }
    bail!("a varint of more than ten bytes")
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varint(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}

fn get_bytes(bytes: &mut &[u8]) -> Result<Tree> {
    let Ok(length) = usize::try_from(get_varint(bytes)?) else { return Ok(Tree::Null) };
    let found = bytes.get(..length).context("a field is longer than its record")?.to_vec();
    bytes.advance(length);
    Ok(Tree::Bytes(found))
}

fn compress(codec: Codec, plain: &[u8]) -> Vec<u8> {
    let written = (|| -> std::io::Result<Vec<u8>> {
        Ok(match codec {
            Codec::None => plain.to_vec(),
            Codec::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(plain)?;
                encoder.finish()?
            }
            Codec::Snappy => {
                // The framing of snappy-java: magic, version, lowest compatible version, then blocks with their sizes.
                let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
                for block in plain.chunks(32 << 10) {
                    let packed = snap::raw::Encoder::new().compress_vec(block).map_err(std::io::Error::other)?;
                    out.put_u32(packed.len() as u32);
                    out.extend_from_slice(&packed);
                }
                out
            }
            Codec::Lz4 => {
                let mut encoder =
                    lz4::EncoderBuilder::new().block_mode(lz4::BlockMode::Independent).build(Vec::new())?;
                encoder.write_all(plain)?;
                let (out, result) = encoder.finish();
                result?;
                out
            }
            Codec::Zstd => zstd::encode_all(plain, 3)?,
        })
    })();
    written.expect("writing to memory does not fail")
}

fn decompress(codec: Codec, packed: &[u8]) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    match codec {
        Codec::None => plain.extend_from_slice(packed),
        Codec::Gzip => _ = flate2::read::GzDecoder::new(packed).take(PLAIN_BYTES_MAX).read_to_end(&mut plain)?,
        Codec::Snappy => {
            let Some(mut blocks) = packed.strip_prefix(b"\x82SNAPPY\0").and_then(|rest| rest.get(8..)) else {
                return Ok(snap::raw::Decoder::new().decompress_vec(packed)?);
            };
            while blocks.len() >= 4 {
                let length = blocks.get_u32() as usize;
                let block = blocks.get(..length).context("a snappy block is longer than the batch")?;
                plain.extend(snap::raw::Decoder::new().decompress_vec(block)?);
                blocks.advance(length);
            }
        }
        Codec::Lz4 => _ = lz4::Decoder::new(packed)?.take(PLAIN_BYTES_MAX).read_to_end(&mut plain)?,
        Codec::Zstd => _ = zstd::Decoder::new(packed)?.take(PLAIN_BYTES_MAX).read_to_end(&mut plain)?,
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_in_every_codec() {
        for codec in Codec::ALL {
            let mut batch = Batch::small(3).with(|batch| batch.codec = codec);
            batch.records[1].key = None;
            batch.records[2].value = None;
            batch.records[2].headers = vec![("h".into(), None), ("h".into(), Some(vec![0, 1]))];
            let mut bytes = batch.build().to_vec();
            bytes.extend_from_slice(&bytes.clone()[..70]);
            let tree = describe(&bytes);
            assert_eq!(tree.field("cut_tail_bytes").unwrap().as_i64(), Some(70), "{codec:?}");
            let Some(Tree::List(batches)) = tree.field("batches") else { panic!("{tree}") };
            assert_eq!(batches.len(), 1);
            assert_eq!(batches[0].field("crc"), Some(&Tree::word("valid")));
            let Some(Tree::List(records)) = batches[0].field("records") else { panic!("{codec:?}: {tree}") };
            assert_eq!(records.len(), 3);
            assert_eq!(records[0].field("key"), Some(&Tree::Bytes(b"k0".to_vec())));
            assert_eq!(records[1].field("key"), Some(&Tree::Null));
            assert_eq!(records[2].field("timestamp").unwrap().as_i64(), Some(T0));
        }
    }
}

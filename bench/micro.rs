//! What the parts of a request cost by themselves: `cargo bench --bench micro`, or with a part of a name behind it.
//!
//! No disk, no network, one thread. A name tells what is done once, and criterion tells how long that takes and how that differs
//! from the run before.

use bytes::{Bytes, BytesMut};
use corelog::base::config::topic::TopicConfig;
use corelog::base::ids::{LeaderEpoch, Offset, PartitionIndex};
use corelog::log::core::LogCore;
use corelog::log::index::{OffsetIndex, TimeIndex};
use corelog::log::open_files::OpenFiles;
use corelog::log::read::{Located, locate};
use corelog::record::admission::{AdmissionRules, admit};
use corelog::record::batch::{BatchHeader, Codec, crc32c};
use corelog::record::builder::BatchBuilder;
use corelog::record::compression::{Compression, compress, decompress};
use corelog::record::records::Records;
use corelog::wire::encode::{self, encode_with_slices, placeholder};
use corelog::wire::reply::{FileSlice, Piece};
use corelog::wire::{frame, guard};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiKey, FetchResponse, ProduceRequest, RequestHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use smallvec::smallvec;
use std::hint::black_box;
use std::os::fd::AsFd;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

const NOW_MS: i64 = 1_700_000_000_000;
const PRODUCE: i16 = 9;
const FETCH: i16 = 12;

criterion_group! {
    name = all;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2)).sample_size(50);
    targets = checksums, codecs, records, requests, indexes, appends, fetches
}
criterion_main!(all);

/// Half chance, half digits, as compressible as events are.
fn value(bytes: usize, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut value = vec![0; bytes];
    let (chance, text) = value.split_at_mut(bytes / 2);
    random.fill(chance);
    text.fill_with(|| random.digit(10) as u8);
    value
}

fn batch(codec: Codec, records: usize, bytes: usize) -> Bytes {
    let mut random = fastrand::Rng::with_seed(1);
    let mut builder = BatchBuilder::new(Compression::of(codec));
    for _ in 0..records {
        builder.push(NOW_MS, None, Some(&value(bytes, &mut random)), &[]).expect("small enough");
    }
    builder.build().expect("has records")
}

fn checksums(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crc32c");
    for bytes in [100, 1 << 10, 64 << 10, 1 << 20] {
        let content = value(bytes, &mut fastrand::Rng::with_seed(2));
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |b| b.iter(|| crc32c(black_box(&content))));
    }
}

fn codecs(criterion: &mut Criterion) {
    let content = value(64 << 10, &mut fastrand::Rng::with_seed(3));
    let mut group = criterion.benchmark_group("codec, 64 KiB");
    group.throughput(Throughput::Bytes(content.len() as u64));
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let how = Compression::of(codec);
        let compressed = compress(how, &content).expect("compressed");
        group.bench_function(format!("compress {codec:?}"), |b| b.iter(|| compress(how, black_box(&content))));
        let back = || decompress(codec, black_box(&compressed), content.len());
        group.bench_function(format!("decompress {codec:?}"), |b| b.iter(back));
    }
}

fn records(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch of 100 records of 100 B");
    let plain = batch(Codec::None, 100, 100);
    let header = BatchHeader::parse(&plain).expect("a header");
    group.bench_function("parse the header", |b| b.iter(|| BatchHeader::parse(black_box(&plain))));
    group.bench_function("walk the records", |b| {
        b.iter(|| {
            let mut records = Records::new(&header, black_box(&plain)).expect("readable");
            let mut bytes = 0;
            while let Some(record) = records.next().expect("readable") {
                bytes += record.value.map_or(0, <[u8]>::len);
            }
            bytes
        })
    });
    let config = TopicConfig::default();
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
        let bytes = batch(codec, 100, 100);
        let rules = AdmissionRules {
            topic: "topic",
            partition: PartitionIndex(0),
            config: &config,
            produce_version: PRODUCE,
            validate_records: true,
        };
        group.bench_function(format!("admit, {codec:?}"), |b| b.iter(|| admit(black_box(&bytes), &rules, NOW_MS)));
    }
}

/// A Produce request with a batch of one record of 1 KiB for each partition, behind its length.
fn produce(partitions: i32) -> Bytes {
    let records = batch(Codec::None, 1, 1024);
    let of = |index| PartitionProduceData::default().with_index(index).with_records(Some(records.clone()));
    let topic = TopicProduceData::default().with_name(name()).with_partition_data((0..partitions).map(of).collect());
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
    let header = RequestHeader::default()
        .with_request_api_key(ApiKey::Produce as i16)
        .with_request_api_version(PRODUCE)
        .with_client_id(Some(StrBytes::from_static_str("bench")));
    let mut bytes = BytesMut::new();
    header.encode(&mut bytes, ApiKey::Produce.request_header_version(PRODUCE)).expect("encoded");
    request.encode(&mut bytes, PRODUCE).expect("encoded");
    bytes.freeze()
}

fn name() -> TopicName {
    TopicName(StrBytes::from_static_str("topic"))
}

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("produce request, 1 KiB for each partition");
    for partitions in [1, 50] {
        let request = produce(partitions);
        let incoming = frame::decode_header(request.clone()).expect("a header");
        group.bench_function(BenchmarkId::new("header", partitions), |b| {
            b.iter(|| frame::decode_header(black_box(&request).clone()))
        });
        group.bench_function(BenchmarkId::new("guard", partitions), |b| {
            b.iter(|| guard::check(incoming.key, incoming.version, black_box(&incoming.body)))
        });
        group.bench_function(BenchmarkId::new("decode", partitions), |b| {
            b.iter(|| ProduceRequest::decode(&mut black_box(&incoming.body).clone(), PRODUCE))
        });
    }
}

/// Entries of an index whose segment holds 1 GiB.
const ENTRIES: u32 = 1 << 18;

fn indexes(criterion: &mut Criterion) {
    let (mut offsets, mut times) = (OffsetIndex::default(), TimeIndex::default());
    for entry in 1..ENTRIES {
        offsets.push(entry * 4, entry * 4096);
        times.push(NOW_MS + i64::from(entry), entry * 4);
    }
    let mut random = fastrand::Rng::with_seed(4);
    let mut group = criterion.benchmark_group("index of 1 GiB, anywhere");
    group.bench_function("offset", |b| b.iter(|| offsets.position_before(random.u32(..ENTRIES * 4))));
    group.bench_function("time", |b| b.iter(|| times.entry_before(NOW_MS + i64::from(random.u32(..ENTRIES)))));
    let encoded = offsets.encode();
    group.bench_function("decode all of it", |b| b.iter(|| OffsetIndex::decode(black_box(&encoded), 1 << 30)));
}

fn log() -> LogCore {
    LogCore::empty(Rc::from(Path::new("nowhere")), Offset(0))
}

/// Stages so many batches, and takes them as written.
fn append(log: &mut LogCore, config: &TopicConfig, batch: &(BatchHeader, Bytes), batches: usize) {
    for _ in 0..batches {
        log.stage(batch.0, batch.1.clone(), LeaderEpoch(0)).expect("taken");
    }
    while let Some(write) = log.next_write(config, NOW_MS) {
        log.write_completed(&write.segment, config.index_interval_bytes, NOW_MS);
    }
}

fn parsed(bytes: Bytes) -> (BatchHeader, Bytes) {
    (BatchHeader::parse(&bytes).expect("a header"), bytes)
}

fn appends(criterion: &mut Criterion) {
    let config = TopicConfig::default();
    let mut group = criterion.benchmark_group("append, without the write itself");
    for (what, batch) in
        [("1 KiB", parsed(batch(Codec::None, 1, 1024))), ("64 KiB", parsed(batch(Codec::None, 64, 1024)))]
    {
        for batches in [1, 16] {
            group.throughput(Throughput::Elements(batches as u64));
            group.bench_function(format!("{batches} x {what}"), |b| {
                let fresh = || {
                    let mut log = log();
                    append(&mut log, &config, &batch, 1);
                    log
                };
                let step = |log: &mut LogCore| append(log, &config, &batch, batches);
                b.iter_batched_ref(fresh, step, BatchSize::SmallInput);
            });
        }
    }
}

fn fetches(criterion: &mut Criterion) {
    let config = TopicConfig::default();
    let mut group = criterion.benchmark_group("fetch");
    let (mut log, files) = (log(), OpenFiles::new(16));
    let one = parsed(batch(Codec::None, 10, 100));
    append(&mut log, &config, &one, 1000);
    let end = log.written_end();
    // What consumers at the end ask for is known without the file.
    let last = Offset(end.0 - 10);
    group.bench_function("locate the last batch", |b| {
        b.iter(|| match locate(&log, &files, (black_box(last), end), config.index_interval_bytes) {
            Ok(Located::At(span)) => span.end - span.position,
            _ => panic!("the last batch is there"),
        })
    });
    encode::prepare().expect("address space");
    let file: Rc<dyn AsFd> = Rc::new(std::fs::File::open("/dev/null").expect("it is always there"));
    for partitions in [1, 100] {
        group.throughput(Throughput::Elements(partitions as u64));
        group.bench_function(BenchmarkId::new("assemble an answer of slices", partitions), |b| {
            b.iter(|| assemble(partitions, &file))
        });
    }
}

/// An answer with a slice of a file for each partition; its length on the wire.
fn assemble(partitions: usize, file: &Rc<dyn AsFd>) -> usize {
    const SLICE: usize = 16 << 10;
    let of = |index| {
        PartitionData::default()
            .with_partition_index(index)
            .with_high_watermark(1000)
            .with_last_stable_offset(1000)
            .with_log_start_offset(0)
            .with_records(Some(placeholder(SLICE)))
    };
    let topic =
        FetchableTopicResponse::default().with_topic(name()).with_partitions((0..partitions as i32).map(of).collect());
    let response = FetchResponse::default().with_responses(vec![topic]);
    let slice = || smallvec![Piece::File(FileSlice { file: Rc::clone(file), position: 0, length: SLICE })];
    let slices = std::iter::repeat_with(slice).take(partitions);
    encode_with_slices(FETCH, 1, &response, slices).expect("an answer").len()
}

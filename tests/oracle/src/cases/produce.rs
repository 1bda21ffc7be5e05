//! Produce: what is taken, what is refused, and what the log holds then.

use super::{APPEND_TIME, BOUNDED, GZIP, PLAIN, SMALL, UNPACKED, each_version, same_log};
use crate::batches::{Batch, Codec, Rec, T0};
use crate::normalise::now_ms;
use crate::pair::Pair;
use crate::requests::{TIMEOUT_MS, produce, topic_name};
use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::{ProduceRequest, TransactionalId};

pub fn script(pair: &mut Pair) -> Result<()> {
    each_version::<ProduceRequest>(pair, |pair, version| {
        let partition = pair.fresh_partition(PLAIN);
        let one = |pair: &mut Pair, topic: &str, partition: i32, batch: &Batch| -> Result<()> {
            pair.same(version, |_| produce(1, topic, vec![(partition, Some(batch.build()))])).map(drop)
        };
        pair.case("produce");
        one(pair, PLAIN, partition, &Batch::small(1))?;
        one(pair, PLAIN, partition, &Batch::small(3).with(|batch| batch.base_offset = 77))?;
        pair.case("produce-acks");
        for acks in [-1, 2, -2, i16::MAX] {
            pair.same(version, |_| produce(acks, PLAIN, vec![(partition, Some(Batch::small(2).build()))]))?;
        }
        pair.case("produce-acks-0");
        pair.unanswered(version, |_| produce(0, PLAIN, vec![(partition, Some(Batch::small(1).build()))]))?;
        pair.case("produce-codec");
        for codec in Codec::ALL {
            let batch = Batch::small(5).with(|batch| batch.codec = codec);
            one(pair, PLAIN, partition, &batch)?;
        }
        same_log(pair, PLAIN, partition)?;
        nowhere(pair, version, partition)?;
        several(pair, version)?;
        pair.case("produce-append-time");
        let partition = pair.fresh_partition(APPEND_TIME);
        for codec in Codec::ALL {
            one(pair, APPEND_TIME, partition, &Batch::small(2).with(|batch| batch.codec = codec))?;
        }
        same_log(pair, APPEND_TIME, partition)?;
        timestamps(pair, version)?;
        sizes(pair, version)?;
        for (case, topic) in [("produce-recoded-to-gzip", GZIP), ("produce-recoded-to-none", UNPACKED)] {
            pair.case(case);
            let partition = pair.fresh_partition(topic);
            for codec in Codec::ALL {
                one(pair, topic, partition, &Batch::small(20).with(|batch| batch.codec = codec))?;
            }
            same_log(pair, topic, partition)?;
        }
        Ok(())
    })
}

fn nowhere(pair: &mut Pair, version: i16, partition: i32) -> Result<()> {
    let records = Some(Batch::small(1).build());
    pair.case("produce-unknown-topic");
    pair.same(version, |_| produce(1, "nobody", vec![(0, records.clone())]))?;
    pair.case("produce-unknown-partition");
    pair.same(version, |_| produce(1, PLAIN, vec![(9_999, records.clone()), (-1, records.clone())]))?;
    pair.case("produce-bad-topic-name");
    for name in ["", "a b", ".."] {
        pair.same(version, |_| produce(1, name, vec![(0, records.clone())]))?;
    }
    pair.case("produce-nothing");
    pair.same(version, |_| ProduceRequest::default().with_acks(1).with_timeout_ms(TIMEOUT_MS))?;
    pair.case("produce-no-partitions");
    pair.same(version, |_| produce(1, PLAIN, vec![]))?;
    if version == pair.newest::<ProduceRequest>() {
        pair.case("produce-null-records");
        pair.impatient();
        pair.same(version, |_| produce(1, PLAIN, vec![(partition, None)]))?;
    }
    pair.case("produce-empty-records");
    pair.same(version, |_| produce(1, PLAIN, vec![(partition, Some(Bytes::new()))]))?;
    pair.case("produce-transactional-id");
    pair.same(version, |_| {
        let id = TransactionalId(topic_name("t").0);
        produce(-1, PLAIN, vec![(partition, records.clone())]).with_transactional_id(Some(id))
    })?;
    same_log(pair, PLAIN, partition)
}

/// Several partitions and topics in one request, good and bad ones mixed.
fn several(pair: &mut Pair, version: i16) -> Result<()> {
    pair.case("produce-several");
    let (first, second) = (pair.fresh_partition(PLAIN), pair.fresh_partition(PLAIN));
    let good = Some(Batch::small(2).build());
    let bad = Some(Batch::small(2).with(|batch| batch.break_crc = true).build());
    pair.same(version, |_| {
        let mut request = produce(-1, PLAIN, vec![(first, good.clone()), (second, bad.clone()), (9_999, good.clone())]);
        request.topic_data.extend(produce(-1, "nobody", vec![(0, good.clone())]).topic_data);
        request.topic_data.extend(produce(-1, SMALL, vec![(19, good.clone())]).topic_data);
        request
    })?;
    same_log(pair, PLAIN, first)?;
    same_log(pair, PLAIN, second)?;
    pair.case("produce-partition-twice");
    pair.same(version, |_| produce(1, PLAIN, vec![(first, good.clone()), (first, good.clone())]))?;
    pair.case("produce-topic-twice");
    pair.same(version, |_| {
        let mut request = produce(1, PLAIN, vec![(first, good.clone())]);
        request.topic_data.extend(produce(1, PLAIN, vec![(second, good.clone())]).topic_data);
        request
    })?;
    Ok(())
}

fn timestamps(pair: &mut Pair, version: i16) -> Result<()> {
    pair.case("produce-timestamp-bounds");
    let partition = pair.fresh_partition(BOUNDED);
    let now = now_ms();
    let (past, future) = (now - 7_200_000, now + 7_200_000);
    for times in [vec![now], vec![past], vec![future], vec![now, past], vec![past, now, future], vec![-1]] {
        let records = times.iter().map(|&time| Rec::new("k", "v").at(time)).collect();
        let records = Batch::of(records).build();
        pair.same(version, |_| produce(1, BOUNDED, vec![(partition, Some(records.clone()))]))?;
    }
    same_log(pair, BOUNDED, partition)?;
    pair.case("produce-timestamps");
    let partition = pair.fresh_partition(PLAIN);
    for times in [vec![0], vec![-1], vec![-2], vec![T0 + 5, T0, T0 + 9], vec![T0, -1], vec![i64::MAX]] {
        let records = times.iter().map(|&time| Rec::new("k", "v").at(time)).collect();
        let records = Batch::of(records).build();
        pair.same(version, |_| produce(1, PLAIN, vec![(partition, Some(records.clone()))]))?;
    }
    pair.case("produce-max-timestamp-wrong");
    let lying = Batch::small(2).with(|batch| batch.max_timestamp = Some(T0 + 1_000)).build();
    pair.same(version, |_| produce(1, PLAIN, vec![(partition, Some(lying.clone()))]))?;
    same_log(pair, PLAIN, partition)
}

/// At and around max.message.bytes=2000, which counts the whole batch.
fn sizes(pair: &mut Pair, version: i16) -> Result<()> {
    pair.case("produce-size");
    let partition = pair.fresh_partition(SMALL);
    let overhead = Batch::sized(1_500).build().len() - 1_500;
    for bytes in [2_000 - overhead, 2_001 - overhead, 5_000] {
        let records = Batch::sized(bytes).build();
        pair.same(version, |_| produce(1, SMALL, vec![(partition, Some(records.clone()))]))?;
    }
    let packed = Batch::sized(20_000).with(|batch| batch.codec = Codec::Gzip).build();
    pair.same(version, |_| produce(1, SMALL, vec![(partition, Some(packed.clone()))]))?;
    same_log(pair, SMALL, partition)
}

/// Batches with one thing wrong each.
pub fn broken(pair: &mut Pair) -> Result<()> {
    each_version::<ProduceRequest>(pair, |pair, version| {
        let mut partition = pair.fresh_partition(PLAIN);
        for (name, records) in broken_batches() {
            pair.case(format!("broken-{name}"));
            pair.same(version, |_| produce(1, PLAIN, vec![(partition, Some(records.clone()))]))?;
            if pair.report.last_differed() {
                partition = pair.fresh_partition(PLAIN);
            }
        }
        pair.case("broken-log");
        same_log(pair, PLAIN, partition)
    })
}

fn broken_batches() -> Vec<(String, Bytes)> {
    let mut out = Vec::new();
    let mut add = |name: &str, count: usize, change: &dyn Fn(&mut Batch)| {
        out.push((name.to_owned(), Batch::small(count).with(change).build()));
    };
    add("crc", 1, &|batch| batch.break_crc = true);
    for magic in [-1, 0, 1, 3, 127] {
        add(&format!("magic-{magic}"), 1, &|batch| batch.magic = magic);
    }
    for (count, delta) in
        [(0, -1), (0, 0), (1, 1), (3, 1), (1, 2), (-1, 1), (i32::MAX, 1), (2, 0), (2, -5), (i32::MAX, i32::MAX - 1)]
    {
        add(&format!("count-{count}-delta-{delta}"), 2, &|batch| {
            (batch.count, batch.last_offset_delta) = (Some(count), Some(delta));
        });
    }
    add("count-more-than-records", 2, &|batch| (batch.count, batch.last_offset_delta) = (Some(3), Some(2)));
    add("count-less-than-records", 3, &|batch| (batch.count, batch.last_offset_delta) = (Some(2), Some(1)));
    add("no-records", 0, &|_| {});
    add("deltas-backward", 3, &|batch| batch.offset_deltas = Some(vec![0, 2, 1]));
    add("deltas-same", 3, &|batch| batch.offset_deltas = Some(vec![0, 0, 0]));
    add("deltas-with-gap", 2, &|batch| batch.offset_deltas = Some(vec![0, 5]));
    add("deltas-with-gap-compressed", 2, &|batch| (batch.codec, batch.offset_deltas) = (Codec::Gzip, Some(vec![0, 5])));
    for length in [-1, 0, 1, 13, 48, 49, i32::MAX] {
        add(&format!("length-{length}"), 1, &|batch| batch.length = Some(length));
    }
    for cut in [1, 10, 40, 68] {
        add(&format!("cut-{cut}"), 1, &|batch| batch.cut = cut);
    }
    add("append-time-attribute", 1, &|batch| batch.attributes = 8);
    add("transactional", 1, &|batch| batch.attributes = 16);
    add("transactional-with-producer", 1, &|batch| {
        batch.attributes = 16;
        (batch.producer_id, batch.producer_epoch, batch.base_sequence) = (4_000, 0, 0);
    });
    add("control", 1, &|batch| batch.attributes = 32);
    add("control-with-producer", 1, &|batch| {
        batch.attributes = 48;
        (batch.producer_id, batch.producer_epoch) = (4_001, 0);
    });
    add("delete-horizon", 1, &|batch| batch.attributes = 64);
    add("unknown-attributes", 1, &|batch| batch.attributes = 0x7f80);
    for codec in [5, 6, 7] {
        add(&format!("codec-{codec}"), 1, &|batch| batch.attributes = codec);
    }
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        add(&format!("body-not-{codec:?}"), 1, &|batch| {
            (batch.codec, batch.body) = (codec, Some(b"not packed at all".to_vec()))
        });
        add(&format!("body-empty-{codec:?}"), 1, &|batch| (batch.codec, batch.body) = (codec, Some(Vec::new())));
    }
    add("body-empty", 1, &|batch| batch.body = Some(Vec::new()));
    add("body-garbage", 1, &|batch| batch.body = Some(vec![0xff; 20]));
    add("body-negative-record", 1, &|batch| batch.body = Some(vec![0x01, 0, 0, 0]));
    add("body-trailing-bytes", 1, &|batch| batch.body = Some([&[14, 0, 0, 0, 1, 1, 0, 0][..], &[9, 9, 9]].concat()));
    add("body-short-record", 1, &|batch| batch.body = Some(vec![10, 0, 0, 0, 1, 1]));
    add("body-headers-negative", 1, &|batch| batch.body = Some(vec![12, 0, 0, 0, 1, 1, 1]));
    add("body-record-attributes", 1, &|batch| batch.body = Some(vec![12, 0x55, 0, 0, 1, 1, 0]));
    add("leader-epoch", 1, &|batch| batch.leader_epoch = 9);
    let two = [Batch::small(1).build(), Batch::small(2).build()].concat();
    out.push(("two-batches".into(), two.into()));
    let tail = [&Batch::small(1).build()[..], &[0; 7]].concat();
    out.push(("trailing-bytes".into(), tail.into()));
    let tail = [&Batch::small(1).build()[..], &Batch::small(1).build()[..50]].concat();
    out.push(("trailing-half-batch".into(), tail.into()));
    for bytes in [1, 11, 12, 17, 60] {
        out.push((format!("only-{bytes}-bytes"), Batch::small(1).build().slice(..bytes)));
    }
    out.push(("zeros".into(), Bytes::from_static(&[0; 100])));
    out
}

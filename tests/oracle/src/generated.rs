//! Sequences of random requests over a few topics. A sequence depends on the seed and its number alone, so a failed
//! run is repeated by its seed. A sequence ends at its first difference: what follows would differ for the same reason.

use crate::batches::{Batch, Codec, Rec, T0};
use crate::cases::{make_topics, same_log};
use crate::pair::{Pair, Side};
use crate::requests::{FetchFrom, TIMEOUT_MS, fetch, from, list_offsets, produce, topic, topic_name};
use anyhow::Result;
use fastrand::Rng;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::{
    DeleteRecordsRequest, FetchRequest, InitProducerIdRequest, ListOffsetsRequest, ProduceRequest,
};
use kafka_protocol::protocol::Request;

const STEPS: usize = 25;
const PARTITIONS: i32 = 2;
const KINDS: &[&[(&str, &str)]] = &[
    &[],
    &[("message.timestamp.type", "LogAppendTime")],
    &[("max.message.bytes", "600")],
    &[("compression.type", "lz4")],
    &[("message.timestamp.before.max.ms", "1000")],
];

/// What the sequence knows so far, on both sides.
struct Story {
    topics: Vec<String>,
    /// Ids, epoch and next sequence of each producer; the sequences by partition.
    producers: Vec<([i64; 2], i16, [[i32; PARTITIONS as usize]; KINDS.len()])>,
    /// Id and epoch of the open fetch session.
    session: Option<([i32; 2], i32)>,
}

pub fn run(pair: &mut Pair, seed: u64, sequences: u32) -> Result<()> {
    for number in 0..sequences {
        let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(u64::from(number)));
        pair.case(format!("generated-{seed}-{number}"));
        // A few sequences share their topics, and so go on in logs that already hold something.
        let topics: Vec<String> = (0..KINDS.len()).map(|kind| format!("generated-{}-{kind}", number / 10)).collect();
        if number % 10 == 0 {
            make_topics(
                pair,
                topics.iter().zip(KINDS).map(|(name, configs)| topic(name, PARTITIONS, configs)).collect(),
            )?;
        }
        let mut story = Story { topics, producers: Vec::new(), session: None };
        let mut differed = false;
        for _ in 0..STEPS {
            step(pair, &mut rng, &mut story)?;
            differed = pair.report.last_failed();
            if differed {
                break;
            }
        }
        if !differed {
            let (kind, partition) = (rng.usize(..KINDS.len()), rng.i32(0..PARTITIONS));
            same_log(pair, &story.topics[kind], partition)?;
        }
    }
    Ok(())
}

fn step(pair: &mut Pair, rng: &mut Rng, story: &mut Story) -> Result<()> {
    match rng.u32(..100) {
        0..40 => random_produce(pair, rng, story),
        40..46 => {
            let version = any_version::<InitProducerIdRequest>(pair, rng);
            let request = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(1);
            let answers = pair.same(version, |_| request.clone())?;
            story.producers.push((answers.each(|answer| answer.producer_id.0), 0, Default::default()));
            Ok(())
        }
        46..72 => random_fetch(pair, rng, story),
        72..82 => session_fetch(pair, rng, story),
        82..94 => {
            let version = any_version::<ListOffsetsRequest>(pair, rng);
            let name = place(rng, story).0;
            let count = rng.usize(1..4);
            let asked: Vec<_> = (0..count)
                .map(|_| {
                    let time = *choose(rng, &[-1, -2, 0, T0, T0 + 3, T0 + 50, T0 + 1_000_000]);
                    (rng.i32(-1..=PARTITIONS), time, *choose(rng, &[-1, -1, -1, 0, 1]))
                })
                .collect();
            pair.same(version, |_| list_offsets(version, &name, &asked)).map(drop)
        }
        _ => {
            let version = any_version::<DeleteRecordsRequest>(pair, rng);
            let (name, partition) = place(rng, story);
            let offset = *choose(rng, &[-1, 0, 1, 3, 7, 20, 1_000, -2]);
            let place = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset);
            let topic = DeleteRecordsTopic::default().with_name(topic_name(&name)).with_partitions(vec![place]);
            pair.same(version, |_| {
                DeleteRecordsRequest::default().with_topics(vec![topic.clone()]).with_timeout_ms(TIMEOUT_MS)
            })
            .map(drop)
        }
    }
}

fn random_produce(pair: &mut Pair, rng: &mut Rng, story: &mut Story) -> Result<()> {
    let version = any_version::<ProduceRequest>(pair, rng);
    let kind = rng.usize(..KINDS.len());
    let partition = rng.i32(0..PARTITIONS);
    let mut batch = random_batch(rng, version);
    let mut ids = [-1; 2];
    if !story.producers.is_empty() && rng.u32(..3) > 0 {
        let chosen = rng.usize(..story.producers.len());
        let (known, epoch, sequences) = &mut story.producers[chosen];
        ids = *known;
        let next = &mut sequences[kind][partition as usize];
        batch.producer_epoch = *epoch;
        batch.base_sequence = *next;
        match rng.u32(..12) {
            0 => batch.base_sequence += 1,
            1 => batch.base_sequence = (*next - batch.records.len() as i32).max(0),
            2 => {
                *epoch += 1;
                batch.producer_epoch = *epoch;
                *sequences = Default::default();
                batch.base_sequence = 0;
                sequences[kind][partition as usize] = batch.records.len() as i32;
            }
            3 => batch.producer_epoch = (*epoch - 1).max(0),
            _ => *next += batch.records.len() as i32,
        }
    }
    let acks = *choose(rng, &[1, 1, -1]);
    let name = story.topics[kind].clone();
    pair.same(version, |side| {
        let batch = batch.clone().with(|batch| batch.producer_id = ids[side.index]);
        produce(acks, &name, vec![(partition, Some(batch.build()))])
    })
    .map(drop)
}

fn random_batch(rng: &mut Rng, version: i16) -> Batch {
    let records = (0..rng.usize(1..6)).map(|_| {
        let size = *choose(rng, &[0, 1, 10, 100, 700]);
        let letters = |rng: &mut Rng, count: usize| (0..count).map(|_| rng.lowercase() as u8).collect::<Vec<u8>>();
        Rec {
            key: rng.bool().then(|| letters(rng, 3)),
            value: (rng.u32(..8) > 0).then(|| letters(rng, size)),
            timestamp: T0 + rng.i64(0..100),
            headers: (0..rng.usize(..2)).map(|_| ("h".to_owned(), rng.bool().then(|| letters(rng, 4)))).collect(),
        }
    });
    let mut batch = Batch::of(records.collect());
    batch.codec = *choose(rng, if version >= 7 { &Codec::ALL } else { &Codec::ALL[..4] });
    match rng.u32(..25) {
        0 => batch.break_crc = true,
        1 => batch.count = Some(rng.i32(-1..9)),
        2 => batch.last_offset_delta = Some(rng.i32(-1..9)),
        3 => batch.cut = rng.usize(1..30),
        4 => batch.magic = rng.i8(-1..4),
        _ => {}
    }
    batch
}

fn random_fetch(pair: &mut Pair, rng: &mut Rng, story: &Story) -> Result<()> {
    let version = any_version::<FetchRequest>(pair, rng);
    let mut places: Vec<FetchFrom> = (0..rng.usize(1..5)).map(|_| random_place(rng, story)).collect();
    // Topics together, each partition once: what a client sends.
    places.sort_by(|left, right| (&left.topic, left.partition).cmp(&(&right.topic, right.partition)));
    places.dedup_by(|left, right| (&left.topic, left.partition) == (&right.topic, right.partition));
    let max_bytes = *choose(rng, &[0, 1, 200, 1_000, 1 << 20]);
    let isolation = rng.i8(0..2);
    pair.same(version, |side| fetch(side, version, &places).with_max_bytes(max_bytes).with_isolation_level(isolation))
        .map(drop)
}

fn session_fetch(pair: &mut Pair, rng: &mut Rng, story: &mut Story) -> Result<()> {
    let low = (*pair.versions::<FetchRequest>().start()).max(13);
    let version = rng.i16(low..=pair.newest::<FetchRequest>());
    let (ids, epoch) = story.session.unwrap_or(([0; 2], 0));
    let epoch = if rng.u32(..10) == 0 { epoch + 1 } else { epoch };
    let place = random_place(rng, story);
    let send = |side: &Side| {
        let places = std::slice::from_ref(&place);
        fetch(side, version, if epoch > 1 { &places[..0] } else { places })
            .with_session_id(ids[side.index])
            .with_session_epoch(epoch)
    };
    let answers = pair.same(version, send)?;
    let good = answers.all(|answer| answer.error_code == 0 && answer.session_id > 0);
    story.session = good.then(|| (answers.each(|answer| answer.session_id), epoch + 1));
    Ok(())
}

fn random_place(rng: &mut Rng, story: &Story) -> FetchFrom {
    let (name, partition) = place(rng, story);
    let offset = *choose(rng, &[0, 0, 1, 2, 3, 5, 8, 13, 40, 1_000]);
    let max_bytes = *choose(rng, &[0, 1, 100, 300, 1 << 20, 1 << 20]);
    FetchFrom { max_bytes, epoch: *choose(rng, &[-1, -1, 0, 1]), ..from(&name, partition, offset) }
}

fn place(rng: &mut Rng, story: &Story) -> (String, i32) {
    let unknown = rng.u32(..30) == 0;
    let partition = if unknown { 77 } else { rng.i32(0..PARTITIONS) };
    (choose(rng, &story.topics).clone(), partition)
}

fn any_version<R: Request>(pair: &Pair, rng: &mut Rng) -> i16 {
    rng.i16(pair.versions::<R>())
}

fn choose<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(..from.len())]
}

//! Idempotent producers: duplicates, gaps, epochs, unknown producers; and where their ids come from.

use super::{PLAIN, each_version, same_log};
use crate::batches::Batch;
use crate::pair::Pair;
use crate::requests::{produce, text};
use anyhow::Result;
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest, ProducerId, TransactionalId};

/// A step: producer epoch, base sequence, record count.
type Step = (i16, i32, usize);

const STORIES: &[(&str, &[Step])] = &[
    ("in-order", &[(0, 0, 1), (0, 1, 3), (0, 4, 2)]),
    ("duplicate-of-last", &[(0, 0, 2), (0, 0, 2), (0, 2, 1), (0, 2, 1)]),
    (
        "duplicates-of-the-last-five",
        &[
            (0, 0, 1),
            (0, 1, 1),
            (0, 2, 1),
            (0, 3, 1),
            (0, 4, 1),
            (0, 5, 1),
            (0, 1, 1),
            (0, 3, 1),
            (0, 5, 1),
            (0, 0, 1),
            (0, 6, 1),
        ],
    ),
    ("part-of-a-duplicate", &[(0, 0, 4), (0, 0, 2), (0, 2, 2), (0, 1, 3), (0, 2, 4)]),
    ("gap", &[(0, 0, 1), (0, 2, 1), (0, 1, 1)]),
    ("first-is-not-0", &[(0, 5, 1), (0, 6, 1), (0, 4, 1)]),
    ("new-epoch", &[(0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 1)]),
    ("new-epoch-not-from-0", &[(0, 0, 1), (1, 1, 1), (1, 0, 1)]),
    ("old-epoch", &[(3, 0, 1), (2, 0, 1), (2, 1, 1), (3, 1, 1)]),
    ("negative-sequence", &[(0, -1, 1), (0, 0, 1), (0, -2, 1)]),
    ("negative-epoch", &[(-1, 0, 1), (0, 0, 1), (-2, 1, 1)]),
    ("wrap", &[(0, i32::MAX - 1, 1), (0, i32::MAX, 1), (0, 0, 1), (0, 1, 1), (0, i32::MAX, 1)]),
    ("wrap-within-a-batch", &[(0, i32::MAX - 1, 4), (0, 2, 1), (0, i32::MAX - 1, 4)]),
];

pub fn script(pair: &mut Pair) -> Result<()> {
    let newest = pair.newest::<InitProducerIdRequest>();
    each_version::<ProduceRequest>(pair, |pair, version| {
        for (name, steps) in STORIES {
            pair.case(format!("idempotence-{name}"));
            let answers = pair.same(newest, |_| init())?;
            let ids = answers.each(|answer| answer.producer_id.0);
            let partition = pair.fresh_partition(PLAIN);
            for &(epoch, sequence, count) in *steps {
                pair.same(version, |side| {
                    let batch = Batch::small(count).producer(ids[side.index], epoch, sequence);
                    produce(-1, PLAIN, vec![(partition, Some(batch.build()))])
                })?;
            }
            same_log(pair, PLAIN, partition)?;
        }
        Ok(())
    })
}

fn init() -> InitProducerIdRequest {
    InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000)
}

pub fn init_producer_id(pair: &mut Pair) -> Result<()> {
    each_version::<InitProducerIdRequest>(pair, |pair, version| {
        pair.case("init-producer-id");
        let answers = pair.same(version, |_| init())?;
        pair.same(version, |_| init().with_transaction_timeout_ms(0))?;
        pair.same(version, |_| init().with_transaction_timeout_ms(-1))?;
        if version >= 3 {
            let ids = answers.each(|answer| answer.producer_id.0);
            let with = |id: i64, epoch: i16| init().with_producer_id(ProducerId(id)).with_producer_epoch(epoch);
            pair.case("init-producer-id-again");
            pair.same(version, |side| with(ids[side.index], 0))?;
            pair.same(version, |_| with(987_654_321, 3))?;
            pair.case("init-producer-id-half-given");
            pair.same(version, |side| with(ids[side.index], -1))?;
            pair.same(version, |_| with(-1, 0))?;
            pair.same(version, |_| with(-2, -2))?;
        }
        pair.case("init-producer-id-empty-transactional-id");
        pair.same(version, |_| init().with_transactional_id(Some(TransactionalId(text("")))))?;
        Ok(())
    })
}

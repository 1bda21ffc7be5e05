//! Fetch outside sessions: offsets, limits, epochs, isolation, unknown places, long polls.

use super::{PLAIN, each_version};
use crate::batches::Batch;
use crate::pair::Pair;
use crate::requests::{FetchFrom, fetch, from, produce, text};
use anyhow::Result;
use kafka_protocol::messages::{BrokerId, FetchRequest, ProduceRequest};
use std::time::Duration;
use uuid::Uuid;

/// Sizes of the batches that every partition of these cases holds, and their record counts: offsets 0 to 7.
const COUNTS: [usize; 4] = [1, 3, 2, 2];

pub fn script(pair: &mut Pair) -> Result<()> {
    let first = filled(pair)?;
    let second = filled(pair)?;
    let empty = pair.fresh_partition(PLAIN);
    let batch_bytes = Batch::small(COUNTS[0]).build().len() as i32;
    each_version::<FetchRequest>(pair, |pair, version| {
        pair.case("fetch-offset");
        for offset in [0, 1, 2, 3, 4, 7, 8, 9, -1, -2, i64::MAX] {
            pair.same(version, |side| fetch(side, version, &[from(PLAIN, first, offset)]))?;
        }
        pair.same(version, |side| fetch(side, version, &[from(PLAIN, empty, 0)]))?;
        pair.same(version, |side| fetch(side, version, &[from(PLAIN, empty, 1)]))?;
        pair.case("fetch-partition-limit");
        for bytes in [0, 1, 12, batch_bytes - 1, batch_bytes, batch_bytes + 1, 200, 300, i32::MAX] {
            let limited = FetchFrom { max_bytes: bytes, ..from(PLAIN, first, 0) };
            let second = FetchFrom { partition: second, ..limited.clone() };
            pair.same(version, |side| fetch(side, version, &[limited.clone(), second.clone()]))?;
        }
        pair.case("fetch-partition-limit-negative");
        pair.same(version, |side| fetch(side, version, &[FetchFrom { max_bytes: -1, ..from(PLAIN, first, 0) }]))?;
        pair.case("fetch-total-limit");
        for bytes in [0, 1, -1, batch_bytes, 200, 400, 600, i32::MAX] {
            pair.same(version, |side| {
                let places = [from(PLAIN, empty, 0), from(PLAIN, first, 0), from(PLAIN, second, 1)];
                fetch(side, version, &places).with_max_bytes(bytes)
            })?;
        }
        pair.case("fetch-isolation");
        for isolation in [0, 1, 2, -1] {
            if !(0..=1).contains(&isolation) {
                pair.case("fetch-isolation-unknown");
            }
            pair.same(version, |side| fetch(side, version, &[from(PLAIN, first, 0)]).with_isolation_level(isolation))?;
        }
        nowhere(pair, version, first)?;
        epochs(pair, version, first)?;
        if version >= 11 {
            pair.case("fetch-rack");
            pair.same(version, |side| fetch(side, version, &[from(PLAIN, first, 0)]).with_rack_id(text("elsewhere")))?;
        }
        Ok(())
    })
}

/// A fresh partition with the usual batches.
pub fn filled(pair: &mut Pair) -> Result<i32> {
    let partition = pair.fresh_partition(PLAIN);
    for count in COUNTS {
        add(pair, PLAIN, partition, count)?;
    }
    Ok(partition)
}

pub fn add(pair: &mut Pair, topic: &str, partition: i32, count: usize) -> Result<()> {
    let version = pair.newest::<ProduceRequest>();
    pair.same(version, |_| produce(-1, topic, vec![(partition, Some(Batch::small(count).build()))])).map(drop)
}

fn nowhere(pair: &mut Pair, version: i16, known: i32) -> Result<()> {
    pair.case("fetch-unknown-partition");
    pair.same(version, |side| {
        fetch(side, version, &[from(PLAIN, 9_999, 0), from(PLAIN, -1, 0), from(PLAIN, known, 0)])
    })?;
    pair.case("fetch-unknown-topic");
    pair.same(version, |side| {
        let mut request = fetch(side, version, &[from(PLAIN, known, 0), from("nobody", 0, 0)]);
        if version >= 13 {
            request.topics[1].topic_id = Uuid::from_u128(0xabcd);
        }
        request
    })?;
    pair.case("fetch-nil-topic");
    pair.same(version, |side| fetch(side, version, &[from("", 0, 0)]))?;
    pair.case("fetch-nothing");
    pair.same(version, |side| fetch(side, version, &[]))?;
    pair.case("fetch-twice");
    pair.same(version, |side| {
        let mut request = fetch(side, version, &[from(PLAIN, known, 0), from(PLAIN, known, 4)]);
        let topic = request.topics[0].clone();
        request.topics.push(topic);
        request
    })?;
    pair.case("fetch-as-debugging-consumer");
    pair.same(version, |side| {
        let mut request = fetch(side, version, &[from(PLAIN, known, 0)]);
        if version < 15 {
            request.replica_id = BrokerId(-2);
        } else {
            request.replica_state.replica_id = BrokerId(-2);
        }
        request
    })?;
    Ok(())
}

fn epochs(pair: &mut Pair, version: i16, known: i32) -> Result<()> {
    if version >= 9 {
        pair.case("fetch-leader-epoch");
        for epoch in [0, 1, 5, -2] {
            pair.same(version, |side| fetch(side, version, &[FetchFrom { epoch, ..from(PLAIN, known, 0) }]))?;
        }
    }
    if version >= 12 {
        pair.case("fetch-last-epoch");
        for (last_fetched_epoch, offset) in [(0, 0), (0, 8), (0, 9), (1, 0), (1, 8), (5, 100), (-2, 0)] {
            pair.same(version, |side| {
                fetch(side, version, &[FetchFrom { last_fetched_epoch, epoch: 0, ..from(PLAIN, known, offset) }])
            })?;
        }
    }
    Ok(())
}

/// Long polls: they end by data, by an error at once, or by time.
pub fn waiting(pair: &mut Pair) -> Result<()> {
    const WAIT: Duration = Duration::from_millis(150);
    let partition = filled(pair)?;
    each_version::<FetchRequest>(pair, |pair, version| {
        let empty = pair.fresh_partition(PLAIN);
        let polling = |side: &crate::pair::Side, places: &[FetchFrom], min: i32, wait: Duration| {
            fetch(side, version, places).with_min_bytes(min).with_max_wait_ms(wait.as_millis() as i32)
        };
        pair.case("fetch-wait-for-nothing");
        pair.same_wait(version, WAIT, |side| polling(side, &[from(PLAIN, empty, 0)], 1, WAIT))?;
        if version < pair.newest::<FetchRequest>() - 1 && version % 4 != 0 {
            return Ok(());
        }
        pair.case("fetch-wait-not");
        pair.same_wait(version, WAIT, |side| polling(side, &[from(PLAIN, empty, 0)], 0, WAIT))?;
        pair.same_wait(version, WAIT, |side| polling(side, &[from(PLAIN, partition, 0)], 1, WAIT))?;
        pair.case("fetch-wait-error-answers-at-once");
        pair.same_wait(version, WAIT, |side| {
            polling(side, &[from(PLAIN, empty, 0), from(PLAIN, empty + 1, 99)], 1, WAIT)
        })?;
        pair.same_wait(version, WAIT, |side| polling(side, &[from(PLAIN, 9_999, 0)], 1, WAIT))?;
        pair.case("fetch-wait-for-more-than-there-is");
        pair.same_wait(version, WAIT, |side| polling(side, &[from(PLAIN, partition, 0)], 1 << 20, WAIT))?;
        pair.case("fetch-wait-min-above-limits");
        let limited = FetchFrom { max_bytes: 100, ..from(PLAIN, partition, 0) };
        pair.same_wait(version, WAIT, |side| polling(side, std::slice::from_ref(&limited), 1 << 20, WAIT))?;
        pair.case("fetch-wait-negative");
        pair.same(version, |side| polling(side, &[from(PLAIN, empty, 0)], 1, Duration::ZERO).with_max_wait_ms(-1))?;
        pair.same(version, |side| polling(side, &[from(PLAIN, empty, 0)], -1, Duration::ZERO))?;

        pair.case("fetch-wait-until-produced");
        let long = Duration::from_secs(10);
        let pending = pair.start(1, version, |side| polling(side, &[from(PLAIN, empty, 0)], 1, long))?;
        std::thread::sleep(Duration::from_millis(60));
        add(pair, PLAIN, empty, 2)?;
        pair.finish(pending, Some(long))?;
        pair.case("fetch-wait-until-enough");
        let two_batches = 2 * Batch::small(2).build().len() as i32;
        let pending = pair.start(1, version, |side| polling(side, &[from(PLAIN, empty, 2)], two_batches, long))?;
        add(pair, PLAIN, empty, 2)?;
        std::thread::sleep(Duration::from_millis(60));
        add(pair, PLAIN, empty, 2)?;
        pair.finish(pending, Some(long))?;
        Ok(())
    })
}

//! ListOffsets, OffsetForLeaderEpoch and DeleteRecords.

use super::fetch::{add, filled};
use super::{APPEND_TIME, PLAIN, each_version, same_log};
use crate::batches::{Batch, Rec, T0};
use crate::pair::Pair;
use crate::requests::{TIMEOUT_MS, create, list_offsets as list, produce, topic, topic_name};
use anyhow::Result;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DeleteRecordsRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest,
    ProduceRequest,
};
use std::thread::sleep;
use std::time::Duration;

pub fn list_offsets(pair: &mut Pair) -> Result<()> {
    let times = [[T0, T0 + 10, T0 + 20], [T0 + 15, T0 + 40, T0 + 5], [T0 + 40, T0 + 2, T0 + 30]];
    let partition = pair.fresh_partition(PLAIN);
    let stamped = pair.fresh_partition(APPEND_TIME);
    let empty = pair.fresh_partition(PLAIN);
    let newest = pair.newest::<ProduceRequest>();
    for times in times {
        let batch = Batch::of(times.iter().map(|&time| Rec::new("k", "v").at(time)).collect()).build();
        pair.same(newest, |_| produce(1, PLAIN, vec![(partition, Some(batch.clone()))]))?;
        pair.same(newest, |_| produce(1, APPEND_TIME, vec![(stamped, Some(batch.clone()))]))?;
        // The greatest of the times of append is the first of equal ones: no two batches are to come in one millisecond.
        sleep(Duration::from_millis(3));
    }
    each_version::<ListOffsetsRequest>(pair, |pair, version| {
        pair.case("list-offsets");
        for timestamp in [-1, -2, -3, -4, -5, -6, -100, 0, T0, T0 + 1, T0 + 15, T0 + 16, T0 + 40, T0 + 41, i64::MAX] {
            for place in [partition, empty] {
                pair.same(version, |_| list(version, PLAIN, &[(place, timestamp, -1)]))?;
            }
        }
        pair.case("list-offsets-append-time");
        for timestamp in [-1, -2, -3, 0, T0, i64::MAX] {
            pair.same(version, |_| list(version, APPEND_TIME, &[(stamped, timestamp, -1)]))?;
        }
        pair.case("list-offsets-unknown");
        pair.same(version, |_| list(version, PLAIN, &[(9_999, -1, -1), (-1, -1, -1), (partition, -1, -1)]))?;
        pair.same(version, |_| list(version, "nobody", &[(0, -1, -1)]))?;
        pair.same(version, |_| list(version, "bad name", &[(0, -1, -1)]))?;
        pair.case("list-offsets-twice");
        pair.same(version, |_| list(version, PLAIN, &[(partition, -1, -1), (partition, -2, -1)]))?;
        pair.case("list-offsets-nothing");
        pair.same(version, |_| list(version, PLAIN, &[]))?;
        if version >= 2 {
            pair.case("list-offsets-isolation");
            for isolation in [1, 2, -1] {
                if isolation != 1 {
                    pair.case("list-offsets-isolation-unknown");
                }
                pair.same(version, |_| list(version, PLAIN, &[(partition, -1, -1)]).with_isolation_level(isolation))?;
            }
        }
        if version >= 4 {
            pair.case("list-offsets-epoch");
            for epoch in [0, 1, 7, -2] {
                for timestamp in [-1, -2, T0 + 15] {
                    pair.same(version, |_| list(version, PLAIN, &[(partition, timestamp, epoch)]))?;
                }
            }
        }
        pair.case("list-offsets-debugging");
        pair.same(version, |_| list(version, PLAIN, &[(partition, -1, -1)]).with_replica_id(BrokerId(-2)))?;
        Ok(())
    })
}

/// The record with the greatest timestamp is deleted, then the next batch's, in the middle of it.
pub fn after_deletion(pair: &mut Pair) -> Result<()> {
    let newest = pair.newest::<ProduceRequest>();
    let version = pair.newest::<ListOffsetsRequest>();
    let partition = pair.fresh_partition(PLAIN);
    for times in [[T0 + 90, T0, T0 + 60], [T0 + 1, T0 + 80, T0 + 2]] {
        let batch = Batch::of(times.iter().map(|&time| Rec::new("k", "v").at(time)).collect()).build();
        pair.same(newest, |_| produce(1, PLAIN, vec![(partition, Some(batch.clone()))]))?;
    }
    let deleted = pair.newest::<DeleteRecordsRequest>();
    for offset in [1, 3, 5, 6] {
        let place = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset);
        let topic = DeleteRecordsTopic::default().with_name(topic_name(PLAIN)).with_partitions(vec![place]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS);
        pair.same(deleted, |_| request.clone())?;
        pair.case("list-offsets-after-deletion");
        for timestamp in [-1, -2, T0, T0 + 2, T0 + 50, T0 + 60, T0 + 70] {
            pair.same(version, |_| list(version, PLAIN, &[(partition, timestamp, -1)]))?;
        }
        pair.case("list-offsets-greatest-deleted");
        pair.same(version, |_| list(version, PLAIN, &[(partition, -3, -1)]))?;
    }
    Ok(())
}

pub fn leader_epochs(pair: &mut Pair) -> Result<()> {
    let partition = filled(pair)?;
    let empty = pair.fresh_partition(PLAIN);
    each_version::<OffsetForLeaderEpochRequest>(pair, |pair, version| {
        let ask = |name: &str, places: &[(i32, i32, i32)]| {
            let partitions = places.iter().map(|&(index, current, epoch)| {
                let place = OffsetForLeaderPartition::default().with_partition(index);
                place.with_current_leader_epoch(current).with_leader_epoch(epoch)
            });
            let topic =
                OffsetForLeaderTopic::default().with_topic(topic_name(name)).with_partitions(partitions.collect());
            let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
            if version >= 3 { request.with_replica_id(BrokerId(-1)) } else { request }
        };
        for place in [partition, empty] {
            for epoch in [0, 1, 5, -1, -2] {
                pair.case(if epoch < -1 { "leader-epoch-negative" } else { "leader-epoch" });
                for current in [-1, 0, 1, -2] {
                    pair.same(version, |_| ask(PLAIN, &[(place, current, epoch)]))?;
                }
            }
        }
        pair.case("leader-epoch-unknown");
        pair.same(version, |_| ask(PLAIN, &[(9_999, -1, 0), (partition, -1, 0)]))?;
        pair.same(version, |_| ask("nobody", &[(0, -1, 0)]))?;
        pair.case("leader-epoch-twice");
        pair.same(version, |_| ask(PLAIN, &[(partition, -1, 0), (partition, 1, 0)]))?;
        Ok(())
    })
}

pub fn delete_records(pair: &mut Pair) -> Result<()> {
    pair.case("delete-records-of-compacted-create");
    let compacted = pair.fresh_topic("compacted");
    let created = pair.newest::<CreateTopicsRequest>();
    let answers = pair.same(created, |_| create(vec![topic(&compacted, 1, &[("cleanup.policy", "compact")])]))?;
    let has_compacted = answers.all(|answer| answer.topics.iter().all(|topic| topic.error_code == 0));
    each_version::<DeleteRecordsRequest>(pair, |pair, version| {
        let ask = |name: &str, places: &[(i32, i64)]| {
            let partitions = places.iter().map(|&(index, offset)| {
                DeleteRecordsPartition::default().with_partition_index(index).with_offset(offset)
            });
            let topic = DeleteRecordsTopic::default().with_name(topic_name(name)).with_partitions(partitions.collect());
            DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS)
        };
        pair.case("delete-records");
        let (one, two) = (filled(pair)?, filled(pair)?);
        let empty = pair.fresh_partition(PLAIN);
        for offset in [0, 2, 1, 9, -2, i64::MAX, 8] {
            pair.same(version, |_| ask(PLAIN, &[(one, offset)]))?;
            same_log(pair, PLAIN, one)?;
        }
        add(pair, PLAIN, one, 2)?;
        same_log(pair, PLAIN, one)?;
        pair.case("delete-records-to-the-end");
        pair.same(version, |_| ask(PLAIN, &[(two, -1), (empty, -1), (9_999, 0), (-1, 0)]))?;
        same_log(pair, PLAIN, two)?;
        pair.case("delete-records-twice");
        pair.same(version, |_| ask(PLAIN, &[(one, 9), (one, 8)]))?;
        pair.case("delete-records-unknown");
        pair.same(version, |_| ask("nobody", &[(0, 0)]))?;
        pair.case("delete-records-nothing");
        pair.same(version, |_| ask(PLAIN, &[]))?;
        if has_compacted {
            pair.case("delete-records-of-compacted");
            pair.same(version, |_| ask(&compacted, &[(0, 0)]))?;
        }
        Ok(())
    })
}

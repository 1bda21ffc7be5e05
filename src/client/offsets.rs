//! Offsets by name or by time (ListOffsets), asked of each partition's leader.

use super::admin::topic_name;
use super::cluster::{Cluster, Retry, Target};
use super::error::ClientError;
use super::metadata::Topics;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, ListOffsetsResponse};
use std::collections::BTreeMap;

/// Which records a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
}

impl Isolation {
    pub fn wire(self) -> i8 {
        match self {
            Isolation::ReadUncommitted => 0,
            Isolation::ReadCommitted => 1,
        }
    }
}

/// What to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    Earliest,
    /// The high watermark, or the last stable offset for committed reads.
    Latest,
    /// The first record at or after this time, in ms since the epoch.
    Timestamp(i64),
}

impl Lookup {
    fn wire(self) -> i64 {
        match self {
            Lookup::Latest => -1,
            Lookup::Earliest => -2,
            // Negative values are reserved for special lookups; nothing is older than the epoch.
            Lookup::Timestamp(ms) => ms.max(0),
        }
    }
}

/// The offset of each partition; None where no record is that young.
pub fn list_offsets(
    cluster: &mut Cluster,
    topic: &str,
    partitions: &[i32],
    lookup: Lookup,
    isolation: Isolation,
) -> Result<BTreeMap<i32, Option<i64>>, ClientError> {
    let mut retry = Retry::new(cluster.options().retry_for);
    let mut found = BTreeMap::new();
    loop {
        let missing: Vec<i32> = partitions.iter().copied().filter(|p| !found.contains_key(p)).collect();
        if missing.is_empty() {
            return Ok(found);
        }
        let known = found.len();
        match attempt(cluster, topic, &missing, lookup, isolation, &mut found) {
            Err(error) => retry.pause(error)?,
            Ok(()) if found.len() > known => {}
            // Asking again at once, for ever, would be all that is left.
            Ok(()) => {
                let partition = missing.first().copied().unwrap_or_default();
                let reason = format!("offsets of {topic}-{partition}: the broker's answer leaves the partition out");
                return Err(ClientError::Invalid(reason));
            }
        }
    }
}

/// Asks every leader once; what was learned is kept in `found` even if another leader failed.
fn attempt(
    cluster: &mut Cluster,
    topic: &str,
    missing: &[i32],
    lookup: Lookup,
    isolation: Isolation,
    found: &mut BTreeMap<i32, Option<i64>>,
) -> Result<(), ClientError> {
    let mut failure = None;
    for (leader, partitions) in leaders(cluster, topic, missing)? {
        let build = |version: i16| {
            let partition =
                |p: &i32| ListOffsetsPartition::default().with_partition_index(*p).with_timestamp(lookup.wire());
            let topic = ListOffsetsTopic::default()
                .with_name(topic_name(topic))
                .with_partitions(partitions.iter().map(partition).collect());
            let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
            if version >= 2 { request.with_isolation_level(isolation.wire()) } else { request }
        };
        let outcome =
            cluster.try_call(Target::Broker(leader), build).and_then(|answer| take(topic, missing, &answer, found));
        if let Err(error) = outcome {
            failure = Some(error);
        }
    }
    failure.map_or(Ok(()), Err)
}

fn take(
    topic: &str,
    missing: &[i32],
    answer: &ListOffsetsResponse,
    found: &mut BTreeMap<i32, Option<i64>>,
) -> Result<(), ClientError> {
    let mut failure = None;
    let asked = answer.topics.iter().flat_map(|t| &t.partitions).filter(|p| missing.contains(&p.partition_index));
    for p in asked {
        match ClientError::from_code(format!("offsets of {topic}-{}", p.partition_index), p.error_code, None) {
            Some(error) => failure = Some(error),
            None => {
                found.insert(p.partition_index, Some(p.offset).filter(|o| *o >= 0));
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

/// These partitions by their leader, from fresh metadata.
pub fn leaders(cluster: &mut Cluster, topic: &str, partitions: &[i32]) -> Result<BTreeMap<i32, Vec<i32>>, ClientError> {
    let metadata = cluster.try_metadata(&Topics::Named(vec![topic.to_owned()]), false)?;
    let unknown = |what: String| {
        ClientError::like(ResponseError::UnknownTopicOrPartition, what, "the cluster does not have it")
            .retriable_only_for(&[])
    };
    let info = metadata.topics.get(topic).ok_or_else(|| unknown(format!("topic {topic}")))?;
    if let Some(code) = info.error {
        let final_codes_excluded = [ResponseError::LeaderNotAvailable];
        let error = ClientError::from_code(format!("topic {topic}"), code.code(), None);
        return Err(error.expect("invariant: the code is not 0").retriable_only_for(&final_codes_excluded));
    }
    let mut by_leader: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for wanted in partitions {
        let partition = info.partitions.iter().find(|p| p.index == *wanted);
        let partition = partition.ok_or_else(|| unknown(format!("partition {topic}-{wanted}")))?;
        let leader = partition.leader.ok_or_else(|| {
            let reason = "the partition has no leader at this moment";
            ClientError::like(ResponseError::LeaderNotAvailable, format!("{topic}-{wanted}"), reason)
        })?;
        by_leader.entry(leader).or_default().push(*wanted);
    }
    Ok(by_leader)
}

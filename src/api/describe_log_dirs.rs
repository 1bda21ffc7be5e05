//! DescribeLogDirs (key 35).
//!
//! Versions: 1-4. A log directory that is offline is answered with KAFKA_STORAGE_ERROR and nothing else, as in Kafka. Every shard is a broker of its own, so a shard tells its own partitions only; the space of a log
//! directory (4, KIP-827) is that of the file system, which the shards share.

use super::context::ShardContext;
use super::registry::Served;
use super::{Outcome, RequestInfo};
use crate::base::disks::Health;
use crate::partition::table::LocalTopic;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::rc::Rc;

pub const SERVED: Served = Served { key: 35, advertised_min: 1, accepted_min: 1, max: 4, handle };

const UNKNOWN_VOLUME_BYTES: i64 = -1;

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: DescribeLogDirsRequest| {
        let asked = request.topics.as_deref().map(Asked::of);
        let disks = &context.partitions.shared().disks;
        let results = disks.all().map(|(dir, health)| match health {
            Health::Offline => offline(dir),
            Health::Sound | Health::Full => describe(context, dir, asked.as_ref()),
        });
        let results = results.collect();
        info.reply(&DescribeLogDirsResponse::default().with_results(results))
    })
}

/// The partitions that a request names; of a topic that is named twice, all of both.
struct Asked<'a>(HashMap<&'a str, HashSet<i32>>);

impl<'a> Asked<'a> {
    fn of(topics: &'a [DescribableLogDirTopic]) -> Self {
        let mut by_name: HashMap<&str, HashSet<i32>> = HashMap::new();
        for topic in topics {
            by_name.entry(topic.topic.as_str()).or_default().extend(&topic.partitions);
        }
        Asked(by_name)
    }
}

fn offline(dir: &Path) -> DescribeLogDirsResult {
    DescribeLogDirsResult::default()
        .with_error_code(ResponseError::KafkaStorageError.code())
        .with_log_dir(StrBytes::from_string(dir.display().to_string()))
        .with_total_bytes(UNKNOWN_VOLUME_BYTES)
        .with_usable_bytes(UNKNOWN_VOLUME_BYTES)
}

/// `asked`: None for all partitions.
fn describe(context: &ShardContext, dir: &Path, asked: Option<&Asked>) -> DescribeLogDirsResult {
    let mut topics = Vec::new();
    for local in context.partitions.topics().values() {
        let asked = match asked {
            None => None,
            Some(Asked(topics)) => match topics.get(&*local.topic.name) {
                Some(partitions) => Some(partitions),
                None => continue,
            },
        };
        let partitions = partitions_in(local, dir, asked);
        if !partitions.is_empty() {
            let name = TopicName(StrBytes::from_string(local.topic.name.to_string()));
            topics.push(DescribeLogDirsTopic::default().with_name(name).with_partitions(partitions));
        }
    }
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let (total, usable) = volume(dir).unwrap_or((UNKNOWN_VOLUME_BYTES, UNKNOWN_VOLUME_BYTES));
    DescribeLogDirsResult::default()
        .with_log_dir(StrBytes::from_string(dir.display().to_string()))
        .with_topics(topics)
        .with_total_bytes(total)
        .with_usable_bytes(usable)
}

fn partitions_in(local: &LocalTopic, dir: &Path, asked: Option<&HashSet<i32>>) -> Vec<DescribeLogDirsPartition> {
    let wanted = |index: i32| asked.is_none_or(|asked| asked.contains(&index));
    let here = local.partitions().filter(|partition| wanted(partition.index().0) && partition.home().log_dir == dir);
    here.map(|partition| {
        let size = i64::try_from(partition.core().size()).unwrap_or(i64::MAX);
        DescribeLogDirsPartition::default().with_partition_index(partition.index().0).with_partition_size(size)
    })
    .collect()
}

/// Total and usable bytes of the file system.
fn volume(dir: &Path) -> Option<(i64, i64)> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(stat.f_frsize)).unwrap_or(i64::MAX);
    Some((bytes(stat.f_blocks), bytes(stat.f_bavail)))
}
